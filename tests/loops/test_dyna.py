"""Learning from a model's imagination beside what was real."""

import inspect
import json
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import presets, random
from jaxrl_par.algorithms.dqn import DQNConfig, dqn
from jaxrl_par.algorithms.world_model import WorldModelConfig, world_model
from jaxrl_par.axis import Axis
from jaxrl_par.loops import ImaginationConfig, dyna, replayed
from jaxrl_par.loops.dyna import DynaBatch, DynaState, _Dyna
from jaxrl_par.networks import NetworkConfig, q_network, world_network
from jaxrl_par.replay import Windows, uniform
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, train
from jaxrl_par.training import TrainingConfig, TrainingError
from jaxrl_par.types import (
    Agent,
    Box,
    Discrete,
    Info,
    Prediction,
    TimeStep,
    Trajectory,
    WorldModel,
)

LAST = np.array([[False, False, True, False]])
REAL = Trajectory(
    TimeStep(
        jnp.arange(8.0).reshape(2, 4, 1), jnp.zeros((2, 4), bool),
        jnp.concatenate([LAST, np.zeros((1, 4), bool)]),
    ),
    jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4)), jnp.ones((1, 4)), {}, (),
)  # fmt: skip
"""Windows of one row, in states 0, 1, 2 (which ended an episode) and 3; reward 1."""


def stub(paid=5.0, doubt=0.0, believed=True, priorities=None):
    """(agent, model): a gradient is the mean reward, and imagination pays `paid`."""

    def act(params, carry, step, key):
        return jnp.zeros(step.first.shape, jnp.int32), carry, {}

    def grad(state, batch, key, axis):
        weight = batch.extras.get("weight", jnp.ones_like(batch.reward))
        return jnp.mean(weight * batch.reward), Info({}, priorities)

    def predict(state, obs, action, key):
        number = len(obs)
        pays = jnp.full(number, paid)
        return Prediction(obs + 100, pays, jnp.zeros(number), jnp.full(number, doubt))

    agent = Agent(
        lambda key, step: (), lambda number: (), act, grad,
        lambda state, grads, metrics: state, act, params=lambda state: (),
        specs=(Box((1,)), Discrete(2)),
    )  # fmt: skip
    model = WorldModel(
        lambda key, step: (),
        lambda state, batch, key, axis: (jnp.float32(0), Info({})),
        lambda state, grads, metrics: state,
        lambda state, trajectory, axis: state,
        predict,
        lambda key, number: jnp.zeros((number, 1), jnp.int32),
        lambda state: jnp.array(believed),
    )
    return agent, model


def gradient(config, **given):
    agent, model = stub(**given)
    batch = DynaBatch(REAL, REAL)
    grad = jax.jit(partial(dyna(agent, model, config).grad, axis=Axis()))
    grads, info = grad(DynaState((), ()), batch, random.key(0))
    return float(grads["agent"]), info.metrics


def test_imagination_counts_by_its_share_however_much_there_is():
    """Real rewards are 1 and imagined ones 5."""
    for branches in (1, 64):
        config = ImaginationConfig(share=0.25, branches=branches)
        found, metrics = gradient(config)
        assert found == pytest.approx(0.75 * 1.0 + 0.25 * 5.0)
        assert metrics["imagined_share"] == 0.25
    assert gradient(ImaginationConfig(share=1.0))[0] == pytest.approx(5.0)
    found, metrics = gradient(ImaginationConfig(share=0.0))
    assert found == 1.0 and "imagined_share" not in metrics


def test_a_model_that_is_not_believed_changes_nothing():
    """Nor one that predicts NaN: the gradient is the real one, bit for bit."""
    for given in ({"believed": False}, {"paid": jnp.nan}):
        found, metrics = gradient(ImaginationConfig(share=0.5, horizon=3), **given)
        assert found == 1.0 and metrics["imagined_share"] == 0.0


@pytest.mark.slow
def test_curiosity_pays_for_disagreement():
    config = ImaginationConfig(share=1.0, curiosity=-2.0)
    assert gradient(config, doubt=0.5)[0] == pytest.approx(5.0 - 2.0 * 0.5)


def imagine(config, priorities=None):
    made = _Dyna(*stub(), config)
    run = jax.jit(partial(made.imagine, DynaState((), ())))
    return run(REAL, priorities, random.key(1))


def test_branches_begin_in_real_states_that_ended_no_episode():
    found = imagine(ImaginationConfig(branches=600))
    starts, counts = np.unique(found.steps.obs[0, :, 0], return_counts=True)
    np.testing.assert_array_equal(starts, [0, 1, 3])
    assert np.all(counts > 150)
    np.testing.assert_array_equal(found.steps.obs[1], found.steps.obs[0] + 100)


def test_branches_begin_where_errors_are():
    """In proportion to the priorities, as those of three windows 1, 0 and 3."""
    config = ImaginationConfig(branches=4_000, starts="prioritised")
    found = imagine(config, jnp.array([1.0, 0.0, 9.0, 3.0]))
    share = [np.mean(found.steps.obs[0, :, 0] == x) for x in range(4)]
    np.testing.assert_allclose(share, [0.25, 0.0, 0.0, 0.75], atol=0.03)


