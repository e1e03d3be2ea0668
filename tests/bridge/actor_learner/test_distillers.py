"""One student, many teachers at once: nothing is lost that was promised to be kept."""

import threading
import time
import traceback
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import loops, random
from jaxrl_par.algorithms.distilled import distilled
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.bridge.actor_learner import system
from jaxrl_par.bridge.actor_learner.distillers import Distillers
from jaxrl_par.bridge.actor_learner.learner import MeshLearner
from jaxrl_par.bridge.shared import Shared
from jaxrl_par.bridge.supervision import DeadlineError, Supervisor
from jaxrl_par.envs.host import from_pure
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.testing import probes
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_recorded, threads
from jaxrl_par.training import parallelism
from jaxrl_par.training.checkpoints import Checkpoints, state_hash
from jaxrl_par.types import DistillationBatch, TimeStep

KEY = random.key(7)

# Distillers, without a compiler -----------------------------------------------------

NUM_LESSONS = 6


class Class:
    """Distillers whose lessons are numbers, and what became of these."""

    def __init__(self, num_distillers, before=lambda number: None, patience=30.0):
        self.student = Shared(
            {"count": np.zeros(1, np.int32), "sum": np.zeros(3, np.float32)}
        )
        self.seen, self.published, self.before = [], [], before
        self.supervisor = Supervisor(patience)
        self.distillers = Distillers(
            self.supervisor, self.distil, self.student, self.publish, num_distillers
        )

    def distil(self, student, lessons, number):
        self.before(int(lessons[number]))
        name = threading.current_thread().name
        self.seen.append((int(lessons[number]), name, student["count"].item()))
        new = {"count": student["count"] + 1, "sum": student["sum"] + 1}
        return new, {"lesson": np.float32(lessons[number])}

    def publish(self, version, student):
        self.published.append((version, student["count"].item()))

    def lessons(self, update):
        return np.arange(update * NUM_LESSONS, (update + 1) * NUM_LESSONS)

    def dispatch(self, *updates):
        for update in updates:
            self.distillers.dispatch(update + 1, self.lessons(update))


@contextmanager
def a_class(*arguments, **options):
    """Leaves no thread."""
    before = set(threading.enumerate())
    made = Class(*arguments, **options)
    made.distillers.start()
    with made.supervisor.working():
        try:
            yield made
        finally:
            assert made.supervisor.stop(30.0) == []
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("num_distillers", [1, 3])
def test_every_lesson_is_learned_from_once_and_every_version_is_complete(
    num_distillers,
):
    order = np.random.default_rng(0)

    def before(number):
        time.sleep(order.uniform(0, 2e-3))

    with a_class(num_distillers, before) as room:
        room.dispatch(*range(20))
        student, done = room.distillers.drain()
    numbers = [number for number, *_ in room.seen]
    assert sorted(numbers) == list(range(20 * NUM_LESSONS))
    # Whoever was first: metrics are in the order of the lessons.
    assert [[int(x["lesson"]) for x in row] for row in done] == [
        room.lessons(update).tolist() for update in range(20)
    ]
    # A version is that after all lessons before it, and no later one.
    assert room.published == [(n, n * NUM_LESSONS) for n in range(1, 21)]
    assert student["count"] == 20 * NUM_LESSONS
    # What a lesson starts from lacks at most others of its own update.
    for number, _, count in room.seen:
        update = number // NUM_LESSONS
        assert update * NUM_LESSONS <= count < (update + 1) * NUM_LESSONS
    learned = room.distillers.learned
    assert sum(learned) == 20 * NUM_LESSONS and all(learned)
    assert len({name for _, name, _ in room.seen}) == num_distillers
    raced = sum(float(x["raced"]) for row in done for x in row)
    if num_distillers == 1:
        assert numbers == sorted(numbers) and not raced
        assert np.all(student["sum"] == 20 * NUM_LESSONS)
    else:
        assert 0 < raced < 20 * NUM_LESSONS


def test_metrics_are_those_since_the_last_drain():
    with a_class(2) as room:
        for update in range(3):
            room.dispatch(update)
            _, done = room.distillers.drain()
            assert len(done) == 1
        assert room.distillers.drain()[1] == []


def test_the_learner_goes_on_during_lessons_but_not_two_updates_ahead():
    go_on = threading.Event()
    with a_class(2, lambda number: go_on.wait(30)) as room:
        room.dispatch(0)
        ahead = []

        def learner():
            room.dispatch(1)
            ahead.append(list(room.published))

        thread = threading.Thread(target=learner)
        thread.start()
        thread.join(0.3)
        assert not ahead and not room.published
        go_on.set()
        thread.join(30)
        assert ahead == [[(1, NUM_LESSONS)]]
        room.distillers.drain()


