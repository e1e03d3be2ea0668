"""PPO against its equations, and on probes whose answer is known."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import random, rollout
from jaxrl_par.algorithms.ppo import PPOBatch, PPOConfig, loss, make_batch, ppo
from jaxrl_par.axis import Axis
from jaxrl_par.distributions import Categorical
from jaxrl_par.loops import epochs
from jaxrl_par.networks import Network, NetworkConfig, actor_critic
from jaxrl_par.testing import check_agent, probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.types import TimeStep, Trajectory

SMALL = NetworkConfig(widths=(16,), memory_width=16, shared=False)


def make(env, network=SMALL, config=PPOConfig(), optimizer=None):
    net = actor_critic(env.observation_spec, env.action_spec, network)
    return net, ppo(net, optimizer or optax.adam(0.01), config)


def acted(env, agent, length=6):
    @jax.jit
    def act():
        workers = rollout.start(agent, env, random.key(0))
        state = agent.init(random.key(1), workers.step)
        unroll = partial(rollout.unroll, agent, env, state.params)
        return state, unroll(workers, random.key(2), length)[1]

    return act()


def prepared(agent, state, trajectory):
    return jax.jit(lambda s, t: agent.prepare(s, t, Axis()))(state, trajectory)


def mean_return(env, network, config, num_updates=100):
    _, agent = make(env, network, config)
    program = compiled(epochs(agent, 4, 2), env, 10)
    _, metrics = jax.jit(lambda key: scanned(program, num_updates)(program.init(key)))(
        random.key(0)
    )
    total, count = metrics["episode_return"]
    half = num_updates // 2
    return float(total[half:].sum() / count[half:].sum())


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize("probe", [probes.observation_reward, probes.continuous_action])
def test_keeps_the_promises_of_an_agent(probe, memory):
    env = probe(4)
    _, agent = make(env, replace(SMALL, memory=memory))
    check_agent(agent, env)


def test_the_first_minibatch_follows_the_policy_gradient():
    """Where the policy has not moved, the ratio is 1 and nothing is clipped."""
    config = PPOConfig(normalize_advantages=False, entropy_cost=0.0, value_cost=0.0)
    env = probes.counter(3)
    net, agent = make(env, config=config)
    state, trajectory = acted(env, agent)
    batch = prepared(agent, state, trajectory)
    grads, info = jax.jit(partial(agent.grad, axis=Axis()))(state, batch, random.key(0))

    def policy_gradient(params):
        (policy, _), _ = net.unroll(params, (), trajectory.steps)
        policy = jax.tree.map(lambda x: x[:-1], policy)
        rows = policy.log_prob(trajectory.action) * batch.advantage.reshape(6, 3)
        return -jnp.sum(jnp.where(trajectory.steps.last[:-1], 0.0, rows)) / 18

    expected = jax.jit(jax.grad(policy_gradient))(state.params)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-7),
        grads,
        expected,
    )
    np.testing.assert_allclose(info.metrics["kl"].total, 0.0, atol=1e-5)
    assert info.metrics["clipped"].total == 0.0


SHOWN_VALUES = Network(
    init=lambda key, step: (),
    initial_carry=lambda num_envs: (),
    apply=lambda params, carry, step: ((None, step.obs[..., 0]), carry),
    unroll=lambda params, carry, steps: ((None, steps.obs[..., 0]), carry),
)
"""Values are what is observed, whatever the parameters."""


def stream(seed, length=7, num_envs=3):
    """Episodes that end in both ways, in environments out of step with each other."""
    rng = np.random.default_rng(seed)
    last = rng.random((length + 1, num_envs)) < 0.3
    ends = last[:-1] | (last[1:] & (rng.random((length, num_envs)) < 0.5))
    return Trajectory(
        steps=TimeStep(
            jnp.float32(rng.normal(size=(length + 1, num_envs, 1))),
            jnp.zeros(last.shape, bool),
            jnp.asarray(last),
        ),
        action=jnp.asarray(rng.integers(2, size=ends.shape), jnp.int32),
        reward=jnp.float32(np.where(last[:-1], 0.0, rng.normal(size=ends.shape))),
        discount=jnp.float32(~ends),
        extras={"log_prob": jnp.float32(rng.normal(-1.0, 0.3, ends.shape))},
        carry=(),
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_a_batch_has_the_targets_and_log_probs_of_its_stream(normalize):
    """By a loop over each environment, from TD errors to their decayed sum."""
    config = PPOConfig(gamma=0.9, gae_lambda=0.7, normalize_advantages=normalize)
    trajectory = stream(0)
    batch = make_batch((), trajectory, SHOWN_VALUES, config, Axis())
    v, last = np.asarray(trajectory.steps.obs[..., 0]), trajectory.steps.last[:-1]
    advantages = np.zeros(last.shape)
    for b in range(3):
        following = 0.0
        for t in reversed(range(7)):
            d = 0.9 * float(trajectory.discount[t, b])
            error = float(trajectory.reward[t, b]) + d * v[t + 1, b] - v[t, b]
            following = 0.0 if last[t, b] else error + 0.7 * d * following
            advantages[t, b] = following
    np.testing.assert_allclose(batch.target, (advantages + v[:-1]).ravel(), rtol=1e-4)
    if normalize:
        kept = advantages[~last]
        advantages = np.where(last, 0.0, (advantages - kept.mean()) / kept.std())
    np.testing.assert_allclose(
        batch.advantage, advantages.ravel(), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_array_equal(batch.log_prob, trajectory.extras["log_prob"].ravel())
    np.testing.assert_array_equal(batch.value, v[:-1].ravel())
    np.testing.assert_array_equal(batch.action, trajectory.action.ravel())


@pytest.mark.parametrize("normalize", [True, False])
def test_targets_of_two_rows_are_these(normalize):
    no = jnp.zeros((3, 1), bool)
    trajectory = Trajectory(
        TimeStep(jnp.array([[[1.0]], [[2.0]], [[3.0]]]), no, no),
        jnp.zeros((2, 1), jnp.int32),
        jnp.array([[1.0], [2.0]]),
        jnp.ones((2, 1)),
        {"log_prob": jnp.zeros((2, 1))},
        (),
    )
    config = PPOConfig(gamma=0.9, gae_lambda=1.0, normalize_advantages=normalize)
    batch = make_batch((), trajectory, SHOWN_VALUES, config, Axis())
    np.testing.assert_allclose(batch.target, [5.23, 4.7], rtol=1e-6)


LINEAR = Network(
    init=lambda key, step: jnp.zeros((3, 4)),
    initial_carry=lambda num_envs: (),
    apply=lambda params, carry, step: (_linear(params, step), carry),
    unroll=lambda params, carry, steps: (_linear(params, steps), carry),
)
"""Three logits and a value, from three numbers that are observed."""


def _linear(params, steps):
    outputs = steps.obs @ params
    return Categorical(outputs[..., :3]), outputs[..., 3]


def away_from_acting(seed=1, num_rows=40):
    """Rows of another policy and other values, some of which are clipped."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(5, num_rows))
    last = rng.random(num_rows) < 0.2
    batch = PPOBatch(
        steps=TimeStep(rng.normal(size=(num_rows, 3)), np.zeros_like(last), last),
        action=rng.integers(3, size=num_rows).astype(np.int32),
        log_prob=-1.1 + 0.4 * normal[0],
        value=normal[1],
        advantage=np.where(last, 0.0, normal[2]),
        target=normal[3],
        carry=(),
    )
    as_jax = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32 if x.dtype == float else x.dtype), batch
    )
    return batch, as_jax, 0.5 * rng.normal(size=(3, 4))


