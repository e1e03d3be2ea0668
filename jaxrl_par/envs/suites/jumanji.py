"""Tasks of Jumanji as streams.

An `action_mask` in the observation becomes the mask of `Masked`. What is left is shown
by name, or by itself where it is a single array. Rewards of several agents are summed.

Most tasks that have a `time_limit` take it for an end, with discount 0. Here the stream
counts in their place, and the limit is a truncation.

Source: Bonnet et al., arXiv:2306.09884.
"""

import copy
import dataclasses
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.raw import Raw, as_written, from_raw
from jaxrl_par.envs.suites import table
from jaxrl_par.errors import RefusedError, told, unknown_name
from jaxrl_par.specs import sent
from jaxrl_par.types import Box, Discrete, Masked, MultiDiscrete, Spec, Specs

_MASK = "action_mask"
_NEVER = 2**30
_CLOCKED = {"SearchAndRescue"}
"""They pay by the time that is left, and show it: their limit is an end."""


def from_jumanji(
    env: Any, num_envs: int, name: str | None = None, joint: bool | None = None
) -> Environment:
    """Copies of a task that has Jumanji's interface, without its wrappers.

    Args:
      joint: whether its mask says which combinations of several actions are legal, or
        for each of them which values. By default its shape tells; that of two actions
        of two values does not.

    Raises:
      RefusedError: `num_envs` is below 1, `env` is no such task, or there is no telling
        what its actions or its mask mean.
    """
    return from_raw(adapted(env, joint), num_envs, name or type(env).__name__)


def raw(task: str, **params: Any) -> Raw:
    """One task by its registered name; `params` are arguments of its class."""
    make = as_written(table.imported("jumanji").make)
    if params:
        known = {*signature(type(make(task))).parameters}
        for other in params.keys() - known:
            raise unknown_name(f"parameter of jumanji::{task}", other, known)
    try:
        return adapted(make(task, **params))
    except OSError as error:
        message = f"jumanji::{task} downloads what it shows: {told(error)}"
        raise RefusedError(message) from error


@as_written
def adapted(env: Any, joint: bool | None = None) -> Raw:
    """One task; its limit, if it has one, is left to the stream."""
    if not all(hasattr(env, x) for x in ("reset", "step", "reward_spec")):
        kind = "a jumanji.Environment, as jumanji.make gives"
        raise RefusedError(f"env must be {kind}, got {told(env)}")

    def begin(key):
        return env.reset(jax.random.key_data(key))  # its states keep bits

    clocked = type(env).__name__ in _CLOCKED
    limit, endless = getattr(env, "time_limit", None), copy.copy(env)
    if limit is not None and not clocked:
        endless.time_limit = _NEVER
    seen = jax.eval_shape(begin, jax.random.key(0))[1].observation
    observation_spec = _specs(env.observation_spec, seen, limit)
    action_spec = _action_spec(env.action_spec, getattr(seen, _MASK, None))
    mask_shape = None
    if isinstance(observation_spec, dict) and _MASK in observation_spec:
        mask_shape = _mask_shape(observation_spec.pop(_MASK), action_spec, joint)
        bits = Box(mask_shape, np.dtype(bool), 0.0, 1.0)
        observation_spec = Masked(_alone(observation_spec), bits)
    else:
        observation_spec = _alone(observation_spec)

    def shown(observation):
        obs = _by_name(observation)
        if mask_shape is None:
            return _alone(obs)
        allowed = obs.pop(_MASK).astype(bool).reshape(mask_shape)
        return Masked(_alone(obs), allowed)

    def reset(key):
        state, first = begin(key)
        return (state, jnp.float32(1)), shown(first.observation)

    def step(now, action, key):
        del key  # its state has one
        state, after = endless.step(now[0], sent(action_spec, action))
        over, discount = after.last(), jnp.max(after.discount).astype(jnp.float32)
        ends = over & (discount == 0), over & (discount != 0)
        return (state, discount), shown(after.observation), jnp.sum(after.reward), *ends

    return Raw(
        reset=reset,
        step=step,
        observation_spec=observation_spec,
        action_spec=action_spec,
        max_episode_steps=limit,
        draw=_drawing(env),
        discount=lambda before, after: after[1],
    )


