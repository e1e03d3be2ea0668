"""What surrounds the network is inside every form, with exact numbers."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from in_onnx import Program
from nearness import assert_near

from jaxrl_par import envs, export, random
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.normalize import Normalized, normalize_observations
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.numpy_actor import Actor
from jaxrl_par.statistics import Moments
from jaxrl_par.types import Box, Discrete, Masked

HAS_ONNX = find_spec("onnx") is not None
NUMBER = Box((1,))
NO = np.zeros(1, bool)


def forms(folder):
    """By name: (obs, first, carry) -> (action, parameters by name, carry)."""
    in_numpy, in_jax = Actor.load(folder), export.load(folder)

    def by_numpy(obs, first, carry):
        policy, _ = in_numpy.distribution(obs, first, carry)
        action, carry = in_numpy.step(obs, first, carry)
        return action, policy, carry

    found = {"NumPy": by_numpy, "StableHLO": in_jax.step}
    if in_numpy.config["onnx"]:
        data = (folder / "step.onnx").read_bytes()
        found["ONNX"] = Program(data, in_numpy.config).step
    return found


def written(path, config, action_spec, params, observation_spec=NUMBER, **options):
    return export.write(
        path / "actor", network=config, observation_spec=observation_spec,
        action_spec=action_spec, params=params, onnx=HAS_ONNX, **options,
    )  # fmt: skip


def heads(kernel, bias, **others):
    """Parameters of a policy that reads one number."""
    named = {"policy": kernel, "policy_bias": bias} | others
    value = {"value": jnp.zeros((1, 1)), "value_bias": jnp.zeros(1)}
    arrays = {name: jnp.array(x, jnp.float32) for name, x in named.items()}
    return {"_Heads_0": arrays | value}


def test_statistics_are_inside(tmp_path):
    """With mean 3 and variance 4, 5 is 1 to the network, and 50 the clip."""
    config = NetworkConfig(widths=())
    params = {"params": heads([[1.0]], [0.0], log_std=[0.0])}
    seen = Moments(jnp.float32(9), jnp.array([3.0]), jnp.array([4.0]))
    params = Normalized(params, seen)
    folder = written(tmp_path, config, NUMBER, params, clip=10.0)
    for step in forms(folder).values():
        for obs, expected in ((5.0, 1.0), (50.0, 10.0), (-50.0, -10.0)):
            action, policy, _ = step(np.float32([[obs]]), NO, ())
            np.testing.assert_allclose(action, [[expected]], rtol=1e-6)
            np.testing.assert_allclose(policy["mean"], [[expected]], rtol=1e-6)


def test_bounds_are_inside(tmp_path):
    """A squashed 0.5 in [-2, 6] is 4."""
    config = NetworkConfig(widths=(), policy="squashed")
    params = {"params": heads([[0.0]], [np.arctanh(0.5)], log_std=[0.0])}
    folder = written(tmp_path, config, Box((1,), low=-2.0, high=6.0), params)
    for step in forms(folder).values():
        action, _, _ = step(np.float32([[7.0]]), NO, ())
        np.testing.assert_allclose(action, [[4.0]], rtol=1e-6)


def test_gates_are_in_their_order(tmp_path):
    """One unit, c = h = 0; input, forget, cell, output before their functions are 1, 2,
    0.5, -1. ONNX's own LSTM has another order: read so, h would be -0.4453."""
    config = NetworkConfig(widths=(), memory="lstm", memory_width=1)
    # 1 is added to the forget gate.
    gates = jnp.array([1.0, 1.0, 0.5, -1.0])
    memory = {
        "input": jnp.zeros((1, 4)),
        "recurrent": jnp.zeros((1, 4)),
        "bias": gates,
    }
    params = {"params": heads([[1.0, 0.0]], [0.0, 0.0]) | {"torso_memory": memory}}
    folder = written(tmp_path, config, Discrete(2), params)
    empty = (np.zeros((1, 1), np.float32),) * 2
    for step in forms(folder).values():
        _, policy, (cell, hidden) = step(np.float32([[7.0]]), NO, empty)
        np.testing.assert_allclose(cell, [[0.3378]], atol=5e-5)
        np.testing.assert_allclose(hidden, [[0.0876]], atol=5e-5)
        np.testing.assert_allclose(policy["logits"], [[0.0876, 0.0]], atol=5e-5)


