"""Many agents in one program: seeds, hyperparameters, or both.

Each member is a whole run of its own, with its environments, learner, key and counters;
they meet nowhere, so member i computes what it would compute alone. Shapes are shared;
numbers can differ between members because a config may hold traced ones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from jaxrl_par import random
from jaxrl_par.axis import Axis
from jaxrl_par.errors import lacking, not_a_seed, refuse_any
from jaxrl_par.loops import Program, Run
from jaxrl_par.types import Metrics, PRNGKey

Hyperparameters = dict[str, Array | np.ndarray]
"""Leaves [P]: a number for each member, its `seed` perhaps among them."""

Scores = Float[Array, " P"] | Float[np.ndarray, " P"]


class Member(NamedTuple):
    """One agent, taken out of its population."""

    run: Run
    """Ready to be acted with, evaluated, saved or trained further by `program`."""
    hyperparameters: dict[str, float]
    program: Program


class Population(NamedTuple):
    """A program whose run has a leading member axis [P] on every leaf.

    `Run.settings` are the hyperparameters, which its step reads from there: what
    changes them, or resumes a run, changes what members do.
    """

    program: Program
    member: Callable[[Run, int], Member]
    best: Callable[[Run, Scores], Member]
    """The member with the highest score. A NaN never wins."""


def population(
    make_program: Callable[[dict[str, Array]], Program],
    hyperparameters: Mapping[str, Array | np.ndarray],
    mesh: Mesh | None = None,
    axis: Axis = Axis("data"),
) -> Population:
    """Trains a member for each row of `hyperparameters`, all in one program.

    Args:
      make_program: from one member's hyperparameters, scalars that are traced.
      hyperparameters: arrays [P], as `grid` or `random_search` give them. `seed`, if
        there, seeds the member's key; without it members get different keys.
      mesh: shares the members over devices, which then need no communication at all.

    Raises:
      ValueError: arrays differ in length, the devices do not divide the members, a
        seed is out of range, or something else is given than is asked for.
    """
    by_name = "arrays by name, as grid returns them"
    makes = "a function that makes a Program"
    refuse_any(
        lacking(makes, "__call__", make_program=make_program)
        + lacking(by_name, "items", hyperparameters=hyperparameters)
        + ([] if mesh is None else lacking("a Mesh", "axis_names", mesh=mesh))
    )
    if "seed" in hyperparameters:
        refuse_any(not_a_seed(seed=np.asarray(hyperparameters["seed"]).tolist()))
    values = {name: _values(name, x) for name, x in hyperparameters.items()}
    sizes = {name: x.shape for name, x in values.items()}
    shape, *others = set(sizes.values()) or {()}
    if others or len(shape) != 1:
        raise ValueError(f"hyperparameters need one common length, got {sizes}")
    (size,) = shape
    if mesh is not None and size % mesh.size:
        raise ValueError(f"{mesh.size} devices cannot share {size} members evenly")

    def init_one(values: dict[str, Array], key: PRNGKey) -> Run:
        program = make_program(values)
        made = lacking("a Program, as compiled returns it", "init", "step", it=program)
        refuse_any(f"make_program: {line}" for line in made)
        return program.init(key)._replace(settings=values)

    def step_one(run: Run) -> tuple[Run, Metrics]:
        program = make_program(run.settings)
        stepped, metrics = program.step(_in_classes_of(program, run))
        return _like(jax.tree.structure(run), stepped), metrics

    def init(key: PRNGKey) -> Run:
        keys = jax.random.split(key, size)
        if "seed" in values:
            # Members with the same seed start alike: then only hyperparameters differ.
            keys = jax.vmap(random.key)(values["seed"])
        return _on_devices(jax.vmap(init_one), mesh, axis)(values, keys)

    def member(run: Run, index: int) -> Member:
        if not 0 <= index < size:
            raise ValueError(f"no member {index} in a population of {size}")
        run = jax.tree.map(lambda x: x[index], run)
        own = {name: x.item() for name, x in run.settings.items()}
        program = make_program(run.settings)
        return Member(_in_classes_of(program, run), own, program)

    def best(run: Run, scores: Scores) -> Member:
        return member(run, _best_of(np.asarray(scores), size))

    step = _on_devices(jax.vmap(step_one), mesh, axis)
    return Population(Program(init, step), member, best)


def _best_of(scores: np.ndarray, size: int) -> int:
    if scores.shape != (size,) or np.all(np.isnan(scores)):
        raise ValueError(
            f"scores must be one number for each of {size} members, got {scores}"
        )
    return int(np.nanargmax(scores))


def _values(name: str, numbers: Any) -> Array:
    numbers = np.asarray(numbers)
    # Seeds may be beyond int32, which JAX would wrap without a word.
    large = name == "seed" and numbers.size and numbers.max() > np.iinfo(np.int32).max
    return jnp.asarray(numbers, jnp.uint32 if large else None)


def _in_classes_of(program: Program, run: Run) -> Run:
    """The run, as this program would have made it.

    A function that makes a program may define classes of states as it goes: they are
    then others in each program, and a scan takes them for other structures.
    """
    if not _has_local_classes(jax.tree.structure(run)):
        return run
    made = jax.eval_shape(program.init, run.key)._replace(settings=run.settings)
    return _like(jax.tree.structure(made), run)


def _like(structure: Any, run: Run) -> Run:
    return jax.tree.unflatten(structure, jax.tree.leaves(run))


def _has_local_classes(structure: Any) -> bool:
    """Whether any class in a tree was defined by a function."""
    node = structure.node_data()
    if node is not None and "<locals>" in node[0].__qualname__:
        return True
    return any(map(_has_local_classes, structure.children()))


def _on_devices(function: Callable, mesh: Mesh | None, axis: Axis) -> Callable:
    """The function of members [P], each device with its own."""
    if mesh is None:
        return function
    spec = P(axis.name)
    return jax.shard_map(
        function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )


def grid(**choices: Sequence[int | float]) -> Hyperparameters:
    """Every combination of the choices, in the order of nested loops.

    Raises:
      ValueError: nothing to choose from.
    """
    if not choices or not all(len(values) for values in choices.values()):
        raise ValueError(f"a grid needs at least one value of each, got {choices}")
    axes = np.meshgrid(*choices.values(), indexing="ij")
    return {name: x.ravel() for name, x in zip(choices, axes, strict=True)}


def random_search(
    key: PRNGKey, size: int, **ranges: tuple[float, float]
) -> Hyperparameters:
    """`size` draws, each number log-uniform in its range, as in Mnih et al. (2016).

    Raises:
      ValueError: a range is not 0 < low < high.
    """
    for name, (low, high) in ranges.items():
        if not 0 < low < high:
            raise ValueError(f"{name} needs a range 0 < low < high, got {low}, {high}")
    keys = dict(zip(ranges, jax.random.split(key, len(ranges)), strict=True))

    def draw(name: str, low: float, high: float) -> Array:
        ends = {"minval": np.log(low), "maxval": np.log(high)}
        return jnp.exp(jax.random.uniform(keys[name], (size,), **ends))

    return {name: draw(name, *ends) for name, ends in ranges.items()}
