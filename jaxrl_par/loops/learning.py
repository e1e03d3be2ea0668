"""The half of a training step that learns, whoever acted and wherever that was."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from jaxtyping import PyTree

from jaxrl_par.axis import Axis
from jaxrl_par.loops.run import Run, advance, check_counts, count_skipped, step_keys
from jaxrl_par.loops.updates import learn
from jaxrl_par.types import (
    Agent,
    Carry,
    Metrics,
    Params,
    PRNGKey,
    State,
    TimeStep,
    Trajectory,
)

Memory = PyTree


class LearnFn(Protocol):
    """From the learner's state and memory to those after a trajectory."""

    def __call__(
        self,
        state: State,
        memory: Memory,
        trajectory: Trajectory,
        key: PRNGKey,
        axis: Axis,
    ) -> tuple[State, Memory, Metrics]:
        """`axis`: gradients and metrics are averaged over it."""
        ...


class TeachFn(Protocol):
    """As `LearnFn`, but what acts stays as it is, and its lessons are left for it."""

    def __call__(
        self,
        state: State,
        memory: Memory,
        trajectory: Trajectory,
        key: PRNGKey,
        axis: Axis,
    ) -> tuple[State, Memory, Metrics, Any]:
        """The last result is the lessons, leaves [num_lessons, ...]."""
        ...


class Teaching(NamedTuple):
    """Learning in two halves, of which the pupil's can be done somewhere else.

    The pupil is the state's field `actor`. All lessons of a step, one after the other,
    make of both halves what `Learning.learn` does.
    """

    teach: TeachFn
    study: Callable[[State, Any, Axis], tuple[State, Metrics]]
    """(pupil, one of the lessons, axis) -> (pupil after it, metrics)"""
    join: Callable[[Metrics, Metrics], Metrics]
    """The step's metrics, from those of `teach` and those of its lessons
    [num_lessons]."""


class Learning(NamedTuple):
    """How to learn from one trajectory after the other of the same B environments.

    What is learned is the state, the same on every device. What a learner keeps of the
    data, such as a replay, is its memory: each device has its own.
    """

    init: Callable[[PRNGKey, TimeStep], State]
    start: Callable[[Trajectory], Memory]
    """Empty memory for trajectories of these shapes and dtypes."""
    learn: LearnFn
    in_order: bool = False
    """The memory goes on from trajectory to trajectory: lane b of each must be the
    same environment, where it was left."""
    teaching: Teaching | None = None
    """Its halves, if what acts learns from lessons of what learns."""


class Remember(NamedTuple):
    """A memory of the environments that only the learner has, and no actor computes.

    A batch to learn from then has the carry (that of the actors, the learner's).
    """

    initial: Callable[[int], Carry]
    advance: Callable[[Params, Carry, TimeStep], Carry]
    """(params, memory, steps [T, B]) -> memory after the last step"""


def learner(
    agent: Agent,
    *,
    num_epochs: int = 1,
    num_minibatches: int = 1,
    remember: Remember | None = None,
) -> Learning:
    """Learns with one agent, and by default remembers nothing.

    Args:
      num_epochs: passes over a trajectory, each in a new order.
      num_minibatches: updates in each pass.

    Raises:
      ValueError: a count is below 1.
    """
    check_counts(num_epochs=num_epochs, num_minibatches=num_minibatches)
    passes = partial(
        learn, agent, num_epochs=num_epochs, num_minibatches=num_minibatches
    )

    def forgetful(state, memory, trajectory, key, axis):
        state, metrics = passes(state, trajectory, key, axis=axis)
        return state, memory, metrics

    if remember is None:
        return Learning(agent.init, lambda trajectory: (), forgetful)

    def remembering(state, memory, trajectory, key, axis):
        # The final row comes again, as the first of the next trajectory.
        after = remember.advance(state.params, memory, trajectory.rows)
        batch = trajectory._replace(carry=(trajectory.carry, memory))
        state, metrics = passes(state, batch, key, axis=axis)
        return state, after, metrics

    return Learning(
        agent.init,
        lambda trajectory: remember.initial(trajectory.num_lanes),
        remembering,
        in_order=True,
    )


def learn_from(
    learning: Learning, axis: Axis = Axis()
) -> Callable[[Run, Trajectory], tuple[Run, Metrics]]:
    """One step of a run that acted elsewhere; its `local` is the learner's memory."""

    def step(run: Run, trajectory: Trajectory) -> tuple[Run, Metrics]:
        _, key = step_keys(run, axis)
        state, memory, metrics = learning.learn(
            run.learner, run.local, trajectory, key, axis
        )
        run = run._replace(learner=state, local=memory)
        run = advance(run, trajectory, metrics, axis)
        progress = count_skipped(run.progress, metrics)
        return run._replace(progress=progress), metrics

    return step


def teach_from(
    teaching: Teaching, axis: Axis = Axis()
) -> Callable[[Run, Trajectory], tuple[Run, Metrics, Any]]:
    """As `learn_from`, up to the lessons, which it returns.

    What is skipped is counted when they were learned: see `count_skipped`.
    """

    def step(run: Run, trajectory: Trajectory) -> tuple[Run, Metrics, Any]:
        _, key = step_keys(run, axis)
        state, memory, metrics, lessons = teaching.teach(
            run.learner, run.local, trajectory, key, axis
        )
        run = run._replace(learner=state, local=memory)
        return advance(run, trajectory, metrics, axis), metrics, lessons

    return step