def loss_in_numpy(params, batch, config):
    """Schulman et al., equations 7 and 9, with values clipped as in Baselines."""
    outputs = batch.steps.obs @ params
    logits, values = outputs[:, :3], outputs[:, 3]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    entropies = -(np.exp(log_probs) * log_probs).sum(-1)
    chosen = log_probs[np.arange(len(values)), batch.action]
    ratios, a, clip = np.exp(chosen - batch.log_prob), batch.advantage, config.clip
    gains = np.minimum(ratios * a, np.clip(ratios, 1 - clip, 1 + clip) * a)
    errors = np.square(values - batch.target)
    if config.clip_values:
        near = batch.value + np.clip(values - batch.value, -clip, clip)
        errors = np.maximum(errors, np.square(near - batch.target))
    rows = -gains + config.value_cost * 0.5 * errors - config.entropy_cost * entropies
    return np.sum(np.where(batch.steps.last, 0.0, rows)) / len(rows)


@pytest.mark.parametrize("clip_values", [True, False])
def test_the_loss_and_its_gradient_are_those_of_the_equations(clip_values):
    config = PPOConfig(clip_values=clip_values, entropy_cost=0.3, value_cost=0.7)
    batch, as_jax, params = away_from_acting()
    given = (jnp.float32(params), as_jax, LINEAR, config)
    (found, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(*given)
    np.testing.assert_allclose(found, loss_in_numpy(params, batch, config), rtol=1e-5)
    expected = np.zeros_like(params)
    for index in np.ndindex(*params.shape):
        step = np.zeros_like(params)
        step[index] = 1e-6
        up, down = (loss_in_numpy(params + s, batch, config) for s in (step, -step))
        expected[index] = (up - down) / 2e-6
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)
    assert 0 < metrics["clipped"].total < metrics["clipped"].count


def test_values_that_moved_too_far_make_another_loss():
    """So that the two settings above differ."""
    batch, _, params = away_from_acting()
    both = [
        loss_in_numpy(params, batch, PPOConfig(clip_values=x)) for x in (True, False)
    ]
    assert abs(both[0] - both[1]) > 0.01


