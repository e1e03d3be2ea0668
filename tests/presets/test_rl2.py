"""RL^2 learns to learn, and refuses what cannot."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import cli, presets, random, training
from jaxrl_par.envs.tasks.bandits import Bandit, BanditParams
from jaxrl_par.envs.tasks.base import Tasks
from jaxrl_par.envs.trials import trials
from jaxrl_par.testing import meta_learners
from jaxrl_par.topologies.compiled import train

pytestmark = pytest.mark.usefixtures("declared")

RL2 = presets.get("rl2")


def test_without_memory_nothing_is_learned_within_a_trial():
    args = RL2.config()
    args = replace(args, network=replace(args.network, memory="none"))
    assert args.problems() == [
        "network.memory must be lstm, gru or gtrxl, got none: without memory nothing is"
        " learned within a trial"
    ]
    assert RL2.config().problems() == []


@pytest.fixture(scope="module")
def learned():
    """What acts in bandits of two arms, after 600 000 pulls."""
    args = RL2.config(env_name="Bandits-2x10", total_steps=600_000)
    learner = cli.compose(args, RL2.make_agent)
    num_updates = args.total_steps // args.rows_per_update
    run, _ = train(cli.place(args, learner), num_updates)
    return learner.actor, learner.params(run.learner)


def returns(learned, env):
    agent, params = learned
    greedy = agent._replace(act=agent.greedy)
    return training.evaluate(greedy, env, params, random.key(1), 1).returns


@pytest.mark.slow
def test_two_arms_are_learned_to_be_learned_and_no_task_leaks(learned):
    args = RL2.config(env_name="Bandits-2x10")
    found = returns(learned, args.make_env(20_000))
    error = np.std(found) / 20_000**0.5
    best = meta_learners.bayes_optimum(2, 10)
    # At random it is 5; 5.82 when this was written.
    assert best - 0.3 < np.mean(found) < best + 3 * error


@pytest.mark.slow
def test_an_arm_that_never_pays_is_tried_once_at_most(learned):
    for chances in ([1.0, 0.0], [0.0, 1.0]):
        task = BanditParams(jnp.array(chances))
        env = trials(Tasks(Bandit(2), lambda _, task=task: task), 4, 10)
        assert np.min(returns(learned, env)) >= 9
