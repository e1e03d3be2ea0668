"""Actor-learner distillation: one model acts, another one learns and teaches it.

A step of the loop is one round of the paper's processes, in a fixed order:

    runner     the learner reads what was acted: its policy and values are the lesson
    archive    the lesson goes to a replay, with the actor's memory before it
    learner    one update of the learner, by its own algorithm
    distil     `updates_per_step` updates of the actor, from lessons of the replay

The learner never acts and the actor never sees a reward. The learner's own memory is
kept here, not by the actors, and goes on from trajectory to trajectory.

The last phase needs nothing of the others but its lessons. In threads it can have
workers of its own, the paper's N_D distillers: see `bridge.distillers`.

Source: Parisotto and Salakhutdinov, arXiv:2104.01655, sections 4 and 4.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jaxrl_par.axis import Axis
from jaxrl_par.errors import not_chosen
from jaxrl_par.loops.learning import Learning, Teaching
from jaxrl_par.loops.updates import learn, update
from jaxrl_par.replay import uniform
from jaxrl_par.types import (
    Agent,
    Carry,
    Lesson,
    Mean,
    Metrics,
    Params,
    PRNGKey,
    State,
    TimeStep,
    Trajectory,
)


@dataclass(frozen=True)
class DistillationConfig:
    """How much is distilled, and from which lessons."""

    updates_per_step: int = 4
    """DpRL: updates of the actor for each of the learner."""
    batch_size: int = 32
    """Sequences of a device in an update of the actor."""
    capacity: int = 1024
    """Newest sequences of a device that are kept."""
    teacher: Literal["stored", "recomputed"] = "stored"
    """Lessons are what the learner said when they were archived, or what it says now,
    which costs a forward pass of the learner in every update of the actor."""

    def problems(self) -> list[str]:
        """What is out of range."""
        return not_chosen(self) + [
            f"{name} must be at least 1, got {getattr(self, name)}"
            for name in ("updates_per_step", "batch_size", "capacity")
            if getattr(self, name) < 1
        ]


class Teacher(NamedTuple):
    """What the learner says of what an actor has seen: a network's two functions."""

    initial: Callable[[int], Carry]
    unroll: Callable[[Params, Carry, TimeStep], tuple[tuple[Any, Array], Carry]]
    """(params, memory, steps [T, B]) -> ((distributions, values), memory)"""


class DistillationState(NamedTuple):
    """Both models."""

    actor: State
    learner: State
    updates: Int[Array, ""]
    """Of the learner."""

    @property
    def params(self) -> Params:
        """Those that act."""
        return self.actor.params


class DistillationMemory(NamedTuple):
    """What a device keeps of the data."""

    teacher: Carry
    """The learner's memory before the next row of each environment."""
    replay: uniform.Replay
    """Of `Archived`."""


class Archived(NamedTuple):
    """A sequence of T rows, leaves [T, ...] (and [...] of carries)."""

    steps: TimeStep
    carry: Carry
    """Of the actor."""
    policy: PyTree
    """The stored teacher's; () where it is recomputed."""
    values: Float[Array, "*K T"] | tuple[()]
    teacher: Carry
    """The learner's memory; () where the stored lessons do."""
    updates: Int[Array, "*K"]
    """Of the learner, when this was archived."""


class Drawn(NamedTuple):
    """All that an update of the actor needs."""

    lesson: Lesson
    key: PRNGKey
    age: Float[Array, "*N"]
    """Mean over its sequences, in updates of the learner."""


