"""Workers and a trainer at their own pace: schedules, and one worker alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near
from test_guided import SIZES, search_of, searched

from jaxrl_par import random
from jaxrl_par.envs.tasks.linear_system import LinearSystem
from jaxrl_par.errors import RefusedError
from jaxrl_par.guidance import Lessons
from jaxrl_par.loops.delays import DelaysConfig
from jaxrl_par.loops.guided_turns import Turns, guided_turns, own_pace
from jaxrl_par.loops.lessons import Recent, drawn, newest
from jaxrl_par.presets.gps import Args
from jaxrl_par.topologies.compiled import scanned


def test_turns_are_sorted_events_and_updates_fill_the_time_between():
    durations = np.array([[1.0, 2.5], [1.0, 2.5], [1.0, 2.5], [1.0, 2.5]])
    turns = own_pace(durations, 10)
    # Worker 0 ends at 1, 2, 3, 4, worker 1 at 2.5.
    np.testing.assert_array_equal(turns.worker, [0, 0, 1, 0])
    np.testing.assert_allclose(turns.now, [1.0, 2.0, 2.5, 3.0])
    np.testing.assert_array_equal(turns.updates, [10, 5, 5, 10])
    many = np.random.default_rng(0).exponential(size=(300, 3))
    turns, ends = own_pace(many, 7), np.cumsum(many, axis=0)
    assert abs(turns.updates.sum() - 7 * (turns.now[-1] - turns.now[0])) < 40
    for worker in range(3):
        own = turns.now[turns.worker == worker]
        np.testing.assert_allclose(own, ends[: len(own), worker])
    alone = own_pace(np.ones((3, 1)), 4)
    np.testing.assert_array_equal(alone.updates, [4, 4, 4])


def recent(counts):
    """Of two workers with one initial state each, whose rows say whose they are."""
    number = jnp.arange(6.0).reshape(2, 3, 1, 1, 1, 1)
    lessons = Lessons(number, number, number, jnp.ones((2, 3, 1, 1)))
    return Recent(lessons, jnp.array(counts))


@pytest.mark.slow
def test_only_lessons_that_there_are_weigh_and_are_drawn():
    keys = jax.random.split(jax.random.key(0), (2, 1))
    rows = drawn(recent([2, 0]), keys, 20)
    assert {*np.asarray(rows.mean[:20, 0]).tolist()} == {0.0, 1.0}
    np.testing.assert_array_equal(rows.weight[:20], 1)
    np.testing.assert_array_equal(rows.weight[20:], 0)
    rows = drawn(recent([7, 4]), keys, 40)
    assert {*np.asarray(rows.mean[:, 0]).tolist()} == {*range(6)}
    np.testing.assert_array_equal(rows.mean, rows.obs)
    np.testing.assert_array_equal(rows.mean, rows.precision[..., 0])


@pytest.mark.slow
def test_the_newest_lessons_are_each_workers_own():
    """The fourth lessons were written over the first."""
    found = newest(recent([4, 2]), 0)
    np.testing.assert_array_equal(found.mean.ravel(), [0, 4])
    found = newest(recent([0, 2]), 1)
    np.testing.assert_array_equal(found.mean.ravel(), [4, 4])


@pytest.mark.slow
def test_one_worker_alone_is_the_synchronous_program():
    search = search_of(LinearSystem(6), optimizer=optax.sgd(0.05))
    expected, told = searched(search, 3)
    turns = own_pace(np.ones((3, 1)), SIZES.num_updates)
    program = guided_turns(search, turns, 1)
    run = jax.jit(program.init)(random.key(0))
    run, metrics = jax.jit(scanned(program, 3))(run)
    assert_near(run.learner, expected.learner, 1e-5)
    assert_near(metrics["episode_return"], told["episode_return"], 1e-5)
    assert int(run.progress.env_steps) == int(expected.progress.env_steps)


@pytest.mark.slow
def test_turns_change_their_worker_alone_and_all_are_learned_from():
    search = search_of(LinearSystem(6), optimizer=optax.sgd(0.05))
    worker, none = np.array([1, 1, 0], np.int32), np.zeros(3, np.int32)
    turns = Turns(worker, none + 2, none.astype(float))
    program = guided_turns(search, turns, 2)
    run = jax.jit(program.init)(random.key(0))
    step, before = jax.jit(program.step), run
    run, metrics = step(run)
    guides = run.local.own.guide, before.local.own.guide
    still = jax.tree.map(lambda x: x[0], guides)
    jax.tree.map(np.testing.assert_array_equal, *still)
    moved = guides[0].controllers.gain[1] - guides[1].controllers.gain[1]
    assert np.any(np.asarray(moved))
    # It acts again with what there was then, before the trainer's updates.
    own = jax.tree.map(lambda x: x[1], run.local.held)
    jax.tree.map(
        np.testing.assert_array_equal, own, search.agent.params(before.learner)
    )
    assert float(metrics["trainer_updates"]) == 2 and float(metrics["skipped"]) == 0
    run, _ = step(run)
    run, metrics = step(run)
    np.testing.assert_array_equal(run.local.own.recent.count, [1, 2])
    assert float(metrics["worker"]) == 0 and float(metrics["skipped"]) == 0
    assert int(run.progress.env_steps) == 3 * search.rows


@pytest.mark.slow
def test_schedules_of_other_workers_are_refused():
    search = search_of(LinearSystem(5))
    turns = own_pace(np.ones((4, 3)), 2)
    with pytest.raises(RefusedError, match="2 workers has those of 0 to 1, got 2"):
        guided_turns(search, turns, 2)


def test_delays_that_are_no_durations_are_refused_on_the_command_line():
    assert not Args(topology="delayed").problems()
    (line,) = Args(topology="delayed", delays=DelaysConfig("constant")).problems()
    assert line == "delays.model must say how long workers take, got constant"
