"""TRPO and Q-Prop as experiments: bad settings, and what they solve."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxrl_par import cli, envs, presets, random
from jaxrl_par.algorithms.actor_critic import CriticConfig
from jaxrl_par.algorithms.trust_region import QPropConfig, TRPOConfig
from jaxrl_par.errors import problems
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.topologies.population import population
from jaxrl_par.topologies.workers import WorkersConfig
from jaxrl_par.training import TrainingConfig, TrainingError
from jaxrl_par.training.checkpoints import state_hash
from jaxrl_par.types import Box

LATE = WorkersConfig(staleness=StalenessConfig("reject", max_staleness=5))


@pytest.mark.parametrize(
    ("name", "changed", "wrong"),
    [
        ("trpo", {}, None),
        ("q_prop", {}, None),
        ("trpo", {"topology": "delayed"}, None),
        (
            "trpo",
            {"topology": "workers"},
            "topology must be compiled, delayed, threads or fleet here, got workers: a"
            " step is searched over the joint batch, for the parameters that it begins"
            " at, and is none for parameters that others have moved",
        ),
        (
            "trpo",
            {"topology": "delayed", "workers": LATE},
            "workers.staleness must be rule = reject with max_staleness = 0 here: a"
            " step fits the parameters that it was searched from, and no others",
        ),
        (
            "trpo",
            {"trpo": TRPOConfig(step="natural", max_halvings=3)},
            "trpo.max_halvings is for step = searched, not natural: leave it out, got"
            " 3",
        ),
        (
            "trpo",
            {"trpo": TRPOConfig(delta=0.0)},
            "trpo.delta must be above 0, got 0.0",
        ),
        (
            "trpo",
            {"trpo": TRPOConfig(damping=-0.1)},
            "trpo.damping must be at least 0, got -0.1",
        ),
        (
            "trpo",
            {"network": NetworkConfig()},
            "network.shared must be False: a step within the bound moves the policy,"
            " and the value function's optimizer must not move it too",
        ),
        (
            "q_prop",
            {"network": NetworkConfig(shared=False, policy="squashed")},
            "network.policy must be gaussian here, got squashed: a control variate's"
            " mean is known where the mean of the actions is",
        ),
        (
            "q_prop",
            {"network": NetworkConfig(shared=False, memory="lstm")},
            "network.memory must be none here, got lstm: the critic learns from single"
            " transitions, of which none has a memory",
        ),
        (
            "q_prop",
            {"q_prop": QPropConfig(variant="one", covariance="rows")},
            "q_prop.covariance is for variant = conservative or aggressive, not one:"
            " leave it out, got rows",
        ),
        (
            "q_prop",
            {"critic": CriticConfig(n_step=200)},
            "critic.n_step must be at most unroll_length = 128, got 200",
        ),
    ],
)
def test_bad_settings_are_told(name, changed, wrong):
    assert problems(presets.get(name).config(**changed)) == ([wrong] if wrong else [])


def test_discrete_actions_are_refused_before_anything_is_trained(tmp_path):
    experiment = presets.get("q_prop")
    given = TrainingConfig(runs_dir=str(tmp_path / "runs"))
    args = experiment.config(env_name="CartPole-v1", training=given)
    with pytest.raises(TrainingError, match="for Discrete ones, take dqn"):
        experiment.run(args)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(TrainingError, match="normalize is for a single agent"):
        experiment.learner(replace(args, env_name="Pendulum-v1", normalize=True))


def test_a_critic_needs_bounds_and_a_trust_region_none(tmp_path):
    def unbounded(num_envs):
        env = envs.make("Pendulum-v1", num_envs)
        return env._replace(action_spec=Box((1,)))

    given = TrainingConfig(runs_dir=str(tmp_path / "runs"))
    experiment = presets.get("q_prop").on("Free", environments=unbounded)
    with pytest.raises(TrainingError, match="a lower and a higher bound"):
        experiment.run(experiment.config(training=given))
    assert not (tmp_path / "runs").exists()
    experiment = presets.get("trpo").on("Free", environments=unbounded)
    experiment.learner(experiment.config(training=given))


def trained(name, path, run="run", **changed):
    experiment = presets.get(name)
    training = TrainingConfig(
        name=run, runs_dir=str(path), gif=False, tensorboard=False,
        evaluation_envs=10, evaluation_episodes=10,
    )  # fmt: skip
    resume = changed.pop("resume", False)
    training = replace(training, resume=resume)
    return experiment.run(experiment.config(training=training, **changed))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trpo", "q_prop"])
def test_a_resumed_run_goes_on_to_the_same_bits(name, tmp_path):
    given = {"num_envs": 4, "unroll_length": 8}
    given |= {"network": NetworkConfig(widths=(4,), shared=False)}
    if name == "q_prop":
        replay = presets.get(name).config().replay
        replay = replace(replay, capacity=256, min_size=48, batch_size=8)
        given["replay"] = replace(replay, updates_per_step=3)
    whole = trained(name, tmp_path, "whole", total_steps=256, **given)
    trained(name, tmp_path, total_steps=128, **given)
    resumed = trained(name, tmp_path, total_steps=256, resume=True, **given)
    assert state_hash(resumed.run) == state_hash(whole.run)


PENDULUM = {
    "env_name": "Pendulum-v1",
    "normalize": True,
    "num_envs": 64,
    "total_steps": 400_000,
    "network": NetworkConfig(shared=False, activation="relu"),
    "trpo": TRPOConfig(delta=0.005, gamma=0.95, gae_lambda=0.9),
}
"""As the preset says."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "solved"), [({"total_steps": 100_000}, 475.0), (PENDULUM, -200.0)]
)
def test_tasks_are_solved_within_the_bound(changed, solved):
    """By each of three seeds, in the last tenth of the run."""
    experiment = presets.get("trpo")
    args = experiment.config(**changed)
    learner = experiment.learner(args)
    program = cli.place(args, learner)
    runs = population(lambda values: program, {"seed": np.arange(3)}).program
    number = args.total_steps // args.rows_per_update
    train = jax.jit(lambda key: scanned(runs, number)(runs.init(key))[1])
    told = train(random.key(0))
    last = slice(-(number // 10), None)
    returns = jax.tree.map(lambda x: np.sum(x[last], axis=0), told["episode_return"])
    means = returns.total / returns.count
    assert means.shape == (3,) and np.all(means > solved), means
    assert np.all(told["kl"] <= args.trpo.delta)
