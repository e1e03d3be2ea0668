import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.algorithms.tabular import evaluation, td
from jaxrl_par.algorithms.tabular.evaluation import evaluate_by_sweeps
from jaxrl_par.algorithms.tabular.mdp import Transition, uniform_policy
from jaxrl_par.algorithms.tabular.model import estimate
from jaxrl_par.algorithms.tabular.problems import random_mdp, random_walk, two_state
from jaxrl_par.algorithms.tabular.tables import (
    HARMONIC,
    POLYNOMIAL,
    StepSize,
    constant,
    new_table,
)
from jaxrl_par.algorithms.tabular.td import learned_values, td_update

evaluate = jax.jit(evaluation.evaluate)
replay = jax.jit(td.replay, static_argnames=("rule", "num_sweeps"))
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
RULES = [HARMONIC, POLYNOMIAL, constant(0.1)]


def td_by_loops(transitions, rule, values):
    """One row of workers after the other: Sutton and Barto, equation 6.2."""
    values, visits = np.array(values, np.float64), np.zeros(len(values))
    rows = zip(*(np.asarray(x) for x in transitions), strict=True)
    for states, _, rewards, discounts, successors in rows:
        targets = rewards + discounts * values[successors]
        for s in set(states.tolist()):
            mine = states == s
            alpha = rule.rate / (visits[s] + 1) ** rule.power
            values[s] += alpha * (targets[mine].mean() - values[s])
            visits[s] += mine.sum()
    return values, visits


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [7, 1])
@pytest.mark.parametrize("rule", RULES)
def test_td_follows_its_definition(rule, num_workers):
    """On what it did itself. The first value 0.7 of the ends must not be read."""
    mdp = random_walk(5)
    learned, transitions = learned_values(
        jax.random.key(0),
        mdp,
        uniform_policy(mdp),
        rule,
        num_steps=60,
        num_workers=num_workers,
        initial_value=0.7,
    )
    assert transitions.state.shape == (60, num_workers)
    values, visits = td_by_loops(transitions, rule, np.full(7, 0.7))
    np.testing.assert_allclose(learned.table.values, values, **CLOSE)
    np.testing.assert_array_equal(learned.table.visits, visits)


@pytest.mark.slow
def test_a_worker_walks_on_from_where_it_came():
    mdp = random_walk(3)
    _, rows = learned_values(
        jax.random.key(0), mdp, uniform_policy(mdp), num_steps=200, num_workers=3
    )
    ended = np.asarray(rows.discount[:-1]) == 0
    assert ended.any()
    following = np.where(ended, 2, rows.next_state[:-1])
    np.testing.assert_array_equal(rows.state[1:], following)
    np.testing.assert_array_equal(ended, np.isin(rows.next_state[:-1], [0, 4]))
    lefts = np.asarray(rows.next_state) - np.asarray(rows.state) == -1
    np.testing.assert_array_equal(lefts, np.asarray(rows.action) == 0)


@pytest.mark.slow
def test_td_learns_the_policy_it_follows():
    """Not the uniform one: four of five steps go to the right."""
    mdp = random_walk(3)
    policy = jnp.tile(jnp.array([0.2, 0.8]), (5, 1))
    exact = evaluate(mdp, policy)

    def error(key):
        learned, _ = learned_values(key, mdp, policy, num_steps=4000)
        return learned.table.values - exact

    errors = jax.jit(jax.vmap(error))(jax.random.split(jax.random.key(0), 32))
    # About 1000 visits a state: steps of 0.008 leave each learner a deviation of 0.03.
    np.testing.assert_allclose(np.mean(errors, axis=0), 0.0, atol=0.02)


def errors_after(num_steps, rule):
    """Of 64 learners, where values are 3.8 and 2.5."""
    mdp = two_state()
    exact = evaluate(mdp, uniform_policy(mdp))

    def error(key):
        learned, _ = learned_values(
            key, mdp, uniform_policy(mdp), rule, num_steps=num_steps
        )
        return learned.table.values - exact

    return np.asarray(jax.jit(jax.vmap(error))(jax.random.split(jax.random.key(0), 64)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "tolerance"), [(POLYNOMIAL, 0.08), (constant(0.01), 0.15)]
)
def test_td_converges_to_the_values_of_the_policy(rule, tolerance):
    """After 10000 visits steps are 0.0016 and 0.01. Values remember some 1 / (step *
    (1 - gamma)) targets of deviation 0.7, which leaves errors of about 0.03 and 0.1.
    """
    errors = errors_after(20_000, rule)
    assert np.sqrt(np.mean(errors**2)) < tolerance
    assert np.all(np.abs(errors.mean(axis=0)) < 0.04)


