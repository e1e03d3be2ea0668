"""Workers that are killed, raise, hang or come back: no update is lost, nobody waits
for ever, and nothing stays behind."""

import gc
import random
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scripted import (
    NUM_ENVS,
    SimulatorError,
    World,
    at,
    hanging,
    raising,
    replacing,
)
from toy_workers import (
    ENV,
    KEY,
    LENGTH,
    ON_HOST,
    TOY,
    config_of,
    engine,
    learner_of,
    repetition,
    share_compiled,
    staleness,
)
from warned import warned

from jaxrl_par import rollout
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.bridge.parameter_server import stores
from jaxrl_par.bridge.supervision import DeadlineError, HangError
from jaxrl_par.envs.host import from_pure
from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.loops import asynchronous
from jaxrl_par.loops.records import RecordError, read_turns
from jaxrl_par.networks import actor_critic
from jaxrl_par.topologies.workers import repeat_recorded, workers
from jaxrl_par.training.checkpoints import state_hash
from jaxrl_par.types import Count, Info

STORES = [("lock", 2, 1), ("hogwild", 2, 1), ("server", 2, 1), ("server", 2, 3)]
by_store = pytest.mark.parametrize("store", STORES, ids=lambda x: f"{x[0]}-{x[2]}")


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch):
    share_compiled(monkeypatch)


def digest(run):
    return state_hash(jax.device_put(run))


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def until(condition, seconds=30.0):
    """Waits for what another thread is about to do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# Killed in the middle of a push ---------------------------------------------------


class KilledError(Exception):
    """What ends a worker at a line that nobody expects."""


class Killer:
    """Raises before the n-th line that workers execute in a push, or in what a push
    calls, of `bridge.parameter_server.stores`."""

    def __init__(self, line: int):
        self.line = line
        self.lines = 0
        self.place = None
        self._counting = threading.Lock()
        self._here = threading.local()

    @contextmanager
    def at_work(self):
        """For threads that start meanwhile."""
        threading.settrace(self._called)
        try:
            yield self
        finally:
            threading.settrace(None)

    def _called(self, frame, event, _):
        code = frame.f_code
        if Path(code.co_filename).parent != Path(stores.__file__).parent:
            return None
        if code.co_name != "push" and not getattr(self._here, "pushing", False):
            return None
        self._here.pushing = True
        return partial(self._executed, code.co_name == "push")

    def _executed(self, whole, frame, event, _):
        if event == "return" and whole:
            self._here.pushing = False
        if event == "line":
            with self._counting:
                self.lines += 1
                now = self.lines == self.line
            if now:
                self.place = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                self._here.pushing = False
                raise KilledError(self.place)
        return partial(self._executed, whole)


def killed_at(line, store, path):
    """The place where a worker was killed: 8 updates, with a restart among them."""
    killer = Killer(line)
    with killer.at_work(), engine(*store, path=path, on_error="restart") as working:
        run, _ = working.advance(working.init(KEY), 4)
        until(lambda: killer.place and working.report().restarts == 1)
        for _ in range(2):
            run, _ = working.advance(run, 2)
        store_ = working._store
        report = working.report()
    assert report.restarts == 1 and report.updates == 8
    assert int(run.progress.updates) == int(run.learner.updates) == 8
    if isinstance(store_, stores.Server):
        assert {x.pushes for x in store_._current} == {8}
    with repetition(path, *store) as again:
        repeated, _ = again.advance(again.init(KEY), 8)
    assert digest(run) == digest(repeated), killer.place
    return killer.place


CRASHES = [(("lock", 3, 1), 45, 40), (("server", 2, 1), 24, 30),
           (("server", 3, 3), 24, 30)]  # fmt: skip
"""(workers, lines from which to choose, how many to choose)"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*made its environments anew:UserWarning")
@pytest.mark.parametrize(
    ("store", "most", "count"), CRASHES, ids=["lock", "server", "server of 3 shards"]
)
def test_who_is_killed_in_a_push_takes_nothing_with_it_but_its_gradient(
    store, most, count, tmp_path
):
    """Wherever: at random lines of the first three pushes."""
    lines = random.Random(most).choices(range(1, most), k=count)
    path = tmp_path / "schedule.jsonl"
    places = {killed_at(line, store, path) for line in lines}
    # Of the lock, of the server: functions in which somebody was killed.
    assert len({x.split(",")[0] for x in places}) >= 2 and len(places) >= 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*made its environments anew:UserWarning")
