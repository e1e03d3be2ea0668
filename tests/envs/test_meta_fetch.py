"""Meta-Fetch against a slow simulator of its rules, and against what they imply."""

from functools import partial
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.envs import drawing, make
from jaxrl_par.envs.meta_fetch import DOWN, LEFT, RIGHT, UP, MetaFetch, _distinct
from jaxrl_par.testing import check_environment

MOVES = {UP: (-1, 0), DOWN: (1, 0), LEFT: (0, -1), RIGHT: (0, 1)}


def starts(env, num_envs, seed=0):
    keys = jax.random.split(jax.random.key(seed), num_envs)
    return jax.jit(jax.vmap(env.reset_env, (0, None)))(keys, env.default_params)[1]


def one(tree, b):
    return jax.tree.map(lambda x: np.asarray(x[b]), tree)


class SlowFetch:
    """The rules once more, with a flag for each place of the order."""

    def __init__(self, env, state):
        self.size, self.view = env.size, env.view_size
        self.agent = int(state.row), int(state.column)
        cells = zip(state.object_rows, state.object_columns, strict=True)
        self.cells = {i: (int(r), int(c)) for i, (r, c) in enumerate(cells)}
        self.order = [int(i) for i in np.argsort(state.ranks)]
        self.restart()
        self.pays = [True] * len(self.order)

    def restart(self):
        self.present, self.fetched = dict(self.cells), []

    def window(self):
        half, kinds = self.view // 2, 1 + len(self.cells)
        shown = np.zeros((self.view, self.view, kinds))
        for i, j in np.ndindex(self.view, self.view):
            cell = self.agent[0] + i - half, self.agent[1] + j - half
            shown[i, j, 0] = not all(0 <= x < self.size for x in cell)
            for thing, place in self.present.items():
                shown[i, j, 1 + thing] = place == cell
        return shown.reshape(-1)

    def step(self, action):
        target = tuple(x + d for x, d in zip(self.agent, MOVES[action], strict=True))
        if not all(0 <= x < self.size for x in target):
            return 0.0
        self.agent = target
        here = [i for i, cell in self.present.items() if cell == target]
        if not here:
            return 0.0
        place = len(self.fetched)
        if here[0] != self.order[place]:
            self.restart()
            return 0.0
        self.fetched.append(here[0])
        del self.present[here[0]]
        reward, self.pays[place] = float(self.pays[place]), False
        if len(self.fetched) == len(self.order):
            self.restart()
            self.pays = [True] * len(self.order)
        return reward


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("size", "num_objects", "view_size"), [(3, 3, 3), (2, 2, 3), (4, 4, 5), (7, 3, 5)]
)
def test_a_slow_simulator_gives_the_same(size, num_objects, view_size):
    env, num_envs, num_steps = MetaFetch(size, num_objects, view_size), 6, 300
    start = starts(env, num_envs, seed=size)
    actions = np.random.default_rng(size).integers(4, size=(num_steps, num_envs))

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 1), out_axes=1)
    def play(state, actions):
        def advance(state, action):
            key = random.key(0)  # nothing is drawn
            obs, state, *rest = env.step_env(key, state, action, env.default_params)
            return state, (obs, state, rest[0])

        first = env.observation(state)
        _, (obs, states, rewards) = jax.lax.scan(advance, state, actions)
        return jnp.concatenate([first[None], obs]), states, rewards

    shown, states, rewards = jax.tree.map(np.asarray, play(start, actions))
    for b in range(num_envs):
        slow = SlowFetch(env, one(start, b))
        np.testing.assert_array_equal(shown[0, b], slow.window())
        for t, action in enumerate(actions[:, b]):
            assert rewards[t, b] == slow.step(int(action))
            np.testing.assert_array_equal(shown[t + 1, b], slow.window())
            assert states.progress[t, b] == len(slow.fetched)
            assert (states.object_rows[t, b] == start.object_rows[b]).all()
    assert rewards.sum() > 0
    if size < 5:  # whole passes were made
        assert (rewards.sum(0) > num_objects).any()