@pytest.mark.slow
def test_harmonic_steps_forget_the_first_value_slowly():
    """The error falls like n**-(1 - gamma): to 0.79 where visits are tenfold."""
    early, late = (errors_after(n, HARMONIC).mean(axis=0) for n in (1000, 10_000))
    np.testing.assert_allclose(late / early, 10**-0.1, atol=0.03)


def cyclic_samples():
    rng = np.random.default_rng(0)
    mdp = random_mdp(jax.random.key(3), 4, 2, gamma=0.5)
    _, rows = learned_values(
        jax.random.key(1), mdp, uniform_policy(mdp), num_steps=40, num_workers=1
    )
    order = rng.permutation(40)
    return jax.tree.map(lambda x: x[order, 0], rows)


@pytest.mark.slow
def test_repeated_samples_are_worth_what_their_model_is():
    """TD(0) that sees forty samples again and again is certainty equivalent.

    The last steps are of 10000**-0.85 = 4e-4, times errors of about 1 whose sum over a
    sweep is 0.
    """
    rows, rule = cyclic_samples(), StepSize(1.0, 0.85)
    model = estimate(rows, 4, 2, 0.5)
    expected = evaluate(model.mdp, model.policy)
    found = replay(new_table((4,)), rows, rule=rule, num_sweeps=1000)
    np.testing.assert_allclose(found.values, expected, atol=1e-3)
    np.testing.assert_array_equal(found.visits, 1000 * model.counts.sum((1, 2)))


@pytest.mark.slow
def test_all_samples_at_once_are_a_sweep_over_their_model():
    """Forty workers on one table: with constant steps of 1, V_i = r^ + gamma P^ V."""
    rows = cyclic_samples()
    model = estimate(rows, 4, 2, 0.5)
    table = new_table((4,))
    for num_sweeps in range(1, 4):
        table = td_update(table, rows, constant(1.0))
        expected = evaluate_by_sweeps(model.mdp, model.policy, num_sweeps)
        np.testing.assert_allclose(table.values, expected, **CLOSE)


@pytest.mark.slow
def test_a_replay_goes_through_its_samples_in_order():
    rows = cyclic_samples()
    twice = jax.tree.map(lambda x: jnp.tile(x, 2), rows)
    values, _ = td_by_loops(
        jax.tree.map(lambda x: np.asarray(x)[:, None], twice), POLYNOMIAL, np.zeros(4)
    )
    found = replay(new_table((4,)), rows, rule=POLYNOMIAL, num_sweeps=2)
    np.testing.assert_allclose(found.values, values, **CLOSE)


@pytest.mark.slow
def test_thousands_of_learners_are_as_one_alone():
    """Each with steps of its own, on a problem of its own."""
    num_learners = 2048

    def learn(key, rate, power):
        mdp = random_mdp(key, 3, 2)
        rule = StepSize(rate, power)
        return learned_values(key, mdp, uniform_policy(mdp), rule, num_steps=50)

    keys = jax.random.split(jax.random.key(0), num_learners)
    rates = jnp.linspace(0.1, 1.0, num_learners)
    powers = jnp.linspace(1.0, 0.0, num_learners)
    learned, rows = jax.jit(jax.vmap(learn))(keys, rates, powers)
    table = learned.table
    assert len(np.unique(np.asarray(table.values[:, 0]))) > 2000
    alone = jax.jit(learn)
    for i in (0, 1000, 2047):
        expected, row = alone(keys[i], rates[i], powers[i])
        np.testing.assert_array_equal(rows.state[i], row.state)
        np.testing.assert_array_equal(rows.action[i], row.action)
        np.testing.assert_allclose(table.values[i], expected.table.values, **CLOSE)
        np.testing.assert_array_equal(table.visits[i], expected.table.visits)


def test_a_transition_to_the_end_bootstraps_from_nothing():
    table = new_table((2,), 4.0)
    end, go = (
        Transition(
            jnp.array([0]), jnp.array([0]), jnp.array([1.0]), jnp.array([d]),
            jnp.array([1]),
        )
        for d in (0.0, 0.5)
    )  # fmt: skip
    assert td_update(table, end, HARMONIC).values[0] == 1.0
    assert td_update(table, go, HARMONIC).values[0] == 3.0


@pytest.mark.parametrize(
    ("rule", "counts", "message"),
    [
        (StepSize(2.0), {}, r"rate must be in \[0, 1\], got 2.0"),
        (HARMONIC, {"num_steps": 0}, "num_steps must be at least 1, got 0"),
        (HARMONIC, {"num_workers": 0}, "num_workers must be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused(rule, counts, message):
    mdp = two_state()
    with pytest.raises(ValueError, match=message):
        learned_values(
            jax.random.key(0),
            mdp,
            uniform_policy(mdp),
            rule,
            **{"num_steps": 1} | counts,
        )