@pytest.mark.slow
def test_a_row_whose_ratio_overflows_leaves_a_finite_gradient():
    _, batch, params = away_from_acting()
    far = batch.log_prob.at[0].set(-200.0).at[1].set(-200.0)
    last = batch.steps.last.at[0].set(False).at[1].set(True)
    advantage = batch.advantage.at[0].set(1.0).at[1].set(0.0)
    batch = batch._replace(
        log_prob=far, advantage=advantage, steps=batch.steps._replace(last=last)
    )
    given = (jnp.float32(params), batch, LINEAR, PPOConfig())
    (found, _), gradient = jax.value_and_grad(loss, has_aux=True)(*given)
    assert np.isfinite(found) and np.all(np.isfinite(gradient))


def test_advantages_are_normalised_over_all_devices_and_targets_are_not():
    """With values 2 t + b of environment b, two of which share each of two devices."""
    rows, columns = np.mgrid[:4, :4]
    obs = jnp.float32(2 * rows + columns)[..., None]
    last = jnp.zeros((4, 4), bool).at[1, 2].set(True)
    trajectory = Trajectory(
        steps=TimeStep(obs, jnp.zeros((4, 4), bool), last),
        action=jnp.zeros((3, 4), jnp.int32),
        reward=jnp.where(last[:3], 0.0, jnp.arange(12.0).reshape(3, 4)),
        discount=jnp.where(last[:3], 0.0, 1.0),
        extras={"log_prob": jnp.full((3, 4), -1.0)},
        carry=(),
    )
    config = PPOConfig(gamma=0.5, gae_lambda=0.0)

    def make(axis, trajectory):
        return make_batch((), trajectory, SHOWN_VALUES, config, axis)

    devices = jax.tree.map(lambda x: jnp.stack(jnp.split(x, 2, axis=1)), trajectory)
    batch = jax.vmap(partial(make, Axis("data")), axis_name="data")(devices)
    joined = jax.tree.map(
        lambda x: np.concatenate(x.reshape(2, 3, 2, *x.shape[2:]), axis=1), batch
    )
    v = np.asarray(obs[..., 0])
    errors = trajectory.reward + 0.5 * trajectory.discount * v[1:] - v[:-1]
    kept = ~np.asarray(last[:3])
    errors = np.where(kept, errors, 0.0)
    mean, deviation = errors[kept].mean(), errors[kept].std()
    expected = np.where(kept, (errors - mean) / deviation, 0.0)
    np.testing.assert_allclose(joined.advantage, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(joined.value, v[:-1])
    np.testing.assert_allclose(joined.target, errors + v[:-1], rtol=1e-5)
    np.testing.assert_array_equal(joined.steps.last, last[:3])


@pytest.mark.slow
def test_minibatches_of_one_epoch_are_all_rows_once():
    """Summed over the minibatches, the gradient of an unmoved policy is the batch's."""
    env = probes.counter(4)
    _, agent = make(env, optimizer=optax.sgd(0.0))
    state, trajectory = acted(env, agent, length=8)
    batch = prepared(agent, state, trajectory)
    gradient = jax.jit(partial(agent.grad, axis=Axis()))
    whole, _ = gradient(state, batch, random.key(0))
    rows = random.permutation(random.key(3), 32).reshape(4, 8)
    parts = [
        gradient(state, jax.tree.map(lambda x: x[r], batch), random.key(0))[0]  # noqa: B023
        for r in rows
    ]
    mean = jax.tree.map(lambda *x: sum(x) / 4, *parts)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), mean, whole
    )


@pytest.mark.slow
def test_sequences_keep_their_memory_in_a_minibatch():
    env = probes.memory(4)
    net, agent = make(env, replace(SMALL, memory="lstm"))
    state, trajectory = acted(env, agent, length=7)
    carry = jax.tree.map(lambda x: random_like(x, random.key(5)), trajectory.carry)
    trajectory = trajectory._replace(carry=carry)
    batch = prepared(agent, state, trajectory)
    chosen = jnp.array([2, 0])
    part = jax.tree.map(lambda x: x[chosen], batch)
    rows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), part.steps)
    (_, values), _ = net.unroll(state.params, part.carry, rows)
    (_, all_values), _ = net.unroll(state.params, carry, trajectory.steps)
    np.testing.assert_allclose(values, all_values[:-1, chosen], rtol=1e-5, atol=1e-6)


def random_like(x, key):
    return jax.random.normal(key, x.shape)


@pytest.mark.slow
def test_solves_the_contextual_bandit():
    assert mean_return(probes.observation_reward(16), SMALL, PPOConfig()) > 0.95


@pytest.mark.slow
def test_remembers_with_memory():
    env = probes.memory(32)
    assert mean_return(env, replace(SMALL, memory="gru"), PPOConfig(), 200) > 0.9


def test_minibatches_must_divide_the_rows():
    env = probes.observation_reward(4)
    _, agent = make(env)
    program = compiled(epochs(agent, 1, 3), env, 5)
    run = jax.eval_shape(program.init, random.key(0))
    with pytest.raises(ValueError, match="num_minibatches = 3 does not divide the 20"):
        jax.eval_shape(program.step, run)


def test_wrong_numbers_are_named():
    problems = PPOConfig(gamma=1.5, gae_lambda=-0.1, clip=0.0).problems()
    assert len(problems) == 3
    assert any("gamma must be in [0, 1], got 1.5" in problem for problem in problems)