def test_an_agent_without_priorities_cannot_begin_where_errors_are():
    with pytest.raises(ValueError, match="starts = prioritised needs an agent"):
        imagine(ImaginationConfig(starts="prioritised"))


@pytest.mark.slow
def test_a_branch_is_as_long_as_its_horizon():
    found = imagine(ImaginationConfig(branches=5, horizon=3))
    assert found.reward.shape == (3, 5)
    np.testing.assert_array_equal(found.steps.last[:, 0], [False] * 3 + [True])
    np.testing.assert_array_equal(found.discount, np.ones((3, 5)))
    assert found.steps.obs[3, 0] == found.steps.obs[0, 0] + 300


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_imagination_alone_solves_what_the_model_has_learned(share):
    """Naming a bit: the model learns from real rows what pays, DQN from it alone."""
    env = probes.observation_reward(8)
    agent = dqn(
        q_network(*env.specs, NetworkConfig(widths=(16,))),
        optax.adam(0.01),
        DQNConfig(anneal_steps=1, epsilon_final=0.2, target_period=20),
    )
    network = world_network(*env.specs, NetworkConfig(widths=(16,)))
    # The next bit is drawn, which no model can tell: half of the error stays.
    config = WorldModelConfig(num_members=3, believed_below=1.0, min_updates=300)
    model = world_model(network, optax.adam(0.01), config)
    both = dyna(agent, model, ImaginationConfig(share, branches=32))
    buffer = uniform(800, 64, Windows(1, constant_carry=True), min_size=100)
    program = compiled(replayed(both, buffer, updates_per_step=2), env, 4)
    _, metrics = train(program, 600)
    late = np.nanmean(metrics["episode_return"][-100:])
    assert late > 0.85
    if share:
        begun = np.argmax(metrics["imagined_share"] > 0)
        assert 100 < begun < 500 and np.all(metrics["model_dropped_members"] == 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.5}, r"share must be in \[0, 1\], got 1.5"),
        ({"share": -0.1}, r"share must be in \[0, 1\], got -0.1"),
        ({"branches": 0}, "branches must be at least 1, got 0"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dyna(*stub(), ImaginationConfig(**change))


def test_what_is_no_model_or_sums_its_rows_is_refused():
    agent, model = stub()
    with pytest.raises(ValueError, match="model must be a WorldModel"):
        inspect.unwrap(dyna)(agent, agent)  # without the tests' own check of types
    with pytest.raises(ValueError, match="whose loss is a mean over rows"):
        dyna(agent._replace(reduction="sum"), model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": NetworkConfig(memory="lstm")}, "network.memory must be none here"),
        ({"model_network": NetworkConfig(shared=False)}, "model_network.shared is for"),
        (
            {"dqn": DQNConfig(n_step=4)},
            "horizon must be at least dqn.n_step = 4,",
        ),
        (
            {"topology": "workers"},
            "topology must be compiled, delayed, gossip",
        ),
        ({"num_devices": 3, "num_envs": 3}, "branches must be a multiple of num_devic"),
        ({"dqn": DQNConfig(burn_in=1)}, "dqn.burn_in is for networks with memory"),
    ],
)
def test_settings_that_no_model_can_serve_are_refused(change, message):
    args = presets.get("dyna").config(**change)
    assert any(message in line for line in args.problems())


@pytest.mark.slow
def test_continuous_actions_and_observations_that_are_no_vector_are_refused():
    experiment = presets.get("dyna")
    for name, message in (
        ("Pendulum-v1", "need a single Discrete action"),
        ("DynaMaze-6x9", "a vector of real numbers"),
    ):
        with pytest.raises(TrainingError, match=message):
            experiment.learner(experiment.config(env_name=name))


@pytest.mark.slow
def test_one_real_environment_feeds_many_that_imagine(tmp_path):
    """Parallel deep Dyna-Q: an actor with one environment, and a learner on two devices
    that imagines with what it has, up to the pace."""
    experiment = presets.get("dyna")
    threads = replace(experiment.config.threads, unrolls_per_update=2)
    replay = replace(experiment.config.replay, min_size=64, updates_per_step=2)
    pace = replace(threads.pace, samples_per_insert=64.0)
    model = WorldModelConfig(num_members=2, believed_below=10.0, min_updates=4)
    args = experiment.config(
        topology="threads", num_envs=1, num_devices=2, total_steps=200, model=model,
        threads=replace(threads, pace=pace), replay=replay,
        training=TrainingConfig(
            runs_dir=str(tmp_path), log_interval=5, gif=False, tensorboard=False,
            evaluation_envs=2, evaluation_episodes=1,
        ),
    )  # fmt: skip
    trained = experiment.run(args)
    rows = trained.directory.metrics.read_text().splitlines()
    told = [json.loads(row) for row in rows]
    assert any(x.get("imagined_share") == 0.5 for x in told)
    assert all(x.get("model_dropped_members", 0) == 0 for x in told)
    progress = trained.run.progress
    # 128 rows of an update, at most 64 for each that was inserted.
    assert 0 < 128 * int(progress.updates) <= 64 * (int(progress.env_steps) + 64)
