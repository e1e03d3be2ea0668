"""Q-learning, SARSA and n-step Q-learning against their equations, and on probes."""

import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import envs, exploration, random, rollout
from jaxrl_par.algorithms import q_learning as module
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.q_learning import QCarry, QConfig, q_learning
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.networks import NetworkConfig, q_network
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.testing import check_agent, check_learns, probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.population import population
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.types import TimeStep, Trajectory

SMALL = NetworkConfig(widths=(16,), memory_width=8)
METHODS = ("q", "sarsa", "n_step")
every_method = pytest.mark.parametrize("method", METHODS)


def make(env, config=QConfig(), network=SMALL, optimizer=None):
    net = q_network(env.observation_spec, env.action_spec, network)
    return net, q_learning(net, optimizer or optax.sgd(0.1), config)


def unrolled(env, net, agent, length=7, seed=0, before=5):
    """A state whose target differs from what is online, and a trajectory that starts in
    the middle of a run."""
    keys = jax.random.split(random.key(seed), 5)
    workers = rollout.start(agent, env, keys[0])
    state = jax.jit(agent.init)(keys[1], workers.step)
    target = jax.tree.map(lambda x: 1.5 * x + 0.1, state.online)
    state = state._replace(target=target, elapsed=passed(state.elapsed, 38_400))
    act = jax.jit(
        lambda params, workers, key, length: rollout.unroll(
            agent, env, params, workers, key, length
        ),
        static_argnums=3,
    )
    workers, _, _ = act(agent.params(state), workers, keys[2], before)
    _, trajectory, _ = act(agent.params(state), workers, keys[3], length)
    return state, trajectory


def shown(num_envs):
    """A step whose observations are not zero, where all values would be."""
    obs = jax.random.normal(random.key(5), (num_envs, 2))
    return TimeStep(obs, jnp.ones(num_envs, bool), jnp.zeros(num_envs, bool))


def stream(seed=0, length=9, num_envs=6, num_actions=3):
    """A trajectory made by hand, whose episodes end in both ways, and Q [T+1, B, A]."""
    rng = np.random.default_rng(seed)
    first, last = np.zeros((2, length + 1, num_envs), bool)
    discount = np.ones((length, num_envs), np.float32)
    for b in range(num_envs):
        for t in range(1, length + 1):
            if last[t - 1, b]:
                first[t, b], discount[t - 1, b] = True, 0.0
            elif rng.random() < 0.4:
                last[t, b] = True
                discount[t - 1, b] = rng.random() < 0.5
    reward = np.where(last[:-1], 0.0, rng.normal(size=discount.shape))
    action = rng.integers(num_actions, size=discount.shape)
    trajectory = Trajectory(
        TimeStep(jnp.zeros((length + 1, num_envs, 1)), *map(jnp.array, (first, last))),
        jnp.array(action, jnp.int32),
        jnp.array(reward, jnp.float32),
        jnp.array(discount),
        {},
        (),
    )
    q_values = rng.normal(size=(length + 1, num_envs, num_actions))
    behaviour = rng.random(q_values.shape)
    behaviour /= behaviour.sum(-1, keepdims=True)
    return trajectory, jnp.float32(q_values), jnp.float32(behaviour)


def targets_as_in_the_paper(method, gamma, trajectory, q_values, behaviour):
    """Algorithms 1 and S2, for one row after the other."""
    reward, action = np.asarray(trajectory.reward), np.asarray(trajectory.action)
    discount, last = np.asarray(trajectory.discount), np.asarray(trajectory.steps.last)
    q_values, behaviour = np.asarray(q_values), np.asarray(behaviour)
    length, num_envs = reward.shape
    targets = np.full(reward.shape, np.nan)
    for b in range(num_envs):
        for t in range(length):
            if last[t, b]:
                continue
            end = t + 1
            while method == "n_step" and end < length and not last[end, b]:
                end += 1
            if method != "sarsa":
                target = q_values[end, b].max()
            elif end == length or last[end, b]:
                target = sum(behaviour[end, b] * q_values[end, b])
            else:
                target = q_values[end, b, action[end, b]]
            for k in reversed(range(t, end)):
                target = reward[k, b] + gamma * discount[k, b] * target
            targets[t, b] = target
    return targets


