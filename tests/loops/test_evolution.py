"""Generations: what pairs share, devices exchange, and whose return is told."""

import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import envs, random
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.es import ESConfig, es
from jaxrl_par.algorithms.normalize import Normalized, normalize_observations
from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError, problems
from jaxrl_par.loops import evolution, unroll_keys
from jaxrl_par.loops.generations import Place, members_of
from jaxrl_par.loops.reference import shown
from jaxrl_par.networks import NetworkConfig, actor_critic, policy_network
from jaxrl_par.perturbations import (
    Evolving,
    NoiseConfig,
    noise_of,
    num_evolving,
    shifted,
)
from jaxrl_par.presets.es import EXPERIMENT as ES
from jaxrl_par.presets.es import Args
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.training import TrainingConfig
from jaxrl_par.training.checkpoints import state_hash
from jaxrl_par.types import Count

NOISE = NoiseConfig(0.1)
# Far below what a parameter can tell.
NO_NOISE = NoiseConfig(1e-30)
SLOWLY_TWO = pytest.param(2, marks=pytest.mark.slow)


def cart_pole(num_envs=1):
    return envs.make("CartPole-v1", num_envs)


def agent_of(env, config=ESConfig(), memory="none"):
    shape = NetworkConfig(widths=(8,), memory=memory, memory_width=4)
    return es(policy_network(*env.specs, shape), optax.sgd(0.1), config)


def evolved(agent, env, num_members, steps=2, num_devices=None, **options):
    """The run after so many generations, and their metrics."""
    given = {"noise": NOISE, "max_steps": 50} | options
    if num_devices is None:
        program = evolution(agent, env, num_members=num_members, **given)
    else:
        share = num_members // num_devices
        program = evolution(agent, env, num_members=share, axis=Axis("data"), **given)
        program = sharded(program, data_mesh(num_devices))
    run = jax.jit(program.init)(random.key(0))
    return jax.jit(scanned(program, steps))(run)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [None, SLOWLY_TWO])
def test_members_of_a_pair_play_the_same_episodes(num_devices):
    env = cart_pole(2)
    config = ESConfig(NO_NOISE, "raw", weight_decay=0.0, policy="sampled")
    agent = normalize_observations(agent_of(env, config))
    run, metrics = evolved(agent, env, 8, 3, num_devices, noise=NO_NOISE)
    np.testing.assert_array_equal(metrics["grad_norm"], np.zeros(3))
    lengths = np.asarray(metrics["episode_length"].total)
    assert len(set(lengths)) > 1  # generations differ
    assert int(run.progress.env_steps) > 0


@pytest.mark.parametrize(
    ("exchange", "num_devices"),
    [("sums", 2)]
    + [
        pytest.param(exchange, number, marks=pytest.mark.slow)
        for exchange, number in (
            ("sums", 1),
            ("sums", 4),
            ("sums", 8),
            ("fitness", 2),
            ("fitness", 8),
        )
    ],
)
def test_devices_share_the_members_of_one_generation(exchange, num_devices):
    env = cart_pole()
    alone, _ = evolved(agent_of(env), env, 16, 20)
    config = ESConfig(exchange=exchange)
    shared, _ = evolved(agent_of(env, config), env, 16, 20, num_devices)
    assert_near(shared.learner.params, alone.learner.params, 1e-5)


@pytest.mark.slow
def test_only_sums_cost_bytes_that_grow_with_the_network():
    sizes = {
        (exchange, width): exchanged(exchange, width)
        for exchange in ("sums", "fitness")
        for width in (8, 64)
    }
    assert sizes["fitness", 8] == sizes["fitness", 64]
    parameters = (4 + 2 + 1) * (64 - 8)  # by so many the wider network has more
    assert sizes["sums", 64] - sizes["sums", 8] == parameters


def exchanged(exchange, width: int) -> int:
    """Numbers that a device gets from collectives in a generation of the program."""
    env, axis = cart_pole(), Axis("data")
    network = policy_network(*env.specs, NetworkConfig(widths=(width,)))
    agent = es(network, optax.sgd(0.1), ESConfig(exchange=exchange))
    program = evolution(agent, env, NoiseConfig(), 8, 10, axis=axis)
    program = sharded(program, data_mesh(2), axis)
    run = jax.eval_shape(program.init, random.key(0))
    text = jax.jit(program.step).lower(run).compile().as_text()
    made = re.findall(r"= (.*?) (?:all-gather|all-reduce)\(", text)
    shapes = re.findall(r"\w+\[([\d,]*)\]", " ".join(made))
    return sum(math.prod(map(int, filter(None, x.split(",")))) for x in shapes)


@pytest.mark.slow
def test_one_device_of_a_mesh_is_the_program_alone():
    env = cart_pole()
    alone, _ = evolved(agent_of(env), env, 8)
    shared, _ = evolved(agent_of(env), env, 8, num_devices=1)
    jax.tree.map(np.testing.assert_array_equal, alone.learner, shared.learner)


