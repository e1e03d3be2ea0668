"""The compiled functions with which actors act, the same for all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par import loops, rollout
from jaxrl_par.types import (
    Agent,
    Carry,
    Count,
    Params,
    PRNGKey,
    TimeStep,
    as_acted,
)


class Acting(NamedTuple):
    """The compiled functions that all actors share."""

    plan: Callable
    """(root, unroll, actor) -> keys to act with [T], keys of the environment [T]"""
    carry: Callable
    """(num_envs, actor) -> memory at the start, its share in that of all actors"""
    extras: Callable
    """(params, carry, step) -> (extras of a whole unroll, still 0, and the row, 0)"""
    act: Callable
    """(params, carry, (extras, t), step, keys) -> action, carry, (extras, t + 1)"""
    complete: Callable
    """As `Agent.complete`."""


def acting(agent: Agent, length: int, num_actors: int) -> Acting:
    """Compiles on first use.

    What `act` leaves in extras stays on the device until the unroll is complete: a
    transfer for each step would cost more than acting does.
    """

    def plan(root: PRNGKey, unroll: Count, actor):
        # As in `rollout.unroll`, where both are drawn from the key of each step.
        act_key, _ = loops.unroll_keys(root, unroll, actor)
        keys = jax.random.split(act_key, length)
        both = jax.vmap(jax.random.split)(keys)
        return both[:, 0], both[:, 1]

    def extras(params: Params, carry: Carry, step: TimeStep):
        row = jax.eval_shape(agent.act, params, carry, step, jax.random.key(0))[2]
        zeros = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), row)
        return zeros, jnp.int32(0)

    def act(params: Params, carry: Carry, kept, step: TimeStep, keys):
        extras, t = kept
        action, carry, row = agent.act(params, carry, step, keys[t])
        extras = jax.tree.map(lambda x, row: x.at[t].set(row), extras, row)
        return action, carry, (extras, t + 1)

    def carry(num_envs: int, actor) -> Carry:
        return rollout.initial_carry(agent, num_envs, actor, num_actors)

    return Acting(
        jax.jit(plan),
        jax.jit(carry, static_argnums=0),
        jax.jit(extras),
        jax.jit(act, donate_argnums=2),
        agent.complete if agent.complete is as_acted else jax.jit(agent.complete),
    )


def count_of(number: int) -> Count:
    """The number as a `Count`, in numpy."""
    parts: Any = map(np.int32, divmod(number, 1_000_000))
    return Count(*parts)