@pytest.mark.parametrize("line", range(1, 30))
def test_a_race_without_locks_goes_on_without_who_is_killed(line, tmp_path):
    """Hogwild loses at most what the killed one wrote in part; never the count."""
    killer = Killer(line)
    with killer.at_work(), engine("hogwild", 2, on_error="restart") as working:
        run, _ = working.advance(working.init(KEY), 4)
        until(lambda: killer.place and working.report().restarts == 1)
        run, _ = working.advance(run, 4)
        report = working.report()
    assert report.updates == 8 and int(run.progress.updates) == 8
    assert np.isfinite(np.asarray(run.learner.params)).all()


# Replay ---------------------------------------------------------------------------


def make_env(key):
    return from_pure(ENV, key)


RULES = ("accept", "reject", "scale")
RECORDED = [
    (("lock", 2 + i % 3, 1) if i % 3 == 0 else ("server", 2 + i % 3, (1, 3)[i % 2]),
     RULES[(i // 2) % 3], i % 4 == 3)
    for i in range(20)
]  # fmt: skip


@pytest.mark.sample(1)
@pytest.mark.parametrize(("store", "rule", "on_host"), RECORDED)
def test_a_recorded_run_is_repeated_bit_for_bit(store, rule, on_host, tmp_path):
    path, options = tmp_path / "schedule.jsonl", {"staleness": staleness(rule)}
    options["env"] = make_env if on_host else ENV
    with engine(*store, path=path, **options) as working:
        run, metrics = working.init(KEY), []
        for _ in range(4):
            run, new = working.advance(run, 6)
            metrics.append(new)
    with repetition(path, *store, **options) as again:
        repeated, same = again.advance(again.init(KEY), 24)
    assert digest(run) == digest(repeated)
    metrics = jax.tree.map(lambda *xs: np.concatenate(xs), *metrics)
    jax.tree.map(np.testing.assert_array_equal, metrics, same)
    rejected = metrics["rejected"] > 0
    if rule != "reject":
        assert not rejected.any()
    elif store[2] == 1:
        np.testing.assert_array_equal(rejected, metrics["lag"] > 1)
    if store[2] == 1:
        assert int(run.learner.updates) == 24 - rejected.sum()


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_replay_of_a_race_is_what_it_would_have_been_without(num_workers, tmp_path):
    path, store = tmp_path / "schedule.jsonl", ("hogwild", num_workers)
    with engine(*store, path=path) as working:
        run, _ = working.advance(working.init(KEY), 30)
    with repetition(path, *store) as again:
        repeated, _ = again.advance(again.init(KEY), 30)
    distance = np.abs(np.asarray(run.learner.params - repeated.learner.params)).max()
    assert np.isfinite(distance)
    if num_workers == 1:
        assert digest(run) == digest(repeated)


def test_another_order_than_the_recorded_one_gives_another_run(tmp_path):
    """So that the tests above cannot pass by chance."""
    hashes = set()
    for order in ((0, 0, 1, 1), (0, 1, 0, 1), (1, 1, 0, 0)):
        path, unrolls = tmp_path / "schedule.jsonl", {0: 0, 1: 0}
        lines = []
        for n, worker in enumerate(order):
            lines.append(f"[[{worker}, {unrolls[worker]}, 0, [{n}]]]\n")
            unrolls[worker] += 1
        path.write_text("".join(lines))
        with repetition(path) as again:
            run, metrics = again.advance(again.init(KEY), 4)
        assert metrics["lag"].tolist() == [0] * 4
        hashes.add(digest(run))
    assert len(hashes) == 3


@pytest.mark.sample(1)
@pytest.mark.parametrize("env", [ENV, make_env], ids=["pure", "host"])
def test_workers_act_and_learn_with_keys_and_environments_of_their_own(env, tmp_path):
    """Those of the instance of this number in a synchronous program."""
    path = tmp_path / "schedule.jsonl"
    path.write_text("[[1,0,0,[0]]]\n[[0,0,0,[0]]]\n")
    with repetition(path, env=env) as again:
        start = again.init(KEY)
        run, metrics = again.advance(start, 2)
    _, env_key, root = jax.random.split(KEY, 3)

    @jax.jit
    def given_by(worker):
        environments = rollout.start(
            TOY, ENV, jax.random.fold_in(env_key, worker), worker, 2
        )
        return asynchronous.turn(
            learner_of(TOY), ENV, LENGTH, start.learner, start.learner, environments,
            (), root, Count.zero(), worker,
        ).gradient  # fmt: skip

    for n, worker in enumerate((1, 0)):
        given = given_by(jnp.int32(worker))
        np.testing.assert_allclose(metrics["loss"][n], given.metrics["loss"], rtol=1e-5)
        norm = np.linalg.norm(given.grads)
        np.testing.assert_allclose(metrics["grad_norm"][n], norm, rtol=1e-5)
    assert metrics["loss"][0] != metrics["loss"][1]
    keys = [again._system.env_key(worker, n) for n in range(2) for worker in range(2)]
    for worker in range(2):
        assert keys[worker] == jax.random.fold_in(env_key, worker)
    assert len({str(jax.random.key_data(key)) for key in keys}) == 4
    assert int(run.progress.env_steps) > 0


def test_the_lag_of_a_replay_is_that_of_the_record(tmp_path):
    path = tmp_path / "schedule.jsonl"
    path.write_text("[[0,0,0,[0]]]\n[[1,0,0,[0]]]\n[[2,0,0,[0]]]\n[[0,1,0,[1]]]\n")
    with repetition(path, "lock", 3) as again:
        _, metrics = again.advance(again.init(KEY), 4)
    assert metrics["lag"].tolist() == [0, 1, 2, 2]
    # One that was rejected is a push, and no update.
    rejecting = {"staleness": staleness("reject", 0)}
    with repetition(path, "lock", 3, **rejecting) as again:
        run, metrics = again.advance(again.init(KEY), 4)
    assert metrics["lag"].tolist() == [0, 1, 1, 0]
    assert metrics["rejected"].tolist() == [0, 1, 1, 0]
    assert int(run.learner.updates) == 2 and int(run.progress.updates) == 4


@pytest.mark.parametrize(
    ("text", "store", "updates", "message"),
    [
        ("[[0,0,0,[0,0]]]\n", ("lock", 1, 1), 1, "of 2 shards, asked for 1"),
        ("[[0,0,0,[0]]]\n", ("server", 1, 3), 1, "of 1 shards, asked for 3"),
        ("[[0,5,0,[0]]]\n", ("lock", 1, 1), 1, "wants unroll 5 of worker 0"),
        ("[[0,0,0,[3]]]\n", ("lock", 1, 1), 1, r"after \(3,\) updates"),
        ("[[4,0,0,[0]]]\n", ("lock", 2, 1), 1, "of worker 4, and there are 2"),
        ("[[-1,0,0,[0]]]\n", ("lock", 2, 1), 1, "of worker -1, and there are 2"),
        ("[[0,0,0,[0]]]\n", ("lock", 1, 1), 2, "has 1 updates, asked for 2"),
        ("", ("lock", 1, 1), 1, "has 0 updates, asked for 1"),
        ("[[0,0,0,0]]\n", ("lock", 1, 1), 1, "line 1: no schedule"),
        ("[[0,0,0,[0]],[0,1,0,[1]]]\n", ("lock", 1, 1), 1, "line 1: no schedule"),
    ],
)  # fmt: skip
def test_a_record_that_does_not_fit_is_refused(text, store, updates, message, tmp_path):
    path = tmp_path / "schedule.jsonl"
    path.write_text(text)
    with pytest.raises(RecordError, match=message), repetition(path, *store) as again:
        again.advance(again.init(KEY), updates)


def test_a_replay_begins_at_the_beginning(tmp_path):
    path = tmp_path / "schedule.jsonl"
    path.write_text("[[0,0,0,[0]]]\n")
    with repetition(path) as again:
        assert again.compile_seconds == 0
        run = again.init(KEY)
        with pytest.raises(RecordError, match="cannot be resumed"):
            again.resume(run)
        assert again.report() is None
    with repetition(path) as again:
        pass  # Closed before there is anything.
    with pytest.raises(RecordError, match="no recorded schedule"):
        repeat_recorded(TOY, ENV, LENGTH, config_of(), tmp_path / "other.jsonl")


# Errors of environments -----------------------------------------------------------


@contextmanager
def hosted(world, *given, **options):
    with engine(*given, agent=ON_HOST, env=world.make, **options) as working:
        yield working


@pytest.mark.sample(1)
@by_store
def test_the_owner_gets_the_error_of_a_step_with_its_place(world, store):
    error = SimulatorError("out of fuel")
    world.before = raising(at(9, actor=1), error)
    with hosted(world, *store, patience=1000.0) as working:
        run = working.init(KEY)
        started = time.monotonic()
        for _ in range(2):
            # The same again, if one goes on.
            with pytest.raises(SimulatorError) as raised:
                for _ in range(50):
                    run, _ = working.advance(run, 1)
            assert raised.value is error
        assert time.monotonic() - started < 30
        assert working.report().restarts == 0
    assert notes(error) == (
        "in worker 1, Scripted, step 9 (row 0 of unroll 3), generation 0"
    )
    assert not world.unclosed()


@pytest.mark.parametrize("kind", ["make", "reset"])
def test_the_owner_gets_the_error_of_making_an_environment(world, kind):
    error = SimulatorError("no such level")
    world.before = raising(at(0, kind, actor=1), error)
    with hosted(world) as working:
        with pytest.raises(SimulatorError) as raised:
            working.init(KEY)
        assert raised.value is error and working.report() is None
    assert notes(error).startswith(f"in {kind} of worker 1, ")
    assert not world.unclosed()


@pytest.mark.slow
@by_store
def test_who_hangs_is_named(world, store):
    world.before = hanging(world, at(9, actor=1))
    with hosted(world, *store, env_timeout=1.0) as working:
        run = working.init(KEY)
        with pytest.raises(HangError, match="worker 1: step has not returned") as error:
            while True:  # The other one goes on meanwhile.
                run, _ = working.advance(run, 1)
        assert "in worker 1, Scripted, step 9" in notes(error.value)
        started = time.monotonic()
    assert time.monotonic() - started < 10
    assert working.report().abandoned == ["worker 1"]


def put_nan(step, *paid):
    obs = step.obs.copy()
    obs[1, 2] = np.nan
    return step._replace(obs=obs), *paid


def test_an_observation_that_is_no_number_is_refused(world):
    world.after = replacing(at(9, actor=1), put_nan)
    with hosted(world) as working:
        run = working.init(KEY)
        with pytest.raises(BadRowError, match="is not finite") as error:
            for _ in range(50):
                run, _ = working.advance(run, 1)
        assert "in worker 1, Scripted, step 10" in notes(error.value)


FAULTS = {
    "raise": ("before", raising(at(9))),
    "nan": ("after", replacing(at(9), put_nan)),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("fault", FAULTS)
@by_store
def test_a_restart_is_counted_and_told(world, fault, store, tmp_path):
    setattr(world, *FAULTS[fault])
    path = tmp_path / "schedule.jsonl"
    with (
        hosted(world, *store, on_error="restart", path=path) as working,
        warned("worker 0: made its environments anew after"),
    ):
        run = working.init(KEY)
        while working.report() is None or working.report().restarts < 1:
            run, _ = working.advance(run, 1)
        run, _ = working.advance(run, 8)
        dropped = working.report().dropped_rows
    assert dropped == NUM_ENVS * (LENGTH if fault == "nan" else 0)
    report = working.report()
    assert report.restarts == 1 and report.updates == int(run.progress.updates)
    assert [(x.actor, x.life) for x in world.made if x.life] == [(0, 1)]
    assert {env.closed for env in world.made} == {1}
    turns = read_turns(path)
    assert len(turns) == report.updates
    mine = [(x.generation, x.unroll) for x in turns if x.worker == 0]
    assert mine == [(int(n >= 3), n) for n in range(len(mine))]
    rows = sum(report.lags.values()) * LENGTH * NUM_ENVS + report.dropped_rows
    assert 0 <= world.rows - rows <= NUM_ENVS * len(world.made)


def test_after_so_many_restarts_the_next_error_is_raised(world):
    world.before = raising(at(4, actor=0, life=None))
    with (
        hosted(world, on_error="restart", max_restarts=2) as working,
        warned("made its environments anew"),
    ):
        run = working.init(KEY)
        with pytest.raises(SimulatorError):
            for _ in range(200):
                run, _ = working.advance(run, 1)
        assert working.report().restarts == 2


@pytest.mark.slow
def test_another_takes_the_place_of_who_hangs(world):
    world.before = hanging(world, at(9, actor=0))
    options = {"on_error": "restart", "env_timeout": 1.0}
    with (
        hosted(world, **options) as working,
        warned("worker 0: made its environments anew"),
    ):
        run = working.init(KEY)
        while working.report() is None or working.report().restarts < 1:
            run, _ = working.advance(run, 1)
        run, _ = working.advance(run, 8)
        assert "worker 0" in working.report().abandoned
    assert int(run.progress.updates) == working.report().updates


@pytest.mark.slow
def test_who_waits_too_long_says_for_what(world):
    with hosted(World(), "lock", 1) as working:
        # So that nobody waits for what is compiled.
        working.advance(working.init(KEY), 1)
    world.before = hanging(world, at(0, actor=0))
    options = {"env_timeout": 100.0, "patience": 1.0}
    with (
        hosted(world, "lock", 1, **options) as working,
        pytest.raises(DeadlineError, match=r"no updates of workers .* worker 0: step"),
    ):
        working.advance(working.init(KEY), 1)


# Errors of stores -----------------------------------------------------------------


@by_store
def test_an_error_of_an_update_is_reported(store, monkeypatch):
    def broken(*_):
        raise SimulatorError("out of memory")

    with engine(*store) as working:
        run, _ = working.advance(working.init(KEY), 2)
        monkeypatch.setattr(working._shards, "apply", broken)
        with pytest.raises(SimulatorError, match="out of memory"):
            for _ in range(2 * store[1] + 1):
                run, _ = working.advance(run, 1)


def test_advance_wants_the_run_that_it_returned():
    with engine() as working:
        first = working.init(KEY)
        run, _ = working.advance(first, 2)
        with pytest.raises(ValueError, match="the run that it returned last"):
            working.advance(first, 2)
        run, _ = working.advance(run, 2)
        assert int(run.progress.updates) == 4


def test_statistics_of_data_would_be_lost_and_are_refused():
    network = actor_critic(ENV.observation_spec, ENV.action_spec)
    agent = normalize_observations(a2c(network, optax.sgd(0.1)))
    with (
        pytest.raises(ValueError, match=r"statistics.* gradients only"),
        engine(agent=agent),
    ):
        pass


# The end --------------------------------------------------------------------------


@pytest.mark.sample(1)
@by_store
@pytest.mark.parametrize("on_host", [False, True])
def test_closing_ends_all_threads_in_every_state(store, on_host):
    env = make_env if on_host else ENV
    before = set(threading.enumerate())
    for state in range(4):
        with engine(*store, env=env) as working:
            assert working.compile_seconds == 0
            if state:
                run = working.init(KEY)
                assert working.report() is None
            for _ in range(state - 1):
                run, _ = working.advance(run, 3)
            started = time.monotonic()
            working.close()
            assert time.monotonic() - started < 10
            working.close()
        assert set(threading.enumerate()) <= before


@pytest.mark.slow
def test_many_starts_leave_no_thread():
    before = set(threading.enumerate())
    for number in range(30):
        with engine(*STORES[number % 4]) as working:
            working.advance(working.init(KEY), 2)
    assert set(threading.enumerate()) <= before


# The report -----------------------------------------------------------------------


@by_store
def test_the_report_counts_what_was_pushed(store):
    with engine(*store) as working:
        run, metrics = working.advance(working.init(KEY), 9)
        report = working.report()
    kind, num_workers, num_shards = store
    assert report.kind == kind and report.updates == 9 == sum(report.lags.values())
    assert len(report.workers) == num_workers
    assert len(report.shards) == (num_shards if kind == "server" else 0)
    for shares in [*report.workers, *report.shards]:
        assert sum(shares.values()) == pytest.approx(1.0, abs=0.1)
    assert report.restarts == report.dropped_rows == 0
    assert not any(report.refused.values())
    steps = report.steps_per_second * report.seconds
    assert round(steps) == int(run.progress.env_steps) > 0
    assert metrics["lag"].shape == metrics["rejected"].shape == (9,)
    closed = working.report()
    assert 0 <= closed.dropped_rows <= 2 * num_workers * LENGTH * NUM_ENVS


def test_rejected_gradients_are_counted(tmp_path):
    options = {"staleness": staleness("reject", 0)}
    with engine("lock", 3, **options) as working:
        run, metrics = working.advance(working.init(KEY), 20)
        report = working.report()
    assert report.refused["rejected"] == metrics["rejected"].sum()
    assert int(run.learner.updates) == 20 - report.refused["rejected"]
    assert int(run.progress.updates) == 20 and max(report.lags) >= 1


def test_gradients_that_are_not_finite_are_skipped_and_counted():
    def grad(state, batch, key, axis):
        bad = jnp.where(state.updates >= 3, jnp.nan, 1.0)
        return jnp.full(5, bad), Info({})

    def in_a_row(skipped):
        # A worker that was slow may still push what it made at an early state.
        return len(skipped) - 1 - max(np.flatnonzero(skipped == 0), default=-1)

    with engine("server", 2, 3, agent=TOY._replace(grad=grad)) as working:
        run, metrics = working.advance(working.init(KEY), 8)
        skipped = metrics["skipped"]
        assert int(run.progress.skipped) == skipped.sum() >= 4
        assert int(run.progress.skipped_in_a_row) == in_a_row(skipped)
        run, metrics = working.advance(run, 2)
        skipped = np.concatenate([skipped, metrics["skipped"]])
        assert int(run.progress.skipped_in_a_row) == in_a_row(skipped) >= 1
    assert np.isfinite(np.asarray(run.learner.params)).all()


# Resumption -----------------------------------------------------------------------


@pytest.mark.sample(1)
@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize("store", [("lock", 1, 1), ("server", 1, 3)])
def test_one_worker_goes_on_exactly(store, on_host, tmp_path):
    env = make_env if on_host else ENV
    path = tmp_path / "schedule.jsonl"
    with engine(*store, env=env) as working:
        whole, _ = working.advance(working.init(KEY), 7)
    with engine(*store, env=env, path=path) as working:
        half, _ = working.advance(working.init(KEY), 4)
    with engine(*store, env=env, path=path) as working:
        working.init(KEY)
        working.resume(half)
        run, _ = working.advance(half, 3)
    assert digest(run) == digest(whole)
    with repetition(path, *store, env=env) as again:
        repeated, _ = again.advance(again.init(KEY), 7)
    assert digest(repeated) == digest(whole)


@pytest.mark.sample(1)
@by_store
@pytest.mark.parametrize("on_host", [False, True])
def test_several_workers_go_on_after_their_last_pushes(store, on_host, tmp_path):
    """No update is lost, and the record of both parts repeats the whole."""
    env, path = make_env if on_host else ENV, tmp_path / "schedule.jsonl"
    with engine(*store, env=env, path=path) as working:
        half, _ = working.advance(working.init(KEY), 6)
    unrolls = [int(x.unroll) for x in half.local.workers]
    assert sum(unrolls) == 6
    with engine(*store, env=env, path=path) as working:
        working.init(KEY)
        working.resume(half)
        assert [x.next_unroll for x in working._pool] == unrolls
        run, _ = working.advance(half, 5)
    assert int(run.progress.updates) == 11
    if store[0] != "hogwild":
        with repetition(path, *store, env=env) as again:
            repeated, _ = again.advance(again.init(KEY), 11)
        assert digest(run) == digest(repeated)


def test_a_record_that_would_lack_its_beginning_is_refused(tmp_path):
    with engine("lock", 1) as made:
        made.advance(made.init(KEY), 1)
        with pytest.raises(RuntimeError, match="record before advance"):
            made.record(tmp_path / "late")


# What is left of a run, and of an engine --------------------------------------------


@pytest.mark.sample(1)
@by_store
def test_the_run_is_whole_after_the_last_push(world, store):
    world.before = raising(at(17, actor=1), SimulatorError("out of fuel"))
    with engine(*store, agent=ON_HOST, env=world.make) as working:
        start = working.init(KEY)
        with pytest.raises(SimulatorError):
            working.advance(start, 1_000)
        run, metrics = working.rescue()
        assert working.rescue() is None
    updates = int(run.progress.updates)
    assert {len(x) for x in jax.tree.leaves(metrics)} == {updates} and updates > 1
    # All shards have the same number of updates, and workers as many unrolls.
    assert int(run.learner.updates) == updates
    assert sum(int(x.unroll) for x in run.local.workers) == updates
    with engine(*store, agent=ON_HOST, env=World().make) as again:
        again.init(KEY)
        with warned("cannot be brought back"):
            again.resume(run)
        run, _ = again.advance(run, 3)
    assert int(run.progress.updates) == updates + 3


@pytest.mark.slow
def test_workers_that_are_forgotten_end(world):
    def names():
        return [x.name for x in threading.enumerate() if x.name.startswith("worker")]

    working = workers(learner_of(ON_HOST), world.make, LENGTH, config_of())
    working.advance(working.init(KEY), 2)
    assert len(names()) == 2
    del working
    gc.collect()
    assert not names() and not world.unclosed()
