"""A problem estimated from samples, off-line: count first, then solve.

All samples are needed before anything is known, and they cannot be chosen by what was
learned so far. What it gives is what TD(0) finds, if that repeats the same samples.

Source: Elster, Mustafaoglu and Pingali, Parallel reinforcement learning, lecture 3.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl_par.algorithms.tabular.mdp import MDP, Policy, Transition
from jaxrl_par.errors import refuse


class Estimate(NamedTuple):
    """What N samples say."""

    mdp: MDP
    policy: Policy
    """n(s, a) / n(s), the policy that acted; 0 where s was not seen."""
    counts: Int[Array, "S A S"]
    """n(s, a, s')"""


def estimate(
    transitions: Transition,
    num_states: int,
    num_actions: int,
    gamma: float | Float[Array, ""],
) -> Estimate:
    """The frequencies of N samples, as a problem and a policy.

        P^(s'|s, a)  = n(s, a, s') / n(s, a)
        R^(s, a, s') = the mean reward of these n(s, a, s')

    Then `evaluate(estimate.mdp, estimate.policy)` are the certainty-equivalent values

        V^(s) = 1/n(s) sum_s' n(s, s') (R^(s, s') + gamma V^(s'))

    A state in which no action was seen is terminal: that of the end of an episode, and
    any other. A pair of state and action that was not seen has a row of zeros, as if it
    ended the episode with reward 0; it can be planned with, but not sampled.

    Args:
      transitions: fields [N], with states in 0 .. num_states - 1 and actions in
        0 .. num_actions - 1; larger ones are dropped. Discounts are not read.

    Raises:
      ValueError: there is no sample, no state or no action.
    """
    num_samples = transitions.state.shape[0]
    refuse(transitions=num_samples, num_states=num_states, num_actions=num_actions)
    at = (transitions.state, transitions.action, transitions.next_state)
    shape = (num_states, num_actions, num_states)
    # Integers: a float32 does not change any more when 1 is added to 2**24.
    counts = jnp.zeros(shape, jnp.int32).at[at].add(1, mode="drop")
    sums = jnp.zeros(shape).at[at].add(transitions.reward, mode="drop")
    of_pairs = jnp.sum(counts, axis=2)
    of_states = jnp.sum(of_pairs, axis=1)
    mdp = MDP(
        counts / jnp.maximum(of_pairs, 1)[:, :, None],
        sums / jnp.maximum(counts, 1),
        jnp.asarray(gamma, jnp.float32),
        of_states == 0,
        of_states / jnp.sum(of_states),
    )
    return Estimate(mdp, of_pairs / jnp.maximum(of_states, 1)[:, None], counts)
