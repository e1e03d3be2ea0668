"""What instances exchange along an axis, and that one of them is a program alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.axis import Axis

AXIS = Axis("data")
ROWS = np.arange(24.0, dtype=np.float32).reshape(4, 2, 3)


def mapped(function, *inputs):
    """By every one of the instances, [4, ...]."""
    return jax.jit(jax.vmap(function, axis_name="data"))(*inputs)


def test_every_instance_gets_the_rows_of_all_in_their_order():
    found = mapped(AXIS.gather, ROWS)
    np.testing.assert_array_equal(found, np.stack([ROWS.reshape(8, 3)] * 4))


@pytest.mark.parametrize("name", ["mean", "sum", "max", "gather"])
def test_alone_nothing_is_exchanged(name):
    tree = {"x": jnp.arange(3.0)}
    assert getattr(Axis(), name)(tree) is tree


def test_index_and_size_say_where_an_instance_is():
    found = mapped(lambda x: (AXIS.index + 0 * x, AXIS.size + 0 * x), jnp.zeros(4))
    np.testing.assert_array_equal(found[0], [0, 1, 2, 3])
    np.testing.assert_array_equal(found[1], [4, 4, 4, 4])
    assert (Axis().index, Axis().size) == (0, 1)


def test_a_program_alone_draws_what_the_first_instance_does():
    key = random.key(0)
    drawn = mapped(lambda x: jax.random.uniform(AXIS.own(key)) + 0 * x, jnp.zeros(4))
    assert drawn[0] == jax.random.uniform(Axis().own(key))
    assert len(np.unique(drawn)) == 4


@pytest.mark.parametrize("name", ["sum", "mean"])
def test_several_processes_add_in_the_order_of_their_devices(monkeypatch, name):
    """As devices of one process do. float32 has steps of 8 at 1e8: pairs would give 0
    in the second column, and the last ones first 0 in the first."""
    rows = {
        "x": np.array([[1e8, 1e8], [-1e8, 1], [1, -1e8], [1, 1]], np.float32),
        "y": ROWS,
        "count": np.arange(4, dtype=np.int32),
    }
    expected = mapped(getattr(AXIS, name), rows)
    monkeypatch.setattr(Axis, "_in_order", property(lambda axis: True))
    found = mapped(getattr(AXIS, name), rows)
    assert jax.tree.map(jnp.result_type, found) == jax.tree.map(
        jnp.result_type, expected
    )
    size = 4 if name == "mean" else 1
    np.testing.assert_array_equal(found["x"], np.full((4, 2), [2 / size, 1 / size]))
    np.testing.assert_array_equal(found["count"], np.full(4, 6 / size))
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-6)
