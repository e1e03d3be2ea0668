"""Generations of perturbed parameters: who plays, and what is learned of it.

A generation has parts of equal size, which may be played anywhere: by the devices of a
mesh, or by workers. A part is so many pairs, and one member more, which has the
parameters as they are. What a part gives depends on the parameters, its number and the
keys alone. So whoever plays it, and however often, it is the same.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxrl_par import rollout
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.envs import Environment
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops.playing import play
from jaxrl_par.loops.run import (
    Run,
    count_skipped,
    episode_metrics,
    step_keys,
    unroll_keys,
)
from jaxrl_par.loops.updates import observe, update
from jaxrl_par.measured import Metric
from jaxrl_par.perturbations import (
    NoiseConfig,
    noise_of,
    num_evolving,
    refuse_size,
    shifted,
)
from jaxrl_par.types import (
    Agent,
    Count,
    Mean,
    Metrics,
    Params,
    PRNGKey,
    Trajectory,
    nothing,
)

METRICS = {
    "fitness": Metric("rewards", "mean return of all members"),
    "fitness_nan": Metric("members", "whose fitness is not a number; they rank last"),
}


class Local(NamedTuple):
    """What each device has for itself."""

    cap: Int[Array, ""]
    """Steps after which a member's episode is cut in the next generation."""


class Place(NamedTuple):
    """Which part of which generation."""

    root: PRNGKey
    generation: Count
    part: Any
    num_parts: Any


class Members(NamedTuple):
    """Who plays a part: its pairs, and one of which both are the parameters as they
    are."""

    params: Params
    """Leaves [n + 1, 2, ...]: with the noise added, and subtracted."""
    keys: Key[Array, " n+1"]
    """Of each pair, whose members are to meet the same."""
    pairs: Int[Array, " n"]


class Played(NamedTuple):
    """What came of one part, or of several that were joined."""

    pairs: Int[Array, " n"]
    """Their numbers in the generation."""
    fitness: Float[Array, "n 2"]
    """With the noise added, and subtracted: means over E episodes."""
    lengths: Int[Array, "n 2 E"]
    own_returns: Float[Array, " E"]
    own_lengths: Int[Array, " E"]
    """Episodes of the parameters as they are."""
    own: Any
    """Those as a `Trajectory`, without extras; () if nobody looks at it."""

    @staticmethod
    def join(parts: "Sequence[Played]", concatenate: Callable[..., Any]) -> "Played":
        """All pairs, in the order of the parts."""
        first, *others = parts
        if not others:
            return first
        rows = [x._replace(own=()) for x in parts]
        joined = jax.tree.map(lambda *xs: concatenate(xs, 0), *rows)
        if not first.own:
            return joined
        own = Trajectory.join([x.own for x in parts], concatenate)
        return joined._replace(own=own)


def is_looked_at(agent: Agent) -> bool:
    """Whether somebody learns from the own episodes without a gradient."""
    return agent.observe is not nothing


def playing(
    agent: Agent,
    env: Environment,
    noise: NoiseConfig,
    num_pairs: int,
    max_steps: int,
    looked_at: bool,
) -> Callable[[Params, Place, Any], Played]:
    """A function that plays a part: (params, place, cap) -> `Played`.

    Args:
      looked_at: that of `is_looked_at`.
    """

    def played(params: Params, place: Place, cap: Any) -> Played:
        members = members_of(agent, params, place, noise, num_pairs)
        done = play(agent, env, members.params, members.keys, cap, max_steps)
        own = done.returns[-1, -1], done.lengths[-1, -1]
        seen = done.own if looked_at else ()
        fitness = jnp.mean(done.returns[:-1], axis=2)
        return Played(members.pairs, fitness, done.lengths[:-1], *own, seen)

    return played


