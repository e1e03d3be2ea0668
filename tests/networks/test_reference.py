"""Layers normalised over a reference batch, against formulas written out."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.masks import Masked
from jaxrl_par.networks import NetworkConfig, policy_network
from jaxrl_par.networks.heads import uniform_actions
from jaxrl_par.types import Box, Discrete, TimeStep

EPSILON = 1e-3
NUMBERS, IMAGE = Box((4,)), Box((5, 4, 2))
SMALL = NetworkConfig(widths=(6, 3), channels=2)


def made(spec, config=SMALL, num_rows=16):
    """The network, parameters with biases, a reference batch, and other steps."""
    network = policy_network(spec, Discrete(3), config)
    keys = jax.random.split(random.key(0), 3)
    flags = jnp.zeros(num_rows, bool)
    # Far from 0, as no initialiser expects.
    reference, others = (
        5.0 + 3.0 * jax.random.normal(x, (num_rows, *spec.shape)) for x in keys[:2]
    )
    steps = TimeStep(others, flags, flags)
    params = network.init(keys[2], steps)
    params = jax.tree.map(
        lambda x: x + 0.3 * jnp.sin(1.0 + jnp.arange(x.size)).reshape(x.shape), params
    )
    return network, params, reference, steps


def logits(network, params, steps):
    (policy, _), _ = network.apply(params, (), steps)
    return np.asarray(policy.logits)


def as_written(params, reference, obs):
    """Logits of the paper's layers: (x W - mean) / std + b, in float64."""
    leaves = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    rows, seen = (np.asarray(x, np.float64) for x in (obs, reference))
    torso = leaves["torso"]
    if "PatchConv_0" in torso:
        layer = torso["PatchConv_0"]["Linear_0"]
        seen, rows = _normalised(_patches(seen), layer, _patches(rows))
    for name in ("Linear_0", "Linear_1"):
        seen, rows = _normalised(seen, torso["MLP_0"][name], rows)
    return rows @ leaves["_Heads_0"]["policy"] + leaves["_Heads_0"]["policy_bias"]


def _normalised(reference, layer, rows):
    before = reference @ layer["kernel"]
    axes = tuple(range(before.ndim - 1))
    mean, std = before.mean(axes), np.sqrt(before.var(axes) + EPSILON)
    given = (reference, rows)
    found = [np.tanh((x @ layer["kernel"] - mean) / std + layer["bias"]) for x in given]
    if before.ndim == 2:
        return found
    return [x.reshape(len(x), -1) for x in found]


def _patches(images):
    """[N, H, W, C] to [N, H', W', 9 C]."""
    height, width = images.shape[1] - 2, images.shape[2] - 2
    return np.array(
        [
            [
                [image[i : i + 3, j : j + 3].reshape(-1) for j in range(width)]
                for i in range(height)
            ]
            for image in images
        ]
    )


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(NUMBERS, marks=pytest.mark.slow, id="mlp"),
        pytest.param(IMAGE, id="conv"),
    ],
)
def test_every_layer_is_normalised_as_in_the_paper(spec):
    network, params, reference, steps = made(spec)
    found = logits(network, network.normalized(params, reference), steps)
    expected = as_written(params, reference, steps.obs)
    np.testing.assert_allclose(
        found - found[:, :1], expected - expected[:, :1], atol=2e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize(("torso", "side"), [("shallow", 36), ("deep", 8)])
def test_kernels_of_any_scale_give_the_same(torso, side):
    config = NetworkConfig(torso=torso, widths=(8,))
    network, params, reference, steps = made(Box((side, side, 3)), config, 4)

    def times(factor):
        return jax.tree.map_with_path(
            lambda path, x: factor * x if path[-1].key == "kernel" else x, params
        )

    # Those of the initialiser are small enough for epsilon to be seen.
    one, other = (
        logits(network, network.normalized(times(factor), reference), steps)
        for factor in (50.0, 500.0)
    )
    assert np.abs(one - logits(network, params, steps)).max() > 0.1
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_what_never_changes_in_the_batch_stays_finite():
    network, params, reference, steps = made(NUMBERS)
    same = jnp.broadcast_to(reference[:1], reference.shape)
    assert np.all(np.isfinite(logits(network, network.normalized(params, same), steps)))


def test_memory_has_no_reference_batch():
    config = replace(SMALL, memory="gru", memory_width=4)
    assert policy_network(NUMBERS, Discrete(3), config).normalized is None


def test_random_play_is_uniform_over_what_is_allowed():
    allowed = jnp.broadcast_to(jnp.array([True, False, True]), (3_000, 3))
    obs = Masked(jnp.zeros((3_000, 4)), allowed)
    spec = Masked(NUMBERS, Box((3,), np.dtype(bool), 0.0, 1.0))
    action = uniform_actions(spec, Discrete(3), obs, random.key(0))
    counts = np.bincount(np.asarray(action), minlength=3)
    assert counts[1] == 0 and abs(counts[0] - 1_500) < 4 * 750**0.5
    bounded = Box((2,), low=10.0, high=30.0)
    action = uniform_actions(NUMBERS, bounded, jnp.zeros((3_000, 4)), random.key(1))
    assert action.shape == (3_000, 2)
    assert 10.0 <= action.min() < 12.0 < 28.0 < action.max() <= 30.0
