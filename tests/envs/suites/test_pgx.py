"""Games of pgx: whose reward a step pays, and whose value is bootstrapped."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from following import starts_afresh

from jaxrl_par import envs, presets, random, returns
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import check_environment
from jaxrl_par.types import Masked

pgx = pytest.importorskip("pgx")

from jaxrl_par.envs import suites  # noqa: E402
from jaxrl_par.envs.suites import pgx as adapter  # noqa: E402


def lowest(obs, allowed, key):
    """An opponent that takes the first legal action."""
    return jnp.argmax(allowed)


class Game(NamedTuple):
    """What pgx keeps of a game."""

    current_player: jax.Array
    rewards: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    legal_action_mask: jax.Array
    observation: jax.Array
    count: jax.Array


class Race:
    """Two players add 1 or 2, and who comes to 3 wins: from a random player and, every
    other time, from 2, where the first one wins at once."""

    id, num_players = "race", 2

    def init(self, key):
        first, count = jax.random.bernoulli(key, shape=(2,)).astype(jnp.int32)
        no = jnp.bool_(False)
        game = Game(first, jnp.zeros(2), no, no, jnp.ones(2, bool), None, 2 * count)
        return game._replace(observation=self._observe(game, first))

    def step(self, game, action, key):
        count = game.count + action + 1
        over = count >= 3
        won = jnp.where(jnp.arange(2) == game.current_player, 1.0, -1.0)
        game = game._replace(
            current_player=1 - game.current_player,
            rewards=jnp.where(over, won, jnp.zeros(2)),
            terminated=over,
            count=count,
        )
        return game._replace(observation=self._observe(game, game.current_player))

    def _observe(self, game, player):
        return jnp.stack([game.count, player]).astype(jnp.float32)


@pytest.mark.slow
def test_an_opponent_that_wins_within_the_step_costs_the_one_who_is_shown():
    """S11: rewards (-1, +1) taken for whose turn it is would be +1."""
    env = suites.from_pgx(pgx.make("tic_tac_toe"), 8, opponent=lowest)
    state, step = jax.jit(env.reset)(random.key(0))
    begins = ~step.obs.obs.any((1, 2, 3))
    assert 0 < begins.sum() < 8  # pgx seats it at random
    rows, advance = [], jax.jit(env.step)
    for action in (8, 7, 3):
        state, step, reward, discount = advance(
            state, jnp.full(8, action), random.key(1)
        )
        rows.append((reward, discount, step.last, step.obs.obs))
    # Who answers takes the top row: behind the second action where it began itself.
    for i, its_own_begin in enumerate(np.asarray(begins)):
        end = 2 if its_own_begin else 1
        rewards = [float(row[0][i]) for row in rows[: end + 1]]
        assert rewards == [0.0] * end + [-1.0]
        assert [float(row[1][i]) for row in rows[: end + 1]] == [1.0] * end + [0.0]
        assert bool(rows[end][2][i]) and not bool(rows[end - 1][2][i])
        # The end is shown as player 0 sees it: its own stones, then the other's.
        own, other = np.moveaxis(np.asarray(rows[end][3][i]), -1, 0)
        assert other[0].all() or other[:, 0].all()
        assert own.ravel()[8] or own.T.ravel()[8]


def test_a_games_rewards_are_those_of_player_0_over_all_moves_until_its_turn():
    game = Race()
    one = adapter.against(game, lowest)
    step = jax.jit(one.step)
    begin = jax.jit(one.reset)
    for seed in range(8):
        state, obs = begin(random.key(seed))
        assert not bool(state.terminated) and int(state.current_player) == 0
        for action in (0, 1, 0):
            expected = game.step(state, action, None)
            total = float(expected.rewards[0])
            while not bool(expected.terminated) and int(expected.current_player):
                expected = game.step(expected, 0, None)
                total += float(expected.rewards[0])
            state, obs, reward, terminated, truncated = step(
                state, jnp.int32(action), random.key(9)
            )
            assert float(reward) == total and not bool(truncated)
            assert bool(terminated) == bool(expected.terminated)
            np.testing.assert_array_equal(obs.obs, [expected.count, 0])
            if bool(terminated):
                break
        else:
            raise AssertionError("nobody won")


@pytest.mark.slow
def test_games_that_end_before_the_first_move_are_not_shown():
    env = suites.from_pgx(Race(), 64, opponent=lowest)
    _, step = jax.jit(env.reset)(random.key(3))
    # It begins itself from 0 or 2, or behind the other one's 0 + 1; never behind 3.
    assert {*np.asarray(step.obs.obs)[:, 0].tolist()} == {0.0, 1.0, 2.0}


def test_in_self_play_the_others_value_counts_with_its_sign_changed():
    """S11: gamma 1, reward 0, next value 0.6 in the opponent's view: target -0.6."""
    env = suites.from_pgx(Race(), 8, opponent=None)
    state, step = jax.jit(env.reset)(random.key(1))
    lanes = step.obs.obs[:, 0] == 0  # nobody can win with 1 from there
    action = jnp.zeros(8, jnp.int32)
    state, step, reward, discount = jax.jit(env.step)(state, action, random.key(0))
    reward, discount, last = (x[lanes][:1] for x in (reward, discount, step.last))
    assert (float(reward[0]), float(discount[0])) == (0.0, -1.0)
    assert not bool(last[0])
    given = {"rewards": reward[None], "discounts": discount[None]}
    given |= {"last": jnp.zeros((1, 1), bool)}
    values = jnp.array([[0.0], [0.6]])
    ahead = returns.reached(n=1, **given)
    for target in (
        ahead.rewards + ahead.discounts * values[1:],
        returns.gae(values=values, lambda_=0.95, **given),
        returns.n_step(values=values, n=1, **given),
        returns.vtrace(
            values=values, log_ratios=jnp.zeros((1, 1)), lambda_=1.0, **given
        ).targets,
    ):
        np.testing.assert_allclose(target, [[-0.6]], rtol=1e-6)