def _by_name(observation: Any) -> Any:
    """A NamedTuple or dataclass, and those within, as dictionaries."""
    names = _names(observation)
    if not names:
        return observation
    return {name: _by_name(getattr(observation, name)) for name in names}


def _names(record: Any) -> tuple[str, ...]:
    if dataclasses.is_dataclass(record):
        return tuple(x.name for x in dataclasses.fields(record))
    return getattr(record, "_fields", ())


def _alone(tree: Any) -> Any:
    """What a dictionary has, if it is a single thing."""
    if isinstance(tree, dict) and len(tree) == 1:
        return _alone(*tree.values())
    return tree


def _specs(spec: Any, seen: Any, limit: int | None, name: str = "") -> Specs:
    """Jumanji's specs of what is seen: bounds where they fit the arrays that come."""
    if names := _names(seen):
        return {x: _specs(spec[x], getattr(seen, x), limit, x) for x in names}
    dtype, number = np.dtype(seen.dtype), getattr(spec, "num_values", None)
    if name == "step_count" and limit is not None:
        return Box(
            seen.shape, dtype, 0.0, float(limit)
        )  # some leave out that of the end
    if number is not None and np.ndim(number) == 0:
        return Discrete(int(number), shape=seen.shape, dtype=dtype)
    if not hasattr(spec, "minimum") or tuple(spec.shape) != seen.shape:
        return Box(seen.shape, dtype)
    low, high = np.asarray(spec.minimum), np.asarray(spec.maximum)
    return Box(seen.shape, dtype, low=low, high=high)


def _action_spec(spec: Any, mask: Any = None) -> Spec:
    """Integers in a BoundedArray are as many as a mask with a row for each has; one
    task has bounds that reach further."""
    dtype, number = np.dtype(spec.dtype), getattr(spec, "num_values", None)
    if number is not None:
        values = np.asarray(number)
        return MultiDiscrete(values) if values.ndim else Discrete(int(values))
    if not hasattr(spec, "minimum"):
        return Box(tuple(spec.shape), dtype)
    ends = np.asarray(spec.minimum), np.asarray(spec.maximum)
    low, high = (np.broadcast_to(x, spec.shape) for x in ends)
    if dtype.kind == "f":
        return Box(tuple(spec.shape), dtype, low=low, high=high)
    nvec, start = (high.astype(np.int64) - low + 1), low.astype(np.int64)
    if mask is not None and mask.shape[:-1] == nvec.shape:
        nvec = np.minimum(nvec, mask.shape[-1])
    return MultiDiscrete(nvec, start) if nvec.ndim else Discrete(int(nvec), int(start))


def _mask_shape(mask: Box, action_spec: Spec, joint: bool | None) -> tuple[int, ...]:
    """That of `Masked.allowed`.

    Raises:
      RefusedError: the mask fits no such actions, or fits in two ways.
    """
    if isinstance(action_spec, Discrete) and mask.shape == (action_spec.num_values,):
        return mask.shape
    if isinstance(action_spec, MultiDiscrete):
        sizes = action_spec.sizes
        fits = {True: mask.shape == sizes}
        # One row for each choice, of equal sizes.
        fits[False] = mask.shape == (*action_spec.shape, sizes[0])
        fits[False] &= len({*sizes}) == 1
        meant = [x for x in (True, False) if fits[x] and joint in (None, x)]
        if len(meant) == 1:
            return sizes if meant[0] else (sum(sizes),)
        if meant:
            raise RefusedError(
                f"a mask {mask.shape} may be of all combinations of {action_spec}, or"
                " of the values of each: say joint=True or joint=False"
            )
    raise RefusedError(f"a mask {mask.shape} is none of {action_spec}")


def _drawing(env: Any) -> Any:
    """What draws a state, if the viewer can make an array of it."""
    viewer: Any = getattr(env, "_viewer", None)
    if not hasattr(viewer, "_display_rgb_array"):
        return None

    def draw(now):
        quiet = copy.copy(viewer)
        quiet._display = quiet._display_rgb_array
        try:
            picture = quiet.render(jax.tree.map(jnp.asarray, now[0]))
            return np.array(picture)[..., :3]
        finally:
            quiet.close()

    return draw
