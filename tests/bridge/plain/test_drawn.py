"""Actions that NumPy draws are those of `distributions`, from the same key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import draws, random
from jaxrl_par.bridge.plain.drawn import drawn
from jaxrl_par.distributions import Categorical, DiagNormal, SquashedNormal

KEY = random.key(11)
WORDS = np.asarray(jax.random.key_data(KEY))
B = 512


def logits():
    found = np.random.default_rng(0).normal(size=(B, 6)).astype(np.float32) * 3
    found[::3, 2] = -np.inf
    found[7] = -np.inf
    return found


def normals(**more):
    rng = np.random.default_rng(1)
    mean = rng.normal(size=(B, 3)).astype(np.float32)
    log_std = np.full((B, 3), [-0.5, 0.2, 0.9], np.float32)
    return {"mean": mean, "log_std": log_std} | more


BOUNDS = {
    "centre": np.full((B, 3), [0, 1, -20], np.float32),
    "half_width": np.full((B, 3), [1, 0.5, 20], np.float32),
}
CASES = {
    "categorical": (Categorical, {"logits": logits()}),
    "normal": (DiagNormal, normals()),
    "squashed": (SquashedNormal, normals(**BOUNDS)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_key_draws_the_same_action_with_the_same_log_probability(name):
    kind, policy = CASES[name]
    theirs = kind(**jax.tree.map(jnp.asarray, policy))
    sampled = theirs.sample(KEY)
    action, log_prob = np.asarray(sampled), np.asarray(theirs.log_prob(sampled))
    draw = draws.uniform if kind is Categorical else draws.normal
    found, found_log_prob = drawn(policy, draw(WORDS, action.shape))
    if kind is Categorical:
        np.testing.assert_array_equal(found, action)
        assert not np.any(found[::3] == 2)
    else:
        scale = policy.get("half_width", np.float32(1))
        np.testing.assert_allclose(found / scale, action / scale, atol=1e-5)
    assert found.dtype == action.dtype and found_log_prob.dtype == np.float32
    rows = np.arange(B) != 7 if kind is Categorical else slice(None)
    close = np.abs(found_log_prob - log_prob)[rows]
    # Near a bound, log-probabilities of a squashed action lose digits.
    assert np.median(close) < 1e-5 and np.quantile(close, 0.95) < 1e-3


def test_the_log_probability_is_that_of_the_action_that_is_stored():
    kind, policy = CASES["squashed"]
    action, log_prob = drawn(policy, draws.normal(WORDS, (B, 3)))
    theirs = kind(**jax.tree.map(jnp.asarray, policy))
    again = np.asarray(theirs.log_prob(jnp.asarray(action)))
    assert np.median(np.abs(log_prob - again)) < 1e-5


def test_a_draw_on_the_border_takes_the_next_action():
    """Two actions of one half: 0.5 is the second one's, as in JAX."""
    policy = {"logits": np.zeros((3, 2), np.float32)}
    noise = np.array([0.0, 0.5, np.nextafter(np.float32(1), np.float32(0))], np.float32)
    action, log_prob = drawn(policy, noise)
    assert action.tolist() == [0, 1, 1]
    np.testing.assert_allclose(log_prob, np.log(0.5), rtol=1e-6)
