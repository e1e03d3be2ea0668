"""What the adapters share: rows, seeds of episodes, names."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np

from jaxrl_par.envs.host.base import HostRow
from jaxrl_par.errors import at_least, refuse_any, unknown_name
from jaxrl_par.types import Obs, TimeStep


def time_step(obs: Obs, first: Any, last: Any) -> TimeStep:
    """A step of numpy arrays, where the record speaks of those of JAX."""
    return TimeStep(obs, first, last)


def first_step(obs: Obs, num_envs: int) -> TimeStep:
    """What all environments show after a reset."""
    return time_step(obs, np.ones(num_envs, bool), np.zeros(num_envs, bool))


def row(
    obs: Obs,
    *,
    first: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    reward: np.ndarray,
) -> HostRow:
    """A row of the stream.

    An episode that terminates at its time limit has terminated.

    Args:
      first: the step before was `last`; whatever the simulator reports besides the
        observation is ignored there.
    """
    last = ~first & (terminated | truncated)
    return (
        time_step(obs, first, last),
        np.where(first, 0.0, reward).astype(np.float32),
        np.where(first | terminated, 0.0, 1.0).astype(np.float32),
    )


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
    refuse_any(at_least(given, num_envs=1, seed=0))


def unknown_environment(name: str, known: Iterable[str], listing: str) -> ValueError:
    """The error for an unknown name among so many that only the nearest are shown.

    Args:
      listing: what shows all names.
    """
    known = sorted(known)
    lowered = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(name.lower(), lowered, n=8, cutoff=0.4)
    error = unknown_name("environment", name, [lowered[match] for match in close])
    return ValueError(f"{error} (the nearest of {len(known)}; all: {listing})")