def test_the_parameters_own_return_is_not_that_of_members():
    # Pays -(action - observation)^2, and the policy's mean is 0 at first.
    env = probes.continuous_action(64)
    agent = agent_of(env, ESConfig(NoiseConfig(1.0)))
    run, metrics = evolved(agent, env, 32, 1, noise=NoiseConfig(1.0), max_steps=4)
    own, members = metrics["episode_return"], metrics["fitness"]
    assert own.count[0] == 64
    assert members.count[0] == 32
    assert members.total[0] / members.count[0] < own.total[0] / own.count[0] - 0.3
    assert metrics["grad_norm"][0] > 0.0  # members of a pair differ
    played = (32 + 1) * 64 * metrics["episode_length"].total[0] / 64
    assert int(run.progress.env_steps) == played


def test_members_episodes_are_cut_and_the_parameters_own_are_not():
    env = envs.make("Pendulum-v1", 1)  # 200 steps, whatever is done
    _, metrics = evolved(agent_of(env), env, 4, 3, max_steps=200, cap_factor=0.25)
    run, _ = evolved(agent_of(env), env, 4, 3, max_steps=200, cap_factor=0.25)
    assert int(run.progress.env_steps) == 4 * (200 + 50 + 13) + 3 * 200
    assert int(run.local.cap) == 4
    np.testing.assert_array_equal(metrics["episode_length"].total, [200.0] * 3)


def test_statistics_are_of_the_own_episodes_and_stand_still_within_a_generation():
    env = probes.counter(4, length=3)
    agent = normalize_observations(agent_of(env))
    run, _ = evolved(agent, env, 4, 1, max_steps=10)
    state: Normalized = run.learner
    # Three steps of each episode, and the observation at its end.
    assert float(state.statistics.count) == 4 * (3 + 1)
    np.testing.assert_allclose(state.statistics.mean, 1.5)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state.statistics))


@pytest.mark.slow
def test_many_generations_in_a_call_are_as_many_calls():
    env = cart_pole()
    agent = agent_of(env, memory="lstm")
    program = evolution(agent, env, NOISE, 4, 30, cap_factor=2.0)
    run = jax.jit(program.init)(random.key(0))
    together, _ = jax.jit(scanned(program, 3))(run)
    one = jax.jit(scanned(program, 1))
    apart = one(one(one(run)[0])[0])[0]
    jax.tree.map(np.testing.assert_array_equal, together.learner, apart.learner)


@pytest.mark.slow
def test_fitness_that_is_no_number_is_counted_and_worst():
    env = cart_pole()

    def step(state, action, key):
        state, step, reward, discount = env.step(state, action, key)
        return state, step, jnp.where(step.obs[:, 0] > 0, jnp.nan, reward), discount

    broken = env._replace(step=step)
    run, metrics = evolved(agent_of(env), broken, 16, 2)
    assert np.all(metrics["fitness_nan"] > 0)
    assert np.all(metrics["fitness"].count + metrics["fitness_nan"] == 16)
    assert int(run.progress.skipped) == 0
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(run.learner))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"num_members": 3}, "num_members must be even.* got 3, take 4"),
        ({"num_members": 0}, "num_members must be at least 1, got 0"),
        ({"noise": NoiseConfig(-1.0)}, "sigma must be above 0, got -1.0"),
        ({"noise": NoiseConfig(table_size=9)}, "noise.table_size must be at least the"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
    ],
)
def test_what_is_out_of_range_is_refused(given, told):
    env = cart_pole()
    usual = {"noise": NOISE, "num_members": 4, "max_steps": 5}
    with pytest.raises(RefusedError, match=told):
        evolution(agent_of(env), env, **(usual | given))


def test_an_agent_without_parameters_to_perturb_is_refused():
    env = cart_pole()
    agent = a2c(actor_critic(*env.specs), optax.sgd(0.1))
    with pytest.raises(RefusedError, match="params have no Evolving part"):
        evolved(agent, env, 4)


def test_odd_members_are_refused_on_the_command_line():
    for settings in (Args(num_envs=7), Args(num_envs=6, num_devices=2)):
        (line,) = settings.problems()
        assert "num_envs must be members in pairs" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "bound"),
    [
        (Args(), 475.0),
        (
            Args(
                env_name="Pendulum-v1",
                num_envs=64,
                episodes=4,
                unroll_length=200,
                cap_factor=None,
                total_steps=40_000_000,
                normalize=True,
                network=NetworkConfig(widths=(32,), activation="relu"),
                es=ESConfig(weight_decay=0.0),
            ),
            -250.0,
        ),
    ],
    ids=["CartPole", "Pendulum"],
)
def test_it_learns(settings, bound, tmp_path):
    for seed in range(3):
        training = replace(
            settings.training, runs_dir=str(tmp_path), gif=False, tensorboard=False
        )
        trained = ES.run(replace(settings, seed=seed, training=training))
        assert trained.summary.evaluation["greedy_return"] > bound


