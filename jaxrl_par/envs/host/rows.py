"""What the adapters share: rows, seeds of episodes, names."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import numpy as np

from jaxrl_par.envs.catalogue import is_name
from jaxrl_par.envs.host import spaces
from jaxrl_par.envs.host.admission import Observations
from jaxrl_par.envs.host.base import HostEnvironment, HostRow
from jaxrl_par.envs.host.info import EpisodeInfo
from jaxrl_par.envs.host.masking import InfoMasks
from jaxrl_par.envs.host.sending import Actions
from jaxrl_par.errors import RefusedError, at_least, refuse_any, unknown_name
from jaxrl_par.masks import Masked
from jaxrl_par.stream import Metrics, Obs, TimeStep


def time_step(obs: Obs, first: Any, last: Any) -> TimeStep:
    """A step of numpy arrays, where the record speaks of those of JAX."""
    return TimeStep(obs, first, last)


class GymnasiumHost(HostEnvironment):
    """What the adapters of Gymnasium's two interfaces share."""

    def __init__(
        self,
        num_envs: int,
        observation_space: Any,
        action_space: Any,
        name: str,
        max_episode_steps: int | None,
    ):
        self.num_envs, self.name = num_envs, name
        self.max_episode_steps = max_episode_steps
        self._specs = spaces.observation_spec(observation_space, name)
        self._observations = Observations(observation_space, self._specs)
        self.observation_spec = self._specs
        self.action_spec = spaces.action_spec(action_space, name)
        self._sending = Actions(action_space, self.action_spec)
        self._last = np.zeros(num_envs, bool)
        self.info = EpisodeInfo((), name)
        self._masks: InfoMasks | None = None

    def tell(self, info_metrics: Sequence[str], masked: bool) -> None:
        """What of `info` is read: entries to log, and whether masks of actions.

        Raises:
          ValueError: as `InfoMasks`.
        """
        self.info = EpisodeInfo(info_metrics, self.name)
        if masked:
            self._masks = InfoMasks(self.action_spec, self.num_envs, self.name)
            self.observation_spec = Masked(self.observation_spec, self._masks.spec)

    def take_info(self, lanes: np.ndarray | None = None) -> Metrics:
        return self.info.take(lanes)

    @abstractmethod
    def _begin(self) -> Obs:
        """Starts every environment anew."""

    @abstractmethod
    def _advance(self, action: Any, first: np.ndarray) -> tuple[Obs, Any, Any, Any]:
        """(obs, reward, terminated, truncated); where `first`, an episode starts and
        only the observation counts."""

    @abstractmethod
    def _where(self, index: int | None) -> str:
        """Names an environment, with episode and step; all of them where it is None."""

    def reset(self) -> TimeStep:
        obs = self._begin()
        self._last = last = np.zeros(self.num_envs, bool)
        return time_step(self._masked(self._shown(obs), last), ~last, last)

    def step(self, action: Any) -> HostRow:
        first = self._last
        obs, reward, terminated, truncated = self._advance(action, first)
        self._last = last = ~first & (terminated | truncated)
        # An episode that terminates at its time limit has terminated.
        return (
            time_step(self._masked(self._shown(obs), last), first, last),
            np.where(first, 0.0, reward).astype(np.float32),
            np.where(first | terminated, 0.0, 1.0).astype(np.float32),
        )

    def _masked(self, obs: Obs, last: np.ndarray) -> Obs:
        """With what may be done next, if that was asked for."""
        return obs if self._masks is None else self._masks.shown(obs, last, self._where)

    def _shown(self, obs: Obs) -> Obs:
        """A hook for adapters that change the layout of observations."""
        return obs

    def _simulator_action(self, action: Any, size: int) -> Any:
        """As `Actions.sent`."""
        return self._sending.sent(action, size, self._where)


def episode_seed(seed: int, index: int, episode: int) -> int:
    """A seed in [0, 2**31), which every simulator takes, for one episode.

    Consecutive seeds, as Gymnasium derives them, would give neighbouring actors the
    same environments.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(index, episode))
    return int(sequence.generate_state(1)[0] >> 1)


def check_arguments(num_envs: int, seed: int) -> None:
    """Raises a ValueError for numbers that no simulator can be made with."""
    given = {"num_envs": num_envs, "seed": seed}
    found = [
        f"{name} must be a whole number, got {x}"
        for name, x in given.items()
        if not isinstance(x, int | np.integer) or isinstance(x, bool)
    ]
    refuse_any(found or at_least(given, num_envs=1, seed=0))


def imported(module: str, package: str, extra: str) -> Any:
    """The module; if its package is not installed, the ImportError says how to."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{package} is not installed: pip install 'jaxrl-par[{extra}]'"
        ) from error


def unknown_environment(name: str, known: Iterable[str], listing: str) -> ValueError:
    """The error for an unknown name among so many that only the nearest are shown;
    `listing` is what shows all of them."""
    if is_name(name):
        return RefusedError(
            f"{name} is a pure environment, and no simulator: use jaxrl_par.envs.make;"
            " a run takes it without a backend"
        )
    known = sorted(known)
    lowered = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(name.lower(), lowered, n=8, cutoff=0.4)
    if not close:
        told = f"unknown environment {name!r}, and none of {len(known)} is like it"
        return ValueError(f"{told}; all: {listing}")
    error = unknown_name("environment", name, [lowered[match] for match in close])
    return ValueError(f"{error} (the nearest of {len(known)}; all: {listing})")
