"""Images are convolved over height and width, and integers come scaled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.networks import NetworkConfig, actor_critic, observations
from jaxrl_par.types import Box, Discrete, TimeStep

BYTE = np.dtype(np.uint8)


def parameters(spec, **options):
    """Shapes of a network's parameters, and what it makes of three observations."""
    net = actor_critic(spec, Discrete(3), NetworkConfig(widths=(8,), **options))
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (3, *spec.shape)).astype(spec.dtype)
    no = jnp.zeros(3, bool)
    return net, TimeStep(jnp.asarray(obs), no, no)


@pytest.mark.parametrize(
    ("spec", "layout", "shape"),
    [
        (Box((4, 84, 84), BYTE), "first", (84, 84, 4)),
        (Box((3, 64, 48)), "first", (64, 48, 3)),
        (Box((4, 10, 10)), "first", (10, 10, 4)),
        (Box((3, 9, 12), BYTE), "first", (9, 12, 3)),
        (Box((84, 84), BYTE), "none", (84, 84, 1)),
        (Box((84, 84, 4), BYTE), "last", (84, 84, 4)),
        (Box((5, 7, 16)), "last", (5, 7, 16)),
        (Box((3, 3, 6)), "last", (3, 3, 6)),
        (Box((84, 84)), None, None),
        (Box((4, 128), BYTE), None, None),
        (Box((2, 84, 1)), None, None),
        (Box((128,), BYTE), None, None),
    ],
    ids=str,
)
def test_the_axes_of_an_image_are_found(spec, layout, shape):
    assert observations.layout(spec) == layout
    if layout:
        assert observations.image_shape(spec) == shape


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("shape", "moved"),
    [
        ((4, 36, 40), lambda x: jnp.moveaxis(x, -3, -1)),
        ((36, 40), lambda x: x[..., None]),
    ],
)
def test_an_image_with_other_axes_is_read_as_the_same_image(shape, moved):
    net, step = parameters(Box(shape, BYTE))
    usual = moved(step.obs)
    same, _ = parameters(Box(usual.shape[1:], BYTE))
    params = jax.jit(net.init)(jax.random.key(0), step)
    expected = jax.jit(same.apply)(params, (), step._replace(obs=usual))
    found = jax.jit(net.apply)(params, (), step)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("spec", "given", "expected"),
    [
        (Box((2,), BYTE), [0, 255], [0, 1]),
        (Box((2,), BYTE, 0.0, 15.0), [0, 15], [0, 1]),
        (Box((2,), BYTE, np.array([10, 0]), np.array([20, 1])), [15, 1], [0.5, 1]),
        (Box((2,), np.dtype(np.int8)), [-128, 127], [0, 1]),
        (Box((2,), np.dtype(np.uint16), 0.0, 65535.0), [0, 65535], [0, 1]),
        (Box((2,), np.dtype(np.int32), -5.0, 5.0), [-5, 0], [0, 0.5]),
        (Box((2,), np.dtype(np.int32), -(2.0**31), 2.0**31 - 1), [-7, 3], [-7, 3]),
        (Box((2,), np.dtype(np.int16), -np.inf, 9.0), [-7, 3], [-7, 3]),
        (Box((2,), np.dtype(np.int32), 4.0, 4.0), [4, 4], [4, 4]),
        (Box((2,), np.dtype(np.float32), 0.0, 255.0), [0, 255], [0, 255]),
    ],
    ids=str,
)
def test_integers_are_scaled_by_their_bounds(spec, given, expected):
    found = observations.scaled(spec, jnp.asarray([given], spec.dtype))
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


@pytest.mark.slow
def test_memory_of_a_console_does_not_saturate_a_fresh_network():
    """Unscaled, one unit of a hundred is not saturated."""
    net, step = parameters(Box((128,), BYTE))
    params = net.init(jax.random.key(0), step)["params"]["torso"]["MLP_0"]["Linear_0"]
    x = observations.scaled(Box((128,), BYTE), step.obs) @ params["kernel"]
    assert np.mean(np.abs(np.tanh(x)) < 0.99) > 0.5


@pytest.mark.slow
def test_images_whose_upper_bound_is_not_255_are_scaled_too():
    spec = Box((36, 36, 1), BYTE, 0.0, 1.0)
    net, step = parameters(spec)
    step = step._replace(obs=step.obs % 2)
    floats = actor_critic(Box(spec.shape), Discrete(3), NetworkConfig(widths=(8,)))
    params = jax.jit(net.init)(jax.random.key(0), step)
    plain = step._replace(obs=step.obs.astype(jnp.float32))
    expected = jax.jit(floats.apply)(params, (), plain)
    found = jax.jit(net.apply)(params, (), step)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
