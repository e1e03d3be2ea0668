import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.algorithms.tabular import evaluation, planning
from jaxrl_par.algorithms.tabular.control import (
    ControlConfig,
    choose,
    control_update,
    learned_action_values,
)
from jaxrl_par.algorithms.tabular.evaluation import action_values, evaluate_episodic
from jaxrl_par.algorithms.tabular.mdp import Transition, uniform_policy
from jaxrl_par.algorithms.tabular.problems import (
    cliff_walking,
    random_mdp,
    random_walk,
)
from jaxrl_par.algorithms.tabular.tables import StepSize, constant, new_table
from jaxrl_par.exploration import (
    boltzmann_probabilities,
    epsilon_greedy_probabilities,
)

evaluate = jax.jit(evaluation.evaluate)
value_iteration = jax.jit(planning.value_iteration)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
TARGETS = ["sarsa", "q_learning"]
S, A = 4, 3


def by_loops(learned, transitions, config, value):
    """Q before each step and at the end, from `value`, and visits.

    Sutton and Barto, equations 6.7 and 6.8, one row of workers after the other.
    """
    shape = learned.table.values.shape
    rows = [np.asarray(x) for x in transitions]
    next_actions = np.concatenate([rows[1][1:], [learned.action]])
    q_values, visits, rule = np.full(shape, value), np.zeros(shape), config.step_size
    history = [q_values.copy()]
    for *row, following in zip(*rows, next_actions, strict=True):
        states, actions, rewards, discounts, successors = row
        bootstraps = q_values[successors].max(axis=1)
        if config.target == "sarsa":
            bootstraps = q_values[successors, following]
        targets = rewards + discounts * bootstraps
        for s, a in set(zip(states.tolist(), actions.tolist(), strict=True)):
            mine = (states == s) & (actions == a)
            alpha = rule.rate / (visits[s, a] + 1) ** rule.power
            q_values[s, a] += alpha * (targets[mine].mean() - q_values[s, a])
            visits[s, a] += mine.sum()
        history.append(q_values.copy())
    return history, visits


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [5, 1])
@pytest.mark.parametrize("target", TARGETS)
def test_the_update_follows_its_definition(target, num_workers):
    """On what it did itself. The first value 0.7 of the ends must not be read."""
    config = ControlConfig(target, epsilon=0.4, initial_value=0.7)
    learned, transitions = learned_action_values(
        jax.random.key(0),
        random_walk(4),
        config,
        num_steps=60,
        num_workers=num_workers,
    )
    history, visits = by_loops(learned, transitions, config, 0.7)
    ended = np.asarray(transitions.discount) == 0
    assert ended.sum() > 3
    following = np.where(ended, 2, transitions.next_state)
    np.testing.assert_array_equal(transitions.state[1:], following[:-1])
    np.testing.assert_array_equal(learned.state, following[-1])
    np.testing.assert_allclose(learned.table.values, history[-1], **CLOSE)
    np.testing.assert_array_equal(learned.table.visits, visits)


@pytest.mark.slow
def test_without_exploration_actions_are_the_best_of_the_last_table():
    """That before the update; of equals, any."""
    config = ControlConfig(epsilon=0.0, step_size=constant(0.5))
    mdp = random_mdp(jax.random.key(1), S, A)
    learned, transitions = learned_action_values(
        jax.random.key(0), mdp, config, num_steps=80
    )
    history, _ = by_loops(learned, transitions, config, 0.0)
    states = np.asarray(transitions.state)[1:, 0]
    actions = np.asarray(transitions.action)[1:, 0]
    for q_values, s, a in zip(history[:-2], states, actions, strict=True):
        assert q_values[s, a] >= q_values[s].max() - 1e-5
    assert len(set(zip(states, actions, strict=True))) > S


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ControlConfig(epsilon=0.3), [0.1, 0.1, 0.8]),
        (
            ControlConfig(exploration="boltzmann", epsilon=0.3),
            [0.090031, 0.244728, 0.665241],
        ),
        (
            ControlConfig(exploration="boltzmann", inverse_temperature=0.0),
            [1 / 3, 1 / 3, 1 / 3],
        ),
    ],
)
def test_actions_explore_as_configured(config, expected):
    """The lecture's Q = [1, 2, 3], within five standard deviations."""
    num_samples = 20_000
    q_values = jnp.tile(jnp.array([1.0, 2.0, 3.0]), (num_samples, 1))
    actions = np.asarray(choose(jax.random.key(0), q_values, config))
    found = np.bincount(actions, minlength=3) / num_samples
    deviation = np.sqrt(0.25 / num_samples)
    np.testing.assert_allclose(found, expected, atol=5 * deviation)