@pytest.mark.slow
def test_an_episode_is_the_same_in_every_form(tmp_path):
    """Normalised, with the last action and reward, memory and starts."""
    env = previous_action_and_reward(envs.make("CartPole-v1", 4))
    config = NetworkConfig(widths=(16,), memory="lstm", memory_width=32)
    network = actor_critic(*env.specs, config)
    agent = normalize_observations(a2c(network, optax.sgd(0.1)), clip=2.0)
    env_state, step = jax.jit(env.reset)(random.key(0))
    state = jax.jit(agent.init)(random.key(3), step)
    statistics = state.statistics._replace(
        mean=jax.tree.map(lambda x: x + 0.01, state.statistics.mean),
        variance=jax.tree.map(lambda x: 0.02 * x, state.statistics.variance),
    )
    params = agent.params(state._replace(statistics=statistics))
    folder = written(
        tmp_path, config, env.action_spec, params, env.observation_spec, clip=2.0
    )
    carry, starts, seen = agent.initial_carry(4), 0, set()
    steps = forms(folder)
    carries = dict.fromkeys(steps, Actor.load(folder).initial_carry(4))
    greedy, env_step = jax.jit(agent.greedy), jax.jit(env.step)
    for key in jax.random.split(random.key(1), 80):
        action, carry, _ = greedy(params, carry, step, key)
        first, obs = np.asarray(step.first), jax.device_get(step.obs)
        for name, act in steps.items():
            chosen, _, carries[name] = act(obs, first, carries[name])
            np.testing.assert_array_equal(chosen, action)
            assert_near(tuple(carries[name]), tuple(jax.tree.leaves(carry)))
        env_state, step, _, _ = env_step(env_state, action, key)
        starts += int(first.sum())
        seen |= set(action.tolist())
    assert starts > 8 and seen == {0, 1}


def test_parts_are_sent_by_name_and_from_their_start(tmp_path):
    """Wherever their names stand in the spec, and in which order they are asked for."""
    spec = {
        "steer": Box((1,), low=-2.0, high=6.0),
        "brake": Discrete(3, start=-1),
        "only": Discrete(1, start=2),
    }
    config = NetworkConfig(widths=(), policy="squashed")
    # By name: brake's three, only's one, steer's mean.
    kernel, bias = [[0.0] * 5], [0.0, 3.0, 1.0, 0.0, np.arctanh(0.5)]
    params = {"params": heads(kernel, bias, log_std=[0.0])}
    folder = written(tmp_path, config, spec, params)
    for step in forms(folder).values():
        action, policy, _ = step(np.float32([[7.0]]), NO, ())
        assert action["brake"].tolist() == [0] and action["only"].tolist() == [2]
        np.testing.assert_allclose(action["steer"], [[4.0]], rtol=1e-6)
        np.testing.assert_allclose(policy["parts.brake.logits"], [[0, 3, 1]])


def test_a_uniform_choice_has_the_mean_of_its_values(tmp_path):
    """Discrete(3, start=-1): 0, where 1 is that of who forgets the start."""
    params = {"params": heads([[0.0] * 3], [0.0] * 3)}
    config = NetworkConfig(widths=())
    folder = written(tmp_path, config, Discrete(3, start=-1), params)
    obs, first = np.zeros((30_000, 1), np.float32), np.zeros(30_000, bool)
    drawn, _ = Actor.load(folder).step(obs, first, (), np.random.default_rng(0))
    assert set(drawn.tolist()) == {-1, 0, 1} and abs(drawn.mean()) < 0.02


def test_what_is_not_allowed_is_never_done(tmp_path):
    """In any form, greedy or drawn, though it has the largest logit; element 0 of the
    mask is the first value, which is -1. Where nothing is allowed, anything may be."""
    spec = Masked(NUMBER, Box((3,), np.dtype(bool), 0.0, 1.0))
    params = {"params": heads([[0.0] * 3], [5.0, 1.0, 0.0])}
    config = NetworkConfig(widths=())
    action_spec = Discrete(3, start=-1)
    folder = written(tmp_path, config, action_spec, params, spec)
    allowed = np.array([[False, True, True], [True, True, True], [False] * 3])
    obs = Masked(np.zeros((3, 1), np.float32), allowed)
    first = np.zeros(3, bool)
    for step in forms(folder).values():
        action, policy, _ = step(obs, first, ())
        assert np.asarray(action).tolist()[:2] == [0, -1]
        assert np.asarray(policy["logits"])[0].tolist() == [-np.inf, 1, 0]
    actor, rng, drawn = Actor.load(folder), np.random.default_rng(0), []
    for _ in range(2000):
        drawn.append(actor.step(obs, first, (), rng)[0])
    assert set(np.array(drawn)[:, 0].tolist()) == {0, 1}
    assert set(np.array(drawn)[:, 2].tolist()) == {-1, 0, 1}
    share = np.mean(np.array(drawn)[:, 0] == 0)
    np.testing.assert_allclose(share, 1 / (1 + np.exp(-1)), atol=0.04)
