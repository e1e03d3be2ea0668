"""Asynchronous experiments under the runner: what runs leave, and going on."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxrl_par import cli, random, training
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.loops.records import RecordError
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.topologies.delayed import DelaysConfig
from jaxrl_par.topologies.workers import WorkersConfig

pytestmark = pytest.mark.usefixtures("declared")

UPDATE = 2 * 4
"""Rows of a gradient."""


def arguments(tmp_path, name="run", num_updates=2, **options):
    settings = training.TrainingConfig(
        runs_dir=str(tmp_path), name=name, log_interval=2, gif=False,
        tensorboard=False, evaluation_envs=2, evaluation_episodes=1,
    )  # fmt: skip
    args = cli.Args(
        topology="workers", num_envs=4, unroll_length=4,
        # The last update reaches it, with rows that end an episode and without.
        total_steps=(num_updates - 1) * UPDATE + 1,
        workers=WorkersConfig(num_workers=2), network=NetworkConfig(widths=(8,)),
        optimizer=OptimizerConfig(anneal=False), training=settings,
    )  # fmt: skip
    return replace(args, **options)


def make_agent(args, specs, optimizer):
    return a2c(actor_critic(*specs, args.network), optimizer)


def run(args):
    return cli.train(args, cli.compose(args, make_agent))


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_in_python_too_a_config_is_refused_before_anything_is_made(tmp_path):
    """By the sentences of the command line."""
    args = arguments(tmp_path)
    learner = cli.compose(args, make_agent)
    with pytest.raises(training.TrainingError, match=r"num_envs must be a multiple of"):
        cli.train(replace(args, num_envs=33), learner)
    settings = replace(args.training, log_interval=0)
    wrong = "log_interval must be at least 1, got 0"
    with pytest.raises(training.TrainingError, match=wrong):
        cli.train(replace(args, training=settings), learner)
    placed, key = cli.place(args, learner), random.key(0)
    with pytest.raises(ValueError, match=wrong):
        training.train(placed, args, settings, key=key, num_updates=1)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("store", ["lock", "hogwild", "server"])
def test_workers_leave_their_report(tmp_path, store):
    workers = WorkersConfig(num_workers=2, store=store)
    trained = run(arguments(tmp_path, workers=workers))
    (last,) = rows(trained.directory.metrics)
    assert last["updates"] == 2 and last["env_steps"] > 0
    assert last["worker_steps_per_second"] > 0 and last["lag_max"] >= 0
    assert trained.directory.parallelism.stat().st_size > 1000
    assert len(rows(trained.directory.schedule)) == 2
    assert set(trained.summary.evaluation) == {"sampled_return", "greedy_return"}


@pytest.mark.slow
def test_workers_step_simulators(tmp_path, capsys):
    """A name that gymnax knows too is a simulator's where a backend is given."""
    pytest.importorskip("gymnasium")
    args = arguments(tmp_path, backend="gymnasium", show_previous=True)
    trained = run(args)
    assert trained.summary.updates == 2
    assert set(trained.summary.evaluation) == {"sampled_return", "greedy_return"}
    assert "worker" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "delays",
    [DelaysConfig("constant", 1), DelaysConfig("random")],
    ids=["constant", "random"],
)
def test_delays_train(tmp_path, delays):
    args = arguments(tmp_path, topology="delayed", delays=delays)
    trained = run(args)
    assert trained.summary.updates == 2
    assert not trained.directory.parallelism.exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["workers", "simulators", "delayed"])
def test_a_run_goes_on(tmp_path, kind):
    """With the updates that the first part had left."""
    topology = "delayed" if kind == "delayed" else "workers"
    args = arguments(tmp_path, num_updates=4, topology=topology)
    if kind == "simulators":
        pytest.importorskip("gymnasium")
        args = replace(args, backend="gymnasium")
    placed = cli.place(args, cli.compose(args, make_agent))
    start = random.key(args.seed)
    training.train(placed, args, args.training, key=start, num_updates=2)
    resumed = replace(args, training=replace(args.training, resume=True))
    trained = run(resumed)
    assert [x["updates"] for x in rows(trained.directory.metrics)] == [2, 4]
    if topology == "workers":
        assert len(rows(trained.directory.schedule)) == 4


@pytest.mark.slow
def test_a_run_with_a_lock_is_repeated_from_its_folder(tmp_path):
    args = arguments(tmp_path, num_updates=6)
    first = run(args)
    schedule = str(first.directory.schedule)
    again = run(
        replace(args, repeat=schedule, training=replace(args.training, name="again"))
    )
    assert first.summary.state_sha256 == again.summary.state_sha256
    with pytest.raises(training.TrainingError, match=r"repeat: there is no recorded"):
        run(replace(args, repeat=str(tmp_path / "nowhere")))


@pytest.mark.slow
def test_delays_follow_a_record_of_workers(tmp_path):
    """The program computes what threads did, but for the rounding of its compiler."""
    first = run(arguments(tmp_path, num_updates=6))
    record = str(first.directory.schedule)
    delays = DelaysConfig(model="recorded", record=record)
    args = arguments(tmp_path, "again", 6, topology="delayed", delays=delays)
    again = run(args)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        first.run.learner.params, again.run.learner.params,
    )  # fmt: skip
    with pytest.raises(RecordError, match="of 2 workers, asked for 3"):
        delays.schedule(3, 6, seed=0)
    (tmp_path / "shards").write_text("[[0, 0, 0, [0, 0]]]\n")
    with pytest.raises(RecordError, match="parameters in several shards"):
        replace(delays, record=str(tmp_path / "shards")).schedule(1, 1, seed=0)
    delays = replace(delays, record=str(tmp_path / "nowhere"))
    with pytest.raises(training.TrainingError, match=r"delays\.record: there is no"):
        run(replace(args, delays=delays))


def test_schedules_are_as_the_config_says():
    def delays(num_turns=100, **options):
        return DelaysConfig(**options).schedule(4, num_turns, seed=1).delay

    assert not np.any(delays(model="none"))
    np.testing.assert_array_equal(delays(8, model="constant", delay=3)[3:], 3)
    assert delays(model="per_worker", slowest=1.0).max() == 3
    assert delays(model="per_worker", slowest=20.0).max() > 10
    assert delays(model="heavy_tailed", tail=1.1).max() > delays(model="random").max()
    np.testing.assert_array_equal(delays(model="random"), delays(model="random"))


def test_delays_that_make_no_sense_are_refused():
    def problems(**options):
        return "\n".join(DelaysConfig(**options).problems())

    assert not problems()
    assert "delay must be at least 0" in problems(delay=-1)
    assert "delay is for model = constant, not random" in problems(delay=9)
    assert "slowest is for model = per_worker, not none" in problems(
        model="none", slowest=2.0
    )
    assert "tail is for model = heavy_tailed, not random" in problems(tail=3.0)
    assert not problems(model="heavy_tailed", tail=3.0)
    assert "slowest must be at least 1" in problems(slowest=0.5)
    assert "tail must be above 1" in problems(tail=1.0)
    assert "record must be a schedule.jsonl" in problems(model="recorded")
    assert "record is for model = recorded" in problems(record="x")
    assert "none needs ring" in problems(model="none", storage="copies")
    with pytest.raises(ValueError, match="tail must be above 1"):
        DelaysConfig(tail=0.0).schedule(1, 1, seed=0)
