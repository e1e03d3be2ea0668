"""Asymmetric actor-critic: a small network acts, a large one judges it.

The value is needed for learning only, so the network that predicts it may be as large
as the learner affords, and no actor computes it or carries its memory.

Source: the baseline of Parisotto and Salakhutdinov, arXiv:2104.01655, section 5; Pinto
et al., arXiv:1710.06542, for the idea.
"""

import jax
import jax.numpy as jnp

from jaxrl_par import compatible
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.plain import of_part
from jaxrl_par.types import Carry, Params, PRNGKey, TimeStep


def asymmetric(actor: Network, critic: Network) -> Network:
    """A network with the policy of one and the values of another.

    Parameters are {"actor", "critic"}. `initial_carry` and `apply` are for acting: they
    have the actor's memory alone, and values are 0. `unroll` takes and returns the
    carries of both, (actor's, critic's).

    Args:
      actor, critic: map steps to (distribution of the action, values [...]). The
        critic's policy is not used, nor are the actor's values.

    Raises:
      RefusedError: they were made for other observations or actions.
    """
    compatible.refuse_others(
        actor.specs,
        critic.specs,
        "the actor",
        "its critic was made for",
        "Make both from the specs of one environment",
    )

    def init(key: PRNGKey, step: TimeStep) -> Params:
        actor_key, critic_key = jax.random.split(key)
        return {
            "actor": actor.init(actor_key, step),
            "critic": critic.init(critic_key, step),
        }

    def apply(params: Params, carry: Carry, step: TimeStep):
        (policy, values), carry = actor.apply(params["actor"], carry, step)
        return (policy, jnp.zeros_like(values)), carry

    def unroll(params: Params, carry: Carry, steps: TimeStep):
        actor_carry, critic_carry = carry
        (policy, _), actor_carry = actor.unroll(params["actor"], actor_carry, steps)
        (_, values), critic_carry = critic.unroll(params["critic"], critic_carry, steps)
        return (policy, values), (actor_carry, critic_carry)

    plain = of_part(actor.plain, "actor")
    return Network(init, actor.initial_carry, apply, unroll, actor.specs, plain=plain)
