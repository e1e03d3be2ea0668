"""V-MPO against its equations, over devices, on data of others, and on probes."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import envs, loops, random, rollout
from jaxrl_par.algorithms import vmpo as module
from jaxrl_par.algorithms.vmpo import Duals, VMPOConfig, vmpo
from jaxrl_par.axis import Axis
from jaxrl_par.distributions import Categorical, DiagNormal
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import check_agent, check_learns, probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.sharded import data_mesh, sharded

SMALL = NetworkConfig(widths=(16,), memory_width=16)
SGD = optax.chain(optax.trace(decay=0.0), optax.sgd(0.1))


def make(env, network=SMALL, config=VMPOConfig(), optimizer=SGD):
    net = actor_critic(env.observation_spec, env.action_spec, network)
    return net, vmpo(net, optimizer, config)


def shaken(params, seed):
    """Noise: all policies start near uniform, and would hardly differ."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(random.key(seed), len(leaves))
    noisy = [
        x + 0.3 * jax.random.normal(key, x.shape)
        for x, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, noisy)


def read(net, params, trajectory):
    """(policy [T, B], values [T+1, B])"""
    (policy, values), _ = jax.jit(net.unroll)(
        params, trajectory.carry, trajectory.steps
    )
    return jax.tree.map(lambda x: x[:-1], policy), values


@cache
def acted(probe, num_envs=4, memory="none", config=VMPOConfig()):
    """A state whose target differs from it, and rows that a third policy acted."""
    net, agent = make(probe(num_envs), replace(SMALL, memory=memory), config)
    return net, agent, *rows(probe, num_envs, memory)


@cache
def rows(probe, num_envs, memory):
    env = probe(num_envs)
    net, agent = make(env, replace(SMALL, memory=memory))

    @jax.jit
    def act():
        workers = rollout.start(agent, env, random.key(0))
        state = agent.init(random.key(1), workers.step)
        behaviour = shaken(state.params, 5)
        state = state._replace(
            params=shaken(state.params, 6),
            target_params=shaken(state.params, 7),
            duals=state.duals._replace(eta=jnp.float32(0.7)),
        )
        # From the midst of an episode, where the memory is not empty.
        act = partial(rollout.unroll, agent, env, behaviour)
        workers, _, _ = act(workers, random.key(3), 2)
        _, trajectory, _ = act(workers, random.key(2), 7)
        (policy, _), _ = net.unroll(behaviour, trajectory.carry, trajectory.steps)
        policy = jax.tree.map(lambda x: x[:-1], policy)
        extras = trajectory.extras | {"policy": policy}
        return state, trajectory._replace(extras=extras)

    return act()


def prepared(agent, state, trajectory):
    return jax.jit(lambda s, t: agent.prepare(s, t, Axis()))(state, trajectory)


def prepare_and_grad(agent, state, trajectory):
    batch = agent.prepare(state, trajectory, Axis())
    return agent.grad(state, batch, random.key(0), Axis())


@cache
def gradients(agent):
    return jax.jit(partial(prepare_and_grad, agent))


def gradient(agent, state, trajectory):
    return gradients(agent)(state, trajectory)


def assert_close(actual, expected, tolerance=1e-4):
    scale = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(
            x, y, rtol=tolerance, atol=tolerance * scale
        ),
        actual,
        expected,
    )


def improved(advantages, eta=1.0, last=None):
    """psi, and its divergence from a uniform one, of one device."""
    x = jnp.asarray(advantages, jnp.float32).reshape(-1, 1)
    last = jnp.zeros(x.shape, bool) if last is None else jnp.asarray(last)[:, None]
    weight, divergence = module.improved(x, last, jnp.float32(eta), Axis())
    count = jnp.sum(~last)
    return np.asarray(weight / count)[:, 0], float(jnp.sum(divergence) / count)


