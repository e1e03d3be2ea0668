"""The ensemble that learns what actions do: who sees what, in which units."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import envs, random, rollout
from jaxrl_par.algorithms.world_model import (
    WorldModelConfig,
    drawn_members,
    gradient,
    in_units,
    observed,
    predicted,
    rows_of,
    world_model,
)
from jaxrl_par.axis import Axis
from jaxrl_par.networks import NetworkConfig, world_network
from jaxrl_par.replay import Windows, uniform
from jaxrl_par.statistics import Moments, merged, moments, scales
from jaxrl_par.types import Agent, Box, Discrete, Info, TimeStep, Trajectory

SPECS = Box((2,)), Discrete(2)
NETWORK = world_network(*SPECS, NetworkConfig(widths=(8,)))
CONFIG = WorldModelConfig(num_members=3, held_out=0.2, min_updates=0)
MODEL = world_model(NETWORK, optax.sgd(0.1), CONFIG)


@cache
def acted(seed=0, length=6, lanes=5):
    """A random stream with ends, and its members."""
    keys = jax.random.split(random.key(seed), 5)
    shape = (length + 1, lanes)
    last = jax.random.uniform(keys[0], shape) < 0.2
    first = jnp.concatenate([jnp.ones((1, lanes), bool), last[:-1]])
    obs = jax.random.normal(keys[1], (*shape, 2))
    rows = ~last[:-1]
    reward = jnp.where(rows, jax.random.normal(keys[2], rows.shape), 0.0)
    action = jax.random.randint(keys[3], rows.shape, 0, 2)
    discount = jnp.where(rows & ~last[1:], 1.0, 0.0)
    members = drawn_members(keys[4], rows.size, CONFIG).reshape(*rows.shape, 3)
    steps = TimeStep(obs, first, last)
    return Trajectory(steps, action, reward, discount, {"members": members}, ())


@cache
def begun():
    """A state with statistics of the stream."""
    step = jax.tree.map(lambda x: x[0], acted().steps)
    state = MODEL.init(random.key(1), step)
    return observed(state, acted(), Axis())


def test_a_member_never_sees_more_than_a_third_of_the_rows():
    """Trap 17: 36.8 % of 1,000, e^-1. Drawn anew for 20 batches, none is unseen."""
    config = WorldModelConfig(num_members=5, held_out=0.0)
    draw = jax.jit(lambda key: drawn_members(key, 1_000, config))
    counts = np.stack([draw(random.key(seed)) for seed in range(20)]).astype(int)
    unseen = np.mean(counts == 0, axis=1)  # [20, 5], each with a deviation of 0.015
    np.testing.assert_allclose(unseen, 0.368, atol=0.06)
    np.testing.assert_allclose(np.mean(unseen), 0.368, atol=0.006)
    np.testing.assert_allclose(np.mean(counts), 1.0, atol=0.01)
    assert np.all(np.sum(counts, axis=0) > 0)


@pytest.mark.slow
def test_membership_belongs_to_the_row():
    """Trap 17: it is what it was in every batch, until the slot is overwritten."""
    buffer = uniform(5, 64, Windows(1))
    data = buffer.init(jax.eval_shape(lambda x: x, acted()))
    number = {}
    for seed in (0, 1):
        rows = acted(seed)
        known = {
            float(o): tuple(m.tolist())
            for o, m in zip(
                np.asarray(rows.steps.obs[:-1, :, 0]).ravel(),
                np.asarray(rows.extras["members"]).reshape(-1, 3),
                strict=True,
            )
        }
        data = buffer.add(data, (), rows)
        for draw in range(3):
            batch, _ = buffer.sample(data, None, random.key(draw), Axis())
            told = np.asarray(batch.extras["members"][0])
            for o, members in zip(batch.steps.obs[0, :, 0], told, strict=True):
                assert tuple(members.tolist()) == known[float(o)]
        number[seed] = known
    assert set(number[0]).isdisjoint(number[1])


def test_a_feature_that_never_changes_has_scale_one():
    """Trap 22: 100,000 times 0.1 has deviations of 0 to 7.5e-9, by rounding. What is
    imagined 0.01 above is 0.01 above."""
    rows, everything = jnp.full((1_000, 100, 1), 0.1), jnp.ones((1_000, 100), bool)

    @jax.jit
    def both(rows):
        found = moments(rows, everything, Axis())
        return found, merged(found, moments(rows[:7], everything[:7], Axis()))

    found, twice = both(rows)
    rounded = twice._replace(variance=jnp.array([7.5e-9**2]))
    for given in (found, twice, rounded):
        assert scales(given)[0] == 1.0
        assert (0.11 - given.mean[0]) / scales(given)[0] == pytest.approx(
            0.01, rel=1e-4
        )
    changes = Moments(jnp.float32(9), jnp.array([0.1]), jnp.array([0.01**2]))
    np.testing.assert_allclose(scales(changes), [0.01], rtol=1e-6)
    nothing = Moments(jnp.float32(0), jnp.zeros(1), jnp.full(1, 4.0))
    np.testing.assert_array_equal(scales(nothing), [1.0])


@pytest.mark.slow
def test_the_loss_is_that_of_the_docstring():
    """Against NumPy, member by member, row by row."""
    state, rows = begun(), acted()
    _, info = jax.jit(lambda state: gradient(NETWORK, state, rows_of(rows)))(state)
    seen = np.asarray(rows.steps.obs)
    keep = ~np.asarray(rows.steps.last[:-1])
    assert keep.any() and not keep.all()
    change = np.diff(seen, axis=0)
    obs_mean, obs_std = seen[:-1][keep].mean(0), seen[:-1][keep].std(0)
    mean, std = change[keep].mean(0), change[keep].std(0)
    reward = np.asarray(rows.reward)
    pays, spread = reward[keep].mean(), reward[keep].std()
    total, held, number = 0.0, [], keep.size
    for e in range(3):
        params = jax.tree.map(lambda x, e=e: x[e], state.params)
        for t, k in zip(*np.nonzero(keep), strict=True):
            obs = jnp.asarray((seen[t, k] - obs_mean) / obs_std)[None]
            no = jnp.zeros(1, bool)
            shown = TimeStep((obs, rows.action[t, k][None]), no, no)
            (moved, paid, logit), _ = NETWORK.apply(params, (), shown)
            error = np.sum((moved[0] - (change[t, k] - mean) / std) ** 2)
            error = (error + (paid[0] - (reward[t, k] - pays) / spread) ** 2) / 3
            p = 1 / (1 + np.exp(-float(logit[0])))
            ended = rows.discount[t, k] == 0
            entropy = -np.log(p if ended else 1 - p)
            counts = np.asarray(rows.extras["members"][t, k])
            total += counts[e] * (error + entropy) / number
            held += [error] if not counts.any() else []
    np.testing.assert_allclose(info.metrics["loss"].total, total, rtol=1e-4)
    told = info.metrics["held_out_error"]
    assert told.count == len(held) / 3 > 0
    np.testing.assert_allclose(told.total / told.count, np.mean(held), rtol=1e-4)
    assert info.metrics["dropped_members"] == 0


@pytest.mark.slow
def test_rows_that_are_held_out_train_nobody():
    """Whatever they say; and `last` rows are none."""
    state, rows = begun(), acted()
    grads = jax.jit(lambda rows: gradient(NETWORK, state, rows_of(rows))[0])
    held = jnp.all(rows.extras["members"] == 0, axis=-1) | rows.steps.last[:-1]
    assert np.any(held & ~rows.steps.last[:-1])
    changed = rows._replace(
        reward=jnp.where(held, 7.0, rows.reward),
        action=jnp.where(held, 1 - rows.action, rows.action),
        discount=jnp.where(held, 1.0 - rows.discount, rows.discount),
    )
    for x, y in zip(
        jax.tree.leaves(grads(rows)), jax.tree.leaves(grads(changed)), strict=True
    ):
        np.testing.assert_array_equal(x, y)
        assert np.any(x != 0)


def broken(state, which):
    """The state with members whose parameters are no numbers."""
    return state._replace(
        params=jax.tree.map(lambda x: x.at[jnp.array(which)].set(jnp.nan), state.params)
    )


@pytest.mark.slow
def test_a_member_that_predicts_nan_is_dropped_and_counted():
    """The others learn and are asked as before."""
    state, rows = begun(), acted()
    told = jax.jit(lambda state: gradient(NETWORK, state, rows_of(rows)))
    sound, _ = told(state)
    grads, info = told(broken(state, [1]))
    assert info.metrics["dropped_members"] == 1
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(sound), strict=True):
        np.testing.assert_array_equal(x[0], y[0])
        np.testing.assert_array_equal(x[2], y[2])
        assert np.all(x[1] == 0)
    obs, action = acted().steps.obs[0], acted().action[0]
    many = jnp.tile(obs, (40, 1)), jnp.tile(action, 40)
    ask = jax.jit(lambda state: predicted(NETWORK, state, *many, random.key(0)))
    assert all(np.all(np.isfinite(x)) for x in ask(broken(state, [1])))
    # Without any, that is told, and the model believed no longer.
    nobody = ask(broken(state, [0, 1, 2]))
    assert np.all(np.isnan(nobody.obs)) and np.all(np.isnan(nobody.reward))
    state = state._replace(error=jnp.float32(0.01), measured=jnp.int32(1))
    assert MODEL.ready(state) and not MODEL.ready(begun())
    grads, info = told(broken(state, [0, 1, 2]))
    assert info.metrics["dropped_members"] == 3
    assert all(np.all(x == 0) for x in jax.tree.leaves(grads))
    assert not MODEL.ready(MODEL.apply(state, grads, info.metrics))


@pytest.mark.slow
def test_devices_learn_what_one_learns_from_all_rows():
    """Statistics, bounds and gradient of two halves of the lanes."""
    rows = acted(2, lanes=4)
    step = jax.tree.map(lambda x: x[0, :2], rows.steps)
    state = MODEL.init(random.key(1), step)
    halves = jax.tree.map(
        lambda x: jnp.stack(jnp.split(x, 2, axis=1)), rows._replace(carry=())
    )
    axis = Axis("data")

    def learned(rows, axis):
        now = observed(state, rows, axis)
        grads, info = gradient(NETWORK, now, rows_of(rows))
        return now, axis.mean(grads), axis.mean(info.metrics)

    split = jax.jit(jax.vmap(lambda x: learned(x, axis), axis_name="data"))(halves)
    now, grads, told = jax.tree.map(lambda x: x[0], split)
    whole, expected, alone = jax.jit(lambda x: learned(x, Axis()))(rows)
    np.testing.assert_array_equal(now.low, whole.low)
    np.testing.assert_array_equal(now.high, whole.high)
    pairs = zip(
        jax.tree.leaves((now.statistics.mean, now.statistics.variance, grads)),
        jax.tree.leaves((whole.statistics.mean, whole.statistics.variance, expected)),
        strict=True,
    )
    errors = [x["held_out_error"] for x in (told, alone)]
    both, one = (float(x.total / x.count) for x in errors)
    assert both == pytest.approx(one, rel=1e-5)
    for x, y in pairs:
        assert np.linalg.norm(x - y) <= 1e-5 * max(np.linalg.norm(y), 1e-3)


@pytest.mark.slow
def test_predictions_are_in_the_units_of_the_environment():
    """Deltas times their deviation, within the bounds of what was seen."""
    state = begun()
    obs, action = acted().steps.obs[0], acted().action[0]
    zero = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
    told = predicted(NETWORK, zero, obs, action, random.key(0))
    mean = state.statistics.mean
    expected = np.clip(obs + mean.change, state.low, state.high)
    np.testing.assert_allclose(told.obs, expected, rtol=1e-6)
    np.testing.assert_allclose(told.reward, np.full(5, mean.reward), rtol=1e-6)
    np.testing.assert_allclose(told.end, np.full(5, 0.5), rtol=1e-6)
    np.testing.assert_array_equal(told.doubt, np.zeros(5))
    far = predicted(NETWORK, zero, obs + 100.0, action, random.key(0))
    np.testing.assert_array_equal(far.obs, jnp.broadcast_to(state.high, obs.shape))
    assert np.any(predicted(NETWORK, state, obs, action, random.key(0)).doubt > 0)
    units = in_units(state.statistics, rows_of(acted()).seen)
    keep = np.asarray(rows_of(acted()).keep)
    np.testing.assert_allclose(np.std(units.change[keep], axis=0), 1.0, rtol=1e-4)


@pytest.mark.slow
def test_it_learns_cartpole_from_random_actions():
    """The sheet's check: from 10,000 rows, the squared error of normalised deltas in
    rows held out is below 1e-3."""
    env = envs.make("CartPole-v1", 16)
    network = world_network(
        *env.specs, NetworkConfig(widths=(64, 64), activation="swish")
    )
    model = world_model(network, optax.adam(1e-3), WorldModelConfig(num_members=3))

    def act(params, carry, step, key):
        act_key, key = jax.random.split(key)
        number = step.first.shape[0]
        members = {"members": model.members(key, number)}
        return jax.random.randint(act_key, (number,), 0, 2), carry, members

    agent = Agent(
        lambda key, step: (), lambda n: (), act, lambda *_: ((), Info({})),
        lambda *_: (), act,
    )  # fmt: skip
    streams = rollout.start(agent, env, random.key(0))
    unroll = jax.jit(lambda x, key: rollout.unroll(agent, env, (), x, key, 640)[1])
    rows = unroll(streams, random.key(1))
    state = model.init(random.key(2), streams.step)
    state = model.observe(state, rows, Axis())
    buffer = uniform(16, 256, Windows(1))
    data = buffer.add(buffer.init(jax.eval_shape(lambda x: x, rows)), (), rows)

    def once(state, key):
        batch, _ = buffer.sample(data, None, key, Axis())
        grads, info = model.grad(state, batch, key, Axis())
        return model.apply(state, grads, info.metrics), None

    learn = jax.jit(
        lambda x: jax.lax.scan(once, x, jax.random.split(random.key(3), 5_000))
    )
    state, _ = learn(state)
    assert model.ready(state) and state.error < 1e-3


@pytest.mark.parametrize(
    ("observation", "config", "message"),
    [
        (Discrete(4), NetworkConfig(), "a vector of real numbers"),
        (Box((2, 2)), NetworkConfig(), "a vector of real numbers"),
        (Box((2,)), NetworkConfig(memory="lstm"), "memory of a world model must be no"),
    ],
)
def test_what_no_model_can_predict_is_refused(observation, config, message):
    with pytest.raises(ValueError, match=message):
        world_network(observation, Discrete(2), config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_members": 0}, "num_members must be at least 1, got 0"),
        ({"held_out": 1.0}, "held_out must be below 1, got 1.0"),
        ({"believed_below": 0.0}, "believed_below must be above 0, got 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        world_model(NETWORK, optax.sgd(0.1), WorldModelConfig(**change))
