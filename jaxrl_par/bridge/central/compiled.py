"""The compiled functions of a central place, all for one shape.

A call acts for M actors of B environments each, whoever asked: a batch that is not full
is padded. An actor always has the same place in it, so that its bits do not depend on
who else is there: rows of a matrix product may differ with their place, and with the
number of rows. What pads reads the memory of some actor and writes nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_par.bridge.acting import Acting
from jaxrl_par.bridge.central.config import CentralConfig
from jaxrl_par.types import Agent, Carry, Count, Extras, Params, PRNGKey, TimeStep


class Kept(NamedTuple):
    """What the place keeps of A actors, on its device."""

    carry: Carry
    """[A, B, ...], memory now."""
    before: Carry
    """[A, B, ...], memory before the unroll in progress."""
    extras: Extras
    """[A, T, B, ...], of the unroll in progress."""
    keys: Any
    """[A, T], to act with in it."""


class Compiled(NamedTuple):
    """Functions that use up what they are given as `kept`."""

    start: Callable
    """(params, step [B], root) -> kept, still empty"""
    enter: Callable
    """(kept, actor, memory [B, ...]) -> kept"""
    begin: Callable
    """(kept, how many, actors [M], their unrolls [M], root) -> kept, in which so many
    of the actors are ready for their first row"""
    act: Callable
    """(params, kept, actors [M], rows of their unrolls [M], steps [M, B, ...]) ->
    (actions [M, B, ...], kept). An actor that there is not pads."""
    take: Callable
    """(kept, actor) -> extras [T, B, ...], memory [B, ...] before the unroll and now;
    it leaves `kept` as it is"""


def compiled(
    agent: Agent, acting: Acting, length: int, num_actors: int, config: CentralConfig
) -> Compiled:
    """Compiles on first use.

    Args:
      acting: how actors act by themselves.
      length: T, rows of an unroll.
    """

    def start(params: Params, step: TimeStep, root: PRNGKey) -> Kept:
        num_envs = step.first.shape[0]
        carry = agent.initial_carry(num_envs)
        key = jax.random.key(0)
        row = jax.eval_shape(agent.act, params, carry, step, key)[2]
        keys = acting.plan(root, Count.zero(), 0)[0]
        return Kept(
            carry=jax.tree.map(lambda x: _zeros(num_actors, x), carry),
            before=jax.tree.map(lambda x: _zeros(num_actors, x), carry),
            extras=jax.tree.map(lambda x: _zeros(num_actors, x, length), row),
            keys=jnp.broadcast_to(keys, (num_actors, *keys.shape)),
        )

    def enter(kept: Kept, actor: Any, memory: Carry) -> Kept:
        return kept._replace(carry=_put(kept.carry, actor, memory))

    def begin(
        kept: Kept, number: Any, actors: Any, unrolls: Count, root: PRNGKey
    ) -> Kept:
        def one(i: Any, kept: Kept) -> Kept:
            actor, unroll = jax.tree.map(lambda x: x[i], (actors, unrolls))
            memory = jax.tree.map(lambda x: x[actor], kept.carry)
            keys = kept.keys.at[actor].set(acting.plan(root, unroll, actor)[0])
            return kept._replace(before=_put(kept.before, actor, memory), keys=keys)

        return jax.lax.fori_loop(0, number, one, kept)

    def act(params: Params, kept: Kept, actors: Any, rows: Any, steps: TimeStep):
        carry = jax.tree.map(lambda x: x.at[actors].get(mode="clip"), kept.carry)
        keys = kept.keys.at[actors, rows].get(mode="clip")
        # Else an operation of the network and one of the memory may become one, and be
        # rounded once where acting alone rounds twice.
        given = jax.lax.optimization_barrier((carry, steps, keys))
        acted = _each(lambda x: agent.act(params, *x), given, config)
        action, carry, extras = jax.lax.optimization_barrier(acted)
        extras = jax.tree.map(
            lambda x, row: x.at[actors, rows].set(row, mode="drop"), kept.extras, extras
        )
        return action, kept._replace(
            carry=_put(kept.carry, actors, carry), extras=extras
        )

    def take(kept: Kept, actor: Any) -> tuple[Extras, Carry, Carry]:
        parts = kept.extras, kept.before, kept.carry
        return jax.tree.map(lambda x: x[actor], parts)

    return Compiled(
        jax.jit(start),
        jax.jit(enter, donate_argnums=0),
        jax.jit(begin, donate_argnums=0),
        jax.jit(act, donate_argnums=1),
        jax.jit(take),
    )


def _each(function: Callable, given: Any, config: CentralConfig) -> Any:
    """The function of each of M."""
    alone = jax.tree.leaves(given)[0].shape[0] == 1
    if config.rows == "apart" or alone:
        return jax.lax.map(function, given)
    return jax.vmap(function)(given)


def _put(kept: Any, actors: Any, new: Any) -> Any:
    """With something else for these actors; those that there are not change nothing."""
    return jax.tree.map(lambda x, y: x.at[actors].set(y, mode="drop"), kept, new)


def _zeros(num_actors: int, x: Any, *more: int) -> Any:
    return jnp.zeros((num_actors, *more, *x.shape), x.dtype)
