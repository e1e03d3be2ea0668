"""A trained actor as a folder that runs without the program that trained it.

    path = export.write("actor", network=config, observation_spec=..., action_spec=...,
                        params=agent.params(trained.run.learner))

    config.json      what the inputs are, the network, versions, SHA-256 of the files
    actor.npz        the parameters that acting needs, as plain arrays
    numpy_actor/     with these it acts where NumPy is: `Actor.load(path)`
    step.stablehlo   one step for `jax.export.deserialize`, as `load(path)` uses it
    step.onnx        one step for any runtime of ONNX, if it was asked for

All forms compute what the agent's `greedy` does, clipped to the bounds of actions, and
the policy besides, without the critic. Statistics of observations, their clip, masks,
scales, bounds and where integers begin are inside, as they were at that moment. Reading
runs nothing that is in the folder: see `numpy_actor.Actor.load`.
"""

import io
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxrl_par import numpy_actor
from jaxrl_par.export import onnx_form
from jaxrl_par.export.files import RUNTIME, ExportError, save
from jaxrl_par.export.step import PLATFORMS, Acting, Arrays, acting, lowered, step_of
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.networks.plain import (
    described,
    named_statistics,
    unknown,
    without_critic,
)
from jaxrl_par.numpy_actor import ARRAYS, FORMAT, ActorError
from jaxrl_par.training.comparison import named
from jaxrl_par.types import Action, Carry, Obs, Params, Specs

ONNX = "step.onnx"
_STEPS = "step*.stablehlo"
_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "jaxrl-par")

First = Bool[Array | np.ndarray, " B"]


class ExportedActor(NamedTuple):
    """An actor that knows nothing of its network but the compiled step."""

    config: dict[str, Any]
    initial_carry: Callable[[int], Carry]
    """Empty memory for so many environments, a tuple of leaves [B, ...]."""
    step: Callable[[Obs, First, Carry], tuple[Action, dict[str, Array], Carry]]
    """(obs, first, carry) -> (action, the policy's parameters by name, carry); the
    action is the policy's mode, or the nearest one within the bounds"""


def write(
    path: str | Path,
    *,
    network: NetworkConfig,
    observation_spec: Specs,
    action_spec: Specs,
    params: Params,
    batch_sizes: Sequence[int] | None = None,
    numpy: bool = True,
    onnx: bool = False,
    clip: float = 10.0,
    overwrite: bool = False,
) -> Path:
    """Writes the folder of an actor, in place of one that is there, and returns it.

    Args:
      params: those of `actor_critic` with this config and specs, or what
        `normalize_observations` makes of them.
      batch_sizes: numbers of environments of JAX's form; by default any, but for gtrxl.
      numpy: with the form for NumPy; without it, any network can be exported.
      onnx: with that for runtimes of ONNX, which the extra `onnx` writes.
      clip: as `normalize_observations` was given it.
      overwrite: replace files of the same names that no export wrote, too.

    Raises:
      ExportError: the folder has other content, which is left as it is; the parameters
        are not the network's; NumPy's form or ONNX does not know the network; or the
        extra is missing.
      DiskFullError: the folder is no whole actor, which `load` tells.
    """
    actor = acting(network, observation_spec, action_spec)
    seen = getattr(params, "statistics", None)
    arrays = _needed(actor, params if seen is None else params.inner)
    if seen is not None:
        found = named_statistics(seen, described(*actor.parts)["observations"])
        arrays |= {name: np.asarray(x) for name, x in found.items()}
    told = {"normalization": None if seen is None else {"clip": clip}}
    forms = {"numpy": numpy, "onnx": onnx, "batch_sizes": batch_sizes}
    return put(Path(path), actor, arrays, told, **forms, overwrite=overwrite)


def put(
    path: Path,
    actor: Acting,
    arrays: Arrays,
    told: Mapping[str, Any],
    *,
    batch_sizes: Sequence[int] | None,
    numpy: bool,
    onnx: bool,
    overwrite: bool,
) -> Path:
    """As `write`, of what the actor's step needs by name.

    Args:
      told: what the config says besides.
    """
    config = _describe(actor) | dict(told)
    config |= {"numpy": numpy, "onnx": None}
    config["batch_sizes"] = list(batch_sizes) if batch_sizes else None
    if numpy:
        _check_numpy(config["network"])
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    files = {ARRAYS: file.getvalue()}
    if onnx:
        files[ONNX], config["onnx"] = onnx_form.written(config, arrays)
    if numpy:
        files |= _runtime()
    step = step_of(actor, config)
    for batch in config["batch_sizes"] or [None]:
        files[_step_name(batch)] = lowered(step, arrays, actor, batch)
    save(path, files, config, overwrite)
    return path


