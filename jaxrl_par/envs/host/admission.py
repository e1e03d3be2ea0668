"""The border to simulators: nothing bad gets across.

A NaN that reaches a network is found hours later, in the wrong place. Here it is
refused with the environment, field and step where it came up. What a simulator gives is
looked at in this order: how many results there are, their kind, their shape, what they
hold. Only then is it cast, and copied.

What is of another dtype than declared is admitted if the cast loses nothing: integers
where the space has integers and can hold them, floats and integers where it has floats
that are equal to them. Flags are booleans, rewards are numbers. float64 that is
declared, and rewards, are rounded to float32. All else is refused.

Shapes, dtypes and what a cast would change are checked in each step; whether values are
finite and within bounds, over a whole unroll, where it costs least: `check_values`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from jaxrl_par.specs import Box, Discrete, MultiDiscrete, Spec, Specs

Obs = Any
Where = Callable[[int | None], str]
"""Names an environment, with episode and step, or all of them where it is None."""
_RESULTS = {
    "step": "(observation, reward, terminated, truncated, info)",
    "reset": "(observation, info)",
}
_WAY_OUT = (
    "wrap the simulator in one that returns these; for the interface of Gym before"
    " 0.26, shimmy has GymV21CompatibilityV0"
)
_EXACT = 2**53
"""Up to here float64 holds every integer."""


class BadRowError(ValueError):
    """An environment gave something that its specs exclude."""

    row: int | None = None
    """Row of the unroll, where it was found only at the end of it."""


def admitted_results(
    results: Any, method: str, where: Where, index: int | None = None
) -> tuple[Any, ...]:
    """What `step` or `reset` returned: five results, or two, of which the last is a
    dict.

    Raises:
      BadRowError: it is something else.
    """
    count = 5 if method == "step" else 2
    is_tuple = isinstance(results, tuple)
    if is_tuple and len(results) == count and isinstance(results[-1], dict):
        return results
    if not is_tuple:
        found = f"a {type(results).__name__}"
    elif len(results) != count:
        found = f"{len(results)} results"
    else:
        found = f"{shown(results[-1])} for info, which is a dict"
    raise BadRowError(
        f"{method} of {where(index)} must return {_RESULTS[method]}, and returned"
        f" {found}: {_WAY_OUT}"
    )


def way_out(error: BaseException, method: str) -> str:
    """What to do where a wrapper fails, in words of its own, because the simulator
    within returns another number of results; empty for other errors."""
    if not isinstance(error, ValueError) or "values to unpack" not in str(error):
        return ""
    return f". If {method} does not return {_RESULTS[method]}: {_WAY_OUT}"


def admitted_reward(reward: Any, index: int, where: Where) -> Any:
    """The reward of one environment, a number.

    Raises:
      BadRowError: it is none: booleans, text, arrays with axes are not.
    """
    kind = type(reward)
    if kind is float or kind is np.float64 or kind is np.float32:
        return reward
    if kind is int and -_EXACT <= reward <= _EXACT:
        return reward
    return _number("reward", reward, (), lambda: where(index))[()]


def admitted_flag(name: str, flag: Any, index: int, where: Where) -> Any:
    """A flag of one environment, a boolean of Python or numpy.

    Raises:
      BadRowError: it is something else, such as None or text, which Python would take
        for true or false.
    """
    if type(flag) is bool or type(flag) is np.bool_:
        return flag
    return _boolean(name, flag, (), lambda: where(index))[()]


def admitted_rewards(rewards: Any, num_envs: int, where: Where) -> np.ndarray:
    """The rewards of all environments, [num_envs]. Raises as `admitted_reward`, and for
    one number that would stand for all."""
    return _number("reward", rewards, (num_envs,), lambda: where(None))


def admitted_flags(name: str, flags: Any, num_envs: int, where: Where) -> np.ndarray:
    """The flags of all environments, [num_envs]. Raises as `admitted_flag`."""
    return _boolean(name, flags, (num_envs,), lambda: where(None))


class Observations:
    """What observations of a space may be, and batches [B, ...] of them."""

    def __init__(self, space: Any, specs: Specs):
        """`specs`: those that `spaces.observation_spec` makes of the space."""
        self._specs = specs
        self._single = isinstance(specs, Spec)
        self._leaves = [
            _Leaf(path, spec, inner) for path, spec, inner in _walk(specs, space)
        ]

    def empty(self, size: int) -> list[np.ndarray]:
        """Where so many observations are written, in the dtypes of the space."""
        return [leaf.empty(size) for leaf in self._leaves]

    def write(
        self, rows: list[np.ndarray], row: int, obs: Any, index: int, where: Where
    ) -> None:
        """Copies the observation of environment `index` into a row.

        Raises:
          BadRowError: its structure, kind or shape is not that of the space, or the
            space cannot hold it.
        """
        if self._single:
            leaf = self._leaves[0]
            # What nearly all simulators give, for whom this is all that it costs.
            if type(obs) is np.ndarray and obs.dtype is leaf.dtype:
                if obs.shape == leaf.shape:
                    rows[0][row] = obs
                    return
            elif (
                type(obs) is int and leaf.is_choice and -_EXACT <= obs <= _EXACT
            ) or leaf.is_declared(obs, leaf.shape):
                rows[0][row] = obs
                return
        parts = self._parts(obs, lambda: where(index))
        for leaf, place, part in zip(self._leaves, rows, parts, strict=True):
            if leaf.is_declared(part, leaf.shape):
                place[row] = part
            else:
                place[row] = leaf.declared(part, leaf.shape, lambda: where(index))

    def one(self, rows: list[np.ndarray]) -> Obs:
        """What was written into the first row, as the space declares it."""
        parts = iter(rows)
        return map_leaves(lambda _: next(parts)[0], self._specs)

    def batch(
        self, rows: list[np.ndarray], where: Where, indices: np.ndarray | None = None
    ) -> Obs:
        """What was written, in the specs' dtypes.

        Args:
          indices: the environments of the rows, where these are not all in order.

        Raises:
          BadRowError: an integer is not among those of its space.
        """
        if self._single:
            return self._leaves[0].settled(rows[0], where, indices)
        leaves = zip(self._leaves, rows, strict=True)
        settled = iter([leaf.settled(x, where, indices) for leaf, x in leaves])
        return map_leaves(lambda _: next(settled), self._specs)

    def admitted(self, obs: Any, size: int, where: Where, copy: bool) -> Obs:
        """The observations of a vector environment, in the specs' dtypes.

        Args:
          copy: whether they must not share memory with what the simulator returned.

        Raises:
          BadRowError: as `write` and `batch`.
        """
        single = self._single
        parts = (obs,) if single else self._parts(obs, lambda: where(None))
        rows = []
        for leaf, part in zip(self._leaves, parts, strict=True):
            shape = (size, *leaf.shape)
            if not leaf.is_declared(part, shape):
                part = leaf.declared(part, shape, lambda: where(None))
            rows.append(np.array(part) if copy else part)
        return self.batch(rows, where)

    def _parts(self, obs: Any, where: Callable[[], str]) -> Iterator[Any]:
        return _parts(self._specs, obs, "observation", where)


class _Leaf:
    """An array of an observation: as the space declares it, and as its spec has it."""

    def __init__(self, path: str, spec: Spec, space: Any):
        self.path, self.spec, self.shape = path, spec, spec.shape
        self.is_choice = isinstance(spec, Discrete)
        self.dtype = np.dtype(np.int64 if self.is_choice else space.dtype)
        bits = type(space).__name__ == "MultiBinary"
        self._kinds = {"f": "fiu", "b": "b"}.get(self.dtype.kind, "iub"[: 2 + bits])
        narrowed = self.dtype != spec.dtype and self.dtype.kind in "iu"
        self._has_range = self.is_choice or narrowed
        self._low = self._high = 0
        if isinstance(spec, Discrete):
            self._low = int(space.start)
            self._high = self._low + spec.num_values - 1
        elif narrowed:
            self._low, self._high = np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max
        self._is_settled = not self._has_range and self.dtype == spec.dtype

    def empty(self, size: int) -> np.ndarray:
        return np.empty((size, *self.shape), self.dtype)

    def is_declared(self, x: Any, shape: tuple[int, ...]) -> bool:
        """Whether it is what the space declares, bounds aside."""
        kind = type(x)
        if kind is int and self.is_choice:
            return shape == () and -_EXACT <= x <= _EXACT
        if kind is np.ndarray:
            return x.dtype == self.dtype and x.shape == shape
        return kind is self.dtype.type and shape == ()

    def declared(
        self, x: Any, shape: tuple[int, ...], where: Callable[[], str]
    ) -> np.ndarray:
        """An array in the space's dtype, whose elements are equal to those of x."""
        told = str(self.dtype)
        array = _array(self.path, x, self._kinds, told, shape, where)
        with np.errstate(over="ignore", invalid="ignore"):
            cast = array.astype(self.dtype)
        lost = self._lost(array, cast)
        if lost.any():
            bounds = self._bounds()
            _refuse_element(
                self.path, array, lost, where(), f"cannot be held by {told}{bounds}"
            )
        return cast

    def settled(
        self, x: np.ndarray, where: Where, indices: np.ndarray | None
    ) -> np.ndarray:
        """Rows [B, ...] in the spec's dtype."""
        if self._is_settled:
            return x
        if self._has_range:
            x = self._in_range(x, where, indices)
        if self.dtype.kind != "f":
            return x.astype(self.spec.dtype)
        # What is too large becomes infinite, which is refused.
        with np.errstate(over="ignore"):
            return x.astype(self.spec.dtype)

    def _in_range(
        self, x: np.ndarray, where: Where, indices: np.ndarray | None
    ) -> np.ndarray:
        """Integers, from 0 on where they are choices."""
        shifted = x
        if self.is_choice:
            shifted = x - self._low if self._low else x
            # Unsigned, what is below the start is large: one comparison for both ends.
            outside = shifted.view(np.uint64) > self._high - self._low
        else:
            outside = (x < self._low) | (x > self._high)
        if np.count_nonzero(outside):
            row = int(np.argwhere(outside)[0, 0])
            index = row if indices is None else int(indices[row])
            why = f"is not in {self._low} .. {self._high}"
            _refuse_element(self.path, x[row], outside[row], where(index), why)
        return shifted

    def _bounds(self) -> str:
        if isinstance(self.spec, Discrete):
            return f", and is not in {self._low} .. {self._high}"
        assert isinstance(self.spec, Box)
        return f" with bounds {_interval(self.spec)}"

    def _lost(self, array: np.ndarray, cast: np.ndarray) -> Any:
        """Where a cast to the space's dtype changes what an element is."""
        if self.dtype.kind == "b":
            return np.zeros(array.shape, bool)
        if self.dtype.kind in "iu":
            if array.dtype.kind == "b":
                return np.zeros(array.shape, bool)
            info = np.iinfo(self.dtype)
            return (array < info.min) | (array > info.max)
        with np.errstate(over="ignore", invalid="ignore"):
            back = cast.astype(array.dtype)
        if array.dtype.kind == "f":
            return (back != array) & ~np.isnan(array)
        # The largest integers come back from a float that is larger than they are.
        too_large = np.abs(cast) >= 2.0 ** (np.iinfo(array.dtype).bits - 1)
        return (back != array) | too_large


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


