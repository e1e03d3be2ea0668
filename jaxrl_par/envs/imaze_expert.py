"""Somebody who knows the I-Maze: to be recorded, where a learner needs to be shown.

It reads what an agent sees, remembers the colour of the start, and looks at the goal on
its left first: on the half of all ways that lead there it is the shortest one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxrl_par.envs.imaze import BLUE, FLOOR, FORWARD, GREEN, LEFT, PINK, RED
from jaxrl_par.errors import RefusedError
from jaxrl_par.types import Agent, Obs, TimeStep

_NUM_KINDS = 6
_AHEAD, _BEHIND = 1, 7
"""Cells of the window, row by row."""


class _Memory(NamedTuple):
    """Leaves [B]."""

    wanted: Int[Array, " B"]
    """The goal that the start asked for."""
    turns: Bool[Array, " B"]
    """It has turned once from the wrong goal, and turns again."""


def imaze_expert() -> Agent:
    """Goes to the right goal of an I-Maze of any size. It cannot be trained.

    Observations are the window, or begin with it, as those that show the previous
    action and reward.
    """

    def act(params, carry: _Memory, step: TimeStep, key):
        del params, key  # it knows what to do
        seen = _window(step.obs)
        behind, ahead = seen[:, _BEHIND], seen[:, _AHEAD]
        wanted = jnp.where(behind == PINK, RED, carry.wanted)
        wanted = jnp.where(behind == BLUE, GREEN, wanted)
        moves = ((ahead == FLOOR) | (ahead == wanted)) & ~carry.turns
        action = jnp.where(moves, FORWARD, LEFT).astype(jnp.int32)
        is_wrong = (ahead == GREEN + RED - wanted) & ~carry.turns
        return action, _Memory(wanted, is_wrong), {}

    def grad(state, batch, key, axis):
        raise RefusedError("an expert knows what to do, and cannot be trained")

    return Agent(
        init=lambda key, step: (),
        initial_carry=lambda num_envs: _Memory(
            jnp.full(num_envs, GREEN, jnp.int32), jnp.zeros(num_envs, bool)
        ),
        act=act,
        grad=grad,
        apply=lambda state, grads, metrics: state,
        greedy=act,
        params=lambda state: state,
    )


def _window(obs: Obs) -> Int[Array, "B 9"]:
    """Kinds of the cells that are seen."""
    window = jax.tree.leaves(obs)[0]
    return jnp.argmax(window.reshape(-1, 9, _NUM_KINDS), axis=-1)
