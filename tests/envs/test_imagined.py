"""Models as environments: where branches end, and what is counted there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.envs.imagined import imagined
from jaxrl_par.types import Box, Discrete, Prediction

SPECS = Box((1,)), Discrete(2)


def model(reward, end, move=1.0):
    """Adds `move` to what is seen; reward and end are functions of that."""

    def predict(obs, action, key):
        seen = obs[:, 0]
        return Prediction(obs + move, reward(seen), end(seen), jnp.zeros(len(obs)))

    return predict


def at(*places):
    return lambda key: jnp.array(places, jnp.float32)[:, None]


def stepped(env, state, seed=0):
    action = jnp.zeros(env.num_envs, jnp.int32)
    return jax.jit(env.step)(state, action, random.key(seed))


def test_the_end_of_a_branch_is_no_end():
    """Trap 18: reward 1, gamma 0.9, V = 10. The target is 10, and 1 for an end."""
    for end, target in ((0.0, 10.0), (1.0, 1.0)):
        predict = model(jnp.ones_like, lambda seen, end=end: jnp.full(seen.shape, end))
        env = imagined(predict, at(0.0, 5.0), SPECS, 2, horizon=1)
        state, first = env.reset(random.key(0))
        assert np.all(first.first) and not np.any(first.last)
        _, shown, reward, discount = stepped(env, state)
        np.testing.assert_allclose(reward + 0.9 * discount * 10.0, target, rtol=1e-6)
        assert np.all(shown.last) and not np.any(shown.first)
        np.testing.assert_array_equal(shown.obs[:, 0], [1.0, 6.0])


def test_an_end_that_is_likely_counts_as_often():
    """Trap 18: with probability 0.3 the mean target is 7.3."""
    number = 20_000
    predict = model(jnp.ones_like, lambda seen: jnp.full(seen.shape, 0.3))
    start = jnp.zeros((number, 1))
    env = imagined(predict, lambda key: start, SPECS, number, horizon=1)
    state, _ = env.reset(random.key(0))
    _, _, reward, discount = stepped(env, state)
    assert np.mean(reward + 0.9 * discount * 10.0) == pytest.approx(7.3, abs=0.1)
    assert {*np.unique(discount)} == {0.0, 1.0}


def test_a_plan_is_worth_what_comes_before_its_end():
    """Trap 18: rewards 1, 2, 1000 and an end at the second are 3."""
    pays = jnp.array([1.0, 2.0, 1000.0])
    predict = model(
        lambda seen: pays[seen.astype(jnp.int32)],
        lambda seen: (seen == 1.0).astype(jnp.float32),
    )
    env = imagined(predict, at(0.0), SPECS, 1, horizon=3)
    step = jax.jit(env.step)
    state, _ = env.reset(random.key(0))
    found = []
    for seed in range(3):
        state, shown, reward, discount = step(
            state, jnp.zeros(1, jnp.int32), random.key(seed)
        )
        found.append((float(reward[0]), float(discount[0]), bool(shown.last[0])))
        if shown.last[0]:
            assert env.episode(state).return_[0] == 3.0
    assert found == [(1.0, 1.0, False), (2.0, 0.0, True), (0.0, 0.0, False)]


def test_a_stream_goes_on_when_another_ends():
    """Trap 18: from its own state; the one that ended begins anew a step later."""
    predict = model(jnp.ones_like, lambda seen: (seen < 5).astype(jnp.float32))
    env = imagined(predict, at(0.0, 10.0), SPECS, 2, horizon=9)
    state, _ = env.reset(random.key(0))
    state, shown, reward, discount = stepped(env, state)
    np.testing.assert_array_equal(shown.last, [True, False])
    np.testing.assert_array_equal(discount, [0.0, 1.0])
    state, shown, reward, discount = stepped(env, state, 1)
    np.testing.assert_array_equal(shown.obs[:, 0], [0.0, 12.0])
    np.testing.assert_array_equal(shown.first, [True, False])
    np.testing.assert_array_equal(reward, [0.0, 1.0])
    np.testing.assert_array_equal(discount, [0.0, 1.0])
    _, shown, reward, _ = stepped(env, state, 2)
    np.testing.assert_array_equal(shown.obs[:, 0], [1.0, 13.0])
    np.testing.assert_array_equal(reward, [1.0, 1.0])


@pytest.mark.slow
def test_a_branch_ends_where_nothing_is_predicted():
    """And begins anew from a real state."""
    predict = model(jnp.ones_like, jnp.zeros_like, move=jnp.nan)
    env = imagined(predict, at(0.0), SPECS, 1, horizon=9)
    state, _ = env.reset(random.key(0))
    state, shown, _, discount = stepped(env, state)
    assert shown.last[0] and np.isnan(shown.obs[0, 0]) and discount[0] == 1.0
    _, shown, reward, _ = stepped(env, state)
    assert shown.first[0] and shown.obs[0, 0] == 0.0 and reward[0] == 0.0


def test_a_branch_without_steps_is_refused():
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        imagined(model(jnp.ones_like, jnp.zeros_like), at(0.0), SPECS, 1, 0)
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        imagined(model(jnp.ones_like, jnp.zeros_like), at(0.0), SPECS, 0, 1)


@pytest.mark.slow
def test_branches_can_be_vmapped_over_models():
    """Each with parameters of its own: imagination is a function of arrays."""

    def score(slope):
        predict = model(lambda seen: slope * seen, jnp.zeros_like)
        env = imagined(predict, at(1.0), SPECS, 1, horizon=2)
        state, _ = env.reset(random.key(0))
        state, _, first, _ = stepped(env, state)
        return first + stepped(env, state)[2]

    np.testing.assert_allclose(jax.vmap(score)(jnp.arange(3.0))[:, 0], [0, 3, 6])
