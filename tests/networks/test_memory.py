"""LSTM and GRU against their equations, written for one number at a time."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.networks.memory import LSTMCarry, Memory, initial_carry

T, B, D, H = 6, 3, 4, 5
FIRST = jnp.array(
    [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]], bool
)

both_kinds = pytest.mark.parametrize("kind", ["lstm", "gru"])


class Compiled(NamedTuple):
    init: Callable
    apply: Callable


@cache
def compiled(kind):
    memory = Memory(kind, H)
    return Compiled(jax.jit(memory.init), jax.jit(memory.apply))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def lstm(p, x, first, carry):
    """Hochreiter and Schmidhuber (1997), Gers et al. (2000): one environment."""
    c, h = np.float64(carry.cell), np.float64(carry.hidden)
    ys = []
    for x_t, first_t in zip(x, first, strict=True):
        if first_t:
            c, h = np.zeros(H), np.zeros(H)
        sums = [
            x_t @ p["input"][:, k * H : (k + 1) * H]
            + h @ p["recurrent"][:, k * H : (k + 1) * H]
            + p["bias"][k * H : (k + 1) * H]
            for k in range(4)
        ]
        i, f, o = sigmoid(sums[0]), sigmoid(sums[1] + 1), sigmoid(sums[3])
        c = f * c + i * np.tanh(sums[2])
        h = o * np.tanh(c)
        ys.append(h)
    return np.array(ys), LSTMCarry(c, h)


def gru(p, x, first, carry):
    """Cho et al. (2014), in the form of cuDNN: one environment."""
    h = np.float64(carry)
    w, u, b = ([m[..., k * H : (k + 1) * H] for k in range(3)] for m in _gru_params(p))
    ys = []
    for x_t, first_t in zip(x, first, strict=True):
        if first_t:
            h = np.zeros(H)
        r = sigmoid(x_t @ w[0] + h @ u[0] + b[0])
        z = sigmoid(x_t @ w[1] + h @ u[1] + b[1])
        n = np.tanh(x_t @ w[2] + b[2] + r * (h @ u[2] + p["candidate_bias"]))
        h = (1 - z) * n + z * h
        ys.append(h)
    return np.array(ys), h


def _gru_params(p):
    return p["input"], p["recurrent"], p["bias"]


@pytest.fixture
def make():
    def make(kind):
        memory = compiled(kind)
        rng = np.random.default_rng(0)
        x = jnp.array(rng.normal(size=(T, B, D)), jnp.float32)
        carry = jax.tree.map(
            lambda leaf: jnp.array(rng.normal(size=leaf.shape), jnp.float32),
            initial_carry(kind, H, B),
        )
        params = memory.init(jax.random.key(0), carry, x.reshape(-1, D), FIRST)
        params = jax.tree.map(
            lambda leaf: jnp.array(rng.normal(size=leaf.shape), jnp.float32), params
        )
        return memory, params, carry, x

    return make


@both_kinds
def test_memory_follows_its_equations(make, kind):
    memory, params, carry, x = make(kind)
    y, after = memory.apply(params, carry, x.reshape(-1, D), FIRST)
    p = jax.tree.map(np.float64, params["params"])
    for b in range(B):
        start = jax.tree.map(lambda leaf, b=b: leaf[b], carry)
        oracle = lstm if kind == "lstm" else gru
        expected, final = oracle(p, np.float64(x[:, b]), FIRST[:, b], start)
        np.testing.assert_allclose(y.reshape(T, B, H)[:, b], expected, atol=1e-5)
        jax.tree.map(
            lambda leaf, end, b=b: np.testing.assert_allclose(leaf[b], end, atol=1e-5),
            after,
            final,
        )


@pytest.mark.sample(1)
@both_kinds
def test_steps_one_by_one_equal_one_call(make, kind):
    memory, params, carry, x = make(kind)
    y, after = memory.apply(params, carry, x.reshape(-1, D), FIRST)
    for t in range(T):
        y_t, carry = memory.apply(params, carry, x[t], FIRST[t : t + 1])
        np.testing.assert_allclose(y_t, y.reshape(T, B, H)[t], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), carry, after)


@pytest.mark.sample(3)
@both_kinds
@pytest.mark.parametrize("garbage", [1e30, np.nan, np.inf])
def test_nothing_before_a_first_step_is_remembered(make, kind, garbage):
    """Bit for bit, whatever the carry and the features before it hold."""
    memory, params, carry, x = make(kind)
    first = jnp.zeros((T, B), bool).at[3].set(True)
    spoilt = x.at[:3].set(garbage)
    clean, clean_carry = memory.apply(params, carry, x.reshape(-1, D), first)
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, garbage), carry)
    dirty, dirty_carry = memory.apply(params, bad, spoilt.reshape(-1, D), first)
    clean, dirty = (np.asarray(y).reshape(T, B, H) for y in (clean, dirty))
    np.testing.assert_array_equal(clean[3:], dirty[3:])
    assert not np.array_equal(clean[:3], dirty[:3])
    jax.tree.map(np.testing.assert_array_equal, clean_carry, dirty_carry)


@pytest.mark.sample(1)
@both_kinds
def test_memory_starts_empty_and_orthogonal(kind):
    carry = initial_carry(kind, H, B)
    for leaf in jax.tree.leaves(carry):
        np.testing.assert_array_equal(leaf, np.zeros((B, H)))
    params = Memory(kind, H).init(jax.random.key(0), carry, jnp.ones((B, D)), FIRST[:1])
    recurrent = params["params"]["recurrent"]
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(H), atol=1e-5)


@pytest.mark.sample(1)
@both_kinds
def test_gradients_stop_at_a_first_step(make, kind):
    memory, params, carry, x = make(kind)
    first = jnp.zeros((T, B), bool).at[3].set(True)

    def late(x, carry):
        y, _ = memory.apply(params, carry, x.reshape(-1, D), first)
        return jnp.sum(y.reshape(T, B, H)[4])

    by_x, by_carry = jax.grad(late, (0, 1))(x, carry)
    assert not np.any(by_x[:3]) and np.all(np.any(by_x[3:5] != 0, axis=(1, 2)))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(by_carry))
