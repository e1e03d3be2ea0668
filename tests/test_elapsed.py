"""Environment steps in a learner's state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.elapsed import Elapsed, passed
from jaxrl_par.types import Count


class State(NamedTuple):
    params: dict
    inner: tuple


def test_every_clock_in_a_state_is_told_and_nothing_else_changes():
    state = State({"w": jnp.ones(3)}, (Elapsed.zero(), {"a": Elapsed.zero()}, ()))
    after = jax.jit(passed)(passed(state, 999_999), jnp.int32(7))
    first, second = after.inner[0], after.inner[1]["a"]
    assert int(first.env_steps) == int(second.env_steps) == 1_000_006
    np.testing.assert_array_equal(after.params["w"], state.params["w"])
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_a_fraction_is_of_all_steps_and_at_most_1():
    elapsed = Elapsed(Count(jnp.int32(2500), jnp.int32(500_000)))
    for total, expected in ((10_002_000_000, 0.25), (2 * 10**9, 1.0), (1, 1.0)):
        np.testing.assert_allclose(elapsed.fraction(total), expected, rtol=1e-6)
    assert Elapsed.zero().fraction(0.5) == 0
    traced = jax.jit(Elapsed.fraction)(passed(Elapsed.zero(), 3), jnp.float32(12))
    np.testing.assert_allclose(traced, 0.25)
