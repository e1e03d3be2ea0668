"""Actor-learner distillation: a student acts, its teacher learns from what it did.

It is a chain of two stages, whose step is a round of the paper's processes in order:

    teacher    runner    it reads what was acted: its policy and values are remembered
               archive   with the student's memory before the rows they go to a replay
               learner   one update of it, by its own algorithm
    student    distil    `updates_per_step` lessons, from the replay

The teacher never acts and the student never sees a reward. The teacher's own memory is
kept here, not by the actors, and goes on from trajectory to trajectory.

In threads the lessons can have workers of their own, the paper's N_D distillers: see
`bridge.actor_learner.distillers`.

Source: Parisotto and Salakhutdinov, arXiv:2104.01655, sections 4 and 4.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jaxrl_par import compatible
from jaxrl_par.axis import Axis
from jaxrl_par.errors import at_least, at_most, not_chosen, refuse
from jaxrl_par.loops.chain import Lessons, Parts, Stage, chain
from jaxrl_par.loops.learner import Learner
from jaxrl_par.loops.updates import learn, update
from jaxrl_par.measured import Metric
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
    same_actions,
)

METRICS = {
    "fresh_kl": Metric(
        "nats",
        "of the student from the teacher, in rows just acted, before it "
        "learns from them",
    ),
    "fresh_agreement": Metric(
        "share of rows", "in which both prefer the same action, there"
    ),
    "distil_*": Metric("as without distil_", "of the student's lessons, from replay"),
    "distil_age": Metric("updates", "since the rows of a lesson were acted"),
}


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
        counts = at_least(self, updates_per_step=1, batch_size=1, capacity=1)
        counts += at_most(self, updates_per_step=10**6)
        counts += at_most(self, batch_size=2**20, capacity=2**27)
        return not_chosen(self) + counts


class Teacher(NamedTuple):
    """The teacher's network, of which two functions are needed."""

    initial: Callable[[int], Carry]
    unroll: Callable[[Params, Carry, TimeStep], tuple[tuple[Any, Array], Carry]]
    """(params, memory, steps [T, B]) -> ((distributions, values), memory)"""


class TeacherData(NamedTuple):
    """What a device keeps of the data, all of it for the teacher's stage."""

    memory: Carry
    """The teacher's memory before the next row of each environment."""
    archive: ring.Ring
    """The newest items, each an `Archived`."""


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
    """Updates of the teacher before this was archived."""


class Drawn(NamedTuple):
    """All that an update of the student needs."""

    batch: DistillationBatch
    key: PRNGKey
    age: Float[Array, "*N"]
    """Mean over its sequences, in updates of the teacher."""


class _Given(NamedTuple):
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
      ValueError: the config is out of range, or student and teacher were made for
        other observations or actions.
    """
    refuse(config)
    compatible.refuse_others(
        student.specs,
        teacher.specs,
        "the student",
        "its teacher was made for",
        "Make both networks from the specs of one environment",
    )
    given = _Given(student, teacher, network, config)
    start, teach = partial(_start, given), partial(_teacher, given)
    draw, distil = partial(_draw, given), partial(_distil, given)
    lessons = Lessons(config.updates_per_step, draw, distil)
    return chain(
        acts="student",
        teacher=Stage(teacher.init, teach, start, in_order=True, prefix=""),
        student=Stage(student.init, lessons, actor=student, prefix="distil_"),
    )


def _start(given: _Given, trajectory: Trajectory) -> TeacherData:
    def items(x: Trajectory, memory: Carry) -> Archived:
        return _archived(given, x, memory, x.extras["policy"], x.reward, 0)

    memory = given.network.initial(trajectory.num_lanes)
    shapes = jax.eval_shape(items, trajectory, memory)
    return TeacherData(memory, ring.empty(shapes, given.config.capacity))


def _teacher(
    given: _Given,
    state: State,
    data: TeacherData,
    trajectory: Trajectory,
    key: PRNGKey,
    axis: Axis,
    parts: Parts,
) -> tuple[State, TeacherData, Metrics]:
    """Runner, archive and learner."""
    (policy, values), memory = given.network.unroll(
        given.teacher.params(state), data.memory, trajectory.rows
    )
    updates = parts.state.updates
    items = _archived(given, trajectory, data.memory, policy, values, updates)
    archive = ring.add(data.archive, items)
    before = axis.mean(_before(trajectory, policy))

    batch = trajectory._replace(carry=data.memory)
    state, metrics = learn(given.teacher, state, batch, key, axis=axis)
    return state, TeacherData(memory, archive), metrics | before


def _draw(given: _Given, parts: Parts, key: PRNGKey) -> Drawn:
    """From the archive, after the teacher's update."""
    sample_key, update_key = jax.random.split(key)
    archive = parts.data.teacher.archive
    sampled: Archived = ring.sample(archive, sample_key, given.config.batch_size)
    age = (parts.state.updates - sampled.updates).astype(jnp.float32)
    steps = _swapped(sampled.steps)
    if given.stored:
        policy, values = _swapped((sampled.policy, sampled.values))
    else:
        params = given.teacher.params(parts.state.teacher)
        (policy, values), _ = given.network.unroll(params, sampled.memory, steps)
    batch = DistillationBatch(steps, sampled.carry, policy, values)
    return Drawn(batch, update_key, jnp.mean(age))


def _distil(
    given: _Given, student: State, drawn: Drawn, axis: Axis
) -> tuple[State, Metrics]:
    student, info = update(given.student, student, drawn.batch, drawn.key, axis)
    return student, info.metrics | {"age": axis.mean(drawn.age)}


def _archived(
    given: _Given, trajectory: Trajectory, memory: Carry, policy, values, updates
) -> Archived:
    return Archived(
        steps=_swapped(trajectory.rows),
        carry=trajectory.carry,
        policy=_swapped(policy) if given.stored else (),
        values=_swapped(values) if given.stored else (),
        memory=() if given.stored else memory,
        updates=jnp.full(trajectory.num_lanes, updates, jnp.int32),
    )


def _before(trajectory: Trajectory, policy: Any) -> Metrics:
    """How far the student that acted was from its teacher, before either learned."""
    acted = trajectory.extras["policy"]
    weight = (~trajectory.steps.last[:-1]).astype(jnp.float32)
    same = same_actions(acted.mode(), policy.mode(), trajectory.rows.last)

    def mean(x: Array) -> Mean:
        return Mean(jnp.sum(weight * x), jnp.sum(weight))

    agreement = mean(same.astype(jnp.float32))
    return {"fresh_kl": mean(acted.kl(policy)), "fresh_agreement": agreement}


def _swapped(tree: PyTree) -> PyTree:
    """From time first to items first, and back."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
