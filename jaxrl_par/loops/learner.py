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
from jaxrl_par.elapsed import passed
from jaxrl_par.errors import RefusedError, refuse, told
from jaxrl_par.loops.run import Run, advance, count_skipped, step_keys
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


class Remember(NamedTuple):
    """A memory of the environments that only the learner has, and no actor computes.

    A batch to learn from then has the carry (that of the actors, the learner's).
    """

    initial: Callable[[int], Carry]
    advance: Callable[[Params, Carry, TimeStep], Carry]
    """(params, memory, steps [T, B]) -> memory after the last step"""


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

    def learn(state, data, trajectory, key, axis):
        data = buffer.add(data, state, trajectory)

        def once(now, key):
            state, data = now
            sample_key, grad_key = jax.random.split(key)
            sampled, drawn = buffer.sample(data, trajectory, sample_key, axis)
            batch, ready = agent.prepare(state, sampled, axis), buffer.ready(data)
            state, info = update(agent, state, batch, grad_key, axis, accepted=ready)
            data = buffer.update(data, drawn, info, axis)
            return (state, data), info.metrics

        if updates_per_step == 1:
            (state, data), metrics = once((state, data), key)
        else:
            keys = jax.random.split(key, updates_per_step)
            (state, data), metrics = jax.lax.scan(once, (state, data), keys)
            metrics = over_updates(metrics)
        return observe(agent, state, trajectory, metrics, axis), data, metrics

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
    possible = halves if updates_per_step == 1 else None
    return Learner(agent, agent.init, agent.params, buffer.init, learn, halves=possible)


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
        after = remember.advance(agent.params(state), data, trajectory.rows)
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


def learn_from(
    learner: Learner, axis: Axis = Axis()
) -> Callable[[Run, Trajectory], tuple[Run, Metrics]]:
    """One step of a run that acted elsewhere; its `local` is the learner's data."""

    def step(run: Run, trajectory: Trajectory) -> tuple[Run, Metrics]:
        _, key = step_keys(run, axis)
        given = (run.learner, run.local, trajectory, key, axis)
        state, data, metrics = learner.learn(*given)
        run = run._replace(learner=state, local=data)
        run = advance(run, trajectory, metrics, axis)
        progress = count_skipped(run.progress, metrics)
        return run._replace(progress=progress), metrics

    return step


def lead_from(
    deferred: Deferred, axis: Axis = Axis()
) -> Callable[[Run, Trajectory], tuple[Run, Metrics, Any]]:
    """As `learn_from`, up to the lessons that are deferred, which it returns.

    What is skipped is counted when they were learned from: see `count_skipped`. For
    `lesson_from`, each comes with the environment steps that have passed by then.
    """

    def step(run: Run, trajectory: Trajectory) -> tuple[Run, Metrics, Any]:
        _, key = step_keys(run, axis)
        given = (run.learner, run.local, trajectory, key, axis)
        state, data, metrics, lessons = deferred.lead(*given)
        run = run._replace(learner=state, local=data)
        env_steps = axis.sum(axis.after(trajectory.env_steps, metrics))
        # All of them with the last one: in `learn_from` they come behind the lessons.
        number = jax.tree.leaves(lessons)[0].shape[0]
        passing = jnp.zeros(number, jnp.int32).at[-1].set(env_steps)
        run = advance(run, trajectory, metrics, axis)
        return run, metrics, (lessons, passing)

    return step


def lesson_from(deferred: Deferred) -> Callable[[State, Any], tuple[State, Metrics]]:
    """(part, one of the lessons of `lead_from`) -> (part after it, metrics)"""

    def learned(part: State, given: Any) -> tuple[State, Metrics]:
        lesson, env_steps = given
        part, metrics = deferred.learn(part, lesson, Axis())
        return passed(part, env_steps), metrics

    return learned
