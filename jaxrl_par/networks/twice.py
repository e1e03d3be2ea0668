"""Policies whose loss may be differentiated twice: for gradients through gradients.

The loss -log pi(a) A has the gradient of the expected return, but its second derivative
is not that of the return: it leaves out that other parameters would have drawn other
actions. Finite differences of the gradient agree with the wrong one. With
l = log pi(a[t]|o[t]) and u = l - stop_gradient(l), which is 0, this one has both:

    l + u (u / 2 + P),   P = the sum of u over the episode's earlier rows in the unroll

Its value and its first derivative are those of l, bit for bit; its second one is that
of the ratio pi / stop_gradient(pi) of the episode up to t less the ratio up to t - 1,
whatever the estimate A of an advantage is. Higher derivatives are not right, and no
gradient through gradients needs them.

Sources: Foerster et al., arXiv:1802.05098 (DiCE); Farquhar et al., arXiv:1909.10549
(with advantages); Rothfuss et al., arXiv:1810.06784, section 5 (without P).
"""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_par.distributions import Distribution
from jaxrl_par.errors import RefusedError, unknown_name
from jaxrl_par.networks.base import Network
from jaxrl_par.types import Action, Carry, Params, PRNGKey, TimeStep

Scores = Literal["episode", "action"]


class Drawn(NamedTuple):
    """The policies of T steps of B environments that drew the actions there."""

    policy: Distribution
    """Leaves [T, B, ...]."""
    first: Bool[Array, "T B"]
    last: Bool[Array, "T B"]
    past: Float[Array, "T B"]
    """1 where what was drawn before counts, else 0."""

    def sample(self, key: PRNGKey) -> Action:
        return self.policy.sample(key)

    def sample_and_log_prob(self, key: PRNGKey) -> tuple[Action, Float[Array, "T B"]]:
        return self.policy.sample_and_log_prob(key)

    def mode(self) -> Action:
        return self.policy.mode()

    def log_prob(self, action: Action) -> Float[Array, "T B"]:
        """That of the policy, with the second derivative of what was drawn."""
        log_prob = self.policy.log_prob(jax.lax.stop_gradient(action))
        # The action of a row that is `last` was ignored, and may be impossible.
        counted = jnp.where(self.last, 0.0, log_prob)
        u = counted - jax.lax.stop_gradient(counted)
        return log_prob + u * (0.5 * u + self.past * _before(u, self.first))

    def entropy(self) -> Float[Array, "T B"]:
        return self.policy.entropy()

    def kl(self, other: Any) -> Float[Array, "T B"]:
        return self.policy.kl(other.policy if isinstance(other, Drawn) else other)


def twice_differentiable(network: Network, scores: Scores = "episode") -> Network:
    """The network, whose policies in an unroll have log-probabilities as above.

    For agents whose loss is -log pi(a) A, such as `a2c` and `reinforce`. That of PPO
    has a ratio of its own, which is right for "action" as it is.

    Args:
      network: maps steps to (distribution of the action, anything).
      scores: "episode" is exact: an action also has to do with what is drawn after it.
        "action" is without P: exact where an action changes nothing but its own
        reward, else biased, and of far less variance in long episodes.

    Raises:
      RefusedError: no such choice, or, when learning, outputs are others.
    """
    if scores not in get_args(Scores):
        raise unknown_name("choice of scores", scores, get_args(Scores))

    def unroll(params: Params, carry: Carry, steps: TimeStep) -> tuple[Any, Carry]:
        (policy, others), carry = network.unroll(params, carry, steps)
        if not isinstance(policy, Distribution):
            raise RefusedError(
                "twice_differentiable needs a network whose outputs are (distribution"
                f" of the action, anything), got {type(policy).__name__}"
            )
        past = jnp.full(steps.first.shape, float(scores == "episode"))
        return (Drawn(policy, steps.first, steps.last, past), others), carry

    return network._replace(unroll=unroll)


def _before(x: Float[Array, "T B"], first: Bool[Array, "T B"]) -> Float[Array, "T B"]:
    """The sum of x over the earlier rows of the episode."""

    def step(total, row):
        x_t, first_t = row
        total = jnp.where(first_t, 0.0, total)
        return total + x_t, total

    return jax.lax.scan(step, jnp.zeros_like(x[0]), (x, first))[1]