@pytest.mark.sample(2)
@every_method
@pytest.mark.parametrize("seed", range(3))
def test_targets_follow_the_paper(method, seed):
    config = QConfig(method=method, gamma=0.9)
    inputs = stream(seed)
    expected = targets_as_in_the_paper(method, 0.9, *inputs)
    actual = module.q_targets(*inputs, config)
    rows = ~np.isnan(expected)
    np.testing.assert_array_equal(rows, ~inputs[0].steps.last[:-1])
    np.testing.assert_allclose(actual[rows], expected[rows], rtol=1e-5, atol=1e-6)


def test_n_step_targets_of_three_rewards():
    trajectory, q_values, behaviour = stream(length=3, num_envs=1)
    no = jnp.zeros((4, 1), bool)
    trajectory = trajectory._replace(
        steps=trajectory.steps._replace(first=no, last=no),
        reward=jnp.array([[0.0], [0.0], [1.0]]),
        discount=jnp.ones((3, 1)),
    )
    q_values = q_values.at[3, 0].set(jnp.array([2.0, -5.0, 1.0]))
    targets = module.q_targets(trajectory, q_values, behaviour, QConfig())
    np.testing.assert_allclose(targets[:, 0], [2.9206980, 2.9502, 2.98], rtol=1e-6)


def test_sarsa_takes_on_average_what_the_next_action_would_give():
    """In the final row: over many actions drawn there, nothing is left but noise."""
    config = QConfig(method="sarsa")
    trajectory, q_values, behaviour = stream(length=1, num_envs=1)
    trajectory = trajectory._replace(
        steps=trajectory.steps._replace(last=jnp.zeros((2, 1), bool)),
        discount=jnp.ones((1, 1)),
    )
    logits = jnp.log(behaviour[1, 0])
    drawn = jax.random.categorical(random.key(0), logits, shape=(20_000,))
    samples = trajectory.reward[0, 0] + 0.99 * q_values[1, 0][drawn]
    target = module.q_targets(trajectory, q_values, behaviour, config)[0, 0]
    error = 4 * float(jnp.std(samples)) / np.sqrt(20_000)
    np.testing.assert_allclose(target, jnp.mean(samples), atol=error)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("method", "memory", "policy"),
    [
        ("q", "none", "epsilon_greedy"),
        ("q", "lstm", "boltzmann"),
        ("sarsa", "none", "epsilon_greedy"),
        ("sarsa", "lstm", "boltzmann"),
        ("n_step", "lstm", "epsilon_greedy"),
    ],
)
def test_the_gradient_is_that_of_a_regression_on_fixed_numbers(method, memory, policy):
    """By a loop over rows. Behaviour is that of the online network, for each
    environment's own epsilon; the target reads from the memory that acted."""
    config = QConfig(
        method=method, exploration=policy, inverse_temperature=2.0, gamma=0.9
    )
    env = probes.counter(4)
    net, agent = make(env, config, replace(SMALL, memory=memory))
    state, batch = unrolled(env, net, agent)
    assert batch.steps.last[1:-1].any() and not batch.steps.first[0].all()
    unroll = jax.jit(net.unroll)
    q_values, _ = unroll(state.online, batch.carry.memory, batch.steps)
    frozen, _ = unroll(state.target, batch.carry.memory, batch.steps)
    if policy == "boltzmann":
        behaviour = exploration.boltzmann_probabilities(q_values, 2.0)
    else:
        epsilon = 0.7 + 0.3 * np.array([0.1, 0.01, 0.5, 0.1], np.float32)
        behaviour = jnp.stack(
            [
                exploration.epsilon_greedy_probabilities(q_values[:, b], float(e))
                for b, e in enumerate(epsilon)
            ],
            axis=1,
        )
    targets = targets_as_in_the_paper(method, 0.9, batch, frozen, behaviour)
    rows = [tuple(map(int, row)) for row in np.argwhere(~np.isnan(targets))]
    assert len(rows) < targets.size

    def regression(online):
        q_values, _ = net.unroll(online, batch.carry.memory, batch.steps)
        return sum(
            0.5 * (targets[t, b] - q_values[t, b, batch.action[t, b]]) ** 2
            for t, b in rows
        )

    total, expected = jax.jit(jax.value_and_grad(regression))(state.online)
    for reduction, size in (("sum", 1), ("mean", targets.size)):
        own = replace(config, reduction=reduction)
        inputs = (state.online, state.target, state.elapsed, batch, net, own)
        actual, metrics = module.loss(*inputs)
        np.testing.assert_allclose(actual, total / size, rtol=1e-4)
        agent = q_learning(net, optax.sgd(0.1), own)
        grads, info = jax.jit(partial(agent.grad, axis=Axis()))(
            state, batch, random.key(0)
        )
        assert jax.tree.structure(grads) == jax.tree.structure(state.online)
        jax.tree.map(
            lambda x, y, size=size: np.testing.assert_allclose(
                x, y / size, rtol=1e-3, atol=1e-4 / size
            ),
            grads,
            expected,
        )
        assert agent.reduction == reduction
    mean = {name: float(x.total / x.count) for name, x in info.metrics.items()}
    np.testing.assert_allclose(mean["value_loss"], total / len(rows), rtol=1e-4)
    np.testing.assert_allclose(mean["target"], np.nanmean(targets), rtol=1e-4)
    chosen = [q_values[t, b, batch.action[t, b]] for t, b in rows]
    np.testing.assert_allclose(mean["q_value"], np.mean(chosen), rtol=1e-4)
    if policy == "epsilon_greedy":
        np.testing.assert_allclose(mean["epsilon"], 0.7 + 0.3 * 0.71 / 4, rtol=1e-5)
    assert metrics.keys() == info.metrics.keys()


