"""Image networks against slow loops and JAX's own convolution, pooling, gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxrl_par.networks import images
from jaxrl_par.networks.images import Conv, Deep, Residual, Shallow, convolve, max_pool

# Images, window, stride, padding; the last have rows that no window reaches.
CONVOLUTIONS = [
    ((6, 9, 8, 2), 3, 1, 1),
    ((6, 5, 4, 3), 3, 1, 0),
    ((4, 20, 16, 2), 8, 4, 0),
    ((4, 11, 9, 2), 4, 2, 0),
    ((7, 10, 9, 1), 4, 2, 1),
]
every_convolution = pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)


def normal(seed, shape, scale=1.0):
    rng = np.random.default_rng(seed)
    return jnp.array(scale * rng.normal(size=shape), jnp.float32)


def arguments(case, features=3):
    shape, window, stride, padding = case
    kernel = normal(1, (window, window, shape[3], features))
    return normal(0, shape), kernel, normal(2, (features,)), stride, padding


def reference(x, kernel, bias, stride, padding):
    return bias + jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def gradients(function, x, params, *settings):
    """With respect to images, kernel and bias."""

    def loss(x, kernel, bias):
        return jnp.sum(jnp.sin(function(x, kernel, bias, *settings)))

    return jax.grad(loss, (0, 1, 2))(x, *params)


def assert_close(actual, expected, tolerance=1e-4):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(
            x, y, rtol=tolerance, atol=tolerance * max(1.0, float(jnp.abs(y).max()))
        ),
        actual,
        expected,
    )


@every_convolution
def test_convolution_is_a_loop_over_windows(case):
    x, kernel, bias, stride, padding = arguments(case)
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded, window = np.pad(x, sides), kernel.shape[0]
    height, width = ((size - window) // stride + 1 for size in padded.shape[1:3])
    expected = np.zeros((len(x), height, width, 3))
    for i in range(height):
        for j in range(width):
            rows, columns = slice(i * stride, None), slice(j * stride, None)
            patch = padded[:, rows, columns][:, :window, :window]
            expected[:, i, j] = np.einsum("nhwc,hwcf->nf", patch, kernel) + bias
    assert_close(convolve(x, kernel, bias, stride, padding), expected)


@pytest.mark.sample(2)
@every_convolution
@pytest.mark.parametrize("chunk", [1, 1000, 2**19])
def test_convolution_has_the_gradients_of_jax(monkeypatch, case, chunk):
    monkeypatch.setattr(images, "_CHUNK", chunk)
    x, kernel, bias, *settings = arguments(case)
    actual = jax.jit(lambda *args: gradients(convolve, *args, *settings))
    expected = gradients(reference, x, (kernel, bias), *settings)
    assert_close(actual(x, (kernel, bias)), expected)


def test_convolution_has_the_gradients_of_jax_elsewhere_than_on_cpu(monkeypatch):
    def elsewhere(*args, cpu, default):
        del cpu
        return default(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", elsewhere)
    x, kernel, bias, *settings = arguments(CONVOLUTIONS[2])
    actual = gradients(convolve, x, (kernel, bias), *settings)
    assert_close(actual, gradients(reference, x, (kernel, bias), *settings))
    pooled = jax.grad(lambda x: jnp.sum(jnp.sin(max_pool(x))))(x)
    assert_close(pooled, jax.grad(lambda x: jnp.sum(jnp.sin(_plain_pool(x))))(x))


@pytest.mark.slow
def test_convolution_and_pooling_of_a_population_are_those_of_each_member():
    x, kernel, bias, *settings = arguments(CONVOLUTIONS[0])

    def function(*args):
        return max_pool(convolve(*args))

    def compute(x, params):
        return gradients(function, x, params, *settings)

    members = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), (x, (kernel, bias)))
    actual = jax.jit(jax.vmap(compute))(*members)
    for i in range(2):
        alone = compute(*jax.tree.map(lambda x, i=i: x[i], members))
        assert_close(jax.tree.map(lambda x, i=i: x[i], actual), alone)


@pytest.mark.parametrize("check_vma", [True, False])
def test_gradients_over_devices_add_up(check_vma):
    x, kernel, bias, *settings = arguments(CONVOLUTIONS[0])

    def function(*args):
        return max_pool(convolve(*args))

    def compute(x, params):
        found = gradients(function, x, params, *settings)
        # With the check, JAX has already summed what belongs to all devices.
        return found if check_vma else (found[0], *jax.lax.psum(found[1:], "data"))

    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    data, all_ = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(
        compute,
        mesh=mesh,
        in_specs=(data, all_),
        out_specs=(data, all_, all_),
        check_vma=check_vma,
    )
    assert_close(jax.jit(sharded)(x, (kernel, bias)), compute_alone(x, kernel, bias))


def compute_alone(x, kernel, bias):
    return gradients(
        lambda *args: _plain_pool(reference(*args)), x, (kernel, bias), 1, 1
    )


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("num_images", "expected"), [(6, 3), (8, 2), (7, 1), (2, 2), (1, 1)]
)
def test_chunks_are_as_many_images_as_fit_and_divide_all(
    monkeypatch, num_images, expected
):
    monkeypatch.setattr(images, "_CHUNK", 100)
    lengths = []

    def function(x, scale):
        lengths.append(len(x))
        return scale * x

    x = normal(0, (num_images, 2, 2, 1))
    dx, dscale = images._in_chunks(function, 30, x, jnp.float32(2.0), jnp.ones(x.shape))
    assert set(lengths) == {expected}
    np.testing.assert_array_equal(dx, np.full(x.shape, 2.0))
    np.testing.assert_allclose(dscale, x.sum(), rtol=1e-5)


def _plain_pool(x):
    return nn.max_pool(x, (3, 3), (2, 2), "SAME")


@pytest.mark.sample(2)
@pytest.mark.parametrize("size", [(8, 7), (9, 10), (84, 4), (11, 1)], ids=str)
def test_pooling_is_a_loop_over_windows(size):
    x = normal(0, (4, *size, 3)) - 5.0
    height, width = (-(-n // 2) for n in size)
    expected = np.zeros((4, height, width, 3))
    # Windows start at every second pixel, one earlier where sizes are odd.
    for i in range(height):
        for j in range(width):
            top, left = 2 * i - size[0] % 2, 2 * j - size[1] % 2
            window = x[:, max(top, 0) : top + 3, max(left, 0) : left + 3]
            expected[:, i, j] = window.max(axis=(1, 2))
    np.testing.assert_array_equal(max_pool(x), expected)


@pytest.mark.sample(2)
@pytest.mark.parametrize("size", [(8, 7), (9, 10), (11, 1)], ids=str)
@pytest.mark.parametrize("chunk", [1, 400, 2**19])
def test_pooling_has_the_gradient_of_jax(monkeypatch, size, chunk):
    monkeypatch.setattr(images, "_CHUNK", chunk)
    x = normal(0, (4, *size, 3)) - 5.0
    actual = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(max_pool(x)))))(x)
    expected = jax.grad(lambda x: jnp.sum(jnp.sin(_plain_pool(x))))(x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_equal_maxima_share_the_gradient():
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x)))(jnp.zeros((1, 8, 8, 1)))
    assert float(gradient.sum()) == 16.0 and float(gradient.max()) < 2.0


def random_params(module, x, seed=0):
    """Far from initial values, and in bounds: kernels of variance 2 / rows."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.array(
            rng.normal(size=leaf.shape) * (2 / leaf.shape[0]) ** 0.5, jnp.float32
        ),
        shapes,
    )


