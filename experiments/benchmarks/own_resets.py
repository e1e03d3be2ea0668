"""Suites' own automatic resets, for those who compare the stream with them.

Each is a function (task, its bare transition, time limit) -> `Wrapped`, of one
environment. `wrapped.SUBJECTS` lists which tasks they are of.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_par.envs import Raw
from jaxrl_par.envs.registry import alone
from jaxrl_par.envs.suites.keys import words
from jaxrl_par.envs.suites.listing import SELF_PLAY
from jaxrl_par.types import Discrete, Masked


class Seen(NamedTuple):
    """What whoever learns is told of a step."""

    obs: Any
    """What the next action is chosen from."""
    successor: Any
    """What the step led to, as far as it is shown anywhere."""
    reward: Any
    over: Any
    discount: Any
    """0 where it says that the task ended."""


class Bare(NamedTuple):
    """What the task itself does in that step."""

    obs: Any
    reward: Any
    terminated: Any


class Wrapped(NamedTuple):
    """An environment that resets by itself."""

    name: str
    reset: Callable[[Any], tuple[Any, Any]]
    """key -> (state, obs)"""
    step: Callable[[Any, Any, Any], tuple[Any, Seen]]
    """(state, action, key) -> (state, what is seen)"""
    bare: Callable[[Any, Any, Any], Bare]
    """(state, action, key) -> what the task does, without resets"""
    act: Callable[[Any, Any], Any]
    """(state, key) -> a random action that is legal"""
    idle: Callable[[Any], Any] = lambda state: False
    """Whether a step from there only shows the next start."""


def legal(raw: Raw, shown: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """A random action, by the mask where there is one."""
    spec = raw.action_spec

    def act(now, key):
        if not isinstance(spec, Discrete):
            return jax.random.uniform(key, spec.shape, minval=-1.0)
        allowed = jnp.ones(spec.num_values, bool)
        obs = shown(now)
        if isinstance(obs, Masked):
            allowed = obs.allowed | ~obs.allowed.any()
        logits = jnp.where(allowed, 0.0, -jnp.inf)
        return jax.random.categorical(key, logits).astype(spec.dtype)

    return act


def gymnax(task: str, bare: Raw, limit: int) -> Wrapped:
    env = alone(task)
    params = env.default_params.replace(max_steps_in_episode=limit)

    def reset(key):
        obs, state = env.reset(key, params)
        return state, obs

    def step(state, action, key):
        obs, state, reward, ended, cut, info = env.step(key, state, action, params)
        final = info["final_observation"]
        return state, Seen(obs, final, reward, ended | cut, 1.0 - ended)

    def alone_step(state, action, key):
        key, _ = jax.random.split(key)
        obs, _, reward, ended, _ = env.step_env(key, state, action, params)
        return Bare(obs, reward, ended)

    act = legal(bare, lambda state: None)
    return Wrapped("gymnax's step", reset, step, alone_step, act)


def _physics(name: str, inner: Any, wrapper: Any, episode: Any, bare: Raw) -> Wrapped:
    """brax's wrappers, or Playground's, which batch by themselves."""
    wrapped = wrapper(episode)

    def one(tree):
        return jax.tree.map(lambda x: x[0], tree)

    def reset(key):
        state = wrapped.reset(words(key)[None])
        return state, one(state.obs)

    def copied(state):
        return jax.tree.map(lambda x: x, state)  # wrappers write into `info`

    def step(state, action, key):
        state = wrapped.step(copied(state), action[None])
        going_on = 1.0 - state.done * (1.0 - state.info["truncation"])
        obs = one(state.obs)
        return state, Seen(obs, obs, state.reward[0], state.done[0] > 0, going_on[0])

    def alone_step(state, action, key):
        before = one(copied(state))
        after = inner.step(before.replace(done=jnp.zeros_like(before.done)), action)
        return Bare(after.obs, after.reward, after.done > 0)

    act = legal(bare, lambda state: None)
    return Wrapped(name, reset, step, alone_step, act)


def brax(task: str, bare: Raw, limit: int) -> Wrapped:
    training, envs = (
        import_module(f"brax.envs{x}") for x in (".wrappers.training", "")
    )
    inner = envs.get_environment(task, backend="positional")
    episode = training.EpisodeWrapper(training.VmapWrapper(inner), limit, 1)
    wrapper = training.AutoResetWrapper
    return _physics("brax's AutoResetWrapper", inner, wrapper, episode, bare)


def playground(task: str, bare: Raw, limit: int) -> Wrapped:
    training = import_module("brax.envs.wrappers.training")
    own = import_module("mujoco_playground._src.wrapper")
    suite = import_module("mujoco_playground").dm_control_suite
    inner = suite.load(task, config_overrides={"impl": "jax"})
    episode = training.EpisodeWrapper(training.VmapWrapper(inner), limit, 1)
    name = "Playground's BraxAutoResetWrapper"
    return _physics(name, inner, own.BraxAutoResetWrapper, episode, bare)


def jumanji(task: str, bare: Raw, limit: int) -> Wrapped:
    jumanji, wrappers = import_module("jumanji"), import_module("jumanji.wrappers")
    env = jumanji.make(task, time_limit=limit)
    wrapped = wrappers.AutoResetWrapper(env)

    def reset(key):
        state, first = wrapped.reset(words(key))
        return state, first.observation

    def step(state, action, key):
        state, now = wrapped.step(state, action)
        return state, _of_dm(now)

    def alone_step(state, action, key):
        _, now = env.step(state, action)
        _, _, _, ended, _ = bare.step((state, jnp.float32(1)), action, key)
        return Bare(now.observation, now.reward, ended)

    act = legal(bare, lambda state: None)
    return Wrapped(
        "Jumanji's AutoResetWrapper, by default", reset, step, alone_step, act
    )


def _of_dm(now: Any) -> Seen:
    obs = now.observation
    return Seen(obs, obs, now.reward, now.last(), now.discount)


def xland(task: str, bare: Raw, limit: int) -> Wrapped:
    env, params = import_module("xminigrid").make(task, max_steps=limit)
    wrapped = import_module("xminigrid.wrappers").GymAutoResetWrapper(env)

    def reset(key):
        now = wrapped.reset(params, words(key))
        return now, now.observation

    def step(state, action, key):
        now = wrapped.step(params, state, action)
        return now, _of_dm(now)

    def alone_step(state, action, key):
        _, obs, reward, ended, _ = bare.step(state, action, key)
        return Bare(obs, reward, ended)

    act = legal(bare, lambda state: None)
    name = "XLand-MiniGrid's GymAutoResetWrapper"
    return Wrapped(name, reset, step, alone_step, act)


def pgx(task: str, bare: Raw, limit: int) -> Wrapped:
    env = import_module("pgx").make(task.removesuffix(SELF_PLAY))
    step_of = import_module("pgx.experimental.wrappers").auto_reset(env.step, env.init)

    def reset(key):
        state = env.init(key)
        return state, state.observation

    def step(state, action, key):
        state = step_of(state, action, key)
        over, obs = state.terminated | state.truncated, state.observation
        return state, Seen(obs, obs, state.rewards[0], over, 1.0 - state.terminated)

    def alone_step(state, action, key):
        no = jnp.zeros_like(state.terminated)
        state = state.replace(terminated=no, truncated=no)
        after = env.step(state, action, jax.random.split(key)[0])
        return Bare(after.observation, after.rewards[0], after.terminated)

    def act(state, key):
        logits = jnp.where(state.legal_action_mask, 0.0, -jnp.inf)
        return jax.random.categorical(key, logits).astype(jnp.int32)

    return Wrapped("pgx's auto_reset", reset, step, alone_step, act)


def craftax(task: str, bare: Raw, limit: int) -> Wrapped:
    make = import_module("craftax.craftax_env").make_craftax_env_from_name
    env = make(task, auto_reset=True)
    params = env.default_params.replace(max_timesteps=limit)

    def reset(key):
        obs, state = env.reset(words(key), params)
        return state, obs

    def step(state, action, key):
        obs, state, reward, over, info = env.step(words(key), state, action, params)
        return state, Seen(obs, obs, reward, over, info["discount"])

    def alone_step(state, action, key):
        step_key, _ = jax.random.split(words(key))
        obs, _, reward, over, _ = env.step_env(step_key, state, action, params)
        cut = state.timestep + 1 >= limit
        return Bare(obs, reward, over & ~cut)

    act = legal(bare, lambda state: None)
    return Wrapped("Craftax's auto_reset=True", reset, step, alone_step, act)


def navix(task: str, bare: Raw, limit: int) -> Wrapped:
    env = import_module("navix").make(task, max_steps=limit)

    def reset(key):
        now = env.reset(words(key))
        return now, now.observation

    def step(state, action, key):
        now = env.step(state, action)
        obs, ended = now.observation, now.step_type == 2
        return now, Seen(obs, obs, now.reward, now.step_type > 0, 1.0 - ended)

    def alone_step(state, action, key):
        now = env._step(state, action)
        return Bare(now.observation, now.reward, now.step_type == 2)

    act = legal(bare, lambda state: None)
    idle = lambda state: state.step_type > 0  # noqa: E731
    return Wrapped("navix's step", reset, step, alone_step, act, idle)
