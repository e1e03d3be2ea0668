"""I-Maze against a maze drawn by hand, and against what its goals must be worth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.envs import drawing, make
from jaxrl_par.envs.imaze import (
    BLUE,
    EAST,
    FORWARD,
    GREEN,
    LEFT,
    NORTH,
    PINK,
    RED,
    RIGHT,
    WEST,
    IMaze,
    IMazeParams,
)
from jaxrl_par.testing import check_environment

SEVEN = """
#######
#g...r#
###.###
###.###
###.###
#.....#
###i###
"""


def starts(env, num_mazes, seed=0):
    keys = jax.random.split(jax.random.key(seed), num_mazes)
    return jax.jit(jax.vmap(env.reset_env, (0, None)))(keys, env.default_params)[1]


def play(env, params, state, actions):
    """Rewards, terminations, observations [T, B] and the final state of a script."""

    def advance(state, action):
        step = jax.vmap(env.step_env, (None, 0, 0, None))
        obs, state, reward, terminated, _ = step(random.key(0), state, action, params)
        return state, (reward, terminated, obs)

    state, rows = jax.jit(lambda s, a: jax.lax.scan(advance, s, a))(state, actions)
    return *jax.tree.map(np.asarray, rows), state


def way_to(goes_left, size):
    """Actions [T, B] of the shortest way to the left or right goal."""
    turn = np.where(goes_left, LEFT, RIGHT)
    ahead = np.full(len(turn), FORWARD)
    return np.array([ahead] * (size - 3) + [turn] + [ahead] * ((size - 3) // 2))


def is_left(state):
    """Whether the correct goal is the left one."""
    return np.asarray(state.blue == state.green_left)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("size", "num_steps"), [(5, 4), (7, 7), (9, 10), (15, 19)])
def test_an_oracle_takes_the_shortest_way_to_the_correct_goal(size, num_steps):
    env = IMaze(size)
    state = starts(env, 32)
    assert 0 < is_left(state).sum() < 32
    rewards, ends, _, _ = play(
        env, env.default_params, state, way_to(is_left(state), size)
    )
    assert len(rewards) == num_steps == 3 * (size - 3) // 2 + 1
    assert (rewards[-1] == 1).all() and not rewards[:-1].any()
    assert ends[-1].all() and not ends[:-1].any()


def test_a_random_goal_is_worth_one_half():
    env = IMaze(9)
    goes_left = np.random.default_rng(0).random(2000) < 0.5
    rewards, ends, _, _ = play(
        env, env.default_params, starts(env, 2000), way_to(goes_left, 9)
    )
    assert ends[-1].all()
    assert rewards.sum(0).mean() == pytest.approx(0.5, abs=0.05)


def test_either_goal_and_the_deadline_pay_what_they_should():
    env, params = IMaze(9), IMazeParams(10, 2.0, -3.0, -5.0)
    state = starts(env, 8)
    way = way_to(is_left(state), 9)
    assert (play(env, params, state, way)[0][-1] == 2).all()  # in the final step
    wrong, ends, _, _ = play(env, params, state, way_to(~is_left(state), 9))
    assert (wrong[-1] == -3).all() and not wrong[:-1].any() and ends[-1].all()
    late, ends, _, _ = play(env, params, state, np.full((10, 8), RIGHT))
    assert (late[-1] == -5).all() and not late[:-1].any()
    assert ends[-1].all() and not ends[:-1].any()
    one_short = params.replace(max_steps_in_episode=9)
    assert (play(env, one_short, state, way[:9])[0][-1] == -5).all()


@pytest.mark.slow
def test_the_deadline_terminates_the_stream_as_a_goal_does():
    env = make("IMaze-5x5", 2, max_steps_in_episode=3, reward_timeout=-1)
    env_state, advance = env.reset(random.key(0))[0], jax.jit(env.step)
    rows, action = [], jnp.full(2, LEFT)
    for t in range(5):
        env_state, step, reward, discount = advance(env_state, action, random.key(t))
        rows.append([step.first[0], step.last[0], reward[0], discount[0]])
    # The fourth row shows the next episode, and pays nothing.
    assert np.array(rows, float).tolist() == [
        *([0, 0, 0, 1], [0, 0, 0, 1], [0, 1, -1, 0]),
        *([1, 0, 0, 0], [0, 0, 0, 1]),
    ]


def hand_drawn(size):
    """`SEVEN` with a longer stem and longer bars."""
    wall, goals, stem, *_, start, behind = SEVEN.split()
    rows = [wall, goals, *[stem] * (size - 4), start, behind]
    grow = (size - 7) // 2
    return [
        row[:2] + row[2] * grow + row[2:5] + row[4] * grow + row[5:] for row in rows
    ]


class SlowMaze:
    """The rules once more, on a map of characters."""

    def __init__(self, size, blue, green_left):
        self.colours = {"#": 1, ".": 0, "i": BLUE if blue else PINK}
        self.colours |= {"g": GREEN, "r": RED} if green_left else {"g": RED, "r": GREEN}
        self.map = hand_drawn(size)
        self.row, self.column, self.heading = size - 2, size // 2, 0

    def window(self):
        kinds = [[self.colours[x] for x in row] for row in self.map]
        kinds = np.pad(kinds, 1, constant_values=1)
        around = kinds[self.row : self.row + 3, self.column : self.column + 3]
        return np.eye(6)[np.rot90(around, self.heading)].reshape(-1)

    def step(self, action):
        if action == FORWARD:
            down, right = [(-1, 0), (0, 1), (1, 0), (0, -1)][self.heading]
            if self.map[self.row + down][self.column + right] in ".gr":
                self.row, self.column = self.row + down, self.column + right
        else:
            self.heading = (self.heading + (1 if action == RIGHT else 3)) % 4


@pytest.mark.sample(1)
@pytest.mark.parametrize("size", [7, 11])
def test_every_window_is_that_of_a_map_drawn_by_hand(size):
    env, num_mazes = IMaze(size), 8
    state = starts(env, num_mazes, seed=1)
    # Often ahead, so that all of the maze is seen, and walls are met.
    draws = np.random.default_rng(0).random((500, num_mazes))
    actions = np.select([draws < 0.7, draws < 0.85], [FORWARD, LEFT], RIGHT)
    _, _, shown, final = play(env, env.default_params, state, actions)
    places = set()
    for b in range(num_mazes):
        slow = SlowMaze(size, bool(state.blue[b]), bool(state.green_left[b]))
        first = env.observation(jax.tree.map(lambda x, b=b: x[b], state))
        np.testing.assert_array_equal(first, slow.window())
        for action, obs in zip(actions[:, b], shown[:, b], strict=True):
            slow.step(action)
            places.add((slow.row, slow.column))
            np.testing.assert_array_equal(obs, slow.window())
        now = (final.row[b], final.column[b], final.heading[b])
        assert now == (slow.row, slow.column, slow.heading)
    # Two bars, and between them the stem: all of it was visited, goals included.
    assert len(places) == 2 * (size - 2) + size - 4


def test_a_bump_does_nothing():
    env = IMaze(9)
    state = starts(env, 1)._replace(row=jnp.array([1]))
    *_, after = play(env, env.default_params, state, np.full((1, 1), FORWARD))
    for field in state._fields:
        assert getattr(after, field) == getattr(state, field) + (field == "time")


@pytest.mark.sample(1)
@pytest.mark.parametrize("size", [5, 7, 9])
def test_the_indicator_is_seen_only_near_the_start(size):
    env = IMaze(size)
    end, middle = size - 2, size // 2
    bars = [(row, column) for row in (1, end) for column in range(1, size - 1)]
    cells = np.array([*bars, *((row, middle) for row in range(2, end))])
    state = jax.tree.map(lambda x: jnp.repeat(x, 4 * len(cells)), starts(env, 1))
    state = state._replace(
        row=jnp.repeat(cells[:, 0], 4),
        column=jnp.repeat(cells[:, 1], 4),
        heading=jnp.tile(jnp.arange(4), len(cells)),
    )
    windows = jax.jit(jax.vmap(env.observation))(state).reshape(-1, 9, 6)
    seen = windows[..., [BLUE, PINK]].sum((1, 2)).reshape(-1, 4)
    near = (cells[:, 0] == end) & (abs(cells[:, 1] - middle) <= 1)
    np.testing.assert_array_equal(seen, np.stack([near] * 4, 1))


def test_colours_and_sides_are_independent_and_fair():
    state = starts(IMaze(9), 4000)
    kinds = np.bincount(2 * state.blue + state.green_left, minlength=4)
    # Four standard deviations.
    np.testing.assert_allclose(kinds / 4000, 0.25, atol=4 * (3 / 16 / 4000) ** 0.5)
    assert (state.heading == NORTH).all() and not state.time.any()


@pytest.mark.slow
def test_every_environment_and_episode_draws_its_own_maze():
    num_envs, num_episodes = 64, 40
    env = make("IMaze-5x5", num_envs, max_steps_in_episode=1)

    def advance(env_state, t):
        key = jax.random.fold_in(random.key(1), t)
        action = jnp.full(num_envs, LEFT)
        env_state, *_ = env.step(env_state, action, key)
        state = env_state.inner[0]
        return env_state, 2 * state.blue + state.green_left

    start = env.reset(random.key(0))[0]
    # Every other step shows the start of an episode.
    _, drawn = jax.lax.scan(advance, start, jnp.arange(2 * num_episodes))
    drawn = np.asarray(drawn)[::2]
    assert len(np.unique(drawn, axis=1).T) == num_envs
    agree = (drawn[:, :, None] == drawn[:, None]).mean(0)[~np.eye(num_envs, dtype=bool)]
    assert agree.mean() == pytest.approx(0.25, abs=0.02) and agree.max() < 0.7


@pytest.mark.slow
def test_it_keeps_the_contract():
    check_environment(make("IMaze-5x5", 4, max_steps_in_episode=12), 80)


@pytest.mark.slow
def test_it_can_be_used_as_any_environment_of_gymnax():
    env = IMaze(5)
    obs, state = env.reset(random.key(0))
    assert obs.shape == env.observation_space().shape == (54,)
    assert env.observation_space().contains(obs) and env.num_actions == 3
    params = env.default_params.replace(max_steps_in_episode=2)
    assert env.action_space(params).n == 3
    for t in range(2):
        obs, state, reward, terminated, truncated, info = env.step(
            random.key(t), state, LEFT, params
        )
        assert reward == 0 and not truncated and terminated == (t == 1)
        assert info["discount"] == 1 - terminated and not info["success"]
    assert state.time == 0 and state.heading == NORTH  # it has started over
    np.testing.assert_array_equal(obs, env.observation(state))
    # Between the goals, of which one is the right one.
    state = state._replace(row=jnp.int32(1), column=jnp.int32(2))
    for heading, is_right in ((WEST, is_left(state)), (EAST, ~is_left(state))):
        beside = state._replace(heading=jnp.int32(heading))
        info = env.step_env(random.key(0), beside, FORWARD, env.default_params)[-1]
        assert info["success"] == is_right


def test_time_limits_grow_with_the_maze():
    limits = {n: IMaze(n).default_params.max_steps_in_episode for n in (5, 7, 9, 15)}
    assert limits == {5: 44, 7: 94, 9: 150, 15: 350}
    assert make("IMaze-15x15", 1).max_episode_steps == 350


def test_wrong_sizes_and_parameters_are_refused():
    for size in (3, 8):
        with pytest.raises(ValueError, match=f"must be odd, at least 5, got {size}"):
            IMaze(size)
    with pytest.raises(ValueError, match=r"'IMaze-8x8'; did you mean 'IMaze-9x9'\?"):
        make("IMaze-8x8", 1)
    with pytest.raises(ValueError, match=r"'reward'; did you mean 'reward_\w+'\?"):
        make("IMaze-9x9", 1, reward=1.0)
    with pytest.raises(ValueError, match="max_steps_in_episode must be at least 1"):
        make("IMaze-9x9", 1, max_steps_in_episode=0)


def test_the_picture_shows_maze_window_and_heading():
    env = IMaze(9)
    state = jax.tree.map(lambda x: np.asarray(x[0]), starts(env, 1))
    state = state._replace(blue=np.True_, green_left=np.False_)
    picture = env.draw(state)
    assert min(picture.shape[:2]) >= 320 and picture.shape[2] == 3

    def colour(row, column):  # near a corner, since the agent is in the middle
        return tuple(int(x) for x in drawing.cell(picture, 9, row, column)[2, 2])

    red, green = colour(1, 1), colour(1, 7)
    assert red[0] > 2 * red[1] and green[1] > 2 * green[0]
    assert colour(8, 4)[2] > colour(8, 4)[0]  # the indicator, blue
    assert colour(4, 4) == drawing.FLOOR and colour(4, 3) == drawing.WALL
    lit = {(r, c) for r in (6, 7, 8) for c in (3, 4, 5)} - {(8, 4)}
    for cell in np.ndindex(9, 9):
        assert (colour(*cell) not in {drawing.FLOOR, drawing.WALL, red, green}) == (
            cell in lit | {(8, 4)}
        )
    for heading in range(4):
        picture = env.draw(state._replace(heading=np.int32(heading)))
        agent = (drawing.cell(picture, 9, 7, 4) == drawing.AGENT).all(-1)
        turned = np.rot90(agent, heading)
        # It is narrow where it points to.
        upper, lower = turned[: len(turned) // 2], turned[len(turned) // 2 :]
        assert 0 < upper.sum() < lower.sum() / 2


@pytest.mark.slow
def test_each_environment_of_a_stream_can_be_drawn():
    env = make("IMaze-5x5", 8)
    env_state, _ = jax.jit(env.reset)(random.key(0))
    state = env_state.inner[0]
    pictures = [env.draw(env_state, i) for i in range(8)]
    for i in range(8):
        expected = IMaze(5).draw(jax.tree.map(lambda x, i=i: x[i], state))
        np.testing.assert_array_equal(pictures[i], expected)
    assert any((x != pictures[0]).any() for x in pictures)
