"""NAF and the noise of deterministic policies: traps, equations, known answers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import envs, loops, random
from jaxrl_par.algorithms.actor_critic import NAFConfig, losses, naf, parts
from jaxrl_par.algorithms.actor_critic.naf import loss, value_targets
from jaxrl_par.algorithms.actor_critic.noise import drawn, quiet
from jaxrl_par.envs.tasks.linear_quadratic import LinearQuadratic, answer
from jaxrl_par.networks import NetworkConfig, normalised_advantage
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.continuous import units_of
from jaxrl_par.networks.normalised_advantage import Quadratic
from jaxrl_par.replay import Windows, uniform
from jaxrl_par.topologies.compiled import compiled, train
from jaxrl_par.types import Box, Discrete, TimeStep, Trajectory

ONE = Box((1,), low=-1.0, high=1.0)
TWO = Box((2,), low=-1.0, high=1.0)
SGD = optax.sgd(0.1)
PROCESS = NAFConfig(noise=0.2, warm_up=0)


def fixed(lower=((1.0,),)) -> Network:
    """Parameters are (value, mean) of all states."""
    size = len(lower)

    def unroll(params, carry, steps):
        value, mean = params
        shape = steps.first.shape
        lowers = jnp.broadcast_to(jnp.asarray(lower), (*shape, size, size))
        made = value + jnp.zeros(shape), mean + jnp.zeros((*shape, size)), lowers
        return Quadratic(*made), carry

    zeros = jnp.float32(0.0), jnp.zeros(size)
    return Network(lambda key, step: zeros, lambda n: (), unroll, unroll)


def steps_of(num_rows, num_envs=1, *, first=()):
    """Observations are 0; `first` are pairs of row and environment."""
    flags = np.zeros((num_rows, num_envs), bool)
    for at in first:
        flags[at] = True
    no = jnp.zeros((num_rows, num_envs), bool)
    return TimeStep(jnp.zeros((num_rows, num_envs, 1)), jnp.asarray(flags), no)


def noises(config, first):
    """[T, B, 1] of a process, with the flags [T, B] of where episodes begin."""

    def one(carry, given):
        noise, carry = drawn(config, carry, *given, (first.shape[1], 1))
        return carry, noise

    keys = jax.random.split(random.key(0), len(first))
    return jax.jit(lambda carry: jax.lax.scan(one, carry, (jnp.asarray(first), keys)))(
        quiet(config, first.shape[1], 1)
    )[1][..., 0]


def test_a_process_is_that_of_ornstein_and_uhlenbeck():
    """Trap 11: theta 0.15, sigma 0.2: mean 0, std after 1, 10 and many steps 0.2,
    0.3722 and 0.3797, correlation 0.85; a process for each environment."""
    x = np.asarray(noises(PROCESS, np.zeros((100, 20_000), bool)))
    np.testing.assert_allclose(x.std(axis=1)[[0, 9, 99]], [0.2, 0.3722, 0.3797], 0.03)
    np.testing.assert_allclose(x.mean(axis=1)[[0, 9, 99]], 0.0, atol=0.01)
    after = np.corrcoef(x[98], x[99])[0, 1]
    np.testing.assert_allclose(after, 0.85, atol=0.01)
    beside = np.corrcoef(x[99, :10_000], x[99, 10_000:])[0, 1]
    assert abs(beside) < 0.05


def test_a_process_begins_again_with_its_own_episode_alone():
    """Trap 11: where the episode of environment 1 begins, those of 0 and 2 go on."""
    quiet_rows = np.zeros((12, 3), bool)
    begins = quiet_rows.copy()
    begins[8, 1] = True
    usual, changed = (np.asarray(noises(PROCESS, x)) for x in (quiet_rows, begins))
    np.testing.assert_array_equal(changed[:, [0, 2]], usual[:, [0, 2]])
    np.testing.assert_array_equal(changed[:8], usual[:8])
    step = usual[8, 1] - 0.85 * usual[7, 1]  # what was drawn
    np.testing.assert_allclose(changed[8, 1], step, rtol=1e-4)


def test_evaluation_moves_no_process():
    """Trap 11: on in acting alone."""
    agent = naf(fixed(), ONE, SGD, PROCESS)
    step = jax.tree.map(lambda x: x[0], steps_of(1, 4))
    state = agent.init(random.key(0), step)
    params, carry = agent.params(state), agent.initial_carry(4)
    action, moved, _ = agent.act(params, carry, step, random.key(1))
    assert len(np.unique(action)) == 4
    np.testing.assert_array_equal(moved.process, action)
    for key in (1, 2):
        action, after, _ = agent.greedy(params, moved, step, random.key(key))
        np.testing.assert_array_equal(action, np.zeros((4, 1)))
        np.testing.assert_array_equal(after.process, moved.process)


def test_noise_of_the_covariance_is_that_of_the_inverse():
    """Trap 10: L = [[1, 0], [2, 1]], scaled by 0.1 so that no bound is met; of rewards
    four times as large P is four times as large. Trap 7: each row and dimension is
    drawn by itself."""
    shape = {"exploration": "covariance", "noise": 0.1, "reward_scale": 0.25}
    config = NAFConfig(warm_up=0, **shape)
    agent = naf(fixed(((1.0, 0.0), (2.0, 1.0))), TWO, SGD, config)
    step = jax.tree.map(lambda x: x[0], steps_of(1, 50_000))
    params = agent.params(agent.init(random.key(0), step))
    action, *_ = jax.jit(agent.act)(
        params, agent.initial_carry(50_000), step, random.key(1)
    )
    found = 4.0 * np.cov(np.asarray(action).T) / 0.1**2
    np.testing.assert_allclose(found, [[5.0, -2.0], [-2.0, 1.0]], atol=0.1)
    assert len(np.unique(action[:100])) == 200


@pytest.mark.slow
def test_without_bounds_nothing_is_clipped_or_squashed():
    spec = Box((1,))
    agent = naf(fixed(), spec, SGD, PROCESS)
    step = jax.tree.map(lambda x: x[0], steps_of(1, 2))
    state = agent.init(random.key(0), step)
    params = agent.params(state._replace(online=(jnp.float32(0.0), jnp.full(1, 7.0))))
    action, carry, _ = agent.act(params, agent.initial_carry(2), step, random.key(1))
    np.testing.assert_allclose(action, 7.0 + carry.process, rtol=1e-6)
    np.testing.assert_array_equal(units_of(spec, unbounded=True).unit(action), action)


def batch_of(reward, *, discount=1.0, last=()):
    """One lane unless `reward` has more, [L, K]; `last` are rows."""
    reward = jnp.asarray(reward, jnp.float32)
    length, lanes = reward.shape
    flags = jnp.isin(jnp.arange(length + 1), jnp.asarray(last, int))[:, None]
    flags = jnp.broadcast_to(flags, (length + 1, lanes))
    discount = jnp.broadcast_to(jnp.asarray(discount, jnp.float32), reward.shape)
    steps = TimeStep(jnp.zeros((length + 1, lanes, 1)), flags & False, flags)
    action = jnp.zeros((length, lanes, 1))
    return Trajectory(steps, action, reward, discount, {}, ())


def nets(network=None, spec=ONE):
    network = network or fixed()
    return parts.Networks(network, network, units_of(spec))


@pytest.mark.parametrize(
    ("discount", "last", "expected"),
    [
        (1.0, (), 0.5 + 0.9 * 1.0 + 0.81 * 2.0 + 0.729 * 10.0),
        ([[1.0], [0.0], [0.0]], (2,), 0.5 + 0.9 * 1.0),
        ([[1.0], [1.0], [0.0]], (2,), 0.5 + 0.9 * 1.0 + 0.81 * 10.0),
    ],
)
def test_targets_end_in_the_value_of_the_best_action(discount, last, expected):
    """Of three steps, with rewards of 1, 2 and 4, scaled by 0.5: the whole way; an end
    after two; a time limit there."""
    reward = jnp.where(jnp.isin(jnp.arange(3), jnp.asarray(last, int)), 0, 1)[:, None]
    batch = batch_of(reward * jnp.float32([[1.0], [2.0], [4.0]]), discount=discount)
    batch = batch._replace(steps=batch_of(reward, last=last).steps)
    target = jnp.float32(10.0), jnp.full(1, 0.7)
    config = NAFConfig(gamma=0.9, n_step=3, reward_scale=0.5)
    y = value_targets(target, batch, nets(), config, 1)
    np.testing.assert_allclose(y, [[expected]], rtol=1e-6)


def test_columns_and_rows_are_not_mixed():
    """Trap 4: values (1, 2, 3) against a column are refused, and are no [3, 3]."""
    rows = losses.trainable(batch_of([[0.0] * 3]), nets(), NAFConfig())
    online, column = (jnp.float32(2.0), jnp.zeros(1)), jnp.ones((3, 1))
    found, _ = loss(online, rows, column.T, nets())
    np.testing.assert_allclose(found, 0.5)
    with pytest.raises(ValueError, match=r"one shape, got \[1, 3\] and \[3, 1\]"):
        loss(online, rows, column, nets())


def test_the_slow_copy_follows_in_rarer_and_longer_steps():
    """Trap 9: 0.0099507 of the way in every hundredth update, of the rate 1e-4; where
    both are equal it stays. Trap 5: it is a copy, which no gradient moves."""
    config = NAFConfig(target_rate=1e-4, target_period=100)
    agent, batch = naf(fixed(), ONE, SGD, config), batch_of([[1.0]])
    state = agent.init(random.key(0), jax.tree.map(lambda x: x[0], batch.steps))
    none = jax.tree.map(jnp.zeros_like, state.online)
    grads = none[0] - 1.0, none[1]
    near = state._replace(target_phase=jnp.int32(98))
    one = agent.apply(near, grads, {})
    assert float(one.target[0]) == 0.0 and int(one.target_phase) == 99
    two = agent.apply(one, none, {})
    np.testing.assert_allclose(two.target[0], 0.1 * 0.0099507, rtol=1e-4)
    assert int(two.target_phase) == 0
    jax.tree.map(np.testing.assert_array_equal, two.target[1], state.target[1])


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 3])
def test_the_loss_is_that_of_its_equations(n_step):
    """Row by row in float64, from the outputs of the network alone."""
    rng, config = np.random.default_rng(n_step), NAFConfig(gamma=0.9, n_step=n_step)
    network = normalised_advantage(Box((1,)), TWO, NetworkConfig(widths=(8,)))
    last = np.zeros((6, 3), bool)
    last[1, 0] = last[2, 1] = True
    discount = np.ones((5, 3))
    discount[0, 0] = discount[1, 0] = discount[2, 1] = 0.0
    reward = np.where(last[:-1], 0.0, rng.normal(size=(5, 3)))
    weight, action = rng.uniform(0.5, 1, (5, 3)), rng.uniform(-1, 1, (5, 3, 2))
    numbers = reward, discount, weight, action, rng.normal(size=(6, 3, 1))
    r, d, w, a, obs = (jnp.asarray(x, jnp.float32) for x in numbers)
    flags = jnp.asarray(last)
    steps = TimeStep(obs, flags & False, flags)
    batch = Trajectory(steps, a, r, d, {"weight": w}, ())
    agent = naf(network, TWO, SGD, config)
    state = agent.init(random.key(0), jax.tree.map(lambda x: x[0], steps))
    shake = lambda x: x + jnp.float32(0.3 * rng.normal(size=x.shape))  # noqa: E731
    online, target = (jax.tree.map(shake, state.online) for _ in range(2))
    whole = nets(network, TWO)
    taken = losses.trainable(batch, whole, config)
    rows = 5 - n_step + 1
    y = value_targets(target, batch, whole, config, rows)
    found, _ = loss(online, taken, y, whole)

    values = np.float64(network.unroll(target, (), steps)[0].value)
    made = jax.tree.map(np.float64, network.unroll(online, (), steps)[0])
    expected = 0.0
    for t, lane in np.ndindex(rows, 3):
        if last[t, lane]:
            continue
        total, factor = 0.0, 1.0
        for k in range(t, t + n_step):
            total += 0.1 * factor * reward[k, lane]
            factor *= 0.9 * discount[k, lane]
            if last[k + 1, lane]:
                break
        total += factor * values[k + 1, lane]
        away = action[t, lane] - made.mean[t, lane]
        curvature = made.factor[t, lane] @ made.factor[t, lane].T
        q_value = made.value[t, lane] - away @ curvature @ away / 2
        expected += weight[t, lane] * (q_value - total) ** 2 / 2
    assert_near(found, expected / (3 * rows))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((fixed(), Discrete(3), SGD), "for Discrete ones, take dqn"),
        ((fixed(), Box((1,), low=0.0), SGD), "a lower and a higher bound"),
        ((fixed(), Box((1,)), SGD), "warm_up must be 0 where actions have no bounds"),
        ((fixed(), ONE, SGD, NAFConfig(noise=-1.0)), "noise must be at least 0"),
        ((fixed(), ONE, SGD, NAFConfig(reversion=1.5)), "reversion must be in"),
    ],
)
def test_what_no_agent_is_made_of_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        naf(*given)


class System(NamedTuple):
    """A linear system, and how it is learned."""

    name: str
    dynamics: list[list[float]]
    inputs: int = 1
    length: int = 6
    """Of an episode. Gains are told over [-1, 1]^N, where episodes begin: a good policy
    is soon near 0, where it cannot be told from others."""
    warm_up: int = 0
    bound: float = 2.0
    noise: float = 0.3


SYSTEMS = {
    # A bad policy drives it away: short episodes, and uniform inputs at first.
    "an integrator": System("LQR-1x1", [[1.0]], warm_up=2_000),
    "of two inputs": System("LQR-2x2", [[0.8, 0.4], [-0.2, 0.7]], 2, length=20),
    # Its inputs are larger. Where they have bounds, the tanh before them is no line.
    "a double integrator": System(
        "LQR-2x1", [[1.0, 1.0], [0.0, 1.0]], length=4, bound=np.inf, noise=0.5
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_it_learns_the_gains_of_a_linear_system(name):
    """To 2 %, and the curvature of Q is that of the Riccati equation to 5 %."""
    system = SYSTEMS[name]
    states, dynamics = len(system.dynamics), jnp.asarray(system.dynamics)
    given = {"bound": system.bound, "length": system.length, "dynamics": dynamics}
    env = envs.make(system.name, 16, **given)
    params = LinearQuadratic(states, system.inputs).default_params
    known = answer(params.replace(dynamics=dynamics), 0.9)
    network = normalised_advantage(
        *env.specs, NetworkConfig(widths=(64, 64), activation="swish")
    )
    rate = optax.cosine_decay_schedule(3e-3, 4_000)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(rate))
    # A process of noise would tell states by their noise, and costs twice as much.
    config = NAFConfig(
        gamma=0.9, target_rate=0.02, exploration="constant",
        noise=system.noise, warm_up=system.warm_up, reward_scale=1.0,
    )  # fmt: skip
    agent = naf(network, env.action_spec, optimizer, config)
    buffer = uniform(8_192, 256, Windows(1, constant_carry=True))
    learner = loops.replayed(agent, buffer, updates_per_step=4)
    run, _ = train(compiled(learner, env, 4), 1_000)
    x = jax.random.uniform(random.key(1), (4_000, states), minval=-1.0)
    no = jnp.zeros(len(x), bool)
    made, _ = network.apply(run.learner.online, (), TimeStep(x, no, no))
    actions = units_of(env.action_spec, unbounded=True).action(made.mean)
    fitted, *_ = np.linalg.lstsq(np.asarray(x), np.asarray(actions))
    lower = np.float64(made.factor)
    # In units of the bounds, if there are any.
    width = system.bound if np.isfinite(system.bound) else 1.0
    curvature = np.mean(lower @ np.swapaxes(lower, 1, 2), axis=0) / width**2
    assert _off(fitted.T, known.gains) < 0.02
    assert _off(curvature, known.curvature) < 0.05


def _off(found, known):
    return np.linalg.norm(found - known) / np.linalg.norm(known)
