import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.algorithms.tabular.mdp import (
    checked_policy,
    finite_mdp,
    go_on,
    sample_actions,
    sample_transitions,
    start_states,
    uniform_policy,
)
from jaxrl_par.algorithms.tabular.problems import random_walk

INF, NAN = float("inf"), float("nan")
EYE = np.eye(2)[:, None, :]  # two states, one action, each stays
SWAP = EYE[::-1]
NUM_SAMPLES = 20_000


def three_states(**changes):
    """States 0 and 1 lead anywhere, 2 is the end."""
    transitions = np.array(
        [
            [[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]],
            [[0.0, 0.9, 0.1], [0.3, 0.3, 0.4]],
            [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]],
        ]
    )
    rewards = np.arange(18.0).reshape(3, 2, 3)
    terminal = np.array([False, False, True])
    given = {"gamma": 0.9, "terminal": terminal, "start": [0.25, 0.75, 0.0]}
    return finite_mdp(transitions, rewards, **given | changes)


def assert_frequencies(samples, probabilities):
    """Within five standard deviations."""
    found = np.bincount(samples, minlength=len(probabilities)) / len(samples)
    deviation = np.sqrt(probabilities * (1 - probabilities) / len(samples))
    assert np.all(np.abs(found - probabilities) <= 5 * deviation)


def test_a_problem_starts_in_any_state_that_is_not_terminal():
    mdp = three_states(start=None)
    np.testing.assert_allclose(mdp.start, [0.5, 0.5, 0.0])
    no_end = finite_mdp(EYE, EYE, 0.5)
    assert not np.any(no_end.terminal)
    np.testing.assert_allclose(no_end.start, [0.5, 0.5])


def test_a_problem_is_in_single_precision():
    mdp = three_states()
    assert mdp.transitions.dtype == mdp.rewards.dtype == mdp.gamma.dtype == jnp.float32
    assert mdp.terminal.dtype == bool
    np.testing.assert_array_equal(mdp.rewards[1, 0], [6.0, 7.0, 8.0])


@pytest.mark.parametrize(
    ("transitions", "rewards", "changes", "message"),
    [
        (np.eye(2), EYE, {}, "transitions must have 3 axes, none empty, got .2, 2."),
        (np.zeros((0, 1, 0)), EYE, {}, "none empty"),
        (np.ones((2, 1, 3)) / 3, EYE, {}, r"\[S, A, S\], got \(2, 1, 3\)"),
        (EYE * [[[2.0]], [[1.0]]], EYE, {}, r"transitions\[0, 0\] .*1, got 2"),
        (EYE * [[[1.0]], [[0.99]]], EYE, {}, r"transitions\[1, 0\] .*1, got 0.99"),
        ([[[1.5, -0.5]], [[0, 1]]], EYE, {}, "transitions must be finite and 0 or"),
        ([[[NAN, 1]], [[0, 1]]], EYE, {}, "transitions must be finite"),
        (EYE, np.eye(2), {}, r"rewards .*\(2, 1, 2\), got \(2, 2\)"),
        (EYE, EYE - INF, {}, "rewards must be finite"),
        (EYE, EYE, {"gamma": 1.01}, r"gamma must be in \[0, 1\], got 1.01"),
        (EYE, EYE, {"gamma": -0.1}, "gamma must be in"),
        (EYE, EYE, {"gamma": NAN}, "gamma must be in"),
        (EYE, EYE, {"terminal": [True]}, "terminal must be 2 booleans"),
        (EYE, EYE, {"terminal": [0, 1]}, "terminal must be 2 booleans"),
        (EYE, EYE, {"terminal": [True, True]}, "not all true"),
        (EYE, EYE, {"start": [1.0]}, "start must be 2 probabilities"),
        (EYE, EYE, {"start": [0.5, 0.4]}, "start must sum to 1, got 0.9"),
        (EYE, EYE, {"start": [-1, 2]}, "start must be finite and 0 or more"),
        (
            EYE,
            EYE,
            {"terminal": [False, True], "start": [0.5, 0.5]},
            "0 where terminal",
        ),
    ],
)
def test_what_is_no_problem_is_refused(transitions, rewards, changes, message):
    with pytest.raises(ValueError, match=message):
        finite_mdp(transitions, rewards, **{"gamma": 0.9} | changes)


def test_without_discount_every_state_must_lead_to_an_end():
    end = {"terminal": np.array([False, True])}
    with pytest.raises(ValueError, match=r"below 1 .*states \[0\]"):
        finite_mdp(EYE, EYE, 1.0, **end)
    with pytest.raises(ValueError, match=r"below 1 .*states \[0, 1\]"):
        finite_mdp(SWAP, EYE, 1.0)
    assert finite_mdp(SWAP, EYE, 1.0, **end).gamma == 1
    assert random_walk(40).gamma == 1  # the longest way to an end is of 20 steps


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ([0.5, 0.5], "policy must have 2 axes"),
        ([[0.5, 0.5]] * 2, r"policy must be \(3, 2\), .*got \(2, 2\)"),
        ([[0.5, 0.4]] * 3, r"policy\[0\] must sum to 1, got 0.9"),
        ([[1.5, -0.5]] * 3, "policy must be finite and 0 or more"),
    ],
)
def test_what_is_no_policy_is_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        checked_policy(policy, three_states())


def test_a_policy_is_an_array():
    policy = checked_policy([[0, 1], [1, 0], [0.5, 0.5]], three_states())
    assert policy.dtype == jnp.float32
    np.testing.assert_array_equal(uniform_policy(three_states()), np.full((3, 2), 0.5))


@pytest.mark.parametrize(("state", "action"), [(0, 0), (0, 1), (1, 1)])
def test_samples_are_as_frequent_as_the_problem_says(state, action):
    mdp = three_states()
    states = jnp.full(NUM_SAMPLES, state, jnp.int32)
    actions = jnp.full(NUM_SAMPLES, action, jnp.int32)
    found = sample_transitions(jax.random.key(0), mdp, states, actions)
    successors = np.asarray(found.next_state)
    assert_frequencies(successors, np.asarray(mdp.transitions)[state, action])
    np.testing.assert_array_equal(found.state, states)
    np.testing.assert_array_equal(found.action, actions)
    np.testing.assert_array_equal(
        found.reward, np.asarray(mdp.rewards)[state, action, successors]
    )
    np.testing.assert_allclose(found.discount, np.where(successors == 2, 0.0, 0.9))


def test_a_new_episode_starts_where_one_has_ended():
    mdp = three_states()
    states = jnp.zeros(NUM_SAMPLES, jnp.int32)
    transitions = sample_transitions(jax.random.key(0), mdp, states, states)
    following = np.asarray(go_on(jax.random.key(1), mdp, transitions))
    successors = np.asarray(transitions.next_state)
    ended = successors == 2
    np.testing.assert_array_equal(following[~ended], successors[~ended])
    assert_frequencies(following[ended], np.asarray(mdp.start))


def test_starts_and_actions_are_drawn_from_their_distributions():
    mdp = three_states()
    starts = start_states(jax.random.key(0), mdp, NUM_SAMPLES)
    assert_frequencies(np.asarray(starts), np.asarray(mdp.start))
    policy = jnp.array([[0.9, 0.1], [0.0, 1.0], [0.4, 0.6]])
    for state in range(3):
        states = jnp.full(NUM_SAMPLES, state, jnp.int32)
        actions = sample_actions(jax.random.key(1), policy, states)
        assert_frequencies(np.asarray(actions), np.asarray(policy)[state])