def eta_loss(eta, advantages, epsilon):
    """L_eta of the paper for advantages of one half."""
    return eta * epsilon + eta * jnp.log(jnp.mean(jnp.exp(advantages / eta)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("probe", "memory"),
    [(probes.observation_reward, "lstm"), (probes.continuous_action, "none")],
)
def test_keeps_the_promises_of_an_agent(probe, memory):
    env = probe(4)
    _, agent = make(env, replace(SMALL, memory=memory))
    check_agent(agent, env)


def test_the_numbers_of_four_advantages():
    psi, divergence = improved([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(psi, [0, 0, 0.268941, 0.731059], atol=1e-6)
    np.testing.assert_allclose(divergence, 0.110944, atol=1e-6)
    half = jnp.array([3.0, 4.0])
    value, slope = jax.value_and_grad(eta_loss)(1.0, half, 0.01)
    np.testing.assert_allclose(value, 3.630115, atol=1e-6)
    np.testing.assert_allclose(slope, 0.01 - divergence, atol=1e-6)
    np.testing.assert_allclose(slope, -0.100944, atol=1e-6)


def test_the_temperature_goes_from_the_best_row_to_all_of_the_half():
    advantages = [3.0, -1.0, 2.0, 0.0, -9.0, 2.5]
    cold, divergence = improved(advantages, 1e-8)
    np.testing.assert_array_equal(cold, [1, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(divergence, np.log(3), rtol=1e-6)
    hot, divergence = improved(advantages, 1e8)
    np.testing.assert_allclose(hot, np.array([1, 0, 1, 0, 0, 1]) / 3, rtol=1e-6)
    np.testing.assert_allclose(divergence, 0.0, atol=1e-6)


@pytest.mark.sample(1)
@pytest.mark.parametrize("constant", [-1e3, 10.0, 1e4])
def test_psi_depends_on_differences_of_advantages_alone(constant):
    advantages = np.array([1.0, 2.0, 3.0, 4.0, 2.5])
    shifted = improved(advantages + constant, 0.5)
    for x, y in zip(shifted, improved(advantages, 0.5), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3)


def test_the_half_is_of_rows_that_are_not_last_and_holds_all_ties():
    last = np.array([False, True, False, True, False, True])
    psi, _ = improved([1.0, 9.0, 2.0, 9.0, 3.0, -9.0], 1e8, last)
    np.testing.assert_allclose(psi, [0, 0, 0.5, 0, 0.5, 0], rtol=1e-6)
    psi, divergence = improved([1.0, 2.0, 2.0, 2.0, 0.0, 3.0])
    assert np.count_nonzero(psi) == 4
    assert divergence > 0
    psi, divergence = improved([0.0, -0.0, 0.0, 0.0])
    np.testing.assert_allclose(psi, 0.25)
    np.testing.assert_allclose(divergence, 0.0, atol=1e-6)
    psi, divergence = improved([1.0, 2.0], last=[True, True])
    assert np.all(psi[np.isfinite(psi)] == 0)


@pytest.mark.slow
def test_rows_that_are_all_last_teach_nothing():
    _, agent, state, trajectory = acted(probes.counter)
    steps = trajectory.steps
    over = steps._replace(last=jnp.ones_like(steps.last))
    grads, _ = gradient(agent, state, trajectory._replace(steps=over))
    assert all(np.all(x == 0) for x in jax.tree.leaves(grads))


def oracle(net, state, trajectory, config):
    """The paper's losses over rows that are not `last`, in loops over rows."""
    steps = trajectory.steps
    policy, values = read(net, state.params, trajectory)
    old, _ = read(net, state.target_params, trajectory)
    v, reward, last = (np.float64(x) for x in (values, trajectory.reward, steps.last))
    discount, action = np.asarray(trajectory.discount), np.asarray(trajectory.action)
    pi, pi_old = np.float64(policy.log_probs), np.float64(old.log_probs)
    mu = np.float64(trajectory.extras["policy"].log_probs)
    eta, (alpha,) = float(state.duals.eta), state.duals.alpha
    lambda_ = config.vtrace_lambda
    rows, (length, num_envs) = [], reward.shape
    for b in range(num_envs):
        following = v[length, b]  # G[t+1]
        for t in reversed(range(length)):
            if last[t, b]:
                following = v[t, b]
                continue
            a, d = action[t, b], config.gamma * discount[t, b]
            ratio = np.exp(pi[t, b, a] - mu[t, b, a])
            delta = reward[t, b] + d * v[t + 1, b] - v[t, b]
            error = following - v[t + 1, b]
            rows.append((t, b, delta + lambda_ * d * error))
            c = lambda_ * min(config.max_c, ratio)
            following = v[t, b] + min(config.max_rho, ratio) * delta + d * c * error
            rows[-1] += (following,)
    half = sorted(rows, key=lambda row: -row[2])[: (len(rows) + 1) // 2]
    sums = sum(np.exp(row[2] / eta) for row in half)
    total = divergence = 0.0
    for t, b, advantage, _ in half:
        psi = np.exp(advantage / eta) / sums
        total -= psi * pi[t, b, action[t, b]]
        divergence += psi * np.log(len(half) * psi)
    kls = []
    for t, b, _, target in rows:
        kls.append(np.sum(np.exp(pi_old[t, b]) * (pi_old[t, b] - pi[t, b])))
        total += config.value_cost * (target - v[t, b]) ** 2 / 2 / len(rows)
        kl_mu = np.sum(np.exp(mu[t, b]) * (mu[t, b] - pi[t, b]))
        total += config.behaviour_cost * kl_mu / len(rows)
    kl = np.mean(kls)
    total += alpha * (config.epsilon_alpha - kl) + alpha * kl
    total += eta * (config.epsilon_eta - divergence)
    slopes = config.epsilon_eta - divergence, config.epsilon_alpha - kl
    advantages = np.array([row[2] for row in half])
    return len(rows) / (length * num_envs), total, slopes, advantages


@pytest.mark.sample(1)
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_the_loss_follows_the_paper(memory):
    config = VMPOConfig(
        gamma=0.9, vtrace_lambda=0.8, max_rho=1.3, max_c=0.9, epsilon_eta=0.05,
        epsilon_alpha=0.02, value_cost=0.3, behaviour_cost=0.6,
    )  # fmt: skip
    # Not `counter`, whose environments are alike: the oracle knows no ties.
    net, agent, state, trajectory = acted(probes.clock, 4, memory, config)
    assert trajectory.steps.last[:-1].any()
    share, total, slopes, advantages = oracle(net, state, trajectory, config)
    batch = prepared(agent, state, trajectory)
    compute = jax.jit(
        lambda learned: jax.value_and_grad(module.loss, has_aux=True)(
            learned, batch, net, config
        )
    )
    (actual, metrics), (_, duals) = compute((state.params, state.duals))
    np.testing.assert_allclose(actual, share * total, rtol=1e-4)
    actual = duals.eta, duals.alpha[0]
    np.testing.assert_allclose(actual, share * np.array(slopes), rtol=1e-4)
    # The slope of the line in place of L_eta is that of L_eta itself.
    slope = jax.grad(eta_loss)(state.duals.eta, jnp.float32(advantages), 0.05)
    np.testing.assert_allclose(duals.eta, share * slope, rtol=1e-3)
    kl = metrics["kl"].total / metrics["kl"].count
    np.testing.assert_allclose(kl, config.epsilon_alpha - slopes[1], rtol=1e-4)


@pytest.mark.sample(1)
@pytest.mark.parametrize("probe", [probes.counter, probes.continuous_action])
def test_parameters_feel_only_what_the_paper_lets_them(probe):
    """psi, targets, eta and alpha are constants to them, as pi_old and mu are."""
    config = VMPOConfig(value_cost=0.4, behaviour_cost=0.6)
    net, agent, state, trajectory = acted(probe, config=config)
    state = state._replace(duals=state.duals._replace(alpha=state.duals.alpha * 0.2))
    batch = prepared(agent, state, trajectory)
    weight, target = batch.extras["weight"], batch.extras["target"]
    steps = jax.tree.map(lambda x: x[:-1], trajectory.steps)
    old, _ = read(net, state.target_params, trajectory)

    def regression(params):
        (policy, values), _ = net.unroll(params, (), steps)
        rows = -weight * policy.log_prob(trajectory.action)
        rows += 0.4 * 0.5 * jnp.square(target - values)
        rows += 0.6 * trajectory.extras["policy"].kl(policy)
        if isinstance(policy, DiagNormal):
            rows += 1.0 * jnp.sum(
                0.5 * jnp.square((policy.mean - old.mean) / jnp.exp(old.log_std)), -1
            )
            rows += old.kl(DiagNormal(old.mean, policy.log_std))
        else:
            rows += old.kl(policy)
        return jnp.mean(jnp.where(steps.last, 0.0, rows))

    (grads, _), _ = gradient(agent, state, trajectory)
    assert_close(grads, jax.jit(jax.grad(regression))(state.params))


@pytest.mark.slow
def test_a_policy_that_has_not_moved_is_not_held_back():
    """Its divergence is 0, and so is the gradient of that."""
    _, agent, state, trajectory = acted(probes.continuous_action)
    state = state._replace(target_params=state.params)
    alpha = state.duals.alpha
    held = state._replace(duals=state.duals._replace(alpha=1000 * alpha))
    (grads, duals), info = gradient(agent, state, trajectory)
    assert_close(gradient(agent, held, trajectory)[0][0], grads, 1e-3)
    np.testing.assert_allclose(info.metrics["kl"].total, 0.0, atol=1e-5)
    share = 1 - trajectory.steps.last[:-1].mean()
    np.testing.assert_allclose(duals.alpha, share * jnp.array([0.01, 1e-5]), rtol=0.02)


@pytest.mark.sample(1)
@pytest.mark.parametrize("epsilon", [1e-4, 10.0])
def test_multipliers_grow_where_a_bound_is_broken_and_fall_where_not(epsilon):
    config = VMPOConfig(epsilon_eta=epsilon, epsilon_alpha=epsilon)
    _, agent, state, trajectory = acted(probes.counter, config=config)
    grads, _ = gradient(agent, state, trajectory)
    after = agent.apply(state, grads, {}).duals
    broken = epsilon < 1e-3
    assert (after.eta > state.duals.eta) == broken
    assert (after.alpha[0] > state.duals.alpha[0]) == broken


def test_multipliers_stay_positive_and_recover():
    _, agent, state, trajectory = acted(probes.counter)
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    down = (zeros, Duals(jnp.float32(1e3), jnp.full(1, 1e3)))
    state = agent.apply(state, down, {})
    smallest = np.float32(1e-8)
    assert state.duals.eta == smallest
    assert state.duals.alpha == smallest
    grads, _ = gradient(agent, state, trajectory)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
    after = agent.apply(state, grads, {})
    assert after.duals.eta > 0.05
    step = jax.tree.map(lambda x, g: x - 0.1 * g, state.params, grads[0])
    assert_close(after.params, step)


def test_the_target_is_renewed_every_so_many_updates():
    config = VMPOConfig(target_period=3, initial_eta=2.0, initial_alpha=3.0)
    env = probes.counter(2)
    _, agent = make(env, config=config, optimizer=optax.sgd(1.0))
    _, step = env.reset(random.key(0))
    state = jax.jit(agent.init)(random.key(0), step)
    first = state.params
    assert (state.duals.eta, state.duals.alpha) == (2.0, 3.0)
    jax.tree.map(np.testing.assert_array_equal, state.target_params, first)
    grads = jax.tree.map(jnp.ones_like, (first, state.duals))
    expected = first
    for update in range(1, 8):
        state = agent.apply(state, grads, {})
        if update % 3 == 0:
            expected = state.params
        assert state.target_age == update % 3
        jax.tree.map(np.testing.assert_array_equal, state.target_params, expected)
        kernel = jax.tree.leaves(state.params)[0]
        np.testing.assert_allclose(kernel, jax.tree.leaves(first)[0] - update, 1e-4)


@pytest.mark.slow
def test_a_new_state_can_be_donated():
    env = probes.counter(2)
    _, agent = make(env)
    apply = jax.jit(agent.apply, donate_argnums=0)
    _, step = env.reset(random.key(0))
    for init in (agent.init, jax.jit(agent.init)):
        state = init(random.key(0), step)
        grads = jax.tree.map(jnp.zeros_like, (state.params, state.duals))
        assert apply(state, grads, {}).target_age == 1


def test_an_ignored_action_cannot_spoil_the_gradient():
    """On a `last` row the recorded probability may be anything."""
    endless = VMPOConfig(max_rho=float("inf"), max_c=float("inf"))
    _, agent, state, trajectory = acted(probes.counter, config=endless)
    last = trajectory.steps.last[:-1]
    assert last.any()
    log_prob = jnp.where(last, -jnp.inf, trajectory.extras["log_prob"])
    spoilt = trajectory._replace(extras=trajectory.extras | {"log_prob": log_prob})
    good, _ = gradient(agent, state, trajectory)
    bad, _ = gradient(agent, state, spoilt)
    jax.tree.map(np.testing.assert_array_equal, good, bad)


def test_divergences_of_normal_distributions_come_in_two_parts():
    rng = np.random.default_rng(0)
    mean, other_mean, log_std, other_log_std = rng.normal(size=(4, 5, 3))
    old, new = DiagNormal(mean, log_std), DiagNormal(other_mean, other_log_std)
    means, covariances = module.kl_parts(old, new)
    variance, other_variance = np.exp(2 * log_std), np.exp(2 * other_log_std)
    expected = 0.5 * np.sum((other_mean - mean) ** 2 / variance, -1)
    np.testing.assert_allclose(means, expected, rtol=1e-4)
    expected = variance / other_variance - 1 + np.log(other_variance / variance)
    np.testing.assert_allclose(covariances, 0.5 * np.sum(expected, -1), rtol=1e-4)
    same_spread = DiagNormal(other_mean, log_std)
    np.testing.assert_allclose(sum(module.kl_parts(old, same_spread)), means, 1e-4)
    logits = jnp.asarray(rng.normal(size=(2, 5, 3)))
    (whole,) = module.kl_parts(Categorical(logits[0]), Categorical(logits[1]))
    np.testing.assert_allclose(whole, Categorical(logits[0]).kl(Categorical(logits[1])))


@pytest.mark.slow
def test_each_part_of_the_divergence_has_its_own_bound():
    config = VMPOConfig(epsilon_alpha=100.0, epsilon_covariance=1e-6)
    _, agent, state, trajectory = acted(probes.continuous_action, config=config)
    (_, duals), info = gradient(agent, state, trajectory)
    assert duals.alpha[0] > 0 > duals.alpha[1]
    assert {"kl", "kl_alpha", "kl_covariance", "kl_covariance_alpha"} <= set(
        info.metrics
    )


def test_the_policy_that_acted_counts_only_where_it_has_a_cost():
    _, agent, state, trajectory = acted(probes.counter)
    unrecorded = trajectory._replace(extras={"log_prob": trajectory.extras["log_prob"]})
    jax.tree.map(
        np.testing.assert_array_equal,
        gradient(agent, state, trajectory)[0],
        gradient(agent, state, unrecorded)[0],
    )
    _, costly = make(probes.counter(2), config=VMPOConfig(behaviour_cost=0.1))
    with pytest.raises(ValueError, match=r"record it, or set the cost to 0"):
        gradient(costly, state, unrecorded)
    assert "behaviour_kl" in gradient(costly, state, trajectory)[1].metrics


@pytest.mark.slow
def test_numbers_of_the_config_may_be_traced():
    net, _, state, trajectory = acted(probes.counter)
    numbers = {"epsilon_eta": 0.05, "behaviour_cost": 0.5, "vtrace_lambda": 0.5}

    def compute(**numbers):
        agent = vmpo(net, SGD, VMPOConfig(**numbers))
        return prepare_and_grad(agent, state, trajectory)[0]

    expected = jax.jit(partial(compute, **numbers))()
    assert_close(jax.jit(compute)(**numbers), expected)


@pytest.mark.sample(1)
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_minibatches_of_sequences_add_up_to_the_batch(memory):
    _, agent, state, trajectory = acted(probes.counter, 4, memory)
    batch = prepared(agent, state, trajectory)
    compute = jax.jit(lambda batch: agent.grad(state, batch, random.key(0), Axis())[0])
    parts = [compute(batch.lanes(rows)) for rows in jnp.array([[2, 0], [1, 3]])]
    assert_close(jax.tree.map(lambda x, y: (x + y) / 2, *parts), compute(batch))


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 4])
def test_an_update_on_many_devices_equals_one_on_their_joint_batch(num_devices):
    """Also the half and psi: advantages of the devices differ in size."""
    _, agent, state, trajectory = acted(probes.clock, 8)
    key = random.key(3)
    expected, _ = jax.jit(
        lambda state: loops.learn(agent, state, trajectory, key)
    )(state)  # fmt: skip
    size = 8 // num_devices

    def init(key):
        start = jax.lax.axis_index("data") * size
        own = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=1), trajectory
        )
        return loops.new_run(state, own, key)

    def step(run):
        learner, metrics = loops.learn(
            agent, run.learner, run.local, run.key, axis=Axis("data")
        )
        return run._replace(learner=learner), metrics

    program = sharded(loops.Program(init, step), data_mesh(num_devices))
    run, _ = jax.jit(lambda key: program.step(program.init(key)))(key)
    trace, wanted = (x.opt_state[0].trace for x in (run.learner, expected))
    assert_close(trace, wanted, 1e-5)
    np.testing.assert_allclose(run.learner.duals.eta, expected.duals.eta, rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (VMPOConfig(gamma=1.5), "gamma must be in"),
        (VMPOConfig(vtrace_lambda=-0.1), "vtrace_lambda must be in"),
        (VMPOConfig(max_rho=0.5), "max_rho must be at least max_c"),
        (VMPOConfig(max_c=0.0), "max_c must be above 0"),
        (VMPOConfig(initial_eta=0.0), "initial_eta must be above 0"),
        (VMPOConfig(initial_alpha=-1.0), "initial_alpha must be above 0"),
        (VMPOConfig(epsilon_eta=0.0), "epsilon_eta must be above 0"),
        (VMPOConfig(epsilon_alpha=0.0), "epsilon_alpha must be above 0"),
        (VMPOConfig(epsilon_covariance=0.0), "epsilon_covariance must be above 0"),
        (VMPOConfig(target_period=0), "target_period must be at least 1"),
        (VMPOConfig(behaviour_cost=-1.0), "behaviour_cost must be at least 0"),
        (VMPOConfig(behaviour_cost=float("nan")), "behaviour_cost must be at least 0"),
    ],
)
def test_wrong_values_are_named(config, message):
    assert [message in problem for problem in config.problems()] == [True]
    assert not VMPOConfig().problems()


@pytest.mark.slow
def test_learns_what_to_do_from_what_it_sees():
    env = probes.observation_reward(16)
    _, agent = make(env, optimizer=optax.adam(0.02))
    check_learns(agent, env, 0.95, num_updates=150)


@pytest.mark.slow
def test_learns_continuous_actions():
    env = probes.continuous_action(16)
    _, agent = make(env, optimizer=optax.adam(0.02))
    check_learns(agent, env, -0.05, num_updates=300)


@pytest.mark.slow
def test_learns_with_memory_what_cannot_be_seen():
    env = previous_action_and_reward(probes.memory(16, length=3))
    _, agent = make(env, replace(SMALL, memory="lstm"), optimizer=optax.adam(0.02))
    check_learns(agent, env, 0.9, num_updates=200)


@pytest.mark.slow
def test_learns_from_what_another_did():
    """As the learner of a distillation, whose actor here never learns."""
    env = probes.observation_reward(16)
    config = VMPOConfig(behaviour_cost=0.01)
    net, agent = make(env, config=config, optimizer=optax.adam(0.02))
    workers = rollout.start(agent, env, random.key(0))
    actor = agent.init(random.key(1), workers.step).params
    state = agent.init(random.key(2), workers.step)

    def update(carry, key):
        state, workers = carry
        workers, trajectory, _ = rollout.unroll(agent, env, actor, workers, key, 8)
        (policy, _), _ = net.unroll(actor, (), trajectory.steps)
        policy = jax.tree.map(lambda x: x[:-1], policy)
        trajectory = trajectory._replace(extras=trajectory.extras | {"policy": policy})
        state, metrics = loops.learn(agent, state, trajectory, key)
        return (state, workers), metrics

    keys = jax.random.split(random.key(3), 150)
    train = jax.jit(lambda carry: jax.lax.scan(update, carry, keys)[0][0])
    state = train((state, workers))
    shown = jnp.array([[0.0], [1.0]])
    flags = jnp.zeros(2, bool)
    step = workers.step._replace(obs=shown, first=flags, last=flags)
    (policy, values), _ = net.apply(state.params, (), step)
    chosen = np.exp(policy.log_prob(jnp.array([0, 1])))
    assert (chosen > 0.8).all()
    # Its value is that of its own policy, not of the actor's, which is 0.5.
    assert (np.asarray(values) > 0.7).all()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_learns_catch():
    """A ball falls for nine steps; the median of three seeds."""
    env = envs.make("Catch-bsuite", 16)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01))
    _, agent = make(env, NetworkConfig(widths=(64,)), optimizer=optimizer)
    assert np.median(scores(agent, env, 10, 500)) > 0.8


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_learns_cartpole():
    """770 k steps; the median of three seeds."""
    env = envs.make("CartPole-v1", 16)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.003))
    _, agent = make(env, NetworkConfig(widths=(64,)), optimizer=optimizer)
    assert np.median(scores(agent, env, 16, 3000)) > 450


def scores(agent, env, unroll_length, num_updates):
    """Mean returns in the final fifth, of three seeds."""
    program = compiled(agent, env, unroll_length)
    train = jax.jit(lambda key: scanned(program, num_updates)(program.init(key))[1])
    found, tail = [], num_updates // 5
    for seed in range(3):
        episodes = train(random.key(seed))["episode_return"]
        found.append(episodes.total[-tail:].sum() / episodes.count[-tail:].sum())
    return found
