"""Environments of any suite as streams: the one place where episodes end and begin.

An adapter gives the bare transition of one environment, a `Raw`, without the resets and
time limits that suites wrap around it: those lose the final observation, or take a
limit for an end. `from_raw` makes a stream of it: the final observation is shown, then
the next episode's first one, and a limit leaves the discount at 1.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt8

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.host.info import metric_of
from jaxrl_par.envs.wrappers import clip_actions, episode_statistics
from jaxrl_par.errors import refuse
from jaxrl_par.types import (
    Action,
    EnvState,
    Obs,
    PRNGKey,
    Spec,
    Specs,
    TimeStep,
    example,
)

Transition = tuple[EnvState, Obs, Any, Any, Any]
"""(state, obs, reward, terminated, truncated), the last three scalars."""


class Raw(NamedTuple):
    """One environment as pure functions, which neither reset nor count by themselves.

    They may be written for the promotion of dtypes that is JAX's default and for 32
    bits, and may return Python numbers.
    """

    reset: Callable[[PRNGKey], tuple[EnvState, Obs]]
    step: Callable[[EnvState, Action, PRNGKey], Transition]
    """(state, action, key) -> (state, obs, reward, terminated, truncated)

    What happens after an end is not looked at. A step that does both terminates."""
    observation_spec: Specs
    """A spec for each leaf of an observation."""
    action_spec: Spec
    max_episode_steps: int | None = None
    """Time limit that the stream counts; None where there is none, or where `truncated`
    says so."""
    draw: Callable[[EnvState], UInt8[np.ndarray, "H W 3"]] | None = None
    """state -> picture, from NumPy arrays."""
    told: Callable[[EnvState], dict[str, Any]] | None = None
    """state -> numbers or truths that it says of all of an episode where that ends, by
    name. `success` becomes the metric success_rate, another name info_NAME."""
    discount: Callable[[EnvState, EnvState], Array] | None = None
    """(state before, state after) -> the discount of a step that does not terminate;
    None where it is always 1."""


class _Streams(NamedTuple):
    """B environments in progress."""

    state: EnvState
    """Leaves [B, ...]."""
    last: Bool[Array, " B"]
    """What was shown is the end of an episode."""
    left: Any
    """[B] int32, steps before the stream cuts the episode; () where it never does."""


def as_written(function: Callable) -> Callable:
    """Lets a suite's own code promote ranks and dtypes, where a user forbids it to
    everyone, and computes in 32 bits, for which alone some of it is written."""

    @wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        promoting = jax.numpy_rank_promotion("allow")
        with promoting, jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
            return function(*args, **options)

    return called


@as_written
def from_raw(raw: Raw, num_envs: int, name: str) -> Environment:
    """Copies of an environment as a stream, with statistics of its episodes.

    Actions outside the bounds of a `Box` become the nearest one within.

    Raises:
      RefusedError: `num_envs` or the time limit is below 1.
    """
    refuse(num_envs=num_envs, max_episode_steps=raw.max_episode_steps)
    limit = raw.max_episode_steps
    strong = strong_dtypes(raw)

    @as_written
    def reset(key):
        state, obs = strong(jax.vmap(raw.reset)(jax.random.split(key, num_envs)))
        no = jnp.zeros(num_envs, bool)
        left = () if limit is None else jnp.full(num_envs, limit, jnp.int32)
        return _Streams(state, no, left), TimeStep(obs, first=~no, last=no)

    def step_one(now: _Streams, action, key, fresh):
        state, obs, reward, terminated, truncated = raw.step(now.state, action, key)
        terminated, truncated = (jnp.asarray(x, bool) for x in (terminated, truncated))
        over, left = now.last, ()
        if limit is not None:
            left = jnp.where(over, limit, now.left - 1)
            truncated |= left <= 0
        last = ~over & (terminated | truncated)
        state, obs = jax.tree.map(
            lambda x, y: jnp.where(over, x, y), fresh, (state, obs)
        )
        reward = jnp.where(over, 0.0, jnp.asarray(reward, jnp.float32))
        going_on = raw.discount(now.state, state) if raw.discount else 1.0
        discount = jnp.where(over | terminated, 0.0, jnp.float32(going_on))
        state, obs = strong((state, obs))
        return _Streams(state, last, left), TimeStep(obs, over, last), reward, discount

    @as_written
    def step(now, action, key):
        step_keys, reset_keys = jax.random.split(key, (2, num_envs))
        fresh = jax.vmap(raw.reset)(reset_keys)
        # Otherwise XLA draws the random numbers again for each leaf that they enter.
        fresh = jax.lax.optimization_barrier(fresh)
        return jax.vmap(step_one)(now, action, step_keys, fresh)

    def draw(now, i):
        assert raw.draw is not None
        return raw.draw(jax.tree.map(lambda x: np.asarray(x[i]), now.state))

    made = Environment(
        reset=reset,
        step=step,
        num_envs=num_envs,
        observation_spec=raw.observation_spec,
        action_spec=raw.action_spec,
        name=name,
        max_episode_steps=limit,
        draw=draw if raw.draw else None,
    )
    return episode_statistics(clip_actions(made), _told(raw))


def _told(raw: Raw) -> Callable[[_Streams], dict[str, Any]] | None:
    """`Episode.told` of the streams' states."""
    if raw.told is None:
        return None
    tell = raw.told

    def told(now: _Streams) -> dict[str, Any]:
        found = as_written(jax.vmap(tell))(now.state)
        return {metric_of(name): x.astype(jnp.float32) for name, x in found.items()}

    return told


@as_written
def strong_dtypes(raw: Raw) -> Callable[[Any], Any]:
    """A cast of (state, obs) to the dtypes that survive a step.

    Resets of suites hold Python numbers. Weakly typed arrays change their type when
    they meet others, which a scan refuses; where reset and step disagree, the wider one
    holds both.
    """
    key = jax.random.key(0)
    action = jax.tree.map(lambda x: x[0], example(raw.action_spec, 1))
    fresh = jax.eval_shape(raw.reset, key)
    stepped = jax.eval_shape(raw.step, fresh[0], action, key)[:2]
    dtypes = jax.tree.map(
        lambda x, y: jnp.promote_types(x.dtype, y.dtype), fresh, stepped
    )
    return lambda tree: jax.tree.map(jax.lax.convert_element_type, tree, dtypes)
