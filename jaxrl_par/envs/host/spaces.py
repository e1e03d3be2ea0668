"""Gymnasium's spaces as specs, and its observations and actions as arrays of them.

JAX computes with 32 bits. float64 observations, actions and bounds are rounded to
float32 here and nowhere else; 64-bit integers become int32 if their bounds fit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrl_par.types import Box, Discrete, Obs, Spec, Specs

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
        return {key: observation_spec(space[key], name) for key in space}
    if isinstance(space, spaces.Tuple):
        return tuple(observation_spec(inner, name) for inner in space)
    if isinstance(space, spaces.MultiBinary):
        return Box(tuple(space.shape), np.dtype(space.dtype), low=0.0, high=1.0)
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, spaces.Box):
        box = _box(space, name)
        return Box(box.shape, box.dtype) if name in _WRONG_BOUNDS else box
    raise ValueError(
        f"the observation space of {name} is not supported: {space}. Use Box, Discrete,"
        " MultiBinary, or a Dict or Tuple of them"
    )


def action_spec(space: Any, name: str) -> Spec:
    """The spec of an action; a `Discrete` space with a start is shifted to 0.

    Raises:
      ValueError: the space is neither `Discrete` nor `Box`.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, spaces.Box):
        return _box(space, name)
    raise ValueError(
        f"the action space of {name} is not supported: {space}. Use Discrete or Box"
    )


def map_leaves(function: Callable[..., Any], specs: Specs, *others: Any) -> Any:
    """`function` of each spec and of what the others have in its place.

    Others may be spaces, or records of another class that have the same keys.
    """
    if isinstance(specs, dict):
        return {
            key: map_leaves(function, spec, *(other[key] for other in others))
            for key, spec in specs.items()
        }
    if isinstance(specs, tuple):
        parts = zip(specs, *others, strict=True)
        return tuple(map_leaves(function, *part) for part in parts)
    return function(specs, *others)


def batch(space: Any, specs: Specs, obs: Any, size: int) -> Obs:
    """Observations of a vector environment, in the specs' dtypes.

    Raises:
      ValueError: a shape is not that of the space.
      TypeError: a dtype is of another kind than the space's.
    """

    def leaf(spec: Spec, space: Any, obs: Any) -> np.ndarray:
        array = np.asarray(obs)
        if array.shape != (size, *spec.shape):
            raise ValueError(
                f"{size} observations of {space} have the shape {array.shape}, not"
                f" {(size, *spec.shape)}"
            )
        if isinstance(spec, Discrete):
            array = array - space.start
        return array.astype(spec.dtype, casting="same_kind", copy=False)

    return map_leaves(leaf, specs, space, obs)


def stack(space: Any, specs: Specs, observations: list[Any]) -> Obs:
    """Observations of single environments as one batch, in the specs' dtypes."""
    # Not np.asarray of the lists: that is several times slower for arrays.
    stacked = map_leaves(lambda _, *leaves: np.stack(leaves), specs, *observations)
    return batch(space, specs, stacked, len(observations))


def _box(space: Any, name: str) -> Box:
    low, high, dtype = np.asarray(space.low), np.asarray(space.high), space.dtype
    if dtype.kind == "f":
        low, high = _float_bounds(low, high)
        dtype = np.dtype(np.float16 if dtype.itemsize == 2 else np.float32)
    elif dtype.itemsize > 4:
        if np.any(low < _INT32.min) or np.any(high > _INT32.max):
            raise ValueError(
                f"{name} has integers that 32 bits cannot hold: {space}. Wrap it in"
                " gymnasium.wrappers.TransformObservation or TransformAction"
            )
        low, high, dtype = low.astype(np.int32), high.astype(np.int32), np.int32
    return Box(tuple(space.shape), np.dtype(dtype), low=low, high=high)


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
