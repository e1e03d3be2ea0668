"""A trained actor as a folder that runs without the program that trained it.

    path = export.write("actor", network=config, observation_spec=..., action_spec=...,
                        params=agent.params(trained.run.learner))

    config.json      what the inputs are, the network, versions, SHA-256 of the files
    actor.npz        the parameters that acting needs, as plain arrays
    numpy_actor.py   with these it acts where NumPy is: `Actor.load(path)`
    step.stablehlo   one step for `jax.export.deserialize`, as `load(path)` uses it

Both forms compute what the agent's `greedy` does, clipped to the bounds of actions, and
the policy besides, without the critic. Reading runs nothing that is in the folder: see
`numpy_actor.Actor.load`.
"""

import io
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxrl_par import numpy_actor
from jaxrl_par.networks import Network, NetworkConfig, actor_critic
from jaxrl_par.networks.plain import (
    described,
    named_statistics,
    unknown,
    without_critic,
)
from jaxrl_par.numpy_actor import ARRAYS, CONFIG, FORMAT, ActorError
from jaxrl_par.training.comparison import named
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import make_folder, write_json, writing
from jaxrl_par.types import (
    Action,
    Box,
    Carry,
    Obs,
    Params,
    Spec,
    Specs,
    TimeStep,
    example,
)

_RUNTIME = Path(numpy_actor.__file__)
_STEPS = "step*.stablehlo"
_CACHE = "__pycache__"
_BEGUN = f"{CONFIG}.begun"
_PLATFORMS = ("cpu", "cuda", "tpu")
_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "jaxrl-par")

Arrays = dict[str, np.ndarray]
First = Bool[Array | np.ndarray, " B"]


class ExportError(TrainingError):
    """An actor cannot be written or read."""


class ExportedActor(NamedTuple):
    """An actor that knows nothing of its network but the compiled step."""

    config: dict[str, Any]
    initial_carry: Callable[[int], Carry]
    """Empty memory for so many environments, a tuple of leaves [B, ...]."""
    step: Callable[[Obs, First, Carry], tuple[Action, dict[str, Array], Carry]]
    """(obs, first, carry) -> (action, the policy's parameters by name, carry); the
    action is the policy's mode, or the nearest one within the bounds"""


class _Actor(NamedTuple):
    """The network to export, and what it reads."""

    config: NetworkConfig
    network: Network
    observation_spec: Specs
    action_spec: Specs
    example: TimeStep
    """A step of one environment."""

    @property
    def halves(self) -> bool:
        """Its carry is a pair, and only the first one is the policy's."""
        return self.config.memory != "none" and not self.config.shared

    @property
    def parameters(self) -> Any:
        """Their shapes."""
        return jax.eval_shape(self.network.init, jax.random.key(0), self.example)

    @property
    def carry(self) -> Carry:
        """Memory of the policy in one environment, leaves [1, ...]."""
        carry = self.network.initial_carry(1)
        return carry[0] if self.halves else carry


def write(
    path: str | Path,
    *,
    network: NetworkConfig,
    observation_spec: Specs,
    action_spec: Specs,
    params: Params,
    batch_sizes: Sequence[int] | None = None,
    numpy: bool = True,
    clip: float = 10.0,
    overwrite: bool = False,
) -> Path:
    """Writes the folder of an actor, in place of one that is there, and returns it.

    Args:
      params: those of `actor_critic` with this config and specs, or what
        `normalize_observations` makes of them.
      batch_sizes: numbers of environments of JAX's form; by default any, but for gtrxl.
      numpy: with the form for NumPy; without it, any network can be exported.
      clip: as `normalize_observations` was given it.
      overwrite: replace files of the same names that no export wrote, too.

    Raises:
      ExportError: the folder has other content, which is left as it is; the parameters
        are not the network's; or NumPy's form does not know the network.
      DiskFullError: the folder is no whole actor, which `load` tells.
    """
    path, built = Path(path), actor_critic(observation_spec, action_spec, network)
    none = jnp.zeros(1, bool)
    first = TimeStep(example(observation_spec, 1), first=none, last=none)
    actor = _Actor(network, built, observation_spec, action_spec, first)
    seen = getattr(params, "statistics", None)
    arrays = _needed(actor, params if seen is None else params.inner)
    config = _describe(actor) | {
        "numpy": numpy,
        "batch_sizes": list(batch_sizes) if batch_sizes else None,
        "normalization": None if seen is None else {"clip": clip},
    }
    if numpy:
        _check_numpy(config["network"])
    if seen is not None:
        found = named_statistics(seen, config["observations"])
        arrays |= {name: np.asarray(x) for name, x in found.items()}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    files = {ARRAYS: file.getvalue()}
    if numpy:
        files[_RUNTIME.name] = _RUNTIME.read_bytes()
    step = _step(actor, config)
    for batch in config["batch_sizes"] or [None]:
        files[_step_name(batch)] = _lowered(step, arrays, actor, batch)
    _save(path, files, config, overwrite)
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
        action, policy, after = exported.call(arrays, leaves, first, list(carry))
        return action, policy, tuple(after)

    return jax.jit(step, donate_argnums=2 if donate_carry else ())


