"""An update in two halves, which are done in different places and at different times.

A worker acts with parameters that it has read, and computes a gradient at them.
Whoever keeps the parameters applies it to those that it has by then. The updates
between the two are the gradient's staleness.

Here are both halves as pure functions. `topologies.delayed` puts time between them as
data, `topologies.workers` as threads; side by side, without time between them, they are
the update of `topologies.compiled`.

Sources: Mnih et al., arXiv:1602.01783, algorithm S3; Nair et al., arXiv:1507.04296,
section 4; Zhang et al., arXiv:1511.05950, equation 6 (scaling by staleness).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Var
from jaxtyping import Array, Int, PyTree

from jaxrl_par import rollout
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.envs import Environment
from jaxrl_par.errors import ReadIf, at_least, not_chosen
from jaxrl_par.loops.learner import Data, Gradient, Learner, halves_of
from jaxrl_par.loops.run import episode_metrics, unroll_keys
from jaxrl_par.loops.updates import apply_finite
from jaxrl_par.measured import Metric
from jaxrl_par.types import Count, Grads, Metrics, PRNGKey, State, Trajectory

METRICS = {
    "lag": Metric(
        "updates", "that were applied since the parameters of a gradient were read"
    ),
    "rejected": Metric(
        "share of gradients", "that were not applied, for whatever reason"
    ),
    "stale": Metric("share of gradients", "too old for `max_staleness`"),
    "outlying": Metric("share of gradients", "whose loss is an outlier"),
}


@dataclass(frozen=True)
class StalenessConfig:
    """What staleness does to a gradient; counted in updates that were applied since its
    parameters were read."""

    read_if: ClassVar[ReadIf] = {"max_staleness": ("rule", ("reject",))}
    """What each of these fields is for: another one, and its values."""

    rule: Literal["accept", "reject", "scale"] = "accept"
    """accept: nothing. reject: a gradient staler than max_staleness is discarded, as by
    Gorila. scale: it is divided by its staleness, from 2 on."""
    max_staleness: int = 8
    """Staleness, in updates, up to which reject applies a gradient."""

    def problems(self) -> list[str]:
        return not_chosen(self) + at_least(self, max_staleness=0)


def gradient(
    learner: Learner,
    state: State,
    data: Data,
    trajectory: Trajectory,
    root: PRNGKey,
    unroll: Count,
    worker: Int[Array, ""] | int,
) -> tuple[Data, Gradient]:
    """A worker's data and gradient after an unroll, at `state`.

    Args:
      root: of the run; the key is that with which instance `worker` along the axis of a
        synchronous program would learn from its unroll of this number.

    Raises:
      ValueError: the learner has no halves.
    """
    _, key = unroll_keys(root, unroll, worker)
    return halves_of(learner, "workers").contribute(state, data, trajectory, key)


class Turn(NamedTuple):
    """What a worker's turn in a pure environment gives."""

    streams: rollout.Streams
    """Its environments afterwards."""
    data: Data
    gradient: Gradient
    """With metrics of the episodes that ended."""
    trajectory: Trajectory


def turn(
    learner: Learner,
    env: Environment,
    unroll_length: int,
    acting: State,
    learning: State,
    streams: rollout.Streams,
    data: Data,
    root: PRNGKey,
    unroll: Count,
    worker: Int[Array, ""] | int,
) -> Turn:
    """Acts with the parameters of one state, and computes the gradient at another."""
    key, _ = unroll_keys(root, unroll, worker)
    streams, trajectory, episodes = rollout.unroll(
        learner.actor, env, learner.params(acting), streams, key, unroll_length
    )
    data, given = gradient(learner, learning, data, trajectory, root, unroll, worker)
    metrics = given.metrics | episode_metrics(episodes, Axis())
    return Turn(streams, data, given._replace(metrics=metrics), trajectory)


def apply_stale(
    apply: Callable[[State, Grads, Metrics], State],
    state: State,
    given: Gradient,
    staleness: Int[Array, ""],
    config: StalenessConfig,
) -> tuple[State, dict[str, Array]]:
    """The state with its environment steps counted and, unless refused, a gradient.

    Metrics: `grad_norm` as it came; `skipped`, 1 if it was not finite; `rejected`, 1 if
    it was too stale, outlying or not `accepted`; `stale` and `outlying`, 1 for each of
    these reasons; `lag`, its staleness. If neither of the first two is 1, the state has
    one more update.
    """
    outlying, stale = jnp.asarray(given.outlying), jnp.bool_(False)
    if config.rule == "reject":
        stale = staleness > config.max_staleness
    accepted = jnp.asarray(given.accepted) & ~stale & ~outlying
    scale, grads = 1.0, given.grads
    if config.rule == "scale":
        scale = 1.0 / jnp.maximum(staleness, 1)
        grads = jax.tree.map(lambda x: (x * scale).astype(x.dtype), grads)
    state, metrics = apply_finite(apply, state, grads, given.metrics, accepted)
    metrics["grad_norm"] /= scale
    told = {"rejected": ~accepted, "stale": stale, "outlying": outlying}
    metrics |= {
        n: x.astype(jnp.float32) for n, x in (told | {"lag": staleness}).items()
    }
    return passed(state, given.env_steps), metrics


def parts_read(function: Callable, state: State, *arguments: PyTree) -> list[bool]:
    """For each leaf of `state`, whether `function(state, *arguments)` reads it.

    Nothing is computed; arguments may be shapes. A worker needs a copy of those leaves
    only: of A2C the parameters, and not what the optimizer keeps. Inputs of `scan` and
    `while` count as read even if their body ignores them.
    """
    traced = jax.make_jaxpr(function)(state, *arguments).jaxpr
    used = {x for x in traced.outvars if isinstance(x, Var)}
    for equation in traced.eqns:
        used |= {x for x in equation.invars if isinstance(x, Var)}
    return [x in used for x in traced.invars[: len(jax.tree.leaves(state))]]
