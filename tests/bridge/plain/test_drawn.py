"""Actions that NumPy draws are those of `distributions`, from the same key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import draws, random
from jaxrl_par.bridge.plain.drawn import Drawing
from jaxrl_par.distributions import Categorical, DiagNormal, SquashedNormal
from jaxrl_par.networks import NetworkConfig, heads
from jaxrl_par.networks.plain import plain
from jaxrl_par.training.comparison import named
from jaxrl_par.types import Box, Discrete, Masked, MultiDiscrete

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


def drawing(policy):
    """What draws from parameters of a single part."""
    if "logits" in policy:
        size = policy["logits"].shape[1]
        action = {"kind": "discrete", "num_values": size, "shape": ()}
    else:
        action = {"kind": "box", "shape": policy["mean"].shape[1:]}
    return Drawing({"action": action | {"name": "action"}, "observations": []})


@pytest.mark.parametrize("name", CASES)
def test_the_same_key_draws_the_same_action_with_the_same_log_probability(name):
    kind, policy = CASES[name]
    theirs = kind(**jax.tree.map(jnp.asarray, policy))
    sampled = theirs.sample(KEY)
    action, log_prob = np.asarray(sampled), np.asarray(theirs.log_prob(sampled))
    draw = drawing(policy)
    (noise,) = draw.noise(WORDS[None], B)
    found, found_log_prob = draw(policy, [noise[0]])
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
    action, log_prob = drawing(policy)(policy, [draws.normal(WORDS, (B, 3))])
    theirs = kind(**jax.tree.map(jnp.asarray, policy))
    again = np.asarray(theirs.log_prob(jnp.asarray(action)))
    assert np.median(np.abs(log_prob - again)) < 1e-5


def test_a_draw_on_the_border_takes_the_next_action():
    """Two actions of one half: 0.5 is the second one's, as in JAX."""
    policy = {"logits": np.zeros((3, 2), np.float32)}
    noise = np.array([0.0, 0.5, np.nextafter(np.float32(1), np.float32(0))], np.float32)
    action, log_prob = drawing(policy)(policy, [noise])
    assert action.tolist() == [0, 1, 1]
    np.testing.assert_allclose(log_prob, np.log(0.5), rtol=1e-6)


def flags(*shape):
    return Box(shape, np.dtype(bool), 0.0, 1.0)


GEARS = MultiDiscrete([[2, 3], [3, 1]])
ACTIONS = {
    "heads": (GEARS, None),
    "masked heads": (GEARS, flags(9)),
    "combinations": (MultiDiscrete([2, 3]), flags(2, 3)),
    "parts": (
        {"steer": Box((1, 2)), "gears": [GEARS, (Discrete(3),)], "brake": Discrete(2)},
        {"brake": flags(2)},
    ),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_parts_are_drawn_from_the_same_key(name):
    action_spec, mask = ACTIONS[name]
    seen = Box((4,)) if mask is None else Masked(Box((4,)), mask)
    config = NetworkConfig()
    policy = plain(seen, action_spec, config)
    rng = np.random.default_rng(2)
    number = heads.num_outputs(action_spec, mask)
    outputs = jnp.array(rng.normal(size=(B, number)), jnp.float32)
    stds = jnp.array(rng.normal(size=heads.num_reals(action_spec)), jnp.float32)
    allowed = jax.tree.map(lambda x: jnp.array(rng.random((B, *x.shape)) < 0.6), mask)
    made = heads.distribution(action_spec, "gaussian", outputs, stds, allowed)
    theirs, log_prob = jax.jit(lambda: made.sample_and_log_prob(KEY))()
    draw = Drawing(policy.described())
    parameters = {name: np.asarray(x) for name, x in named(made).items()}
    noise = [x[0] for x in draw.noise(WORDS[None], B)]
    found, found_log_prob = draw(parameters, noise)
    assert jax.tree.structure(found) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(theirs), strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype
        np.testing.assert_allclose(x, y, atol=1e-5)
    np.testing.assert_allclose(found_log_prob, log_prob, atol=1e-4)
    again = policy.distribution(**parameters)
    assert jax.tree.structure(again) == jax.tree.structure(made)


def test_the_longest_list_counts():
    policy = plain(
        Masked(Box((4,)), flags(2, 3)), MultiDiscrete([2, 3]), NetworkConfig()
    )
    assert Drawing(policy.described()).most_actions == 6
    policy = plain(Box((4,)), ACTIONS["parts"][0], NetworkConfig())
    assert Drawing(policy.described()).most_actions == 3