def distillation(
    actor: Agent, learner: Agent, teacher: Teacher, config: DistillationConfig
) -> Learning:
    """Learns with `learner` from what `actor` did, and teaches it.

    `DistillationState.params` are the actor's, so `actor` acts and is evaluated with
    them like any other agent. Metrics of the actor's updates begin with "distil_".

    Args:
      actor: learns from lessons, as `algorithms.distilled`, and leaves its policy in
        the extras.
      learner: learns from trajectories of another policy, with the carry of `teacher`.
      teacher: the learner's network.

    Raises:
      ValueError: the config is out of range.
    """
    if problems := config.problems():
        raise ValueError("; ".join(problems))
    stored = config.teacher == "stored"

    def init(key: PRNGKey, step: TimeStep) -> DistillationState:
        actor_key, learner_key = jax.random.split(key)
        return DistillationState(
            actor.init(actor_key, step), learner.init(learner_key, step), jnp.int32(0)
        )

    def archived(trajectory: Trajectory, memory: Carry, policy, values, updates):
        return Archived(
            steps=_swapped(trajectory.rows),
            carry=trajectory.carry,
            policy=_swapped(policy) if stored else (),
            values=_swapped(values) if stored else (),
            teacher=() if stored else memory,
            updates=jnp.full(trajectory.num_lanes, updates, jnp.int32),
        )

    def start(trajectory: Trajectory) -> DistillationMemory:
        memory = teacher.initial(trajectory.num_lanes)
        batch = jax.eval_shape(
            lambda x, memory: archived(
                x, memory, x.extras["policy"], x.reward, jnp.int32(0)
            ),
            trajectory, memory,
        )  # fmt: skip
        return DistillationMemory(memory, uniform.empty(batch, config.capacity))

    def lead(
        state: DistillationState,
        memory: DistillationMemory,
        trajectory: Trajectory,
        key: PRNGKey,
        axis: Axis,
    ) -> tuple[DistillationState, DistillationMemory, Metrics]:
        """Runner, archive and learner."""
        (policy, values), next_memory = teacher.unroll(
            state.learner.params, memory.teacher, trajectory.rows
        )
        item = archived(trajectory, memory.teacher, policy, values, state.updates)
        replay = uniform.add(memory.replay, item)
        fresh = axis.mean(_fresh(trajectory, policy))

        batch = trajectory._replace(carry=memory.teacher)
        learned, metrics = learn(learner, state.learner, batch, key, axis=axis)
        state = DistillationState(state.actor, learned, state.updates + 1)
        return state, DistillationMemory(next_memory, replay), metrics | fresh

    def draw(state: DistillationState, memory: DistillationMemory, key: PRNGKey):
        """Of the replay, after the learner's update."""
        sample_key, update_key = jax.random.split(key)
        sampled = uniform.sample(memory.replay, sample_key, config.batch_size)
        age = (state.updates - 1 - sampled.updates).astype(jnp.float32)
        return Drawn(taught(state.learner.params, sampled), update_key, jnp.mean(age))

    def study(pupil: State, drawn: Drawn, axis: Axis):
        pupil, info = update(actor, pupil, drawn.lesson, drawn.key, axis)
        age = axis.mean(drawn.age)
        return pupil, info.metrics | {"age": age}

    def join(metrics: Metrics, distilled: Metrics) -> Metrics:
        skipped: Any = metrics["skipped"]
        rest = dict(distilled)
        lessons: Any = rest.pop("skipped")
        means = jax.tree.map(lambda x: jnp.mean(x, axis=0), rest)
        metrics = metrics | {f"distil_{name}": x for name, x in means.items()}
        return metrics | {"skipped": skipped + jnp.sum(lessons)}

    def keys(key: PRNGKey):
        """The learner's, and one for each lesson."""
        learner_key, distil_key = jax.random.split(key)
        return learner_key, jax.random.split(distil_key, config.updates_per_step)

    def step(state, memory, trajectory, key, axis):
        learner_key, lesson_keys = keys(key)
        state, memory, metrics = lead(state, memory, trajectory, learner_key, axis)
        # The loop has collectives of its own: see `after`.
        size = axis.after(memory.replay.size, metrics)
        memory = memory._replace(replay=memory.replay._replace(size=size))

        def distil(pupil: State, key: PRNGKey):
            return study(pupil, draw(state, memory, key), axis)

        pupil, distilled = jax.lax.scan(distil, state.actor, lesson_keys)
        return state._replace(actor=pupil), memory, join(metrics, distilled)

    def teach(state, memory, trajectory, key, axis):
        learner_key, lesson_keys = keys(key)
        state, memory, metrics = lead(state, memory, trajectory, learner_key, axis)
        # One by one, as in `step`: a joint forward pass would round in another way.
        lessons = jax.lax.map(partial(draw, state, memory), lesson_keys)
        return state, memory, metrics, lessons

    def taught(params: Params, sampled: Archived) -> Lesson:
        steps = _swapped(sampled.steps)
        if stored:
            policy, values = _swapped((sampled.policy, sampled.values))
        else:
            (policy, values), _ = teacher.unroll(params, sampled.teacher, steps)
        return Lesson(steps, sampled.carry, policy, values)

    teaching = Teaching(teach, study, join)
    return Learning(init, start, step, in_order=True, teaching=teaching)


def _fresh(trajectory: Trajectory, policy: Any) -> Metrics:
    """How far the actor that acted was from its teacher, before either learned from it:
    the replay's lessons are older."""
    acted = trajectory.extras["policy"]
    weight = 1.0 - trajectory.steps.last[:-1]
    same = acted.mode() == policy.mode()
    same = jnp.all(same.reshape(*weight.shape, -1), axis=-1)

    def mean(x: Array) -> Mean:
        return Mean(jnp.sum(weight * x), jnp.sum(weight))

    return {"fresh_kl": mean(acted.kl(policy)), "fresh_agreement": mean(same)}


def _swapped(tree: PyTree) -> PyTree:
    """From time first to items first, and back."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