@pytest.mark.sample(1)
@every_method
def test_no_gradient_flows_into_targets(method):
    env = probes.counter(4)
    config = QConfig(method=method, exploration="boltzmann")
    net, agent = make(env, config)
    state, batch = unrolled(env, net, agent)

    def total(target):
        inputs = (state.online, target, state.elapsed, batch, net, config)
        return module.loss(*inputs)[0]

    grads = jax.jit(jax.grad(total))(state.target)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


@pytest.mark.slow
def test_sarsa_that_acts_greedily_is_q_learning():
    greedy = QConfig(epsilon_start=0.0, epsilon_finals=(0.0,), epsilon_weights=(1.0,))
    env = probes.counter(4)
    losses = []
    for method in ("sarsa", "q"):
        net, agent = make(env, replace(greedy, method=method))
        state, batch = unrolled(env, net, agent)
        state = state._replace(target=state.online)
        grads, _ = jax.jit(partial(agent.grad, axis=Axis()))(
            state, batch, random.key(0)
        )
        losses.append(jax.flatten_util.ravel_pytree(grads)[0])
    np.testing.assert_allclose(*losses, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "memory", "reduction", "policy"),
    [
        ("q", "lstm", "mean", "boltzmann"),
        ("sarsa", "lstm", "sum", "epsilon_greedy"),
        ("sarsa", "none", "mean", "boltzmann"),
        ("n_step", "none", "sum", "epsilon_greedy"),
    ],
)
def test_keeps_the_promises_of_an_agent(method, memory, reduction, policy):
    env = probes.observation_reward(4)
    config = QConfig(method=method, reduction=reduction, exploration=policy)
    _, agent = make(env, config, replace(SMALL, memory=memory))
    check_agent(agent, env)


@pytest.mark.slow
def test_keeps_them_with_normalized_observations():
    env = probes.counter(4)
    check_agent(normalize_observations(make(env)[1]), env)