def members_of(
    agent: Agent, params: Params, place: Place, noise: NoiseConfig, num_pairs: int
) -> Members:
    """The members of a part that has so many pairs, ready to act."""

    def member(offset: Float[Array, " D"]) -> Params:
        return agent.settle(shifted(params, offset))

    # The noise of a pair is the same wherever it is drawn: so no index is in these.
    noise_key, play_key = unroll_keys(place.root, place.generation, 0)
    pairs = place.part * num_pairs + jnp.arange(num_pairs, dtype=jnp.int32)
    alone = place.num_parts * num_pairs + place.part
    numbers = jnp.append(pairs, alone)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(play_key, numbers)
    size = num_evolving(params)
    drawn = jax.vmap(lambda pair: noise_of(noise, noise_key, pair, size))(pairs)
    offset = jnp.append(noise.sigma * drawn, jnp.zeros((1, size)), axis=0)
    offsets = jnp.stack([offset, -offset], axis=1)
    return Members(jax.vmap(jax.vmap(member))(offsets), keys, pairs)


def learning(
    agent: Agent, max_steps: int, cap_factor: float | None, axis: Axis = Axis()
) -> Callable[[Run, Played], tuple[Run, Metrics]]:
    """A function that learns from a generation: what this instance along the axis has
    of it, or all of it in one place."""

    def learn(run: Run, played: Played) -> tuple[Run, Metrics]:
        noise_key, _ = unroll_keys(run.key, run.progress.updates, 0)
        extras = {"fitness": played.fitness, "pairs": played.pairs}
        extras |= {"noise_key": noise_key}
        nobody: Any = ()
        own = played.own or Trajectory(*[nobody] * len(Trajectory._fields))
        steps = jnp.sum(played.lengths) + jnp.sum(played.own_lengths)
        env_steps = axis.sum(steps.astype(jnp.int32))
        cap = run.local.cap
        run, metrics = _learned(
            agent, run, own._replace(extras=extras), env_steps, axis
        )
        told, lengths = _told(axis.after(played._replace(own=()), metrics), axis)
        if cap_factor is not None:
            cap = jnp.ceil(cap_factor * lengths.total / lengths.count)
            cap = jnp.clip(cap, 1, max_steps).astype(jnp.int32)
        return run._replace(local=Local(cap)), metrics | told

    return learn


def refuse_odd(num_members: int) -> None:
    """
    Raises:
      RefusedError: members are no pairs.
    """
    if num_members % 2:
        raise RefusedError(
            f"num_members must be even, because members come in pairs: got"
            f" {num_members}, take {num_members + 1}"
        )


def refuse_unperturbed(params: Params, noise: NoiseConfig) -> None:
    """Accepts parameters, or their shapes, some of which have noise.

    Raises:
      RefusedError: none has, or more than the table of noise is long.
    """
    size = num_evolving(params)
    if not size:
        raise RefusedError(
            "agent must be one whose parameters may be perturbed, as algorithms.es"
            " makes: its params have no Evolving part"
        )
    refuse_size(noise, size)


def of_members(fitness: Float[Array, "n 2"]) -> Mean:
    """The mean fitness of members that have one."""
    known = ~jnp.isnan(fitness)
    count = jnp.sum(known, dtype=jnp.float32)
    return Mean(jnp.sum(jnp.where(known, fitness, 0.0)), count)


def _learned(
    agent: Agent,
    run: Run,
    trajectory: Trajectory,
    env_steps: Int[Array, ""],
    axis: Axis,
) -> tuple[Run, Metrics]:
    """The run after a step of the parameters; a generation is learned from once."""
    state = run.learner
    _, key = step_keys(run, axis)
    batch = agent.prepare(state, trajectory, axis)
    state, info = update(agent, state, batch, key, axis)
    state = observe(agent, state, trajectory, info.metrics, axis)
    progress = count_skipped(run.progress.counted(env_steps), info.metrics)
    run = run._replace(learner=passed(state, env_steps), progress=progress)
    return run, info.metrics


def _told(played: Played, axis: Axis) -> tuple[Metrics, Mean]:
    """Metrics, and the mean length of members' episodes."""
    own = rollout.Episodes(_mean(played.own_returns), _mean(played.own_lengths))
    metrics = episode_metrics(own, axis)
    total, lengths = axis.sum(
        axis.after(
            (of_members(played.fitness), _mean(played.lengths)),
            metrics["episode_return"],
        )
    )
    unknown = jnp.float32(played.fitness.size * axis.size) - total.count
    return metrics | {"fitness": total, "fitness_nan": unknown}, lengths


def _mean(x: Array) -> Mean:
    x = x.astype(jnp.float32)
    return Mean(jnp.sum(x), jnp.float32(x.size))