def fetcher(env):
    """A function (state, object) -> (state, reward) for a batch: a step onto it.

    The agent is put beside the object, which is no move and so fetches nothing.
    """

    def fetch(state, target):
        row, column = state.object_rows[target], state.object_columns[target]
        above = row > 0
        beside = state._replace(row=jnp.where(above, row - 1, row + 1), column=column)
        action = jnp.where(above, DOWN, UP)
        key = random.key(0)
        _, state, reward, _, _ = env.step_env(key, beside, action, env.default_params)
        return state, reward

    return jax.jit(jax.vmap(fetch))


def in_order(state, place):
    """The object at a place of the order."""
    return jnp.argmax(state.ranks == place, axis=1)


@pytest.mark.sample(1)
@pytest.mark.parametrize("num_objects", [3, 2, 4])
def test_every_pass_pays_each_object_once(num_objects):
    env = MetaFetch(num_objects=num_objects)
    fetch, state = fetcher(env), starts(env, 8)
    for i in range(4 * num_objects):
        assert (state.progress == i % num_objects).all()
        state, reward = fetch(state, in_order(state, i % num_objects))
        assert (reward == 1).all()
    assert not state.progress.any() and not state.paid.any()


@pytest.mark.parametrize("wrong_place", [1, 2])
def test_the_first_and_a_wrong_object_in_turn_pay_once(wrong_place):
    # After the first of four, places 2 and 3 are wrong.
    env = MetaFetch(num_objects=4)
    fetch, state = fetcher(env), starts(env, 8)
    total = 0.0
    for i in range(20):
        right = i % 2 == 0
        state, reward = fetch(state, in_order(state, 0 if right else wrong_place + 1))
        assert (state.progress == right).all()
        total = total + reward
    assert (total == 1).all()


def test_what_paid_before_an_error_pays_no_more_but_what_follows_does():
    env = MetaFetch(num_objects=4)
    fetch, state = fetcher(env), starts(env, 8)
    rewards = []
    for place in [0, 1, 3, 0, 1, 2, 3, 0, 1, 2, 3]:
        state, reward = fetch(state, in_order(state, place))
        rewards.append(int(reward[0]))
        assert (reward == reward[0]).all()
    assert rewards == [1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("num_objects", "num_fetches"), [(3, 5.0), (4, 9.0)])
def test_elimination_takes_as_many_fetches_as_it_should(num_objects, num_fetches):
    env, num_envs = MetaFetch(num_objects=num_objects), 3000
    fetch, state = fetcher(env), starts(env, num_envs, seed=3)
    rows = np.arange(num_envs)
    found = np.full((num_envs, num_objects), -1)  # by place of the order
    num_found = np.zeros(num_envs, int)
    tried = np.zeros((num_envs, num_objects), bool)  # at the first place not found
    errors, fetches, total = np.zeros((3, num_envs))
    for _ in range(14):
        progress = np.array(state.progress)
        searching, running = progress == num_found, num_found < num_objects
        target = np.where(searching, tried.argmin(1), found[rows, progress])
        state, reward = fetch(state, target)
        now = np.asarray(state.progress)
        right = (now == progress + 1) | (now == 0) & (progress == num_objects - 1) & (
            np.asarray(reward) > 0
        )
        assert not np.asarray(reward)[~right].any()
        fetches, errors = fetches + running, errors + (running & ~right)
        total += np.where(running, reward, 0)
        new = running & searching & right
        found[new, progress[new]] = target[new]
        num_found += new
        # What is found is not tried again, what was wrong may come later.
        wrong = running & searching & ~right
        tried[wrong, target[wrong]] = True
        tried[new] = False
        for place in range(num_objects):
            known = found[:, place] >= 0
            tried[known, found[known, place]] = True
    assert (num_found == num_objects).all() and (total == num_objects).all()
    for counts, expected in (
        (errors, num_objects * (num_objects - 1) / 4),
        (fetches, num_fetches),
    ):
        standard_error = counts.std() / num_envs**0.5
        assert abs(counts.mean() - expected) < 4 * standard_error


