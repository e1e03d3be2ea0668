"""Meta-learning by gradients as a program: tasks are drawn, adapted to, and forgotten.

What stays are the parameters from which all tasks begin. See `loops.inner_steps` for
what is learned of an adaptation, and `loops.outer_steps` for a step that is searched.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl_par import rollout
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.envs.tasks.base import Tasks
from jaxrl_par.envs.tasks.shapes import refuse_other_shapes
from jaxrl_par.errors import refuse
from jaxrl_par.loops.inner_steps import (
    AdaptationConfig,
    Draw,
    adapt,
    meta_gradient,
    params_of,
    refuse_agent,
)
from jaxrl_par.loops.outer_steps import Outer, known_of, outer_step, refuse_outer
from jaxrl_par.loops.run import (
    Program,
    Run,
    count_skipped,
    new_run,
    unroll_keys,
)
from jaxrl_par.loops.updates import apply_finite
from jaxrl_par.measured import Metric
from jaxrl_par.types import (
    Agent,
    Grads,
    Mean,
    Metrics,
    Params,
    PRNGKey,
    State,
)

METRICS = {
    "return_before": Metric(
        "rewards",
        "of episodes before the inner gradient; `episode_return` is after it",
    ),
}


class Played(NamedTuple):
    """Episodes of one task with the same parameters."""

    returns: Float[Array, " E"]
    lengths: Int[Array, " E"]


def adaptation(
    agent: Agent,
    tasks: Tasks,
    config: AdaptationConfig,
    num_tasks: int,
    num_episodes: int,
    max_steps: int,
    *,
    outer: Outer | None = None,
    axis: Axis = Axis(),
) -> Program:
    """Adapts to new tasks, then the parameters from which that began take a step.

    `episode_return` is that of the adapted parameters, in episodes from which no task
    adapted; `return_before` that of the first ones.

    Args:
      agent: its `apply` takes the step. For maml its network is to be
        `networks.twice_differentiable`, or second derivatives are those of its loss;
        with `outer` it is not to be.
      num_tasks: of this instance along the axis.
      num_episodes: those that each task has for a gradient, side by side.
      max_steps: longest episode. One that is longer is cut there, as by a time limit.
      outer: takes the step within a trust region, in place of the agent.

    Raises:
      ValueError: a count is below 1, the agent was made for other specs or cannot
        adapt, tasks are of other shapes than their environment, or as `refuse_outer`.
    """
    counts = {"num_tasks": num_tasks, "num_episodes": num_episodes}
    refuse(config, **counts, max_steps=max_steps)
    refuse_other_shapes(tasks)
    refuse_agent(agent)
    if outer is not None:
        refuse_outer(outer, config)

    def init(key: PRNGKey) -> Run:
        learn_key, env_key, root = jax.random.split(key, 3)
        task_key, env_key = jax.random.split(env_key)
        env = tasks.at(tasks.draw(task_key), num_episodes)
        rollout.refuse_other_specs(agent, env)
        state = agent.init(learn_key, env.reset(env_key)[1])
        params_of(state)
        return new_run(state, (), root)

    def of_tasks(method: Callable, state: State, keys: Any) -> Any:
        def one(key: PRNGKey) -> Any:
            task_key, key = jax.random.split(key)
            task = tasks.draw(task_key)
            draw = episodes_of(agent, tasks, task, num_episodes, max_steps)
            return method(agent, draw, state, key, config)

        return jax.vmap(one)(keys)

    if outer is None:
        apply, learned = agent.apply, partial(_by_gradient, of_tasks, axis)
    else:
        step_of = partial(outer_step, agent, config=config, outer=outer, axis=axis)
        apply, learned = _moved, partial(_by_search, of_tasks, step_of)

    def step(run: Run) -> tuple[Run, Metrics]:
        # A task is the same wherever it is drawn: so no index is in this key.
        key, _ = unroll_keys(run.key, run.progress.updates, 0)
        numbers = axis.index * num_tasks + jnp.arange(num_tasks, dtype=jnp.int32)
        keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
        state = axis.apart(run.learner)
        grads, metrics, played = learned(state, keys)
        state, applied = apply_finite(apply, run.learner, grads, metrics)
        metrics = metrics | applied
        played, env_steps = axis.sum(axis.after(_totals(played), metrics))
        progress = count_skipped(run.progress.counted(env_steps), metrics)
        run = run._replace(learner=passed(state, env_steps), progress=progress)
        return run, metrics | played

    return Program(init, step)


def episodes_of(
    agent: Agent, tasks: Tasks, task: Any, num_episodes: int, max_steps: int
) -> Draw:
    """Whole episodes in one task, which may be traced; `Played` is told of them."""
    env = tasks.at(task, num_episodes)

    def draw(params: Params, key: PRNGKey) -> tuple[Any, Played]:
        trajectory, _ = rollout.whole_episodes(agent, env, params, key, max_steps)
        lengths = jnp.sum(~trajectory.rows.last, axis=0, dtype=jnp.int32)
        return trajectory, Played(jnp.sum(trajectory.reward, axis=0), lengths)

    return draw


def returns_after(
    agent: Agent,
    tasks: Tasks,
    config: AdaptationConfig,
    num_tasks: int,
    num_episodes: int,
    max_steps: int,
) -> Callable[[State, PRNGKey], Float[Array, "N M"]]:
    """Mean returns in N new tasks after 0, 1, ..., M - 1 = K steps of adaptation.

    After each the same episodes are played, but for the actions: what differs within a
    task is the gain. Arguments are as for `adaptation`.

    Raises:
      ValueError: as `adaptation`.
    """
    counts = {"num_tasks": num_tasks, "num_episodes": num_episodes}
    refuse(config, **counts, max_steps=max_steps)
    refuse_other_shapes(tasks)
    refuse_agent(agent)
    single = replace(config, inner_steps=1)

    def in_task(state: State, key: PRNGKey) -> Float[Array, " M"]:
        task_key, test_key, key = jax.random.split(key, 3)
        draw = episodes_of(agent, tasks, tasks.draw(task_key), num_episodes, max_steps)

        def tested(params: Params) -> Float[Array, ""]:
            acting = agent.params(state._replace(params=params))
            return jnp.mean(draw(acting, test_key)[1].returns)

        def step(params: Params, key: PRNGKey) -> tuple[Params, Float[Array, ""]]:
            after = adapt(agent, draw, state, params, key, single).params
            return after, tested(params)

        keys = jax.random.split(key, config.inner_steps)
        params, returns = jax.lax.scan(step, params_of(state), keys)
        return jnp.append(returns, tested(params))

    def returns(state: State, key: PRNGKey) -> Float[Array, "N M"]:
        keys = jax.random.split(key, num_tasks)
        return jax.vmap(in_task, (None, 0))(state, keys)

    return returns


def _by_gradient(
    of_tasks: Callable, axis: Axis, state: State, keys: Any
) -> tuple[Grads, Metrics, Played]:
    grads, metrics, played = of_tasks(meta_gradient, state, keys)
    # Tasks first, whatever each one's gradient is a mean of.
    means = jax.tree.map(partial(jnp.mean, axis=0), (grads, metrics))
    return *axis.mean(means), played


def _by_search(
    of_tasks: Callable, step_of: Callable, state: State, keys: Any
) -> tuple[Params, Metrics, Played]:
    known = of_tasks(known_of, state, keys)
    found = step_of(state, known)
    return found.step, found.metrics, known.told


def _moved(state: State, step: Params, metrics: Metrics) -> State:
    """After a step, as it is: no optimizer is asked."""
    del metrics
    params = jax.tree.map(jnp.add, params_of(state), step)
    return state._replace(params=params)


def _totals(played: Played) -> tuple[Metrics, Int[Array, ""]]:
    """Sums over tasks and episodes, leaves [N, K + 1, E], and all environment steps."""
    before, after = (jax.tree.map(lambda x, i=i: x[:, i], played) for i in (0, -1))
    count = jnp.float32(after.returns.size)
    metrics: Metrics = {
        "return_before": Mean(jnp.sum(before.returns), count),
        "episode_return": Mean(jnp.sum(after.returns), count),
        "episode_length": Mean(jnp.sum(after.lengths.astype(jnp.float32)), count),
    }
    return metrics, jnp.sum(played.lengths, dtype=jnp.int32)
