"""Evaluation: as many episodes of every environment, and none by its length."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random, rollout
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host import from_pure
from jaxrl_par.envs.wrappers import episode_statistics
from jaxrl_par.training import evaluate, evaluator
from jaxrl_par.training.evaluation import _player
from jaxrl_par.training.host_evaluation import host_evaluator
from jaxrl_par.types import Agent, Box, Discrete, TimeStep

SHORT, LONG, NUM_ENVS = 2, 20, 64


def uneven(max_episode_steps: int | None = LONG, long: float = 0.5) -> Environment:
    """Episodes of 2 steps, or with a chance of `long` of 20; a step pays the action."""

    def lengths(key):
        is_long = jax.random.bernoulli(key, long, shape=(NUM_ENVS,))
        return jnp.where(is_long, LONG, SHORT)

    def show(left, first):
        return TimeStep(left.astype(jnp.float32)[:, None], first, ~first & (left == 0))

    def reset(key):
        left = lengths(key)
        return left, show(left, jnp.ones(NUM_ENVS, bool))

    def step(left, action, key):
        was_last = left == 0
        left = jnp.where(was_last, lengths(key), left - 1)
        reward = jnp.where(was_last, 0.0, action.astype(jnp.float32))
        return left, show(left, was_last), reward, jnp.where(left == 0, 0.0, 1.0)

    return episode_statistics(
        Environment(
            reset, step, NUM_ENVS, Box((1,)), Discrete(2), "uneven", max_episode_steps
        )
    )


def act(params, carry, step, key):
    return jnp.broadcast_to(params, step.first.shape), carry + 1, {}


def greedy(params, carry, step, key):
    return jnp.full(step.first.shape, 3), carry, {}


AGENT = Agent(
    init=lambda key, step: None,
    initial_carry=lambda num_envs: jnp.zeros(num_envs, jnp.int32),
    act=act,
    grad=lambda state, batch, key, axis: None,
    apply=lambda state, grads, metrics: None,
    greedy=greedy,
)


def test_short_episodes_do_not_weigh_more():
    result = evaluate(AGENT, uneven(), jnp.int32(1), random.key(0), 16)
    assert result.returns.shape == result.lengths.shape == (16, NUM_ENVS)
    assert set(np.unique(result.lengths)) == {SHORT, LONG}
    np.testing.assert_array_equal(result.returns, result.lengths)
    # Whoever took the first 16 * 64 episodes to end would see about 3.5.
    share = np.mean(result.lengths == LONG, axis=1)
    np.testing.assert_allclose(share.mean(), 0.5, atol=5 * 0.5 / np.sqrt(16 * NUM_ENVS))


def test_greedy_is_the_agent_with_another_act():
    agent = AGENT._replace(act=AGENT.greedy)
    result = evaluate(agent, uneven(), jnp.int32(1), random.key(0), 2)
    np.testing.assert_array_equal(result.returns, 3 * result.lengths)


def test_the_longest_episodes_fit_the_bound():
    """Each needs its 20 rows, and the one that shows its end."""
    env = uneven(long=1.0)
    result = evaluate(AGENT, env, jnp.int32(1), random.key(3), 3, max_steps=LONG)
    assert result.complete and np.all(result.lengths == LONG)


def test_who_is_done_plays_on_and_does_not_count():
    """The action is the number of rows before it: the first episode pays the least."""
    agent = AGENT._replace(act=lambda params, carry, step, key: (carry, carry + 1, {}))
    result = evaluate(agent, uneven(), None, random.key(0), 3)
    length = result.lengths[0]
    np.testing.assert_array_equal(result.returns[0], length * (length - 1) / 2)


def taking_turns() -> Environment:
    """Episodes of 5, 4, 1, 1, ... steps in the one, of 20 in the other environment; a
    step pays 1."""
    lengths = jnp.array([[5, 4, 1], [20, 20, 20]])

    def length(episode):
        return lengths[jnp.arange(2), jnp.minimum(episode, 2)]

    def show(left, first):
        return TimeStep(left.astype(jnp.float32)[:, None], first, ~first & (left == 0))

    def reset(key):
        episode = jnp.zeros(2, jnp.int32)
        left = length(episode)
        return (episode, left), show(left, jnp.ones(2, bool))

    def step(state, action, key):
        episode, left = state
        was_last = left == 0
        episode = episode + was_last
        left = jnp.where(was_last, length(episode), left - 1)
        reward = jnp.where(was_last, 0.0, 1.0)
        discount = jnp.where(was_last | (left == 0), 0.0, 1.0)
        return (episode, left), show(left, was_last), reward, discount

    made = Environment(reset, step, 2, Box((1,)), Discrete(2), "taking_turns", 20)
    return episode_statistics(made)


def test_later_shorter_episodes_do_not_replace_those_that_count():
    """The first has ended many more before the second has ended two."""
    expected = [[5, 20], [4, 20]]
    result = evaluate(AGENT, taking_turns(), jnp.int32(1), random.key(0), 2)
    np.testing.assert_array_equal(result.returns, expected)
    np.testing.assert_array_equal(result.lengths, expected)
    env = from_pure(taking_turns(), random.key(0))
    env.plan(jax.random.split(random.key(0), 100))
    result = host_evaluator(AGENT, 2)(env, jnp.int32(1), random.key(0))
    np.testing.assert_array_equal(result.returns, expected)
    np.testing.assert_array_equal(result.lengths, expected)


def test_it_ends_where_episodes_do_not():
    with pytest.raises(ValueError, match="more than the 5 steps"):
        evaluate(AGENT, uneven(), jnp.int32(1), random.key(0), 2, max_steps=5)
    with pytest.raises(ValueError, match="needs max_steps"):
        evaluator(AGENT, uneven(None), 2)
    result = evaluator(AGENT, uneven(None), 2, 5)(jnp.int32(1), random.key(0))
    assert not result.complete
    # An environment whose episode was cut plays no more.
    cut = result.lengths == 5
    assert result.num_cut == np.isnan(result.returns).sum() + cut.sum()
    np.testing.assert_array_equal(result.returns[cut], 5)
    assert np.isnan(result.returns[1][cut[0]]).all() and (result.lengths[0] == 2).any()


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        evaluator(AGENT, uneven(), 0)
    with pytest.raises(ValueError, match="episode_statistics"):
        evaluator(AGENT, uneven()._replace(episode=None), 1)


def test_wrong_things_are_named():
    # As users call it: the tests check types first.
    of_other_specs = inspect.unwrap(rollout.refuse_other_specs)
    with pytest.raises(ValueError, match=r"agent must be an Agent, .* got NoneType"):
        of_other_specs(None, uneven())
    with pytest.raises(ValueError, match=r"env must be an Environment, .* got Agent"):
        inspect.unwrap(_player)(AGENT, AGENT, 1, None)


def test_a_population_is_a_vmap():
    evaluate_all = jax.vmap(evaluator(AGENT, uneven(), 2), (0, None))
    result = jax.jit(evaluate_all)(jnp.array([1, 2]), random.key(0))
    np.testing.assert_array_equal(result.lengths[0], result.lengths[1])
    np.testing.assert_array_equal(result.returns[1], 2 * result.returns[0])
