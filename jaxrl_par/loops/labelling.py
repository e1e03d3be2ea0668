"""Bellman updaters: who labels data need not be who trains on them.

It is a chain of two stages:

    updaters   log       what was acted goes to a replay
               poll      each updater reads the trainer's copies, now and then
               label     each labels a batch of the replay with what it polled last, and
                         adds the rows to a buffer of labelled ones
    trainer    regress   `updates_per_step` lessons, from that buffer

The trainer acts. A label is as old as the copies that made it and as long as it waits
to be drawn, and how old it was is a metric. With one updater that polls in each step,
and a buffer for its newest batch alone, this is ordinary fitted Q iteration: one
update, from the batch that has just been labelled.

In threads the lessons can have workers of their own, the paper's training workers:
updaters then go on beside them, with the copies as they were before the lessons that
are out. See `bridge.actor_learner.distillers`.

Source: Kalashnikov et al., arXiv:1806.10293, section 4.3 and appendix F.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrl_par.axis import Axis
from jaxrl_par.errors import at_least, at_most, refuse
from jaxrl_par.loops.chain import Lessons, Parts, Stage, chain
from jaxrl_par.loops.learner import Learner
from jaxrl_par.loops.updates import update
from jaxrl_par.measured import Metric
from jaxrl_par.replay import Buffer, ring
from jaxrl_par.types import Agent, Metrics, PRNGKey, State, TimeStep, Trajectory

METRICS = {
    "label_age": Metric(
        "updates", "of the trainer since the labels of a lesson were made"
    ),
    "label_polled_age": Metric(
        "updates",
        "of the trainer since updaters took the parameters that they label with",
    ),
}

LabelFn = Callable[[Any, Trajectory, PRNGKey], PyTree]
"""(copies, batch [L, K], key) -> L K labelled rows, leaves [L K, ...]"""


@dataclass(frozen=True)
class LabellingConfig:
    """Who labels how much."""

    num_updaters: int = 1
    """Each labels a batch of its own in a step of training."""
    batch_size: int = 128
    """Windows in the batch of an updater, of one device."""
    poll_interval: int = 1
    """Steps of training from one poll of an updater to the next. Updaters take turns,
    so that their copies are of different age."""
    capacity: int = 1024
    """Labelled rows that are kept, by each device; the oldest go first."""

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = dict.fromkeys(
            ("num_updaters", "batch_size", "poll_interval", "capacity"), 1
        )
        found = at_least(self, **counts)
        found += at_most(self, num_updaters=4096, batch_size=2**20, capacity=2**27)
        rows = self.num_updaters * self.batch_size
        if not found and self.capacity % rows:
            near = max(self.capacity // rows, 1) * rows
            found.append(
                f"capacity must be a multiple of the {rows} rows that are labelled in a"
                f" step, such as {near}, got {self.capacity}"
            )
        return found


class Polled(NamedTuple):
    """What each of U updaters knows of the trainer."""

    copies: Any
    """Leaves [U, ...]."""
    updates: Int[Array, " U"]
    """Steps of training that they had seen."""


class LabelData(NamedTuple):
    """What a device keeps of the data."""

    replay: Any
    labelled: ring.Ring
    """The newest rows, each a `_Row`."""


class _Row(NamedTuple):
    row: PyTree
    updates: Int[Array, "*N"]
    """Steps of training that its label knew of."""


class Drawn(NamedTuple):
    """All that an update of the trainer needs."""

    batch: PyTree
    key: PRNGKey
    age: Float[Array, "*N"]
    """Mean over its rows, in steps of training."""
    ready: Bool[Array, "*N"]
    """Whether there are rows at all."""


class _Given(NamedTuple):
    """What labelling is composed of, nothing of which is traced."""

    agent: Agent
    label: LabelFn
    copies: Callable[[State], Any]
    buffer: Buffer
    batch_size: int
    config: LabellingConfig


def labelling(
    agent: Agent,
    label: LabelFn,
    copies: Callable[[State], Any],
    buffer: Buffer,
    config: LabellingConfig = LabellingConfig(),
    *,
    batch_size: int = 128,
    updates_per_step: int = 1,
) -> Learner:
    """Learns with `agent` from rows that updaters have labelled.

    Metrics of the updaters begin with "label_".

    Args:
      agent: learns from labelled rows, and acts.
      label: as an updater does, with its copies.
      copies: of the agent's state, what labels are made with.
      buffer: where updaters draw batches, of `config.batch_size`. Its draws have no
        priorities.
      batch_size: labelled rows of a device in an update.
      updates_per_step: updates of the agent in a step of training.

    Raises:
      ValueError: a number is out of range.
    """
    refuse(config, batch_size=batch_size, updates_per_step=updates_per_step)
    given = _Given(agent, label, copies, buffer, batch_size, config)
    lessons = Lessons(
        updates_per_step, partial(_draw, given), partial(_regress, given), shown=True
    )
    updaters = Stage(
        partial(_begun, given), partial(_labelled, given), partial(_start, given)
    )
    return chain(
        acts="trainer",
        updaters=updaters._replace(prefix="label_"),
        trainer=Stage(agent.init, lessons, actor=agent, prefix=""),
    )


def _begun(given: _Given, key: PRNGKey, step: TimeStep) -> Polled:
    """Of any parameters: all poll before they label for the first time."""
    copies, number = (
        given.copies(given.agent.init(key, step)),
        given.config.num_updaters,
    )
    stacked = jax.tree.map(lambda x: jnp.stack([x] * number), copies)
    return Polled(stacked, jnp.zeros(number, jnp.int32))


def _start(given: _Given, trajectory: Trajectory) -> LabelData:
    replay = given.buffer.init(trajectory)

    def rows(trajectory: Trajectory) -> _Row:
        key = jax.random.key(0)
        # Any state will do: only shapes are read.
        state = given.agent.init(key, jax.tree.map(lambda x: x[0], trajectory.steps))
        polled = Polled(given.copies(state), jnp.int32(0))
        return _labels(given, polled, replay, trajectory, key)

    shapes = jax.eval_shape(rows, trajectory)
    return LabelData(replay, ring.empty(shapes, given.config.capacity))


def _labelled(
    given: _Given,
    state: Polled,
    data: LabelData,
    trajectory: Trajectory,
    key: PRNGKey,
    axis: Axis,
    parts: Parts,
) -> tuple[Polled, LabelData, Metrics]:
    """Log, poll and label."""
    replay = given.buffer.add(data.replay, (), trajectory)
    state = _polled(given, state, parts)

    def labels(now: tuple[Polled, PRNGKey]) -> _Row:
        return _labels(given, now[0], replay, trajectory, now[1])

    keys = jax.random.split(key, given.config.num_updaters)
    rows = jax.lax.map(labels, (state, keys))
    rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
    labelled = _if(given.buffer.ready(replay), ring.add(data.labelled, rows))
    age = jnp.mean((parts.state.updates - state.updates).astype(jnp.float32))
    # Behind what the step has reduced before: see `StageFn`.
    age = axis.mean(axis.after(age, trajectory.reward))
    return state, LabelData(replay, labelled), {"polled_age": age}


def _labels(
    given: _Given, polled: Polled, replay: Any, newest: Trajectory, key: PRNGKey
) -> _Row:
    """What one updater makes of a batch: rows of its device alone."""
    sample_key, label_key = jax.random.split(key)
    batch, _ = given.buffer.sample(replay, newest, sample_key, Axis())
    rows = given.label(polled.copies, batch, label_key)
    number = jax.tree.leaves(rows)[0].shape[0]
    return _Row(rows, jnp.full(number, polled.updates, jnp.int32))


def _polled(given: _Given, state: Polled, parts: Parts) -> Polled:
    """After those have polled whose turn it is; in the first step all have."""
    number, interval = given.config.num_updaters, given.config.poll_interval
    turns = jnp.arange(number) * interval // number
    now = parts.state.updates
    due = ((now - turns) % interval == 0) | (now == 0)
    newest = given.copies(parts.state.trainer)

    def read(old: Array, new: Array) -> Array:
        chosen = due.reshape(-1, *[1] * new.ndim)
        return jnp.where(chosen, new[None], old)

    copies = jax.tree.map(read, state.copies, newest)
    return Polled(copies, jnp.where(due, now, state.updates))


def _if(ready: Bool[Array, ""] | bool, labelled: ring.Ring) -> ring.Ring:
    """The ring; empty if it is not ready, by its counts and so without a copy of it."""
    first, *_ = counts = (labelled.next, labelled.size, labelled.laps)
    zero = jnp.zeros_like(first)
    kept = [jnp.where(ready, x, zero) for x in counts]
    return labelled._replace(next=kept[0], size=kept[1], laps=kept[2])


def _draw(given: _Given, parts: Parts, key: PRNGKey) -> Drawn:
    """Labelled rows, after the updaters' turn."""
    sample_key, update_key = jax.random.split(key)
    labelled: ring.Ring = parts.data.updaters.labelled
    # Where there are none, the row of zeros that nothing was written to.
    there = labelled._replace(size=jnp.maximum(labelled.size, 1))
    drawn: _Row = ring.sample(there, sample_key, given.batch_size)
    age = jnp.mean((parts.state.updates - drawn.updates).astype(jnp.float32))
    return Drawn(drawn.row, update_key, age, labelled.size > 0)


def _regress(
    given: _Given, state: State, drawn: Drawn, axis: Axis
) -> tuple[State, Metrics]:
    batch, accepted = drawn.batch, drawn.ready
    state, info = update(given.agent, state, batch, drawn.key, axis, accepted=accepted)
    age = axis.mean(axis.after(drawn.age, info.metrics))
    return state, info.metrics | {"label_age": age}
