"""What nothing changes, out of the state of a hand-written world and of a suite's."""

from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from jaxrl_par.envs import Raw, from_raw
from jaxrl_par.envs.raw import constants_of, without_constants
from jaxrl_par.envs.suites import table
from jaxrl_par.types import Box, Discrete


class World(NamedTuple):
    walls: Any
    """The same in all episodes: the one constant with a value of its own."""
    price: Any
    """A Python number, and constant."""
    goal: Any
    """Drawn by each reset, and kept by each step."""
    time: Any
    """The same at each start, and changed by each step."""
    key: Any
    seed: Any
    """A key that is constant."""


def world(walls=(2.0, 3.0)) -> Raw:
    def reset(key):
        drawn = jax.random.uniform(key)
        state = World(jnp.array(walls), 5, drawn, 0, key, jax.random.key(7))
        return state, jnp.float32(state.time)

    def step(state, action, key):
        state = state._replace(time=state.time + 1)
        obs = jnp.float32(state.time)
        return state, obs, state.walls.sum() * state.price, state.time == 3, False

    return Raw(
        *(reset, step, Box(()), Discrete(2)),
        draw=lambda state: state.walls * state.price,
        told=lambda state: {"walls": state.walls.sum(), "goal": state.goal},
        discount=lambda before, after: before.price / after.walls[0] / 5.0,
    )


def test_only_what_neither_a_reset_nor_a_step_changes_is_left_out():
    raw = world()
    state, _ = jax.jit(raw.reset)(jax.random.key(3))
    left_out, put_back = constants_of(raw)
    rest = left_out(state)
    assert rest.walls is rest.price is None
    assert rest[2:] == state[2:]
    whole = put_back(rest)
    np.testing.assert_array_equal(whole.walls, state.walls)
    price = np.asarray(whole.price)
    assert price == 5 and price.dtype == np.asarray(state.price).dtype
    assert whole[2:] == state[2:]


def test_all_that_reads_the_state_of_a_stream_sees_the_whole_one():
    env = from_raw(world(), 2, "world")
    state, step = jax.jit(env.reset)(jax.random.key(0))
    assert len(jax.tree.leaves(state.inner.streams.state)) == 4
    goals = state.inner.streams.state.goal
    for t in range(3):
        state, step, reward, discount = jax.jit(env.step)(
            state, jnp.zeros(2, jnp.int32), jax.random.key(t)
        )
        assert reward.tolist() == [25.0] * 2
        assert discount.tolist() == [0.5 if t < 2 else 0.0] * 2
    assert step.last.all() and env.episode is not None and env.draw is not None
    told = env.episode(state).told
    np.testing.assert_array_equal(told["info_walls"], [5.0, 5.0])
    np.testing.assert_array_equal(told["info_goal"], goals)
    np.testing.assert_array_equal(env.draw(state, 1), [10.0, 15.0])


def test_what_is_traced_is_left_in_the_state():
    def pays(walls):
        env = from_raw(world(walls), 1, "world")
        state, _ = env.reset(jax.random.key(0))
        return env.step(state, jnp.zeros(1, jnp.int32), jax.random.key(1))[2][0]

    assert jax.jit(pays)(jnp.array([1.0, 2.0])) == 15.0


def test_what_comes_from_outside_jax_is_left_in_the_state():
    drawn = iter(range(100))

    def reset(key):
        shape = jax.ShapeDtypeStruct((), jnp.int32)
        tag = io_callback(lambda: np.int32(next(drawn)), shape)
        return (tag, key), tag

    def step(state, action, key):
        return state, state[0], 0.0, True, False

    raw = without_constants(Raw(reset, step, Box((), np.dtype(np.int32)), Discrete(2)))
    assert jax.eval_shape(raw.reset, jax.random.key(0))[0][0] is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    "task, drawn", [("MiniGrid-DoorKey-5x5", False), ("MiniGrid-Unlock", True)]
)
def test_rules_of_minigrid_are_constants_and_goals_where_none_is_drawn(task, drawn):
    if why := table.problem("xland"):
        pytest.skip(why)
    raw = import_module("jaxrl_par.envs.suites.xland").raw(task)
    begun, _ = jax.eval_shape(without_constants(raw).reset, jax.random.key(0))
    assert begun.state.rule_encoding is None and begun.state.grid is not None
    assert (begun.state.goal_encoding is not None) == drawn
