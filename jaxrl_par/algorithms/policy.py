"""How an agent with a policy network acts, sampled and greedily."""

from typing import Literal

from jaxrl_par.networks import Network
from jaxrl_par.types import ActFn, Carry, Params, PRNGKey, TimeStep


def actors(
    network: Network, record: tuple[Literal["log_prob"], ...] = ()
) -> tuple[ActFn, ActFn]:
    """(act, greedy) of a network whose outputs are (distribution, values).

    Args:
      record: what `act` leaves in the extras: log mu(a|o) of the action taken.
    """

    def act(params: Params, carry: Carry, step: TimeStep, key: PRNGKey):
        (policy, _), carry = network.apply(params, carry, step)
        action = policy.sample(key)
        extras = {"log_prob": policy.log_prob(action)} if record else {}
        return action, carry, extras

    def greedy(params: Params, carry: Carry, step: TimeStep, key: PRNGKey):
        del key  # the mode needs none
        (policy, _), carry = network.apply(params, carry, step)
        return policy.mode(), carry, {}

    return act, greedy