def fail(number):
    if number == NUM_LESSONS + 2:
        raise ArithmeticError("no such lesson")


@pytest.mark.parametrize("num_distillers", [1, 3])
def test_the_learner_gets_the_error_of_a_distiller_with_its_traceback(num_distillers):
    with a_class(num_distillers, fail) as room:
        with pytest.raises(ArithmeticError, match="no such lesson") as error:
            room.dispatch(*range(5))
            room.distillers.drain()
        assert "fail" in [
            x.name for x in traceback.extract_tb(error.value.__traceback__)
        ]
        (note,) = error.value.__notes__
        assert note.startswith("in distiller ") and note.endswith(
            "lesson 2 of update 1"
        )
        assert room.published == [(1, NUM_LESSONS)]


def test_an_error_while_publishing_is_one_too():
    with a_class(2) as room:
        room.distillers._publish = lambda *_: fail(NUM_LESSONS + 2)
        with pytest.raises(ArithmeticError):
            room.dispatch(0, 1)


@pytest.mark.parametrize("num_distillers", [1, 3])
def test_lessons_that_ended_threads_have_left_are_learned(num_distillers):
    with a_class(num_distillers) as room:
        room.dispatch(0)
    student, done = room.distillers.finish(2, room.lessons(1))
    assert sorted(number for number, *_ in room.seen) == list(range(2 * NUM_LESSONS))
    assert [[int(x["lesson"]) for x in row] for row in done] == [
        room.lessons(update).tolist() for update in (0, 1)
    ]
    assert room.published == [(n, n * NUM_LESSONS) for n in (1, 2)]
    assert student["count"] == 2 * NUM_LESSONS


def test_a_lesson_that_is_half_learned_spoils_the_student():
    with a_class(1, fail) as room, pytest.raises(ArithmeticError):
        room.dispatch(0, 1)
        room.distillers.drain()
    assert room.distillers.finish(3, room.lessons(2)) is None


def test_nobody_waits_for_ever_for_a_distiller():
    go_on = threading.Event()
    with a_class(1, lambda number: go_on.wait(30), patience=0.5) as room:
        for wait in (lambda: room.dispatch(0, 1), room.distillers.drain):
            with pytest.raises(DeadlineError, match="no end of the lessons"):
                wait()
        go_on.set()


# They learn -------------------------------------------------------------------------


@pytest.mark.slow
def test_several_learn_what_one_learns():
    """Of a frozen teacher, from the same lessons: the KL to it falls as far."""
    num_updates, per_update = 60, 4
    network = actor_critic(
        ENV.observation_spec, ENV.action_spec, NetworkConfig(widths=(8,))
    )
    student = distilled(network, optax.adam(0.01))
    obs = jax.random.normal(KEY, (per_update, 5, 4, *ENV.observation_spec.shape))
    flags = jnp.zeros((per_update, 5, 4), jnp.bool_)
    steps = TimeStep(obs, flags, flags)
    one_step = jax.tree.map(lambda x: x[0, 0], steps)
    frozen = network.init(random.key(1), one_step)
    (policy, values), _ = jax.vmap(lambda x: network.unroll(frozen, (), x))(steps)
    policy = policy._replace(logits=obs @ jnp.array([[2.0, 0.0], [0.0, -2.0]]))
    lessons = DistillationBatch(steps, (), policy, values)

    @jax.jit
    def distil(state, lessons, number):
        lesson = jax.tree.map(lambda x: x[number], lessons)
        state, info = loops.update(student, state, lesson, KEY)
        return state, {"kl": info.metrics["kl"].total / info.metrics["kl"].count}

    def kls(num_distillers):
        """Mean of each update."""
        supervisor = Supervisor(60.0)
        distillers = Distillers(
            supervisor, distil, Shared(start), lambda *_: None, num_distillers
        )
        distillers.start()
        with supervisor.working():
            for version in range(num_updates):
                distillers.dispatch(version, lessons)
            _, done = distillers.drain()
        assert supervisor.stop(30.0) == []
        return [float(np.mean([x["kl"] for x in row])) for row in done]

    start = jax.jit(student.init)(KEY, one_step)
    one, several = kls(1), kls(3)
    assert several[-1] < 0.2 * several[0]
    assert several[-1] == pytest.approx(one[-1], rel=0.5, abs=0.02 * one[0])


