"""Environments as pairs of pure functions over a batch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jaxrl_par.types import Action, EnvState, PRNGKey, Spec, Specs, TimeStep

Floats = Float[Array, " B"]


class Episode(NamedTuple):
    """The episode in progress, or just ended, of each environment."""

    return_: Floats
    """Sum of its rewards so far, undiscounted, before any wrapper changed them."""
    length: Int[Array, " B"]
    """Its environment steps so far."""


class Environment(NamedTuple):
    """`num_envs` environments as a stream that shows every observation once.

    A step from an observation that is `last` ignores the action, pays 0 and shows the
    `first` observation of the next episode.
    """

    reset: Callable[[PRNGKey], tuple[EnvState, TimeStep]]
    step: Callable[
        [EnvState, Action, PRNGKey], tuple[EnvState, TimeStep, Floats, Floats]
    ]
    """(env_state, action, key) -> (env_state, next step, reward, discount)

    Policies may choose outside the bounds of `action_spec`: what is done is the nearest
    action within. `wrappers.clip_actions` sees to it."""
    num_envs: int
    observation_spec: Specs
    """A spec for each leaf of an observation, without the batch axis."""
    action_spec: Spec
    name: str
    max_episode_steps: int | None
    """Time limit in environment steps, None where there is none."""
    episode: Callable[[EnvState], Episode] | None = None
    """Statistics of the episodes; `wrappers.episode_statistics` adds them."""
    draw: Callable[[EnvState, int], UInt8[np.ndarray, "H W 3"]] | None = None
    """(env_state, i) -> picture of environment i, with what observations hide."""

    @property
    def specs(self) -> tuple[Specs, Spec]:
        """(of observations, of actions), as a network takes them."""
        return self.observation_spec, self.action_spec