def _step(actor: _Actor, config: Mapping[str, Any]) -> Callable:
    """(arrays, observations, first, carry) -> (action, policy, carry), of plain lists.

    JAX would ask for a name of every NamedTuple in the signature, wherever it is read.
    """
    trees = (actor.parameters, actor.carry, actor.example.obs)
    params_tree, carry_tree, obs_tree = map(jax.tree.structure, trees)
    expected = named(actor.parameters).items()

    def step(arrays, obs, first, carry):
        # Nothing that is returned depends on the parameters that are not there.
        params = params_tree.unflatten(
            arrays.get(name, jnp.zeros(x.shape, x.dtype)) for name, x in expected
        )
        obs = [_normalized(arrays, i, x, config) for i, x in enumerate(obs)]
        row = TimeStep(obs_tree.unflatten(obs), first, last=jnp.zeros_like(first))
        memory = carry_tree.unflatten(carry)
        memory = (memory, memory) if actor.halves else memory
        (policy, _), memory = actor.network.apply(params, memory, row)
        memory = memory[0] if actor.halves else memory
        action = _within(actor.action_spec, policy.mode())
        return action, policy._asdict(), jax.tree.leaves(memory)

    return step


def _within(spec: Spec, action: Array) -> Array:
    """The nearest action within the bounds: a robot may have nobody else to clip it."""
    if not isinstance(spec, Box):
        return action
    low, high = (jnp.broadcast_to(x, action.shape) for x in spec.inner)
    return jnp.clip(action, low, high).astype(action.dtype)


def _normalized(arrays, index: int, x: Array, config: Mapping[str, Any]) -> Array:
    """The input as `algorithms.normalize` shows it."""
    if f"statistics.mean.{index}" not in arrays:
        return x
    mean, variance = (
        jnp.broadcast_to(arrays[f"statistics.{n}.{index}"], x.shape)
        for n in ("mean", "variance")
    )
    clip = config["normalization"]["clip"]
    return jnp.clip((x - mean) * jax.lax.rsqrt(variance + 1e-8), -clip, clip)


def _lowered(step: Callable, arrays: Arrays, actor: _Actor, batch: int | None) -> bytes:
    """StableHLO of the step, for one or any number of environments."""
    size = jax.export.symbolic_shape("batch")[0] if batch is None else batch

    def rows(tree: Any) -> list[jax.ShapeDtypeStruct]:
        return [
            jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
            for x in jax.tree.leaves(tree)
        ]

    shapes = {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in arrays.items()}
    (first,) = rows(actor.example.first)
    export = jax.export.export(jax.jit(step), platforms=_PLATFORMS)
    try:
        exported = export(shapes, rows(actor.example.obs), first, rows(actor.carry))
    except jax.errors.InconclusiveDimensionOperation as error:
        raise ExportError(
            f"memory = {actor.config.memory} is not computed alike for all numbers of"
            " environments: say with batch_sizes for which to export it"
        ) from error
    return bytes(exported.serialize())


def _needed(actor: _Actor, params: Params) -> Arrays:
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


def _describe(actor: _Actor) -> dict[str, Any]:
    carry = jax.tree.leaves(actor.carry)
    parts = actor.observation_spec, actor.action_spec, actor.config
    return {
        "format": FORMAT,
        **described(*parts),
        "carry": [{"shape": x.shape[1:], "dtype": str(x.dtype)} for x in carry],
        "inputs": {
            "parameters": f"arrays of {ARRAYS} by name",
            "obs": "list of the observations above, in their order, [B, *shape]",
            "first": "bool [B], where an episode starts: memory is cleared",
            "carry": "list of the leaves above, [B, *shape], zeros at the start",
        },
        "outputs": "the policy's mode within the bounds, its parameters, and carry",
        "platforms": _PLATFORMS,
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


def _step_name(batch: int | None) -> str:
    return _STEPS.replace("*", "" if batch is None else f"_{batch}")


def _save(
    path: Path, files: Mapping[str, bytes], config: Mapping[str, Any], overwrite: bool
) -> None:
    """Writes the config last: a folder without one is not whole.

    It is there from the start under another name. So what a write left that did not
    come to its end is known as ours, too.
    """
    config = {**config, "files": {n: sha256(x).hexdigest() for n, x in files.items()}}
    make_folder(path)
    owned = _owned(path)
    there = {x.name for x in path.iterdir()}
    # Python leaves the last one when the form for NumPy is imported from here.
    kept = there - owned - {_CACHE} - (files.keys() | {CONFIG} if overwrite else set())
    if kept and not overwrite:
        raise ExportError(
            f"{path} holds other things than an actor that was exported, such as"
            f" {min(kept)}: it was left as it is. Choose another folder, or say"
            " overwrite=True, which replaces files of the same names"
        )
    shutil.rmtree(path / _CACHE, ignore_errors=True)
    for name in owned - {CONFIG, _BEGUN}:
        (path / name).unlink(missing_ok=True)
    write_json(path / _BEGUN, config | {"sha256": numpy_actor.config_hash(config)})
    (path / CONFIG).unlink(missing_ok=True)
    for name, data in files.items():
        with writing(path / name, len(data)):
            (path / name).write_bytes(data)
    with writing(path / CONFIG, 0):
        (path / _BEGUN).replace(path / CONFIG)


def _owned(path: Path) -> set[str]:
    """Names in the folder of what exports wrote, and nobody changed since."""
    # Nobody else names a file so.
    owned, there = {f"{_BEGUN}.new"}, {x.name for x in path.iterdir() if x.is_file()}
    for name in (CONFIG, _BEGUN):
        try:
            config = numpy_actor.parsed_config(path / name)
        except ActorError:
            continue  # none, or somebody else's
        owned.add(name)
        for file in config["files"].keys() & there:
            digest = sha256((path / file).read_bytes()).hexdigest()
            # Of what was begun, a file may be cut off.
            if name == _BEGUN or digest == config["files"][file]:
                owned.add(file)
    return owned & there
