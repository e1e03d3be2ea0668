"""Model-free episodic control: the best return that an action ever had in a state.

    Q(o, a) = Q_EC(phi(o), a)                     where the table has that key
              mean of the k nearest entries       elsewhere
    Q_EC(phi(o[t]), a[t]) <- max(Q_EC(phi(o[t]), a[t]), R[t])     after each episode

phi is a random projection. Nothing follows a gradient: what is acted is learned by
`Agent.observe`. The largest return is right where environments are nearly
deterministic, and too hopeful elsewhere.

Episodes are longer than unrolls, so lanes keep theirs until they end: the agent is
learned by `loops.remembering`, with a memory of `episodes_kept`. What acting read
counts as used: rows are looked up again where they are observed, in the table that
acted.

Source: Blundell et al., arXiv:1606.04460.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.algorithms.episodic import episodes
from jaxrl_par.algorithms.episodic.acting import (
    acting,
    annealed,
    num_actions,
    possible,
)
from jaxrl_par.algorithms.episodic.config import MFECConfig
from jaxrl_par.algorithms.episodic.projection import (
    Projection,
    key_width,
    projected,
    projection,
)
from jaxrl_par.algorithms.episodic.reading import averages
from jaxrl_par.algorithms.episodic.table import Table, empty, nearest, touched
from jaxrl_par.algorithms.episodic.writing import Entries, best, written
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import Elapsed
from jaxrl_par.errors import refuse
from jaxrl_par.measured import Metric
from jaxrl_par.types import (
    Agent,
    Grads,
    Info,
    Metrics,
    PRNGKey,
    Specs,
    TimeStep,
    Trajectory,
)

METRICS = {
    "filled": Metric("share of the table", "that has entries"),
    "lost_rows": Metric("rows", "that found no place in the table"),
    "epsilon": Metric("probability", "of an action at random"),
}


class MFECState(NamedTuple):
    """What is learned, and what acts."""

    table: Table
    projection: Projection
    elapsed: Elapsed


def mfec(
    observation_spec: Specs, action_spec: Specs, config: MFECConfig = MFECConfig()
) -> Agent:
    """MFEC for discrete actions, to be learned with `loops.remembering`: see the
    module.

    `greedy` takes the action of the largest value, the first of equals.

    Raises:
      RefusedError: the config is out of range, or actions are not discrete.
    """
    refuse(config)
    number = num_actions((observation_spec, action_spec))

    def init(key: PRNGKey, step: TimeStep) -> MFECState:
        del step  # specs say it all
        width = key_width(observation_spec, config.key_width)
        factors = projection(key, observation_spec, config.key_width)
        return MFECState(empty(number, config.capacity, width), factors, Elapsed.zero())

    def read(state: MFECState, step: TimeStep) -> Float[Array, "B A"]:
        keys = projected(state.projection, observation_spec, step.obs)
        found = nearest(state.table, keys, config.num_neighbours)
        return possible(averages(state.table, keys, found), step.obs)

    def grad(
        state: MFECState, batch: Trajectory, key: PRNGKey, axis: Axis
    ) -> tuple[Grads, Info]:
        del key, axis  # nothing has a gradient
        _, kept = batch.carry
        there = jnp.mean(state.table.there, dtype=jnp.float32)
        lost = jnp.sum(kept.lost).astype(jnp.float32)
        epsilon = annealed(state.elapsed, config)
        return (), Info({"filled": there, "lost_rows": lost, "epsilon": epsilon})

    def apply(state: MFECState, grads: Grads, metrics: Metrics) -> MFECState:
        del grads, metrics
        return state

    def observe(state: MFECState, trajectory: Trajectory, axis: Axis) -> MFECState:
        _, kept = trajectory.carry
        rows = _rows(state, observation_spec, trajectory)
        entries, _ = _due(kept, rows, config)
        flat = rows.key.reshape(-1, rows.key.shape[-1])
        found = nearest(state.table, flat, config.num_neighbours)
        table = touched(state.table, found.joined(axis))
        return state._replace(table=written(table, axis.gather(entries), best))

    act, greedy = acting(read, config)
    functions = (init, lambda num_envs: (), act, grad, apply, greedy)
    return Agent(
        *functions,
        observe=observe,
        params=lambda state: state,
        specs=(observation_spec, action_spec),
    )


def episodes_kept(
    observation_spec: Specs, config: MFECConfig, longest: int, unroll_length: int
) -> tuple[Callable, Callable]:
    """(initial, advance) of `loops.Remember`: the open episodes of each lane.

    Args:
      longest: steps of the longest episode.
    """
    refuse(config, longest=longest, unroll_length=unroll_length)
    width = key_width(observation_spec, config.key_width)
    length = episodes.ring_length(longest, unroll_length)

    def initial(num_lanes: int) -> episodes.Episodes:
        return episodes.start(num_lanes, length, width)

    def advance(
        state: MFECState, kept: episodes.Episodes, trajectory: Trajectory
    ) -> episodes.Episodes:
        rows = _rows(state, observation_spec, trajectory)
        return _due(kept, rows, config)[1]

    return initial, advance


def _rows(
    state: MFECState, observation_spec: Specs, trajectory: Trajectory
) -> episodes.Rows:
    steps = trajectory.rows
    keys = projected(state.projection, observation_spec, steps.obs)
    return episodes.Rows(keys, trajectory.action, trajectory.reward, steps.last)


def _due(
    kept: episodes.Episodes, rows: episodes.Rows, config: MFECConfig
) -> tuple[Entries, episodes.Episodes]:
    """What is to be written with these rows, and what is kept then."""
    return episodes.due(episodes.pushed(kept, rows, config.gamma), 2 * len(rows.reward))
