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
from jaxrl_par.envs.constant import Constants, constants
from jaxrl_par.envs.host.info import metric_of
from jaxrl_par.envs.resets import Resets, Source, source
from jaxrl_par.envs.wrappers import clip_actions, episode_statistics
from jaxrl_par.errors import refuse, refuse_any
from jaxrl_par.specs import sent
from jaxrl_par.types import (
    Action,
    EnvState,
    Obs,
    PRNGKey,
    Specs,
    TimeStep,
    example,
)

Transition = tuple[EnvState, Obs, Any, Any, Any]
"""(state, obs, reward, terminated, truncated), the last three scalars."""
_NEVER = 2**31 - 1
"""Steps of an episode that no limit cuts."""


class Raw(NamedTuple):
    """One environment as pure functions, which do not reset by themselves.

    They may be written for the promotion of dtypes that is JAX's default and for 32
    bits, and may return Python numbers.
    """

    reset: Callable[[PRNGKey], tuple[EnvState, Obs]]
    step: Callable[[EnvState, Action, PRNGKey], Transition]
    """(state, action, key) -> (state, obs, reward, terminated, truncated)

    The action is the environment's own: integers begin at the `start` of their spec.
    What happens after an end is not looked at. A step that does both terminates."""
    observation_spec: Specs
    """A spec for each leaf of an observation."""
    action_spec: Specs
    max_episode_steps: int | None = None
    """Time limit that the stream counts; None where it counts none."""
    draw: Callable[[EnvState], UInt8[np.ndarray, "H W 3"]] | None = None
    """state -> picture, from NumPy arrays."""
    own_limit: int | None = None
    """Time limit that the environment counts itself, and `truncated` tells; None where
    it has none or does not say."""
    told: Callable[[EnvState], dict[str, Any]] | None = None
    """state -> numbers or truths that it says of all of an episode where that ends, by
    name. `success` becomes the metric success_rate, another name info_NAME."""
    discount: Callable[[EnvState, EnvState], Array] | None = None
    """(state before, state after) -> the discount of a step that does not terminate;
    None where it is always 1."""

    @property
    def limit(self) -> int | None:
        """The time limit, whoever counts it."""
        known = [x for x in (self.max_episode_steps, self.own_limit) if x is not None]
        return min(known, default=None)


class _Streams(NamedTuple):
    """B environments in progress."""

    state: EnvState
    """Leaves [B, ...]."""
    last: Bool[Array, " B"]
    """What was shown is the end of an episode."""
    left: Any = ()
    """[B] int32, steps before the stream cuts the episode; () where it never does."""
    whole: Any = ()
    """[B] bool, the episode began at a start of its own; () where all do."""


class _State(NamedTuple):
    streams: _Streams
    kept: Any
    """What makes starts."""


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
def from_raw(
    raw: Raw, num_envs: int, name: str, resets: Resets = Resets()
) -> Environment:
    """Copies of an environment as a stream, with statistics of its episodes.

    Actions outside the bounds of a `Box` become the nearest one within.

    Args:
      resets: where episodes begin, and whether the first ones are staggered.

    Raises:
      RefusedError: `num_envs` or a time limit is below 1, or `resets` does not fit.
    """
    refuse(resets, num_envs=num_envs, max_episode_steps=raw.limit)
    refuse_any(resets.misfits(num_envs, raw.limit))
    raw = without_constants(raw)
    strong = strong_dtypes(raw)
    starts = source(resets, lambda keys: strong(jax.vmap(raw.reset)(keys)), num_envs)

    def draw(now, i):
        assert raw.draw is not None
        return raw.draw(jax.tree.map(lambda x: _plain(x[i]), now.streams.state))

    made = Environment(
        reset=_reset(raw, starts, num_envs, resets),
        step=_step(raw, starts, resets, strong),
        num_envs=num_envs,
        observation_spec=raw.observation_spec,
        action_spec=raw.action_spec,
        name=name,
        max_episode_steps=raw.limit,
        draw=draw if raw.draw else None,
        stagger=resets.stagger,
    )
    made = episode_statistics(clip_actions(made), _told(raw))
    statistics = made.episode
    if not resets.stagger or statistics is None:
        return made
    return made._replace(
        episode=lambda now: statistics(now)._replace(counts=now.inner.streams.whole)
    )


