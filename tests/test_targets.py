"""Targets: renewed in periods, or following at a rate."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.algorithms.actor_critic import TD3Config
from jaxrl_par.errors import problems
from jaxrl_par.targets import lost_steps, polyak, renewed


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


def test_a_period_that_no_float_holds_is_out_of_range_and_no_error():
    assert lost_steps(0.005, 10**400) == []
    assert problems(TD3Config(target_period=10**400)) == [
        "target_period must be at most 2147483647, got an integer of 1329 bits"
    ]
