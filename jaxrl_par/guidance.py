"""What guided policy search is made of: local controllers, their rollouts, and what
they teach the policy that is to act everywhere.

Axis letters: J initial states, N rollouts of each, T steps, D numbers of a state, A of
an action, Z = D + A. States and actions are those of optimal control, x and u.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxrl_par.axis import Axis
from jaxrl_par.types import Metrics, Obs


class Controllers(NamedTuple):
    """p(u_t | x_t) = N(gain_t x_t + offset_t, covariance_t), for every step."""

    gain: Float[Array, "*J T A D"]
    offset: Float[Array, "*J T A"]
    covariance: Float[Array, "*J T A A"]

    def mean(self, states: Float[Array, "*N D"]) -> Float[Array, "*N A"]:
        """Of actions in these states, one for each controller that there is."""
        return jnp.einsum("...ad,...d->...a", self.gain, states) + self.offset


class Rollouts(NamedTuple):
    """What controllers did."""

    states: Float[Array, "*J N T+1 D"]
    actions: Float[Array, "*J N T A"]
    """As chosen, also where an environment does the nearest one within its bounds."""
    obs: Obs
    """[*J, N, T, ...]: what the global policy would have seen."""
    costs: Float[Array, "*J N T"]
    """Minus rewards, as the environment paid them."""


class Lessons(NamedTuple):
    """What local controllers would do where they were, for the global policy."""

    obs: Obs
    """[J, N, T, ...]"""
    mean: Float[Array, "J N T A"]
    precision: Float[Array, "J T A A"]
    """Inverse of the controllers' covariance: how much an error matters, and where."""
    weight: Float[Array, "J T"]
    """Of a step beside others."""


class GlobalPolicy(NamedTuple):
    """N(mean, covariance): the network's mean, and one covariance for all."""

    params: PyTree
    covariance: Float[Array, "A A"]


class Guide(NamedTuple):
    """Local policies as pure functions over J initial states."""

    init: Callable[[int], Any]
    """The local policies of so many initial states."""
    controllers: Callable[[Any], Controllers]
    """Those that act."""
    improve: Callable[
        [Any, PyTree, Rollouts, Array, Array, Axis], tuple[Any, Lessons, Metrics]
    ]
    """(local policies, scenes, rollouts, the global policy's means [J, N, T, A] there,
    its covariance, axis) -> (local policies, lessons, metrics). Scenes [J, ...] are
    what `cost` takes besides state and action."""
    on_policy: bool = False
    """Whether rollouts are to be the global policy's, and not the controllers'."""
