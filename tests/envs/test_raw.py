"""Streams of a transition that is written by hand."""

from importlib import import_module

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from walks import followed, walk

from jaxrl_par.envs import from_gymnax, from_raw
from jaxrl_par.envs.catalogue import gymnax_names
from jaxrl_par.envs.gymnax import raw as raw_of
from jaxrl_par.envs.raw import strong_dtypes, without_constants
from jaxrl_par.envs.suites import table
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import check_environment
from jaxrl_par.types import Box, Discrete, MultiDiscrete

# MNIST is downloaded; an episode of the other bandit is a single step.
OTHERS = ("MNISTBandit-bsuite", "SimpleBandit-bsuite")
OFFLINE = [name for name in gymnax_names() if name not in OTHERS]


def nothing(num_steps, num_envs=1):
    return np.zeros((num_steps, num_envs), np.int32)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("end", "limit", "cuts", "last_discount"),
    [(3, 9, None, 0), (None, 3, None, 1), (None, 9, 3, 1), (3, None, 3, 0)],
)
def test_an_episode_ends_in_each_way(end, limit, cuts, last_discount):
    env = from_raw(walk(end, limit, cuts), 4, "walk")
    steps, _, rewards, discounts = followed(env, nothing(8, 4))
    np.testing.assert_array_equal(steps.last[:, 0], np.arange(9) % 4 == 3)
    np.testing.assert_array_equal(steps.obs[:, 0, 0], np.arange(9) % 4)
    np.testing.assert_array_equal(rewards[:, 0], [1, 1, 1, 0] * 2)
    np.testing.assert_array_equal(discounts[:, 0], [1, 1, last_discount, 0] * 2)
    assert env.max_episode_steps == min(x for x in (limit, cuts) if x)


@pytest.mark.slow
def test_an_environment_of_this_kind_keeps_the_contract():
    check_environment(from_raw(walk(limit=3), 4, "walk"), 12)


def test_an_end_at_the_limit_is_an_end():
    # Reward 1, gamma 0.9, next value 10: the target is 1, and not 10.
    env = from_raw(walk(end=3, limit=3), 1, "walk")
    _, _, rewards, discounts = followed(env, nothing(3))
    assert rewards[2, 0] + 0.9 * discounts[2, 0] * 10.0 == 1.0


def test_integers_begin_where_the_environment_has_them():
    """S8: 0 and 2 of the stream are -1 and 1 there, whatever else the action has."""
    spec = {"turn": Discrete(3, start=-1), "gear": MultiDiscrete([2, 2], start=[1, 0])}

    def step(state, action, key):
        shown = jnp.append(action["gear"], action["turn"]).astype(jnp.float32)
        return state, shown, 0.0, False, False

    raw = walk()._replace(
        reset=lambda key: (0, jnp.zeros(3)), step=step,
        observation_spec=Box((3,)), action_spec=spec,
    )  # fmt: skip
    env = from_raw(raw, 2, "turns")
    state, _ = env.reset(jax.random.key(0))
    action = {"turn": jnp.array([0, 2]), "gear": jnp.array([[0, 0], [1, 1]])}
    _, shown, *_ = env.step(state, action, jax.random.key(1))
    np.testing.assert_array_equal(shown.obs, [[1, 0, -1], [2, 1, 1]])


def test_a_limit_counts_for_itself():
    # The environment's own `steps` are 10 after five of the stream.
    steps, *_ = followed(from_raw(walk(limit=10), 1, "walk"), nothing(33))
    np.testing.assert_array_equal(np.flatnonzero(steps.last[:, 0]), [10, 21, 32])


def check_restart(env, raw, actions):
    """Where episodes begin all leaves are those of a reset with the same key, and all
    episodes are as long."""
    assert len(actions) == 20
    now, step = env.reset(jax.random.key(0))
    advance = jax.jit(env.step)
    begun, lengths, length = 0, [], 0
    for action, key in zip(
        actions, jax.random.split(jax.random.key(1), 20), strict=True
    ):
        was_last = np.asarray(step.last)
        now, step, *_ = advance(now, action, key)
        length = 0 if was_last[0] else length + 1
        lengths += [length] * bool(step.last[0])
        if not was_last.all():
            continue
        _, reset_keys = jax.random.split(key, (2, env.num_envs))
        state, obs = strong_dtypes(raw)(jax.jit(jax.vmap(raw.reset))(reset_keys))
        expected = jax.tree.leaves((state, obs))
        found = jax.tree.leaves((now.inner.streams.state, step.obs))
        for x, y in zip(found, expected, strict=True):
            assert x.dtype == y.dtype
            same = (
                jax.random.key_data
                if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
                else np.asarray
            )
            np.testing.assert_allclose(same(x), same(y), rtol=1e-6, atol=1e-6)
        begun += 1
    assert begun and lengths == [5, 5, 5]


def test_nothing_survives_an_episode():
    raw = walk(limit=5)
    check_restart(from_raw(raw, 2, "walk"), raw, nothing(20, 2))


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", OFFLINE)
def test_nothing_of_gymnax_survives_an_episode(name):
    inner, params = gymnax.make(name)
    # gymnax selects between arrays, which must have the same dtype.
    limit = type(params.max_steps_in_episode)(5)
    params = params.replace(max_steps_in_episode=limit)
    env = from_gymnax(inner, 2, params)
    raw = without_constants(raw_of(inner, params))
    spec = env.action_spec
    actions = jnp.zeros((20, 2, *spec.shape), spec.dtype)
    check_restart(env, raw, actions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "task", "params"),
    [
        ("xland", "MiniGrid-EmptyRandom-8x8", {"max_steps": 5}),
        ("octax", "pong", {"max_num_steps_per_episodes": 5}),
    ],
)
def test_nothing_of_a_suite_survives_an_episode(suite, task, params):
    if why := table.problem(suite):
        pytest.skip(why)
    raw = import_module(f"jaxrl_par.envs.suites.{suite}").raw(task, **params)
    env, raw = from_raw(raw, 2, task), without_constants(raw)
    spec = env.action_spec
    check_restart(env, raw, jnp.zeros((20, 2, *spec.shape), spec.dtype))


def test_wrong_arguments_are_refused():
    with pytest.raises(RefusedError, match="num_envs must be at least 1, got 0"):
        from_raw(walk(), 0, "walk")
    with pytest.raises(RefusedError, match="max_episode_steps must be at least 1"):
        from_raw(walk(limit=0), 1, "walk")
