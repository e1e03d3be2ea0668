"""Updates that take the first of the actors: who is left out, and that it is told."""

import re
import threading
import warnings

import pytest
from toy_workers import ENV, KEY, LENGTH, NUM_ENVS, TOY

from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import from_pure
from jaxrl_par.loops import records, remembering
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


def until_dropped(bridge, run):
    """So many updates, one by one, until an unroll was too old."""
    for number in range(1, 10_000):
        run, _ = bridge.advance(run, 1)
        if sum(bridge.report().stale_rows):
            return run, number
    raise AssertionError("nothing was dropped")


@pytest.mark.sample(1)
@pytest.mark.parametrize("lag", [0, 1])
def test_a_quorum_of_all_is_lockstep_bit_for_bit(lag):
    ends = []
    for quorum in (None, 3):
        with engine(config(3, quorum, lag=lag)) as bridge:
            run, _ = bridge.advance(bridge.init(KEY), 4)
        ends.append(state_hash(run))
    assert ends[0] == ends[1]


def test_who_is_too_late_is_dropped_counted_and_repeated_bit_for_bit(tmp_path):
    path, given, gates = tmp_path / "schedule.jsonl", config(max_lag=1), Gates(1)
    bridge = engine(given, gates.make)
    with bridge:
        bridge.record(path)
        run, _ = bridge.advance(bridge.init(KEY), 3)
        gates.gates[0].set()
        # Parameters of the start, and updates have been made with newer ones.
        run, number = until_dropped(bridge, run)
        run, _ = bridge.advance(run, 5)
    report = bridge.report()
    assert report.stale_rows[1] >= ROWS and report.dropped_rows >= ROWS
    assert report.learned_shares[0] > 0 and max(report.lags) <= 1
    assert sum(report.lags.values()) == (3 + number + 5) * ROWS
    lines = records.read(path)
    dropped = [x for line in lines for x in line if x.dropped]
    assert dropped[0][:2] == (1, 0) and dropped[0].version == 0
    with repeat_recorded(TOY, Gates().make, LENGTH, given, data_mesh(1), path) as again:
        second, _ = again.advance(again.init(KEY), len(lines))
    # Also where actors are, those that acted for nothing among them.
    assert hashes(run) == hashes(second)


def test_who_is_never_learned_from_is_named():
    gates = Gates(2)
    bridge = engine(config(max_lag=0), gates.make)
    run, _ = bridge.advance(bridge.init(KEY), 2)
    gates.gates[0].set()
    until_dropped(bridge, run)
    gates.gates[1].set()
    with pytest.warns(UserWarning, match="nothing of actor 1 .* max_lag = 0 updates"):
        bridge.close()
    report = bridge.report()
    assert report.learned_shares[1] == 0 and report.row()["learned_share_min"] == 0
    assert "max_lag = 0" in report.advice()
    assert any(re.search(r"quorum .* \d+%, 0% of the rows", x) for x in report.lines())


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
    TOY, Remember(lambda num_envs: (), lambda params, memory, steps: memory)
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
