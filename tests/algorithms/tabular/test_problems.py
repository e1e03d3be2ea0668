import jax
import numpy as np
import pytest

from jaxrl_par.algorithms.tabular import evaluation
from jaxrl_par.algorithms.tabular.mdp import finite_mdp, uniform_policy
from jaxrl_par.algorithms.tabular.problems import (
    cliff_walking,
    random_mdp,
    random_walk,
    two_state,
)

evaluate = jax.jit(evaluation.evaluate)
UP, RIGHT, DOWN, LEFT = range(4)
START, GOAL = 36, 47


def test_the_two_states_are_worth_what_the_lecture_says():
    mdp = two_state()
    np.testing.assert_allclose(
        evaluate(mdp, uniform_policy(mdp)), [3.835616, 2.465753], rtol=1e-6
    )


@pytest.mark.sample(1)
@pytest.mark.parametrize("length", [4, 1, 5])
def test_a_random_walk_is_worth_its_chance_to_end_at_the_right(length):
    mdp = random_walk(length)
    expected = np.arange(length + 2) / (length + 1)
    expected[-1] = 0.0
    np.testing.assert_allclose(evaluate(mdp, uniform_policy(mdp)), expected, atol=1e-5)
    middle = np.argmax(mdp.start)
    assert mdp.start[middle] == 1
    assert abs(middle - (length + 1) / 2) <= 0.5


def walk(actions):
    """The return of these actions from the start of the cliff, and the last state."""
    mdp = jax.tree.map(np.asarray, cliff_walking())
    state, total = int(np.argmax(mdp.start)), 0.0
    assert state == START
    for action in actions:
        assert not mdp.terminal[state]
        (successor,) = np.flatnonzero(mdp.transitions[state, action])
        total += mdp.rewards[state, action, successor]
        state = successor
    return total, state


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([UP] + [RIGHT] * 11 + [DOWN], (-13, GOAL)),
        ([UP] * 3 + [RIGHT] * 11 + [DOWN] * 3, (-17, GOAL)),
        ([RIGHT], (-100, START)),
        ([UP] + [RIGHT] * 10 + [DOWN], (-111, START)),
        ([LEFT, DOWN], (-2, START)),
        ([UP] * 5, (-5, 0)),
        ([UP] + [RIGHT] * 14, (-15, 35)),
    ],
)
def test_walks_along_the_cliff(actions, expected):
    assert walk(actions) == expected


def test_the_cliff_ends_at_the_goal_only():
    mdp = cliff_walking()
    assert mdp.transitions.shape == (48, 4, 48)
    assert mdp.gamma == 1
    np.testing.assert_array_equal(np.flatnonzero(mdp.terminal), [GOAL])


@pytest.mark.slow
def test_random_problems_are_problems():
    keys = jax.random.split(jax.random.key(0), 3)
    gammas = np.array([0.1, 0.5, 0.9])
    mdps = jax.vmap(lambda key, gamma: random_mdp(key, 5, 3, gamma))(keys, gammas)
    for i in range(3):
        mdp = jax.tree.map(lambda x, i=i: np.asarray(x[i]), mdps)
        finite_mdp(mdp.transitions, mdp.rewards, float(mdp.gamma), None, mdp.start)
        np.testing.assert_allclose(mdp.gamma, gammas[i])
        assert mdp.rewards.std() > 0.5
        assert mdp.transitions.std() > 0.05
    assert not np.allclose(mdps.rewards[0], mdps.rewards[1])


def test_a_walk_needs_a_state():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        random_walk(0)