# In a run ---------------------------------------------------------------------------

NUM_ENVS, LENGTH, PER_UPDATE = 2, 4, 3
ENV = probes.counter(NUM_ENVS)
COMPILE, COMPILED = MeshLearner.compile, {}
ACTING = cache(system.acting)


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch):
    """All engines with the same parts learn with the same compiled functions."""

    def compile_once(self, run, batch):
        like = self._deferred is None
        if self._compiled is None and like in COMPILED:
            self._compiled, self._compiled_distil = COMPILED[like]
            self._tally.compile_seconds = 1e-6
        COMPILE(self, run, batch)
        COMPILED[like] = self._compiled, self._compiled_distil

    monkeypatch.setattr(system, "acting", ACTING)
    monkeypatch.setattr(MeshLearner, "compile", compile_once)


@cache
def parts():
    """The learner. A quarter of the student's gradients are not finite."""
    network = actor_critic(
        ENV.observation_spec, ENV.action_spec, NetworkConfig(widths=(4,))
    )
    annealed = make_optimizer(OptimizerConfig(learning_rate=0.03), 80)
    student = distilled(network, annealed)

    def grad(state, batch, key, axis):
        grads, info = student.grad(state, batch, key, axis)
        bad = jnp.where(jax.random.bernoulli(key, 0.25), jnp.nan, 1.0)
        return jax.tree.map(lambda x: x * bad, grads), info

    actor = student._replace(grad=grad)
    learner = impala(network, optax.adam(0.03), ImpalaConfig(behaviour_cost=0.1))
    teacher = loops.Teacher(network.initial_carry, network.unroll)
    config = loops.DistillationConfig(PER_UPDATE, batch_size=4, capacity=8)
    return loops.distillation(actor, learner, teacher, config)


def make_env(key):
    return from_pure(ENV, key)


LOCKSTEP = ThreadsConfig(num_actors=1, schedule="lockstep", lag=0, num_distillers=1)


def engine(config, learner=None, num_devices=1):
    return threads(learner or parts(), make_env, LENGTH, config, data_mesh(num_devices))


def advanced(made, *chunks):
    """(run, metrics of the last chunk)"""
    try:
        run = made.init(KEY)
        for num_updates in chunks:
            run, metrics = made.advance(run, num_updates)
        return run, metrics
    finally:
        made.close()


def learned(run):
    """Both models, the replay, and the counters, those of what was skipped too."""
    return state_hash(run._replace(local=run.local.data))


@cache
def in_one_program(lag):
    """(run, metrics) after 8 updates without distillers."""
    return advanced(engine(replace(LOCKSTEP, lag=lag, num_distillers=0)), 8)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("lag", "chunks"), [(1, (1, 5, 2)), (0, (8,)), (1, (8,))])
def test_one_distiller_is_the_compiled_program_bit_for_bit(lag, chunks):
    """Lessons that are skipped are skipped and counted in it too. With a lag, the
    learner goes on while its distiller distils, which changes nothing; nor does it
    matter how often one looks at the run in between."""
    theirs, expected = in_one_program(lag)
    run, metrics = advanced(engine(replace(LOCKSTEP, lag=lag)), *chunks)
    assert learned(run) == learned(theirs) and state_hash(run) == state_hash(theirs)
    assert 0 < int(run.progress.skipped) < 8 * PER_UPDATE
    assert np.all(metrics["distil_raced"] == 0)
    assert metrics.keys() == expected.keys() | {"distil_raced"}
    for name in expected:
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y[-len(x) :], rtol=1e-5),
            metrics[name],
            expected[name],
        )


@pytest.mark.slow
def test_a_run_is_resumed_bit_for_bit(tmp_path):
    config = replace(LOCKSTEP, lag=1)
    whole, _ = advanced(engine(config), 6)
    half, _ = advanced(engine(config), 4)
    with Checkpoints(tmp_path / "checkpoints", {}, 2) as store:
        store.save(4, half)
        made = engine(config)
        restored = store.restore(made.init(KEY))
    try:
        made.resume(restored)
        resumed, _ = made.advance(restored, 2)
    finally:
        made.close()
    assert state_hash(resumed) == state_hash(whole)
    count = optax.tree.get(resumed.learner.student.opt_state, "count")
    assert int(count) + int(resumed.progress.skipped) == 6 * PER_UPDATE


