"""Threads under the runner: what a run leaves, evaluation, signals, resumption."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrl_par import cli, random, training
from jaxrl_par.algorithms.impala import impala
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.threads import ThreadsConfig
from jaxrl_par.training.host_evaluation import host_evaluator

pytestmark = pytest.mark.usefixtures("declared")

pytest.importorskip("gymnasium")
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "impala_threads.py"


def arguments(tmp_path, **options):
    settings = training.TrainingConfig(
        runs_dir=str(tmp_path), name="run", log_interval=4, gif=False,
        evaluation_envs=2, evaluation_episodes=1,
    )  # fmt: skip
    args = cli.Args(
        topology="threads", backend="gymnasium", num_envs=4, unroll_length=8,
        # The twelfth update reaches it, with rows that end an episode and without.
        total_steps=4 * 8 * 11 + 1, threads=ThreadsConfig(schedule="lockstep"),
        network=NetworkConfig(widths=(8,), memory="lstm", memory_width=8),
        training=settings,
    )  # fmt: skip
    return replace(args, **options)


def make_agent(args, specs, optimizer):
    return impala(actor_critic(*specs, args.network), optimizer)


def run(args):
    return cli.train(args, cli.compose(args, make_agent))


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_run_leaves_its_report(tmp_path, capsys):
    trained = run(arguments(tmp_path))
    lines = rows(trained.directory.metrics)
    assert [line["updates"] for line in lines] == [4, 8, 12]
    last = lines[-1]
    assert last["actor_steps_per_second"] > 0
    assert last["lag_max"] == 1
    assert 0 <= last["learner_waiting_for_unrolls"] <= 1
    assert last["uploaded_bytes"] > 0
    assert trained.directory.parallelism.stat().st_size > 1000
    assert len(rows(trained.directory.schedule)) == 12
    printed = capsys.readouterr().out
    for word in ("actors", "uploader", "learner", "queue", "lag", "advice"):
        assert f"  {word}" in printed
    assert set(trained.summary.evaluation) == {"sampled_return", "greedy_return"}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["gymnasium", "processes"])
def test_central_inference_leaves_its_report(tmp_path, capsys, backend):
    threads = ThreadsConfig(num_actors=2, inference="central")
    args = arguments(tmp_path, threads=threads, backend=backend)
    last = rows(run(args).directory.metrics)[-1]
    assert 1 <= last["inference_batch"] <= 2 and last["inference_wait_ms"] > 0
    assert "  batches     " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("inference", ["local", "central"])
def test_a_free_run_is_repeated_from_its_folder(tmp_path, inference):
    threads = ThreadsConfig(num_actors=2, inference=inference)
    args = arguments(tmp_path, threads=threads)
    first = run(args)
    settings = replace(args.training, name="again")
    again = run(replace(args, repeat=str(first.directory.schedule), training=settings))
    jax.tree.map(np.testing.assert_array_equal, first.run.learner, again.run.learner)


def test_evaluation_counts_equally_many_episodes_of_each_environment():
    """Pole balancing with random actions: returns are lengths, and never cut."""
    args = cli.Args(topology="threads", backend="gymnasium")
    env = args.make_host_env(random.key(0), 3)
    network = actor_critic(*env.specs)
    agent = impala(network, make_optimizer(OptimizerConfig(anneal=False)))
    step = env.reset()
    state = jax.jit(agent.init)(random.key(1), step)
    env.close()
    returns = []
    for _ in range(2):
        env = args.make_host_env(random.key(0), 3)
        evaluate = host_evaluator(agent, 4)
        returns.append(evaluate(env, state.params, random.key(2)).returns)
        env.close()
    assert returns[0].shape == (4, 3)
    assert np.all(returns[0] >= 8) and len(np.unique(returns[0])) > 3
    np.testing.assert_array_equal(*returns)
    with pytest.raises(ValueError, match="at least 1"):
        host_evaluator(agent, 0)


def script(tmp_path, *options, **popen):
    command = [
        sys.executable, str(SCRIPT), "--env-name", "CartPole-v1", "--backend",
        "gymnasium", "--runs-dir", str(tmp_path), "--name", "run",
        "--num-envs", "4", "--unroll-length", "8",
        "--num-epochs", "1", "--num-minibatches", "1", "--threads.num-actors", "2",
        "--network.widths", "8", "--log-interval", "5", "--total-steps", "32000",
        "--evaluation-envs", "1", "--evaluation-episodes", "1", *options,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **popen,
    )  # fmt: skip


def finished(process):
    out, err = process.communicate(timeout=200)
    return process.returncode, out + err


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("schedule", ["lockstep", "free"])
def test_sigterm_drains_and_saves_and_the_run_goes_on(tmp_path, schedule):
    """In lockstep to the same bits; a free run loses no update."""
    options = ["--threads.schedule", schedule]
    process = script(tmp_path / "stopped", *options)
    metrics = tmp_path / "stopped" / "run" / "metrics.jsonl"
    while not metrics.exists() or not metrics.read_text().count("\n"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, output = finished(process)
    assert code == 75, output
    stopped = rows(metrics)[-1]["updates"]
    assert f"stopped at update {stopped}" in output.replace(",", "")
    if schedule == "free":
        assert "rows were acted and not yet learned from" in output
    code, output = finished(script(tmp_path / "stopped", *options, "--resume"))
    assert code == 0, output
    assert f"resuming at update {stopped}" in output.replace(",", "")
    folder = tmp_path / "stopped" / "run"
    summary = json.loads((folder / "summary.json").read_text())
    assert 32_000 <= summary["env_steps"] < 32_000 + 4 * 8
    assert len(rows(folder / "schedule.jsonl")) == summary["updates"]
    if schedule == "lockstep":
        code, output = finished(script(tmp_path / "whole", *options))
        assert code == 0, output
        whole = json.loads((tmp_path / "whole/run/summary.json").read_text())
        assert summary["state_sha256"] == whole["state_sha256"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)]
)
def test_a_signal_to_a_whole_group_saves(tmp_path, number, code):
    """R2: what schedulers and terminals do; simulators are in processes."""
    process = script(tmp_path, "--backend", "processes", start_new_session=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.exists() or not metrics.read_text().count("\n"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, number)
    returned, output = finished(process)
    assert returned == code, output
    stopped = rows(metrics)[-1]["updates"]
    assert f"stopped at update {stopped}" in output.replace(",", "")
    assert (tmp_path / "run" / "checkpoints" / str(stopped)).is_dir()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_evaluation_that_would_not_end_is_cut_and_told(tmp_path):
    """S13: nobody who walks at random comes to the end of CliffWalking in 5 steps."""
    settings = replace(
        arguments(tmp_path).training, evaluation_interval=4, evaluation_max_steps=5
    )
    args = arguments(tmp_path, env_name="CliffWalking-v1", training=settings)
    trained = run(args)
    told = rows(trained.directory.metrics)[0]
    assert told["sampled_cut"] == told["greedy_cut"] == 2
    assert trained.summary.evaluation["greedy_cut"] == 2
    assert -500 <= told["sampled_return"] <= -5
