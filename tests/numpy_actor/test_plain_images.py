"""Convolutions and pools of NumPy's actor, by slow loops."""

import numpy as np
import pytest

from jaxrl_par.numpy_actor import images
from jaxrl_par.numpy_actor.arrays import Arrays
from jaxrl_par.numpy_actor.images import Conv, MaxPool

RNG = np.random.default_rng(0)
B = 2


def drawn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("chunk", [2**19, 300])
@pytest.mark.parametrize("window, stride, padding", [(3, 1, 1), (4, 2, 0), (3, 1, 0)])
def test_a_convolution_is_a_sum_over_its_window(
    monkeypatch, window, stride, padding, chunk
):
    """In parts as well as at once."""
    monkeypatch.setattr(images, "_CHUNK", chunk)
    x, kernel, bias = drawn(3, 7, 6, B), drawn(window, window, 3, 4), drawn(4)
    arrays = {"c.kernel": kernel.reshape(-1, 4), "c.bias": bias}
    settings = {"window": window, "stride": stride, "padding": padding}
    conv = Conv(Arrays(arrays), "c", (3, 7, 6), 4, **settings)
    found = np.empty((*conv.shape, B), np.float32)
    inputs, run = conv.bind(B, found)
    for scale in (1, 2):  # buffers are used again
        inputs[...] = scale * x
        run()
        padded = np.zeros((3, 7 + 2 * padding, 6 + 2 * padding, B))
        padded[:, padding : padding + 7, padding : padding + 6] = scale * x
        for f, i, j in np.ndindex(*conv.shape):
            part = padded[:, i * stride :, j * stride :][:, :window, :window]
            expected = np.einsum("cijb,ijc->b", part, kernel[..., f]) + bias[f]
            np.testing.assert_allclose(found[f, i, j], expected, atol=1e-4)


@pytest.mark.parametrize("height, width", [(5, 4), (4, 5), (6, 6), (3, 1)])
def test_a_pool_has_the_maxima_around_every_second_pixel(height, width):
    """Where a side is odd that is the first, the third, ...; else the window begins
    at the border: (0, 1, 2), (2, 3, 4), ..."""
    x = drawn(2, height, width, B)
    pool = MaxPool(x)
    pool.run()
    assert pool.outputs.shape == (2, (height + 1) // 2, (width + 1) // 2, B)
    for i, j in np.ndindex(*pool.outputs.shape[1:3]):
        rows, columns = 2 * i - height % 2, 2 * j - width % 2
        part = x[:, max(rows, 0) : rows + 3, max(columns, 0) : columns + 3]
        np.testing.assert_array_equal(pool.outputs[:, i, j], part.max(axis=(1, 2)))
