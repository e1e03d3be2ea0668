"""SAC, TD3, DDPG and NAF as experiments: bad settings, resuming, actors, scores."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import envs, export, presets, random
from jaxrl_par.algorithms.actor_critic import (
    DDPGConfig,
    NAFConfig,
    SACConfig,
    TD3Config,
)
from jaxrl_par.errors import problems
from jaxrl_par.export import onnx_form
from jaxrl_par.networks import NetworkConfig, deterministic_policy, gaussian_policy
from jaxrl_par.networks.continuous import as_actor, units_of
from jaxrl_par.numpy_actor import Actor
from jaxrl_par.replay import PriorityConfig, Windows
from jaxrl_par.topologies.threads import ThreadsConfig
from jaxrl_par.training import TrainingConfig, TrainingError
from jaxrl_par.training.checkpoints import state_hash
from jaxrl_par.types import Box

pytestmark = pytest.mark.usefixtures("declared")

NAMES = ("sac", "td3", "ddpg", "naf")
SMALL = NetworkConfig(widths=(8,), activation="relu")


def usual(name, **changed):
    return presets.get(name).config(**changed)


@pytest.mark.parametrize(
    ("name", "changed", "wrong"),
    [
        ("sac", {}, None),
        ("td3", {"topology": "threads"}, None),
        (
            "sac",
            {"network": NetworkConfig(memory="gru")},
            "network.memory must be none here, got gru: they learn from single"
            " transitions, of which none has a memory",
        ),
        (
            "ddpg",
            {"network": NetworkConfig(policy="squashed")},
            "network.policy is for actor-critics that learn on policy: leave it out,"
            " got squashed",
        ),
        (
            "td3",
            {"td3": TD3Config(n_step=5)},
            "td3.n_step must be at most unroll_length = 4, got 5",
        ),
        (
            "sac",
            {"sac": SACConfig(learn_temperature=False, target_entropy=-2.0)},
            "sac.target_entropy is for learn_temperature = True, not False: leave it"
            " out, got -2.0",
        ),
        (
            "ddpg",
            {"ddpg": DDPGConfig(exploration="ladder", noise=0.3)},
            "ddpg.noise is for exploration = constant or process, not ladder: leave it"
            " out, got 0.3",
        ),
        (
            "td3",
            {"td3": TD3Config(target_rate=1e-5, target_period=1)},
            "td3.target_rate = 1e-05 makes steps that float32 loses: with target_period"
            " = 1006 they are longer, and rarer",
        ),
        (
            "naf",
            {"naf": NAFConfig(exploration="covariance", reversion=0.5)},
            "naf.reversion is for exploration = process, not covariance: leave it out,"
            " got 0.5",
        ),
        ("sac", {"sac": SACConfig(gamma=2.0)}, "sac.gamma must be in [0, 1], got 2.0"),
    ],
)
def test_bad_settings_are_told(name, changed, wrong):
    assert problems(usual(name, **changed)) == ([wrong] if wrong else [])


@pytest.mark.parametrize("name", NAMES)
def test_discrete_actions_are_refused_before_anything_is_trained(name, tmp_path):
    given = TrainingConfig(runs_dir=str(tmp_path / "runs"))
    args = usual(name, env_name="CartPole-v1", training=given)
    with pytest.raises(TrainingError, match="for Discrete ones, take dqn"):
        presets.get(name).run(args)
    assert not (tmp_path / "runs").exists()


def test_unbounded_actions_are_refused_before_anything_is_trained(tmp_path):
    def unbounded(num_envs):
        env = envs.make("Pendulum-v1", num_envs)
        return env._replace(action_spec=Box((1,)))

    experiment = presets.get("sac").on("Free", environments=unbounded)
    given = TrainingConfig(runs_dir=str(tmp_path / "runs"))
    with pytest.raises(TrainingError, match="a lower and a higher bound"):
        experiment.run(experiment.config(training=given))
    assert not (tmp_path / "runs").exists()


def test_apex_dpg_is_ddpg_on_actors():
    prioritised = replace(
        usual("ddpg").replay,
        prioritised=True,
        priorities=PriorityConfig(first="recorded"),
    )
    args = usual(
        "ddpg",
        topology="threads",
        threads=ThreadsConfig(num_actors=2, schedule="decoupled"),
        ddpg=DDPGConfig(exploration="ladder", n_step=3),
        replay=prioritised,
    )
    assert not problems(args) and args.recorded.record_priority
    assert args.windows == Windows(1, 0, 2, constant_carry=True)


@pytest.mark.slow
@pytest.mark.parametrize("make", [gaussian_policy, deterministic_policy])
def test_greedy_actors_leave_with_their_bounds(make, tmp_path):
    specs, action = {"a": Box((3,)), "b": Box((2,))}, Box((2,), low=-3.0, high=0.7)
    policy, rng = make(specs, action, SMALL), np.random.default_rng(0)
    obs = {n: rng.normal(size=(5, *x.shape)).astype("f4") for n, x in specs.items()}
    no = np.zeros(5, bool)
    step = jax.tree.map(jnp.asarray, envs.base.TimeStep(obs, no, no))
    params = policy.init(random.key(0), step)
    params = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape), params)
    params = jax.tree.map(jnp.float32, params)
    made, _ = policy.apply(params, (), step)
    unit = made.mode() if make is gaussian_policy else made
    expected = units_of(action).action(unit)
    folder = export.write(
        tmp_path / "actor",
        network=replace(SMALL, policy="squashed", shared=False),
        observation_spec=specs,
        action_spec=action,
        params=as_actor(params, 2),
    )
    in_numpy = Actor.load(folder)
    for rng in (None, np.random.default_rng(0)):  # who samples is greedy too
        found, _ = in_numpy.step(obs, no, (), rng)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    found, _, _ = export.load(folder).step(obs, no, ())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def settings(path, name="run", **changed):
    quiet = {"evaluation_episodes": 1, "evaluation_envs": 1, "tensorboard": False}
    return TrainingConfig(
        name=name,
        runs_dir=str(path),
        gif=False,
        **quiet | {"log_interval": 10} | changed,
    )


def short(algorithm, path, **changed):
    """A run that learns from its third update on, with normalised observations."""
    args = usual(
        algorithm,
        total_steps=320,
        network=SMALL,
        normalize=True,
        training=settings(path, **changed),
    )
    replay = replace(
        args.replay, capacity=256, min_size=48, batch_size=8, updates_per_step=3
    )
    own = replace(args.algorithm, warm_up=64)
    return replace(args, replay=replay, **{algorithm: own})


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_goes_on_to_the_same_bits_and_leaves_an_actor(name, tmp_path):
    """With 20 steps of 3 updates: the delay of TD3's policy goes on in its middle."""
    experiment = presets.get(name)
    whole = experiment.run(short(name, tmp_path, name="whole"))
    half = replace(short(name, tmp_path), total_steps=144)
    experiment.run(half)
    resumed = experiment.run(short(name, tmp_path, resume=True))
    assert resumed.summary.updates == whole.summary.updates == 20
    assert state_hash(resumed.run) == state_hash(whole.run)
    actor = Actor.load(whole.directory.actor)
    learner = experiment.learner(short(name, tmp_path))
    step = jax.eval_shape(envs.make("Pendulum-v1", 3).reset, random.key(0))[1]
    obs = np.random.default_rng(0).normal(size=step.obs.shape).astype("f4")
    no = np.zeros(3, bool)
    step = step._replace(obs=jnp.asarray(obs), first=no, last=no)
    params, carry = learner.params(whole.run.learner), learner.actor.initial_carry(3)
    expected, _, _ = learner.actor.greedy(params, carry, step, random.key(0))
    found, _ = actor.step(obs, no, ())
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("topology", ["delayed", "gossip", "threads", "workers"])
def test_it_trains_on_every_topology(name, topology, tmp_path):
    args = replace(short(name, tmp_path), topology=topology, normalize=False)
    args = replace(args, replay=replace(args.replay, updates_per_step=1))
    trained = presets.get(name).run(args)
    assert np.isfinite(trained.summary.evaluation["greedy_return"])
    assert all(
        np.all(np.isfinite(x)) for x in jax.tree.leaves(trained.run.learner.online)
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["sac", "td3", "naf"])
def test_the_defaults_swing_the_pendulum_up(name, seed, tmp_path):
    """Better than -180 within 30 k steps, greedily."""
    quiet = {"evaluation_envs": 64, "log_interval": 400}
    args = usual(name, seed=seed, training=settings(tmp_path, **quiet))
    assert args.total_steps == 30_000
    assert presets.get(name).run(args).summary.evaluation["greedy_return"] > -180


def test_onnx_without_its_extra_is_refused_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(onnx_form, "find_spec", lambda name: None)
    for args in (presets.get("sac").config, presets.get("naf").config):
        assert not any("jaxrl-par[onnx]" in x for x in args().problems())
        (line,) = args(onnx=True).problems()
        assert line == "onnx is not installed: pip install 'jaxrl-par[onnx]'"
    monkeypatch.undo()
    half = NetworkConfig(compute_dtype="bfloat16")
    wrong = presets.get("sac").config(onnx=True, network=half).problems()
    assert any("onnx has no compute_dtype = bfloat16" in x for x in wrong)
