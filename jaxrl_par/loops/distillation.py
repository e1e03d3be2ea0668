"""Actor-learner distillation: a student acts, its teacher learns from what it did.

A step of the loop is one round of the paper's processes, in a fixed order:

    runner     the teacher reads what was acted: its policy and values are remembered
    archive    with the student's memory before the rows they go to a replay
    learner    one update of the teacher, by its own algorithm
    distil     `updates_per_step` updates of the student, from the replay

The teacher never acts and the student never sees a reward. The teacher's own memory is
kept here, not by the actors, and goes on from trajectory to trajectory.

The last phase needs nothing of the others but its batches. In threads it can have
workers of its own, the paper's N_D distillers: see `bridge.actor_learner.distillers`.

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
from jaxrl_par.errors import at_least, not_chosen, refuse
from jaxrl_par.loops.learner import Distillation, Learner
from jaxrl_par.loops.updates import learn, update
from jaxrl_par.replay import ring
from jaxrl_par.types import (
    Agent,
    Carry,
    DistillationBatch,
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
    """How much is distilled, and from what."""

    updates_per_step: int = 4
    """DpRL: updates of the student for each of the teacher."""
    batch_size: int = 32
    """Sequences of a device in an update of the student."""
    capacity: int = 1024
    """Newest sequences of a device that are kept."""
    teacher: Literal["stored", "recomputed"] = "stored"
    """What the student learns is what the teacher said when it was archived, or what it
    says now, which costs a forward pass of the teacher in every update."""

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = at_least(self, updates_per_step=1, batch_size=1, capacity=1)
        return not_chosen(self) + counts


class Teacher(NamedTuple):
    """The teacher's network, of which two functions are needed."""

    initial: Callable[[int], Carry]
    unroll: Callable[[Params, Carry, TimeStep], tuple[tuple[Any, Array], Carry]]
    """(params, memory, steps [T, B]) -> ((distributions, values), memory)"""


class DistillationState(NamedTuple):
    """Both models."""

    student: State
    teacher: State
    updates: Int[Array, ""]
    """Of the teacher."""


class DistillationData(NamedTuple):
    """What a device keeps of the data."""

    memory: Carry
    """The teacher's memory before the next row of each environment."""
    archive: ring.Ring
    """Of `Archived`."""


class Archived(NamedTuple):
    """A sequence of T rows, leaves [T, ...] (and [...] of carries)."""

    steps: TimeStep
    carry: Carry
    """The student's memory before it."""
    policy: PyTree
    """The stored teacher's; () where it is recomputed."""
    values: Float[Array, "*K T"] | tuple[()]
    memory: Carry
    """The teacher's before it; () where what it said is stored."""
    updates: Int[Array, "*K"]
    """Of the teacher, when this was archived."""


class Drawn(NamedTuple):
    """All that an update of the student needs."""

    batch: DistillationBatch
    key: PRNGKey
    age: Float[Array, "*N"]
    """Mean over its sequences, in updates of the teacher."""


class _Parts(NamedTuple):
    """What distillation is composed of, nothing of which is traced."""

    student: Agent
    teacher: Agent
    network: Teacher
    config: DistillationConfig

    @property
    def stored(self) -> bool:
        return self.config.teacher == "stored"


def distillation(
    student: Agent, teacher: Agent, network: Teacher, config: DistillationConfig
) -> Learner:
    """Learns with `teacher` from what `student` did, and distils it into the student.

    Metrics of the student's updates begin with "distil_".

    Args:
      student: learns from `DistillationBatch`, as `algorithms.distilled`, and leaves
        its policy in the extras.
      teacher: learns from trajectories of another policy, with the carry of `network`.
      network: the teacher's.

    Raises:
      ValueError: the config is out of range.
    """
    refuse(config)
    parts = _Parts(student, teacher, network, config)
    return Learner(
        actor=student,
        init=partial(_init, parts),
        params=lambda state: student.params(state.student),
        start=partial(_start, parts),
        learn=partial(_step, parts),
        in_order=True,
        distillation=Distillation(
            lead=partial(_lead, parts),
            distil=partial(_distil, parts),
            join=_joined,
            student=lambda state: state.student,
            replace=lambda state, student: state._replace(student=student),
        ),
    )


def _init(parts: _Parts, key: PRNGKey, step: TimeStep) -> DistillationState:
    student_key, teacher_key = jax.random.split(key)
    return DistillationState(
        parts.student.init(student_key, step),
        parts.teacher.init(teacher_key, step),
        jnp.int32(0),
    )


def _start(parts: _Parts, trajectory: Trajectory) -> DistillationData:
    memory = parts.network.initial(trajectory.num_lanes)
    items = jax.eval_shape(
        lambda x, memory: _archived(
            parts, x, memory, x.extras["policy"], x.reward, jnp.int32(0)
        ),
        trajectory,
        memory,
    )
    return DistillationData(memory, ring.empty(items, parts.config.capacity))


