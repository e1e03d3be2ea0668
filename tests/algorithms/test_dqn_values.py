"""Distributions of the return: C51 and quantiles, against the papers by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax

from jaxrl_par import loops, presets, random, rollout
from jaxrl_par.algorithms.dqn import DQNCarry, DQNConfig, dqn
from jaxrl_par.algorithms.dqn.loss import loss
from jaxrl_par.algorithms.dqn.values import projected, quantile_huber
from jaxrl_par.networks import NetworkConfig, q_network
from jaxrl_par.networks.base import Network
from jaxrl_par.replay import Windows, prioritised, uniform
from jaxrl_par.returns import squashed, unsquashed
from jaxrl_par.testing import check_agent, check_learns, probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.types import TimeStep, Trajectory

NO = -jnp.inf
C51 = DQNConfig(values="categorical", num_atoms=5, v_min=0.0, v_max=4.0, gamma=1.0)
QUANTILES = DQNConfig(values="quantile", num_atoms=2, gamma=1.0)
LOSS = jax.jit(loss, static_argnums=(3, 4))


def shown() -> Network:
    """The observations are the outputs; parameters are added to all of them."""

    def unroll(params, carry, steps):
        return steps.obs + params, carry

    return Network(lambda key, step: jnp.zeros(()), lambda n: (), unroll, unroll)


def batch_of(obs, reward, *, discount=None, last=None, action=0):
    """One lane; obs [L + 1, A, N], the others [L]."""
    obs, reward = jnp.asarray(obs, jnp.float32), jnp.asarray(reward, jnp.float32)
    rows = len(reward)
    last = jnp.zeros(rows + 1, bool) if last is None else jnp.asarray(last, bool)
    discount = jnp.ones(rows) if discount is None else jnp.asarray(discount)
    steps = TimeStep(obs[:, None], jnp.zeros_like(last)[:, None], last[:, None])
    action = jnp.full((rows, 1), action, jnp.int32)
    carry = DQNCarry((), jnp.zeros(1))
    rows = (reward[:, None], discount.astype(jnp.float32)[:, None])
    return Trajectory(steps, action, *rows, {}, carry)


NETWORK = shown()


def loss_of(batch, config):
    given = (jnp.float32(0), jnp.float32(0), batch, NETWORK, config)
    return LOSS(*given)


def told(info, name):
    return float(info.metrics[name].total / info.metrics[name].count)


def projected_by_hand(p, located, atoms):
    """Algorithm 1, atom by atom; where floor and ceiling are one, it has all."""
    m, width = np.zeros(len(atoms)), atoms[1] - atoms[0]
    for mass, y in zip(p, located, strict=True):
        b = (np.clip(y, atoms[0], atoms[-1]) - atoms[0]) / width
        low, high = int(np.floor(b)), int(np.ceil(b))
        if low == high:
            m[low] += mass
        else:
            m[low] += mass * (high - b)
            m[high] += mass * (b - low)
    return m


@pytest.mark.parametrize(
    ("reward", "gamma", "expected"),
    [
        (0.5, 0.5, (0.05, 0.45, 0.45, 0.05, 0.0)),
        (1.0, 1.0, (0.0, 0.1, 0.2, 0.4, 0.3)),
        (0.0, 1.0, (0.1, 0.2, 0.4, 0.2, 0.1)),
        (2.0, 0.0, (0.0, 0.0, 1.0, 0.0, 0.0)),
        (9.0, 0.0, (0.0, 0.0, 0.0, 0.0, 1.0)),
        (-9.0, 1.0, (1.0, 0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_mass_is_shared_by_the_nearest_atoms_and_none_is_lost(reward, gamma, expected):
    """Trap 17, and ends whose reward is an atom, or beyond the last one."""
    atoms, p = jnp.arange(5.0), jnp.array([0.1, 0.2, 0.4, 0.2, 0.1])
    actual = projected(p, reward + gamma * atoms, atoms)
    np.testing.assert_allclose(actual, expected, atol=1e-7)


def test_a_projection_follows_the_paper():
    rng = np.random.default_rng(0)
    atoms = np.linspace(-3, 5, 51)
    p = rng.dirichlet(np.ones(51), size=(4, 3))
    located = rng.normal(size=(4, 3, 1)) * 3 + rng.uniform(size=(4, 3, 1)) * atoms
    actual = projected(*(jnp.asarray(x, jnp.float32) for x in (p, located, atoms)))
    for index in np.ndindex(4, 3):
        expected = projected_by_hand(p[index], located[index], atoms)
        np.testing.assert_allclose(actual[index], expected, atol=2e-6)


def test_quantiles_weigh_all_differences():
    """Trap 18. tau along the targets gives 2.4375, the other sign 1.8125, pairs alone
    1.875."""
    theta, targets = jnp.array([0.0, 1.0]), jnp.array([0.0, 4.0])
    np.testing.assert_allclose(quantile_huber(theta, targets, 1.0), 1.4375)


def test_a_quantile_loss_follows_the_paper():
    rng = np.random.default_rng(0)
    theta, targets = rng.normal(size=(3, 5)) * 2, rng.normal(size=(3, 7)) * 2
    kappa = 0.7
    given = (jnp.asarray(x, jnp.float32) for x in (theta, targets))
    actual = quantile_huber(*given, kappa)
    for row in range(3):
        total = 0.0
        for i, place in enumerate(theta[row]):
            for y in targets[row]:
                u, tau = y - place, (2 * i + 1) / 10
                near = abs(u) <= kappa
                huber = u**2 / 2 if near else kappa * (abs(u) - kappa / 2)
                total += abs(tau - (u < 0)) * huber / 7
        np.testing.assert_allclose(actual[row], total, rtol=1e-5)


def test_the_loss_of_c51_is_a_divergence_whose_gradient_is_that_of_cross_entropy():
    """Its priority too: 0 where there is nothing to learn, and never weighted."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 2, 5))
    batch = batch_of(logits, [0.5])._replace(extras={"weight": jnp.full((1, 1), 0.25)})
    config = replace(C51, gamma=0.5)
    best = np.argmax(softmax(logits[1], axis=-1) @ np.arange(5.0))
    atoms = np.arange(5.0)
    m = projected_by_hand(softmax(logits[1, best]), 0.5 + 0.5 * atoms, atoms)
    kl = np.sum(
        m * (np.log(m, where=m > 0, out=np.zeros(5)) - log_softmax(logits[0, 0]))
    )
    value, info = loss_of(batch, config)
    np.testing.assert_allclose(value, 0.25 * kl, rtol=1e-5)
    np.testing.assert_allclose(info.priorities, [kl], rtol=1e-5)

    def of(first):
        obs = batch.steps.obs.at[0, 0, 0].set(first)
        steps = batch.steps._replace(obs=obs)
        return loss_of(batch._replace(steps=steps), config)[0]

    slope = jax.grad(of)(batch.steps.obs[0, 0, 0])
    np.testing.assert_allclose(slope, 0.25 * (softmax(logits[0, 0]) - m), atol=1e-6)
    same = batch_of(np.stack([logits[0], logits[0]])[:, :1], [0.0])
    np.testing.assert_allclose(loss_of(same, C51)[1].priorities, [0.0], atol=1e-6)


