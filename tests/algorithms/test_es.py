"""Evolution strategies: ranks, the direction against formulas, and what pairs share."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import random
from jaxrl_par.algorithms.es import ESConfig, ESState, centred_ranks, es
from jaxrl_par.axis import Axis
from jaxrl_par.distributions import Categorical
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import Network
from jaxrl_par.perturbations import (
    Evolving,
    NoiseConfig,
    noise_of,
    num_evolving,
    shifted,
)
from jaxrl_par.types import TimeStep, Trajectory

RAW = ESConfig(NoiseConfig(0.1), shaping="raw", weight_decay=0.0)


def parametrised(start) -> Network:
    """A network whose parameters are these; it acts at random."""
    return Network(
        init=lambda key, step: start,
        initial_carry=lambda num_envs: (),
        apply=lambda params, carry, step: ((Categorical(jnp.zeros((1, 2))), ()), carry),
        unroll=lambda params, carry, steps: ((), carry),
    )


def own_episodes() -> Trajectory:
    """One step in one environment, of which nothing is learned."""
    flags, number = jnp.zeros((2, 1), bool), jnp.zeros((1, 1))
    steps = TimeStep(jnp.zeros((2, 1, 1)), flags, flags)
    return Trajectory(steps, jnp.zeros((1, 1), int), number, number, {}, ())


def direction(start, fitness, config=RAW, num_pairs=2_000):
    """What is uphill, from the fitness of each member's parameters."""
    agent = es(parametrised(start), optax.sgd(1.0), config)
    state = ESState(start, ())
    key, params = random.key(3), agent.params(state)
    size = num_evolving(params)

    def of(pair, sign):
        offset = sign * config.noise.sigma * noise_of(config.noise, key, pair, size)
        return fitness(shifted(params, offset).params)

    pairs = jnp.arange(num_pairs)
    both = [jax.vmap(lambda i, sign=sign: of(i, sign))(pairs) for sign in (1, -1)]
    extras = {"fitness": jnp.stack(both, 1), "pairs": pairs, "noise_key": key}
    batch = agent.prepare(state, own_episodes()._replace(extras=extras), Axis())
    grads, _ = agent.grad(state, batch, random.key(0), Axis())
    return jax.tree.map(lambda x: np.asarray(-x), grads)


@pytest.mark.parametrize(
    ("fitness", "ranks"),
    [
        ([10.0, -5.0, 3.0, 0.0], [0.5, -0.5, 1 / 6, -1 / 6]),
        ([3.0, np.nan, 1.0, np.nan], [0.5, -1 / 3, 1 / 6, -1 / 3]),
        ([0.0, -0.0, 1.0, -1.0], [0.0, 0.0, 0.5, -0.5]),
        ([-3.0, -1.0, -2.0, -6.0, -5.0, -4.0], [0.1, 0.5, 0.3, -0.5, -0.3, -0.1]),
        ([7.0, 7.0], [0.0, 0.0]),
    ],
)
def test_ranks_share_ties_and_put_what_is_no_number_last(fitness, ranks):
    np.testing.assert_allclose(centred_ranks(jnp.array(fitness)), ranks, atol=1e-6)


def test_ranks_do_not_change_with_the_scale_of_fitness():
    fitness = random.key(0)
    fitness = jax.random.normal(fitness, (50,))
    same = centred_ranks(jnp.exp(3.0 * fitness) - 7.0)
    np.testing.assert_array_equal(centred_ranks(fitness), same)


def test_the_direction_of_a_linear_function_is_its_slope():
    slope = jnp.array([1.0, -2.0, 3.0])
    found = direction(jnp.zeros(3), lambda x: x @ slope, num_pairs=20_000)
    # The variance of (w.e) e_i is w.w + w_i^2.
    error = np.sqrt((14.0 + np.square(slope)) / 20_000)
    assert np.all(np.abs(found - slope) < 4 * error)