def test_the_target_is_copied_every_so_many_updates():
    env = probes.counter(2)
    # Keeps the latest gradient.
    optimizer = optax.chain(optax.trace(decay=0.0), optax.sgd(0.1))
    net, agent = make(env, QConfig(target_period=3), optimizer=optimizer)
    state, _ = unrolled(env, net, agent)
    ones = jax.tree.map(jnp.ones_like, state.online)
    apply = jax.jit(agent.apply)
    copied = state.target
    for update in range(1, 9):
        before, state = state, apply(state, ones, {})
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y - 0.1, rtol=1e-5, atol=1e-6),
            state.online,
            before.online,
        )
        if update % 3 == 0:
            copied = state.online
        jax.tree.map(np.testing.assert_array_equal, state.target, copied)
        jax.tree.map(np.testing.assert_array_equal, state.opt_state[0].trace, ones)
        assert int(state.phase) == update % 3
    # What a race leaves behind is one early copy or two.
    state = state._replace(phase=jnp.int32(7))
    for phase, copied in ((2, True), (0, True), (1, False), (2, False), (0, True)):
        state = apply(state, ones, {})
        assert int(state.phase) == phase
        pairs = zip(*map(jax.tree.leaves, (state.target, state.online)), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs) == copied


def test_a_new_agent_has_a_target_of_its_own_to_donate():
    env = probes.counter(2)
    _, agent = make(env)
    state = agent.init(random.key(0), env.reset(random.key(1))[1])
    jax.tree.map(np.testing.assert_array_equal, state.target, state.online)
    ones = jax.tree.map(jnp.ones_like, state.online)
    jax.jit(agent.apply, donate_argnums=0)(state, ones, {})


def test_exploration_is_annealed_to_each_environments_own_end():
    config = QConfig(epsilon_start=0.9, anneal_steps=40)
    env = probes.counter(10)
    _, agent = make(env, config)
    state = jax.jit(agent.init)(random.key(0), env.reset(random.key(1))[1])
    final = agent.initial_carry(10).epsilon
    ladder = [0.1, 0.01, 0.5] * 3 + [0.1]
    np.testing.assert_allclose(final, ladder, rtol=1e-6)
    ones = jax.tree.map(jnp.ones_like, state.online)
    for tens in range(7):
        acts = agent.params(state)
        expected = 0.9 + min(tens, 4) / 4 * (final - 0.9)
        actual = module.annealed(acts.elapsed, final, config)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
        # By environment steps, and not by updates.
        state = passed(agent.apply(agent.apply(state, ones, {}), ones, {}), 10)
        assert int(state.elapsed.env_steps) == 10 * tens + 10
    np.testing.assert_array_equal(actual, final)


def test_environments_act_with_their_own_epsilon():
    config = QConfig(anneal_steps=4)
    env = probes.counter(3)
    net, agent = make(env, config)
    carry, step = agent.initial_carry(3), shown(3)
    state = jax.jit(agent.init)(random.key(0), step)
    best, after, extras = agent.greedy(agent.params(state), carry, step, random.key(2))
    q_values, _ = net.apply(state.online, (), step)
    np.testing.assert_array_equal(best, jnp.argmax(q_values, axis=-1))
    assert extras == {} and isinstance(after, QCarry)
    keys = jax.random.split(random.key(3), 4000)
    for explored, epsilon in ((0, [1.0] * 3), (2, [0.55, 0.505, 0.75])):
        params = agent.params(passed(state, explored))
        act = jax.vmap(agent.act, in_axes=(None, None, None, 0))
        action, after, extras = jax.jit(act)(params, carry, step, keys)
        others = np.mean(np.asarray(action) != np.asarray(best), axis=0)
        expected = np.array(epsilon) / 2
        np.testing.assert_allclose(others, expected, atol=4 * 0.5 / np.sqrt(4000))
        np.testing.assert_array_equal(after.epsilon[0], carry.epsilon)
        assert extras == {}