def test_the_priority_of_quantiles_is_the_mean_of_all_differences():
    """theta (0, 1), targets (0, 4): |0|, |4|, |-1|, |3|."""
    batch = batch_of([[[0.0, 1.0]], [[0.0, 4.0]]], [0.0])
    value, info = loss_of(batch, QUANTILES)
    np.testing.assert_allclose(value, 1.4375)
    np.testing.assert_allclose(info.priorities, [2.0])
    assert told(info, "q_value") == 0.5 and told(info, "target") == 2.0


def at(value, config):
    """Outputs of one action whose mean is that."""
    if config.values == "quantile":
        return [value - 1.0, value + 1.0]
    atoms = np.linspace(config.v_min, config.v_max, config.num_atoms)
    low = int(np.searchsorted(atoms, value, "right")) - 1
    share = (atoms[min(low + 1, len(atoms) - 1)] - value) / (atoms[1] - atoms[0])
    probabilities = np.full(config.num_atoms, 1e-20)
    probabilities[low] = share
    probabilities[min(low + 1, len(atoms) - 1)] += 1 - share
    return np.log(probabilities)


LONG = {
    "categorical": DQNConfig(
        values="categorical", num_atoms=111, v_min=-10.0, v_max=100.0
    ),
    "quantile": DQNConfig(values="quantile", num_atoms=2),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize(
    ("ends", "expected"), [("limit", 10.9), ("end", 2.8), ("no", 10.21)]
)
def test_n_steps_end_where_the_episode_does_atom_by_atom(kind, ends, expected):
    """Trap 16: the exponent is that of the steps made; the width shrinks with it."""
    config = replace(LONG[kind], gamma=0.9, n_step=3)
    after = 3.36 / 0.729 if ends == "no" else 100.0
    obs = [[at(v, config), at(v - 1.0, config)] for v in (0.0, 0.0, 10.0, after)]
    last = np.array([0, 0, ends != "no", 0])
    reward = [1.0, 2.0, 5.0 if ends == "no" else 0.0]
    batch = batch_of(obs, reward, discount=[1, ends != "end", 1], last=last)
    _, info = loss_of(batch, config)
    np.testing.assert_allclose(told(info, "target"), expected, rtol=1e-5)
    if kind == "quantile":
        shrunk = {"limit": 0.81, "end": 0.0, "no": 0.729}[ends]
        errors = [abs(expected + x * shrunk - y) for x in (-1, 1) for y in (-1, 1)]
        np.testing.assert_allclose(info.priorities, [np.mean(errors)], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("double", "expected"), [(True, 1.5), (False, 6.0)])
def test_double_dqn_chooses_by_means(double, expected):
    """The online network likes action 1, the target network action 0."""

    def unroll(params, carry, steps):
        online, target = steps.obs[..., 0, :, :], steps.obs[..., 1, :, :]
        return jnp.where(params > 0.0, target, online), carry

    network = shown()._replace(apply=unroll, unroll=unroll)
    online = jnp.array([[0.0, 2.0], [2.9, 0.0]])[::-1] * jnp.array([[1.0], [4.0]])
    target = jnp.array([[2.0, 8.0], [0.0, 1.0]])
    both = jnp.stack([online, target])
    batch = batch_of(jnp.stack([both, both]), [1.0])
    config = replace(QUANTILES, double=double)
    _, info = loss(jnp.float32(0), jnp.float32(1), batch, network, config)
    np.testing.assert_allclose(told(info, "target"), expected)


@pytest.mark.parametrize("kind", ["categorical", "quantile"])
def test_distributions_are_learned_in_the_space_of_h_and_acted_by_their_returns(kind):
    """y[j] = h(r + d h^-1(z[j])), and the mean is of h^-1(z), not h^-1 of the mean."""
    given = {"rescale": 1e-2, "gamma": 0.9, "values": kind, "num_atoms": 5}
    config = DQNConfig(**given, v_min=-2.0, v_max=6.0)
    outputs = np.random.default_rng(2).normal(size=(2, 1, 5)) * 2
    z = np.linspace(-2, 6, 5) if kind == "categorical" else outputs[1, 0]
    p = softmax(outputs[1, 0]) if kind == "categorical" else np.full(5, 0.2)
    raw = np.asarray(unsquashed(jnp.asarray(z, jnp.float32), 1e-2))
    y = np.asarray(squashed(jnp.asarray(3.0 + 0.9 * raw), 1e-2))
    _, info = loss_of(batch_of(outputs, [3.0]), config)
    np.testing.assert_allclose(told(info, "target"), 3.0 + 0.9 * p @ raw, rtol=1e-5)
    if kind == "quantile":
        expected = np.mean(np.abs(y[:, None] - outputs[0, 0]))
    else:
        m = projected_by_hand(p, y, z)
        logs = np.log(m, where=m > 0, out=np.zeros(5))
        expected = np.sum(m * (logs - log_softmax(outputs[0, 0])))
    np.testing.assert_allclose(info.priorities, [expected], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [C51, pytest.param(QUANTILES, marks=pytest.mark.slow)],
    ids=["c51", "quantiles"],
)
def test_impossible_actions_are_never_taken_nor_bootstrapped_from(config):
    """Those whose outputs are all -inf. The other action is worth less than 0 is."""
    rows = jnp.arange(config.num_atoms, dtype=jnp.float32)
    low, no = -rows - 1.0, jnp.full(config.num_atoms, NO)
    obs = jnp.stack([jnp.stack([low, no])] * 2 + [jnp.stack([no, no])] * 2)
    agent = dqn(shown(), optax.sgd(0.1), config)
    step = TimeStep(obs[:2], jnp.ones(2, bool), jnp.zeros(2, bool))
    state = agent.init(random.key(0), step)
    given = (agent.params(state), agent.initial_carry(2), step, random.key(1))
    for act in (agent.act, agent.greedy):
        np.testing.assert_array_equal(act(*given)[0], [0, 0])
    # Cut where no action is possible: the value there is 0. Row 2 is `last`.
    batch = batch_of(obs, [0.5, 0.25, 0.0], last=[0, 0, 1, 0], action=0)
    batch = batch._replace(action=batch.action.at[2].set(1))
    gradient = jax.jit(jax.value_and_grad(LOSS, has_aux=True), static_argnums=(3, 4))
    zero = jnp.float32(0)
    (value, info), slope = gradient(zero, zero, batch, NETWORK, config)
    assert np.isfinite(value) and np.isfinite(slope)
    mean = float(config.kind().expected(low))
    np.testing.assert_allclose(told(info, "target"), (0.5 + mean + 0.25) / 2, rtol=1e-5)
    assert np.all(np.isfinite(info.priorities))


@pytest.mark.slow
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize("config", [C51, QUANTILES], ids=["c51", "quantiles"])
def test_it_keeps_the_contract_of_agents(config, memory, dueling):
    env = probes.clock(4)
    network = NetworkConfig(widths=(8,), memory=memory, memory_width=8)
    net = q_network(*env.specs, network, dueling=dueling, num_atoms=config.num_atoms)
    check_agent(dqn(net, optax.sgd(0.1), config), env)


@pytest.mark.sample(1)
@pytest.mark.parametrize("values", ["expected", "categorical", "quantile"])
def test_a_network_with_other_atoms_is_refused(values):
    env = probes.clock(2)
    wrong = 4 if values == "expected" else None
    net = q_network(*env.specs, NetworkConfig(widths=(4,)), num_atoms=wrong)
    agent = dqn(net, optax.sgd(0.1), DQNConfig(values=values, num_atoms=5))
    told = "q_network takes num_atoms"
    with pytest.raises(ValueError, match=told):
        agent.init(random.key(0), env.reset(random.key(0))[1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"values": "categorical", "num_atoms": 1}, "num_atoms must be at least 2"),
        ({"values": "categorical", "v_max": -10.0}, "v_max must be above -10"),
        ({"values": "quantile", "num_atoms": 0}, "num_atoms must be at least 1, got 0"),
        ({"values": "quantile", "huber_delta": None}, "huber_delta must be a number"),
    ],
)
def test_bad_settings_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        dqn(shown(), optax.sgd(0.1), DQNConfig(**changed))


