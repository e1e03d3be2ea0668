"""What a run has learned, read from a checkpoint without what only training needs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxrl_par.lazy import late
from jaxrl_par.loops import Run
from jaxrl_par.training.comparison import differences, named
from jaxrl_par.training.failures import CheckpointError
from jaxrl_par.training.manifests import (
    Kinds,
    Leaves,
    check_sums,
    is_key,
    kinds,
    leaves_of,
)
from jaxrl_par.training.steps import Steps
from jaxrl_par.training.words import option

if TYPE_CHECKING:
    import orbax.checkpoint as ocp
else:
    ocp = late("orbax.checkpoint")


def read_learned(
    steps: Steps,
    step: int,
    like: Run,
    member: int | None,
    join: Callable[[Run], Run] | None = None,
) -> Run:
    """A run of one step, on the first device.

    Args:
      like: a run of the same program as shapes, without what is local.
      member: of a population.
      join: makes one run of all members, where none is named.

    Raises:
      DamagedError: the step cannot be trusted.
      CheckpointError: there is no such member, or it is of another program.
    """
    manifest = steps.read_manifest(step)
    size = _population_size(steps.path(step), manifest["leaves"], kinds(like))
    if member is not None or size is None or join is None:
        _check_member(steps.directory, member, size)
    lead = () if size is None else (size,)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype), like
    )
    implementations = {}

    def as_data(run: Run) -> Leaves:
        # Shapes of keys do not tell of which kind they are; while tracing, keys do.
        for name, x in named(run).items():
            if is_key(x):
                implementations[name] = jax.random.key_impl(x)
        return leaves_of(run)

    data = jax.eval_shape(as_data, like)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = {name: x for name, x in data.items() if x.size}
    arguments = ocp.args.PyTreeRestore(
        target,
        restore_args=dict.fromkeys(target, ocp.ArrayRestoreArgs(sharding=here)),
        partial_restore=True,
    )
    restored = steps.read_state(step, arguments)
    for name, x in data.items():
        restored.setdefault(name, jnp.zeros(x.shape, x.dtype))
    for name, kind in implementations.items():
        restored[name] = jax.random.wrap_key_data(restored[name], impl=kind)
    ordered = [restored[name] for name in named(like)]
    run = jax.tree.unflatten(jax.tree.structure(like), ordered)
    check_sums(kinds(run), jax.device_get(leaves_of(run)), manifest)
    if size is None:
        return run
    if member is None and join is not None:
        return join(run)
    return jax.tree.map(lambda x: x[member], run)


def _population_size(path: Path, leaves: Mapping[str, Any], kinds: Kinds) -> int | None:
    """The number of members, which are along the first axis of all leaves; None if the
    leaves are those of one run.

    Raises:
      CheckpointError: they are neither.
    """
    there = {n: (x["dtype"], x["shape"]) for n, x in leaves.items() if n in kinds}
    if there == kinds:
        return None
    sizes = {tuple(shape[:1]) for _, shape in there.values()}
    if len(sizes) == 1 and (size := next(iter(sizes))):
        members = {n: (dtype, [*size, *shape]) for n, (dtype, shape) in kinds.items()}
        if there == members:
            return size[0]
    name, (old, new) = next(iter(differences(there, kinds).items()))
    raise CheckpointError(
        f"{path} is of another experiment or config: {name} is {old} there, {new} here"
    )


def _check_member(directory: Path, member: int | None, size: int | None) -> None:
    if size is None:
        if member is not None:
            raise CheckpointError(
                f"{directory} is of one run and no population: there is no member"
                f" {member}"
            )
    elif member is None or not 0 <= member < size:
        raise CheckpointError(
            f"{directory} is of a population: {option('member')} must be 0 to"
            f" {size - 1}, got {member}"
        )