def test_boltzmann_acts_by_the_values():
    env = probes.counter(2)
    config = QConfig(exploration="boltzmann", inverse_temperature=3.0)
    net, agent = make(env, config)
    carry, step = agent.initial_carry(2), shown(2)
    state = jax.jit(agent.init)(random.key(4), step)
    q_values, _ = net.apply(state.online, (), step)
    keys = jax.random.split(random.key(3), 4000)
    params = agent.params(state)
    action, _, _ = jax.vmap(lambda key: agent.act(params, carry, step, key))(keys)
    expected = 1 / (1 + np.exp(3.0 * (q_values[:, 0] - q_values[:, 1])))
    assert np.all(np.abs(expected - 0.5) > 0.05)
    np.testing.assert_allclose(
        jnp.mean(action, axis=0), expected, atol=4 * 0.5 / np.sqrt(4000)
    )


def test_memory_goes_on_and_is_that_of_the_network():
    env = probes.memory(2)
    net, agent = make(env, network=replace(SMALL, memory="lstm"))
    carry, step = agent.initial_carry(2), env.reset(random.key(1))[1]
    state = jax.jit(agent.init)(random.key(0), step)
    _, expected = jax.jit(net.apply)(state.online, net.initial_carry(2), step)
    for act in (agent.act, agent.greedy):
        _, after, _ = jax.jit(act)(agent.params(state), carry, step, random.key(2))
        jax.tree.map(np.testing.assert_array_equal, after.memory, expected)
        np.testing.assert_array_equal(after.epsilon, carry.epsilon)


GREEDY = QConfig(
    epsilon_finals=(0.0,), epsilon_weights=(1.0,), anneal_steps=6_400, target_period=10
)


@pytest.mark.slow
@every_method
def test_finds_what_is_paid_later(method):
    env = probes.delayed_reward(16)
    config = replace(GREEDY, method=method, gamma=0.9)
    net, agent = make(env, config, optimizer=optax.adam(0.01))
    state = check_learns(agent, env, 0.95, num_updates=300)
    obs = jnp.array([[0.0, 0.0], [1 / 3, 1.0], [2 / 3, 1.0], [1.0, 1.0]])
    no = jnp.zeros(4, bool)
    q_values, _ = net.apply(state.online, (), TimeStep(obs, no, no))
    values = jnp.max(q_values, axis=-1)
    np.testing.assert_allclose(values, 0.9 ** jnp.arange(3, -1, -1), atol=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["q", "n_step"])
def test_learns_that_a_time_limit_is_no_end(method):
    config = replace(GREEDY, method=method, gamma=0.8)
    env = probes.truncation(8)
    net, agent = make(env, config, optimizer=optax.adam(0.02))
    state = check_learns(agent, env, 5.0, num_updates=400)
    _, step = env.reset(random.key(0))
    q_values, _ = net.apply(state.online, (), step)
    # 1 / (1 - gamma); an end after five steps would make it 3.36 at most.
    np.testing.assert_allclose(jnp.max(q_values, axis=-1), 5.0, atol=0.2)


@pytest.mark.slow
def test_boltzmann_solves_the_contextual_bandit():
    env = probes.observation_reward(16)
    config = replace(GREEDY, exploration="boltzmann", inverse_temperature=20.0)
    _, agent = make(env, config, optimizer=optax.adam(0.01))
    check_learns(agent, env, 0.98)


@pytest.mark.slow
def test_remembers_with_memory():
    env = probes.memory(32)
    network = replace(SMALL, memory="lstm", memory_width=16)
    _, agent = make(env, GREEDY, network, optax.adam(0.01))
    check_learns(agent, env, 0.9, num_updates=300, unroll_length=10)


