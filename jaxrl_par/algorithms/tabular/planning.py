"""Better policies, up to the best, in a problem that is known.

Source: Sutton and Barto, Reinforcement Learning, 2nd edition, sections 4.2 to 4.4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl_par.algorithms.tabular import evaluation
from jaxrl_par.algorithms.tabular.mdp import MDP, ActionValues, Policy, uniform_policy
from jaxrl_par.exploration import epsilon_greedy_probabilities


def improved(policy: Policy, q_values: ActionValues, rate: float = 1.0) -> Policy:
    """The policy with a share `rate` of its probability moved to the best actions.

    At rate 1 it is greedy, and equals share alike. By the theorem of policy
    improvement no state is worth less under it, if `q_values` are those of `policy`.
    """
    greedy = epsilon_greedy_probabilities(q_values, 0.0)
    return policy + rate * (greedy - policy)


class Plan(NamedTuple):
    """A policy and what it is worth."""

    policy: Float[Array, "S A"]
    values: Float[Array, " S"]
    action_values: Float[Array, "S A"]
    num_improvements: Int[Array, ""]


def policy_iteration(
    mdp: MDP, tolerance: float = 1e-5, max_improvements: int = 100
) -> Plan:
    """The best policy: evaluated, improved, and so on, from the uniform one.

    It ends where no action is worth more than the policy by above `tolerance`.
    """

    def unfinished(plan: Plan):
        gain = jnp.max(jnp.max(plan.action_values, axis=-1) - plan.values)
        return (gain > tolerance) & (plan.num_improvements < max_improvements)

    def improve(plan: Plan) -> Plan:
        policy = improved(plan.policy, plan.action_values)
        return _plan(mdp, policy, plan.num_improvements + 1)

    first = _plan(mdp, uniform_policy(mdp), jnp.int32(0))
    return jax.lax.while_loop(unfinished, improve, first)


def value_iteration(
    mdp: MDP, tolerance: float = 1e-6, max_sweeps: int = 10_000
) -> evaluation.Swept:
    """The values of the best policy, whose Q is `action_values(mdp, values)`.

    V_i(s) = max_a sum_s' P(s'|s, a) (R(s, a, s') + gamma V_{i-1}(s')),   V_0 = 0
    """

    def backup(values: Float[Array, " S"]):
        return jnp.max(evaluation.action_values(mdp, values), axis=-1)

    return evaluation.sweep_until(backup, mdp, tolerance, max_sweeps)


def _plan(mdp: MDP, policy: Policy, num_improvements: Int[Array, ""]) -> Plan:
    values = evaluation.evaluate(mdp, policy)
    q_values = evaluation.action_values(mdp, values)
    return Plan(policy, values, q_values, num_improvements)
