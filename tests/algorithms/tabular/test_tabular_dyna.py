"""Dyna and prioritised sweeping on problems whose values are known."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import envs
from jaxrl_par.algorithms.tabular import (
    ControlConfig,
    DynaConfig,
    StepSize,
    Transition,
    action_values,
    chain,
    constant,
    control_update,
    dyna_update,
    estimate,
    learned_by_dyna,
    maze,
    new_learner,
    new_table,
    random_mdp,
    transitions_of,
    value_iteration,
)
from jaxrl_par.algorithms.tabular.experience import backups
from jaxrl_par.envs.dyna_maze import LAYOUT
from jaxrl_par.types import TimeStep, Trajectory

VALUES = 0.9 ** np.arange(9, -1, -1)
"""Of the chain's ten states."""


@partial(jax.jit, static_argnames=("config", "num_steps"))
def learned(mdp, config, num_steps, seed=0):
    return learned_by_dyna(jax.random.key(seed), mdp, config, num_steps=num_steps)


update = jax.jit(dyna_update, static_argnames="config")


def row(state, action, reward, discount, next_state):
    """One transition, fields [1]."""
    index = (jnp.array([x], jnp.int32) for x in (state, action, next_state))
    state, action, next_state = index
    reward, discount = (jnp.array([x], jnp.float32) for x in (reward, discount))
    return Transition(state, action, reward, discount, next_state)


@pytest.mark.slow
def test_after_one_episode_of_the_chain_planning_knows_all_values():
    """10,000 updates of ten pairs, by steps of 1, after the only reward."""
    exact = DynaConfig(num_planning=1_000, step_size=constant(1.0))
    found, steps = learned(chain(10), exact, 10)
    assert steps.discount[-1] == 0 and np.all(steps.discount[:-1] > 0)
    np.testing.assert_allclose(found.table.values[:10, 0], VALUES, rtol=1e-5)
    alone, _ = learned(chain(10), DynaConfig(num_planning=0), 10)
    np.testing.assert_allclose(alone.table.values[:, 0], [0] * 9 + [0.1, 0], rtol=1e-6)


@pytest.mark.slow
def test_prioritised_sweeping_takes_exactly_ten_updates():
    """One for each state, however many it may make; no other is worth any."""
    config = DynaConfig("prioritised", 50, step_size=constant(1.0))
    found, _ = learned(chain(10), config, 9)
    assert found.planned == 0 and np.all(found.table.values == 0)
    found, _ = learned(chain(10), config, 10)
    assert found.planned == 10 and np.all(found.queue == 0)
    np.testing.assert_allclose(found.table.values[:10, 0], VALUES, rtol=1e-5)
    limited, _ = learned(chain(10), DynaConfig("prioritised", 4), 10)
    assert limited.planned == 4


@pytest.mark.slow
def test_without_planning_dyna_is_q_learning():
    """Bit for bit, on the same transitions."""
    config = DynaConfig(num_planning=0, epsilon=0.5)
    found, steps = learned(maze(LAYOUT), config, 3_000)
    assert np.any(steps.discount == 0)

    def one(table, transition):
        transition = jax.tree.map(lambda x: x[None], transition)
        rule = ControlConfig(step_size=config.step_size)
        return control_update(table, transition, jnp.zeros(1, jnp.int32), rule), None

    table, _ = jax.jit(partial(jax.lax.scan, one))(new_table((54, 4)), steps)
    np.testing.assert_array_equal(found.table.values, table.values)
    assert np.any(found.table.values > 0)


@pytest.mark.parametrize(
    "planning", [pytest.param("seen", marks=pytest.mark.slow), "prioritised"]
)
def test_a_planned_update_follows_the_errors_sign(planning):
    """Trap 16 (a): Q = 1, reward 0 and an end, by a step of 1, is 0. Whoever adds the
    priority |error| has 2."""
    config = DynaConfig(planning, 1, step_size=constant(1.0))
    now = new_learner(jax.random.key(0), chain(1))
    now = now._replace(table=new_table((2, 1), 1.0))
    after = update(jax.random.key(1), now, row(0, 0, 0.0, 0.0, 1), 0.9, config=config)
    assert after.table.values[0, 0] == 0 and after.planned == 1


@cache
def streamed(limit=None):
    """Two states that follow each other, 12 rows: reward 1 for leaving the second, and
    an end, or a time limit as in `limit`. Rows show 0, 1, 2, and the start again."""
    seen = jnp.array([0, 1, 2] * 4 + [0], jnp.int32)[:, None]
    first, last = seen == 0, seen == 2
    reward = jnp.where(seen[:-1] == 1, 1.0, 0.0)
    discount = jnp.where((seen[:-1] == 2) | ((seen[:-1] == 1) & (not limit)), 0.0, 1.0)
    steps = TimeStep(seen, first, last)
    action = jnp.zeros_like(seen[:-1])
    return Trajectory(steps, action, reward, discount, {}, ())


