"""Environments as pairs of pure functions over a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxrl_par.errors import RefusedError, told
from jaxrl_par.types import Action, EnvState, PRNGKey, Specs, TimeStep

Floats = Float[Array, " B"]
_NOTHING: dict[str, Floats] = {}


class Episode(NamedTuple):
    """The episode in progress, or just ended, of each environment."""

    return_: Floats
    """Sum of its rewards so far, undiscounted, before any wrapper changed them."""
    length: Int[Array, " B"]
    """Its environment steps so far."""
    told: dict[str, Floats] = _NOTHING
    """What its last step says of all of it, such as whether it succeeded, by the name
    of the metric that is the mean over episodes. Read only where a step is `last`."""
    counts: Bool[Array, " B"] | None = None
    """Whether it is to be counted: a first episode that was staggered is not. None
    where all are."""

    def ended(self, last: Bool[Array, "*T B"]) -> Bool[Array, "*T B"]:
        """Which of them to count, where a step is `last`."""
        return last if self.counts is None else last & self.counts


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
    action_spec: Specs
    """As of observations: one spec, or a spec for each part of an action."""
    name: str
    max_episode_steps: int | None
    """Time limit in environment steps, None where there is none."""
    episode: Callable[[EnvState], Episode] | None = None
    """Statistics of the episodes; `wrappers.episode_statistics` adds them."""
    draw: Callable[[EnvState, int], UInt8[np.ndarray, "H W 3"]] | None = None
    """(env_state, i) -> picture of environment i, with what observations hide."""
    stagger: int = 0
    """Steps over which the ends of first episodes are spread; see `resets.Resets`."""

    @property
    def specs(self) -> tuple[Specs, Specs]:
        """(of observations, of actions), as a network takes them."""
        return self.observation_spec, self.action_spec


def refuse_others(env: Any) -> None:
    """Accepts pure environments, which can be compiled.

    Raises:
      RefusedError: it is something else, such as a simulator.
    """
    if not isinstance(env, Environment):
        raise RefusedError(
            f"env must be an Environment, as envs.make makes, got {told(env)}."
            " Simulators go through envs.host, to the topologies threads and workers"
        )


def refuse_staggered(env: Environment) -> None:
    """Accepts environments whose first episodes are whole, where those are played.

    Raises:
      RefusedError: they are staggered.
    """
    if env.stagger:
        raise RefusedError(
            f"first episodes of {env.name} are cut, which only unrolls and evaluations"
            f" know: make it with stagger = 0, got {env.stagger}"
        )


def refuse_no_maker(make_env: Any) -> None:
    """Accepts what makes the simulators of one actor or worker.

    Raises:
      RefusedError: it cannot be called, as environments themselves cannot.
    """
    if not callable(make_env):
        raise RefusedError(
            "make_env must be a function from a key to simulators of envs.host, which"
            f" every actor calls for its own, got {told(make_env)}"
        )
