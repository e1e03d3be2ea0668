"""What wrappers show and pay, on environments whose rows are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.axis import Axis
from jaxrl_par.envs import make, wrappers
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import check_environment, probes
from jaxrl_par.types import Box, Discrete

T, B = 11, 4
# Different in each environment, as counter's rewards are not without actions.
ACTIONS = jax.random.randint(jax.random.key(1), (T, B), 0, 4)


def run(env, actions=ACTIONS, key=None):
    """(steps [T+1], rewards, episodes [T]) under the actions."""

    def advance(carry, action):
        env_state, step, reward, _ = env.step(carry[0], action, jax.random.key(0))
        return (env_state, step), (step, reward, env.episode(env_state))

    start = env.reset(jax.random.key(0) if key is None else key)
    _, (steps, *rows) = jax.lax.scan(advance, start, actions)
    steps = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), start[1], steps)
    return steps, *rows


def rows(env):
    return jax.tree.map(np.asarray, jax.jit(lambda: run(env))())


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: wrappers.scale_rewards(env, 0.5),
        lambda env: wrappers.clip_rewards(env, -2.0, 2.0),
        lambda env: wrappers.normalize_rewards(env, 0.9),
        lambda env: wrappers.previous_action_and_reward(env),
        lambda env: wrappers.select_observation(env, (1,)),
        lambda env: wrappers.previous_action_and_reward(
            wrappers.normalize_rewards(env, 0.9)
        ),
    ],
)
def test_wrapped_environments_keep_the_contract_and_their_statistics(wrap):
    env = probes.counter(B)
    check_environment(wrap(env), 20, rewards_changed=True)
    plain, wrapped = rows(env), rows(wrap(env))
    jax.tree.map(np.testing.assert_array_equal, wrapped[2], plain[2])
    np.testing.assert_array_equal(wrapped[0].last, plain[0].last)


def test_statistics_are_those_of_the_episode():
    env = wrappers.episode_statistics(
        probes.counter(B, length=3)._replace(episode=None)
    )
    _, rewards, episodes = rows(env)
    np.testing.assert_array_equal(
        episodes.length[:, 0], [1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]
    )
    np.testing.assert_allclose(episodes.return_[2], rewards[:3].sum(0))
    np.testing.assert_allclose(episodes.return_[6], rewards[4:7].sum(0))
    assert not episodes.return_[3].any()


def test_previous_action_and_reward_are_those_of_the_row_before():
    env = wrappers.previous_action_and_reward(probes.counter(B, length=3))
    steps, rewards, _ = rows(env)
    first = steps.first
    assert first[0].all() and first[4].all()
    for shown, done in ((steps.obs.action, ACTIONS), (steps.obs.reward, rewards)):
        assert not shown[first].any()
        expected = np.where(first[1:], 0, done)
        np.testing.assert_array_equal(shown[1:], expected)
    np.testing.assert_array_equal(steps.obs.obs, rows(probes.counter(B))[0].obs)


def test_clipped_actions_are_the_nearest_within_bounds():
    env = wrappers.clip_actions(probes.continuous_action(3))
    state, step = env.reset(jax.random.key(0))
    action = jnp.array([[7.0], [-7.0], [0.5]])
    reward = env.step(state, action, jax.random.key(0))[2]
    done = np.array([1, -1, 0.5])
    np.testing.assert_allclose(reward, -np.square(done - step.obs[:, 0]), rtol=1e-5)
    choices = probes.counter(1)
    assert wrappers.clip_actions(choices) is choices  # which pay nothing


def test_what_is_shown_of_an_action_is_what_was_chosen_and_has_no_bounds():
    env = wrappers.previous_action_and_reward(make("Pendulum-v1", 2))
    assert not np.isfinite(env.observation_spec.action.low)
    state, _ = env.reset(jax.random.key(0))
    step = env.step(state, jnp.full((2, 1), 5.0), jax.random.key(0))[1]
    assert (step.obs.action == 5).all()


def test_previous_actions_may_be_vectors():
    env = wrappers.previous_action_and_reward(probes.continuous_action(B))
    check_environment(env, 20)


def test_selected_observations_are_those_elements():
    env = make("CartPole-v1", 2)
    masked = wrappers.select_observation(env, (2, 0))
    key = jax.random.key(3)
    full, seen = env.reset(key)[1].obs, masked.reset(key)[1].obs
    np.testing.assert_array_equal(seen, full[:, [2, 0]])
    assert masked.observation_spec.shape == (2,)
    check_environment(masked, 20)


def test_observations_that_cannot_be_selected_are_rejected():
    with pytest.raises(ValueError, match="no element 2 in observations of 2"):
        wrappers.select_observation(probes.counter(1), (0, 2))
    with pytest.raises(ValueError, match="no element -1"):
        wrappers.select_observation(probes.counter(1), (-1,))
    discrete = probes.counter(1)._replace(observation_spec=Discrete(3))
    with pytest.raises(ValueError, match="of counter are not vectors"):
        wrappers.select_observation(discrete, (0,))


def test_scaled_rewards_are_multiplied():
    env = probes.counter(B)
    scaled = rows(wrappers.scale_rewards(env, 0.25))[1]
    np.testing.assert_allclose(scaled, 0.25 * rows(env)[1])


def test_a_scale_can_be_traced():
    env = probes.counter(B)

    def rewards(factor):
        return run(wrappers.scale_rewards(env, factor))[1]

    both = jax.jit(jax.vmap(rewards))(jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(both[1], 3 * both[0])


@pytest.mark.parametrize("factor", [np.nan, np.inf, -np.inf])
def test_a_scale_that_is_no_number_is_refused(factor):
    with pytest.raises(RefusedError, match=r"^factor must be a finite number, got "):
        wrappers.scale_rewards(probes.counter(B), factor)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (np.nan, 1.0), (0.0, np.nan)])
def test_bounds_that_leave_nothing_are_refused(bounds):
    with pytest.raises(ValueError, match="low must be below high, got "):
        wrappers.clip_rewards(probes.counter(B), *bounds)


def test_clipped_rewards_are_limited():
    env = wrappers.scale_rewards(probes.counter(B), -1.0)
    expected = np.clip(rows(env)[1], -4.0, -1.5)
    clipped = rows(wrappers.clip_rewards(env, -4.0, -1.5))[1]
    last = rows(env)[0].last[:-1]
    np.testing.assert_array_equal(clipped, np.where(last, 0.0, expected))
    with pytest.raises(ValueError, match="low must be below high, got 1"):
        wrappers.clip_rewards(env, 1.0, 1.0)


def by_hand(rewards, last, gamma, clip):
    """Rewards over the standard deviation of all discounted returns so far."""
    returns, seen, scaled = 0.0, [], np.zeros(rewards.shape)
    for t in range(len(rewards)):
        returns = np.where(last[t], 0.0, gamma * returns + rewards[t])
        seen += [x for x, end in zip(returns, last[t], strict=True) if not end]
        scaled[t] = rewards[t] / np.sqrt(np.var(seen) + 1e-8)
        returns = np.where(last[t + 1], 0.0, returns)
    return np.clip(scaled, -clip, clip)


def test_normalized_rewards_follow_their_definition():
    env = probes.counter(B)
    steps, rewards, _ = rows(env)
    expected = by_hand(rewards, steps.last, gamma=0.9, clip=2.0)
    actual = rows(wrappers.normalize_rewards(env, 0.9, clip=2.0))[1]
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    assert (expected == 2.0).any() and (expected[1:] < 2.0).any()


def test_normalized_rewards_merged_over_an_axis_are_those_of_the_joint_batch():
    def rewards(actions):
        env = probes.counter(actions.shape[1])
        return run(wrappers.normalize_rewards(env, 0.9, Axis("half")), actions)[1]

    joint = rows(wrappers.normalize_rewards(probes.counter(B), 0.9))[1]
    halves = jnp.stack([ACTIONS[:, :2], ACTIONS[:, 2:]])
    mapped = jax.jit(jax.vmap(rewards, axis_name="half"))(halves)
    np.testing.assert_allclose(np.concatenate(mapped, axis=1), joint, rtol=1e-5)


def test_a_reward_that_is_not_finite_does_not_enter_the_statistics():
    env = probes.counter(B)

    def step(env_state, action, key):
        env_state, after, reward, discount = env.step(env_state, action, key)
        bad = (after.obs[:, 1] == 2) & (jnp.arange(B) == 1)
        return env_state, after, jnp.where(bad, jnp.nan, reward), discount

    broken = env._replace(step=step)
    rewards = rows(wrappers.normalize_rewards(broken, 0.9))[1]
    bad = np.isnan(rewards)
    assert bad[1, 1] and bad.sum() == 1


def paid(rewards, gamma, axis=Axis()):
    """What `normalize_rewards` makes of rewards [T, B] in an episode without end."""
    env = probes.counter(rewards.shape[1], length=len(rewards) + 1)

    def step(env_state, reward, key):
        nothing = jnp.zeros(reward.shape, jnp.int32)
        env_state, after, _, discount = env.step(env_state, nothing, key)
        return env_state, after, reward, discount

    return run(
        wrappers.normalize_rewards(env._replace(step=step), gamma, axis), rewards
    )[1]


def test_equal_rewards_are_positive_and_finite_whatever_they_are():
    """Their variance is 0, not a rounding error, so the scale is 1e-4."""
    constants = jnp.arange(1, 501) / 100
    rewards = jnp.broadcast_to(constants[:, None, None], (500, 2, 100))
    scaled = jax.jit(jax.vmap(lambda rewards: paid(rewards, 0.99)))(rewards)
    np.testing.assert_array_equal(scaled[:, 0], 10.0)
    assert np.all(np.isfinite(scaled))


@pytest.mark.parametrize("num_devices", [1, 2])
def test_an_offset_costs_no_precision(num_devices):
    rng = np.random.default_rng(0)
    rewards = np.float32(1e4 * rng.choice([-1, 1], (1, 8)) + rng.normal(size=(3, 8)))
    rewards[1] = np.float32(1e4 + rng.normal(size=8))
    expected = by_hand(np.float64(rewards), np.zeros((4, 8), bool), 0.0, 10.0)
    parts = jnp.stack(np.split(rewards, num_devices, axis=1))
    some = jax.vmap(lambda x: paid(x, 0.0, Axis("device")), axis_name="device")
    scaled = np.concatenate(jax.jit(some)(parts), axis=1)
    np.testing.assert_allclose(scaled, expected, rtol=1e-4)


def test_a_reward_too_large_to_be_squared_leaves_the_statistics_as_they_were():
    rewards = jnp.array([[1.0, 2.0], [3.0, 1e30], [1.0, 2.0], [1.0, 2.0]])
    scaled = paid(rewards, 0.0)
    np.testing.assert_allclose(scaled[0], [2.0, 4.0], rtol=1e-4)
    np.testing.assert_allclose(scaled[1], [6.0, 10.0], rtol=1e-4)
    np.testing.assert_allclose(scaled[2:], [[2.0, 4.0]] * 2, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"gamma": 99.0}, {"gamma": np.nan}, {"gamma": 0.9, "clip": -1.0},
        {"gamma": 0.9, "clip": np.nan},
    ],
)  # fmt: skip
def test_numbers_that_normalise_nothing_are_refused(options):
    with pytest.raises(RefusedError, match=r"must be (in \[0, 1\]|above 0), got"):
        wrappers.normalize_rewards(probes.counter(B), **options)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bfloat16, jnp.bool_])
@pytest.mark.parametrize(
    "spec", [Discrete(4, dtype=np.dtype(np.uint8)), Box((), np.dtype(np.float16))]
)
def test_what_led_to_an_observation_is_shown_in_the_dtypes_of_its_spec(dtype, spec):
    """An environment of one's own may pay integers and number actions in bytes."""
    inner = probes.counter(B)

    def step(env_state, action, key):
        env_state, step, reward, discount = inner.step(env_state, action, key)
        return env_state, step, reward.astype(dtype), discount

    env = wrappers.previous_action_and_reward(
        inner._replace(step=step, action_spec=spec)
    )
    state, step = env.reset(jax.random.key(0))
    after = jax.eval_shape(env.step, state, ACTIONS[0], jax.random.key(0))[1]
    assert jax.tree.map(lambda x: x.dtype, step) == jax.tree.map(
        lambda x: x.dtype, after
    )


def test_actions_of_several_numbers_are_clipped_although_no_rank_is_promoted():
    spec = Box((2,), low=np.array([-1.0, -2.0]), high=np.array([0.1, 2.0]))
    inner = probes.counter(B)
    done = inner._replace(action_spec=spec, step=lambda env_state, action, key: action)
    with jax.numpy_rank_promotion("raise"):
        action = wrappers.clip_actions(done).step(None, jnp.full((B, 2), 5.0), None)
    # The float32 below 0.1, which is within, as the nearest is not.
    near = np.nextafter(np.float32(0.1), np.float32(0))
    np.testing.assert_array_equal(action, np.float32([[near, 2.0]] * B))
