"""The wrapper of simulators shows what that of pure environments shows."""

from functools import partial

import gymnasium
import jax
import numpy as np
from gymnasium import spaces
from host_checks import check, check_step, random_actions
from toy_simulators import Counter

from jaxrl_par.envs import make, wrappers
from jaxrl_par.envs.host import from_callable, from_pure
from jaxrl_par.envs.host.unrolls import UnrollBuffer
from jaxrl_par.envs.host.wrappers import previous_action_and_reward


def test_previous_action_and_reward_are_those_of_the_row_before():
    env = previous_action_and_reward(from_callable(partial(Counter, 3), 2, 0))
    steps, actions, reward, _ = check(env, 20)
    shown = ~steps.first[1:]
    np.testing.assert_array_equal(steps.obs.action[1:], np.where(shown, actions, 0))
    np.testing.assert_array_equal(steps.obs.reward[1:], reward)
    assert not steps.obs.action[0].any() and not steps.obs.reward[0].any()
    assert steps.obs.action.dtype == np.int32


def test_actions_with_axes():
    class Vector(Counter):
        action_space = spaces.Box(-1, 1, (2,), np.float32)

        def step(self, action):
            return super().step(0)

    env = previous_action_and_reward(from_callable(Vector, 3, 0))
    steps, actions, *_ = check(env, 10)
    shown = ~steps.first[1:, :, None]
    np.testing.assert_array_equal(steps.obs.action[1:], np.where(shown, actions, 0))


def test_actions_outside_their_bounds_are_shown_and_not_refused():
    class Vector(Counter):
        action_space = spaces.Box(-1, 1, (2,), np.float64)

        def step(self, action):
            assert self.action_space.contains(action)
            return super().step(0)

    env = previous_action_and_reward(from_callable(Vector, 2, 0))
    rows = UnrollBuffer(env.observation_spec, env.action_spec, 3, 2)
    rows.write_step(0, env.reset())
    for t in range(3):
        action = np.full((2, 2), t - 4, np.float32)
        step, paid, discount = env.step(rows.write_action(t, action))
        rows.write_step(t + 1, step)
        rows.write_reward(t, paid, discount)
    rows.check()
    np.testing.assert_array_equal(rows.steps().obs.action[1:], rows.action)


def test_it_shows_what_the_pure_wrapper_shows():
    pure = make("CartPole-v1", 2)
    keys = jax.random.split(jax.random.key(1), 40)
    inside = from_pure(wrappers.previous_action_and_reward(pure), jax.random.key(0))
    outside = previous_action_and_reward(from_pure(pure, jax.random.key(0)))
    rng = np.random.default_rng(0)
    jax.tree.map(np.testing.assert_array_equal, inside.reset(), outside.reset())
    for env in (inside, outside):
        env.plan(keys)
    for _ in keys:
        action = random_actions(inside, rng)
        rows = inside.step(action), outside.step(action)
        jax.tree.map(np.testing.assert_array_equal, *rows)
    assert str(inside.observation_spec) == str(outside.observation_spec)


def test_it_comes_back_with_what_it_showed():
    def new():
        simulators = from_callable(lambda: gymnasium.make("CartPole-v1"), 3, 5)
        return previous_action_and_reward(simulators)

    env, rng = new(), np.random.default_rng(0)
    env.reset()
    for _ in range(15):
        step = env.step(random_actions(env, rng))[0]
    snapshot, shown = jax.tree.map(np.copy, (env.snapshot(), step))
    assert shown.obs.reward.any()
    other = new()
    jax.tree.map(np.testing.assert_array_equal, other.restore(snapshot), shown)
    for _ in range(30):
        action = random_actions(env, rng)
        found, known = other.step(action), env.step(action)
        check_step(env, found[0])
        jax.tree.map(np.testing.assert_array_equal, found, known)
    env.reset()
    assert not env.snapshot().reward.any()


def test_what_the_simulators_cannot_it_cannot():
    closed = []

    class Closing(Counter):
        def close(self):
            closed.append(self)

    inner = from_callable(Closing, 2, 0, name="sim")
    env = previous_action_and_reward(inner)
    assert env.snapshot() is None
    assert (env.name, env.num_envs, env.max_episode_steps) == ("sim", 2, None)
    env.close()
    assert len(closed) == 2
