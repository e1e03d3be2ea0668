"""The cross-entropy method against a slow one, and where answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.algorithms.qt_opt import CEMConfig, cross_entropy
from jaxrl_par.algorithms.qt_opt.cem import candidates, refitted

KEYS = jax.random.split(random.key(0), 64)


def test_elites_are_refitted_with_the_std_of_all_of_them():
    """Trap 12: of .2 .4 .4 .5 .7 .8 it is 0.2, not 0.219; of one elite 0, not NaN."""
    elites = jnp.array([0.2, 0.4, 0.4, 0.5, 0.7, 0.8])[None, :, None]
    mean, std = refitted(elites, 0.0)
    np.testing.assert_allclose([mean[0, 0], std[0, 0]], [0.5, 0.2], rtol=1e-6)
    mean, std = refitted(elites[:, :1], 0.05)
    np.testing.assert_allclose([mean[0, 0], std[0, 0]], [0.2, 0.05], rtol=1e-6)


@pytest.mark.parametrize(
    "answer", ["best", pytest.param("mean", marks=pytest.mark.slow)]
)
def test_what_is_evaluated_is_what_is_refitted(answer):
    """Trap 12: of Q(a) = a on [-1, 1] the answer is 1, not 2.35 and not 1.60, and with
    the elites all there the floor acts."""
    given = []

    def values(unit):
        given.append(unit)
        return unit[..., 0]

    config = CEMConfig(answer=answer)
    with jax.disable_jit():
        found = cross_entropy(KEYS[:8], values, 1, config)
    np.testing.assert_allclose(found.unit, 1.0, atol=1e-6)
    np.testing.assert_allclose(found.value, 1.0, atol=1e-6)
    assert max(float(jnp.max(jnp.abs(x))) for x in given) <= 1.0
    second = given[1][..., 0]
    # Around 1 with a std of 0.05: about half of them are clipped, and none is far.
    assert 0.3 < float(jnp.mean(second == 1.0)) < 0.7
    assert float(jnp.min(second)) > 0.7 and float(jnp.min(second)) < 0.97


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["best", "mean"])
def test_it_is_as_near_as_the_sheet_says(answer):
    """Q(a) = -(a - a*)^2 in two dimensions: mean |a - a*| 0.037, 95 % below 0.09."""
    goal_key, key = jax.random.split(random.key(1))
    goal = jax.random.uniform(goal_key, (4096, 2), minval=-1.0, maxval=1.0)

    def values(unit):
        return -jnp.sum(jnp.square(unit - goal[:, None]), axis=-1)

    keys = jax.random.split(key, 4096)
    found = jax.jit(lambda: cross_entropy(keys, values, 2, CEMConfig(answer=answer)))()
    away = np.linalg.norm(found.unit - goal, axis=-1)
    # The mean of the elites is a little nearer than the best of them.
    assert abs(away.mean() - {"best": 0.037, "mean": 0.034}[answer]) < 0.0015
    assert np.mean(away < 0.09) > 0.95
    np.testing.assert_allclose(
        found.value, values(found.unit[:, None])[:, 0], atol=1e-6
    )


def slow(noise, values, config):
    """One state, candidate by candidate."""
    size = noise.shape[-1]
    mean, std = np.zeros(size), np.full(size, config.first_std)
    for drawn in noise:
        tried = [np.clip(mean + std * z, -1, 1) for z in drawn]
        order = sorted(range(len(tried)), key=lambda i: -values(tried[i]))
        elites = np.array([tried[i] for i in order[: config.num_elites]])
        mean = elites.sum(0) / len(elites)
        std = np.sqrt(((elites - mean) ** 2).sum(0) / len(elites))
        std = np.maximum(std, config.least_std)
    return elites[0] if config.answer == "best" else mean


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["best", "mean"])
def test_it_is_the_slow_one_in_each_state(answer):
    config = CEMConfig(16, 3, 3, first_std=0.7, least_std=0.1, answer=answer)
    goals = np.random.default_rng(0).uniform(-1.2, 1.2, (4, 2)).astype("f4")

    def values(unit):
        return -jnp.sum(jnp.abs(unit - goals[:, None]), axis=-1)

    found = cross_entropy(KEYS[:4], values, 2, config)
    for i, goal in enumerate(goals):
        noise = np.asarray(jax.random.normal(KEYS[i], (3, 16, 2)), np.float64)
        expected = slow(noise, lambda u, goal=goal: -np.abs(u - goal).sum(), config)
        np.testing.assert_allclose(found.unit[i], expected, atol=1e-5)


@pytest.mark.slow
def test_candidates_of_different_rows_and_dimensions_are_different():
    """Trap 7: one draw for each row, candidate and dimension."""
    noise = jax.vmap(lambda key: jax.random.normal(key, (5, 3)))(KEYS[:4])
    unit = candidates(jnp.zeros((4, 3)), jnp.full((4, 3), 0.1), noise)
    assert len(np.unique(unit)) == 4 * 5 * 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"num_elites": 65},
            "num_elites must be at most num_candidates = 64, got 65",
        ),
        ({"num_elites": 0}, "num_elites must be at least 1, got 0"),
        ({"num_iterations": 0}, "num_iterations must be at least 1"),
        ({"first_std": 0.0}, "first_std must be above 0"),
        ({"least_std": -0.1}, "least_std must be at least 0"),
    ],
)
def test_bad_settings_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(KEYS, lambda unit: unit[..., 0], 1, CEMConfig(**changed))
