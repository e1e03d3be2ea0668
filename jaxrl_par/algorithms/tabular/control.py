"""SARSA and Q-learning: the values of actions, learned by the one who acts on them.

    SARSA       Q(s, a) <- Q(s, a) + alpha (r + discount Q(s', a') - Q(s, a))
    Q-learning  Q(s, a) <- Q(s, a) + alpha (r + discount max_b Q(s', b) - Q(s, a))

with discount 0 where s' is terminal. In both, a' is chosen in s' from Q as it was
before the update, and taken next, so that they differ in their target alone. SARSA
learns the values of the policy that explores, Q-learning those of the best one, if all
pairs are visited for ever.

Sources: Sutton and Barto, Reinforcement Learning, 2nd edition, sections 6.4 and 6.5;
Elster, Mustafaoglu and Pingali, Parallel reinforcement learning, lecture 3.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl_par.algorithms.tabular.mdp import (
    MDP,
    Transition,
    go_on,
    sample_transitions,
    start_states,
)
from jaxrl_par.algorithms.tabular.tables import StepSize, Table, new_table, updated
from jaxrl_par.errors import at_least, not_between, not_chosen, refuse
from jaxrl_par.exploration import boltzmann, epsilon_greedy
from jaxrl_par.types import PRNGKey


@dataclass(frozen=True)
class ControlConfig:
    """How to learn and how to explore. Numbers may be traced."""

    target: Literal["sarsa", "q_learning"] = "q_learning"
    exploration: Literal["epsilon_greedy", "boltzmann"] = "epsilon_greedy"
    epsilon: float = 0.1
    """Probability of any action, in place of the best."""
    inverse_temperature: float = 1.0
    """For boltzmann: 0 is uniform."""
    step_size: StepSize = StepSize()
    initial_value: float = 0.0
    """Above what can be reached, it makes a greedy learner try everything."""

    def problems(self) -> list[str]:
        found = not_between(self, epsilon=(0, 1)) + not_chosen(self)
        return found + at_least(self, inverse_temperature=0)


class ControlState(NamedTuple):
    """What W workers know together, where they are, and what each does next."""

    table: Table
    """Q [S, A]."""
    state: Int[Array, " W"]
    action: Int[Array, " W"]


def choose(
    key: PRNGKey, q_values: Float[Array, "W A"], config: ControlConfig
) -> Int[Array, " W"]:
    """Actions that explore."""
    if config.exploration == "boltzmann":
        return boltzmann(key, q_values, config.inverse_temperature)
    return epsilon_greedy(key, q_values, config.epsilon)


def control_update(
    table: Table,
    transitions: Transition,
    next_actions: Int[Array, " W"],
    config: ControlConfig,
) -> Table:
    """Q after W transitions at once; see `tables.updated`.

    Args:
      next_actions: what is done in the successors. Q-learning does not read it.
    """
    following = table.values[transitions.next_state]
    if config.target == "sarsa":
        bootstraps = jnp.take_along_axis(following, next_actions[:, None], 1)[:, 0]
    else:
        bootstraps = jnp.max(following, axis=1)
    targets = transitions.reward + transitions.discount * bootstraps
    index = (transitions.state, transitions.action)
    return updated(table, index, targets, config.step_size)


def control_step(
    key: PRNGKey, now: ControlState, mdp: MDP, config: ControlConfig
) -> tuple[ControlState, Transition]:
    """Every worker acts once, and all learn from it."""
    transition_key, start_key, action_key = jax.random.split(key, 3)
    transitions = sample_transitions(transition_key, mdp, now.state, now.action)
    states = go_on(start_key, mdp, transitions)
    actions = choose(action_key, now.table.values[states], config)
    # Where an episode has ended, `actions` belong to the next: the discount is 0.
    table = control_update(now.table, transitions, actions, config)
    return ControlState(table, states, actions), transitions


def learned_action_values(
    key: PRNGKey,
    mdp: MDP,
    config: ControlConfig = ControlConfig(),
    *,
    num_steps: int,
    num_workers: int = 1,
) -> tuple[ControlState, Transition]:
    """Where `num_steps` steps of each worker lead, and what they were, fields [T, W].

    It can be vmapped over keys, problems and the numbers of `config`.

    Raises:
      ValueError: `config` is out of range, or a count is below 1.
    """
    refuse(config, num_steps=num_steps, num_workers=num_workers)
    start_key, action_key, steps_key = jax.random.split(key, 3)
    table = new_table(mdp.transitions.shape[:2], config.initial_value)
    states = start_states(start_key, mdp, num_workers)
    actions = choose(action_key, table.values[states], config)

    def step(now: ControlState, index):
        return control_step(jax.random.fold_in(steps_key, index), now, mdp, config)

    first = ControlState(table, states, actions)
    return jax.lax.scan(step, first, jnp.arange(num_steps))
