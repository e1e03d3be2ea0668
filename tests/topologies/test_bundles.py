"""Bundles of actor, replay and learner: DQN where there is one of them; what is refused
is the same in threads, as data, and when it is repeated."""

from contextlib import closing
from functools import cache

import jax
import numpy as np
import pytest
from nearness import assert_near
from scripted import supervised

from jaxrl_par import loops, random
from jaxrl_par.algorithms.dqn import DQNConfig, dqn
from jaxrl_par.loops import schedules
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.loops.outliers import OutlierConfig
from jaxrl_par.networks import NetworkConfig, q_network
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.replay import Windows, prioritised, uniform
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.topologies.workers import WorkersConfig, repeat_recorded, workers
from jaxrl_par.training.checkpoints import state_hash

KEY = random.key(2)
NUM_ENVS, LENGTH, TURNS = 2, 4, 12
ENV = probes.clock(NUM_ENVS)
# Losses vary little here: half a deviation is enough to refuse some.
REJECT = OutlierConfig("reject", num_deviations=0.5, warm_up=2)
WINDOWS = Windows(1, constant_carry=True)
STORES = [("lock", 1), ("hogwild", 1), ("server", 3)]


@cache
def learner(min_size=3, by_priority=True):
    """DQN by AdaGrad from a replay of 6 unrolls."""
    network = q_network(*ENV.specs, NetworkConfig(widths=(4,)))
    optimizer = make_optimizer(OptimizerConfig("adagrad", 0.1), total_env_steps=200)
    buffer = prioritised if by_priority else uniform
    agent = dqn(network, optimizer, DQNConfig(target_period=2, anneal_steps=40))
    return loops.replayed(agent, buffer(6, 4, WINDOWS, min_size=min_size))


def config_of(store, num_workers=1, num_shards=1, outliers=REJECT, **options):
    return WorkersConfig(
        num_workers, store, num_shards, outliers=outliers, **options,
        **supervised({"env_timeout": 60.0, "patience": 60.0}),
    )  # fmt: skip


def in_threads(config, num_updates=TURNS, record=None):
    """(run, metrics, report) of threads."""
    with closing(workers(learner(), ENV, LENGTH, config)) as engine:
        if record:
            engine.record(record)
        run, metrics = engine.advance(engine.init(KEY), num_updates)
        return run, metrics, engine.report()


def stepped(program, num_turns=TURNS):
    """(run, metrics [num_turns]) of a program, turn by turn."""
    run, step, rows = jax.jit(program.init)(KEY), jax.jit(program.step), []
    for _ in range(num_turns):
        run, row = step(run)
        rows.append(row)
    return run, jax.tree.map(lambda *x: np.stack(x), *rows)


def as_data(schedule, num_workers, given=None, **options):
    given = given or learner()
    return delayed(given, ENV, LENGTH, schedule, num_workers=num_workers, **options)


@cache
def one_bundle(rule="reject"):
    """As data, without delay."""
    outliers = REJECT if rule == "reject" else OutlierConfig()
    return stepped(as_data(schedules.in_turn(1, TURNS), 1, outliers=outliers))


def learned(run):
    """Of all but what bundles keep for themselves."""
    return state_hash(jax.device_put(run._replace(local=())))


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
def test_one_bundle_that_refuses_nothing_is_dqn(store):
    """Bit for bit with a whole optimizer; parts may round otherwise."""
    expected, measured = stepped(compiled(learner(), ENV, LENGTH))
    name, num_shards = store
    config = config_of(name, num_shards=num_shards, outliers=OutlierConfig())
    run, metrics, _ = in_threads(config)
    late, _ = one_bundle("accept")
    assert learned(late) == learned(expected)
    if num_shards == 1:
        assert learned(run) == learned(expected)
    else:
        assert_near(run.learner, expected.learner, 1e-4)
    assert int(run.progress.env_steps) == int(expected.progress.env_steps)
    # Before the replay is ready nothing is applied, whoever says so.
    assert metrics["rejected"].tolist() == [1.0] + [0.0] * (TURNS - 1)
    assert np.all(np.isfinite(measured["value_loss"].total))


@pytest.mark.slow
def test_one_bundle_refuses_the_same_in_threads_and_as_data():
    expected, measured = one_bundle()
    run, metrics, report = in_threads(config_of("lock"))
    assert learned(run) == learned(expected)
    for name in ("outlying", "rejected", "skipped", "stale"):
        np.testing.assert_array_equal(metrics[name], measured[name])
    number = int(metrics["outlying"].sum())
    assert 0 < number < TURNS - 3
    assert report.refused["outlying"] == number
    assert report.refused["rejected"] == number + 1 and not report.refused["stale"]
    (own,) = run.local.workers
    theirs = jax.tree.map(lambda x: x[0], expected.local.losses)
    np.testing.assert_array_equal(own.data.losses, theirs)
    assert own.data.losses.count == TURNS - 1