def load(path: str | Path, donate_carry: bool = False) -> ExportedActor:
    """The JAX form of an actor, compiled when it is first called.

    Args:
      donate_carry: `step` uses its carry up, so that a large one is not copied.

    Raises:
      ExportError: the folder is damaged, or no actor that this version can read.
    """
    try:
        config = numpy_actor.read_config(path)
        arrays = jax.device_put(numpy_actor.read_arrays(path, config))
        sizes = config["batch_sizes"]
        steps = {
            batch: _compiled(path, config, arrays, batch, donate_carry)
            for batch in sizes or [None]
        }
    except ActorError as error:
        raise ExportError(str(error)) from error

    def initial_carry(num_envs: int) -> Carry:
        return tuple(
            jnp.zeros((num_envs, *leaf["shape"]), leaf["dtype"])
            for leaf in config["carry"]
        )

    def step(obs: Obs, first: First, carry: Carry):
        size = len(first) if sizes else None
        if size not in steps:
            raise ExportError(f"{path} was exported for batches of {sizes}, not {size}")
        return steps[size](obs, first, carry)

    return ExportedActor(config, initial_carry, step)


def _compiled(path, config, arrays, batch, donate_carry: bool) -> Callable:
    name = _step_name(batch)
    data = numpy_actor.read_file(path, config, name)
    try:
        exported = jax.export.deserialize(bytearray(data))
    # Parsers of JAX, flatbuffers and MLIR have errors of their own.
    except Exception as error:
        raise ExportError(
            f"jax {jax.__version__} cannot read {Path(path) / name}, which jax"
            f" {config['versions']['jax']} wrote: {error}. Export with the older one"
        ) from error

    def step(obs: Obs, first: First, carry: Carry):
        leaves = jax.tree.leaves(obs)
        actions, policy, after = exported.call(arrays, leaves, first, list(carry))
        return numpy_actor.action_of(config["action"], actions), policy, tuple(after)

    return jax.jit(step, donate_argnums=2 if donate_carry else ())


def _needed(actor: Acting, params: Params) -> Arrays:
    """The parameters by name, without those that only values depend on."""
    expected = named(actor.parameters)
    found = {name: np.asarray(x) for name, x in named(params).items()}
    if not actor.config.shared:
        # A policy that was learned beside critics of its own has none to show.
        expected, found = without_critic(expected), without_critic(found)
    for name in expected | found:
        there, wanted = (
            f"{x.dtype} {x.shape}" if x is not None else "nothing"
            for x in (found.get(name), expected.get(name))
        )
        if there != wanted:
            raise ExportError(
                "the parameters are not those of this network with these specs:"
                f" {name} is {there} there and {wanted} in the network"
            )
    return found


def _describe(actor: Acting) -> dict[str, Any]:
    carry = jax.tree.leaves(actor.carry)
    return {
        "format": FORMAT,
        **described(*actor.parts),
        "carry": [{"shape": x.shape[1:], "dtype": str(x.dtype)} for x in carry],
        "inputs": {
            "parameters": f"arrays of {ARRAYS} by name",
            "obs": "list of the observations above, in their order, [B, *shape]",
            "first": "bool [B], where an episode starts: memory is cleared",
            "carry": "list of the leaves above, [B, *shape], zeros at the start",
        },
        "outputs": "the policy's mode within the bounds, its parameters, and carry",
        "platforms": PLATFORMS,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):  # a checkout that is not installed
            found[name] = version(name)
    return found


def _check_numpy(network: Mapping[str, Any]) -> None:
    if wrong := unknown(network):
        raise ExportError(
            f"the form for NumPy has no {', and no '.join(wrong)}. With numpy=False"
            " the form for JAX is written alone"
        )


def _runtime() -> dict[str, bytes]:
    """The form for NumPy, by paths in the folder."""
    folder = Path(numpy_actor.__file__).parent
    return {f"{RUNTIME}/{x.name}": x.read_bytes() for x in folder.glob("*.py")}


def _step_name(batch: int | None) -> str:
    return _STEPS.replace("*", "" if batch is None else f"_{batch}")
