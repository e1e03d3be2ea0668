"""Tasks of Jumanji against plain loops over its own reset and step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from following import starts_afresh

from jaxrl_par import envs, random
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import check_environment
from jaxrl_par.types import Box, Discrete, Masked, MultiDiscrete

jumanji = pytest.importorskip("jumanji")

from jumanji import specs  # noqa: E402
from jumanji.environments import Connector, Game2048, Knapsack, Snake  # noqa: E402
from jumanji.wrappers import AutoResetWrapper, MultiToSingleWrapper  # noqa: E402

from jaxrl_par.envs import suites  # noqa: E402
from jaxrl_par.envs.suites import jumanji as adapter  # noqa: E402


def first_legal(allowed) -> jax.Array:
    return jnp.argmax(allowed, axis=-1).astype(jnp.int32)


@pytest.mark.slow
def test_each_row_is_that_of_a_plain_loop_until_no_action_is_legal():
    """S2: the mask of the final observation is all zeros, and stays so."""
    game = Game2048(board_size=2)
    one = adapter.adapted(game)
    ours, theirs = jax.jit(one.step), jax.jit(game.step)
    key = random.key(3)
    (state, obs), (expected, row) = one.reset(key), game.reset(jax.random.key_data(key))
    assert isinstance(one.observation_spec, Masked) and one.max_episode_steps is None
    total = 0.0
    for _ in range(200):
        np.testing.assert_array_equal(obs.obs, row.observation.board)
        np.testing.assert_array_equal(obs.allowed, row.observation.action_mask)
        action = first_legal(obs.allowed)
        state, obs, reward, terminated, truncated = ours(state, action, random.key(0))
        expected, row = theirs(expected, action)
        assert float(reward) == float(row.reward) and not bool(truncated)
        total += float(reward)
        if row.last():
            break
        assert not bool(terminated)
    assert bool(terminated) and not obs.allowed.any() and total > 0


@pytest.mark.slow
def test_a_time_limit_is_a_truncation_and_the_state_does_not_know_of_it():
    """Snake says discount 0 at its limit; ours is 1, and the last step is kept."""
    task = Snake(num_rows=6, num_cols=6, time_limit=3)
    env = suites.from_jumanji(task, 1)
    assert env.max_episode_steps == 3
    key, advance = random.key(0), jax.jit(env.step)
    state, step = jax.jit(env.reset)(key)
    rows = []
    for _ in range(5):
        action = first_legal(step.obs.allowed)
        state, step, _, discount = advance(state, action, key)
        rows.append((bool(step.last[0]), bool(step.first[0]), float(discount[0])))
    assert rows[:3] == [(False, False, 1.0)] * 2 + [(True, False, 1.0)]
    assert rows[3:] == [(False, True, 0.0), (False, False, 1.0)]
    assert task.time_limit == 3  # a user's own object is left as it is


@pytest.mark.slow
def test_an_end_at_the_limit_is_an_end():
    """S9: limit 2, and the snake leaves the board in step 2: discount 0."""
    task = Snake(num_rows=6, num_cols=6, time_limit=2)
    env = suites.from_jumanji(task, 16)
    state, step = jax.jit(env.reset)(random.key(0))
    advance = jax.jit(env.step)
    for t in range(2):
        # Out of the board where it can, else along.
        worst = jnp.argmin(step.obs.allowed, axis=-1).astype(jnp.int32)
        action = first_legal(step.obs.allowed) if t == 0 else worst
        bad = ~jnp.take_along_axis(step.obs.allowed, action[:, None], 1)[:, 0]
        state, step, _, discount = advance(state, action, random.key(t))
    assert step.last.all() and bad.sum() > 0
    np.testing.assert_array_equal(discount, jnp.where(bad, 0.0, 1.0))


@pytest.mark.slow
def test_a_limit_within_a_wrapper_is_a_truncation_too():
    env = suites.from_jumanji(MultiToSingleWrapper(Connector(time_limit=3)), 2)
    state, step = jax.jit(env.reset)(random.key(0))
    advance, still = jax.jit(env.step), jnp.zeros((2, 10), jnp.int32)
    for _ in range(3):
        assert not step.last.any()
        state, step, _, discount = advance(state, still, random.key(0))
    assert step.last.all() and discount.tolist() == [1.0, 1.0]


@pytest.mark.slow
def test_a_random_task_is_another_one_in_each_episode():
    env = suites.from_jumanji(Knapsack(), 2)
    _, step = env.reset(random.key(0))
    assert {*step.obs.obs} == {"packed_items", "values", "weights"}
    values = np.asarray(step.obs.obs["values"])
    assert not np.array_equal(values[0], values[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, action, allowed",
    [
        ("Tetris-v0", MultiDiscrete([4, 10]), (4, 10)),
        ("BinPack-v2", MultiDiscrete([40, 20]), (40, 20)),
        ("Minesweeper-v0", MultiDiscrete([10, 10]), (10, 10)),
        ("Cleaner-v0", MultiDiscrete([4, 4, 4]), (12,)),
        ("Connector-v3", MultiDiscrete([5] * 10), (50,)),
        ("JobShop-v0", MultiDiscrete([21] * 10), (210,)),
        ("MultiCVRP-v0", MultiDiscrete([21, 21]), (42,)),
        ("RubiksCube-v0", MultiDiscrete([6, 1, 3]), None),
        ("Maze-v0", Discrete(4), (4,)),
        ("SearchAndRescue-v0", Box((2, 2), low=-1.0, high=1.0), None),
    ],
)
def test_actions_and_masks_of_its_tasks(name, action, allowed):
    one = adapter.raw(name)
    if isinstance(action, Box):
        assert isinstance(one.action_spec, Box) and one.action_spec.shape == (2, 2)
    else:
        assert one.action_spec == action
    _, obs = one.reset(random.key(0))
    if allowed is None:
        assert not isinstance(obs, Masked)
    else:
        assert obs.allowed.shape == allowed and obs.allowed.dtype == bool
        spec: Masked = one.observation_spec
        assert spec.allowed.shape == allowed


def masked_specs(nvec, mask, joint=None):
    spec = Box(mask, np.dtype(bool), 0.0, 1.0)
    return adapter._mask_shape(spec, MultiDiscrete(np.array(nvec)), joint)


def test_what_a_mask_of_several_actions_is_of():
    assert masked_specs([2, 3], (2, 3)) == (2, 3)
    assert masked_specs([3, 3], (2, 3)) == (6,)
    assert masked_specs([2, 2, 2], (3, 2)) == (6,)
    assert masked_specs([2, 2], (2, 2), joint=True) == (2, 2)
    assert masked_specs([2, 2], (2, 2), joint=False) == (4,)
    with pytest.raises(RefusedError, match="say joint=True or joint=False"):
        masked_specs([2, 2], (2, 2))
    with pytest.raises(RefusedError, match=r"a mask \(5,\) is none of MultiDiscrete"):
        masked_specs([2, 3], (5,))
    with pytest.raises(RefusedError, match=r"a mask \(2, 3\) is none of"):
        masked_specs([2, 3], (2, 3), joint=False)


def test_integers_that_begin_elsewhere_keep_their_start():
    spec = specs.BoundedArray((2,), jnp.int32, minimum=1, maximum=4)
    assert adapter._action_spec(spec) == MultiDiscrete([4, 4], 1)
    spec = specs.BoundedArray((), jnp.int32, minimum=-1, maximum=1)
    assert adapter._action_spec(spec) == Discrete(3, -1)


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: suites.from_jumanji(object(), 1), "env must be a jumanji.Environment"),
        (
            lambda: suites.from_jumanji(AutoResetWrapper(Knapsack()), 1),
            "AutoResetWrapper is around the environment: hand over the one within",
        ),
        (
            lambda: envs.make("jumanji::Snake-v1", 1, num_row=3),
            "parameter of jumanji::Snake-v1 'num_row'; did you mean 'num_rows'?",
        ),
        (
            lambda: envs.make("jumanji::Snake-v0", 1),
            "did you mean 'jumanji::Snake-v1'?",
        ),
    ],
)
def test_bad_input(make, told):
    with pytest.raises(RefusedError) as refused:
        make()
    assert told in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, params, num_steps",
    [
        ("Game2048-v1", {"board_size": 2}, 60),
        ("Snake-v1", {"num_rows": 4, "num_cols": 4, "time_limit": 7}, 60),
        ("Tetris-v0", {"time_limit": 5}, 60),
        ("Maze-v0", {"time_limit": 5}, 40),
        ("Knapsack-v1", {}, 60),
        ("TSP-v1", {}, 60),
        ("Connector-v3", {"time_limit": 5}, 40),
        ("RubiksCube-partly-scrambled-v0", {}, 60),
        ("PacMan-v1", {"time_limit": 9}, 40),
        ("SearchAndRescue-v0", {"time_limit": 5}, 40),
        ("MultiCVRP-v0", {}, 60),
        ("GraphColoring-v1", {}, 60),
        ("Minesweeper-v0", {}, 60),
    ],
)
def test_tasks_keep_the_contract_of_a_stream(name, params, num_steps):
    check_environment(envs.make(f"jumanji::{name}", 4, **params), num_steps)


@pytest.mark.slow
def test_a_viewer_draws_the_state():
    env = envs.make("jumanji::Snake-v1", 2)
    assert env.draw is not None
    state, _ = env.reset(random.key(0))
    picture = env.draw(state, 1)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.std() > 0


@pytest.mark.slow
def test_nothing_of_an_episode_is_left_in_the_next_one():
    """Trap S10, in all leaves of the state, its key and its count of steps included."""
    small = {"num_rows": 6, "num_cols": 6, "time_limit": 5}
    env = envs.make("jumanji::Snake-v1", 4, **small)
    assert starts_afresh(env, adapter.raw("Snake-v1", **small), 24) >= 16
