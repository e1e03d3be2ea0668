"""Random play, which an agent is shown before it learns."""

from typing import Any

import jax
from jaxtyping import Array, Key

from jaxrl_par.envs import Environment
from jaxrl_par.types import Agent, Obs, PRNGKey, Reference, State

# A fold of the root that no update comes to: see `loops.unroll_keys`.
_SHOWN = 0xFFFFFFFD


def shown(agent: Agent, env: Environment, state: State, root: PRNGKey) -> State:
    """The state of an agent that has seen random play, if it asks for some."""
    wants = agent.reference
    if wants is None:
        return state
    return wants.keep(state, random_play(env, wants, root))


def random_play(env: Environment, wants: Reference, root: PRNGKey) -> Obs:
    """Observations, in the order of time, of all environments."""
    start_key, act_keys, env_keys = keys_of_play(wants, env.num_envs, root)

    def advance(now: Any, keys: Any) -> tuple[Any, Obs]:
        (env_state, step), (act_key, env_key) = now, keys
        action = wants.act(step.obs, act_key)
        env_state, after, _, _ = env.step(env_state, action, env_key)
        return (env_state, after), step.obs

    _, rows = jax.lax.scan(advance, env.reset(start_key), (act_keys, env_keys))
    return first_rows(rows, wants)


def keys_of_play(
    wants: Reference, num_envs: int, root: PRNGKey
) -> tuple[PRNGKey, Key[Array, " T"], Key[Array, " T"]]:
    """To begin with, to act, and of the environments' steps, for a run of that root."""
    start_key, act_key, env_key = jax.random.split(jax.random.fold_in(root, _SHOWN), 3)
    length = -(-wants.num_rows // num_envs)
    steps = jax.random.split(act_key, length), jax.random.split(env_key, length)
    return start_key, *steps


def first_rows(rows: Obs, wants: Reference) -> Obs:
    """As many as are wanted, of [T, B, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: wants.num_rows], rows)