@pytest.mark.slow
def test_a_population_may_differ_in_its_numbers():
    env = probes.observation_reward(4)
    net, _ = make(env)
    numbers = {
        "gamma": jnp.array([0.5, 0.9]),
        "final": jnp.array([0.0, 0.4]),
        "start": jnp.array([0.5, 1.0]),
        "seed": jnp.array([0, 1]),
    }

    def program_of(values):
        config = QConfig(
            gamma=values["gamma"],
            epsilon_start=values["start"],
            epsilon_finals=(values["final"], 0.2),
            epsilon_weights=(0.5, 0.5),
            anneal_steps=40,
        )
        return compiled(q_learning(net, optax.sgd(0.1), config), env, 6)

    many = population(program_of, numbers)
    train = jax.jit(lambda key: scanned(many.program, 5)(many.program.init(key)))
    run, metrics = train(random.key(9))
    assert metrics["epsilon"].total.shape == (5, 2)
    program = program_of({name: x[1] for name, x in numbers.items()})
    alone, _ = jax.jit(lambda key: scanned(program, 5)(program.init(key)))(
        random.key(1)
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        many.member(run, 1).run.learner,
        alone.learner,
    )


@pytest.mark.slow
def test_devices_share_the_work():
    """Two devices learn what one would from both their environments' gradients."""
    env = probes.counter(2)
    config = QConfig(target_period=2, anneal_steps=20)
    _, agent = make(env, config, optimizer=optax.sgd(0.01))
    mesh = data_mesh(2)
    program = compiled(agent, env, 4, axis=Axis("data"))
    placed = sharded(program, mesh)
    run, metrics = jax.jit(lambda key: scanned(placed, 5)(placed.init(key)))(
        random.key(0)
    )
    mapped = jax.jit(
        jax.vmap(
            lambda _, key: scanned(program, 5)(program.init(key)),
            in_axes=(0, None),
            axis_name="data",
        )
    )
    expected, _ = mapped(jnp.arange(2), random.key(0))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y[0], rtol=1e-4, atol=1e-5),
        run.learner,
        expected.learner,
    )
    elapsed = run.learner.elapsed.env_steps
    assert int(elapsed) == int(run.progress.env_steps) and int(run.learner.phase) == 1
    assert np.all(metrics["skipped"] == 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.1}, r"gamma must be in \[0, 1\], got 1.1"),
        ({"epsilon_start": -0.1}, r"epsilon_start must be in \[0, 1\]"),
        ({"epsilon_finals": (0.1, 2.0, 0.5)}, r"epsilon_finals\[1\] must be in"),
        ({"epsilon_weights": (0.4, 0.6)}, "epsilon_weights: .* 3 choices and weights"),
        ({"epsilon_weights": (-1.0, 1.0, 1.0)}, "epsilon_weights: weights must be 0"),
        ({"anneal_steps": 0}, "anneal_steps must be at least 1, got 0"),
        ({"target_period": 0}, "target_period must be at least 1, got 0"),
        ({"inverse_temperature": -1.0}, "inverse_temperature must be at least 0"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    (problem,) = replace(QConfig(), **changes).problems()
    assert re.search(message, problem)
    assert not QConfig().problems()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "learning_rate", "num_updates"),
    [("q", 0.006, 8000), ("sarsa", 0.012, 4000), ("n_step", 0.006, 4000)],
)
def test_learns_cartpole(method, learning_rate, num_updates):
    """The greedy policy, after 128 steps for each update: the median of three seeds."""
    env = envs.make("CartPole-v1", 32)
    total = num_updates * 128
    config = QConfig(method=method, target_period=5, anneal_steps=total // 5)
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=learning_rate, max_grad_norm=1.0, epsilon=1e-3),
        total,
    )
    _, agent = make(env, config, NetworkConfig(activation="relu"), optimizer)
    program = compiled(agent, env, 4)
    greedy = agent._replace(act=agent.greedy)

    def final_return(key):
        run, _ = scanned(program, num_updates)(program.init(key))
        params = agent.params(run.learner)
        _, episodes = rollout.whole_episodes(greedy, env, params, random.key(99), 500)
        return episodes.return_.total / episodes.return_.count

    keys = jnp.stack([random.key(seed) for seed in range(3)])
    returns = jax.jit(jax.vmap(final_return))(keys)
    assert np.median(returns) > 475, returns
