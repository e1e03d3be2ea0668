"""What the learner on a mesh gives to others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrl_par.bridge.actor_learner.learner import copied
from jaxrl_par.topologies.sharded import data_mesh


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