LEARN = {
    "c51": DQNConfig(
        anneal_steps=2_000,
        values="categorical",
        num_atoms=11,
        v_min=-2.0,
        v_max=2.0,
        target_period=10,
    ),
    "quantiles": DQNConfig(
        anneal_steps=2_000,
        values="quantile",
        num_atoms=8,
        n_step=3,
        target_period=10,
        rescale=1e-3,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("buffer", [uniform, prioritised])
@pytest.mark.parametrize("name", LEARN)
def test_it_learns_what_pays_later(name, buffer):
    config, env = LEARN[name], probes.delayed_reward(8)
    net = NetworkConfig(widths=(16,))
    net = q_network(*env.specs, net, dueling=True, num_atoms=config.num_atoms)
    agent = dqn(net, optax.adam(1e-2), config)
    windows = Windows(1, lookahead=config.n_step - 1, constant_carry=True)
    learner = loops.replayed(agent, buffer(64, 32, windows), updates_per_step=4)
    check_learns(learner, env, 0.9, num_updates=150)


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["categorical", "quantile"])
def test_a_distribution_is_learned_and_not_its_mean_alone(kind):
    """A coin pays 1 or -1: atoms have half of the mass each, and quantiles too."""

    def unroll(params, carry, steps):
        return jnp.broadcast_to(params, (*steps.first.shape, 1, 5)), carry

    network = shown()._replace(apply=unroll, unroll=unroll)
    batch = batch_of(jnp.zeros((2, 1, 5)), [0.0])
    batch = jax.tree.map(lambda x: jnp.concatenate([x, x], axis=x.ndim > 1), batch)
    reward = jnp.array([[1.0, -1.0]])
    batch = batch._replace(reward=reward, discount=jnp.zeros((1, 2)))
    config = DQNConfig(values=kind, num_atoms=5, v_min=-2.0, v_max=2.0, huber_delta=0.1)
    sgd = optax.adam(0.05)

    def once(now, _):
        params, state = now
        grads = jax.grad(lambda x: loss(x, x, batch, network, config)[0])(params)
        updates, state = sgd.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    params = jnp.zeros(5)
    learned, _ = jax.lax.scan(once, (params, sgd.init(params)), length=300)[0]
    if kind == "categorical":
        actual = jax.nn.softmax(learned)
        np.testing.assert_allclose(actual, [0, 0.5, 0, 0.5, 0], atol=0.01)
    else:  # those at 0.1 and 0.3 lie below, within Huber's bound
        np.testing.assert_allclose(
            learned[jnp.array([0, 1, 3, 4])], [-1, -1, 1, 1], atol=0.1
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["categorical", "quantile"])
def test_it_learns_to_balance(kind):
    """The settings of `presets.dqn`, and the greedy policy: the median of three."""
    experiment = presets.get("dqn")
    args = experiment.config()
    config = replace(args.dqn, values=kind, v_min=0.0, v_max=100.0)
    args = replace(args, dqn=config)
    learner = experiment.learner(args)
    env, length = args.make_env(args.num_envs), args.unroll_length
    program, num_updates = compiled(learner, env, length), args.total_steps // 64
    greedy = learner.actor._replace(act=learner.actor.greedy)

    def final_return(key):
        run, _ = scanned(program, num_updates)(program.init(key))
        params = learner.params(run.learner)
        _, episodes = rollout.whole_episodes(greedy, env, params, random.key(99), 500)
        return episodes.return_.total / episodes.return_.count

    keys = jnp.stack([random.key(seed) for seed in range(3)])
    returns = jax.lax.map(final_return, keys)
    assert np.median(returns) > 475, returns
