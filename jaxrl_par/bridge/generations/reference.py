"""Random play of simulators, which an agent is shown before it learns."""

from typing import Any

import jax
import numpy as np

from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host.checked import checked
from jaxrl_par.loops.reference import first_rows, keys_of_play, shown
from jaxrl_par.types import Agent, Obs, PRNGKey, Reference, State


def shown_by(
    agent: Agent, env: Environment | MakeEnv, num_envs: int, state: State, root: PRNGKey
) -> State:
    """As `loops.reference.shown`, of pure environments or of what makes simulators.

    Args:
      num_envs: how many environments those are.
    """
    if isinstance(env, Environment):
        return jax.jit(lambda state: shown(agent, env, state, root))(state)
    wants = agent.reference
    if wants is None:
        return state
    return wants.keep(state, _random_play(env, num_envs, wants, root))


def _random_play(
    make_env: MakeEnv, num_envs: int, wants: Reference, root: PRNGKey
) -> Obs:
    start_key, act_keys, env_keys = keys_of_play(wants, num_envs, root)
    act, rows = jax.jit(wants.act), []
    env = checked(make_env(start_key))
    try:
        env.plan(env_keys)
        step = env.reset()
        for key in act_keys:
            # What an environment shows may be overwritten by its next step.
            rows.append(jax.tree.map(np.array, step.obs))
            action: Any = jax.tree.map(np.asarray, act(step.obs, key))
            step, _, _ = env.step(action)
    finally:
        env.close()
    return jax.tree.map(
        jax.numpy.asarray, first_rows(jax.tree.map(_stack, *rows), wants)
    )


def _stack(*rows: np.ndarray) -> np.ndarray:
    return np.stack(rows)
