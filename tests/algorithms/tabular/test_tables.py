import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.algorithms.tabular import tables
from jaxrl_par.algorithms.tabular.tables import (
    HARMONIC,
    POLYNOMIAL,
    StepSize,
    constant,
    new_table,
    step_sizes,
)

updated = jax.jit(tables.updated, static_argnames="rule")
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def one(x, dtype=jnp.float32):
    return jnp.array([x], dtype)


def after_each(targets, rule, value):
    """The values of an entry as it is moved to one target after the other."""
    table, values = new_table((3,), value), []
    for target in targets:
        table = updated(table, (one(1, jnp.int32),), one(target), rule=rule)
        values.append(float(table.values[1]))
    np.testing.assert_array_equal(table.visits, [0, len(targets), 0])
    np.testing.assert_array_equal(table.values[jnp.array([0, 2])], [value, value])
    return values


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (StepSize(0.5, 1.0), [7.0, 5.75, 5.791667]),
        (HARMONIC, [4.0, 3.0, 4.0]),
        (constant(0.5), [7.0, 4.5, 5.25]),
        (POLYNOMIAL, [4.0, 2.76885, 4.26639]),
    ],
)
def test_rules_of_steps_give_the_lectures_numbers(rule, expected):
    """Targets 4, 2, 6 from 10. Polynomial: alpha 1, 2**-0.7 and 3**-0.7."""
    np.testing.assert_allclose(after_each([4, 2, 6], rule, 10.0), expected, **CLOSE)


def test_harmonic_steps_keep_the_mean_and_constant_ones_recency_weights():
    targets = np.random.default_rng(0).normal(size=30)
    np.testing.assert_allclose(
        after_each(targets, HARMONIC, 5.0)[-1], targets.mean(), **CLOSE
    )
    weights = 0.2 * 0.8 ** np.arange(30)[::-1]
    expected = weights @ targets + 0.8**30 * 5.0
    np.testing.assert_allclose(
        after_each(targets, constant(0.2), 5.0)[-1], expected, **CLOSE
    )


def test_steps_fall_with_the_visits():
    visits = jnp.array([0, 1, 9, 2**30])
    np.testing.assert_allclose(
        step_sizes(HARMONIC, visits), 1 / (1 + np.asarray(visits)), rtol=1e-5
    )
    np.testing.assert_allclose(
        step_sizes(StepSize(0.3, 0.5), visits[:3]), 0.3 / np.sqrt([1, 2, 10]), rtol=1e-5
    )
    np.testing.assert_array_equal(step_sizes(constant(0.3), visits), np.float32(0.3))


@pytest.mark.sample(1)
@pytest.mark.parametrize("rule", [HARMONIC, POLYNOMIAL, constant(0.4)])
def test_workers_at_the_same_entry_share_a_step(rule):
    """Against a loop over entries; entries named once, twice and three times."""
    rng = np.random.default_rng(0)
    table = new_table((3, 2), 2.0)
    earlier = (jnp.array([0, 1, 1]), jnp.array([1, 0, 1]))
    table = updated(table, earlier, jnp.array([1.0, 3.0, 2.0]), rule=rule)
    states, actions = np.array([0, 2, 0, 1, 0, 2]), np.array([1, 0, 1, 1, 1, 1])
    targets = rng.normal(size=6)
    found = updated(
        table,
        (jnp.asarray(states), jnp.asarray(actions)),
        jnp.asarray(targets, jnp.float32),
        rule=rule,
    )
    for s, a in np.ndindex(3, 2):
        mine = targets[(states == s) & (actions == a)]
        value, visits = float(table.values[s, a]), int(table.visits[s, a])
        if len(mine):
            value += rule.rate * (visits + 1) ** -rule.power * (mine.mean() - value)
        np.testing.assert_allclose(found.values[s, a], value, **CLOSE)
        assert found.visits[s, a] == visits + len(mine)


def test_workers_at_different_entries_do_not_matter_to_each_other():
    index, targets = jnp.array([0, 2]), jnp.array([1.0, -1.0])
    table = new_table((3,), 0.5)
    together = updated(table, (index,), targets, rule=POLYNOMIAL)
    for i in range(2):
        table = updated(table, (index[i : i + 1],), targets[i : i + 1], rule=POLYNOMIAL)
    jax.tree.map(np.testing.assert_array_equal, together, table)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (StepSize(1.1), r"rate must be in \[0, 1\], got 1.1"),
        (StepSize(-0.1), "rate"),
        (StepSize(float("nan")), "rate"),
        (StepSize(1.0, 1.5), r"power must be in \[0, 1\], got 1.5"),
        (StepSize(1.0, -0.5), "power"),
    ],
)
def test_rules_out_of_range_are_named(rule, message):
    (problem,) = rule.problems()
    with pytest.raises(ValueError, match=message):
        raise ValueError(problem)
    assert not POLYNOMIAL.problems()


def test_traced_numbers_are_not_judged():
    def rule(rate):
        assert not StepSize(rate).problems()
        assert len(StepSize(rate, 2.0).problems()) == 1
        return rate

    jax.jit(rule)(3.0)
