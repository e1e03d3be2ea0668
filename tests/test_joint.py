"""Distributions over actions of several parts, against sums and products by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import losses
from jaxrl_par.distributions import Categorical, DiagNormal
from jaxrl_par.joint import Combination, Heads, Joint, Reshaped, Shape

B, INF = 3, np.inf
RNG = np.random.default_rng(0)
SIZES = (2, 3, 4)


def heads(seed=0):
    """[B, 3, 4] logits of heads with two, three and four actions."""
    logits = np.random.default_rng(seed).normal(size=(B, 3, 4)).astype(np.float32)
    for head, size in enumerate(SIZES):
        logits[:, head, size:] = -INF
    return logits


def log_softmax(x):
    x = np.float64(x)
    return (
        x
        - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - (x.max(-1, keepdims=True))
    )


def every():
    return list(itertools.product(*map(range, SIZES)))


@pytest.mark.slow
def test_probabilities_of_heads_multiply_and_their_entropies_add_up():
    logits, other = heads(), heads(1)
    policy = Heads(jnp.array(logits))
    table = np.array([
        [sum(log_softmax(logits[b, h])[a[h]] for h in range(3)) for a in every()]
        for b in range(B)
    ])  # fmt: skip
    told = [policy.log_prob(jnp.array([a] * B)) for a in every()]
    np.testing.assert_allclose(np.array(told).T, table, rtol=1e-5)
    np.testing.assert_allclose(np.exp(table).sum(1), 1.0, rtol=1e-6)
    entropy = -(np.exp(table) * table).sum(1)
    np.testing.assert_allclose(policy.entropy(), entropy, rtol=1e-5)
    reference = np.array([
        [sum(log_softmax(other[b, h])[a[h]] for h in range(3)) for a in every()]
        for b in range(B)
    ])  # fmt: skip
    divergence = (np.exp(table) * (table - reference)).sum(1)
    found = policy.kl(Heads(jnp.array(other)))
    np.testing.assert_allclose(found, divergence, rtol=1e-4)
    assert policy.mode().tolist() == logits.argmax(-1).tolist()


@pytest.mark.slow
def test_what_is_drawn_is_each_heads_own_as_often_as_it_says():
    logits = jnp.broadcast_to(jnp.array(heads())[0], (20_000, 3, 4))
    action, log_prob = Heads(logits).sample_and_log_prob(jax.random.key(0))
    assert action.shape == (20_000, 3) and action.dtype == jnp.int32
    for head, size in enumerate(SIZES):
        share = np.bincount(np.asarray(action[:, head]), minlength=4) / len(action)
        probability = np.exp(log_softmax(heads()[0, head]))
        assert share[size:].sum() == 0
        np.testing.assert_allclose(share, probability, atol=0.015)
    np.testing.assert_array_equal(log_prob, Heads(logits).log_prob(action))


def test_a_combination_has_one_probability_and_forgets_nothing():
    """S1: of the pairs (0, 0) and (1, 1), each half, entropy ln 2, others exactly 0."""
    allowed = jnp.eye(2, dtype=bool).reshape(-1)
    policy = Combination(
        Categorical(jnp.where(allowed, 0.0, -INF)[None]), Shape((2, 2))
    )
    pairs = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    found = jax.vmap(lambda a: policy.log_prob(a[None])[0])(pairs)
    np.testing.assert_allclose(jnp.exp(found), [0.5, 0, 0, 0.5], atol=1e-7)
    assert jnp.exp(found[1]) == 0 == jnp.exp(found[2])
    assert float(policy.entropy()[0]) == pytest.approx(0.6931, abs=1e-4)
    # By head all would be allowed.
    assert float(Heads(jnp.zeros((1, 2, 2))).entropy()[0]) == pytest.approx(
        1.3863, 1e-4
    )
    # No other number stands for a combination: (0, 3) is not (1, 1).
    assert policy.log_prob(jnp.array([[0, 3]]))[0] == -INF
    many = Combination(Categorical(jnp.zeros((6, 6))), Shape((2, 3)))
    drawn = many.sample(jax.random.key(0))
    assert drawn.shape == (6, 2) and bool(jnp.all(drawn < jnp.array([2, 3])))
    index = jnp.arange(6)
    apart = jnp.stack(jnp.unravel_index(index, (2, 3)), -1)
    sharp = Combination(Categorical(jnp.where(jnp.eye(6) > 0, 9.0, 0.0)), Shape((2, 3)))
    np.testing.assert_array_equal(sharp.mode(), apart)
    expected = sharp.choice.log_prob(index)
    np.testing.assert_array_equal(sharp.log_prob(apart), expected)


def test_heads_are_one_action():
    """S7: 14 logits in four heads, -4.787 a row; the ratio of three heads is clipped
    once, 1.331 to 1.2."""
    sizes = [2, 3, 4, 5]
    logits = np.full((B, 4, 5), -INF, np.float32)
    for head, size in enumerate(sizes):
        logits[:, head, :size] = 0
    policy = Reshaped(Heads(jnp.array(logits)), Shape((2, 2)))
    action = policy.sample(jax.random.key(0))
    assert action.shape == (B, 2, 2)
    found = policy.log_prob(action)
    assert found.shape == (B,)
    np.testing.assert_allclose(found, -4.7875, atol=1e-4)
    np.testing.assert_allclose(policy.entropy(), 4.7875, atol=1e-4)
    # Three heads, each 1.1 times as likely as when they acted.
    new = Heads(jnp.log(jnp.array([[[0.55, 0.45]] * 3])))
    ratio = new.log_prob(jnp.zeros((1, 3), jnp.int32)) - 3 * jnp.log(0.5)
    np.testing.assert_allclose(jnp.exp(ratio), 1.331, rtol=1e-5)
    gain = -losses.clipped_surrogate(ratio, jnp.ones(1), 0.2)
    np.testing.assert_allclose(gain, 1.2, rtol=1e-6)


def test_parts_have_names_and_no_places():
    """S8: the same by name, in whichever order names are given."""
    steer = DiagNormal(jnp.array([[0.5]]), jnp.array([[-1.0]]))
    brake = Categorical(jnp.array([[0.0, 2.0]]))
    one = Joint({"steer": steer, "brake": brake})
    other = Joint({"brake": brake, "steer": steer})
    action, log_prob = one.sample_and_log_prob(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, action, other.sample(jax.random.key(1)))
    assert action["steer"].shape == (1, 1) and action["brake"].dtype == jnp.int32
    parts = steer.log_prob(action["steer"]) + brake.log_prob(action["brake"])
    np.testing.assert_allclose(one.log_prob(action), parts, rtol=1e-6)
    np.testing.assert_allclose(log_prob, parts, rtol=1e-6)
    np.testing.assert_allclose(one.entropy(), steer.entropy() + brake.entropy())
    assert one.mode()["brake"].tolist() == [1] and one.mode()["steer"] == 0.5
    moved = Joint({"steer": steer._replace(mean=steer.mean + 1), "brake": brake})
    expected = steer.kl(steer._replace(mean=steer.mean + 1))
    np.testing.assert_allclose(one.kl(moved), expected, rtol=1e-6)
    with pytest.raises(ValueError):
        one.log_prob({"steer": action["steer"]})


def test_policies_of_other_parts_have_no_divergence():
    one = Joint({"a": Categorical(jnp.zeros((1, 2)))})
    for other in (Joint({"b": one.parts["a"]}), Heads(jnp.zeros((1, 1, 2)))):
        with pytest.raises(ValueError, match="the same actions, masks"):
            one.kl(other)


@pytest.mark.slow
def test_an_array_of_numbers_is_one_action():
    mean = jnp.array(RNG.normal(size=(B, 6)), jnp.float32)
    flat = DiagNormal(mean, 0 * mean)
    policy = Reshaped(flat, Shape((2, 3)))
    action, log_prob = policy.sample_and_log_prob(jax.random.key(0))
    assert action.shape == (B, 2, 3) and log_prob.shape == (B,)
    np.testing.assert_array_equal(log_prob, flat.log_prob(action.reshape(B, 6)))
    np.testing.assert_array_equal(policy.mode(), mean.reshape(B, 2, 3))
    rows = jax.tree.map(lambda x: x.reshape(B, 1, 6), policy)
    assert rows.log_prob(action[:, None]).shape == (B, 1)
    single = Reshaped(DiagNormal(mean[:, :1], 0 * mean[:, :1]), Shape(()))
    assert single.sample(jax.random.key(0)).shape == (B,)
    assert single.log_prob(single.mode()).shape == (B,)