def refuse_nan(action: np.ndarray, where: Where) -> None:
    """Raises a BadRowError for the first action [B, ...] that is no number: a simulator
    would show NaN from then on, and a robot might move."""
    missing = np.isnan(action)
    if np.count_nonzero(missing):
        index = int(np.argwhere(missing)[0, 0])
        raise _refused("action", where(index), f"is not finite: {action[index]}")


def admit_array(name: str, place: np.ndarray, given: Any) -> None:
    """Writes an array of the very shape and dtype of its place.

    Raises:
      BadRowError: it would be cast, or broadcast.
    """
    if not isinstance(given, np.ndarray):
        raise BadRowError(f"{name} is a {type(given).__name__}, not a numpy array")
    if given.shape != place.shape:
        raise BadRowError(f"{name} has shape {given.shape}, not {place.shape}")
    if given.dtype != place.dtype:
        raise BadRowError(f"{name} has dtype {given.dtype}, not {place.dtype}")
    place[...] = given


def check_values(name: str, spec: Spec, x: np.ndarray, check_bounds: bool) -> None:
    """Refuses elements of x [rows, B, ...] that the spec excludes.

    Raises:
      BadRowError: names the field, the environment and the row.
    """
    if isinstance(spec, Discrete):
        outside = (x < 0) | (x >= spec.num_values)
        refuse_where(name, x, outside, f"is not in 0 .. {spec.num_values - 1}")
        return
    if isinstance(spec, MultiDiscrete):
        outside = (x < 0) | (x >= spec.nvec)
        refuse_where(name, x, outside, f"is not below {spec.nvec.tolist()}")
        return
    if np.issubdtype(x.dtype, np.inexact):
        refuse_where(name, x, ~np.isfinite(x), "is not finite")
    if check_bounds and _limits(spec):
        outside = (x < spec.low) | (x > spec.high)
        refuse_where(name, x, outside, f"is outside {_interval(spec)}")


