"""The border to simulators, outwards: actions as their spaces have them."""

from typing import Any

import numpy as np

from jaxrl_par import trees
from jaxrl_par.envs.host.admission import Where, map_leaves, refuse_nan
from jaxrl_par.specs import Box, Spec, Specs, sent


class Actions:
    """What simulators with an action space are sent."""

    def __init__(self, space: Any, specs: Specs):
        """`specs`: those that `spaces.action_spec` makes of the space."""
        self._specs = specs
        self._leaves = map_leaves(_Leaf, specs, space)

    def sent(self, action: Any, size: int, where: Where) -> Any:
        """A copy of actions [size, ...], within their bounds, in the space's dtypes and
        with its starts; a tree as the space is one.

        Policies are unbounded, and learn from what they sampled; a simulator gets the
        nearest action that it allows.

        Raises:
          ValueError: the parts or the shape are not those of the specs.
          TypeError: they are not integers where the space has these.
          BadRowError: one is NaN.
        """
        return trees.map_leaves(
            lambda leaf, x: leaf.sent(np.asarray(x), size, where), self._leaves, action
        )

    def of_each(self, action: Any, size: int) -> list[Any]:
        """What `sent` gives, taken apart: that of each of `size` simulators."""
        if isinstance(self._specs, Spec):
            return list(action)
        rows = range(size)
        return [trees.map_leaves(lambda x, i=i: x[i], action) for i in rows]


class _Leaf:
    def __init__(self, spec: Spec, space: Any):
        self._spec, self._dtype = spec, space.dtype
        self._low, self._high = _limits(spec, space.dtype)

    def sent(self, given: np.ndarray, size: int, where: Where) -> np.ndarray:
        spec = self._spec
        if given.shape != (size, *spec.shape):
            raise ValueError(
                f"actions must have the shape {(size, *spec.shape)}, got {given.shape}"
            )
        if not isinstance(spec, Box):
            chosen = sent(spec, given.astype(np.int64, casting="same_kind"))
            return chosen.astype(self._dtype, copy=False)
        refuse_nan(given, where)
        within = np.minimum(np.maximum(given, self._low), self._high)
        return within.astype(self._dtype, casting="same_kind")


def _limits(spec: Spec, dtype: np.dtype) -> tuple[Any, Any]:
    """Bounds of what is sent: those of the spec, and what the simulator's dtype holds,
    which may be less than float32 does."""
    if not isinstance(spec, Box):
        return None, None
    if dtype.kind != "f":
        return spec.low, spec.high
    most = np.float32(min(np.finfo(dtype).max, np.finfo(np.float32).max))
    return np.maximum(spec.low, -most), np.minimum(spec.high, most)