def constants_of(raw: Raw) -> Constants:
    """What no reset and no step changes."""
    action = jax.tree.map(lambda x: x[0], example(raw.action_spec, 1))
    return constants(raw.reset, raw.step, action)


def without_constants(raw: Raw) -> Raw:
    """The same environment, with None in its state for what nothing changes."""
    left_out, put_back = constants_of(raw)

    def reset(key):
        state, obs = raw.reset(key)
        return left_out(state), obs

    def step(state, action, key):
        state, *row = raw.step(put_back(state), action, key)
        return left_out(state), *row

    def of_whole(function):
        return function and (lambda *states: function(*map(put_back, states)))

    others = {x: of_whole(getattr(raw, x)) for x in ("draw", "told", "discount")}
    return raw._replace(reset=reset, step=step, **others)


def _reset(raw: Raw, starts: Source, num_envs: int, resets: Resets) -> Callable:
    limit = raw.max_episode_steps or _NEVER

    @as_written
    def reset(key):
        kept, (state, obs) = starts.begin(key)
        left, whole, no = (), (), jnp.zeros(num_envs, bool)
        if resets.stagger:
            lengths = jnp.asarray(resets.first_lengths(num_envs), jnp.int32)
            left, whole = jnp.minimum(lengths, limit), no
        elif limit != _NEVER:
            left = jnp.full(num_envs, limit, jnp.int32)
        step = TimeStep(obs, first=~no, last=no)
        return _State(_Streams(state, no, left, whole), kept), step

    return reset


def _step(raw: Raw, starts: Source, resets: Resets, strong: Callable) -> Callable:
    limit = raw.max_episode_steps or _NEVER
    is_cut = limit != _NEVER or resets.stagger > 0

    def step_one(now: _Streams, action, key, fresh):
        own = sent(raw.action_spec, action)
        state, obs, reward, *ends = raw.step(now.state, own, key)
        terminated, truncated = (jnp.asarray(x, bool) for x in ends)
        over, left, whole = now.last, now.left, now.whole
        if is_cut:
            left = jnp.where(over, limit, left - 1)
            truncated |= left <= 0
        if resets.stagger:
            whole |= over
        last = ~over & (terminated | truncated)
        state, obs = jax.tree.map(
            lambda x, y: jnp.where(over, x, y), fresh, (state, obs)
        )
        reward = jnp.where(over, 0.0, jnp.asarray(reward, jnp.float32))
        going_on = raw.discount(now.state, state) if raw.discount else 1.0
        discount = jnp.where(over | terminated, 0.0, jnp.float32(going_on))
        state, obs = strong((state, obs))
        after = _Streams(state, last, left, whole)
        return after, TimeStep(obs, over, last), reward, discount

    @as_written
    def step(now, action, key):
        step_keys, reset_keys = starts.keys(key)
        kept, fresh = starts.draw(now.kept, now.streams.last, reset_keys)
        streams, *row = jax.vmap(step_one)(now.streams, action, step_keys, fresh)
        return _State(streams, kept), *row

    return step


def _plain(x: Any) -> np.ndarray:
    """In NumPy, which knows no keys: of one its words."""
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def _told(raw: Raw) -> Callable[[_State], dict[str, Any]] | None:
    """`Episode.told` of the streams' states."""
    if raw.told is None:
        return None
    tell = raw.told

    def told(now: _State) -> dict[str, Any]:
        found = as_written(jax.vmap(tell))(now.streams.state)
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

    def wider(x, y):
        return x.dtype if x.dtype == y.dtype else jnp.promote_types(x.dtype, y.dtype)

    def cast(x, dtype):
        is_key = jnp.issubdtype(dtype, jax.dtypes.prng_key)
        return x if is_key else jax.lax.convert_element_type(x, dtype)

    dtypes = jax.tree.map(wider, fresh, stepped)
    return lambda tree: jax.tree.map(cast, tree, dtypes)