def refuse_where(name: str, x: np.ndarray, bad: np.ndarray, why: str) -> None:
    """Raises for the first bad element of x [rows, B, ...]."""
    if not bad.any():
        return
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    element = f", element {list(index[2:])}" if index[2:] else ""
    error = BadRowError(
        f"{name} of environment {index[1]} in row {index[0]}{element} {why}: {x[index]}"
    )
    error.row = index[0]
    raise error


def _interval(spec: Box) -> str:
    """The bounds, as two numbers where all elements have the same."""
    ends = [np.unique(side) for side in (spec.low, spec.high)]
    if all(end.size == 1 for end in ends):
        return f"[{ends[0][0]}, {ends[1][0]}]"
    return f"[{spec.low}, {spec.high}]"


def _limits(spec: Box) -> bool:
    """Whether the bounds exclude any value that the dtype has."""
    if spec.dtype == np.bool_:
        return False
    if np.issubdtype(spec.dtype, np.integer):
        info = np.iinfo(spec.dtype)
        return bool(np.any(spec.low > info.min) or np.any(spec.high < info.max))
    return bool(np.any(np.isfinite(spec.low)) or np.any(np.isfinite(spec.high)))


def _walk(
    specs: Specs, space: Any, path: str = "observation"
) -> Iterator[tuple[str, Spec, Any]]:
    """(path, spec, space) of each leaf, in the order of `_parts`."""
    if isinstance(specs, dict):
        for key, spec in specs.items():
            yield from _walk(spec, space[key], f"{path}[{key!r}]")
    elif isinstance(specs, tuple):
        for i, spec in enumerate(specs):
            yield from _walk(spec, space[i], f"{path}[{i}]")
    else:
        yield path, specs, space


