"""Against loops in NumPy, in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.algorithms.tabular import evaluation
from jaxrl_par.algorithms.tabular.evaluation import (
    action_values,
    evaluate_until,
    state_values,
    sweep,
)
from jaxrl_par.algorithms.tabular.mdp import finite_mdp, uniform_policy
from jaxrl_par.algorithms.tabular.problems import (
    cliff_walking,
    random_mdp,
    two_state,
)

S, A = 5, 3
evaluate = jax.jit(evaluation.evaluate)
evaluate_by_sweeps = jax.jit(evaluation.evaluate_by_sweeps)
evaluate_episodic = jax.jit(evaluation.evaluate_episodic)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def random_problem(seed):
    """Some random problem with an end, and a random policy."""
    mdp = random_mdp(jax.random.key(seed), S, A)
    terminal = np.arange(S) == seed % S
    mdp = finite_mdp(mdp.transitions, mdp.rewards, 0.8, terminal)
    policy = np.random.default_rng(seed).dirichlet(np.ones(A), S)
    return mdp, jnp.asarray(policy, jnp.float32)


def q_by_loops(mdp, values):
    transitions, rewards = np.float64(mdp.transitions), np.float64(mdp.rewards)
    q_values = np.zeros(transitions.shape[:2])
    for s, a, n in np.ndindex(transitions.shape):
        if not mdp.terminal[s]:
            following = 0.0 if mdp.terminal[n] else float(mdp.gamma) * values[n]
            q_values[s, a] += transitions[s, a, n] * (rewards[s, a, n] + following)
    return q_values


@pytest.mark.sample(1)
@pytest.mark.parametrize("seed", range(3))
def test_action_values_follow_their_definition(seed):
    mdp, policy = random_problem(seed)
    values = np.random.default_rng(seed).normal(size=S)
    expected = q_by_loops(mdp, values)
    actual = action_values(mdp, jnp.asarray(values, jnp.float32))
    np.testing.assert_allclose(actual, expected, **CLOSE)
    v = [sum(policy[s, a] * expected[s, a] for a in range(A)) for s in range(S)]
    np.testing.assert_allclose(state_values(policy, actual), v, **CLOSE)
    np.testing.assert_allclose(
        sweep(mdp, policy, jnp.asarray(values, jnp.float32)), v, **CLOSE
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_values_are_what_many_loops_give(seed):
    mdp, policy = random_problem(seed)
    expected = np.zeros(S)
    for _ in range(100):  # 0.8**100 is 2e-10
        expected = np.sum(np.float64(policy) * q_by_loops(mdp, expected), axis=1)
    assert np.all(expected[np.asarray(mdp.terminal)] == 0)
    np.testing.assert_allclose(evaluate(mdp, policy), expected, **CLOSE)
    np.testing.assert_allclose(evaluate_by_sweeps(mdp, policy, 100), expected, **CLOSE)
    swept = evaluate_until(mdp, policy, tolerance=1e-6)
    np.testing.assert_allclose(swept.values, expected, **CLOSE)
    first = evaluate_by_sweeps(mdp, policy, 1, jnp.asarray(expected, jnp.float32))
    np.testing.assert_allclose(first, expected, **CLOSE)


def test_sweeps_over_the_two_states_give_the_lectures_numbers():
    mdp = two_state()
    policy = uniform_policy(mdp)
    exact = np.array([3.835616, 2.465753])
    np.testing.assert_allclose(evaluate(mdp, policy), exact, rtol=1e-6)
    np.testing.assert_allclose(evaluate_by_sweeps(mdp, policy, 0), [0, 0])
    np.testing.assert_allclose(evaluate_by_sweeps(mdp, policy, 1), [1, 0])
    ten = evaluate_by_sweeps(mdp, policy, 10)
    np.testing.assert_allclose(ten, [2.83939, 1.46953], rtol=1e-5)
    error = np.max(np.abs(evaluate_by_sweeps(mdp, policy, 100) - exact))
    assert 0.9**100 * exact.max() > error > 6e-5


@pytest.mark.slow
def test_a_sweep_shrinks_every_error_by_gamma_at_least():
    mdp, policy = random_problem(0)
    exact = evaluate(mdp, policy)
    values = jax.random.normal(jax.random.key(1), (20, S)) * 10
    swept = jax.vmap(lambda v: sweep(mdp, policy, v))(values)
    before = np.max(np.abs(np.where(mdp.terminal, 0.0, values - exact)), axis=1)
    after = np.max(np.abs(swept - exact), axis=1)
    assert np.all(after <= 0.8 * before + 1e-5)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3])
def test_sweeps_end_at_the_tolerance(tolerance):
    mdp = two_state()
    policy = uniform_policy(mdp)
    swept = evaluate_until(mdp, policy, tolerance)
    num_sweeps = int(swept.num_sweeps)
    values = [
        np.asarray(evaluate_by_sweeps(mdp, policy, num_sweeps - k)) for k in (0, 1, 2)
    ]
    np.testing.assert_allclose(swept.values, values[0], rtol=1e-6)
    change = np.max(np.abs(values[0] - values[1]))
    np.testing.assert_allclose(swept.change, change, rtol=1e-2)
    assert change <= tolerance < np.max(np.abs(values[1] - values[2]))
    error = np.max(np.abs(swept.values - evaluate(mdp, policy)))
    assert error <= 0.9 / (1 - 0.9) * float(swept.change) * 1.01


def test_sweeps_end_without_reaching_the_tolerance():
    swept = evaluate_until(two_state(), jnp.ones((2, 1)), 0.0, max_sweeps=7)
    assert swept.num_sweeps == 7
    np.testing.assert_allclose(
        swept.values, evaluate_by_sweeps(two_state(), jnp.ones((2, 1)), 7), rtol=1e-6
    )


def test_an_episode_is_evaluated_backwards():
    """With a policy that differs at every step."""
    mdp, _ = random_problem(1)
    length = 4
    policies = np.random.default_rng(0).dirichlet(np.ones(A), (length, S))
    found = evaluate_episodic(mdp, jnp.asarray(policies, jnp.float32))
    values = np.zeros(S)
    np.testing.assert_array_equal(found.values[length], values)
    for t in reversed(range(length)):
        q_values = q_by_loops(mdp, values)
        values = np.sum(policies[t] * q_values, axis=1)
        np.testing.assert_allclose(found.action_values[t], q_values, **CLOSE)
        np.testing.assert_allclose(found.values[t], values, **CLOSE)


def test_a_policy_that_knows_the_time_is_followed():
    """Stay in state 0 for reward 1, or leave it once for reward 5 and nothing more."""
    transitions = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    rewards = np.array([[[1.0, 0.0], [0.0, 5.0]], np.zeros((2, 2))])
    mdp = finite_mdp(transitions, rewards, 0.5)._replace(gamma=jnp.float32(1.0))
    stay, leave = np.eye(2)
    policies = np.broadcast_to(np.array([stay, stay, leave])[:, None], (3, 2, 2))
    found = evaluate_episodic(mdp, jnp.asarray(policies, jnp.float32))
    np.testing.assert_allclose(found.values[:, 0], [7.0, 6.0, 5.0, 0.0])
    np.testing.assert_allclose(found.action_values[0, 0], [7.0, 5.0])


def test_a_long_episode_is_worth_as_much_as_one_without_end():
    mdp, policy = random_problem(2)
    found = evaluate_episodic(mdp, jnp.broadcast_to(policy, (100, S, A)))
    np.testing.assert_allclose(found.values[0], evaluate(mdp, policy), **CLOSE)
    np.testing.assert_allclose(
        found.values[60], evaluate_by_sweeps(mdp, policy, 40), **CLOSE
    )


def test_the_random_walker_at_the_cliff_falls_often():
    """gamma 1, values of tens of thousands: solved in single precision."""
    mdp = cliff_walking()
    transitions, rewards = np.float64(mdp.transitions), np.float64(mdp.rewards)
    chain, alive = transitions.mean(1), np.arange(48) != 47
    expected = np.zeros(48)
    expected[alive] = np.linalg.solve(
        np.eye(47) - chain[alive][:, alive],
        (transitions * rewards).sum(-1).mean(1)[alive],
    )
    np.testing.assert_allclose(evaluate(mdp, uniform_policy(mdp)), expected, rtol=1e-3)


@pytest.mark.slow
def test_many_problems_are_solved_at_once():
    keys = jax.random.split(jax.random.key(0), 64)

    def solve(key, gamma):
        mdp = random_mdp(key, S, A, gamma)
        return evaluate(mdp, uniform_policy(mdp))

    gammas = jnp.linspace(0.0, 0.95, 64)
    values = jax.jit(jax.vmap(solve))(keys, gammas)
    for i in (0, 31, 63):
        np.testing.assert_allclose(
            values[i], solve(keys[i], gammas[i]), rtol=1e-4, atol=1e-5
        )