@pytest.mark.slow
@pytest.mark.parametrize("store", [("lock", 3, 1), ("server", 3, 3)])
def test_a_recorded_run_of_bundles_is_repeated_bit_for_bit(store, tmp_path):
    """Replays, priorities, statistics of losses, and what was refused for either."""
    path = tmp_path / "schedule.jsonl"
    bound = StalenessConfig("reject", 1)
    config = config_of(*store, staleness=bound)
    run, metrics, _ = in_threads(config, 40, path)
    again = repeat_recorded(learner(), ENV, LENGTH, config, path)
    with closing(again):
        repeated, same = again.advance(again.init(KEY), 40)
    assert state_hash(jax.device_put(run)) == state_hash(jax.device_put(repeated))
    jax.tree.map(np.testing.assert_array_equal, metrics, same)
    assert metrics["outlying"].sum() > 0


@pytest.mark.slow
def test_a_run_of_bundles_resumes_to_the_same_bits():
    """Just before a loss that is refused because of those that were saved."""
    config, first = config_of("lock"), 3
    whole, metrics, _ = in_threads(config)
    saved, _, _ = in_threads(config, first)
    with closing(workers(learner(), ENV, LENGTH, config)) as engine:
        engine.init(KEY)
        engine.resume(saved)
        run, rest = engine.advance(saved, TURNS - first)
    assert state_hash(jax.device_put(run)) == state_hash(jax.device_put(whole))
    np.testing.assert_array_equal(rest["outlying"], metrics["outlying"][first:])
    assert rest["outlying"][0] == 1


def heavy_tailed(storage="ring"):
    """(run, how often each of three bundles had a turn)"""
    schedule = schedules.simulated(schedules.heavy_tailed(TURNS, 3, 0, 1.2))
    program = as_data(schedule, 3, outliers=REJECT, storage=storage)
    return stepped(program)[0], np.bincount(schedule.worker, minlength=3)


def test_statistics_are_of_a_bundles_own_losses():
    run, turns = heavy_tailed()
    # The first gradient of each comes before its replay is ready.
    np.testing.assert_array_equal(run.local.losses.count, turns - 1)
    assert turns.min() > 1 and len(set(run.local.losses.mean.tolist())) == 3


@pytest.mark.slow
def test_bundles_with_copies_and_with_a_ring_refuse_the_same():
    assert learned(heavy_tailed()[0]) == learned(heavy_tailed("copies")[0])


# One replay for all ---------------------------------------------------------------


@pytest.mark.slow
def test_one_bundle_finds_the_same_in_a_replay_that_is_shared():
    shared = as_data(schedules.in_turn(1, TURNS), 1, share_data=True, outliers=REJECT)
    run, _ = stepped(shared)
    assert learned(run) == learned(one_bundle()[0])


@pytest.mark.slow
def test_a_shared_replay_has_what_all_have_acted_in_the_order_of_turns():
    """Nothing is learned here, so that they act the same with replays of their own."""
    schedule = schedules.Schedule(np.array([0, 1, 1], np.int32), np.zeros(3, np.int32))
    never = learner(min_size=6, by_priority=False)
    shared, metrics = stepped(as_data(schedule, 2, never, share_data=True), 3)
    local, _ = stepped(as_data(schedule, 2, never), 3)
    assert int(shared.local.data.size) == 6 and local.local.data.size.tolist() == [2, 4]
    for ours, theirs in zip(
        jax.tree.leaves(shared.local.data.items),
        jax.tree.leaves(local.local.data.items),
        strict=True,
    ):
        np.testing.assert_array_equal(ours[:2], theirs[0, :2])
        np.testing.assert_array_equal(ours[2:6], theirs[1, :4])
    # It is ready as soon as all together have filled it.
    assert metrics["rejected"].tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("settings", [{"outliers": OutlierConfig("reject", -1.0)}])
def test_wrong_settings_are_refused_before_anything_starts(settings):
    message = "num_deviations must be above 0, got -1.0"
    with pytest.raises(ValueError, match=message):
        workers(learner(), ENV, LENGTH, WorkersConfig(1, **settings))
    with pytest.raises(ValueError, match=message):
        as_data(schedules.in_turn(1, 1), 1, **settings)