def _parts(
    specs: Specs, obs: Any, path: str, where: Callable[[], str]
) -> Iterator[Any]:
    """What an observation has in the place of each spec.

    Raises:
      BadRowError: it has other keys, or another number of parts.
    """
    if isinstance(specs, dict):
        if not isinstance(obs, dict):
            raise _refused(path, where(), f"is a {type(obs).__name__}, not a dict")
        if obs.keys() != specs.keys():
            raise _refused(
                path, where(), f"has the keys {[*obs]}, and must have {[*specs]}"
            )
        for key, spec in specs.items():
            yield from _parts(spec, obs[key], f"{path}[{key!r}]", where)
    elif isinstance(specs, tuple):
        if not isinstance(obs, tuple | list):
            raise _refused(path, where(), f"is a {type(obs).__name__}, not a tuple")
        if len(obs) != len(specs):
            raise _refused(path, where(), f"has {len(obs)} parts, not {len(specs)}")
        for i, spec in enumerate(specs):
            yield from _parts(spec, obs[i], f"{path}[{i}]", where)
    else:
        yield obs


def _number(
    name: str, x: Any, shape: tuple[int, ...], where: Callable[[], str]
) -> np.ndarray:
    array = _array(name, x, "fiu", "numbers" if shape else "a number", shape, where)
    # Python's own integers have no bound.
    return array.astype(np.float64) if array.dtype.kind in "iu" else array


def _boolean(
    name: str, x: Any, shape: tuple[int, ...], where: Callable[[], str]
) -> np.ndarray:
    return _array(name, x, "b", "booleans" if shape else "a boolean", shape, where)


def _array(
    name: str,
    x: Any,
    kinds: str,
    told: str,
    shape: tuple[int, ...],
    where: Callable[[], str],
) -> np.ndarray:
    """An array of one of the kinds of dtypes, and of the shape.

    `told`: what it must be, in words.
    """
    try:
        array = np.asarray(x)
    except Exception as error:  # whatever an object's conversion raises
        why = f"is a {type(x).__name__} that is no array ({error})"
        raise _refused(name, where(), f"{why}, and must be {told}") from error
    if array.dtype.kind not in kinds:
        plain = isinstance(x, np.ndarray | np.generic)
        found = f"of dtype {array.dtype}" if plain else f"a {type(x).__name__}"
        raise _refused(name, where(), f"is {found}, {shown(x)}, and must be {told}")
    if np.ma.is_masked(x):
        raise _refused(name, where(), "is masked: fill in what is to be seen there")
    if array.shape != shape:
        raise _refused(name, where(), f"has the shape {array.shape}, not {shape}")
    return array


def shown(x: Any) -> str:
    """What a simulator gave, in a few words, whatever its `repr` does."""
    try:
        return f"{x!r:.60}"
    except Exception as error:
        return f"one whose repr raises {type(error).__name__}"


def _refuse_element(name: str, x: Any, bad: Any, where: str, why: str) -> NoReturn:
    """Raises for the first bad element of an array or a number."""
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    element = f"element {list(index)} " if index else ""
    raise _refused(name, where, f"{element}{why}: {x[index] if index else x}")


def _refused(name: str, where: str, why: str) -> BadRowError:
    return BadRowError(f"{name} of {where} {why}")