def plain(params, x, window=3, stride=1, padding=1):
    kernel = params["kernel"].reshape(window, window, x.shape[-1], -1)
    return reference(x, kernel, params["bias"], stride, padding)


def residual(params, x):
    y = plain(params["Conv_0"], jnp.maximum(x, 0))
    return x + plain(params["Conv_1"], jnp.maximum(y, 0))


def shallow(params, x):
    x = jnp.maximum(plain(params["Conv_0"], x, 8, 4, 0), 0)
    return jnp.maximum(plain(params["Conv_1"], x, 4, 2, 0), 0)


def deep(params, x):
    for i in range(3):
        x = _plain_pool(plain(params[f"Conv_{i}"], x))
        x = residual(params[f"Residual_{2 * i}"], x)
        x = residual(params[f"Residual_{2 * i + 1}"], x)
    return jnp.maximum(x, 0)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("module", "expected", "size"),
    [
        (Residual(), residual, (5, 6, 4)),
        (Shallow(), shallow, (36, 40, 3)),
        (Deep(), deep, (9, 8, 3)),
    ],
    ids=["residual", "shallow", "deep"],
)
def test_networks_are_the_papers_with_jaxs_gradients(module, expected, size):
    x = normal(0, (2, *size))
    params = random_params(module, x)

    def both(function):
        def loss(params, x):
            y = function(params, x)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)

    plainly = both(lambda params, x: expected(params["params"], x))
    assert_close(both(module.apply), plainly, 2e-4)
    assert float(jnp.std(plainly[0][1])) > 0.1


