"""Learning in phases: a policy learns from each rollout, and once in a while from all.

It is a chain of two stages, which hand the parameters to each other:

    policy     learns from the rollout, as it does alone
    auxiliary  keeps the rollout. After every N_pi of them it makes several passes over
               these, and what it leaves acts, and is what the policy goes on with

The second stage acts, because it has the newest parameters. Each has an optimizer of
its own. What is kept is a part of the run's data: a run that is resumed within a phase
has all of its rollouts.

Source: Cobbe et al., arXiv:2009.04416, algorithm 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.axis import Axis
from jaxrl_par.errors import at_least, at_most, refuse
from jaxrl_par.loops.chain import Parts, Stage, chain
from jaxrl_par.loops.learner import Learner
from jaxrl_par.loops.updates import learn
from jaxrl_par.replay import ring
from jaxrl_par.types import (
    Agent,
    Mean,
    Metrics,
    Params,
    PRNGKey,
    State,
    Trajectory,
)

Targets = Callable[[Params, Trajectory], Float[Array, "T B"]]
"""What the auxiliary phase is to predict, by the parameters that acted."""


@dataclass(frozen=True)
class PhasesConfig:
    """When an auxiliary phase is, and how long."""

    num_rollouts: int = 32
    """N_pi: rollouts between two auxiliary phases, which learn from all of them. Steps
    of training are one rollout each, whatever the passes over it."""
    num_epochs: int = 6
    """E_aux: passes over them."""
    num_minibatches: int = 32
    """Updates in each pass; must divide the rows of all rollouts, or with memory their
    environments."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_rollouts=1, num_epochs=1, num_minibatches=1)
        return found + at_most(self, num_rollouts=10**6, num_epochs=10**6)


class _Given(NamedTuple):
    policy: Learner
    auxiliary: Agent
    targets: Targets
    config: PhasesConfig


def phasic(
    policy: Learner, auxiliary: Agent, targets: Targets, config: PhasesConfig
) -> Learner:
    """Learns with `policy` from each rollout, and with `auxiliary` after N_pi of them.

    Metrics of auxiliary phases begin with "auxiliary_", and are those of the steps that
    have one.

    Args:
      policy, auxiliary: their states have the same `params`.
      auxiliary: learns from trajectories with `targets` in extras["target"].

    Raises:
      ValueError: the config is out of range.
    """
    refuse(config)
    given = _Given(policy, auxiliary, targets, config)
    return chain(
        acts="auxiliary",
        policy=Stage(
            policy.init,
            partial(_policy, given),
            policy.start,
            in_order=policy.in_order,
            prefix="",
        ),
        auxiliary=Stage(
            auxiliary.init,
            partial(_auxiliary, given),
            partial(_start, given),
            actor=policy.actor,
        ),
    )


def _start(given: _Given, trajectory: Trajectory) -> ring.Ring:
    shapes = jax.eval_shape(_kept, trajectory, trajectory.reward)
    capacity = given.config.num_rollouts * trajectory.num_lanes
    return ring.empty(shapes, capacity)


def _kept(trajectory: Trajectory, target: Float[Array, "T B"]) -> Trajectory:
    return trajectory._replace(extras={"target": target}).lanes_first()


def _policy(
    given: _Given, own: State, data, trajectory, key: PRNGKey, axis: Axis, parts: Parts
):
    """Goes on with the parameters that acted."""
    own = own._replace(params=parts.state.auxiliary.params)
    return given.policy.learn(own, data, trajectory, key, axis)


def _auxiliary(
    given: _Given,
    own: State,
    data: ring.Ring,
    trajectory: Trajectory,
    key: PRNGKey,
    axis: Axis,
    parts: Parts,
) -> tuple[State, ring.Ring, Metrics]:
    """Until now `own` has the parameters that acted."""
    data = ring.add(data, _kept(trajectory, given.targets(own.params, trajectory)))
    own = own._replace(params=parts.state.policy.params)

    def phase(state: State) -> tuple[State, Metrics]:
        counts = {
            "num_epochs": given.config.num_epochs,
            "num_minibatches": given.config.num_minibatches,
        }
        rollouts = data.items.time_first()
        everything = (given.auxiliary, state, rollouts, key)
        state, metrics = learn(*everything, **counts, axis=axis)
        return state, _weighted(metrics)

    def none(state: State) -> tuple[State, Metrics]:
        _, metrics = jax.eval_shape(phase, state)
        return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

    # The ring is full to its end with this rollout.
    own, metrics = jax.lax.cond(data.next == 0, phase, none, own)
    return own, data, metrics


def _weighted(metrics: Metrics) -> Metrics:
    """Numbers as means, which weigh nothing where there is no phase."""

    def mean(x: Any) -> Mean:
        return x if isinstance(x, Mean) else Mean(x, jnp.float32(1))

    told = {name: mean(x) for name, x in metrics.items() if name != "skipped"}
    return told | {"skipped": metrics["skipped"]}
