"""Targets: renewed in periods, or following at a rate."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.targets import polyak, renewed


@pytest.mark.parametrize("period", [1, 2, 3])
def test_a_target_is_that_of_every_so_many_updates(period):
    target, phase, seen = jnp.float32(0), jnp.int32(0), []
    for update in range(1, 8):
        target, phase = renewed(jnp.float32(update), target, phase, period)
        seen.append(int(target))
    assert seen == [update // period * period for update in range(1, 8)]


def test_a_target_that_follows_goes_its_share_of_the_way():
    new, old = {"x": jnp.array([1.0, 2.0])}, {"x": jnp.array([0.0, 4.0])}
    moved = polyak(new, old, 0.25)
    np.testing.assert_allclose(moved["x"], [0.25, 3.5])
