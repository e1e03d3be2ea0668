"""Streams of gymnax environments against gymnax itself."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

from jaxrl_par import rollout
from jaxrl_par.envs import from_gymnax, make
from jaxrl_par.envs.catalogue import gymnax_names, own_names
from jaxrl_par.envs.gymnax import _spec
from jaxrl_par.testing import check_environment
from jaxrl_par.types import Agent, Box, Discrete

# MNISTBandit-bsuite downloads its images.
OFFLINE = [x for x in (*own_names(), *gymnax_names()) if not x.startswith("MNIST")]


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", OFFLINE)
def test_every_environment_keeps_the_contract(name):
    # Short episodes, so that some are cut; many terminate before.
    env = make(name, 4, max_steps_in_episode=25)
    check_environment(env, 60)


def stream(env, actions, key):
    """The rows (obs, first, last) [T+1] and (reward, discount) [T]; keys [T]."""
    keys = jax.random.split(key, len(actions))

    def advance(carry, inputs):
        env_state, step, reward, discount = env.step(carry[0], *inputs)
        return (env_state, step), (step, reward, discount)

    def run(key, keys):
        start = env.reset(key)
        _, (steps, *rows) = jax.lax.scan(advance, start, (actions, keys))
        steps = jax.tree.map(
            lambda x, y: jnp.concatenate([x[None], y]), start[1], steps
        )
        return steps, *rows

    return keys, *jax.tree.map(np.asarray, jax.jit(run)(key, keys))


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("name", "limit", "action"),
    [("CartPole-v1", 7, 1), ("Catch-bsuite", 5, 2), ("Pendulum-v1", 5, 0.7)],
)
def test_the_stream_is_what_gymnax_gives_by_hand(name, limit, action):
    num_envs, num_steps = 2, 16
    inner, params = gymnax.make(name)
    params = params.replace(max_steps_in_episode=limit)
    env = make(name, num_envs, max_steps_in_episode=limit)
    spec = env.action_spec
    actions = jnp.full((num_steps, num_envs, *spec.shape), action, spec.dtype)
    key = jax.random.key(5)
    keys, steps, rewards, discounts = stream(env, actions, key)

    reset, step = jax.jit(inner.reset_env), jax.jit(inner.step_env)
    for b in range(num_envs):
        obs, state = reset(jax.random.split(key, num_envs)[b], params)
        first, last = True, False
        for t in range(num_steps):
            np.testing.assert_allclose(steps.obs[t, b], obs, rtol=1e-5, atol=1e-6)
            assert steps.first[t, b] == first and steps.last[t, b] == last
            step_keys, reset_keys = jax.random.split(keys[t], (2, num_envs))
            if last:
                obs, state = reset(reset_keys[b], params)
                reward, discount, first, last = 0.0, 0.0, True, False
            else:
                obs, state, reward, terminated, _ = step(
                    step_keys[b], state, actions[t, b], params
                )
                discount, first = 1.0 - terminated, False
                last = bool(terminated | inner.is_truncated(state, params))
            assert rewards[t, b] == pytest.approx(float(reward), rel=1e-4)
            assert discounts[t, b] == discount


def test_a_time_limit_does_not_terminate():
    env = make("Pendulum-v1", 2, max_steps_in_episode=3)
    actions = jnp.zeros((8, 2, 1))
    _, steps, rewards, discounts = stream(env, actions, jax.random.key(0))
    assert env.max_episode_steps == 3
    last = np.arange(9) % 4 == 3
    np.testing.assert_array_equal(steps.last, np.stack([last, last], 1))
    np.testing.assert_array_equal(discounts[:, 0], [1, 1, 1, 0, 1, 1, 1, 0])
    assert not rewards[last[:-1]].any() and rewards[~last[:-1]].all()


def test_a_fall_terminates():
    env = make("CartPole-v1", 2)
    actions = jnp.ones((15, 2), jnp.int32)
    _, steps, _, discounts = stream(env, actions, jax.random.key(0))
    for b in range(2):
        end = int(steps.last[:, b].argmax())
        assert 0 < end < 15 and discounts[end - 1, b] == 0


def test_specs_are_those_of_gymnax():
    env = make("Pendulum-v1", 1)
    assert env.action_spec.bounded and env.action_spec.high == 2
    np.testing.assert_array_equal(env.observation_spec.high, [1, 1, 8])
    assert make("FrozenLake-misc", 1).observation_spec == Discrete(16)
    image = make("Breakout-MinAtar", 1).observation_spec
    assert isinstance(image, Box) and image.shape == (10, 10, 4)
    # Declared bounds that gymnax's own observations exceed are dropped.
    assert not make("MemoryChain-bsuite", 1).observation_spec.bounded


def test_an_environment_of_ones_own_needs_no_name():
    inner, _ = gymnax.make("CartPole-v1")
    env = from_gymnax(inner, 3)
    assert env.name == "CartPole-v1" and env.num_envs == 3
    assert env.max_episode_steps == inner.default_params.max_steps_in_episode


class Paying:
    """Pays the action that it gets, whatever it is."""

    name = "paying"

    @property
    def default_params(self):
        return gymnax.make("Pendulum-v1")[1]

    def action_space(self, params):
        return spaces.Box(jnp.array([-1.0, -jnp.inf]), 2.0, (2,))

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (1,))

    def reset_env(self, key, params):
        return jnp.zeros(1), {"time": 0}

    def step_env(self, key, state, action, params):
        state = {"time": state["time"] + 1}
        return jnp.zeros(1), state, action[0] + 10 * action[1], jnp.array(False), {}

    def is_truncated(self, state, params):
        return False


def test_actions_are_done_within_their_bounds():
    env = from_gymnax(Paying(), 3)
    action = jnp.array([[5.0, 0.0], [-5.0, -40.0], [0.5, 5.0]])
    state, _ = env.reset(jax.random.key(0))
    reward = env.step(state, action, jax.random.key(0))[2]
    np.testing.assert_allclose(reward, [2, -401, 20.5])


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["Reacher-misc", "Swimmer-misc"])
def test_gymnaxs_own_environments_do_not_get_more(name):
    env = make(name, 2)
    spec = env.action_spec
    state, _ = env.reset(jax.random.key(0))
    step = jax.jit(env.step)
    most = jnp.broadcast_to(jnp.asarray(spec.high), (2, *spec.shape))
    known, found = (
        step(state, x, jax.random.key(1)) for x in (most, jnp.full_like(most, 100.0))
    )
    jax.tree.map(np.testing.assert_array_equal, known, found)


def test_what_is_learned_from_is_what_was_sampled():
    """MountainCarContinuous punishes the square of the action that it gets."""
    env = make("MountainCarContinuous-v0", 2)
    agent = Agent(
        init=lambda key, step: (),
        initial_carry=lambda num_envs: (),
        act=lambda params, carry, step, key: (jnp.full((2, 1), 3.0), (), {}),
        greedy=lambda *args: None,
        grad=lambda *args: None,
        apply=lambda state, grads: state,
    )
    streams = rollout.start(agent, env, jax.random.key(0))
    _, trajectory, _ = rollout.unroll(agent, env, (), streams, jax.random.key(1), 3)
    assert (trajectory.action == 3).all()
    np.testing.assert_allclose(trajectory.reward, -0.1, rtol=1e-6)


def test_unknown_names_are_rejected_with_the_nearest():
    with pytest.raises(ValueError, match=r"'CartPol-v1'; did you mean 'CartPole-v1'\?"):
        make("CartPol-v1", 1)
    with pytest.raises(ValueError, match=r"did you mean 'Breakout-MinAtar'\?"):
        make("breakout-minatar", 1)
    with pytest.raises(
        ValueError,
        match=r"parameter of CartPole-v1 'gravty'; did you mean 'gravity'\?",
    ):
        make("CartPole-v1", 1, gravty=9.0)


def test_wrong_arguments_are_rejected():
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        make("CartPole-v1", 0)
    with pytest.raises(ValueError, match="type dict is not supported"):
        _spec({})
