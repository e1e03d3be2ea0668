"""Games of pgx as streams: of one player against an opponent, or of both in turn.

The one player is number 0, whom pgx seats at random. Its opponents answer within the
step, and what they win then is its loss of that step. Observations are `Masked`. An
illegal action ends the game with pgx's penalty of -1; at an end all are legal.

In self-play each move is a step of who moves: what is shown, allowed and paid is that
player's, and the discount is -1 where the other one moves next. What is bootstrapped is
then the other's value with its sign changed, as the two sum to zero: returns, targets
and advantages of all that multiplies by discounts are right for both players. Returns
of episodes say nothing then: they are 1 where whoever moves last wins. Cards must be
open: where the players know different things, one's value is not that of the other
with its sign changed.

Source: Koyamada et al., arXiv:2303.17503; negamax for the sign: Knuth and Moore,
'An analysis of alpha-beta pruning', section 3.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.raw import Raw, as_written, from_raw
from jaxrl_par.envs.suites import listing, table
from jaxrl_par.errors import RefusedError, told
from jaxrl_par.types import Box, Discrete, Masked, PRNGKey

Opponent = Callable[[PyTree, Bool[Array, " A"], PRNGKey], Int[Array, ""]]
"""(what it sees, which actions are legal, key) -> its action, of one game."""


def random_legal(obs: PyTree, allowed: Bool[Array, " A"], key: PRNGKey):
    """One of the legal actions, each as likely."""
    del obs
    return jax.random.categorical(key, jnp.where(allowed, 0.0, -jnp.inf))


def from_pgx(
    env: Any,
    num_envs: int,
    opponent: Opponent | None = random_legal,
    name: str | None = None,
) -> Environment:
    """Copies of a game that has pgx's interface.

    Args:
      opponent: who has all other seats; None for self-play.

    Raises:
      RefusedError: `num_envs` is below 1, `env` is no such game, or self-play is of
        other than two players.
    """
    if not all(hasattr(env, x) for x in ("init", "step", "num_players")):
        raise RefusedError(f"env must be a pgx.Env, as pgx.make gives, got {told(env)}")
    made = self_play(env) if opponent is None else against(env, opponent)
    return from_raw(made, num_envs, name or str(env.id))


def raw(task: str, opponent: Opponent = random_legal) -> Raw:
    """One game by its name in pgx; behind `listing.SELF_PLAY`, of both players."""
    pgx = table.imported("pgx")
    game = task.removesuffix(listing.SELF_PLAY)
    env = as_written(pgx.make)(game)
    if game == task:
        return against(env, opponent)
    if opponent is not random_legal:
        raise RefusedError(f"pgx::{task} has no opponent but itself: leave it out")
    return self_play(env)


@as_written
def against(env: Any, opponent: Opponent) -> Raw:
    """One game in which the opponent has all seats but that of player 0.

    Games that end before player 0 has moved are not shown: another one begins.
    """

    def others_turn(state):
        return ~(state.terminated | state.truncated) & (state.current_player != 0)

    def answer(now):
        state, key, reward = now
        key, choose_key, step_key = jax.random.split(key, 3)
        action = opponent(state.observation, state.legal_action_mask, choose_key)
        state = env.step(state, action, step_key)
        return state, key, reward + state.rewards[0]

    def answered(state, key, reward):
        state, _, reward = jax.lax.while_loop(
            lambda now: others_turn(now[0]), answer, (state, key, reward)
        )
        return state, reward

    def begin(key):
        init_key, key = jax.random.split(key)
        state, _ = answered(env.init(init_key), key, jnp.float32(0))
        return state

    def reset(key):
        def again(now):
            key, _ = now
            key, begin_key = jax.random.split(key)
            return key, begin(begin_key)

        first = again((key, None))
        _, state = jax.lax.while_loop(lambda now: _over(now[1]), again, first)
        return state, _shown(env, state, 0)

    def step(state, action, key):
        own_key, key = jax.random.split(key)
        state = env.step(state, action, own_key)
        state, reward = answered(state, key, state.rewards[0])
        ends = state.terminated, state.truncated
        return state, _shown(env, state, 0), reward, *ends

    return Raw(reset, step, *_specs(env))


@as_written
def self_play(env: Any) -> Raw:
    """One game of two players whose cards are open and whose rewards sum to zero.

    Raises:
      RefusedError: there are more or fewer players, or pgx's game has hidden cards.
    """
    if env.num_players != 2 or env.id in listing.HIDDEN:
        raise RefusedError(
            f"self-play is for games of two players with open cards, and {env.id} is"
            f" none of them: it has {env.num_players} players"
        )

    def reset(key):
        state = env.init(key)
        return state, _shown(env, state, state.current_player)

    def step(state, action, key):
        mover = state.current_player
        state = env.step(state, action, key)
        ends = state.terminated, state.truncated
        obs = _shown(env, state, state.current_player)
        return state, obs, state.rewards[mover], *ends

    def discount(before, after):
        passes = before.current_player != after.current_player
        return jnp.where(passes, -1.0, 1.0)

    return Raw(reset, step, *_specs(env), discount=discount)


def _over(state) -> Bool[Array, ""]:
    return state.terminated | state.truncated


def _shown(env: Any, state: Any, player: Any) -> Masked:
    """What a player sees: at an end, pgx shows what the one sees whose turn it were."""
    return Masked(env._observe(state, jnp.int32(player)), state.legal_action_mask)


def _specs(env: Any) -> tuple[Masked, Discrete]:
    """Of what is shown, and of actions."""
    state = jax.eval_shape(env.init, jax.random.key(0))
    obs = jax.tree.map(_box, state.observation)
    (number,) = state.legal_action_mask.shape
    return Masked(obs, Box((number,), np.dtype(bool), 0.0, 1.0)), Discrete(number)


def _box(x: Any) -> Box:
    bounds = {"low": 0.0, "high": 1.0} if x.dtype == bool else {}
    return Box(x.shape, np.dtype(x.dtype), **bounds)
