"""Changes of what an environment shows or pays: functions from one to another.

A wrapper keeps its own state beside the inner one, so that all of it is saved and
resumed. `Environment.episode` and `draw` go through unchanged: statistics and pictures
are those of the environment itself.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.axis import Axis
from jaxrl_par.envs.base import Environment, Episode, Floats
from jaxrl_par.envs.previous import WithPrevious, with_previous
from jaxrl_par.errors import above, not_between, not_finite, refuse_any
from jaxrl_par.statistics import Moments, merged, moments
from jaxrl_par.types import Action, Box, EnvState, Spec, Specs, TimeStep, example


class _WithEpisode(NamedTuple):
    inner: EnvState
    episode: Episode


def episode_statistics(
    env: Environment, told: Callable[[EnvState], dict[str, Floats]] | None = None
) -> Environment:
    """Keeps return and length of each environment's episode, for `env.episode`.

    Where a step is `last` they are those of the whole episode.

    Args:
      told: (env_state) -> `Episode.told`.
    """

    def reset(key):
        inner, step = env.reset(key)
        zeros = jnp.zeros(env.num_envs, jnp.float32)
        return _WithEpisode(inner, Episode(zeros, zeros.astype(jnp.int32))), step

    def step(env_state, action, key):
        inner, step, reward, discount = env.step(env_state.inner, action, key)
        episode = Episode(
            jnp.where(step.first, 0.0, env_state.episode.return_ + reward),
            jnp.where(step.first, 0, env_state.episode.length + 1),
        )
        return _WithEpisode(inner, episode), step, reward, discount

    def episode(env_state):
        if told is None:
            return env_state.episode
        return env_state.episode._replace(told=told(env_state.inner))

    return env._replace(
        reset=reset, step=step, episode=episode, draw=_of_inner(env.draw)
    )


def clip_actions(env: Environment) -> Environment:
    """Does the nearest action within the bounds of the spec, in place of others.

    Policies are unbounded, and learn from what they sampled. `from_gymnax` clips by
    itself, and so do the adapters of simulators; this is for environments of one's own.
    """
    specs = env.action_spec
    if not any(isinstance(spec, Box) for spec in jax.tree.leaves(specs)):
        return env

    def within(spec: Spec, action: Action) -> Action:
        if not isinstance(spec, Box):
            return action
        low, high = (jnp.broadcast_to(x, action.shape) for x in spec.inner)
        return jnp.clip(action, low, high).astype(action.dtype)

    def step(env_state, action, key):
        return env.step(env_state, jax.tree.map(within, specs, action), key)

    return env._replace(step=step)


def previous_action_and_reward(env: Environment) -> Environment:
    """Shows the last action and reward with each observation.

    A network with memory can then tell what its actions do. The action is the one that
    was sampled, also where the nearest one within the bounds was done in its place: so
    what is shown has no bounds. Source: Wang et al., arXiv:1611.05763, section 2.1.
    """

    specs = with_previous(env.specs)

    def show(step: TimeStep, action: Action, reward: Array) -> TimeStep:
        def cleared(x, spec):
            first = step.first.reshape(-1, *[1] * (x.ndim - 1))
            return jnp.where(first, jnp.zeros_like(x), x).astype(spec.dtype)

        action = jax.tree.map(cleared, action, specs.action)
        reward = cleared(reward, specs.reward)
        return step._replace(obs=WithPrevious(step.obs, action, reward))

    return _showing(env, specs, show)


def select_observation(env: Environment, indices: tuple[int, ...]) -> Environment:
    """Hides all but some elements of a vector, which makes memory necessary.

    CartPole without its two velocities (`indices=(0, 2)`) is the usual example.

    Raises:
      ValueError: observations are not vectors, or have no such element.
    """
    spec: Spec = env.observation_spec
    if not isinstance(spec, Box) or len(spec.shape) != 1:
        raise ValueError(f"observations of {env.name} are not vectors: {spec}")
    for index in indices:
        if not 0 <= index < spec.shape[0]:
            raise ValueError(f"no element {index} in observations of {spec.shape[0]}")
    chosen = jnp.array(indices)

    def show(step: TimeStep, action: Action, reward: Array) -> TimeStep:
        return step._replace(obs=step.obs[:, chosen])

    return _showing(env, Box((len(indices),), spec.dtype), show)


def _showing(env: Environment, observation_spec: Specs, show) -> Environment:
    """The environment with the steps that `show(step, action, reward)` makes of its."""

    def reset(key):
        env_state, step = env.reset(key)
        action = example(env.action_spec, env.num_envs)
        return env_state, show(step, action, jnp.zeros(env.num_envs, jnp.float32))

    def step(env_state, action, key):
        env_state, step, reward, discount = env.step(env_state, action, key)
        return env_state, show(step, action, reward), reward, discount

    return env._replace(reset=reset, step=step, observation_spec=observation_spec)


def scale_rewards(env: Environment, factor: float) -> Environment:
    """Multiplies rewards by a constant, which may be traced.

    Raises:
      RefusedError: it is no finite number.
    """
    refuse_any(not_finite(factor=factor))
    return _map_rewards(env, lambda reward: reward * factor)


def clip_rewards(env: Environment, low: float = -1.0, high: float = 1.0) -> Environment:
    """Limits rewards to [low, high]; with (-1, 1) as DQN does on Atari."""
    if not low < high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    return _map_rewards(env, lambda reward: jnp.clip(reward, low, high))


def _map_rewards(env: Environment, change) -> Environment:
    def step(env_state, action, key):
        env_state, step, reward, discount = env.step(env_state, action, key)
        # A limit above 0 would else pay for the step from an episode to the next.
        reward = jnp.where(step.first, 0.0, change(reward))
        return env_state, step, reward, discount

    return env._replace(step=step)


class _WithReturns(NamedTuple):
    inner: EnvState
    returns: Float[Array, " B"]
    """Discounted sum of the rewards so far."""
    moments: Moments
    """Moments over all environments and steps."""


def normalize_rewards(
    env: Environment, gamma: float, axis: Axis = Axis(), clip: float = 10.0
) -> Environment:
    """Divides rewards by the standard deviation of the discounted returns so far.

    A return that is not finite is not counted, and a new sum starts behind it.

    Args:
      gamma: discount of the returns; it may be traced.
      axis: the statistics are merged over it in every step.
      clip: bound of the magnitude of the result.

    Raises:
      RefusedError: `gamma` is not in [0, 1], or `clip` not above 0.

    Source: Engstrom et al., arXiv:2005.12729, section 3, 'reward scaling'.
    """
    given = {"gamma": gamma, "clip": clip}
    refuse_any(not_between(given, gamma=(0, 1)) + above(given, clip=0))

    def reset(key):
        inner, step = env.reset(key)
        nothing = Moments(*[jnp.zeros((), jnp.float32)] * 3)
        returns = jnp.zeros(env.num_envs, jnp.float32)
        return _WithReturns(inner, returns, nothing), step

    def step(env_state, action, key):
        inner, step, reward, discount = env.step(env_state.inner, action, key)
        returns = gamma * env_state.returns + reward
        # A `first` step carries no reward.
        keep = ~step.first & jnp.isfinite(returns)
        seen = merged(env_state.moments, moments(returns, keep, axis))
        several = axis.size * seen.count > 1.5
        std = jnp.where(several, jnp.sqrt(seen.variance + 1e-8), 1.0)
        scaled = jnp.clip(reward / std, -clip, clip)
        returns = jnp.where(keep, returns, 0.0)
        return _WithReturns(inner, returns, seen), step, scaled, discount

    return env._replace(
        reset=reset, step=step, episode=_of_inner(env.episode), draw=_of_inner(env.draw)
    )


def _of_inner(function):
    """The same function, if any, of a state that has the old one in `inner`."""
    if function is None:
        return None
    return lambda env_state, *args: function(env_state.inner, *args)
