"""PPG's auxiliary phase against its equations."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import random, rollout
from jaxrl_par.algorithms.ppg import PPGConfig, auxiliary, loss, value_targets
from jaxrl_par.axis import Axis
from jaxrl_par.loops import learn
from jaxrl_par.networks import NetworkConfig, actor_critic, separate
from jaxrl_par.testing import probes

ENV = probes.counter(4)


@cache
def networks(memory="none"):
    """(actor, critic, both)"""
    config = NetworkConfig(widths=(8,), memory=memory, memory_width=8)
    actor, critic = (actor_critic(*ENV.specs, config) for _ in range(2))
    return actor, critic, separate(actor, critic)


@cache
def acted(memory="none", clone_cost=1.0):
    """(agent, state, trajectory with random targets, prepared batch)"""
    actor, critic, _ = networks(memory)
    agent = auxiliary(actor, critic, optax.adam(0.02), PPGConfig(clone_cost))

    @jax.jit
    def made():
        streams = rollout.start(agent, ENV, random.key(0))
        state = agent.init(random.key(1), streams.step)
        given = (agent, ENV, state.params, streams, random.key(2), 6)
        _, trajectory, _ = rollout.unroll(*given)
        target = jax.random.normal(random.key(3), trajectory.reward.shape)
        trajectory = trajectory._replace(extras={"target": target})
        return state, trajectory, agent.prepare(state, trajectory, Axis())

    return (agent, *made())


def waves(params):
    """Parameters with a policy that is no longer near uniform."""
    return jax.tree.map(lambda x: jnp.sin(jnp.arange(x.size)).reshape(x.shape), params)


@pytest.mark.sample(1)
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_the_policy_has_not_moved_at_the_first_minibatch(memory):
    """KL(pi_old || pi) is 0 there, and has no slope: whatever it costs."""
    actor, critic, _ = networks(memory)
    _, state, _, batch = acted(memory)
    given = {"actor": actor, "critic": critic}

    @jax.jit
    def grads(cost):
        of_batch = partial(loss, config=PPGConfig(clone_cost=cost), **given)
        return jax.grad(of_batch, has_aux=True)(state.params, batch)

    (free, told), (held, _) = grads(0.0), grads(1e3)
    assert abs(float(told["kl"].total)) < 1e-5 and float(told["kl"].count) > 0
    for x, y in zip(jax.tree.leaves(free), jax.tree.leaves(held), strict=True):
        assert np.linalg.norm(x - y) < 1e-3


def test_the_loss_is_its_three_terms():
    """Against NumPy, with another policy than that of before."""
    actor, critic, _ = networks()
    _, state, trajectory, batch = acted()
    steps, last = trajectory.rows, np.asarray(trajectory.rows.last)
    assert last.any() and not last.all()

    @jax.jit
    def said(params):
        (old, _), _ = actor.unroll(state.params["actor"], (), steps)
        (new, guess), _ = actor.unroll(params["actor"], (), steps)
        (_, value), _ = critic.unroll(params["critic"], (), steps)
        return loss(params, batch, **given), old.log_probs, new.log_probs, guess, value

    given = {"actor": actor, "critic": critic, "config": PPGConfig(0.7)}
    (total, told), old, new, guess, value = said(waves(state.params))
    p, q = np.exp(old), np.exp(new)
    kl = np.sum(p * np.log(p / q), axis=-1)
    target = np.asarray(trajectory.extras["target"])
    rows = 0.7 * kl + (guess - target) ** 2 / 2 + (value - target) ** 2 / 2
    assert np.all(kl[~last] > 1e-4)
    np.testing.assert_allclose(total, np.sum(rows[~last]) / last.size, rtol=1e-4)
    np.testing.assert_allclose(told["kl"].total, np.sum(kl[~last]), rtol=1e-3)


@pytest.mark.slow
def test_targets_are_those_of_gae():
    """Backwards through the rows, as in the paper."""
    _, _, both = networks()
    _, state, trajectory, _ = acted()
    targets = value_targets(both, 0.9, 0.8)(state.params, trajectory)
    (_, v), _ = both.unroll(state.params, (), trajectory.steps)
    v, advantage = np.asarray(v), np.zeros(4)
    for t in reversed(range(6)):
        last = np.asarray(trajectory.steps.last[t])
        follows = 0.9 * trajectory.discount[t]
        error = trajectory.reward[t] + follows * v[t + 1] - v[t]
        advantage = np.where(last, 0, error + follows * 0.8 * advantage)
        np.testing.assert_allclose(targets[t], advantage + v[t], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_policy_moves_less_where_it_costs_more():
    """The values are learned all the same."""
    actor, _, _ = networks()
    moved, errors = [], []
    for cost in (0.0, 1.0, 100.0):
        agent, state, trajectory, _ = acted(clone_cost=cost)
        before = state._replace(params=waves(state.params))
        passes = {"num_epochs": 30, "num_minibatches": 2}
        phase = jax.jit(partial(learn, agent, **passes))
        state, told = phase(before, trajectory, random.key(5))
        (old, _), _ = actor.unroll(before.params["actor"], (), trajectory.rows)
        (new, _), _ = actor.unroll(state.params["actor"], (), trajectory.rows)
        moved.append(float(jnp.mean(old.kl(new))))
        errors.append(float(told["head_loss"].total / told["head_loss"].count))
    assert moved[0] > 3 * moved[1] > 9 * moved[2]
    assert max(errors) < 2 * min(errors)


def test_a_cost_below_zero_is_refused():
    actor, critic, both = networks()
    with pytest.raises(ValueError, match="clone_cost must be at least 0, got -1"):
        auxiliary(actor, critic, optax.sgd(0.1), PPGConfig(-1.0))
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got 2"):
        value_targets(both, 2.0, 0.9)
