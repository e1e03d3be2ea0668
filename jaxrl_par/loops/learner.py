"""Learners: how to learn from trajectories, whoever acted and wherever that was.

Every topology takes the same value. What is learned is the state, the same on every
device. What a learner keeps of the data is its own on each device, and for each worker.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError, refuse, told
from jaxrl_par.loops.updates import learn, observe, update
from jaxrl_par.replay import Buffer, fresh
from jaxrl_par.types import (
    Agent,
    Carry,
    Grads,
    Metrics,
    Params,
    PRNGKey,
    State,
    TimeStep,
    Trajectory,
)

Data = PyTree


LearnFn = Callable[
    [State, Data, Trajectory, PRNGKey, Axis], tuple[State, Data, Metrics]
]
"""From the learner's state and data to those after a trajectory, with gradients and
metrics averaged over the axis."""


class Gradient(NamedTuple):
    """What a worker makes of an unroll."""

    grads: Grads
    metrics: Metrics
    env_steps: Int[Array, ""]
    """Rows of the unroll that are no `last`."""
    accepted: Bool[Array, ""] | bool = True
    """Whether it may be applied: not before a buffer is ready."""
    outlying: Bool[Array, ""] | bool = False
    """Whether its loss is far above those before, so that it is refused."""


class Halves(NamedTuple):
    """An update in two halves, done in different places and at different times."""

    contribute: Callable[[State, Data, Trajectory, PRNGKey], tuple[Data, Gradient]]
    """The gradient of an unroll, with data of the worker's own."""
    apply: Callable[[State, Grads, Metrics], State]
    observe: Callable[[State, Trajectory, Axis], State]
    """As `Agent.observe`, for those who see both the state and the trajectory."""


class Deferred(NamedTuple):
    """A last stage of `Learner.learn`, which can be done elsewhere and later.

    `lead`, `learn` from each lesson in order, then `join` equal one call of it.
    """

    lead: Callable[
        [State, Data, Trajectory, PRNGKey, Axis], tuple[State, Data, Metrics, Any]
    ]
    """As `LearnFn`, but the part stays as it is, and lessons are left for it: the last
    result, leaves [num_lessons, ...]."""
    learn: Callable[[State, Any, Axis], tuple[State, Metrics]]
    """(part, one of the lessons, axis) -> (part after it, metrics)"""
    join: Callable[[Metrics, Metrics], Metrics]
    """The step's metrics, from those of `lead` and of its lessons [num_lessons]."""
    part: Callable[[State], State]
    """What the lessons change of the state: a state of `Learner.actor`."""
    replace: Callable[[State, State], State]
    """(state, part) -> the state with that part"""
    shown: bool = False
    """`lead` reads the part, so whoever learns the lessons hands it back now and
    then."""


class Kept(NamedTuple):
    """`Learner.learn` in two parts, for those who add and learn at different rates.

    `add` and one `learn` equal one call of it.
    """

    add: Callable[[State, Data, Trajectory, Axis], tuple[State, Data]]
    """Without a gradient."""
    learn: Callable[[State, Data, PRNGKey, Axis], tuple[State, Data, Metrics]]
    """From what was added until now. Before it is ready nothing is applied."""
    ready: Callable[[Data], Bool[Array, ""] | bool]
    rows: Callable[[int], int]
    """Rows that `learn` trains, of unrolls of so many rows, on one device."""


class Learner(NamedTuple):
    """How to learn from one trajectory after the other of B environments."""

    actor: Agent
    """Its `act` and `greedy` act, with `params` of the learner's state."""
    init: Callable[[PRNGKey, TimeStep], State]
    params: Callable[[State], Params]
    """What acts."""
    start: Callable[[Trajectory], Data]
    """Empty data for trajectories of these shapes and dtypes."""
    learn: LearnFn
    in_order: bool = False
    """State is carried between trajectories: lane b must come from the same environment
    each time and continue where it stopped."""
    halves: Halves | None = None
    """For topologies that put time between a gradient and its use."""
    deferred: Deferred | None = None
    """For threads that teach what acts while the rest goes on."""
    kept: Kept | None = None
    """For a learner that goes on with what it has, and waits for no actor."""


class Remember(NamedTuple):
    """A memory of the environments that only the learner has, and no actor computes.

    A batch to learn from then has the carry (that of the actors, the learner's).
    """

    initial: Callable[[int], Carry]
    advance: Callable[[Params, Carry, Trajectory], Carry]
    """(params, memory, trajectory) -> memory after its rows, without the final step"""


