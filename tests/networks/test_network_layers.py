"""Layers against plain algebra and JAX's own convolution; what initialisers promise."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.networks.layers import MLP, Linear, PatchConv, linear, orthogonal, swish

SHAPES = [(512, 512), (512, 64), (64, 512), (64, 64), (4, 64), (64, 1), (1, 1), (3, 2)]


def normal(seed, shape):
    rng = np.random.default_rng(seed)
    return jnp.array(rng.normal(size=shape), jnp.float32)


def test_linear_and_its_gradients_are_plain_algebra():
    x, kernel, bias = normal(0, (9, 4)), normal(1, (4, 3)), normal(2, (3,))
    weights = normal(3, (9, 3))

    def loss(function, *args):
        return jnp.sum(weights * jnp.sin(function(*args)))

    plain = jax.value_and_grad(
        lambda *args: loss(lambda x, kernel, bias: x @ kernel + bias, *args), (0, 1, 2)
    )
    ours = jax.value_and_grad(lambda *args: loss(linear, *args), (0, 1, 2))
    for compute in (ours, jax.jit(ours)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            compute(x, kernel, bias),
            plain(x, kernel, bias),
        )
    members = [jnp.stack([leaf, 2 * leaf]) for leaf in (x, kernel, bias)]
    mapped = jax.vmap(ours)(*members)
    alone = ours(*(leaf[1] for leaf in members))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5),
        mapped,
        alone,
    )


@pytest.mark.sample(1)
@pytest.mark.parametrize("window", [3, 1])
def test_patch_convolution_is_a_convolution(window):
    images = normal(0, (5, 7, 6, 4))
    conv = PatchConv(8, window)
    params = conv.init(jax.random.key(1), images)
    params = jax.tree.map(lambda x: normal(2, x.shape), params)
    ((layer,),) = (params["params"].values(),)
    kernel = layer["kernel"].reshape(window, window, 4, 8)

    def reference(images):
        dimensions = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "VALID", dimension_numbers=dimensions
        )
        return y + layer["bias"]

    actual = conv.apply(params, images)
    assert actual.shape == (5, 8 - window, 7 - window, 8)
    np.testing.assert_allclose(actual, reference(images), rtol=1e-4, atol=1e-4)
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(conv.apply(params, x))))(images)
    expected = jax.grad(lambda x: jnp.sum(jnp.sin(reference(x))))(images)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)


def test_images_below_the_window_are_refused():
    with pytest.raises(ValueError, match="2 x 9 are smaller than the window of 3"):
        PatchConv(8).init(jax.random.key(0), jnp.zeros((1, 2, 9, 4)))


@pytest.mark.sample(1)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_orthogonal_matrices_are_orthonormal(shape):
    init = jax.jit(lambda key: orthogonal(1.0)(key, shape))
    for seed in range(2):
        x = np.asarray(init(jax.random.key(seed)), np.float64)
        x = x if shape[0] >= shape[1] else x.T
        np.testing.assert_allclose(x.T @ x, np.eye(x.shape[1]), atol=1e-5)


def test_orthogonal_matrices_are_scaled_and_differ():
    unit, scaled = (orthogonal(s)(jax.random.key(0), (8, 4)) for s in (1.0, 0.01))
    np.testing.assert_allclose(scaled, 0.01 * unit, rtol=1e-5)
    assert not np.allclose(unit, orthogonal(1.0)(jax.random.key(1), (8, 4)), atol=0.1)


def test_orthogonal_matrices_have_no_preferred_direction():
    """Uniform on the sphere: columns have mean 0 and covariance 1 / rows."""
    keys = jax.random.split(jax.random.key(0), 4000)
    x = jax.jit(jax.vmap(lambda key: orthogonal(1.0)(key, (4, 2))))(keys)
    np.testing.assert_allclose(
        jnp.mean(x, 0), np.zeros((4, 2)), atol=4 * 0.5 / 4000**0.5
    )
    covariance = np.einsum("nic,njc->ij", x, x) / 8000
    np.testing.assert_allclose(covariance, np.eye(4) / 4, atol=0.02)


def test_orthogonal_under_vmap_gives_the_same_matrices():
    """Batched QR decompositions may never return on CPU; this must."""

    def init(key):
        return orthogonal(2.0)(key, (64, 64))

    keys = jax.random.split(jax.random.key(0), 32)
    members = jax.jit(jax.vmap(init))(keys)
    alone = jax.jit(init)
    for member, key in zip(members, keys, strict=True):
        np.testing.assert_allclose(member, alone(key), atol=1e-5)


def test_orthogonal_uses_no_decomposition():
    jaxpr = str(jax.make_jaxpr(lambda k: orthogonal(1.0)(k, (8, 4)))(jax.random.key(0)))
    assert "dot_general[" in jaxpr
    decompositions = r"\b(qr|geqrf|householder_product|svd|eigh|cholesky|lu)\b"
    assert not re.search(decompositions, jaxpr)
    flax = nn.initializers.orthogonal()
    assert re.search(
        decompositions, str(jax.make_jaxpr(flax, 1)(jax.random.key(0), (8, 4)))
    )


def test_layers_start_orthogonal_with_gain_for_the_activation_and_no_bias():
    params = Linear(4).init(jax.random.key(0), jnp.zeros((1, 16)))["params"]
    np.testing.assert_allclose(
        params["kernel"].T @ params["kernel"], 2.0 * np.eye(4), atol=1e-5
    )
    np.testing.assert_array_equal(params["bias"], np.zeros(4))


def test_mlp_applies_its_layers_in_turn():
    mlp = MLP((5, 3), jnp.tanh)
    x = normal(0, (6, 4))
    params = mlp.init(jax.random.key(1), x)
    params = jax.tree.map(lambda leaf: normal(2, leaf.shape), params)
    y = np.asarray(x)
    for layer in params["params"].values():
        y = np.tanh(y @ layer["kernel"] + layer["bias"])
    assert y.shape == (6, 3)
    np.testing.assert_allclose(mlp.apply(params, x), y, rtol=1e-4, atol=1e-5)


def test_swish_is_jaxs_with_its_slope():
    x = jnp.linspace(-30.0, 30.0, 1001)
    value, slope = jax.jvp(swish, (x,), (2.0 * jnp.ones_like(x),))
    expected = jax.jvp(jax.nn.swish, (x,), (2.0 * jnp.ones_like(x),))
    np.testing.assert_allclose(value, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(swish(x), value, rtol=1e-6)
    np.testing.assert_allclose(slope, expected[1], rtol=1e-5, atol=1e-5)
