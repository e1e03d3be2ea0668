"""An update in two halves, which are done in different places and at different times.

A worker acts with parameters that it has read, and computes a gradient at them: its
contribution. Whoever keeps the parameters applies it to those that it has by then. The
updates between the two are the contribution's staleness.

Here are both halves as pure functions. `topologies.delayed` puts time between them as
data, `topologies.workers` as threads; side by side, without time between them, they are
the update of `loops.on_policy`.

Sources: Mnih et al., arXiv:1602.01783, algorithm S3; Nair et al., arXiv:1507.04296,
section 4; Zhang et al., arXiv:1511.05950, equation 6 (scaling by staleness).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Var
from jaxtyping import Array, Int, PyTree

from jaxrl_par import rollout
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Environment
from jaxrl_par.errors import not_chosen
from jaxrl_par.loops.run import episode_metrics, unroll_keys
from jaxrl_par.loops.updates import apply_finite
from jaxrl_par.types import (
    Agent,
    Count,
    Grads,
    Metrics,
    PRNGKey,
    State,
    Trajectory,
)


class Contribution(NamedTuple):
    """What a worker makes of an unroll."""

    grads: Grads
    metrics: Metrics
    env_steps: Int[Array, ""]
    """Rows of the unroll that are no `last`."""


@dataclass(frozen=True)
class StalenessConfig:
    """What staleness does to a gradient; counted in updates that were applied since its
    parameters were read."""

    rule: Literal["accept", "reject", "scale"] = "accept"
    """accept: nothing. reject: a gradient staler than max_staleness is discarded, as by
    Gorila. scale: it is divided by its staleness, from 2 on."""
    max_staleness: int = 8
    """Of a gradient that reject still applies."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_chosen(self)
        if self.max_staleness < 0:
            found.append(f"max_staleness must be at least 0, got {self.max_staleness}")
        return found


def contribution(
    agent: Agent,
    state: State,
    trajectory: Trajectory,
    root: PRNGKey,
    unroll: Count,
    worker: Int[Array, ""] | int,
) -> Contribution:
    """The gradient of an unroll at `state`.

    Args:
      root: of the run; the key is that with which instance `worker` along the axis of a
        synchronous program would learn from its unroll of this number.
    """
    _, key = unroll_keys(root, unroll, worker)
    batch = agent.prepare(state, trajectory, Axis())
    grads, info = agent.grad(state, batch, key, Axis())
    env_steps = jnp.sum(~trajectory.steps.last[:-1], dtype=jnp.int32)
    return Contribution(grads, info.metrics, env_steps)


class Worked(NamedTuple):
    """A worker's turn in a pure environment."""

    workers: rollout.Workers
    """Its environments afterwards."""
    contribution: Contribution
    """With metrics of the episodes that ended."""
    trajectory: Trajectory


def turn(
    agent: Agent,
    env: Environment,
    unroll_length: int,
    state: State,
    learner: State,
    workers: rollout.Workers,
    root: PRNGKey,
    unroll: Count,
    worker: Int[Array, ""] | int,
) -> Worked:
    """Acts with the parameters of `state`, and computes the gradient at `learner`."""
    key, _ = unroll_keys(root, unroll, worker)
    workers, trajectory, episodes = rollout.unroll(
        agent, env, agent.params(state), workers, key, unroll_length
    )
    given = contribution(agent, learner, trajectory, root, unroll, worker)
    metrics = given.metrics | episode_metrics(episodes, Axis())
    return Worked(workers, given._replace(metrics=metrics), trajectory)


def absorb(
    agent: Agent,
    state: State,
    grads: Grads,
    staleness: Int[Array, ""],
    config: StalenessConfig,
) -> tuple[State, dict[str, Array]]:
    """The state with a gradient applied to it, unless it is refused.

    Metrics: `grad_norm` as it came; `skipped`, 1 if it was not finite; `rejected`, 1 if
    it was too stale; `lag`, its staleness. The state has one more update if both are 0.
    """
    accepted = jnp.bool_(True)
    if config.rule == "reject":
        accepted = staleness <= config.max_staleness
    if config.rule == "scale":
        scale = 1.0 / jnp.maximum(staleness, 1)
        scaled = jax.tree.map(lambda x: (x * scale).astype(x.dtype), grads)
        state, metrics = apply_finite(agent, state, scaled)
        metrics["grad_norm"] /= scale
    else:
        state, metrics = apply_finite(agent, state, grads, accepted)
    rejected = 1.0 - accepted.astype(jnp.float32)
    metrics |= {"rejected": rejected, "lag": staleness.astype(jnp.float32)}
    return state, metrics


def parts_read(function: Callable, state: State, *arguments: PyTree) -> list[bool]:
    """For each leaf of `state`, whether `function(state, *arguments)` reads it.

    Nothing is computed; arguments may be shapes. A worker needs a copy of those leaves
    only: of A2C the parameters, and not what the optimizer keeps. What a loop is given
    counts as read, whether or not the loop uses it.
    """
    traced = jax.make_jaxpr(function)(state, *arguments).jaxpr
    used = {x for x in traced.outvars if isinstance(x, Var)}
    for equation in traced.eqns:
        used |= {x for x in equation.invars if isinstance(x, Var)}
    return [x in used for x in traced.invars[: len(jax.tree.leaves(state))]]
