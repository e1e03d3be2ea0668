"""A policy and values that share nothing, each a network that has both by itself."""

import jax

from jaxrl_par import compatible
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.plain import of_part
from jaxrl_par.types import Carry, Params, PRNGKey, TimeStep


def separate(actor: Network, critic: Network) -> Network:
    """A network with the policy of one and the values of another, wherever it is used.

    Parameters are {"actor", "critic"}, carries (actor's, critic's). What the actor says
    of values, and the critic of the policy, is left for others to learn: PPG's
    auxiliary head is the former.

    Args:
      actor, critic: map steps to (distribution of the action, values [...]).

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

    def initial_carry(num_envs: int) -> Carry:
        carries = (actor.initial_carry(num_envs), critic.initial_carry(num_envs))
        return carries if jax.tree.leaves(carries) else ()

    def of(act, judge):
        def call(params: Params, carry: Carry, steps: TimeStep):
            actors, critics = carry or ((), ())
            (policy, _), actors = act(params["actor"], actors, steps)
            (_, values), critics = judge(params["critic"], critics, steps)
            return (policy, values), (actors, critics) if carry else ()

        return call

    def with_features(params: Params, carry: Carry, steps: TimeStep):
        assert actor.with_features is not None
        actors, critics = carry or ((), ())
        told, actors = actor.with_features(params["actor"], actors, steps)
        (policy, _), features = told
        (_, values), critics = critic.unroll(params["critic"], critics, steps)
        after = (actors, critics) if carry else ()
        return ((policy, values), features), after

    return Network(
        init,
        initial_carry,
        apply=of(actor.apply, critic.apply),
        unroll=of(actor.unroll, critic.unroll),
        specs=actor.specs,
        with_features=None if actor.with_features is None else with_features,
        plain=of_part(actor.plain, "actor", whole=not initial_carry(1)),
    )
