"""TD(0): the values of a policy, learned while it acts.

    V(s) <- V(s) + alpha (r + discount V(s') - V(s))

with discount 0 where s' is terminal. Nothing is stored but V and the visits, and what
was learned so far is known at any time. With steps that decay it converges to the
policy's values, and on samples that are repeated to those of `model.estimate`.

Sources: Sutton and Barto, Reinforcement Learning, 2nd edition, sections 6.1 and 6.3;
Elster, Mustafaoglu and Pingali, Parallel reinforcement learning, lecture 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxrl_par.algorithms.tabular.mdp import (
    MDP,
    Policy,
    Transition,
    go_on,
    sample_actions,
    sample_transitions,
    start_states,
)
from jaxrl_par.algorithms.tabular.tables import StepSize, Table, new_table, updated
from jaxrl_par.errors import refuse
from jaxrl_par.types import PRNGKey


class TDState(NamedTuple):
    """What W workers know together, and where they are."""

    table: Table
    """V [S]."""
    state: Int[Array, " W"]


def td_update(table: Table, transitions: Transition, rule: StepSize) -> Table:
    """V after W transitions at once; see `tables.updated`."""
    following = table.values[transitions.next_state]
    targets = transitions.reward + transitions.discount * following
    return updated(table, (transitions.state,), targets, rule)


def td_step(
    key: PRNGKey, now: TDState, mdp: MDP, policy: Policy, rule: StepSize
) -> tuple[TDState, Transition]:
    """Every worker acts once, and all learn from it."""
    action_key, transition_key, start_key = jax.random.split(key, 3)
    actions = sample_actions(action_key, policy, now.state)
    transitions = sample_transitions(transition_key, mdp, now.state, actions)
    table = td_update(now.table, transitions, rule)
    return TDState(table, go_on(start_key, mdp, transitions)), transitions


def learned_values(
    key: PRNGKey,
    mdp: MDP,
    policy: Policy,
    rule: StepSize = StepSize(),
    *,
    num_steps: int,
    num_workers: int = 1,
    initial_value: float = 0.0,
) -> tuple[TDState, Transition]:
    """Where `num_steps` steps of each worker lead, and what they were, fields [T, W].

    It can be vmapped over keys, problems, policies and the numbers of `rule`.

    Raises:
      ValueError: a number of `rule` is out of range, or a count is below 1.
    """
    refuse(rule, num_steps=num_steps, num_workers=num_workers)
    start_key, steps_key = jax.random.split(key)
    table = new_table(mdp.terminal.shape, initial_value)
    first = TDState(table, start_states(start_key, mdp, num_workers))

    def step(now: TDState, index):
        return td_step(jax.random.fold_in(steps_key, index), now, mdp, policy, rule)

    return jax.lax.scan(step, first, jnp.arange(num_steps))


def replay(
    table: Table, transitions: Transition, rule: StepSize, num_sweeps: int
) -> Table:
    """V after N transitions, fields [N], one by one, all of it `num_sweeps` times."""

    def one(table: Table, transition: Transition):
        row = jax.tree.map(lambda x: x[None], transition)
        return td_update(table, row, rule), None

    def sweep(_, table: Table) -> Table:
        return jax.lax.scan(one, table, transitions)[0]

    return jax.lax.fori_loop(0, num_sweeps, sweep, table)