def replayed(agent: Agent, buffer: Buffer, *, updates_per_step: int = 1) -> Learner:
    """Learns from what a buffer makes of each trajectory.

    With `fresh()` that is on-policy learning: A2C, IMPALA, A3C, V-MPO. Metrics are
    means over the updates, except `skipped`, their number not applied.

    Args:
      updates_per_step: updates from one trajectory. With more than 1 there are no
        halves: a worker gives one gradient of each unroll.

    Raises:
      ValueError: a count is below 1.
    """
    refuse(updates_per_step=updates_per_step)

    def updated(state, data, newest, key, axis):
        def once(now, key):
            state, data = now
            sample_key, grad_key = jax.random.split(key)
            sampled, drawn = buffer.sample(data, newest, sample_key, axis)
            batch, ready = agent.prepare(state, sampled, axis), buffer.ready(data)
            state, info = update(agent, state, batch, grad_key, axis, accepted=ready)
            data = buffer.update(data, drawn, info, axis)
            return (state, data), info.metrics

        if updates_per_step == 1:
            (state, data), metrics = once((state, data), key)
            return state, data, metrics
        keys = jax.random.split(key, updates_per_step)
        (state, data), metrics = jax.lax.scan(once, (state, data), keys)
        return state, data, over_updates(metrics)

    def learn(state, data, trajectory, key, axis):
        data = buffer.add(data, state, trajectory)
        state, data, metrics = updated(state, data, trajectory, key, axis)
        return observe(agent, state, trajectory, metrics, axis), data, metrics

    def add(state, data, trajectory, axis):
        data = buffer.add(data, state, trajectory)
        return agent.observe(state, trajectory, axis), data

    def contribute(state, data, trajectory, key):
        data = buffer.add(data, state, trajectory)
        sample_key, grad_key = jax.random.split(key)
        sampled, drawn = buffer.sample(data, trajectory, sample_key, Axis())
        batch = agent.prepare(state, sampled, Axis())
        grads, info = agent.grad(state, batch, grad_key, Axis())
        given = (grads, info.metrics, trajectory.env_steps, buffer.ready(data))
        data = buffer.update(data, drawn, info, Axis())
        return data, Gradient(*given)

    halves = Halves(contribute, agent.apply, agent.observe)
    kept = None
    if (batch_rows := buffer.batch_rows) is not None:
        kept = Kept(
            add,
            learn=lambda state, data, key, axis: updated(state, data, None, key, axis),
            ready=buffer.ready,
            rows=lambda rows: updates_per_step * batch_rows(rows),
        )
    return Learner(
        agent,
        agent.init,
        agent.params,
        buffer.init,
        learn,
        halves=halves if updates_per_step == 1 else None,
        kept=kept,
    )


def over_updates(metrics: Metrics) -> Metrics:
    """Means over updates, leaves [num_updates], and how many of them were skipped."""
    skipped: Any = metrics.get("skipped", 0.0)
    means = jax.tree.map(partial(jnp.mean, axis=0), metrics)
    return means | {"skipped": jnp.sum(skipped)}


def epochs(agent: Agent, num_epochs: int, num_minibatches: int = 1) -> Learner:
    """Learns from each trajectory in several passes of minibatches, as PPO does.

    Args:
      num_epochs: passes over a trajectory, each in a new order.
      num_minibatches: updates in each pass.

    Raises:
      ValueError: a count is below 1.
    """
    refuse(num_epochs=num_epochs, num_minibatches=num_minibatches)
    counts = {"num_epochs": num_epochs, "num_minibatches": num_minibatches}

    def passes(state, data, trajectory, key, axis):
        state, metrics = learn(agent, state, trajectory, key, **counts, axis=axis)
        return state, data, metrics

    return Learner(agent, agent.init, agent.params, lambda trajectory: (), passes)


def remembering(agent: Agent, remember: Remember) -> Learner:
    """Learns once from each trajectory, with a memory of the learner's own."""

    def advanced(state, data, trajectory, key, axis):
        # The final row comes again, as the first of the next trajectory.
        after = remember.advance(agent.params(state), data, trajectory)
        batch = trajectory._replace(carry=(trajectory.carry, data))
        state, metrics = learn(agent, state, batch, key, axis=axis)
        return state, after, metrics

    def start(trajectory):
        return remember.initial(trajectory.num_lanes)

    return Learner(agent, agent.init, agent.params, start, advanced, in_order=True)


def learner_of(given: Agent | Learner) -> Learner:
    """The learner; of an agent alone, the one that learns from each trajectory once.

    Raises:
      RefusedError: it is neither.
    """
    if not isinstance(given, Agent | Learner):
        raise RefusedError(
            "a learner must be an Agent, as algorithms make, or a Learner, as loops"
            f" make, got {told(given)}"
        )
    return replayed(given, fresh()) if isinstance(given, Agent) else given


def halves_of(learner: Learner, topology: str) -> Halves:
    """The learner's halves.

    Raises:
      RefusedError: it has none.
    """
    if learner.halves is None:
        raise RefusedError(without_halves(topology))
    return learner.halves


def without_halves(topology: str) -> str:
    """Why the topology refuses a learner without halves."""
    return (
        f"topology {topology} puts time between a gradient and its use, and this"
        " learner has no halves (contribute, apply): it makes several updates of a"
        " trajectory, or carries state from one to the next"
    )


def refuse_joint(learner: Learner, topology: str) -> None:
    """Accepts learners whose gradients may be used elsewhere than where they were made.

    Raises:
      RefusedError: they fit the parameters that they were computed at alone.
    """
    if learner.actor.reduction == "joint":
        raise RefusedError(
            f"topology {topology} uses a gradient at other parameters than those it was"
            " computed at, and this learner's is a step that was searched from these:"
            " take compiled or threads"
        )