def test_an_object_that_comes_back_below_the_agent_waits_until_it_returns():
    env = MetaFetch(2, 2, 3)
    state = one(starts(env, 1), 0)._replace(
        row=np.int32(0),
        column=np.int32(1),
        object_rows=np.int32([0, 1]),
        object_columns=np.int32([0, 0]),
        ranks=np.int32([1, 0]),
    )
    rewards, below = [], []
    step = jax.jit(env.step_env)
    for action in (LEFT, LEFT, UP, DOWN, UP):
        obs, state, reward, *_ = step(random.key(0), state, action, env.default_params)
        rewards.append(int(reward))
        below.append(obs.reshape(3, 3, 3)[1, 1].tolist())
    assert rewards == [0, 0, 0, 1, 1]  # wrong, against two walls, right, right
    assert below == [[0, 1, 0]] * 3 + [[0, 0, 0], [0, 1, 0]]


@pytest.mark.slow
def test_episodes_are_cut_and_not_terminated():
    limit = 7
    env = make("MetaFetch-7x7", 2, max_steps_in_episode=limit)

    def advance(env_state, t):
        key = jax.random.fold_in(random.key(1), t)
        action = jnp.full(2, UP)
        env_state, step, _, discount = env.step(env_state, action, key)
        return env_state, (step.first, step.last, discount)

    start = env.reset(random.key(0))[0]
    rows = jax.lax.scan(advance, start, jnp.arange(3 * (limit + 1)))[1]
    first, last, discount = (np.asarray(x)[:, 0] for x in rows)
    t = np.arange(1, 1 + len(first)) % (limit + 1)
    np.testing.assert_array_equal(last, t == limit)
    np.testing.assert_array_equal(first, t == 0)
    np.testing.assert_array_equal(discount, t != 0)
    assert make("MetaFetch-7x7", 1).max_episode_steps == 300


def test_starts_are_uniform_and_independent():
    env, num_envs = MetaFetch(3, num_objects=3), 9000
    state = one(starts(env, num_envs), slice(None))
    cells = np.concatenate(
        [
            (3 * state.row + state.column)[:, None],
            3 * state.object_rows + state.object_columns,
        ],
        axis=1,
    )
    assert all(len(set(row)) == 4 for row in cells)
    # Four standard deviations, of what has nine and six equally likely values.
    for column in cells.T:
        shares = np.bincount(column, minlength=9) / num_envs
        np.testing.assert_allclose(shares, 1 / 9, atol=4 * (8 / 81 / num_envs) ** 0.5)
    orders = [tuple(x) for x in state.ranks.tolist()]
    for order in permutations(range(3)):
        share = orders.count(order) / num_envs
        assert share == pytest.approx(1 / 6, abs=4 * (5 / 36 / num_envs) ** 0.5)
    for i in range(3):  # the order does not depend on where things are
        assert (
            abs(np.corrcoef(cells[:, 1], state.ranks[:, i])[0, 1]) < 4 / num_envs**0.5
        )
    assert not state.progress.any() and not state.paid.any() and not state.time.any()


def test_distinct_numbers_are_a_uniform_arrangement():
    num_draws = 24000
    uniform = jax.random.uniform(random.key(0), (num_draws, 3))
    drawn = jax.jit(jax.vmap(lambda x: _distinct(x, 4)))(uniform)
    drawn = [tuple(x) for x in np.asarray(drawn).tolist()]
    for arrangement in permutations(range(4), 3):
        share = drawn.count(arrangement) / num_draws
        assert share == pytest.approx(1 / 24, abs=4 * (23 / 576 / num_draws) ** 0.5)
    assert len(set(drawn)) == 24
    largest = np.nextafter(np.float32(1), np.float32(0))
    assert _distinct(jnp.full(4, largest), 49).tolist() == [48, 0, 1, 2]


