"""Each check accepts what is right, and each of its assertions rejects what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import losses
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.envs.wrappers import scale_rewards
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import (
    check_agent,
    check_environment,
    check_learns,
    check_network,
    probes,
)
from jaxrl_par.types import Box, Discrete

COUNTER = probes.counter(4)


def network(env, memory="none", **config):
    settings = NetworkConfig(widths=(8,), memory=memory, memory_width=4, **config)
    return actor_critic(env.observation_spec, env.action_spec, settings)


# Environments --------------------------------------------------------------------


def stepping(change, env=COUNTER):
    """With `change` of what a step returns: (env_state, step, reward, discount)."""

    def step(env_state, action, key):
        return change(*env.step(env_state, action, key))

    return env._replace(step=step)


def rewarding(change):
    return stepping(
        lambda state, step, reward, d: (state, step, change(step, reward), d)
    )


def discounting(change):
    return stepping(lambda state, step, r, discount: (state, step, r, change(discount)))


def showing(change, spec=COUNTER.observation_spec):
    """With `change` of every TimeStep."""

    def reset(key):
        env_state, step = COUNTER.reset(key)
        return env_state, change(step)

    env = stepping(lambda state, step, r, d: (state, change(step), r, d))
    return env._replace(reset=reset, observation_spec=spec)


def flagging(change):
    """With `change` of the flags of every step but those of reset."""
    return stepping(
        lambda state, step, r, d: (state, step._replace(**change(step)), r, d)
    )


def half_precision(tree):
    def leaf(x):
        return x.astype(jnp.float16) if x.dtype == jnp.float32 else x

    return jax.tree.map(leaf, tree)


def counting_in_python():
    """Shows how often it was called on the host."""
    calls = iter(range(10**6))

    def change(step):
        called = jax.pure_callback(
            lambda _: np.float32(next(calls)),
            jax.ShapeDtypeStruct((), jnp.float32),
            step.obs,
            vmap_method="sequential",
        )
        return step._replace(obs=step.obs + called)

    return showing(change)


def drawing_while_tracing():
    rng = np.random.default_rng(0)
    return showing(lambda step: step._replace(obs=step.obs + np.float32(rng.random())))


def acting_when_last():
    def step(env_state, action, key):
        env_state, step, reward, discount = COUNTER.step(env_state, action, key)
        obs = step.obs + (step.first * action)[:, None]
        return env_state, step._replace(obs=obs), reward, discount

    return COUNTER._replace(step=step)


def all_alike():
    def step(env_state, action, key):
        env_state, step, reward, discount = COUNTER.step(env_state, action, key)
        obs = step.obs + jax.random.uniform(key)
        return env_state, step._replace(obs=obs), reward, discount

    return COUNTER._replace(step=step)


def reporting(**wrong):
    def episode(env_state):
        right = COUNTER.episode(env_state)
        return right._replace(**{k: getattr(right, k) + x for k, x in wrong.items()})

    return COUNTER._replace(episode=episode)


BROKEN_ENVIRONMENTS = {
    "keeps no statistics": COUNTER._replace(episode=None),
    "'reward'.* is weakly typed": rewarding(
        lambda step, reward: jnp.where(reward > 0, 1.0, 0.0)
    ),
    "the state of step.*float16": stepping(
        lambda state, *rest: (half_precision(state), *rest)
    ),
    "the TimeStep of step.*obs is float16": stepping(
        lambda state, step, r, d: (state, half_precision(step), r, d)
    ),
    r"reward must be float32 \[4\], is float16": rewarding(
        lambda step, reward: half_precision(reward)
    ),
    r"discount must be float32 \[4\], is float32 \[4, 1\]": discounting(
        lambda discount: discount[:, None]
    ),
    r"first must be bool \[4\], is float32": showing(
        lambda step: step._replace(first=step.first.astype(jnp.float32))
    ),
    "observation_spec has the leaves": COUNTER._replace(
        observation_spec={"image": Box((2,))}
    ),
    r"obs is float32 \[4, 2\], its spec says float32 \[4, 3\]": COUNTER._replace(
        observation_spec=Box((3,))
    ),
    "row 3, environment 0: obs is not finite": showing(
        lambda step: step._replace(obs=jnp.where(step.last[:, None], jnp.nan, step.obs))
    ),
    r"row 2, environment 0: obs is outside \[0.0, 1.0\]": COUNTER._replace(
        observation_spec=Box((2,), low=0.0, high=1.0)
    ),
    r"row 2, environment 0: obs is outside \[0, 1\]": showing(
        lambda step: step._replace(obs=step.obs[:, 1].astype(jnp.int32)), Discrete(2)
    ),
    "row 0, environment 0: reset shows a step that is not first": COUNTER._replace(
        reset=lambda key: (
            COUNTER.reset(key)[0],
            COUNTER.reset(key)[1]._replace(first=jnp.zeros(4, bool)),
        )
    ),
    "row 3, environment 0: a step is first and last": flagging(
        lambda step: {"first": step.first | step.last}
    ),
    "row 3, environment 0: the step is last, but the next one is not": flagging(
        lambda step: {"first": jnp.zeros_like(step.first)}
    ),
    "row 3, environment 0: the step is not last, but the next one is": flagging(
        lambda step: {"last": jnp.zeros_like(step.last)}
    ),
    "row 3, environment 0: the reward is not finite": rewarding(
        lambda step, reward: jnp.where(step.first, jnp.inf, reward)
    ),
    "row 3, environment 0: the step is last, but pays": rewarding(
        lambda step, reward: reward + 1.0
    ),
    "row 3, environment 0: the step is last, but its discount": discounting(
        jnp.ones_like
    ),
    "row 0, environment 0: the discount is neither 0 nor 1": discounting(
        lambda discount: 0.99 * discount
    ),
    "row 0, environment 0: the discount is 0": discounting(jnp.zeros_like),
    "row 2, environment 0: the episode is longer than 2": COUNTER._replace(
        max_episode_steps=2
    ),
    "row 0, environment 0: the episode's length": reporting(length=1),
    "row 0, environment 0: the episode's return": reporting(return_=1.0),
    "when called again": counting_in_python(),
    "vmap changes the numbers": drawing_while_tracing(),
    "the action at a step that is last": acting_when_last(),
    "all environments show the same": all_alike(),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("message", BROKEN_ENVIRONMENTS)
def test_broken_environments_are_rejected(message):
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        check_environment(BROKEN_ENVIRONMENTS[message], 20)


@pytest.mark.slow
def test_rewards_of_wrapped_environments_may_differ_from_the_statistics():
    env = scale_rewards(COUNTER, 2.0)
    check_environment(env, 20, rewards_changed=True)
    with pytest.raises(AssertionError, match="the episode's return"):
        check_environment(env, 20)


# Networks ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory", "shared"),
    [("none", True), ("lstm", True), ("gru", False), ("gtrxl", True)],
)
def test_networks_are_accepted(memory, shared):
    env = probes.memory(4)
    check_network(network(env, memory, shared=shared), env)


def applying(change):
    """An LSTM with `change` of what `apply` returns: (outputs, carry)."""
    right = network(COUNTER, "lstm")
    return right._replace(
        apply=lambda params, carry, step: change(*right.apply(params, carry, step))
    )


def never_cleared(*, apply=True, unroll=True):
    right = network(COUNTER, "lstm")

    def without(function):
        def wrong(params, carry, step):
            step = step._replace(first=jnp.zeros_like(step.first))
            return function(params, carry, step)

        return wrong

    return right._replace(
        apply=without(right.apply) if apply else right.apply,
        unroll=without(right.unroll) if unroll else right.unroll,
    )


def mixing_environments():
    right = network(COUNTER, "lstm")

    def mixed(outputs):
        policy, values = outputs
        return policy, values - jnp.mean(values, axis=-1, keepdims=True)

    def apply(params, carry, step):
        outputs, carry = right.apply(params, carry, step)
        return mixed(outputs), carry

    def unroll(params, carry, steps):
        outputs, carry = right.unroll(params, carry, steps)
        return mixed(outputs), carry

    return right._replace(apply=apply, unroll=unroll)


BROKEN_NETWORKS = {
    "apply does not clear the memory": never_cleared(),
    r"initial_carry.cell is \[5, 4\]": network(COUNTER, "lstm")._replace(
        initial_carry=lambda num_envs: network(COUNTER, "lstm").initial_carry(5)
    ),
    "the carry of apply.cell is float16": applying(
        lambda outputs, carry: (outputs, half_precision(carry))
    ),
    "unroll differs from apply": never_cleared(apply=False),
    "the carry of apply is PyTreeDef": applying(lambda outputs, carry: (outputs, ())),
    "outputs of apply: .* is not finite": applying(
        lambda outputs, carry: (jax.tree.map(jnp.log, outputs), carry)
    ),
    "depends on the others": mixing_environments(),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("message", BROKEN_NETWORKS)
def test_broken_networks_are_rejected(message):
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        check_network(BROKEN_NETWORKS[message], COUNTER, 4)


# Agents --------------------------------------------------------------------------


def agent(env=COUNTER, algorithm=a2c, memory="none", **config):
    return algorithm(network(env, memory), optax.sgd(0.1), **config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "algorithm", "memory", "config"),
    [
        (COUNTER, a2c, "lstm", {}),
        (probes.constant_reward(4, continuing=True), a2c, "none", {}),
        (probes.continuous_action(4), ppo, "gru", {}),
        (COUNTER, a2c, "none", {"config": A2CConfig(reduction="sum")}),
    ],
)
def test_agents_are_accepted(env, algorithm, memory, config):
    check_agent(agent(env, algorithm, memory, **config), env)


def acting(change, name="act"):
    """With `change` of what `act` returns: (action, carry, extras)."""
    right = agent()

    def act(params, carry, step, key):
        return change(*getattr(right, name)(params, carry, step, key))

    return right._replace(**{name: act})


def drawing_extras_while_tracing():
    rng = np.random.default_rng(0)
    return acting(
        lambda action, carry, _: (action, carry, {"draw": jnp.full(4, rng.random())})
    )


def learning_from_last_rows(env=COUNTER):
    right = agent(env)

    def grad(state, batch, key, axis):
        steps = batch.steps._replace(last=jnp.zeros_like(batch.steps.last))
        return right.grad(state, batch._replace(steps=steps), key, axis)

    return right._replace(grad=grad)


def applying_in_half_precision():
    right = agent()

    def apply(state, grads, metrics):
        return half_precision(right.apply(state, grads, metrics))

    return right._replace(apply=apply)


def without_gradient():
    right = agent()

    def grad(state, batch, key, axis):
        grads, info = right.grad(state, batch, key, axis)
        return jax.tree.map(lambda x: x / 0.0, grads), info

    return right._replace(grad=grad)


def dividing_by_its_own_rows():
    """The mean over rows that are not last: halves may have different numbers."""
    right = agent()

    def grad(state, batch, key, axis):
        grads, info = right.grad(state, batch, key, axis)
        weight = losses.row_mean(batch.reward, batch.steps.last[:-1]).count
        return jax.tree.map(lambda x: x * batch.reward.size / weight, grads), info

    return right._replace(grad=grad)


BROKEN_AGENTS = {
    r"act gives actions float32 \[4\], the environment takes int32": acting(
        lambda action, carry, extras: (action * 1.0, carry, extras)
    ),
    r"greedy gives actions int32 \[4, 1\]": acting(
        lambda action, carry, extras: (action[:, None], carry, extras), "greedy"
    ),
    r"act gives actions outside 0 \.\. 1": acting(
        lambda action, carry, extras: (action + 2, carry, extras)
    ),
    "the carry of act is PyTreeDef": acting(
        lambda action, carry, extras: (action, jnp.zeros(4), extras)
    ),
    r"extras of act\['x'\] is \[3\]": acting(
        lambda action, carry, extras: (action, carry, {"x": jnp.zeros(3)})
    ),
    "the same key gave another action": drawing_extras_while_tracing(),
    "greedy depends on its key": agent()._replace(greedy=agent().act),
    "the gradient: .* is not finite": without_gradient(),
    "the state after apply.* is float16": applying_in_half_precision(),
    "at steps that are last change the gradient": learning_from_last_rows(),
    "the sum of the gradients of two halves": agent()._replace(reduction="sum"),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("message", BROKEN_AGENTS)
def test_broken_agents_are_rejected(message):
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        check_agent(BROKEN_AGENTS[message], COUNTER)


@pytest.mark.sample(1)
@pytest.mark.parametrize("field", ["action", "reward"])
def test_each_field_of_rows_that_are_last_is_changed(field):
    right = agent()

    def grad(state, batch, key, axis):
        grads, info = right.grad(state, batch, key, axis)
        weight = jnp.mean(getattr(batch, field).astype(jnp.float32))
        return jax.tree.map(lambda x: x * weight, grads), info

    with pytest.raises(AssertionError, match="at steps that are last"):
        check_agent(right._replace(grad=grad), COUNTER)


def test_rows_that_are_last_are_made_where_episodes_are_long():
    env = probes.constant_reward(4, continuing=True)
    with pytest.raises(AssertionError, match="at steps that are last"):
        check_agent(learning_from_last_rows(env), env)


def test_a_denominator_that_differs_between_halves_is_rejected():
    # Its first environments end more often than the others.
    with pytest.raises(AssertionError, match="the mean of the gradients of two halves"):
        check_agent(dividing_by_its_own_rows(), probes.clock(4))


def test_an_odd_number_of_environments_cannot_be_halved():
    env = probes.counter(3)
    with pytest.raises(ValueError, match="num_envs must be even, to be halved, got 3"):
        check_agent(agent(env), env)


# Learning ------------------------------------------------------------------------


@pytest.mark.slow
def test_learning_is_told_from_not_learning():
    env = probes.observation_reward(16)
    reader = network(env)
    state = check_learns(a2c(reader, optax.adam(0.03)), env, 0.9, num_updates=100)
    step = env.reset(jax.random.key(0))[1]
    (_, values), _ = jax.jit(reader.apply)(state.params, (), step)
    assert jnp.allclose(values, 1.0, atol=0.2)
    with pytest.raises(
        AssertionError, match=r"observation_reward returns 0\.\d+ after"
    ):
        check_learns(a2c(reader, optax.sgd(0.0)), env, 0.9, num_updates=10)


@pytest.mark.slow
def test_episodes_that_never_end_have_no_return():
    env = probes.constant_reward(4, continuing=True)
    with pytest.raises(AssertionError, match="no episode of constant_reward ended"):
        check_learns(agent(env), env, 0.0, num_updates=2)
