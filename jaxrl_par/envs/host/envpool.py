"""EnvPool's environments as streams. Only this module knows EnvPool, imported late.

Seen with EnvPool 1.2.5, and tested: the step after the end ignores its action and shows
the next episode; a pole that falls in the very step of the time limit is reported as
truncated and not as terminated, which no adapter can undo; HalfCheetah and other MuJoCo
observations are float64.
"""

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from jaxrl_par.envs.host import rows
from jaxrl_par.envs.host.admission import map_leaves
from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.envs.host.gymnasium import VectorHost
from jaxrl_par.errors import unknown_name
from jaxrl_par.specs import Box, Spec, Specs
from jaxrl_par.stream import Obs

_NO_LIMIT = np.iinfo(np.int32).max


def from_envpool(
    name: str,
    num_envs: int,
    seed: int,
    *,
    num_threads: int | None = None,
    info_metrics: Sequence[str] = (),
    masked: bool = False,
    **options: Any,
) -> HostEnvironment:
    """EnvPool's environments of that name, all stepped together by its threads.

    Images, uint8 with three axes, whose first axis is the shortest are taken to have
    their channels first and are shown as [height, width, channels].

    Args:
      num_threads: by default EnvPool's choice.
      info_metrics: entries of `info` to log besides success; see `envs.host.info`.
      masked: as for `from_vector`.
      options: options of the environment, as `envpool.make` takes them.

    Raises:
      ImportError: EnvPool is not installed.
      ValueError: no such environment or option, or `batch_size` (results from a part
        of the environments) or `max_num_players` is among the options.
    """
    rows.check_arguments(num_envs, seed)
    check_name(name)
    envpool = _package()
    refused = options.keys() & {"batch_size", "max_num_players", "env_seed"}
    if refused:
        raise ValueError(
            f"{', '.join(sorted(refused))}: all environments must answer in every step,"
            " with one player and a seed of their own"
        )
    allowed = envpool.make_spec(name).config._fields
    for option in options:
        if option not in allowed:
            raise unknown_name(f"option of {name}", option, allowed)
    if num_threads is not None:
        options["num_threads"] = num_threads
    seeds = [rows.episode_seed(seed, index, 0) for index in range(num_envs)]
    pool = envpool.make(
        name, env_type="gymnasium", num_envs=num_envs, seed=seeds, **options
    )
    host = _EnvPoolHost(pool, name)
    host.tell(info_metrics, masked)
    return host


def _package() -> Any:
    return rows.imported("envpool", "EnvPool", "envpool")


def check_name(name: str) -> None:
    """Raises as `from_envpool` does where there is no such environment."""
    known = _package().list_all_envs()
    if name not in known:
        raise rows.unknown_environment(name, known, "envpool.list_all_envs()")


def time_limit(name: str) -> int | None:
    """Steps of an episode, None without a limit. Raises as `from_envpool`."""
    check_name(name)
    return _limit(_package().make_spec(name).config._asdict())


def _limit(config: dict[str, Any]) -> int | None:
    limit = config.get("max_episode_steps", _NO_LIMIT)
    return None if limit == _NO_LIMIT else int(limit)


class ImageHost(VectorHost):
    """Shows images whose channels come first with their channels last."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.observation_spec = channels_last_spec(self._specs)

    def _shown(self, obs: Obs) -> Obs:
        return channels_last(self._specs, obs)


class _EnvPoolHost(ImageHost):
    def __init__(self, pool: Any, name: str):
        # Seeds are given when a pool is made; its reset takes none.
        super().__init__(pool, "NEXT_STEP", None, name, _limit(pool.config))

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        result = super()._call(method, *args, **kwargs)
        env_id = result[-1]["env_id"]
        if not np.array_equal(env_id, np.arange(self.num_envs)):
            raise RuntimeError(
                f"EnvPool answered for environments {env_id}, not for all in order"
            )
        return result


def channels_last_spec(specs: Specs) -> Specs:
    """The specs, with the first axis of images moved to the end."""

    def leaf(spec: Spec) -> Spec:
        if not _channels_first(spec):
            return spec
        sides = (np.broadcast_to(side, spec.shape) for side in (spec.low, spec.high))
        low, high = (np.moveaxis(side, 0, -1) for side in sides)
        return Box(low.shape, spec.dtype, low, high)

    return map_leaves(leaf, specs)


def channels_last(specs: Specs, obs: Obs) -> Obs:
    """The batch of observations, with the first axis of images moved to the end."""

    def leaf(spec: Spec, x: np.ndarray) -> np.ndarray:
        first = _channels_first(spec)
        return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if first else x

    return map_leaves(leaf, specs, obs)


def _channels_first(spec: Spec) -> TypeGuard[Box]:
    image = isinstance(spec, Box) and spec.dtype == np.uint8 and len(spec.shape) == 3
    return image and spec.shape[0] < min(spec.shape[1:])