def test_targets_differ_in_their_bootstrap_alone():
    table = new_table((2, 3))._replace(values=jnp.array([[1.0] * 3, [2.0, 8.0, 4.0]]))
    row = Transition(
        jnp.array([0]), jnp.array([1]), jnp.array([10.0]), jnp.array([0.5]),
        jnp.array([1]),
    )  # fmt: skip
    for target, discount, expected in [
        ("sarsa", 0.5, 12.0),
        ("q_learning", 0.5, 14.0),
        ("sarsa", 0.0, 10.0),
        ("q_learning", 0.0, 10.0),
    ]:
        config = ControlConfig(target)
        given = row._replace(discount=jnp.array([discount]))
        found = control_update(table, given, jnp.array([2]), config)
        np.testing.assert_allclose(found.values[0], [1.0, expected, 1.0])
        np.testing.assert_array_equal(found.values[1], table.values[1])


def learned_by_many(mdp, config, num_steps, num_workers):
    """Q of 32 learners, [32, S, A]."""

    def learn(key):
        learned, _ = learned_action_values(
            key, mdp, config, num_steps=num_steps, num_workers=num_workers
        )
        return learned.table.values

    return jax.jit(jax.vmap(learn))(jax.random.split(jax.random.key(0), 32))


def deviation(q_values, exact):
    return np.sqrt(np.mean((np.asarray(q_values) - np.asarray(exact)) ** 2))


@pytest.mark.slow
def test_random_actions_teach_q_learning_the_best_values_and_sarsa_their_own():
    """1000 visits of a pair: steps of 0.008, targets with a deviation of 1, errors of
    sqrt(0.008 / 2) = 0.06. The two answers are further apart than that.
    """
    mdp = random_mdp(jax.random.key(0), S, A, gamma=0.5)
    best = action_values(mdp, value_iteration(mdp).values)
    own = action_values(mdp, evaluate(mdp, uniform_policy(mdp)))
    assert deviation(best, own) > 0.5
    for target, exact in (("q_learning", best), ("sarsa", own)):
        config = ControlConfig(target, epsilon=1.0)
        found = learned_by_many(mdp, config, 3000, 4)
        assert deviation(found, exact) < 0.1
        assert np.max(np.abs(np.mean(found, axis=0) - exact)) < 0.05


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("config", "probabilities"),
    [
        (
            ControlConfig("sarsa", epsilon=0.3),
            lambda q_values: epsilon_greedy_probabilities(q_values, 0.3),
        ),
        (
            ControlConfig("sarsa", "boltzmann", inverse_temperature=1.5),
            lambda q_values: boltzmann_probabilities(q_values, 1.5),
        ),
    ],
)
def test_sarsa_learns_the_values_of_the_policy_it_has_become(config, probabilities):
    mdp = random_mdp(jax.random.key(0), S, A, gamma=0.5)
    found = learned_by_many(mdp, config, 2000, 8)
    mean = jnp.mean(found, axis=0)
    own = action_values(mdp, evaluate(mdp, probabilities(mean)))
    best = action_values(mdp, value_iteration(mdp).values)
    assert deviation(mean, own) < 0.05
    assert deviation(mean, best) > 0.1