@pytest.mark.slow
def test_returns_of_self_play_are_what_each_mover_gets_in_the_end():
    """Every row of random games, against who won: +1 for its moves, -1 for others."""
    env = envs.make("pgx::tic_tac_toe-self-play", 16)

    def advance(now, key):
        state, step = now
        logits = jnp.where(step.obs.allowed, 0.0, -jnp.inf)
        action = jax.random.categorical(key, logits)
        state, after, reward, discount = env.step(state, action, key)
        return (state, after), (step, reward, discount)

    keys = jax.random.split(random.key(0), 40)
    _, (steps, rewards, discounts) = jax.jit(partial(jax.lax.scan, advance))(
        env.reset(random.key(1)), keys
    )
    zeros = jnp.zeros((41, 16))
    found = returns.gae(
        rewards=rewards,
        discounts=discounts,
        last=steps.last,
        values=zeros,
        lambda_=1.0,
    )
    rewards, last, found = map(np.asarray, (rewards, steps.last, found))
    compared = 0
    for lane in range(16):
        rows = []
        for t in range(40):
            if last[t, lane]:
                outcome = rewards[rows[-1], lane]
                signs = [(-1) ** (rows[-1] - s) for s in rows]
                np.testing.assert_array_equal(
                    found[rows, lane], outcome * np.array(signs)
                )
                compared, rows = compared + len(rows), []
            else:
                rows.append(t)
    assert compared > 300 and np.mean(rewards == 1) > 0 and not np.any(rewards < 0)
    assert {*np.unique(discounts)} == {-1.0, 0.0}


def solved(own=0, other=0, known=None):
    """Values of all positions of tic-tac-toe for who moves, by plain negamax; stones
    are bits."""
    known = {} if known is None else known
    rows = (7, 56, 448, 73, 146, 292, 273, 84)
    if any(other & row == row for row in rows):
        return -1, known
    free = [i for i in range(9) if not (own | other) >> i & 1]
    if (own, other) not in known:
        values = [-solved(other, own | 1 << i, known)[0] for i in free]
        known[own, other] = max(values, default=0)
    return known[own, other], known


def picked(rows, moves, x):
    return jnp.asarray(x[rows, moves])


