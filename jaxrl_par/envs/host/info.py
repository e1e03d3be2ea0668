"""What a simulator tells in `info` when an episode ends, as means over episodes.

The last step of an episode is where entries speak of all of it: whether it succeeded,
what it cost. Steps before it are not read, so an entry costs nothing until then.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from jaxrl_par.envs.host.admission import shown
from jaxrl_par.errors import nearest
from jaxrl_par.measured import Metric
from jaxrl_par.stream import Mean, Metrics

METRICS = {
    "success_rate": Metric("share of episodes", "whose last step says success"),
    "info_*": Metric(
        "as the environment's",
        "what the last step says of an episode, mean over episodes",
    ),
}

SUCCESS_RATE = "success_rate"
"""The metric of the entry `is_success`, or `success`, wherever there is one."""
_SUCCESS = ("is_success", "success")
_MISSING = object()


def metric_of(name: str) -> str:
    """That of an entry: its mean over episodes."""
    return SUCCESS_RATE if name in _SUCCESS else f"info_{name}"


class EpisodeInfo:
    """Sums over the episodes that ended in the environments of one adapter."""

    def __init__(self, names: Sequence[str], env_name: str):
        """`names`: entries to read besides success. Their metrics are `info_NAME`."""
        self._entries: dict[str, tuple[str, ...]] = {SUCCESS_RATE: _SUCCESS}
        for name in names:
            if name not in _SUCCESS:
                self._entries[metric_of(name)] = (name,)
        self._env_name = env_name
        self._told: set[str] = set()
        self._clear()

    def add(self, info: Any, lane: int) -> None:
        """Reads the info of the last step of an episode of environment `lane`."""
        info = info if isinstance(info, Mapping) else {}
        # Short episodes of most simulators, which tell nothing, cost no more than this.
        if len(self._entries) > 1 or _SUCCESS[0] in info or _SUCCESS[1] in info:
            self._add(lambda name: info.get(name, _MISSING), info, lane)

    def add_lanes(self, infos: Any, lanes: np.ndarray) -> None:
        """Reads those of several, from `infos` of a vector environment: an array for
        each entry, and perhaps a mask `_entry` of the environments that gave it."""
        infos = infos if isinstance(infos, Mapping) else {}
        for lane in map(int, lanes):
            self._add(partial(_of_lane, infos, lane), infos, lane)

    def take(self, lanes: np.ndarray | None = None) -> Metrics:
        """Means of all since the last call, with the same names each time.

        Args:
          lanes: [B] booleans, which environments count; None for all.
        """
        taken: Metrics = {}
        for metric, told in self._told_by.items():
            numbers = [x for lane, x in told if lanes is None or lanes[lane]]
            taken[metric] = _mean(sum(numbers), len(numbers))
        self._clear()
        return taken

    def _clear(self) -> None:
        self._told_by: dict[str, list[tuple[int, float]]] = {
            metric: [] for metric in self._entries
        }

    def _add(
        self, read: Callable[[str], Any], info: Mapping[str, Any], lane: int
    ) -> None:
        for metric, names in self._entries.items():
            found = ((name, read(name)) for name in names)
            name, value = next((x for x in found if x[1] is not _MISSING), (None, None))
            if name is None:
                if metric != SUCCESS_RATE:
                    self._tell(names[0], _absent(names[0], info))
            elif (number := _number(value)) is None:
                told = f"info[{name!r}] is no finite number: {shown(value)}"
                self._tell(name, told)
            else:
                self._told_by[metric].append((lane, number))

    def _tell(self, name: str, what: str) -> None:
        """Warns, once for each entry."""
        if name not in self._told:
            self._told.add(name)
            warnings.warn(
                f"{self._env_name}, at the end of an episode: {what}. Such episodes are"
                " not in its mean",
                stacklevel=2,
            )


def total(metrics: Sequence[Metrics]) -> Metrics:
    """Means over the episodes of all, which have the same names; of none, nothing."""

    def summed(name: str) -> Mean:
        means: Any = [x[name] for x in metrics]
        return _mean(sum(x.total for x in means), sum(x.count for x in means))

    return {name: summed(name) for name in (metrics[0] if metrics else {})}


def known(metrics: Metrics) -> Metrics:
    """Without a success rate, where no episode had one: most simulators know none."""
    rate: Any = metrics.get(SUCCESS_RATE)
    if rate is None or np.any(rate.count):
        return metrics
    return {name: x for name, x in metrics.items() if name != SUCCESS_RATE}


def _mean(total: Any, count: Any) -> Mean:
    both: Any = np.float32(total), np.float32(count)
    return Mean(*both)


def _of_lane(infos: Mapping[str, Any], lane: int, name: str) -> Any:
    values: Any = infos.get(name, _MISSING)
    mask: Any = infos.get(f"_{name}")
    if values is _MISSING or (_has(mask, lane) and not mask[lane]):
        return _MISSING
    # An entry that is itself a dict has one of arrays in its place.
    return values[lane] if _has(values, lane) else values


def _has(values: Any, lane: int) -> bool:
    """Whether there is an element for the environment."""
    if isinstance(values, np.ndarray):
        return values.ndim > 0 and lane < len(values)
    return isinstance(values, list) and lane < len(values)


def _number(value: Any) -> float | None:
    """None for what is no number, or not finite. A truth is 0 or 1."""
    if not isinstance(value, int | float) and not hasattr(value, "dtype"):
        return None
    try:
        array = np.asarray(value)
    except Exception:  # what a tensor of another library raises, as on its own device
        return None
    if array.size != 1 or array.dtype.kind not in "biuf" or np.ma.is_masked(value):
        return None
    number = float(array.item())
    return number if np.isfinite(number) else None


def _absent(name: str, info: Mapping[str, Any]) -> str:
    names = sorted(x for x in map(str, info) if not x.startswith("_"))
    listed = f"It has: {', '.join(names)}" if names else "It has no entries"
    return f"info has no {name!r}{nearest(name, names)} {listed}"
