"""One device, many updates in each call (Anakin): acting and learning in one program.

Everything that happens between two looks at the metrics is one compiled call, so that
neither Python nor a transfer to the host stands between two updates.

Source: Hessel et al., arXiv:2104.06272, section 2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_par import random, rollout
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Environment
from jaxrl_par.errors import RefusedError, not_a_seed, refuse, refuse_any
from jaxrl_par.loops import Engine, Learner, Program, Run, learn_from, learner_of
from jaxrl_par.loops.learner import Data
from jaxrl_par.loops.run import episode_metrics, new_run, step_keys
from jaxrl_par.types import Agent, Mean, Metrics, PRNGKey


class Local(NamedTuple):
    """What a device has for itself."""

    streams: rollout.Streams
    data: Data
    """The learner's, on this device."""


def compiled(
    learner: Agent | Learner, env: Environment, unroll_length: int, axis: Axis = Axis()
) -> Program:
    """Acts for `unroll_length` steps in every environment, then learns from them.

    Args:
      learner: an agent alone learns from each trajectory once.
      axis: each instance along it steps an `env` of its own with randomness of its own;
        gradients and metrics are averaged over it.

    Raises:
      ValueError: `unroll_length` is below 1, or the agent was made for other specs.
    """
    refuse(unroll_length=unroll_length)
    learner = learner_of(learner)
    rollout.refuse_other_specs(learner.actor, env)
    actor, learn = learner.actor, learn_from(learner, axis)

    def init(key: PRNGKey) -> Run:
        learn_key, env_key, root = jax.random.split(key, 3)
        own = axis.own(env_key)
        streams = rollout.start(actor, env, own, axis.index, axis.size)
        state = learner.init(learn_key, streams.step)
        params = learner.params(state)
        shapes = rollout.shapes(actor, params, streams.step, unroll_length)
        return new_run(state, Local(streams, learner.start(shapes)), root)

    def step(run: Run) -> tuple[Run, Metrics]:
        act_key, _ = step_keys(run, axis)
        params, local = learner.params(run.learner), run.local
        streams, trajectory, episodes = rollout.unroll(
            actor, env, params, local.streams, act_key, unroll_length
        )
        run, metrics = learn(run._replace(local=local.data), trajectory)
        episodes = episode_metrics(axis.after(episodes, metrics), axis)
        return run._replace(local=Local(streams, run.local)), metrics | episodes

    return Program(init, step)


def episodic(
    learner: Agent | Learner, env: Environment, max_steps: int, axis: Axis = Axis()
) -> Program:
    """Acts for one whole episode in every environment, then learns from them.

    The loop of Monte Carlo policy gradients, which need returns to the end.

    Raises:
      ValueError: `max_steps` is below 1, or the agent was made for other specs.
    """
    refuse(max_steps=max_steps)
    learner = learner_of(learner)
    rollout.refuse_other_specs(learner.actor, env)
    actor, learn = learner.actor, learn_from(learner, axis)

    def init(key: PRNGKey) -> Run:
        learn_key, env_key, root = jax.random.split(key, 3)
        _, step = env.reset(env_key)
        state = learner.init(learn_key, step)
        shapes = rollout.shapes(actor, learner.params(state), step, max_steps)
        return new_run(state, learner.start(shapes), root)

    def step(run: Run) -> tuple[Run, Metrics]:
        act_key, _ = step_keys(run, axis)
        given = (actor, env, learner.params(run.learner), act_key, max_steps)
        trajectory, episodes = rollout.whole_episodes(*given, axis.index, axis.size)
        run, metrics = learn(run, trajectory)
        episodes = episode_metrics(axis.after(episodes, metrics), axis)
        return run, metrics | episodes

    return Program(init, step)


def scanned(program: Program, num_updates: int) -> Callable[[Run], tuple[Run, Metrics]]:
    """`num_updates` steps of `program` in one call; metrics are stacked [num_updates].

    `num_updates` calls of one give the same numbers as one call of `num_updates`,
    because all randomness is drawn from the run's own key and counter.

    Raises:
      ValueError: `num_updates` is below 1.
    """
    refuse(num_updates=num_updates)

    def call(run: Run) -> tuple[Run, Metrics]:
        return jax.lax.scan(lambda run, _: program.step(run), run, length=num_updates)

    return call


def train(
    program: Program | Engine, num_updates: int, seed: int = 0
) -> tuple[Run, dict[str, np.ndarray]]:
    """The run after so many updates, and what was measured in each of them.

    A program is one compiled call. An engine of threads is started and closed here. See
    `training.train` for a run that writes files and can be resumed.

    Returns:
      (run, metrics), whose arrays are [num_updates, ...]. A mean over what ended in an
      update, such as `episode_return`, is NaN where nothing ended.

    Raises:
      ValueError: `num_updates` is below 1, `seed` is not in 0 .. 2**32 - 1, or it is no
        program.
      Exception: what a thread of an engine raised.
    """
    refuse(num_updates=num_updates)
    refuse_any(not_a_seed(seed=seed))
    if not isinstance(program, Program | Engine):
        raise RefusedError(
            f"train takes compiled(agent, env, ...), not {program!r:.40}"
        )
    key = random.key(seed)
    if isinstance(program, Engine):
        try:
            run, metrics = program.advance(program.init(key), num_updates)
        finally:
            program.close()
    else:
        call = jax.jit(scanned(program, num_updates), donate_argnums=0)
        run, metrics = jax.block_until_ready(call(jax.jit(program.init)(key)))
    metrics = jax.device_get(metrics)
    return run, {name: _divided(value) for name, value in metrics.items()}


def _divided(value: Any) -> np.ndarray:
    if not isinstance(value, Mean):
        return np.asarray(value)
    nothing = np.full_like(value.total, np.nan)
    return np.divide(value.total, value.count, out=nothing, where=value.count > 0)
