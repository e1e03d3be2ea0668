from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.algorithms.tabular import evaluation, planning
from jaxrl_par.algorithms.tabular.mdp import uniform_policy
from jaxrl_par.algorithms.tabular.planning import improved
from jaxrl_par.algorithms.tabular.problems import (
    cliff_walking,
    random_mdp,
    random_walk,
)

S, A = 4, 3
evaluate, action_values = (
    jax.jit(evaluation.evaluate),
    jax.jit(evaluation.action_values),
)
policy_iteration = jax.jit(planning.policy_iteration, static_argnums=(1, 2))
value_iteration = jax.jit(planning.value_iteration, static_argnums=(1, 2))


@pytest.mark.sample(1)
@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_an_improved_policy_is_nowhere_worse(rate):
    def gains(key):
        mdp_key, policy_key = jax.random.split(key)
        mdp = random_mdp(mdp_key, S, A)
        policy = jax.nn.softmax(jax.random.normal(policy_key, (S, A)))
        values = evaluate(mdp, policy)
        better = improved(policy, action_values(mdp, values), rate)
        return evaluate(mdp, better) - values

    found = jax.jit(jax.vmap(gains))(jax.random.split(jax.random.key(0), 200))
    assert np.all(found >= -1e-4)
    assert np.all(np.max(found, axis=1) > 0.01)


def test_a_share_of_the_probability_moves_to_the_best_actions():
    policy = jnp.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    q_values = jnp.array([[1.0, 2.0, 0.0], [3.0, 3.0, 1.0]])
    np.testing.assert_allclose(
        improved(policy, q_values), [[0, 1, 0], [0.5, 0.5, 0]], atol=1e-7
    )
    np.testing.assert_allclose(
        improved(policy, q_values, 0.5), [[0.1, 0.65, 0.25], [0.75, 0.25, 0]], rtol=1e-6
    )


@pytest.mark.sample(1)
@pytest.mark.parametrize("seed", range(3))
def test_the_best_policy_is_the_best_of_all(seed):
    """Of all 81 that are deterministic, each solved in NumPy."""
    mdp = random_mdp(jax.random.key(seed), S, A)
    transitions, rewards = np.float64(mdp.transitions), np.float64(mdp.rewards)
    states = np.arange(S)
    best = np.full(S, -np.inf)
    for choice in product(range(A), repeat=S):
        chain = transitions[states, choice]
        gained = np.sum(chain * rewards[states, choice], axis=-1)
        values = np.linalg.solve(np.eye(S) - 0.9 * chain, gained)
        if values.sum() > best.sum():
            best, chosen = values, np.eye(A)[list(choice)]
    plan = policy_iteration(mdp)
    np.testing.assert_allclose(plan.values, best, atol=1e-4)
    np.testing.assert_array_equal(plan.policy, chosen)
    swept = value_iteration(mdp)
    np.testing.assert_allclose(swept.values, best, atol=1e-4)
    q_values = np.sum(transitions * (rewards + 0.9 * best), axis=-1)
    np.testing.assert_allclose(plan.action_values, q_values, atol=1e-4)
    np.testing.assert_allclose(action_values(mdp, swept.values), q_values, atol=1e-4)


def test_the_cliff_is_passed_by_the_shortest_way():
    mdp = cliff_walking()
    row, column = np.divmod(np.arange(48), 12)
    walkable = (row < 3) | (column == 0) | (column == 11)
    expected = row + column - 14.0
    expected[36] = -13.0  # the start, from where one step leads up first
    for values in (policy_iteration(mdp).values, value_iteration(mdp).values):
        np.testing.assert_allclose(
            np.asarray(values)[walkable], expected[walkable], atol=1e-3
        )


def test_a_walk_to_the_right_earns_everything():
    """Where all is best, staying among the best must still come to an end."""
    mdp = random_walk(5)
    expected = [0, 1, 1, 1, 1, 1, 0]
    np.testing.assert_allclose(policy_iteration(mdp).values, expected, atol=1e-5)
    np.testing.assert_allclose(value_iteration(mdp).values, expected, atol=1e-5)


def test_planning_ends_at_its_limits():
    mdp = random_mdp(jax.random.key(0), S, A)
    none = policy_iteration(mdp, 1e-5, 0)
    assert none.num_improvements == 0
    np.testing.assert_allclose(
        none.values, evaluate(mdp, uniform_policy(mdp)), rtol=1e-5
    )
    assert 1 <= policy_iteration(mdp, 1e-4).num_improvements <= 5
    assert policy_iteration(mdp, 100.0).num_improvements == 0
    assert value_iteration(mdp, 1e-6, 3).num_sweeps == 3
