"""Generations of perturbed parameters, each of which plays whole episodes.

Members come in pairs: one has a noise added to the parameters, the other the same noise
subtracted, and both play with the same random numbers, so that they differ by the noise
alone. One more plays with the parameters themselves, on each device: its return is that
of the policy, and the members' mean is not. Statistics of observations are those of its
episodes, and stand still within a generation.

Source: Salimans et al., arXiv:1703.03864.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_par import rollout
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.envs import Environment
from jaxrl_par.envs.base import refuse_others
from jaxrl_par.errors import RefusedError, refuse
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
    TimeStep,
    Trajectory,
)


class Local(NamedTuple):
    """What each device has for itself."""

    cap: Int[Array, ""]
    """Steps after which a member's episode is cut in the next generation."""


class _Playing(NamedTuple):
    """Members in the middle of their episodes, leaves [M, E, ...] but for the first and
    the last."""

    t: Int[Array, ""]
    streams: rollout.Streams
    running: Bool[Array, "M E"]
    returns: Float[Array, "M E"]
    lengths: Int[Array, "M E"]
    own: Trajectory
    """[max_steps, E, ...] of the last member."""


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
        numbers = jnp.concatenate([pairs, pairs, jnp.array([alone], jnp.int32)])
        keys = jax.vmap(jax.random.fold_in, (None, 0))(play_key, numbers)
        played = _play(agent, env, members, keys, local.cap, max_steps)
        fitness = jnp.mean(played.returns[:-1], axis=1).reshape(2, number).T
        extras = {"fitness": fitness, "noise_key": noise_key}
        trajectory = played.own._replace(extras=extras)
        env_steps = axis.sum(jnp.sum(played.lengths, dtype=jnp.int32))
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
    """Parameters of all members of some pairs, and of nobody: leaves [2 n + 1, ...]."""
    drawn = jax.vmap(lambda pair: noise_of(noise, key, pair, size))(pairs)
    offset = noise.sigma * drawn
    offsets = jnp.concatenate([offset, -offset, jnp.zeros((1, size))])
    return jax.vmap(shifted, (None, 0))(params, offsets)


def _play(
    agent: Agent,
    env: Environment,
    members: Params,
    keys: Key[Array, " M"],
    cap: Int[Array, ""],
    max_steps: int,
) -> _Playing:
    """An episode of all members in all environments; the last member's is not capped.

    Args:
      members: leaves [M, ...]
      keys: equal for members that are to meet the same.
    """
    starts = jax.vmap(lambda key: rollout.start(agent, env, key))
    split = jax.vmap(jax.random.split)(keys)
    streams: rollout.Streams = starts(split[:, 0])
    shape = streams.step.first.shape
    capped = (jnp.arange(shape[0]) < shape[0] - 1)[:, None]

    def turn(now: _Playing) -> _Playing:
        given = (members, now.streams, split[:, 1], now.t)
        streams, done = jax.vmap(partial(_advanced, agent, env), (0, 0, 0, None))(
            *given
        )
        (_, reward, _), t, step = done, now.t + 1, streams.step
        rows = now.own.action, now.own.reward, now.own.discount
        own = Trajectory(
            _written(now.own.steps, _last(step), t),
            *_written(rows, _last(done), now.t),
            extras={},
            carry=(),
        )
        running = now.running & ~step.last & ~(capped & (t >= cap))
        return _Playing(
            t,
            streams,
            running,
            now.returns + jnp.where(now.running, reward, 0.0),
            now.lengths + now.running,
            own,
        )

    def goes_on(now: _Playing) -> Bool[Array, ""]:
        return (now.t < max_steps) & jnp.any(now.running)

    zeros = jnp.zeros(shape, jnp.float32)
    params = jax.tree.map(lambda x: x[-1], members)
    own = rollout.shapes(agent, params, _last(streams.step), max_steps)
    start = _Playing(
        jnp.int32(0),
        streams,
        jnp.ones(shape, jnp.bool_),
        zeros,
        jnp.zeros(shape, jnp.int32),
        _begun(own, _last(streams.step)),
    )
    return jax.lax.while_loop(goes_on, turn, start)


def _advanced(
    agent: Agent,
    env: Environment,
    params: Params,
    streams: rollout.Streams,
    key: PRNGKey,
    t: Int[Array, ""],
) -> tuple[rollout.Streams, tuple[Any, Array, Array]]:
    """One member's environments after a step, and (action, reward, discount)."""
    act_key, env_key = jax.random.split(jax.random.fold_in(key, t))
    action, carry, _ = agent.act(params, streams.carry, streams.step, act_key)
    env_state, step, reward, discount = env.step(streams.env_state, action, env_key)
    reward, discount = (x.astype(jnp.float32) for x in (reward, discount))
    return rollout.Streams(env_state, step, carry), (action, reward, discount)


def _last(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[-1], tree)


def _begun(shapes: Trajectory, step: TimeStep) -> Trajectory:
    """Before the first action: rows that nothing is known of are `last`, and what they
    show is no number, which statistics leave out."""

    def unseen(x: Any) -> Array:
        floats = jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.full(x.shape, jnp.nan if floats else 0, x.dtype)

    shapes = shapes._replace(extras={}, carry=())
    own = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    over = jnp.ones_like(own.steps.last)
    obs = jax.tree.map(unseen, shapes.steps.obs)
    own = own._replace(steps=own.steps._replace(obs=obs, last=over))
    return own._replace(steps=_written(own.steps, step, jnp.int32(0)))


def _written(rows: Any, row: Any, t: Int[Array, ""]) -> Any:
    return jax.tree.map(lambda rows, x: rows.at[t].set(x), rows, row)


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
    returns: Float[Array, "M E"], steps: Int[Array, "M E"], axis: Axis
) -> tuple[Metrics, Mean]:
    """Metrics, and the mean length of members' episodes."""
    lengths = steps.astype(jnp.float32)
    own = rollout.Episodes(_mean(returns[-1]), _mean(lengths[-1]))
    metrics = episode_metrics(own, axis)
    fitness = jnp.mean(returns[:-1], axis=1)
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