REFERENCE = ESConfig(reference_rows=24)


def test_members_are_normalised_by_their_own_parameters():
    env = cart_pole()
    network = policy_network(*env.specs, NetworkConfig(widths=(8,)))
    agent = es(network, optax.sgd(0.1), REFERENCE)

    @jax.jit
    def made(key):
        init_key, play_key, root = jax.random.split(key, 3)
        state = agent.init(init_key, env.reset(init_key)[1])
        state = shown(agent, env, state, play_key)
        place = Place(root, Count.zero(), 0, 1)
        members = members_of(agent, agent.params(state), place, NOISE, 2)
        noise_key, _ = unroll_keys(root, place.generation, 0)
        size = num_evolving(Evolving(state.params))
        noise = noise_of(NOISE, noise_key, jnp.int32(1), size)
        moved = shifted(Evolving(state.params), -NOISE.sigma * noise).params
        own = jax.tree.map(lambda x: x[1, 1], members.params.params)
        return state, moved, own, network.normalized(moved, state.reference)

    state, moved, own, expected = made(random.key(0))
    assert_near(own, expected, 1e-6)
    # What the statistics are of is not the parameters in the middle.
    layer, before = (x["params"]["torso"]["MLP_0"]["Linear_0"] for x in (own, moved))
    rows = np.asarray(state.reference) @ np.asarray(before["kernel"])
    scale = 1.0 / np.sqrt(rows.var(axis=0) + 1e-3)
    np.testing.assert_allclose(layer["kernel"], before["kernel"] * scale, rtol=1e-4)


@pytest.mark.slow
def test_the_reference_batch_is_random_play_and_stands_still():
    env = cart_pole(2)
    agent = agent_of(env, REFERENCE)
    program = evolution(agent, env, NOISE, 4, 20)
    start = jax.jit(program.init)(random.key(0))
    reference = np.asarray(start.learner.reference)
    assert reference.shape == (24, 4)
    # Lanes lie side by side; both begin near the middle, and fall in a while.
    assert np.all(np.abs(reference[:2]) <= 0.05)
    assert np.abs(reference[:, 1]).max() > 0.15
    assert len(np.unique(reference, axis=0)) == 24
    run, _ = jax.jit(scanned(program, 2))(start)
    np.testing.assert_array_equal(run.learner.reference, reference)


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["sums", "fitness"])
def test_devices_share_a_reference_batch(exchange):
    env = cart_pole()
    alone, _ = evolved(agent_of(env, REFERENCE), env, 16, 20)
    config = replace(REFERENCE, exchange=exchange)
    for number in (1, 2, 8):
        shared, _ = evolved(agent_of(env, config), env, 16, 20, number)
        theirs = shared.learner.reference
        np.testing.assert_array_equal(theirs, alone.learner.reference)
        assert_near(shared.learner.params, alone.learner.params, 1e-5)


@pytest.mark.slow
def test_a_reference_batch_is_saved_and_the_run_goes_on(tmp_path):
    settings = Args(
        num_envs=4,
        unroll_length=20,
        es=REFERENCE,
        training=TrainingConfig(
            runs_dir=str(tmp_path), name="first", log_interval=1, gif=False,
            tensorboard=False, evaluation_envs=2, evaluation_episodes=1,
        ),
    )  # fmt: skip
    per_update = settings.rows_per_update

    def state(name, updates, **more):
        training = replace(settings.training, name=name, **more)
        steps = updates * per_update
        return ES.run(replace(settings, total_steps=steps, training=training))

    whole = state("whole", 4)
    state("first", 2)
    rest = state("first", 4, resume=True)
    assert state_hash(rest.run) == state_hash(whole.run)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"memory": "lstm"}, "network.memory must be none for a reference batch"),
        ({"normalize": True}, "normalize: a reference batch does it"),
        ({"rows": 1}, "reference_rows must be 0, or 2 or more"),
        ({"rows": -1}, "reference_rows must be at least 0"),
    ],
)
def test_what_has_no_reference_batch_is_refused(settings, told):
    given = {"memory": "none", "normalize": False, "rows": 8} | settings
    args = Args(
        network=NetworkConfig(memory=given["memory"]),
        normalize=given["normalize"],
        es=ESConfig(reference_rows=given["rows"]),
    )
    assert any(told in line for line in problems(args))


def test_agents_refuse_a_reference_batch_that_they_cannot_use():
    env = cart_pole()
    with pytest.raises(RefusedError, match="for others take reference_rows = 0"):
        agent_of(env, REFERENCE, memory="gru")
    with pytest.raises(RefusedError, match="take one of the two"):
        normalize_observations(agent_of(env, REFERENCE))