def _step(
    parts: _Parts,
    state: DistillationState,
    data: DistillationData,
    trajectory: Trajectory,
    key: PRNGKey,
    axis: Axis,
) -> tuple[DistillationState, DistillationData, Metrics]:
    """All four phases."""
    teacher_key, distil_keys = _keys(parts, key)
    state, data, metrics = _taught(parts, state, data, trajectory, teacher_key, axis)
    # The loop has collectives of its own: see `Axis.after`.
    size = axis.after(data.archive.size, metrics)
    data = data._replace(archive=data.archive._replace(size=size))

    def once(student: State, key: PRNGKey):
        return _distil(parts, student, _draw(parts, state, data, key), axis)

    student, distilled = jax.lax.scan(once, state.student, distil_keys)
    return state._replace(student=student), data, _joined(metrics, distilled)


def _lead(
    parts: _Parts,
    state: DistillationState,
    data: DistillationData,
    trajectory: Trajectory,
    key: PRNGKey,
    axis: Axis,
) -> tuple[DistillationState, DistillationData, Metrics, Drawn]:
    """All phases but the last, for which the batches are drawn."""
    teacher_key, distil_keys = _keys(parts, key)
    state, data, metrics = _taught(parts, state, data, trajectory, teacher_key, axis)
    # One by one, as in `_step`: a joint forward pass would round in another way.
    batches = jax.lax.map(partial(_draw, parts, state, data), distil_keys)
    return state, data, metrics, batches


def _taught(
    parts: _Parts,
    state: DistillationState,
    data: DistillationData,
    trajectory: Trajectory,
    key: PRNGKey,
    axis: Axis,
) -> tuple[DistillationState, DistillationData, Metrics]:
    """Runner, archive and learner."""
    (policy, values), memory = parts.network.unroll(
        parts.teacher.params(state.teacher), data.memory, trajectory.rows
    )
    items = _archived(parts, trajectory, data.memory, policy, values, state.updates)
    archive = ring.add(data.archive, items)
    before = axis.mean(_before(trajectory, policy))

    batch = trajectory._replace(carry=data.memory)
    teacher, metrics = learn(parts.teacher, state.teacher, batch, key, axis=axis)
    state = DistillationState(state.student, teacher, state.updates + 1)
    return state, DistillationData(memory, archive), metrics | before


def _draw(
    parts: _Parts, state: DistillationState, data: DistillationData, key: PRNGKey
) -> Drawn:
    """From the archive, after the teacher's update."""
    sample_key, update_key = jax.random.split(key)
    sampled: Archived = ring.sample(data.archive, sample_key, parts.config.batch_size)
    age = (state.updates - 1 - sampled.updates).astype(jnp.float32)
    steps = _swapped(sampled.steps)
    if parts.stored:
        policy, values = _swapped((sampled.policy, sampled.values))
    else:
        params = parts.teacher.params(state.teacher)
        (policy, values), _ = parts.network.unroll(params, sampled.memory, steps)
    batch = DistillationBatch(steps, sampled.carry, policy, values)
    return Drawn(batch, update_key, jnp.mean(age))


def _distil(
    parts: _Parts, student: State, drawn: Drawn, axis: Axis
) -> tuple[State, Metrics]:
    student, info = update(parts.student, student, drawn.batch, drawn.key, axis)
    return student, info.metrics | {"age": axis.mean(drawn.age)}


def _joined(metrics: Metrics, distilled: Metrics) -> Metrics:
    skipped: Any = metrics["skipped"]
    rest = dict(distilled)
    more: Any = rest.pop("skipped")
    means = jax.tree.map(lambda x: jnp.mean(x, axis=0), rest)
    metrics = metrics | {f"distil_{name}": x for name, x in means.items()}
    return metrics | {"skipped": skipped + jnp.sum(more)}


def _keys(parts: _Parts, key: PRNGKey) -> tuple[PRNGKey, Any]:
    """The teacher's, and one for each update of the student."""
    teacher_key, distil_key = jax.random.split(key)
    return teacher_key, jax.random.split(distil_key, parts.config.updates_per_step)


def _archived(
    parts: _Parts, trajectory: Trajectory, memory: Carry, policy, values, updates
) -> Archived:
    return Archived(
        steps=_swapped(trajectory.rows),
        carry=trajectory.carry,
        policy=_swapped(policy) if parts.stored else (),
        values=_swapped(values) if parts.stored else (),
        memory=() if parts.stored else memory,
        updates=jnp.full(trajectory.num_lanes, updates, jnp.int32),
    )


def _before(trajectory: Trajectory, policy: Any) -> Metrics:
    """How far the student that acted was from its teacher, before either learned from
    it: what is archived is older."""
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
