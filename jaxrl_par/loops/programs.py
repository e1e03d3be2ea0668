"""Acting and learning in turn, as programs that a topology can place on hardware."""

from typing import NamedTuple

import jax

from jaxrl_par import rollout
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Environment
from jaxrl_par.loops.learning import Learning, Memory, learn_from, learner
from jaxrl_par.loops.run import (
    Program,
    Run,
    check_counts,
    episode_metrics,
    new_run,
    step_keys,
)
from jaxrl_par.types import Agent, Metrics, PRNGKey


class Local(NamedTuple):
    """What a device has for itself in `program`."""

    workers: rollout.Workers
    memory: Memory
    """Of its share of the learner."""


def program(
    actor: Agent,
    learning: Learning,
    env: Environment,
    unroll_length: int,
    *,
    axis: Axis = Axis(),
) -> Program:
    """Acts for `unroll_length` steps in every environment, then learns from them.

    Args:
      actor: acts with `params` of what `learning` learns.
      axis: each instance along it steps an `env` of its own with randomness of its
        own; gradients and metrics are averaged over it.

    Raises:
      ValueError: `unroll_length` is below 1.
    """
    check_counts(unroll_length=unroll_length)
    learn = learn_from(learning, axis)

    def init(key: PRNGKey) -> Run:
        learn_key, env_key, root = jax.random.split(key, 3)
        workers = rollout.start(actor, env, axis.own(env_key), axis.index, axis.size)
        state = learning.init(learn_key, workers.step)
        shapes = rollout.shapes(actor, actor.params(state), workers.step, unroll_length)
        memory = learning.start(shapes)
        return new_run(state, Local(workers, memory), root)

    def step(run: Run) -> tuple[Run, Metrics]:
        act_key, _ = step_keys(run, axis)
        local: Local = run.local
        workers, trajectory, episodes = rollout.unroll(
            actor, env, actor.params(run.learner), local.workers, act_key, unroll_length
        )
        run, metrics = learn(run._replace(local=local.memory), trajectory)
        run = run._replace(local=Local(workers, run.local))
        episodes = axis.after(episodes, metrics)
        return run, metrics | episode_metrics(episodes, axis)

    return Program(init, step)


def on_policy(
    agent: Agent,
    env: Environment,
    unroll_length: int,
    *,
    num_epochs: int = 1,
    num_minibatches: int = 1,
    axis: Axis = Axis(),
) -> Program:
    """`program` for an agent that acts, and learns with `learner`.

    Raises:
      ValueError: a count is below 1.
    """
    learning = learner(agent, num_epochs=num_epochs, num_minibatches=num_minibatches)
    return program(agent, learning, env, unroll_length, axis=axis)


def episodic(
    agent: Agent, env: Environment, max_steps: int, *, axis: Axis = Axis()
) -> Program:
    """Acts for one whole episode in every environment, then learns once from them.

    The loop of Monte Carlo policy gradients, which need returns to the end.

    Raises:
      ValueError: `max_steps` is below 1.
    """
    check_counts(max_steps=max_steps)
    learn = learn_from(learner(agent), axis)

    def init(key: PRNGKey) -> Run:
        agent_key, env_key, root = jax.random.split(key, 3)
        _, step = env.reset(env_key)
        return new_run(agent.init(agent_key, step), (), root)

    def step(run: Run) -> tuple[Run, Metrics]:
        act_key, _ = step_keys(run, axis)
        trajectory, episodes = rollout.whole_episodes(
            agent, env, agent.params(run.learner), act_key, max_steps
        )
        run, metrics = learn(run, trajectory)
        episodes = axis.after(episodes, metrics)
        return run, metrics | episode_metrics(episodes, axis)

    return Program(init, step)