def test_environments_of_a_stream_differ():
    env_state, _ = jax.jit(make("MetaFetch-7x7", 32).reset)(random.key(0))
    state = env_state.inner.streams.state
    drawn = np.concatenate([state.object_rows, state.object_columns, state.ranks], 1)
    assert len(np.unique(drawn, axis=0)) == 32


@pytest.mark.slow
def test_it_keeps_the_contract():
    settings = {"num_objects": 4, "view_size": 3, "max_steps_in_episode": 12}
    env = make("MetaFetch-3x3", 4, **settings)
    check_environment(env, 60)


def test_it_can_be_used_as_any_environment_of_gymnax():
    env = MetaFetch(5, num_objects=2, view_size=3)
    obs, state = env.reset(random.key(0))
    assert obs.shape == env.observation_space().shape == (3 * 3 * 3,)
    assert env.observation_space().contains(obs) and env.num_actions == 4
    params = env.default_params.replace(max_steps_in_episode=2)
    assert env.action_space(params).n == 4
    for t in range(2):
        before = state
        obs, state, reward, terminated, truncated, info = env.step(
            random.key(t), state, UP, params
        )
        assert reward in (0, 1) and not terminated and truncated == (t == 1)
        assert info["discount"] == 1
    assert state.time == 0  # it has started over, elsewhere
    assert not np.array_equal(state.object_rows, before.object_rows)
    np.testing.assert_array_equal(obs, env.observation(state))


def test_wrong_settings_are_refused():
    for view_size in (1, 4):
        with pytest.raises(ValueError, match=f"odd, at least 3, got {view_size}"):
            MetaFetch(view_size=view_size)
    with pytest.raises(ValueError, match="at most 3 beside the agent on 2 x 2 cells"):
        make("MetaFetch-2x2", 1, num_objects=4)
    with pytest.raises(ValueError, match=r"num_objects must be at least 2.*got 1"):
        MetaFetch(num_objects=1)
    with pytest.raises(
        ValueError, match=r"'num_object'; did you mean 'num_objects'\?.*view_size"
    ):
        make("MetaFetch-7x7", 1, num_object=2)
    with pytest.raises(ValueError, match="max_steps_in_episode must be at least 1"):
        make("MetaFetch-7x7", 1, max_steps_in_episode=-1)


def test_the_picture_shows_grid_window_order_and_progress():
    env = MetaFetch(4, num_objects=3, view_size=3)
    state = one(starts(env, 1), 0)._replace(
        row=np.int32(0),
        column=np.int32(0),
        object_rows=np.int32([3, 3, 2]),
        object_columns=np.int32([0, 3, 3]),
        ranks=np.int32([2, 0, 1]),
        progress=np.int32(1),
        paid=np.int32(2),
    )
    picture = env.draw(state)
    assert min(picture.shape[:2]) >= 320 and picture.shape[2] == 3

    def cell(row, column):
        return drawing.cell(picture, 6, row, column)

    def middle(row, column):
        view = cell(row, column)
        return tuple(int(x) for x in view[len(view) // 2, len(view) // 2])

    assert middle(1, 1) == drawing.AGENT and middle(3, 1) == drawing.FLOOR
    # Seen: the cells within one of the agent, and the wall there.
    assert middle(2, 2) not in {drawing.FLOOR, drawing.WALL, drawing.AGENT}
    assert middle(0, 2) != drawing.WALL and middle(5, 5) == drawing.WALL
    # The second object, first of the order, was fetched: a ring, and so in the order.
    assert middle(4, 4) == drawing.FLOOR and middle(6, 1) == drawing.WALL
    assert middle(6, 2) == middle(3, 4) and middle(6, 3) == middle(4, 1)
    colours = {middle(6, 2), middle(6, 3), drawing.WALL, drawing.FLOOR}
    assert len(colours) == 4
    marked = [(cell(6, i)[0, 0] == drawing.MARK).all() for i in (1, 2, 3)]
    assert marked == [False, True, False]
    paid = [(cell(6, i)[-1, 20] == drawing.FLOOR).all() for i in (1, 2, 3)]
    assert paid == [True, True, False]
