import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.algorithms.tabular import evaluation, model, planning
from jaxrl_par.algorithms.tabular.mdp import Transition, uniform_policy
from jaxrl_par.algorithms.tabular.problems import two_state

GAMMA = 0.9
evaluate = jax.jit(evaluation.evaluate)
value_iteration = jax.jit(planning.value_iteration)
estimate = jax.jit(model.estimate, static_argnums=(1, 2))


def transitions(rows):
    """From rows (s, a, r, s')."""
    state, action, reward, successor = np.array(rows, np.float64).T
    return Transition(
        jnp.asarray(state, jnp.int32),
        jnp.asarray(action, jnp.int32),
        jnp.asarray(reward, jnp.float32),
        jnp.full(len(rows), GAMMA),
        jnp.asarray(successor, jnp.int32),
    )


# State 3 ends episodes; 4 is never seen; in 1 only action 1 is, with noisy rewards.
ROWS = [
    (0, 0, 1.0, 1),
    (0, 0, 2.0, 2),
    (0, 0, 1.0, 1),
    (0, 1, 5.0, 3),
    (1, 1, 3.0, 0),
    (1, 1, 7.0, 0),
    (2, 0, -1.0, 3),
    (2, 1, 0.0, 2),
]


def test_frequencies_are_counted():
    found = estimate(transitions(ROWS), 5, 2, GAMMA)
    assert found.counts.dtype == jnp.int32
    assert found.counts.sum() == len(ROWS)
    mdp = found.mdp
    np.testing.assert_allclose(mdp.transitions[0, 0], [0, 2 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(mdp.transitions[0, 1], [0, 0, 0, 1, 0])
    np.testing.assert_allclose(mdp.transitions[1, 0], np.zeros(5))
    np.testing.assert_allclose(mdp.rewards[0, 0], [0, 1, 2, 0, 0])
    np.testing.assert_allclose(mdp.rewards[1, 1, 0], 5.0)
    np.testing.assert_array_equal(mdp.terminal, [False] * 3 + [True] * 2)
    np.testing.assert_allclose(mdp.start, [0.5, 0.25, 0.25, 0, 0])
    np.testing.assert_allclose(
        found.policy, [[0.75, 0.25], [0, 1], [0.5, 0.5], [0, 0], [0, 0]]
    )
    np.testing.assert_allclose(mdp.gamma, GAMMA)


def test_the_values_are_certainty_equivalent():
    """V^(s) = 1/n(s) sum over samples of (r + gamma V^(s')), by plain iteration."""
    expected = np.zeros(5)
    for _ in range(300):
        new = np.zeros(5)
        for s in range(3):
            mine = [row for row in ROWS if row[0] == s]
            new[s] = np.mean([r + GAMMA * expected[n] for _, _, r, n in mine])
        expected = new
    found = estimate(transitions(ROWS), 5, 2, GAMMA)
    np.testing.assert_allclose(
        evaluate(found.mdp, found.policy), expected, rtol=1e-5, atol=1e-6
    )


def test_a_pair_that_was_not_seen_is_worth_nothing():
    """The best plan in state 1 takes action 1 where that earns, else the unseen one."""
    earns = estimate(transitions(ROWS), 5, 2, GAMMA).mdp
    assert value_iteration(earns).values[1] > 5.0
    loses = [(s, a, -r if s == 1 else 0.0, n) for s, a, r, n in ROWS]
    values = value_iteration(estimate(transitions(loses), 5, 2, GAMMA).mdp).values
    np.testing.assert_allclose(values, np.zeros(5))


def test_exact_frequencies_give_the_exact_values():
    """Ten samples of each state, as many to each successor as P says."""
    rows = [(0, 0, 1.0, n) for n in [0] * 5 + [1] * 5]
    rows += [(1, 0, 0.0, n) for n in [0] * 2 + [1] * 8]
    found = estimate(transitions(rows), 2, 1, GAMMA)
    mdp = two_state()
    np.testing.assert_allclose(found.mdp.transitions, mdp.transitions, rtol=1e-6)
    np.testing.assert_allclose(found.mdp.rewards, mdp.rewards)
    np.testing.assert_allclose(
        evaluate(found.mdp, found.policy), evaluate(mdp, uniform_policy(mdp)), rtol=1e-5
    )


def test_samples_beyond_the_table_are_dropped():
    more = [*ROWS, (5, 0, 9.0, 0), (0, 2, 9.0, 0), (0, 0, 9.0, 5)]
    same = estimate(transitions(ROWS), 5, 2, GAMMA)
    jax.tree.map(
        np.testing.assert_array_equal, estimate(transitions(more), 5, 2, GAMMA), same
    )


@pytest.mark.parametrize(
    ("rows", "num_states", "num_actions", "message"),
    [
        (ROWS, 0, 2, "num_states must be at least 1, got 0"),
        (ROWS, 5, 0, "num_actions must be at least 1, got 0"),
        (np.zeros((0, 4)), 5, 2, "transitions must be at least 1, got 0"),
    ],
)
def test_nothing_can_be_estimated_from_nothing(rows, num_states, num_actions, message):
    with pytest.raises(ValueError, match=message):
        estimate(transitions(rows), num_states, num_actions, GAMMA)