def test_leaves_have_noise_of_their_own():
    start = {"u": jnp.zeros(2), "v": jnp.zeros(2)}
    slope = jnp.array([1.0, 2.0])
    found = direction(start, lambda x: slope @ (x["u"] - x["v"]), num_pairs=20_000)
    error = np.sqrt((10.0 + np.square(slope)) / 20_000)
    assert np.all(np.abs(found["u"] - slope) < 4 * error)
    assert np.all(np.abs(found["v"] + slope) < 4 * error)


def test_the_direction_follows_the_paper():
    config = NoiseConfig(0.3)
    found = direction(
        jnp.arange(4.0),
        lambda x: -jnp.sum(x**2),
        ESConfig(config, "raw", 0.0),
        num_pairs=5,
    )
    total, key = np.zeros(4), random.key(3)
    for pair in range(5):
        noise = np.asarray(noise_of(config, key, jnp.int32(pair), 4), np.float64)
        plus, minus = (
            -np.sum((np.arange(4.0) + sign * 0.3 * noise) ** 2) for sign in (1, -1)
        )
        total += (plus - minus) * noise
    np.testing.assert_allclose(found, total / (2 * 5 * 0.3), rtol=1e-4)


@pytest.mark.slow
def test_what_does_not_depend_on_parameters_moves_nothing():
    found = direction(jnp.ones(3), lambda x: jnp.float32(5.0))
    np.testing.assert_array_equal(found, np.zeros(3))
    ranked = ESConfig(weight_decay=0.0)
    found = direction(jnp.ones(3), lambda x: jnp.float32(5.0), ranked)
    np.testing.assert_array_equal(found, np.zeros(3))


def test_weights_decay_whatever_was_played():
    start = jnp.array([2.0, -4.0])
    agent = es(parametrised(start), optax.sgd(1.0), ESConfig(weight_decay=0.25))
    state = ESState(start, optax.sgd(1.0).init(start))
    after: ESState = agent.apply(state, jnp.zeros(2), {})  # pyright: ignore
    np.testing.assert_allclose(after.params, [1.5, -3.0])


def test_noise_from_a_table_is_a_part_of_it():
    table = NoiseConfig(table_size=64)
    whole = noise_of(table, random.key(0), jnp.int32(0), 64)
    begins = set()
    for pair in range(20):
        part = np.asarray(noise_of(table, random.key(1), jnp.int32(pair), 60))
        (begin,) = [i for i in range(5) if np.array_equal(whole[i : i + 60], part)]
        begins.add(begin)
    assert begins == set(range(5))
    with pytest.raises(ValueError, match="table_size must be at least the 65"):
        noise_of(table, random.key(0), jnp.int32(0), 65)


def test_only_what_evolves_is_moved():
    params = {"own": Evolving(jnp.zeros(2)), "seen": jnp.ones(3)}
    assert num_evolving(params) == 2
    moved = shifted(params, jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(moved["own"].params, [1.0, 2.0])
    np.testing.assert_array_equal(moved["seen"], np.ones(3))


def test_every_part_that_evolves_has_noise_of_its_own():
    params = (Evolving(jnp.zeros(2)), Evolving(jnp.zeros(2)))
    first, second = shifted(params, jnp.arange(4.0))
    np.testing.assert_array_equal(first.params, [0.0, 1.0])
    np.testing.assert_array_equal(second.params, [2.0, 3.0])


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (ESConfig(NoiseConfig(sigma=0.0)), r"noise.sigma must be above 0, got 0.0"),
        (ESConfig(weight_decay=-1.0), "weight_decay must be at least 0, got -1.0"),
        (ESConfig(NoiseConfig(table_size=0)), "noise.table_size must be at least 1"),
    ],
)
def test_what_is_out_of_range_is_refused(config, told):
    with pytest.raises(RefusedError, match=told):
        es(parametrised(jnp.zeros(1)), optax.sgd(1.0), config)
