"""Environments whose actions are masked or have several parts, small enough to know the
answer. Final observations have a mask of zeros, as those of many games.

    few_of_many   a few of many actions are allowed; any other ends the episode
    pairs         two choices, of which some combinations are allowed
    parts         an action with names, of a number and a choice
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxrl_par.envs import Environment
from jaxrl_par.envs.wrappers import episode_statistics
from jaxrl_par.testing.probes import State, bits, probe
from jaxrl_par.types import (
    Action,
    Box,
    Discrete,
    Masked,
    MultiDiscrete,
    TimeStep,
)

FLAG = np.dtype(bool)


class _Rooms(NamedTuple):
    """B episodes in progress."""

    room: Int[Array, " B"]
    time: Int[Array, " B"]
    last: Bool[Array, " B"]


def few_of_many(
    num_envs: int,
    *,
    masked: bool = True,
    rooms: int = 16,
    doors: int = 4,
    length: int = 8,
) -> Environment:
    """Each step is in a random one of R rooms, which is shown, and has D of the R D
    actions, one of which pays 1. Any other of all ends the episode.

    The optimal return is `length`; who draws from what is allowed gets length / D, and
    who draws from all actions D / (R D - D) / D, nearly nothing.

    Args:
      masked: whether it shows what is allowed; else it is the same to be found out.
    """
    number = rooms * doors

    def step_of(state: _Rooms, first: Array) -> TimeStep:
        shown = jax.nn.one_hot(state.room, rooms)
        action = jnp.arange(number, dtype=jnp.int32)[None]
        mine = action // doors == state.room[:, None]
        obs = Masked(shown, mine & ~state.last[:, None]) if masked else shown
        return TimeStep(obs, first=first, last=state.last)

    def drawn(key):
        return jax.random.randint(key, (num_envs,), 0, rooms)

    def reset(key):
        no = jnp.zeros(num_envs, bool)
        state = _Rooms(drawn(key), jnp.zeros(num_envs, jnp.int32), no)
        return state, step_of(state, ~no)

    def step(state, action, key):
        fits = action // doors == state.room
        pays = fits & (action % doors == state.room % doors) & ~state.last
        time = jnp.where(state.last, 0, state.time + 1)
        ended = ~fits & ~state.last
        last = ~state.last & (ended | (time >= length))
        after = _Rooms(drawn(key), time, last)
        discount = (~(state.last | last)).astype(jnp.float32)
        reward = pays.astype(jnp.float32)
        return after, step_of(after, state.last), reward, discount

    shown = Box((rooms,), low=0.0, high=1.0)
    mask = Box((number,), FLAG, 0.0, 1.0)
    made = Environment(
        reset=reset,
        step=step,
        num_envs=num_envs,
        observation_spec=Masked(shown, mask) if masked else shown,
        action_spec=Discrete(number),
        name="few_of_many",
        max_episode_steps=length,
    )
    return episode_statistics(made)


def pairs(num_envs: int) -> Environment:
    """Two choices of two, which must be equal: pays 1 where they are the bit that is
    shown, and -10 where they differ, which the mask excludes. Two steps long.

    Masks of each choice alone would allow everything.
    """
    equal = jnp.eye(2, dtype=bool)[None]

    def show(state: State) -> Masked:
        mask = jnp.broadcast_to(equal, (num_envs, 2, 2))
        return Masked(state.secret[:, None], mask & ~state.last[:, None, None])

    def pay(state: State, action: Action) -> Array:
        right = (action == state.secret[:, None].astype(jnp.int32)).all(1)
        differ = action[:, 0] != action[:, 1]
        return right.astype(jnp.float32) - 10.0 * differ.astype(jnp.float32)

    return probe(
        "pairs",
        num_envs,
        length=2,
        show=show,
        pay=pay,
        observation_spec=Masked(
            Box((1,), low=0.0, high=1.0), Box((2, 2), FLAG, 0.0, 1.0)
        ),
        action_spec=MultiDiscrete([2, 2]),
        draw=lambda key: bits(key, num_envs),
    )


def parts(num_envs: int) -> Environment:
    """A number and a choice: pays 1 - |steer| of a target, 1 or -1 as is shown, less 1
    where the brake is not that bit. One step long; the optimal return is 1."""

    def pay(state: State, action: Action) -> Array:
        target = 2.0 * state.secret - 1.0
        wrong = action["brake"] != state.secret.astype(jnp.int32)
        return 1.0 - jnp.abs(action["steer"][:, 0] - target) - wrong

    return probe(
        "parts",
        num_envs,
        show=lambda state: state.secret[:, None],
        pay=pay,
        observation_spec=Box((1,), low=0.0, high=1.0),
        # Not in the order of their names.
        action_spec={"steer": Box((1,), low=-2.0, high=2.0), "brake": Discrete(2)},
        draw=lambda key: bits(key, num_envs),
    )
