"""Generations of perturbed parameters, each of which plays whole episodes.

Members come in pairs: one has a noise added to the parameters, the other the same noise
subtracted, and both play with the same random numbers, so that they differ by the noise
alone. One more plays with the parameters themselves, on each device: its return is that
of the policy, and the members' mean is not. Statistics of observations are those of its
episodes, and stand still within a generation.

Source: Salimans et al., arXiv:1703.03864.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl_par import rollout
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.envs import Environment
from jaxrl_par.envs.base import refuse_others
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.loops.playing import play
from jaxrl_par.loops.run import (
    Program,
    Run,
    count_skipped,
    episode_metrics,
    new_run,
    step_keys,
    unroll_keys,
)
from jaxrl_par.loops.updates import observe, update
from jaxrl_par.perturbations import (
    NoiseConfig,
    noise_of,
    num_evolving,
    refuse_size,
    shifted,
)
from jaxrl_par.types import (
    Agent,
    Mean,
    Metrics,
    Params,
    PRNGKey,
    Trajectory,
)


class Local(NamedTuple):
    """What each device has for itself."""

    cap: Int[Array, ""]
    """Steps after which a member's episode is cut in the next generation."""


def evolution(
    agent: Agent,
    env: Environment,
    noise: NoiseConfig,
    num_members: int,
    max_steps: int,
    *,
    cap_factor: float | None = None,
    axis: Axis = Axis(),
) -> Program:
    """A generation plays, then the parameters take a step.

    Args:
      agent: as `algorithms.es` makes, of the same noise.
      env: in which one member plays, an episode in each.
      num_members: of this instance along the axis, an even number.
      max_steps: longest episode. One that is longer is cut there, as by a time limit.
      cap_factor: a member's episode is cut at so many times the mean length of those of
        the generation before: few that are long would keep all others waiting.

    Raises:
      ValueError: a count is below 1, members are no pairs, or the agent was made for
        other specs.
    """
    refuse(num_members=num_members, max_steps=max_steps)
    refuse(noise)
    _refuse_odd(num_members)
    refuse_others(env)
    rollout.refuse_other_specs(agent, env)
    size = _size(agent, env, noise)

    def init(key: PRNGKey) -> Run:
        learn_key, env_key, root = jax.random.split(key, 3)
        _, step = env.reset(env_key)
        state = agent.init(learn_key, step)
        return new_run(state, Local(jnp.int32(max_steps)), root)

    def step(run: Run) -> tuple[Run, Metrics]:
        # The noise of a pair is the same wherever it is drawn: so no index is in these.
        noise_key, play_key = unroll_keys(run.key, run.progress.updates, 0)
        local: Local = run.local
        number = num_members // 2
        pairs = axis.index * number + jnp.arange(number, dtype=jnp.int32)
        given = agent.params(run.learner), noise, noise_key, pairs, size
        members = _members(*given)
        alone = axis.size * number + axis.index
        numbers = jnp.append(pairs, alone)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(play_key, numbers)
        played = play(agent, env, members, keys, local.cap, max_steps)
        fitness = jnp.mean(played.returns[:-1], axis=2)
        extras = {"fitness": fitness, "noise_key": noise_key}
        trajectory = played.own._replace(extras=extras)
        # The last pair is one member.
        taken = jnp.sum(played.lengths) - jnp.sum(played.lengths[-1, 0])
        env_steps = axis.sum(taken.astype(jnp.int32))
        run, metrics = _learned(agent, run, trajectory, env_steps, axis)
        returns, steps = axis.after((played.returns, played.lengths), metrics)
        told, lengths = _told(returns, steps, axis)
        cap = local.cap
        if cap_factor is not None:
            cap = jnp.ceil(cap_factor * lengths.total / lengths.count)
            cap = jnp.clip(cap, 1, max_steps).astype(jnp.int32)
        return run._replace(local=Local(cap)), metrics | told

    return Program(init, step)


def _refuse_odd(num_members: int) -> None:
    """
    Raises:
      RefusedError: members are no pairs.
    """
    if num_members % 2:
        raise RefusedError(
            f"num_members must be even, because members come in pairs: got"
            f" {num_members}, take {num_members + 1}"
        )


def _size(agent: Agent, env: Environment, noise: NoiseConfig) -> int:
    """How many parameters have noise.

    Raises:
      RefusedError: none has, or more than the table of noise is long.
    """

    def made(key: PRNGKey) -> Params:
        return agent.params(agent.init(key, env.reset(key)[1]))

    size = num_evolving(jax.eval_shape(made, jax.random.key(0)))
    if not size:
        raise RefusedError(
            "agent must be one whose parameters may be perturbed, as algorithms.es"
            " makes: its params have no Evolving part"
        )
    refuse_size(noise, size)
    return size


def _members(
    params: Params,
    noise: NoiseConfig,
    key: PRNGKey,
    pairs: Int[Array, " n"],
    size: int,
) -> Params:
    """Parameters of all members of some pairs, leaves [n + 1, 2, ...]; in the last pair
    both are the parameters themselves."""
    drawn = jax.vmap(lambda pair: noise_of(noise, key, pair, size))(pairs)
    offset = jnp.append(noise.sigma * drawn, jnp.zeros((1, size)), axis=0)
    offsets = jnp.stack([offset, -offset], axis=1)
    return jax.vmap(jax.vmap(shifted, (None, 0)), (None, 0))(params, offsets)


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


def _told(
    returns: Float[Array, "P 2 E"], steps: Int[Array, "P 2 E"], axis: Axis
) -> tuple[Metrics, Mean]:
    """Metrics, and the mean length of members' episodes."""
    lengths = steps.astype(jnp.float32)
    own = rollout.Episodes(_mean(returns[-1, -1]), _mean(lengths[-1, -1]))
    metrics = episode_metrics(own, axis)
    fitness = jnp.mean(returns[:-1], axis=2)
    known = ~jnp.isnan(fitness)
    count = jnp.sum(known, dtype=jnp.float32)
    of_members = Mean(jnp.sum(jnp.where(known, fitness, 0.0)), count)
    total, lengths = axis.sum(
        axis.after((of_members, _mean(lengths[:-1])), metrics["episode_return"])
    )
    unknown = jnp.float32(fitness.size * axis.size) - total.count
    return metrics | {"fitness": total, "fitness_nan": unknown}, lengths


def _mean(x: Float[Array, "..."]) -> Mean:
    return Mean(jnp.sum(x), jnp.float32(x.size))
