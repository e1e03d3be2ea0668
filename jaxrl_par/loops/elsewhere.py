"""One step of a run that is acted elsewhere: what a topology's learner does.

`learn_from` is a whole one. The others are its parts, for learners that leave some of
it to other threads, or that go on without a new trajectory.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.loops.learner import Deferred, Kept, Learner
from jaxrl_par.loops.run import Run, advance, count_skipped, step_keys
from jaxrl_par.types import Metrics, State, Trajectory


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


def add_from(kept: Kept, axis: Axis = Axis()) -> Callable[[Run, Trajectory], Run]:
    """Adds a trajectory to what `go_on` learns from, which is no step of its own."""

    def step(run: Run, trajectory: Trajectory) -> Run:
        state, data = kept.add(run.learner, run.local, trajectory, axis)
        env_steps = axis.sum(axis.after(trajectory.env_steps, state))
        steps = run.progress.env_steps.add(env_steps)
        progress = run.progress._replace(env_steps=steps)
        state = passed(state, env_steps)
        return run._replace(learner=state, local=data, progress=progress)

    return step


def go_on(
    kept: Kept, axis: Axis = Axis()
) -> Callable[[Run], tuple[Run, Metrics, Bool[Array, ""] | bool]]:
    """One step with what is there, and whether that was ready: else nothing changes."""

    def step(run: Run) -> tuple[Run, Metrics, Bool[Array, ""] | bool]:
        _, key = step_keys(run, axis)
        ready = kept.ready(run.local)
        state, data, metrics = kept.learn(run.learner, run.local, key, axis)
        progress = run.progress._replace(updates=run.progress.updates.add(1))
        progress = count_skipped(progress, metrics)
        run = run._replace(learner=state, local=data, progress=progress)
        return run, metrics, ready

    return step