def values_of(trajectory):
    """Of three states, after much planning on every row of the stream."""
    config = DynaConfig(num_planning=200, step_size=constant(1.0))
    steps, accepted = transitions_of(trajectory, 0.9)

    def one(now, given):
        key, step, accepted = given
        return update(key, now, step, 0.9, config=config, accepted=accepted[0]), None

    keys = jax.random.split(jax.random.key(0), len(accepted))
    first = new_learner(jax.random.key(1), chain(2))
    now, _ = jax.lax.scan(one, first, (keys, steps, accepted))
    return now.table.values[:, 0]


def test_the_start_of_the_next_episode_is_no_successor():
    """Trap 16 (b): a model that learned the restart converges to 4.737 and 5.263."""
    np.testing.assert_allclose(values_of(streamed()), [0.9, 1.0, 0.0], rtol=1e-6)
    restarts = streamed()._replace(discount=jnp.ones((12, 1)))
    steps, _ = transitions_of(restarts, 0.9)
    wrong = steps._replace(next_state=jnp.where(steps.state == 1, 0, steps.next_state))
    assert wrong.next_state[1] == 0
    solved = np.linalg.solve([[1, -0.9], [-0.9, 1]], [0, 1])
    np.testing.assert_allclose(solved, [4.737, 5.263], atol=1e-3)


@pytest.mark.slow
def test_at_a_time_limit_it_bootstraps_from_what_was_seen_last():
    """State 2, whose value is 0 until it is acted in: then it counts."""
    trajectory = streamed(limit=True)
    np.testing.assert_allclose(values_of(trajectory), [0.9, 1.0, 0.0], rtol=1e-6)
    # Another lane's step from state 2 pays 5 and ends: V(1) = 1 + 0.9 * 5.
    config = DynaConfig(num_planning=50, step_size=constant(1.0))
    now = new_learner(jax.random.key(1), chain(2))
    given = (row(0, 0, 0.0, 0.9, 1), row(1, 0, 1.0, 0.9, 2), row(2, 0, 5.0, 0.0, 2))
    for step in given:
        now = update(jax.random.key(2), now, step, 0.9, config=config)
    np.testing.assert_allclose(now.table.values[:, 0], [4.95, 5.5, 5.0], rtol=1e-6)


@pytest.mark.slow
def test_the_model_is_the_mean_of_tries_or_the_latest():
    """Rewards 4, 1, and an end with 1, of one pair; Q is 1 in state 1."""
    q_values = jnp.array([[0.0], [1.0]])
    tries = (row(0, 0, 4.0, 0.5, 1), row(0, 0, 1.0, 0.5, 1), row(0, 0, 1.0, 0.0, 1))
    for memory, expected in ((0.0, 1.0), (1.0, 7 / 3)):
        now = new_learner(jax.random.key(0), chain(1))
        for step in tries:
            config = DynaConfig(num_planning=0, memory=memory)
            now = update(jax.random.key(0), now, step, 0.5, config=config)
        told = backups(now.model, q_values)
        np.testing.assert_allclose(told[0, 0], expected, rtol=1e-6)
        assert told[1, 0] == 0 and not now.model.known[1, 0]


@pytest.mark.slow
def test_what_was_long_not_tried_has_a_bonus():
    """Dyna-Q+, alone in a state: of two actions one was tried, in step 1, and pays 1
    and ends. The other is thought to stay. kappa is 0.1 and it is step 2."""
    config = DynaConfig("all", 400, step_size=constant(1.0), bonus=0.1)
    now = new_learner(jax.random.key(0), random_mdp(jax.random.key(0), 2, 2))
    for step in (row(0, 0, 1.0, 0.0, 1), row(1, 0, 0.0, 0.0, 0)):
        now = update(jax.random.key(3), now, step, 0.5, config=config)
    tried = 1 + 0.1 * np.sqrt(2 - 1)
    never = 0.5 * tried + 0.1 * np.sqrt(2)  # V(0) is that of the tried action
    np.testing.assert_allclose(now.table.values[0], [tried, never], rtol=1e-5)
    plain = DynaConfig("seen", 400, step_size=constant(1.0))
    now = new_learner(jax.random.key(0), random_mdp(jax.random.key(0), 2, 2))
    now = update(jax.random.key(3), now, row(0, 0, 1.0, 0.0, 1), 0.5, config=plain)
    np.testing.assert_array_equal(now.table.values[0], [1.0, 0.0])


@pytest.mark.slow
@pytest.mark.parametrize("planning", ["seen", "prioritised"])
def test_with_chance_it_learns_what_the_samples_say(planning):
    """From tries that all count alike: the best values of the estimated problem, which
    `model.estimate` makes of the same steps."""
    mdp = random_mdp(jax.random.key(5), 4, 2, gamma=0.7)
    config = DynaConfig(planning, 20, 1.0, StepSize(), memory=1.0)
    found, steps = learned(mdp, config, 4_000)
    counted = estimate(steps, 4, 2, 0.7).mdp
    best = action_values(counted, value_iteration(counted).values)
    error = np.max(np.abs(found.table.values - best)) / np.max(np.abs(best))
    assert error < 0.01


