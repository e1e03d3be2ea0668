"""Tasks of XLand-MiniGrid against plain loops over its own reset and step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from following import starts_afresh

from jaxrl_par import envs, random
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import check_environment
from jaxrl_par.types import Discrete

xminigrid = pytest.importorskip("xminigrid")

from xminigrid.wrappers import GymAutoResetWrapper  # noqa: E402

from jaxrl_par.envs import suites  # noqa: E402
from jaxrl_par.envs.suites import xland as adapter  # noqa: E402

FORWARD, RIGHT = 0, 1
TO_THE_GOAL = (FORWARD, FORWARD, RIGHT, FORWARD, FORWARD)
"""In MiniGrid-Empty-5x5."""


@pytest.mark.slow
def test_each_row_is_that_of_a_plain_loop_until_its_limit():
    env, params = xminigrid.make("MiniGrid-EmptyRandom-6x6", max_steps=30)
    one = adapter.adapted(env, params)
    key = random.key(2)
    state, obs = one.reset(key)
    row = env.reset(params, jax.random.key_data(key))
    ours, theirs = jax.jit(one.step), jax.jit(env.step)
    for t in range(30):
        np.testing.assert_array_equal(obs, row.observation)
        action = jnp.int32(t * t % 3)
        state, obs, reward, terminated, truncated = ours(state, action, random.key(t))
        row = theirs(params, row, action)
        assert float(reward) == float(row.reward)
        over = bool(terminated) or bool(truncated)
        assert over == bool(row.last()) and bool(terminated) == (row.discount == 0)
        if over:
            break
    assert over


@pytest.mark.slow
@pytest.mark.parametrize("limit, discount", [(5, 0.0), (4, 1.0)])
def test_an_end_at_the_limit_is_an_end_and_a_limit_alone_is_none(limit, discount):
    """S9: the goal is reached in step 5."""
    env = envs.make("xland::MiniGrid-Empty-5x5", 2, max_steps=limit)
    assert env.max_episode_steps == limit
    state, step = env.reset(random.key(0))
    advance = jax.jit(env.step)
    total = 0.0
    for action in TO_THE_GOAL[:limit]:
        assert not step.last.any()
        state, step, reward, discounts = advance(
            state, jnp.full(2, action), random.key(1)
        )
        total += float(reward[0])
    assert step.last.all() and discounts.tolist() == [discount] * 2
    # 1 - 0.9 * steps / limit where the goal is reached.
    assert total == pytest.approx(0.1 if limit == 5 else 0.0)
    state, step, reward, _ = advance(state, jnp.full(2, FORWARD), random.key(1))
    assert step.first.all() and not reward.any() and env.episode is not None
    for _ in range(limit - 1):
        assert not step.last.any()
        state, step, *_ = advance(state, jnp.full(2, RIGHT), random.key(1))
    # S10: nothing of the last episode is left in the clock of the next one.
    assert not step.last.any()
    state, step, *_ = advance(state, jnp.full(2, RIGHT), random.key(1))
    assert step.last.all()


@pytest.mark.parametrize(
    "make, told",
    [
        (
            lambda: suites.from_xland(object(), 1),
            "env must be an xminigrid",
        ),
        (
            lambda: suites.from_xland(
                GymAutoResetWrapper(xminigrid.make("MiniGrid-Unlock")[0]), 1
            ),
            "GymAutoResetWrapper is around the environment",
        ),
        (
            lambda: envs.make("xland::MiniGrid-Unlock", 1, max_step=3),
            "parameter of xland::MiniGrid-Unlock 'max_step'; did you mean 'max_steps'?",
        ),
        (
            lambda: envs.make("xminigrid::MiniGrid-Unlock", 1),
            "unknown suite 'xminigrid'; did you mean 'xland'?",
        ),
    ],
)
def test_bad_input(make, told):
    with pytest.raises(RefusedError) as refused:
        make()
    assert told in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["MiniGrid-DoorKey-5x5", "MiniGrid-MemoryS8", "XLand-MiniGrid-R1-9x9"]
)
def test_tasks_keep_the_contract_of_a_stream(name):
    env = envs.make(f"xland::{name}", 4, max_steps=9)
    assert env.action_spec == Discrete(6)
    check_environment(env, 60)


@pytest.mark.slow
def test_it_draws_its_state():
    env = envs.make("xland::MiniGrid-FourRooms", 2)
    assert env.draw is not None
    picture = env.draw(env.reset(random.key(0))[0], 1)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.std() > 0


@pytest.mark.slow
def test_nothing_of_an_episode_is_left_in_the_next_one():
    """Trap S10, in all leaves of the state, its clock included."""
    task = "MiniGrid-DoorKey-5x5"
    env = envs.make(f"xland::{task}", 4, max_steps=5)
    assert starts_afresh(env, adapter.raw(task, max_steps=5), 24) >= 16
