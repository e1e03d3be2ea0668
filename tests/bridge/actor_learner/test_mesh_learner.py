"""What the learner on a mesh gives to others."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrl_par.bridge.actor_learner.learner import MeshLearner, copied
from jaxrl_par.bridge.reports import Tally
from jaxrl_par.bridge.unrolled import Episodes, Unrolled
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.types import TimeStep, Trajectory


@pytest.mark.parametrize("num_devices", [1, 2])
def test_what_acts_outlives_the_update_that_takes_the_memory(num_devices):
    """Also of parameters that several devices have: jax gives one's as they are."""
    sharding = NamedSharding(data_mesh(num_devices), P())
    state = jax.device_put(
        {"weights": jnp.arange(6.0), "key": jax.random.key(1)}, sharding
    )
    expected = jax.device_get(jax.random.key_data(state["key"]))
    params = copied(state, jax.devices("cpu")[0])
    jax.block_until_ready(
        jax.jit(lambda x: {**x, "weights": x["weights"] + 1}, donate_argnums=0)(state)
    )
    assert state["weights"].is_deleted()
    np.testing.assert_array_equal(params["weights"], np.arange(6.0))
    np.testing.assert_array_equal(jax.random.key_data(params["key"]), expected)


def test_the_lag_of_an_unroll_is_counted_row_by_row():
    """F8: five rows that 7, 7, 8, 8 and 9 acted in, when 10 learns."""
    versions = np.repeat(np.array([[7], [7], [8], [8], [9]], np.int32), 2, axis=1)
    flags = np.zeros((6, 2), bool)
    zeros = np.zeros((5, 2), np.float32)
    extras = {"version": versions}
    rows = Trajectory(TimeStep(flags, flags, flags), *(zeros,) * 3, extras, ())
    none = Episodes(0.0, 0.0, 0)
    item = Unrolled(0, 0, 0, 7, rows, none, {}, None)  # pyright: ignore
    tally = Tally()
    told = MeshLearner.count(SimpleNamespace(_tally=tally), [item], 10)
    assert told["lag"].total / told["lag"].count == np.float32(2.2)
    assert told["lag_max"].total == 3
    assert dict(tally.lags) == {3: 4, 2: 4, 1: 2}
    assert tally.env_steps == 10
