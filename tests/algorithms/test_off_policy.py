"""SAC, TD3, DDPG and NAF against their equations by hand and in NumPy, on probes."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import loops, random, rollout
from jaxrl_par.algorithms.actor_critic import (
    DDPGConfig,
    NAFConfig,
    SACConfig,
    TD3Config,
    ddpg,
    losses,
    naf,
    parts,
    sac,
    td3,
)
from jaxrl_par.algorithms.actor_critic.sac import (
    policy_loss,
    sampled,
    soft_targets,
    target_entropy,
    temperature_loss,
)
from jaxrl_par.algorithms.actor_critic.td3 import smoothed_targets, smoothing_noise
from jaxrl_par.axis import Axis
from jaxrl_par.distributions import SquashedNormal
from jaxrl_par.networks import (
    NetworkConfig,
    action_value,
    deterministic_policy,
    gaussian_policy,
    normalised_advantage,
)
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.continuous import units_of
from jaxrl_par.replay import PriorityConfig, Windows, prioritised, uniform
from jaxrl_par.testing import check_agent, check_learns, probes
from jaxrl_par.topologies.compiled import compiled, train
from jaxrl_par.topologies.population import population
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.types import Box, Discrete, TimeStep, Trajectory

SAC = sys.modules[sac.__module__]
SMALL = NetworkConfig(widths=(8,), activation="relu")
ONE = Box((1,), low=-1.0, high=1.0)
SGD = optax.chain(optax.trace(decay=0.0), optax.sgd(0.1))


def gaussian() -> Network:
    """Parameters are (mean, log_std) of x in all states and dimensions."""

    def unroll(params, carry, steps):
        mean, log_std = (x + jnp.zeros((*steps.first.shape, 1)) for x in params)
        zeros = jnp.zeros_like(mean)
        return SquashedNormal(mean, log_std, zeros, zeros + 1.0), carry

    zeros = (jnp.float32(0.0), jnp.float32(0.0))
    return Network(lambda key, step: zeros, lambda n: (), unroll, unroll)


def shift() -> Network:
    """The parameter is the unit action everywhere."""

    def unroll(params, carry, steps):
        return params + jnp.zeros((*steps.first.shape, 1)), carry

    return Network(lambda key, step: jnp.float32(0.0), lambda n: (), unroll, unroll)


def constant() -> Network:
    """The parameter is the value of everything."""

    def unroll(params, carry, steps):
        _, unit = steps.obs
        return params + jnp.zeros(steps.first.shape) + 0.0 * unit[..., 0], carry

    return Network(lambda key, step: jnp.float32(0.0), lambda n: (), unroll, unroll)


def nets(policy=None, critic=None, spec=ONE):
    return parts.Networks(policy or gaussian(), critic or constant(), units_of(spec))


def batch_of(reward, *, discount=1.0, last=(), action=0.0, obs=None, weight=None):
    """One lane unless `reward` has more, [L, K]; `last` are rows."""
    reward = jnp.asarray(reward, jnp.float32)
    length, lanes = reward.shape
    rows = jnp.arange(length + 1)[:, None] * jnp.ones((1, lanes), int)
    flags = jnp.isin(rows, jnp.asarray(last, int))
    obs = jnp.zeros((length + 1, lanes, 1)) if obs is None else jnp.asarray(obs)
    action = jnp.broadcast_to(jnp.float32(action), (length, lanes, 1))
    discount = jnp.broadcast_to(jnp.asarray(discount, jnp.float32), reward.shape)
    extras = {} if weight is None else {"weight": jnp.asarray(weight, jnp.float32)}
    steps = TimeStep(obs, flags & False, flags)
    return Trajectory(steps, action, reward, discount, extras, ())


def made(env, name, optimizer=SGD, network=SMALL, **options):
    """The agent of that name, with its own kind of policy."""
    if name == "naf":
        config = NAFConfig(**{"warm_up": 0} | options)
        values = normalised_advantage(*env.specs, network)
        return naf(values, env.action_spec, optimizer, config)
    critic = action_value(*env.specs, network)
    if name == "sac":
        policy, make, config = gaussian_policy(*env.specs, network), sac, SACConfig
    else:
        policy = deterministic_policy(*env.specs, network)
        make, config = (td3, TD3Config) if name == "td3" else (ddpg, DDPGConfig)
    config = config(**{"warm_up": 0} | options)
    return make(policy, critic, env.action_spec, optimizer, config)  # pyright: ignore


NAMES = ("sac", "td3", "ddpg", "naf")


def test_the_squash_is_not_inverted():
    """Trap 1: mean 8, std 0.1, no noise: l = 15.99735, and slope 2 in the mean."""
    steps = batch_of([[0.0]]).rows
    noise = jnp.zeros((1, 1, 1))

    def log_prob(mean):
        params = (mean, jnp.log(0.1))
        return sampled(gaussian(), params, steps, noise)[1][0, 0]

    value, slope = jax.value_and_grad(log_prob)(jnp.float32(8.0))
    np.testing.assert_allclose(value, 15.99735, rtol=1e-6)
    np.testing.assert_allclose(slope, 2.0, rtol=1e-5)


@pytest.mark.parametrize("width", [1.0, 100.0])
def test_entropies_are_in_units_of_the_bounds(width):
    """Trap 2: mean 0, std 1, x = 0, target -1: 1.918939 with any bounds."""
    whole = nets(spec=Box((1,), low=-width, high=width))
    rows = losses.trainable(batch_of([[0.0]], action=0.5 * width), whole, SACConfig())
    np.testing.assert_array_equal(rows.unit, [[[0.5]]])
    zeros = (jnp.float32(0.0), jnp.float32(0.0))
    _, log_prob = sampled(whole.policy, zeros, rows.steps, jnp.zeros((1, 1, 1)))
    np.testing.assert_allclose(log_prob, [[-0.918939]], rtol=1e-6)
    target = target_entropy(SACConfig(), 1)
    slope = jax.grad(temperature_loss)(jnp.float32(0.0), log_prob, rows, target)
    np.testing.assert_allclose(slope, 1.918939, rtol=1e-6)


def step_of(batch):
    return jax.tree.map(lambda x: x[0], batch.steps)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_units_changes_no_update(name):
    """Trap 2: actions in (-1, 1) and, times 128, in (-128, 128), to the bit."""
    found = []
    for width in (1.0, 128.0):
        env = probes.continuous_action(4)
        env = env._replace(action_spec=Box((1,), low=-width, high=width))
        agent = made(env, name, policy_delay=1) if name == "td3" else made(env, name)
        rows = random_batch(np.random.default_rng(0))
        state = agent.init(random.key(0), step_of(rows))
        rows = rows._replace(action=width * rows.action)
        grads, _ = jax.jit(agent.grad, static_argnums=3)(
            state, rows, random.key(1), Axis()
        )
        step = step_of(rows)
        carry = agent.initial_carry(3)
        action, _, _ = agent.act(agent.params(state), carry, step, random.key(2))
        found.append((grads, action / width))
    jax.tree.map(np.testing.assert_array_equal, *found)


def random_batch(rng, length=1, lanes=3, num_actions=1):
    """With a last row and an episode that terminates, where there are several rows."""
    reward = rng.normal(size=(length, lanes))
    batch = batch_of(reward, obs=rng.normal(size=(length + 1, lanes, 1)))
    last = np.zeros((length + 1, lanes), bool)
    discount = np.ones((length, lanes))
    if length > 2:
        last[1, 0] = last[2, 1] = True
        discount[0, 0] = discount[1, 0] = discount[2, 1] = 0.0
    action = rng.uniform(-0.9, 0.9, (length, lanes, num_actions))
    return batch._replace(
        steps=batch.steps._replace(last=jnp.asarray(last), obs=f32(batch.steps.obs)),
        reward=f32(np.where(last[:-1], 0.0, reward)),
        discount=f32(discount),
        action=f32(action),
        extras={"weight": f32(rng.uniform(0.5, 1.0, (length, lanes)))},
    )


def f32(x):
    return jnp.asarray(x, jnp.float32)


def test_each_loss_has_a_gradient_of_its_own(monkeypatch):
    """Trap 3: alpha 0.2, l -0.9, target -1: 1.90 for its logarithm, and the policy's
    entropy weighs 0.2: dl / dlog_std is -1 where x does not depend on it."""
    monkeypatch.setattr(SAC, "joint_normal", lambda key, shape, *_: jnp.zeros(shape))
    agent = sac(gaussian(), constant(), ONE, SGD, SACConfig(temperature=0.2))
    batch = batch_of([[3.0]])
    state = agent.init(random.key(0), step_of(batch))
    log_std = jnp.float32(0.9 - 0.5 * np.log(2 * np.pi))
    online = state.online._replace(policy=(jnp.float32(0.0), log_std))
    grads, _ = agent.grad(state._replace(online=online), batch, random.key(0), Axis())
    np.testing.assert_allclose(grads.log_temperature, 1.9, rtol=1e-6)
    np.testing.assert_allclose(grads.policy[1], -0.2, rtol=1e-6)
    # y = 3 + 0.99 * 0.2 * 0.9: of the policy's loss, critics would see -1 more.
    np.testing.assert_allclose(grads.critics, [-3.1782, -3.1782], rtol=1e-6)


def test_columns_and_rows_are_not_mixed():
    """Trap 4: Q = (1, 2, 3) against equal targets is 0, and against a column nothing:
    by broadcasting it would be 1.3333."""

    def unroll(params, carry, steps):
        return params + steps.obs[0][..., 0], carry

    critic = Network(lambda key, step: 0.0, lambda n: (), unroll, unroll)
    obs = jnp.array([[1.0, 2.0, 3.0]] * 2)[..., None]
    rows = losses.trainable(batch_of([[0.0] * 3], obs=obs), nets(), SACConfig())
    for targets, expected in ((obs[:1, :, 0], 0.0), (obs[:1, :, 0] + 2.0, 4.0)):
        value, _ = losses.critic_loss(jnp.zeros(2), critic, rows, targets)
        np.testing.assert_allclose(value, expected)
    column = obs[0]
    with pytest.raises(ValueError, match=r"one shape, got \[1, 3\] and \[3, 1\]"):
        losses.critic_loss(jnp.zeros(2), critic, rows, column)
    with pytest.raises(ValueError, match="one shape"):
        rows.mean(column)


def test_twins_begin_and_learn_apart():
    """Trap 5: the lower of two independent normal errors is -0.5642 in the mean, and
    with Q = (1, 3), y = 2, the slopes are -1 and +1."""
    critic = constant()._replace(init=lambda key, step: jax.random.normal(key))
    step = step_of(batch_of([[0.0]]))

    def begun(key):
        given = nets(critic=critic), SGD, SACConfig(), key, step
        return parts.begun(*given, copies_policy=False)

    state = jax.jit(jax.vmap(begun))(jax.random.split(random.key(0), 20_000))
    np.testing.assert_allclose(state.online.critics.min(axis=1).mean(), -0.5642, 0.03)
    np.testing.assert_array_equal(state.online.critics, state.targets.critics)
    rows = losses.trainable(batch_of([[0.0]]), nets(), SACConfig())
    twins, y = jnp.array([1.0, 3.0]), jnp.full((1, 1), 2.0)
    slopes, _ = jax.grad(losses.critic_loss, has_aux=True)(twins, constant(), rows, y)
    np.testing.assert_allclose(slopes, [-1.0, 1.0])


def test_the_delay_counts_updates():
    """Trap 6: delay 2, calls of 7 updates with 16 environments: 3, then 7 in all."""
    agent = td3(shift(), constant(), ONE, optax.adam(0.1))
    buffer = uniform(32, 4, Windows(1, constant_carry=True))
    learner = loops.replayed(agent, buffer, updates_per_step=7)
    trajectory = batch_of([[0.0] * 16])._replace(carry=agent.initial_carry(16))

    @jax.jit
    def learn(state, data, key):
        return learner.learn(state, data, trajectory, key, Axis())

    state = jax.jit(agent.init)(random.key(0), step_of(trajectory))
    data = learner.start(trajectory)
    for call, expected in ((1, 3), (2, 7)):
        state, data, metrics = learn(state, data, random.key(call))
        assert int(state.opt_state.policy[0].count) == expected
        assert int(state.opt_state.critics[0].count) == 7 * call
        np.testing.assert_allclose(metrics["policy_updates"], (2 + call) / 7, rtol=1e-6)


def test_who_applies_a_gradient_goes_by_what_it_holds():
    """As workers do: it was computed at an earlier update than that of the state."""

    def unroll(params, carry, steps):
        return params + steps.obs[1][..., 0], carry

    critic = constant()._replace(apply=unroll, unroll=unroll)
    agent, batch = td3(shift(), critic, ONE, SGD), batch_of([[0.0]])
    state = agent.init(random.key(0), step_of(batch))
    found = gradient(agent)
    later = agent.apply(state, *found(state, batch))
    assert float(later.online.policy) == 0.0
    for at, moved in ((state, 0.0), (later, 0.1)):
        after = agent.apply(state, *found(at, batch))
        np.testing.assert_allclose(after.online.policy, moved, rtol=1e-6)


def gradient(agent):
    """(state, batch) -> (gradients, metrics)"""

    def made(state, batch):
        grads, info = agent.grad(state, batch, random.key(0), Axis())
        return grads, info.metrics

    return jax.jit(made)


def test_smoothing_is_drawn_for_each_row_and_dimension():
    """Trap 7: half width 0.4: a std of 0.0791, and never beyond 0.2."""
    config, units = TD3Config(), units_of(Box((2,), low=0.1, high=0.9))
    noise = partial(parts.joint_normal, random.key(0), axis=Axis(), done=())
    few = smoothing_noise(noise((1, 4, 2)), config)
    assert len(np.unique(few)) == 8
    many = units.action(smoothing_noise(noise((1, 50_000, 2)), config))
    np.testing.assert_allclose(jnp.std(many), 0.0791, rtol=0.01)
    np.testing.assert_allclose(jnp.max(jnp.abs(many - 0.5)), 0.2, rtol=1e-5)


def test_targets_and_the_policys_loss_draw_apart(monkeypatch):
    """Trap 7: also where both see the same observation."""
    drawn = []

    def targets(policy, critics, alpha, batch, noise, *_):
        drawn.append(np.asarray(noise))
        return jnp.zeros_like(batch.reward)

    def loss(policy, critics, alpha, rows, noise, nets):
        drawn.append(np.asarray(noise))
        return 0.0 * policy[0], jnp.zeros_like(rows.weight)

    monkeypatch.setattr(SAC, "soft_targets", targets)
    monkeypatch.setattr(SAC, "policy_loss", loss)
    agent = sac(gaussian(), constant(), ONE, SGD, SACConfig(learn_temperature=False))
    batch = batch_of([[0.0] * 4])
    state = agent.init(random.key(0), step_of(batch))
    agent.grad(state, batch, random.key(0), Axis())
    assert len(drawn) == 2 and len(np.unique(np.stack(drawn))) == 8


@pytest.mark.parametrize(
    ("discount", "last", "expected"),
    [
        (1.0, (), 0.2439),
        ([[1.0], [0.0], [0.0]], (2,), 0.09),
        ([[1.0], [1.0], [0.0]], (2,), 0.171),
    ],
)
def test_entropy_of_several_steps_is_that_of_the_states_on_the_way(
    discount, last, expected
):
    """Trap 8: no reward, gamma 0.9, alpha 0.1, l = -1: the whole way; an end after two
    steps; a time limit there."""
    batch = batch_of([[0.0]] * 3, discount=discount, last=last)
    config = SACConfig(gamma=0.9, n_step=3)
    params = (jnp.float32(0.0), jnp.float32(1.0 - 0.5 * np.log(2 * np.pi)))
    given = params, jnp.zeros(2), 0.1, batch, jnp.zeros((3, 1, 1)), nets(), config, 1
    np.testing.assert_allclose(soft_targets(*given), [[expected]], rtol=1e-5)


def test_slow_copies_arrive():
    """Trap 9: rate 1e-4, from 1 towards 1.001. In every update they stop at 1.000404,
    in steps of 0.0099507 they arrive; where they are equal they stay."""

    def after(period):
        def one(_, now):
            return parts.followed(jnp.float32(1.001), *now, period, 1e-4)

        start = jnp.float32(1.0), jnp.int32(0)
        return jax.jit(lambda: jax.lax.fori_loop(0, 100_000, one, start)[0])()

    np.testing.assert_allclose(after(1), 1.000404, atol=2e-6)
    np.testing.assert_allclose(after(100), 1.00099995, atol=1e-5)
    one = jnp.float32(1.0)
    moved, phase = parts.followed(one + 1.0, one, jnp.int32(99), 100, 1e-4)
    np.testing.assert_allclose(moved - 1.0, 0.0099507, rtol=1e-4)
    assert int(phase) == 0
    same = jnp.float32([0.1, 1 / 3, 1e-8, 7.7e5])
    moved, _ = parts.followed(same, same, jnp.int32(0), 1, 0.005)
    np.testing.assert_array_equal(moved, same)


def test_copies_are_float32_whatever_networks_compute_in():
    """Trap 9: in bfloat16 a rate of 0.005 moves nothing, and gamma is another."""
    env = probes.continuous_action(2)
    half = NetworkConfig(widths=(8,), compute_dtype="bfloat16")
    agent, batch = (
        made(env, "td3", network=half),
        random_batch(np.random.default_rng(0)),
    )
    state = jax.eval_shape(agent.init, random.key(0), step_of(batch))
    grads, info = jax.eval_shape(
        lambda s, b: agent.grad(s, b, random.key(0), Axis()), state, batch
    )
    after = jax.eval_shape(agent.apply, state, grads, info.metrics)
    for x in jax.tree.leaves((state.targets, after.online, after.targets, grads)):
        assert x.dtype == jnp.float32


def mlp(params, name, x):
    """In float64, of one hidden layer."""
    params = params["params"]
    layer = params["actor" if name == "policy" else "critic"]["MLP_0"]["Linear_0"]
    layer = {k: np.float64(v) for k, v in layer.items()}
    x = np.maximum(x @ layer["kernel"] + layer["bias"], 0.0)
    return x @ np.float64(params[name]) + np.float64(params[f"{name}_bias"])


def critics_of(params, obs, unit):
    x = np.concatenate([obs, unit], axis=-1)
    one = lambda i: mlp(jax.tree.map(lambda x: x[i], params), "value", x)  # noqa: E731
    return np.stack([one(i)[..., 0] for i in range(2)])


def squashed(outputs, noise):
    mean, log_std = np.split(outputs, 2, axis=-1)
    u = np.tanh(mean + np.exp(log_std) * noise)
    log_prob = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - u**2)
    return u, log_prob.sum(axis=-1)


def slow_targets(batch, config, values, bonus):
    """Row by row and step by step; values and bonuses are of the rows after each."""
    reward, discount = np.float64(batch.reward), np.float64(batch.discount)
    last = np.asarray(batch.steps.last)
    length, lanes = reward.shape
    y = np.zeros((length - config.n_step + 1, lanes))
    for t, lane in np.ndindex(*y.shape):
        factor = 1.0
        for k in range(t, t + config.n_step):
            y[t, lane] += factor * reward[k, lane]
            factor *= config.gamma * discount[k, lane]
            y[t, lane] += factor * bonus[k, lane]
            if last[k + 1, lane]:
                break
        y[t, lane] += factor * values[k, lane]
    return y


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 3])
def test_losses_of_sac_are_those_of_its_equations(n_step):
    env = probes.continuous_action(3)
    rng = np.random.default_rng(n_step)
    config = SACConfig(gamma=0.9, n_step=n_step, temperature=0.3, warm_up=0)
    batch = random_batch(rng, length=5)
    policy, critic = gaussian_policy(*env.specs, SMALL), action_value(*env.specs, SMALL)
    whole = parts.Networks(policy, critic, units_of(env.action_spec))
    agent = sac(policy, critic, env.action_spec, SGD, config)
    state = jax.jit(agent.init)(random.key(0), step_of(batch))
    shake = lambda x: x + f32(0.3 * rng.normal(size=x.shape))  # noqa: E731
    online = jax.tree.map(shake, state.online)
    target = jax.tree.map(shake, state.targets.critics)
    rows = 5 - n_step + 1
    noise, here = rng.normal(size=(5, 3, 1)), rng.normal(size=(rows, 3, 1))
    alpha, given = f32(0.3), (f32(noise), whole, config, rows)
    y = soft_targets(online.policy, target, alpha, batch, *given)
    taken = losses.trainable(batch, whole, config)

    obs = np.float64(batch.steps.obs)
    unit, log_prob = squashed(mlp(online.policy, "policy", obs[1:]), noise)
    values = critics_of(target, obs[1:], unit).min(axis=0)
    expected = slow_targets(batch, config, values, -0.3 * log_prob)
    counts = ~np.asarray(batch.steps.last)[:rows]
    assert_near(np.where(counts, y, 0.0), np.where(counts, expected, 0.0))

    weight = np.where(counts, np.float64(batch.extras["weight"])[:rows], 0.0)
    q_values = critics_of(online.critics, obs[:rows], np.float64(batch.action)[:rows])
    wanted = (weight * (q_values - expected) ** 2).sum() / 2 / counts.size
    found, _ = losses.critic_loss(online.critics, critic, taken, y)
    assert_near(found, wanted)

    unit, log_prob = squashed(mlp(online.policy, "policy", obs[:rows]), here)
    lowest = critics_of(online.critics, obs[:rows], unit).min(axis=0)
    wanted = (weight * (0.3 * log_prob - lowest)).sum() / counts.size
    given = online.policy, online.critics, alpha, taken, f32(here), whole
    found, actual = policy_loss(*given)
    assert_near(found, wanted)
    found = temperature_loss(jnp.log(alpha), actual, taken, -1.0)
    assert_near(found, (-np.log(0.3) * weight * (log_prob - 1.0)).sum() / counts.size)


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_losses_of_td3_are_those_of_its_equations(n_step):
    env = probes.continuous_action(3)
    rng = np.random.default_rng(n_step)
    config = TD3Config(gamma=0.9, n_step=n_step, policy_delay=1, warm_up=0)
    batch = random_batch(rng, length=5)
    agent = made(env, "td3", gamma=0.9, n_step=n_step, policy_delay=1)
    policy = deterministic_policy(*env.specs, SMALL)
    critic = action_value(*env.specs, SMALL)
    whole = parts.Networks(policy, critic, units_of(env.action_spec))
    state = jax.jit(agent.init)(random.key(0), step_of(batch))
    shake = lambda x: x + f32(0.3 * rng.normal(size=x.shape))  # noqa: E731
    online, copies = jax.tree.map(shake, (state.online, state.targets))
    rows = 5 - n_step + 1
    obs, counts = np.float64(batch.steps.obs), ~np.asarray(batch.steps.last)[:rows]
    # The same for all rows that lead to one observation, so that it is told by row.
    noise = np.full((rows, 3, 1), 0.4)
    given = copies.policy, copies.critics, batch, f32(noise), whole, config
    y = smoothed_targets(*given)
    unit = np.clip(np.tanh(mlp(copies.policy, "policy", obs[1:])) + 0.4, -1.0, 1.0)
    values = critics_of(copies.critics, obs[1:], unit).min(axis=0)
    expected = slow_targets(batch, config, values, np.zeros((5, 3)))
    assert_near(np.where(counts, y, 0.0), np.where(counts, expected, 0.0))

    state = state._replace(online=online, targets=copies)
    grads, _ = gradient(agent)(state, batch)
    taken = losses.trainable(batch, whole, config)
    weight = np.where(counts, np.float64(batch.extras["weight"])[:rows], 0.0)

    def slow_loss(shift):
        bias = np.float64(online.policy["params"]["policy_bias"]) + shift
        inner = online.policy["params"] | {"policy_bias": bias}
        unit = np.tanh(mlp({"params": inner}, "policy", obs[:rows]))
        first = critics_of(online.critics, obs[:rows], unit)[0]
        return -(weight * first).sum() / counts.size

    slope = (slow_loss(1e-5) - slow_loss(-1e-5)) / 2e-5
    assert_near(grads.policy["params"]["policy_bias"][0], slope, 1e-4)
    assert taken.unit.shape == (rows, 3, 1)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", NAMES)
def test_it_explores_and_its_greedy_action_does_not(name):
    env = probes.continuous_action(512)
    agent = made(env, name, warm_up=100)
    _, step = jax.jit(env.reset)(random.key(0))
    state = jax.jit(agent.init)(random.key(1), step)
    carry = agent.initial_carry(512)

    both = {x: jax.jit(x) for x in (agent.act, agent.greedy)}

    def acted(act, state, key=2):
        action, *_ = both[act](agent.params(state), carry, step, random.key(key))
        return np.asarray(action)[:, 0]

    uniform_ = acted(agent.act, state)
    assert abs(uniform_.std() - 1 / np.sqrt(3)) < 0.05 and abs(uniform_).max() <= 1
    begun = state._replace(elapsed=state.elapsed._replace(
        env_steps=state.elapsed.env_steps.add(100)))  # fmt: skip
    greedy = acted(agent.greedy, begun)
    noise = acted(agent.act, begun) - greedy
    np.testing.assert_array_equal(greedy, acted(agent.greedy, state, key=3))
    # Of sac, tanh of a standard normal.
    expected = {"sac": 0.63, "naf": 0.2}.get(name, 0.1)
    np.testing.assert_allclose(noise.std(), expected, rtol=0.1)


def test_a_ladder_gives_each_environment_its_noise():
    env = probes.continuous_action(4)
    agent = made(env, "ddpg", exploration="ladder", ladder_exponent=1.0)
    carry = agent.initial_carry(4)
    np.testing.assert_allclose(carry.std, 0.4 ** (1 + np.arange(4) / 3), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_who_acts_records_the_priorities_that_learning_would_give(name, monkeypatch):
    """At its parameters, of all rows, also where an episode or the unroll ends; but for
    the noise of targets, which it has not."""
    monkeypatch.setattr(SAC, "joint_normal", lambda key, shape, *_: jnp.zeros(shape))
    env, rows, n = probes.continuous_action(3), 7, 3
    smooth = {} if name in ("sac", "naf") else {"smoothing": 0.0}
    agent = made(env, name, n_step=n, record_priority=True, **smooth)
    streams = rollout.start(agent, env, random.key(1))
    state = agent.init(random.key(2), streams.step)
    acted = agent.params(state), streams, random.key(3), rows
    _, unroll, _ = rollout.unroll(agent, env, *acted)
    assert set(unroll.extras) == {"priority"} and np.any(unroll.rows.last)
    windows = Windows(1, lookahead=n - 1, constant_carry=True)
    slot, window = (jnp.ravel(x) for x in jnp.indices((3, rows)))
    batch = windows.cut(windows.kept(unroll._replace(extras={})), slot, window)
    _, info = agent.grad(state, batch, random.key(0), Axis())
    assert_near(jnp.ravel(unroll.extras["priority"].T), info.priorities)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_the_contract_of_agents(name):
    """Of it: the gradient of a batch is the mean of those of its halves, whose noise is
    theirs of the joint batch's."""
    check_agent(made(probes.continuous_action(4), name), probes.continuous_action(4))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_update_on_two_devices_is_one_on_the_joint_batch(name):
    env = probes.continuous_action(8)
    agent = made(env, name, policy_delay=1) if name == "td3" else made(env, name)
    streams = rollout.start(agent, env, random.key(0))
    state = agent.init(random.key(1), streams.step)
    acted = agent.params(state), streams, random.key(2), 1
    batch, key = rollout.unroll(agent, env, *acted)[1], random.key(3)
    expected, _ = jax.jit(lambda state: loops.learn(agent, state, batch, key))(state)

    def init(key):
        own = batch.lanes(4 * jax.lax.axis_index("data") + jnp.arange(4))
        return loops.Run(state, own, key, jnp.zeros(()))

    def step(run):
        given = agent, run.learner, run.local, run.key
        learner, metrics = loops.learn(*given, axis=Axis("data"))
        return run._replace(learner=learner), metrics

    program = sharded(loops.Program(init, step), data_mesh(2))
    run, _ = jax.jit(lambda key: program.step(program.init(key)))(key)
    # Sums of gradients: the optimizer keeps no more.
    assert_near(run.learner.opt_state, expected.opt_state)


