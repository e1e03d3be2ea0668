import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.algorithms.tabular import td
from jaxrl_par.algorithms.tabular.mdp import Transition
from jaxrl_par.algorithms.tabular.parallel import accumulated, averaged
from jaxrl_par.algorithms.tabular.tables import HARMONIC, Table, constant, new_table

replay = jax.jit(td.replay, static_argnames=("rule", "num_sweeps"))
W, N, S = 4, 30, 5


def samples(seed, shape):
    """Transitions without successors that count."""
    rng = np.random.default_rng(seed)
    states = jnp.asarray(rng.integers(0, S - 1, shape), jnp.int32)
    rewards = jnp.asarray(rng.normal(size=shape), jnp.float32)
    zeros = jnp.zeros(shape, jnp.int32)
    return Transition(states, zeros, rewards, jnp.zeros(shape), zeros)


def test_the_average_of_workers_is_one_worker_that_saw_everything():
    """State 4 was seen by nobody: it keeps its first value."""
    apart = samples(0, (W, N))
    start = new_table((S,), 3.0)
    tables = jax.vmap(lambda rows: replay(start, rows, rule=HARMONIC, num_sweeps=1))(
        apart
    )
    assert np.ptp(np.asarray(tables.visits), axis=0).max() > 0
    together = jax.tree.map(lambda x: x.reshape(-1), apart)
    alone = replay(start, together, rule=HARMONIC, num_sweeps=1)
    found = averaged(tables)
    np.testing.assert_allclose(found.values, alone.values, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.visits, alone.visits)
    assert found.values[4] == 3.0


def test_what_one_worker_did_not_see_does_not_count():
    tables = Table(jnp.array([[8.0, 2.0], [5.0, 4.0]]), jnp.array([[0, 0], [2, 0]]))
    found = averaged(tables)
    np.testing.assert_allclose(found.values, [5.0, 3.0])
    np.testing.assert_array_equal(found.visits, [2, 0])


def test_changes_add_up_where_a_table_written_back_would_lose_them():
    """Each worker learns about one state only, so that nothing may be lost."""
    start = Table(jnp.arange(4.0), jnp.arange(4))

    def local(worker):
        state = jnp.full(N, worker, jnp.int32)
        rows = samples(0, (N,))._replace(state=state, reward=jnp.full(N, 10.0))
        return replay(start, rows, rule=constant(0.5), num_sweeps=1)

    tables = jax.vmap(local)(jnp.arange(4))
    found = accumulated(start, tables)
    np.testing.assert_allclose(found.values, 10.0, rtol=1e-6)
    np.testing.assert_array_equal(found.visits, np.arange(4) + N)
    theta = start
    for worker in range(4):  # theta <- theta_local, one after the other
        theta = jax.tree.map(lambda x, worker=worker: x[worker], tables)
    np.testing.assert_allclose(theta.values, [0.0, 1.0, 2.0, 10.0], rtol=1e-6)


def test_changes_of_one_worker_are_its_table():
    start = new_table((S,), 1.0)
    table = replay(start, samples(0, (N,)), rule=HARMONIC, num_sweeps=1)
    found = accumulated(start, jax.tree.map(lambda x: x[None], table))
    np.testing.assert_allclose(found.values, table.values, rtol=1e-6)
    np.testing.assert_array_equal(found.visits, table.visits)