@pytest.fixture(scope="module")
def cliff():
    """By target: returns of the greedy policies, and per episode while learning.

    15 learners with the steps of the book, 0.5, whose noise drives SARSA to the edge.
    The best policy that explores as much, and SARSA with small steps, walk a row nearer
    to the cliff, which returns -15.
    """
    mdp = cliff_walking()

    def learn(key, config):
        learned, rows = learned_action_values(key, mdp, config, num_steps=9_000)
        greedy = epsilon_greedy_probabilities(learned.table.values, 0.0)
        policies = jnp.broadcast_to(greedy, (100, *greedy.shape))
        ended = jnp.sum(rows.discount[3000:] == 0)
        while_learning = jnp.sum(rows.reward[3000:]) / ended
        return evaluate_episodic(mdp, policies).values[0, 36], while_learning

    keys = jax.random.split(jax.random.key(0), 15)
    return {
        target: jax.jit(
            jax.vmap(
                lambda key, target=target: learn(
                    key, ControlConfig(target, step_size=constant(0.5))
                )
            )
        )(keys)
        for target in TARGETS
    }


@pytest.mark.slow
def test_q_learning_walks_along_the_cliff_and_sarsa_far_from_it(cliff):
    assert np.median(cliff["q_learning"][0]) == -13
    assert np.median(cliff["sarsa"][0]) == -17
    assert np.mean(cliff["q_learning"][0] == -13) > 0.9


@pytest.mark.slow
def test_sarsa_falls_less_often_while_it_learns(cliff):
    q_learning, sarsa = (np.median(cliff[t][1]) for t in ("q_learning", "sarsa"))
    assert -35 < sarsa < -17
    assert sarsa > q_learning + 10


@pytest.mark.slow
def test_thousands_of_learners_are_as_one_alone():
    """Each with hyperparameters of its own, on a problem of its own."""
    num_learners = 2048

    def learn(key, numbers):
        mdp = random_mdp(key, 3, 2)
        config = ControlConfig(
            "sarsa",
            epsilon=numbers["epsilon"],
            step_size=StepSize(numbers["rate"], numbers["power"]),
            initial_value=numbers["initial_value"],
        )
        return learned_action_values(key, mdp, config, num_steps=30)

    keys = jax.random.split(jax.random.key(0), num_learners)
    numbers = {
        "epsilon": jnp.linspace(0.0, 1.0, num_learners),
        "rate": jnp.linspace(0.1, 1.0, num_learners),
        "power": jnp.linspace(1.0, 0.0, num_learners),
        "initial_value": jnp.linspace(-1.0, 1.0, num_learners),
    }
    learned, rows = jax.jit(jax.vmap(learn))(keys, numbers)
    table = learned.table
    assert len(np.unique(np.asarray(table.values[:, 0, 0]))) > 2000
    alone = jax.jit(learn)
    for i in (0, 1000, 2047):
        expected, row = alone(keys[i], jax.tree.map(lambda x, i=i: x[i], numbers))
        np.testing.assert_array_equal(rows.state[i], row.state)
        np.testing.assert_array_equal(rows.action[i], row.action)
        np.testing.assert_allclose(table.values[i], expected.table.values, **CLOSE)
        np.testing.assert_array_equal(table.visits[i], expected.table.visits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "dqn"}, "target: unknown choice 'dqn'"),
        ({"exploration": "greedy"}, "exploration: unknown choice"),
        ({"epsilon": 1.5}, r"epsilon must be in \[0, 1\], got 1.5"),
        (
            {"inverse_temperature": -1.0},
            "inverse_temperature must be at least 0, got -1",
        ),
        ({"step_size": StepSize(-1.0)}, r"step_size.rate must be in \[0, 1\]"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"num_workers": 0}, "num_workers must be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused(changes, message):
    counts = {k: changes.pop(k) for k in ("num_steps", "num_workers") if k in changes}
    config = ControlConfig()
    for name, value in changes.items():  # past the check of types, which users lack
        object.__setattr__(config, name, value)
    with pytest.raises(ValueError, match=message):
        learned_action_values(
            jax.random.key(0), random_walk(3), config, **{"num_steps": 1} | counts
        )
