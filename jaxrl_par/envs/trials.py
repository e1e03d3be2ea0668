"""Trials: several episodes in one task, as one episode of the stream.

A task is drawn where a trial begins, and holds for all its episodes. Memory is cleared
there alone: an agent that remembers can find out in the first episodes what it uses in
the later ones, and its return is that of the whole trial. So plain reinforcement
learning of the trials learns to learn (RL^2).

What ends an episode within a trial has no say in the trial: values bootstrap through
it. Discounts are 1 up to the trial's end, which terminates.

Sources: Duan et al., arXiv:1611.02779, section 2.2; Wang et al., arXiv:1611.05763.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.envs import gymnax
from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.raw import as_written, strong_dtypes
from jaxrl_par.envs.tasks.base import Tasks
from jaxrl_par.envs.tasks.shapes import refuse_other_shapes
from jaxrl_par.envs.wrappers import clip_actions, episode_statistics
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.types import Action, Box, Discrete, EnvState, Obs, Spec, TimeStep


class Shown(NamedTuple):
    """An observation with what led to it; all of that is 0 where a trial begins."""

    obs: Obs
    action: Action
    """[*T, B, A] in float32: one-hot, or the real numbers that were done."""
    reward: Any
    """[*T, B]; in a spec, that of a reward."""
    ended: Any
    """[*T, B] in float32: 1 where the action ended an episode of the trial. Its final
    observation is shown only if it ends the trial, too; else the next episode's first
    one is."""


class _Trials(NamedTuple):
    """B trials in progress."""

    task: Any
    """Leaves [B, ...]."""
    state: EnvState
    """Of the episode in progress."""
    num_ended: Int[Array, " B"]
    """Episodes of the trial that ended."""
    last: Bool[Array, " B"]


def trials(
    tasks: Tasks, num_envs: int, num_episodes: int, name: str | None = None
) -> Environment:
    """`num_envs` trials at a time, of `num_episodes` episodes in a task each.

    `Environment.episode` is the trial: its return is the sum of all its rewards.

    Raises:
      ValueError: a number is below 1, or tasks have other shapes than the parameters of
        their environment.
    """
    refuse(num_envs=num_envs, num_episodes=num_episodes)
    refuse_other_shapes(tasks)
    one = gymnax.from_gymnax(tasks.env, num_envs=1)
    assert one.max_episode_steps is not None
    spec = one.action_spec
    if not isinstance(spec, Box | Discrete):
        raise RefusedError(f"trials show one Discrete action or a Box, not {spec}")
    reset, step = _stream(tasks, num_envs, num_episodes, spec)
    flag = Box((), low=0.0, high=1.0)

    def draw(now, i):
        return tasks.env.draw(jax.tree.map(lambda x: np.asarray(x[i]), now.state))

    made = Environment(
        reset=as_written(reset),
        step=as_written(step),
        num_envs=num_envs,
        observation_spec=Shown(one.observation_spec, Box(_shape(spec)), Box(()), flag),
        action_spec=spec,
        name=name or f"{num_episodes} episodes of {one.name}",
        max_episode_steps=num_episodes * one.max_episode_steps,
        draw=draw if hasattr(tasks.env, "draw") else None,
    )
    return episode_statistics(clip_actions(made))


def _stream(tasks: Tasks, num_envs: int, num_episodes: int, spec: Spec):
    """(reset, step) of an `Environment` with actions of that spec."""
    env = tasks.env
    strong = strong_dtypes(gymnax.raw(env, env.default_params))
    restart, advance = jax.vmap(env.reset_env), jax.vmap(env.step_env)

    def drawn(key):
        task = jax.vmap(tasks.draw)(jax.random.split(key, num_envs))
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), task)

    def reset(key):
        task_key, reset_key = jax.random.split(key)
        task = drawn(task_key)
        obs, state = restart(jax.random.split(reset_key, num_envs), task)
        state, obs = strong((state, obs))
        no, zeros = jnp.zeros(num_envs, bool), jnp.zeros(num_envs, jnp.float32)
        action = jnp.zeros((num_envs, *_shape(spec)), jnp.float32)
        after = _Trials(task, state, jnp.zeros(num_envs, jnp.int32), no)
        return after, TimeStep(Shown(obs, action, zeros, zeros), first=~no, last=no)

    def step(now, action, key):
        task_key, *keys = jax.random.split(key, 3)
        reset_keys, step_keys = (jax.random.split(x, num_envs) for x in keys)
        over = now.last
        # A task may be much to draw, and steps that end trials are few.
        task = jax.lax.cond(
            jnp.any(over),
            lambda: _where(over, drawn(task_key), now.task),
            lambda: now.task,
        )
        fresh = jax.lax.optimization_barrier(restart(reset_keys, task))
        obs, state, reward, ended, _ = advance(step_keys, now.state, action, task)
        ended = ended.astype(bool) | jax.vmap(env.is_truncated)(state, task)
        ended &= ~over
        num_ended = jnp.where(over, 0, now.num_ended + ended)
        last = ended & (num_ended == num_episodes)
        obs, state = _where(over | (ended & ~last), fresh, (obs, state))
        state, obs = strong((state, obs))
        reward = jnp.where(over, 0.0, reward.astype(jnp.float32))
        done = _encoded(spec, action)
        done = _where(over, jnp.zeros_like(done), done)
        seen = Shown(obs, done, reward, ended.astype(jnp.float32))
        discount = (~(over | last)).astype(jnp.float32)
        after = _Trials(task, state, num_ended, last)
        return after, TimeStep(seen, first=over, last=last), reward, discount

    return reset, step


def _shape(spec: Spec) -> tuple[int, ...]:
    """Of an action as it is shown."""
    return (spec.num_values,) if isinstance(spec, Discrete) else spec.shape


def _encoded(spec: Spec, action: Action) -> Float[Array, "B A"]:
    if isinstance(spec, Discrete):
        return jax.nn.one_hot(action, spec.num_values)
    return action.astype(jnp.float32)


def _where(condition: Bool[Array, " B"], xs: Any, ys: Any) -> Any:
    """Of two trees with leaves [B, ...], environment by environment."""

    def chosen(x, y):
        return jnp.where(condition.reshape(-1, *[1] * (x.ndim - 1)), x, y)

    return jax.tree.map(chosen, xs, ys)
