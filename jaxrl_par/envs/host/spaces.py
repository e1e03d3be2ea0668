"""Gymnasium's spaces as specs.

JAX computes with 32 bits. Where a space declares float64, bounds are rounded to float32
here, and observations in `admission`; 64-bit integers become int32 if their bounds fit.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxrl_par.errors import refuse_any, same_text
from jaxrl_par.specs import Box, Discrete, MultiDiscrete, Specs

_INT32 = np.iinfo(np.int32)
_FLOAT32 = np.finfo(np.float32)
# gymnasium 1.3 declares bounds that the observations of these exceed: who keeps the
# main engine on rises far above 2.5, and a walker's hull turns by more than pi.
_WRONG_BOUNDS = {
    "BipedalWalker-v3",
    "BipedalWalkerHardcore-v3",
    "LunarLander-v3",
    "LunarLanderContinuous-v3",
}


def observation_spec(space: Any, name: str) -> Specs:
    """A spec for each leaf of an observation: `Dict` becomes dict, `Tuple` tuple.

    Raises:
      ValueError: the space is of another kind.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        refuse_any(same_text(space, f"observations of {name}"))
        return {key: observation_spec(space[key], name) for key in space}
    if isinstance(space, spaces.Tuple):
        return tuple(observation_spec(inner, name) for inner in space)
    if isinstance(space, spaces.MultiBinary):
        dtype = np.dtype(space.dtype).newbyteorder("=")
        return Box(tuple(space.shape), dtype, low=0.0, high=1.0)
    if isinstance(space, spaces.Discrete):
        return _discrete(space, name)
    if isinstance(space, spaces.Box):
        box = _box(space, name)
        return Box(box.shape, box.dtype) if name in _WRONG_BOUNDS else box
    raise ValueError(
        f"the observation space of {name} is not supported: {space}. Use Box, Discrete,"
        " MultiBinary, or a Dict or Tuple of them"
    )


def action_spec(space: Any, name: str) -> Specs:
    """The spec of an action, a tree of them for `Dict` and `Tuple`. Choices begin at 0
    here: where they do in the space is the spec's `start`. `MultiBinary` is
    `MultiDiscrete` of two values each.

    Real numbers are float32, as policies give them, and bounds are rounded inwards: a
    float32 within them is within those of the space.

    Raises:
      ValueError: the space is of another kind.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        refuse_any(same_text(space, f"actions of {name}"))
        return {key: action_spec(space[key], name) for key in space}
    if isinstance(space, spaces.Tuple):
        return tuple(action_spec(inner, name) for inner in space)
    if isinstance(space, spaces.Discrete):
        return replace(_discrete(space, name), start=int(space.start))
    if isinstance(space, spaces.MultiBinary):
        return MultiDiscrete(np.full(space.shape, 2))
    if isinstance(space, spaces.MultiDiscrete):
        if np.any(space.nvec > _INT32.max) or np.any(abs(space.start) > _INT32.max):
            raise ValueError(_too_wide(space, name))
        return MultiDiscrete(space.nvec, space.start)
    if isinstance(space, spaces.Box):
        box = _box(space, name)
        if space.dtype.kind != "f":
            return box
        pairs = (box.low, space.low), (box.high, space.high)
        low, high = (np.where(np.isinf(x), x, given) for x, given in pairs)
        low, high = Box(box.shape, box.dtype, low, high).inner
        return Box(box.shape, np.dtype(np.float32), low, high)
    raise ValueError(
        f"the action space of {name} is not supported: {space}. Use Discrete, Box,"
        " MultiDiscrete, MultiBinary, or a Dict or Tuple of them"
    )


def _discrete(space: Any, name: str) -> Discrete:
    if space.n > _INT32.max:
        raise ValueError(_too_wide(space, name))
    return Discrete(int(space.n))


def _box(space: Any, name: str) -> Box:
    low, high = np.asarray(space.low), np.asarray(space.high)
    dtype = space.dtype.newbyteorder("=")  # JAX knows no other order
    if dtype.kind == "f":
        low, high = _float_bounds(low, high)
        dtype = np.dtype(np.float16 if dtype.itemsize == 2 else np.float32)
    elif dtype.itemsize > 4:
        if np.any(low < _INT32.min) or np.any(high > _INT32.max):
            raise ValueError(_too_wide(space, name))
        low, high, dtype = low.astype(np.int32), high.astype(np.int32), np.int32
    return Box(tuple(space.shape), np.dtype(dtype), low=low, high=high)


def _too_wide(space: Any, name: str) -> str:
    return (
        f"{name} has integers that 32 bits cannot hold: {space}. Wrap it in"
        " gymnasium.wrappers.TransformObservation or TransformAction"
    )


def _float_bounds(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds in float32, infinite where the largest number stands for none."""
    # EnvPool writes C++'s numeric_limits<float>::min(), which is not the lowest number
    # but the smallest above 0, for no lower bound.
    no_low = (low <= _FLOAT32.min) | (low == _FLOAT32.tiny) & (high >= _FLOAT32.max)
    no_high = high >= _FLOAT32.max
    with np.errstate(over="ignore"):
        low, high = low.astype(np.float32), high.astype(np.float32)
    return (
        np.where(no_low, np.float32(-np.inf), low),
        np.where(no_high, np.float32(np.inf), high),
    )
