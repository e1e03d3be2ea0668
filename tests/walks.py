"""Environments of one transition that is written by hand, for tests of streams."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_par.envs import Environment, Raw
from jaxrl_par.types import Box, Discrete


class Walk(NamedTuple):
    time: Any
    start: Any
    """Drawn where the episode begins."""
    info: dict


def walk(
    end: int | None = None,
    limit: int | None = None,
    cuts: int | None = None,
    num_starts: int | None = None,
) -> Raw:
    """Pays 1 a step; ends after `end`, or by action 1. Shows (time, start).

    Its info counts `steps`, as a limit does, and keeps the last action. Resets hold
    Python numbers, which are weakly typed, and a key.

    Args:
      limit: which the stream counts; `cuts`: which the environment does.
      num_starts: of which one is drawn, by default real numbers in [0, 1).
    """

    def shown(state):
        return jnp.stack([jnp.asarray(state.time, jnp.float32), state.start])

    def reset(key):
        start = jax.random.uniform(key)
        if num_starts is not None:
            start = jnp.floor(start * num_starts)
        state = Walk(0, start, {"steps": 0, "last_action": 0, "key": key})
        return state, shown(state)

    def step(state, action, key):
        info = {"steps": state.info["steps"] + 2, "last_action": action, "key": key}
        state = Walk(state.time + 1, state.start, info)
        ended = (action == 1) | (state.time == end if end else False)
        return state, shown(state), 1, ended, state.time == cuts if cuts else False

    return Raw(reset, step, Box((2,), low=0.0), Discrete(2), limit, own_limit=cuts)


def followed(env: Environment, actions: Any, key: int = 0) -> Any:
    """(steps [T+1, B], states after, rewards, discounts [T, B]) of actions [T, B]."""
    reset_key, step_key = jax.random.split(jax.random.key(key))
    keys = jax.random.split(step_key, len(actions))

    def advance(now, inputs):
        state, step, reward, discount = env.step(now, *inputs)
        return state, (step, state, reward, discount)

    def run():
        now, first = env.reset(reset_key)
        _, (steps, *rows) = jax.lax.scan(advance, now, (jnp.asarray(actions), keys))
        steps = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, steps)
        return steps, *rows

    return jax.jit(run)()