@pytest.mark.slow
def test_the_best_that_rewards_and_discounts_of_self_play_allow_is_minimax():
    """Over all 4,520 positions: max of reward + discount * the next one's value."""
    game, width = adapter.raw("tic_tac_toe-self-play"), 1520
    step = jax.vmap(jax.vmap(game.step, (None, 0, None)), (0, None, None))

    @jax.jit
    def ahead(states):
        after, obs, reward, over, _ = step(states, jnp.arange(9), random.key(0))
        assert game.discount is not None
        going_on = jax.vmap(jax.vmap(game.discount, (None, 0)))(states, after)
        return after, obs, reward, jnp.where(over, 0.0, going_on)

    def code(seen):
        """(stones of who moves, of the other one), as bits, [..., 2]."""
        return np.einsum(
            "...ak,a->...k", seen.reshape(*seen.shape[:-3], 9, 2), 2 ** np.arange(9)
        )

    state, obs = game.reset(random.key(0))
    states = jax.tree.map(lambda x: jnp.stack([x] * width), state)
    names, levels = [(0, 0)], []
    for _ in range(9):
        after, obs, reward, discount = jax.device_get(ahead(states))
        stones, allowed = code(obs.obs), np.asarray(states.legal_action_mask)
        levels.append((names, allowed, stones, reward, discount))
        found = {}
        for i in range(len(names)):
            for a in np.flatnonzero(allowed[i] & (discount[i] != 0)):
                found.setdefault(tuple(stones[i, a].tolist()), (i, a))
        names = [*found]
        at = [*found.values(), *[(0, 0)] * (width - len(found))]
        rows, moves = map(np.array, zip(*at, strict=True))
        states = jax.tree.map(partial(picked, rows, moves), after)
    values = {}
    for names, allowed, stones, reward, discount in reversed(levels):
        for i, name in enumerate(names):
            q = [
                reward[i, a]
                + discount[i, a] * values.get(tuple(stones[i, a].tolist()), 0)
                for a in np.flatnonzero(allowed[i])
            ]
            values[name] = max(q)
    _, expected = solved()
    playing = {x: y for x, y in expected.items() if bin(x[0] | x[1]).count("1") < 9}
    assert values == playing and len(values) == 4_520


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tic_tac_toe", "tic_tac_toe-self-play"])
def test_an_illegal_action_ends_the_game_with_pgxs_penalty(name):
    env = envs.make(f"pgx::{name}", 2)
    state, _ = env.reset(random.key(0))
    state, step, _, _ = env.step(state, jnp.full(2, 4), random.key(1))
    illegal = jnp.argmin(step.obs.allowed, axis=1)
    state, step, reward, discount = env.step(state, illegal, random.key(2))
    np.testing.assert_array_equal(reward, [-1, -1])
    np.testing.assert_array_equal(discount, [0, 0])
    assert step.last.all() and step.obs.allowed.all()


@pytest.mark.parametrize(
    "make, told",
    [
        (
            lambda: suites.from_pgx(object(), 1),
            "env must be a pgx.Env, as pgx.make gives",
        ),
        (
            lambda: suites.from_pgx(pgx.make("kuhn_poker"), 1, opponent=None),
            "self-play is for games of two players with open cards, and kuhn_poker",
        ),
        (
            lambda: suites.from_pgx(pgx.make("2048"), 1, opponent=None),
            "2048 is none of them: it has 1 player",
        ),
        (lambda: envs.make("pgx::kuhn_poker-self-play", 1), "unknown environment"),
        (
            lambda: envs.make("pgx::tic_tac_toe", 1, opponent="random"),
            "pgx::tic_tac_toe cannot be made with opponent = 'random': Type",
        ),
        (
            lambda: envs.make("pgx::hex-self-play", 1, opponent=lowest),
            "pgx::hex-self-play has no opponent but itself: leave it out",
        ),
        (
            lambda: envs.make("pgx::hex", 1, oponent=lowest),
            "unknown parameter of pgx::hex 'oponent'; did you mean 'opponent'?",
        ),
        (lambda: suites.from_pgx(Race(), 0), "num_envs must be at least 1, got 0"),
    ],
)
def test_bad_input(make, told):
    with pytest.raises(RefusedError) as refused:
        make()
    assert told in str(refused.value)


def test_who_cannot_learn_from_both_sides_is_refused_before_anything_is_made():
    name = "pgx::hex-self-play"
    (told,) = presets.get("es").config(env_name=name).problems()
    assert told.startswith(f"env_name: in {name} each step is the other player's")
    assert told.endswith("take pgx::hex")
    for able in ("ppo", "dqn", "impala", "a2c"):
        config = presets.get(able).config(env_name=name)
        assert config.problems() == [] and config.judged.env_name == "pgx::hex"
    assert presets.get("es").config(env_name="pgx::hex").problems() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "2048",
        "kuhn_poker",
        "minatar-breakout",
        "sparrow_mahjong",
        "connect_four",
        "connect_four-self-play",
    ],
)
def test_games_keep_the_contract_of_a_stream(name):
    env = envs.make(f"pgx::{name}", 4)
    assert isinstance(env.observation_spec, Masked)
    check_environment(env, 60)


@pytest.mark.slow
def test_all_that_is_listed_can_be_made():
    known = {x.partition("::")[2] for x in envs.names() if x.startswith("pgx::")}
    assert {*pgx.available_envs()} <= known
    games = {x for x in known if x.endswith("-self-play")}
    alone = {x for x in known - games if x.startswith("minatar-")} | {"2048"}
    hidden = {"kuhn_poker", "leduc_holdem", "sparrow_mahjong"}
    assert {x.removesuffix("-self-play") for x in games} == (
        known - games - alone - hidden
    )
    for name in known:
        assert adapter.raw(name).action_spec.num_values > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tic_tac_toe", "tic_tac_toe-self-play"])
def test_nothing_of_a_game_is_left_in_the_next_one(name):
    """Trap S10, in all leaves of the state."""
    env = envs.make(f"pgx::{name}", 4)
    assert starts_afresh(env, adapter.raw(name), 40) > 8