@pytest.mark.slow
def test_the_shortest_way_through_the_maze_has_14_steps():
    """And the environment of that name is the same problem."""
    mdp = maze(LAYOUT)
    start = int(np.argmax(mdp.start))
    value = value_iteration(mdp).values[start]
    assert np.log(value) / np.log(0.95) == pytest.approx(13, abs=1e-3)
    env = envs.make("DynaMaze-6x9", 1)
    step = jax.jit(env.step)
    for state in map(int, np.flatnonzero(~np.asarray(mdp.terminal))):
        for action in range(4):
            env_state, seen = env.reset(jax.random.key(0))
            assert seen.obs[0] == start
            inner, was_last = env_state.inner
            moved = inner._replace(cell=jnp.array([state], jnp.int32))
            env_state = env_state._replace(inner=(moved, was_last))
            _, seen, reward, discount = step(
                env_state, jnp.array([action], jnp.int32), jax.random.key(0)
            )
            successor = int(seen.obs[0])
            assert mdp.transitions[state, action, successor] == 1
            assert reward[0] == mdp.rewards[state, action, successor]
            assert (discount[0] == 0) == mdp.terminal[successor] == seen.last[0]


@pytest.mark.slow
def test_planning_finds_the_way_in_fewer_episodes():
    """The textbook's curves, 20 learners of each in one program: episodes until the
    median one needs at most 20 steps, and none of them for the first."""

    def curves(num_planning):
        config = DynaConfig(num_planning=num_planning)
        many = jax.vmap(
            lambda key: learned_by_dyna(key, maze(LAYOUT), config, num_steps=8_000)[1]
        )
        steps = jax.jit(many)(jax.random.split(jax.random.key(0), 20))
        ends = [np.flatnonzero(x == 0)[:25] for x in np.asarray(steps.discount)]
        return np.median([np.diff(x, prepend=-1)[:15] for x in ends], axis=0)

    none, some, many = map(curves, (0, 5, 50))
    assert none[0] == pytest.approx(some[0], rel=0.9)
    below = [int(np.argmax(x <= 20)) if np.any(x <= 20) else 99 for x in (some, many)]
    assert below[1] <= 4 < 15 and below[1] < below[0] < 12 and np.all(none > 20)


@pytest.mark.slow
def test_prioritised_sweeping_needs_fewer_updates_than_dyna():
    """5 to 10 times fewer, says the literature, until the way is the shortest."""

    def updates(config, num_steps):
        def run(key):
            found, _ = learned_by_dyna(key, maze(LAYOUT), config, num_steps=num_steps)
            return found

        found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 10))
        return np.median(found.planned), np.asarray(found.table.values)

    best = np.asarray(value_iteration(maze(LAYOUT)).values)
    swept, q_values = updates(
        DynaConfig("prioritised", 5, step_size=constant(1.0)), 4000
    )
    error = np.abs(q_values.max(2)[:, 18] - best[18])
    assert np.median(error) < 1e-3
    dyna, _ = updates(DynaConfig("seen", 5, step_size=constant(1.0)), 4000)
    assert swept < dyna / 5


@pytest.mark.slow
def test_thousands_of_learners_are_as_one_alone():
    """Each with numbers of its own."""

    def learn(key, epsilon):
        config = DynaConfig(num_planning=3, epsilon=epsilon)
        return learned_by_dyna(key, chain(5), config, num_steps=20)[0]

    keys = jax.random.split(jax.random.key(0), 2048)
    rates = jnp.linspace(0.0, 1.0, 2048)
    found = jax.jit(jax.vmap(learn))(keys, rates)
    for i in (0, 1000, 2047):
        alone = jax.jit(learn)(keys[i], rates[i])
        values = found.table.values[i]
        np.testing.assert_allclose(values, alone.table.values, rtol=1e-5)
        np.testing.assert_array_equal(found.table.visits[i], alone.table.visits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_planning": -1}, "num_planning must be at least 0, got -1"),
        ({"memory": 2.0}, r"memory must be in \[0, 1\], got 2.0"),
        ({"threshold": -1.0}, "threshold must be at least 0, got -1.0"),
        ({"bonus": -1.0}, "bonus must be at least 0, got -1.0"),
        ({"epsilon": 1.5}, r"epsilon must be in \[0, 1\], got 1.5"),
        ({"planning": "sweep"}, "planning: unknown choice 'sweep'"),
        ({"step_size": constant(2.0)}, r"step_size.rate must be in \[0, 1\]"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    config = DynaConfig()
    for name, value in change.items():  # past the check of types, which users lack
        object.__setattr__(config, name, value)
    with pytest.raises(ValueError, match=message):
        learned_by_dyna(jax.random.key(0), chain(3), config, num_steps=1)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (("S.", "G"), "rows of one length"),
        (("S.", ".."), "one S and one G"),
        (("S#G",), "no way leads from S to G"),
    ],
)
def test_a_maze_without_a_way_is_refused(layout, message):
    with pytest.raises(ValueError, match=message):
        maze(layout)
