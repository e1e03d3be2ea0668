"""A critic beside a policy: what it tells, and about which policy it learns."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import loops, random, rollout
from jaxrl_par.algorithms.actor_critic import CriticConfig, critic_of
from jaxrl_par.algorithms.trust_region import QPropConfig, q_prop
from jaxrl_par.axis import Axis
from jaxrl_par.distributions import DiagNormal
from jaxrl_par.networks import (
    Network,
    NetworkConfig,
    action_value,
    actor_critic,
    policy_network,
)
from jaxrl_par.replay import Windows, uniform
from jaxrl_par.testing import probes
from jaxrl_par.types import Box, TimeStep, Trajectory

ENV = probes.continuous_action(4)
SMALL = NetworkConfig(widths=(4,))


@pytest.mark.slow
def test_the_critic_tells_of_actions_it_has_not_seen_and_learns_of_the_new_policy():
    specs = ENV.specs
    actor, values = policy_network(*specs, SMALL), actor_critic(*specs, SMALL)
    policy = q_prop(actor, values, optax.sgd(0.1), QPropConfig(value_steps=1))
    judge = action_value(*specs, SMALL)
    critic = critic_of(actor, judge, specs[1], optax.sgd(0.1), CriticConfig(0.9))
    buffer = uniform(4, 3, Windows(1), min_size=1)
    learner = loops.replayed(critic.agent, buffer)

    def tell(state, own, trajectory):
        (acted, _), _ = actor.unroll(own.params["actor"], (), trajectory.rows)
        return {"slope": critic.slope(state.critics, trajectory.rows, acted.mode())}

    whole = loops.judged(policy, learner, tell, lambda own: own.params["actor"])

    @jax.jit
    def both():
        streams = rollout.start(policy, ENV, random.key(0))
        state = whole.init(random.key(1), streams.step)
        given = policy, ENV, whole.params(state), streams, random.key(2), 5
        _, trajectory, _ = rollout.unroll(*given)
        data = whole.start(trajectory)
        keys = jax.random.split(random.key(3))
        after, kept, _ = whole.learn(state, data, trajectory, random.key(3), Axis())
        # By hand: the policy, then the critic.
        more = trajectory.extras | tell(state.critic, state.policy, trajectory)
        informed = trajectory._replace(extras=more)
        own, _ = loops.learn(policy, state.policy, informed, keys[0])
        known = state.critic._replace(policy=own.params["actor"])
        judged, _, _ = learner.learn(known, data.critic, trajectory, keys[1], Axis())
        return state, after, own, judged._replace(policy=()), kept

    before, after, own, judged, kept = both()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), after.policy, own)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), after.critic, judged)
    assert int(kept.critic.size) == 4 and "slope" not in kept.critic.items.extras
    moved = [
        not np.array_equal(*x)
        for x in zip(*map(jax.tree.leaves, (before.critic, after.critic)), strict=True)
    ]
    assert any(moved) and after.critic.policy == ()


def linear():
    """Q(o, u) = o + (w + o) u with w = 3, and a policy with mean p o."""

    def value(params, carry, steps):
        obs, unit = steps.obs
        return (obs[..., 0] + (params + obs[..., 0]) * unit[..., 0]), carry

    def policy(params, carry, steps):
        return (DiagNormal(params * steps.obs, jnp.zeros_like(steps.obs)), ()), carry

    def init(key, step):
        return jnp.float32(3.0)

    nets = [Network(init, lambda n: (), x, x) for x in (policy, value)]
    box = Box((1,), low=-2.0, high=2.0)
    return critic_of(*nets, box, optax.sgd(1.0), CriticConfig(0.5, num_critics=1))


def test_values_are_of_what_the_environment_makes_of_an_action():
    """Bounds of 2: actions of 1 and 7 are 0.5 and 1 in their units."""
    critic = linear()
    obs = jnp.array([[[0.2], [1.0]], [[0.1], [-4.0]]])
    flags = jnp.zeros((2, 2), bool)
    action = jnp.array([[[1.0], [7.0]]])
    reward, discount = jnp.array([[1.0, 2.0]]), jnp.ones((1, 2))
    batch = Trajectory(TimeStep(obs, flags, flags), action, reward, discount, {}, ())
    step = jax.tree.map(lambda x: x[0], batch.steps)
    state = critic.agent.init(random.key(0), step)._replace(policy=jnp.float32(5.0))
    given = state, batch, random.key(0), Axis()
    grads, info = jax.jit(critic.agent.grad, static_argnums=3)(*given)
    # mu = 5 o: 0.5, and -20, which is -1 in units of its bound.
    y = [1 + 0.5 * (0.1 + 3.1 * 0.25), 2 + 0.5 * (-4 + (3 - 4) * -1)]
    q = [0.2 + 3.2 * 0.5, 1 + 4 * 1]
    np.testing.assert_allclose(info.metrics["target"].total, sum(y), rtol=1e-5)
    np.testing.assert_allclose(info.metrics["q_value"].total, sum(q), rtol=1e-5)
    right = ((q[0] - y[0]) * 0.5 + (q[1] - y[1]) * 1) / 2
    np.testing.assert_allclose(grads, [right], rtol=1e-5)
    slopes = jax.jit(critic.slope)(state.critics, batch.rows, action)
    # In units of the environment, and none beyond a bound.
    np.testing.assert_allclose(slopes[0, :, 0], [3.2 / 2, 0.0], rtol=1e-6)
