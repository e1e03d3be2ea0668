"""Updates that take the first of the actors: who is left out, and that it is told."""

import re
import threading
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
from toy_workers import ENV, KEY, LENGTH, NUM_ENVS, TOY

from jaxrl_par.bridge.actor_learner.engine import ActorLearnerEngine
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import from_pure
from jaxrl_par.loops import Run, records, remembering
from jaxrl_par.loops.learner import Remember
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_recorded, threads
from jaxrl_par.training.checkpoints import state_hash

PATIENT = SupervisionConfig(env_timeout=60.0, patience=60.0)
ROWS = LENGTH * NUM_ENVS


def config(num_actors=2, quorum=1, **options):
    given = {"schedule": "lockstep", "lag": 0, "supervision": PATIENT} | options
    return ThreadsConfig(num_actors=num_actors, quorum=quorum, **given)


class Gates:
    """Makes environments; that of actor 1 begins unroll n only when gate n is open."""

    def __init__(self, number=0):
        self.gates = [threading.Event() for _ in range(number)]

    def make(self, key):
        env = from_pure(ENV, key)
        named = re.fullmatch(r"actor 1", threading.current_thread().name)
        steps, original = iter(range(10**9)), env.step

        def step(action):
            unroll = next(steps) // LENGTH
            if named and unroll < len(self.gates):
                assert self.gates[unroll].wait(60)
            return original(action)

        env.step = step
        return env


def engine(config, make=None):
    return threads(TOY, make or Gates().make, LENGTH, config, data_mesh(1))


def hashes(run):
    both = run._replace(local=()), run._replace(local=run.local.actors)
    return [state_hash(x) for x in both]


def opened_when_given_up(bridge, gates):
    actor = list(bridge._pool)[1]
    while not actor._activity.given_up:
        time.sleep(0.001)
    gates.gates[1].set()


def until_dropped(bridge, run):
    """So many updates, one by one, until an unroll was too old."""
    for number in range(1, 10_000):
        run, _ = bridge.advance(run, 1)
        if sum(bridge.report().stale_rows):
            return run, number
    raise AssertionError("nothing was dropped")


@pytest.mark.slow
@pytest.mark.parametrize("lag", [0, 1])
def test_a_quorum_of_all_is_lockstep_bit_for_bit(lag):
    ends = []
    for quorum in (None, 3):
        with engine(config(3, quorum, lag=lag)) as bridge:
            run, _ = bridge.advance(bridge.init(KEY), 4)
        ends.append(state_hash(run))
    assert ends[0] == ends[1]


class Late(NamedTuple):
    """A run whose actor 1 ends its first unroll late, and its second one never."""

    run: Run
    updates: int
    engine: ActorLearnerEngine
    path: Path
    warned: list[str]


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    path, gates = tmp_path_factory.mktemp("late") / "schedule.jsonl", Gates(2)
    bridge = engine(config(max_lag=1), gates.make)
    bridge.record(path)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run, _ = bridge.advance(bridge.init(KEY), 3)
        # It has parameters of the start, and updates were made with newer ones.
        gates.gates[0].set()
        run, number = until_dropped(bridge, run)
        # Batches that were made before it wait.
        run, _ = bridge.advance(run, 4)
        # Only once the actor is given up: its second unroll is never whole.
        opener = threading.Thread(target=opened_when_given_up, args=(bridge, gates))
        opener.start()
        bridge.close()
        opener.join()
    told = [str(x.message) for x in warned]
    return Late(run, 3 + number + 4, bridge, path, told)


def test_who_is_too_late_is_dropped_and_counted(late):
    report = late.engine.report()
    assert report.stale_rows == [0, ROWS] and report.dropped_rows >= ROWS
    assert sum(report.lags.values()) == late.updates * ROWS and max(report.lags) <= 1
    dropped = [x for line in records.read(late.path) for x in line if x.dropped]
    assert dropped == [records.Entry(1, 0, 0, 0, dropped=1)]
    # It goes on behind what nobody learned from.
    assert int(late.run.local.actors[1].unroll) == 1


def test_who_is_never_learned_from_is_named(late):
    report, told = late.engine.report(), "nothing of actor 1 was learned from: all was"
    assert report.learned_shares[1] == 0 and report.row()["learned_share_min"] == 0
    assert [x.startswith(told) and "max_lag = 1" in x for x in late.warned] == [True]
    assert report.advice().startswith(told)
    assert any(re.search(r"quorum .* \d+%, 0% of the rows", x) for x in report.lines())


def test_a_recorded_run_is_repeated_bit_for_bit_with_what_was_dropped(late):
    given = TOY, Gates().make, LENGTH, config(max_lag=1), data_mesh(1), late.path
    with repeat_recorded(*given) as again:
        second, _ = again.advance(again.init(KEY), late.updates)
    assert hashes(late.run) == hashes(second)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:nothing of actor")
def test_a_run_goes_on_after_what_was_dropped():
    """Actor 1 does not act its unrolls once more."""
    gates, given = Gates(1), config(max_lag=0)
    with engine(given, gates.make) as bridge:
        run, _ = bridge.advance(bridge.init(KEY), 2)
        gates.gates[0].set()
        run, number = until_dropped(bridge, run)
        # Batches that were made before it wait.
        run, _ = bridge.advance(run, 4)
    assert int(run.local.actors[1].unroll) >= 1
    with engine(given) as bridge:
        bridge.init(KEY)
        bridge.resume(run)
        run, _ = bridge.advance(run, 4)
    assert int(run.progress.updates) == 2 + number + 8


IN_ORDER = remembering(
    TOY, Remember(lambda num_envs: (), lambda params, memory, trajectory: memory)
)


@pytest.mark.parametrize(
    ("given", "learner", "message"),
    [
        (config(2, 3), TOY, "quorum must be at most 2, got 3"),
        (config(2, 0), TOY, "quorum must be at least 1"),
        (config(2, 2, max_lag=1), TOY, "max_lag is for the free schedule"),
        (config(2, 1, queue_size=1), TOY, "queue_size is for the free schedule"),
        (config(2, 1, unrolls_per_update=1), TOY, "or of a quorum, got 1"),
        (config(2, 1), IN_ORDER, "quorum: this learner goes on from unroll to unroll"),
    ],
)
def test_what_does_not_fit_is_refused(given, learner, message):
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        warnings.simplefilter("error")
        threads(learner, Gates().make, LENGTH, given, data_mesh(1))


def test_a_batch_has_the_rows_of_the_quorum():
    assert config(4, 3).batch == 3 and config(4, None).batch == 4