@pytest.mark.slow
def test_a_free_run_with_one_distiller_is_replayed_bit_for_bit(tmp_path):
    config = ThreadsConfig(num_actors=1, num_distillers=1)
    made = engine(config)
    path = tmp_path / "schedule.jsonl"
    made.record(path)
    run, metrics = advanced(made, 8)
    assert metrics["lag_max"].total.max() <= 1
    again, _ = advanced(
        repeat_recorded(parts(), make_env, LENGTH, config, data_mesh(1), path), 3, 5
    )
    assert learned(run) == learned(again)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["free", "lockstep"])
def test_several_distillers_make_exactly_the_ratio(schedule):
    """Updates of the actor for each of the learner, and who made them."""
    before = set(threading.enumerate())
    made = engine(ThreadsConfig(num_actors=1, schedule=schedule, num_distillers=2))
    run, _ = advanced(made, 10, 20)
    count = int(optax.tree.get(run.learner.student.opt_state, "count"))
    assert count + int(run.progress.skipped) == 30 * PER_UPDATE
    assert int(run.learner.updates) == int(run.progress.updates) == 30
    report = made.report()
    assert sum(report.lessons) == 30 * PER_UPDATE and min(report.lessons) > 0
    for shares in report.distillers:
        assert sum(shares.values()) == pytest.approx(1.0, abs=0.05)
        assert shares["distilling"] > 0
    assert report.row()["lessons"] == 30 * PER_UPDATE
    assert report.row()["distiller_distilling"] > 0
    text = parallelism.text(report)
    assert "90 by 2 distillers" in text and "\n  2 distillers  " in text
    assert report.abandoned == [] and set(threading.enumerate()) == before


@pytest.mark.slow
def test_an_error_of_a_distiller_ends_the_run():
    before = set(threading.enumerate())
    made = engine(ThreadsConfig(num_actors=1, num_distillers=2))
    run = made.init(KEY)

    def distil(student, lessons, number):
        raise ArithmeticError("cannot teach this")

    made._system.learner.distil = distil
    try:
        with pytest.raises(ArithmeticError, match="cannot teach") as error:
            made.advance(run, 3)
        assert "of update 0" in error.value.__notes__[0]
        assert "distil" in [
            x.name for x in traceback.extract_tb(error.value.__traceback__)
        ]
    finally:
        made.close()
    assert set(threading.enumerate()) == before


@pytest.mark.slow
@pytest.mark.parametrize("num_distillers", [0, 1])
def test_whole_updates_are_rescued_when_one_fails(num_distillers):
    """Bit for bit what a run has that ends there; what was left to distil is done."""
    config = replace(LOCKSTEP, lag=1, num_distillers=num_distillers)
    whole, _ = advanced(engine(config), 3)
    made = engine(config)
    try:
        run = made.init(KEY)
        learner, calls = made._system.learner, []
        update = learner.update

        def fails(run, batch):
            calls.append(batch)
            if len(calls) == 4:
                raise ArithmeticError("cannot learn from this")
            return update(run, batch)

        learner.update = fails
        with pytest.raises(ArithmeticError, match="cannot learn from this"):
            made.advance(run, 8)
        rescued, metrics = made.rescue()
        assert made.rescue() is None
    finally:
        made.close()
    assert state_hash(rescued) == state_hash(whole)
    assert all(len(x) == 3 for x in jax.tree.leaves(metrics))


@pytest.mark.slow
def test_without_distillers_a_report_is_as_it_was():
    made = engine(replace(LOCKSTEP, num_distillers=0))
    advanced(made, 1)
    assert "lessons" not in made.report().row()
    assert "distiller" not in parallelism.text(made.report())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_distillers": -1}, "num_distillers must be at least 0, got -1"),
        ({"num_distillers": 2, "num_devices": 2}, "one device, and the learner has 2"),
        (
            {"num_distillers": 2, "teaches": False},
            "leaves no lessons to them, so it must be 0",
        ),
    ],
)
def test_bad_settings_are_refused(options, message):
    learner = parts()
    if not options.pop("teaches", True):
        learner = loops.learner_of(learner.actor)
    num_devices = options.pop("num_devices", 1)
    with pytest.raises(ValueError, match=message):
        engine(ThreadsConfig(**options), learner, num_devices)


def test_races_are_not_replayed(tmp_path):
    config = ThreadsConfig(num_distillers=2)
    with pytest.raises(ValueError, match="no record repeats; a run with 0 or 1"):
        path = tmp_path / "schedule.jsonl"
        repeat_recorded(parts(), make_env, LENGTH, config, data_mesh(1), path)