def test_residual_blocks_with_a_zero_second_convolution_change_nothing():
    x = normal(0, (2, 5, 6, 4))
    params = random_params(Residual(), x)["params"]
    params["Conv_1"] = jax.tree.map(jnp.zeros_like, params["Conv_1"])
    np.testing.assert_array_equal(Residual().apply({"params": params}, x), x)


@pytest.mark.parametrize(
    ("module", "size", "shape", "num_params"),
    [
        (Shallow(), (84, 84, 4), (9, 9, 32), 8 * 8 * 4 * 16 + 16 + 16 * 16 * 32 + 32),
        (Shallow(), (36, 36, 4), (3, 3, 32), 8 * 8 * 4 * 16 + 16 + 16 * 16 * 32 + 32),
        (Shallow(), (72, 96, 3), (7, 10, 32), 8 * 8 * 3 * 16 + 16 + 16 * 16 * 32 + 32),
        (
            Deep(),
            (84, 84, 4),
            (11, 11, 32),
            (36 * 16 + 16 + 4 * (144 * 16 + 16))
            + (144 * 32 + 32 + 4 * (288 * 32 + 32))
            + 5 * (288 * 32 + 32),
        ),
        (Deep(), (72, 96, 3), (9, 12, 32), 97_744 - 9 * 16),
    ],
)
def test_networks_have_the_papers_sizes(module, size, shape, num_params):
    def both(key):
        return module.init_with_output(key, jnp.zeros((2, *size)))

    y, params = jax.eval_shape(both, jax.random.key(0))
    assert y.shape == (2, *shape)
    assert sum(x.size for x in jax.tree.leaves(params)) == num_params


def test_a_feature_of_the_deep_network_sees_its_receptive_field():
    """Backwards from row 0: four convolutions, a pooling and a convolution, thrice.

    0 -> 4 -> 10 -> 11 -> 15 -> 32 -> 33 -> 37 -> 76 -> 77. All weights are positive, so
    that what grows somewhere grows wherever it is seen.
    """
    x = jnp.ones((1, 160, 8, 1))
    params = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, 1 / leaf.shape[0]),
        jax.eval_shape(Deep().init, jax.random.key(0), x),
    )
    apply = jax.jit(Deep().apply)
    before, seen, beyond = (
        apply(params, y)[0, 0] for y in (x, x.at[:, 77].add(1e9), x.at[:, 78:].add(1e9))
    )
    np.testing.assert_array_equal(beyond, before)
    assert np.all(seen > before)


@pytest.mark.slow
def test_kernels_start_orthogonal_and_biases_at_zero():
    for module, gain in ((Shallow(), 2.0), (Deep(), 1.0)):
        init = jax.jit(module.init)
        params = init(jax.random.key(0), jnp.zeros((1, 40, 40, 4)))
        for leaf in jax.tree.leaves(params):
            if leaf.ndim == 1:
                np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))
            else:
                square = leaf.T @ leaf
                np.testing.assert_allclose(
                    square, gain * np.eye(len(square)), atol=1e-4
                )


@pytest.mark.sample(1)
@pytest.mark.parametrize("module", [Shallow(), Deep()], ids=["shallow", "deep"])
def test_features_and_gradients_start_in_bounds(module):
    x = jnp.abs(normal(0, (4, 40, 40, 4), 0.3))

    @jax.jit
    def compute(key, x):
        params = module.init(key, x)
        y, backward = jax.vjp(lambda x: module.apply(params, x), x)
        return y, backward(jnp.cos(100 * y))[0]

    y, dx = compute(jax.random.key(0), x)
    assert 0.05 < float(jnp.std(y)) < 2.0
    assert 0.01 < float(jnp.std(dx)) < 2.0


def test_strides_that_do_not_divide_the_window_are_refused():
    with pytest.raises(ValueError, match="stride 2 does not divide 3"):
        Conv(2, 3, 2).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
