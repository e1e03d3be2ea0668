"""How an agent with a policy network acts, sampled and greedily."""

from jaxrl_par.networks import Network
from jaxrl_par.types import ActFn, Carry, Params, PRNGKey, TimeStep


def actors(
    network: Network, record_log_prob: bool = False, record_policy: bool = False
) -> tuple[ActFn, ActFn]:
    """(act, greedy) of a network whose outputs are (distribution, values).

    Args:
      record_log_prob: leave log mu(a|o) of the action taken in the extras, [B]. It has
        to be recorded when acting: later the parameters are others.
      record_policy: leave the whole distribution mu(.|o) in the extras too.
    """

    def act(params: Params, carry: Carry, step: TimeStep, key: PRNGKey):
        (policy, _), carry = network.apply(params, carry, step)
        action = policy.sample(key)
        extras = {"log_prob": policy.log_prob(action)} if record_log_prob else {}
        if record_policy:
            extras["policy"] = policy
        return action, carry, extras

    def greedy(params: Params, carry: Carry, step: TimeStep, key: PRNGKey):
        del key  # the mode needs none
        (policy, _), carry = network.apply(params, carry, step)
        return policy.mode(), carry, {}

    return act, greedy
