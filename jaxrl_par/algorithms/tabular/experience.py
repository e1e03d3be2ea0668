"""A model that is counted while it acts: what each action led to, and when.

For each pair of state and action, over the times that it was tried, the latest with
weight 1 and each earlier one with `memory` times that of the one after it,

    weight[s, a]          sum of weights
    reward[s, a]          sum of weights times rewards
    successors[s, a, s']  sum of weights times discounts, where it led to s'

    backup(s, a) = (reward[s, a] + sum_s' successors[s, a, s'] max_b Q(s', b))
                   / weight[s, a]

With memory 1 it is the certainty-equivalent backup, with 0 that of the latest try. An
end has discount 0 and no successor, so that the start of the next episode is none.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.algorithms.tabular.mdp import ActionValues, Transition
from jaxrl_par.types import Trajectory


class Experience(NamedTuple):
    """The model, see above."""

    weight: Float[Array, "S A"]
    reward: Float[Array, "S A"]
    successors: Float[Array, "S A S"]
    tried: Int[Array, "S A"]
    """The real step of the latest try; 0 without one."""

    @property
    def known(self) -> Bool[Array, "S A"]:
        """Pairs that were tried."""
        return self.weight > 0


def nothing(num_states: int, num_actions: int) -> Experience:
    """Before anything was tried."""
    pairs = jnp.zeros((num_states, num_actions))
    successors = jnp.zeros((num_states, num_actions, num_states))
    return Experience(pairs, pairs, successors, pairs.astype(jnp.int32))


def tried(
    model: Experience,
    transition: Transition,
    time: Int[Array, ""],
    memory: Float[Array, ""] | float,
) -> Experience:
    """After one more real step, whose number is `time`; fields of it are [1]."""
    at = (transition.state, transition.action)
    weight, reward, successors, _ = (x[at] for x in model)
    latest = jnp.arange(successors.shape[-1]) == transition.next_state
    latest = jnp.where(latest[None], transition.discount[:, None], 0.0)
    return Experience(
        model.weight.at[at].set(memory * weight + 1.0),
        model.reward.at[at].set(memory * reward + transition.reward),
        model.successors.at[at].set(memory * successors + latest),
        model.tried.at[at].set(time),
    )


def backups(model: Experience, q_values: ActionValues) -> ActionValues:
    """The backup of every pair; 0 where it was not tried."""
    following = model.successors @ jnp.max(q_values, axis=1)
    return (model.reward + following) / jnp.where(model.known, model.weight, 1.0)


def backup(
    model: Experience,
    q_values: ActionValues,
    state: Int[Array, ""],
    action: Int[Array, ""],
) -> Float[Array, ""]:
    """That of one pair."""
    following = model.successors[state, action] @ jnp.max(q_values, axis=1)
    weight = model.weight[state, action]
    total = model.reward[state, action] + following
    return total / jnp.where(weight > 0, weight, 1.0)


def transitions_of(
    trajectory: Trajectory, gamma: float
) -> tuple[Transition, Bool[Array, "T B"]]:
    """The steps of a stream whose observations are states, and which of them are any.

    A stream shows the observation that ended an episode: it is the successor there, and
    never the start of the next one. At a time limit the discount is `gamma`.
    """
    seen = trajectory.steps.obs
    steps = Transition(
        seen[:-1],
        trajectory.action,
        trajectory.reward,
        gamma * trajectory.discount,
        seen[1:],
    )
    return steps, ~trajectory.rows.last