LEARN = {
    "sac": ("sac", {}, uniform),
    "sac, prioritised": ("sac", {}, prioritised),
    "td3": ("td3", {}, uniform),
    "naf": ("naf", {}, uniform),
    "naf, prioritised": (
        "naf",
        {"record_priority": True, "exploration": "covariance", "noise": 0.3},
        partial(prioritised, config=PriorityConfig(first="recorded")),
    ),
    "ddpg, process": ("ddpg", {"exploration": "process", "noise": 0.2}, uniform),
    "ddpg, prioritised": (
        "ddpg",
        {"record_priority": True, "exploration": "ladder"},
        partial(prioritised, config=PriorityConfig(first="recorded")),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARN)
def test_it_learns_to_name_what_it_sees(name):
    kind, options, buffer = LEARN[name]
    env = probes.continuous_action(8)
    agent = made(env, kind, optax.adam(3e-3), target_rate=0.05, warm_up=200, **options)
    learner = loops.replayed(
        agent, buffer(256, 64, Windows(1, constant_carry=True)), updates_per_step=8
    )
    found = check_learns(learner, env, -0.15, num_updates=400)
    episodes = agent._replace(act=agent.greedy)
    streams = rollout.start(episodes, env, random.key(1))
    acted = agent.params(found), streams, random.key(2), 64
    _, unroll, _ = rollout.unroll(episodes, env, *acted)
    # Who does not see gets -1/3 at best.
    assert float(unroll.reward.sum() / unroll.env_steps) > -0.06


@pytest.mark.slow
def test_members_of_a_population_are_runs_of_their_own():
    """Traced: a discount, a rate of the copies, and a fixed temperature."""
    env = probes.continuous_action(4)
    buffer = uniform(64, 8, Windows(1, constant_carry=True))
    numbers = {"gamma": f32([0.9, 0.5]), "target_rate": f32([0.1, 0.01])}
    numbers |= {"temperature": f32([0.1, 1.0])}

    def program(given):
        own = {name: given[name] for name in numbers}
        agent = made(env, "sac", learn_temperature=False, **own)
        return compiled(loops.replayed(agent, buffer), env, 2)

    both = population(program, numbers | {"seed": np.array([3, 3])})
    run, _ = train(both.program, 3)
    for i in range(2):
        own = {name: float(x[i]) for name, x in numbers.items()}
        alone, _ = train(program(own), 3, seed=3)
        assert_near(both.member(run, i).run.learner.online, alone.learner.online)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SACConfig(gamma=1.5), "gamma must be"),
        (SACConfig(n_step=0), "n_step must be at least 1, got 0"),
        (SACConfig(temperature=0.0), "temperature must be above 0"),
        (
            SACConfig(target_rate=1e-4),
            "target_rate = 0.0001 makes steps that float32 loses: with target_period ="
            " 101 they are longer",
        ),
        (TD3Config(policy_delay=0), "policy_delay must be at least 1, got 0"),
        (TD3Config(smoothing=-1.0), "smoothing must be at least 0"),
        (SACConfig(num_critics=0), "num_critics must be at least 1"),
    ],
)
def test_bad_settings_are_refused(config, message):
    make = sac if isinstance(config, SACConfig) else td3
    with pytest.raises(ValueError, match=message):
        make(gaussian(), constant(), ONE, SGD, config)


def test_what_no_agent_is_made_of_is_refused():
    for given, message in (
        ((gaussian(), constant(), Discrete(3), SGD), "actions must be a Box"),
        ((gaussian(), constant(), Box((1,)), SGD), "a lower and a higher bound"),
        (
            (gaussian(), constant(), Box((1,), np.dtype(np.int32), 0.0, 1.0), SGD),
            "floats",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            sac(*given)


def test_windows_without_a_row_to_train_are_refused():
    with pytest.raises(ValueError, match="lookahead = 2"):
        losses.trainable(batch_of([[0.0], [0.0]]), nets(), SACConfig(n_step=3))
