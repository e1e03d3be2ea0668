"""A pure environment behind the simulators' contract gives what a scan gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from host_checks import check_step

from jaxrl_par import rollout
from jaxrl_par.envs import make, wrappers
from jaxrl_par.envs.host import from_pure
from jaxrl_par.testing import probes
from jaxrl_par.types import Agent

T, B = 60, 3


def acts(carry, step, key, spec):
    """Actions that depend on the key, the observation and the row."""
    noise = jax.random.randint(key, (B,), 0, spec.num_values)
    seen = sum(
        jnp.sum(jnp.abs(x).reshape(B, -1), axis=1) for x in jax.tree.leaves(step.obs)
    )
    return (noise + (seen > 1).astype(jnp.int32) + carry) % spec.num_values


def agent(spec):
    def act(params, carry, step, key):
        return acts(carry, step, key, spec), carry + 1, {}

    unused = lambda *args: None  # noqa: E731
    return Agent(unused, lambda n: jnp.zeros(n, jnp.int32), act, unused, unused, act)


def plan(key):
    """What `rollout.unroll` splits: (act keys, env keys)."""
    keys = jax.vmap(jax.random.split)(jax.random.split(key, T))
    return keys[:, 0], keys[:, 1]


def host_rows(env, step, carry, act_keys):
    rows = []
    act = jax.jit(lambda *args: acts(*args, env.action_spec))
    for key in act_keys:
        action = np.asarray(act(carry, step, key))
        carry = carry + 1
        new, reward, discount = jax.tree.map(np.array, env.step(action))
        check_step(env, new, bounds=False)
        rows.append((step, action, reward, discount))
        step = new
    return step, carry, rows


def envs():
    return {
        "CartPole": make("CartPole-v1", B),
        "Breakout": make("Breakout-MinAtar", B),
        "counter": probes.counter(B),
        "previous": wrappers.previous_action_and_reward(make("CartPole-v1", B)),
    }


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", envs())
def test_rows_are_those_of_an_unroll(name):
    pure = envs()[name]
    reset_key, key, more = jax.random.split(jax.random.key(3), 3)
    an_agent = agent(pure.action_spec)
    workers = jax.jit(lambda: rollout.start(an_agent, pure, reset_key))()
    env = from_pure(pure, reset_key)
    step = env.reset()
    check_step(env, step, bounds=False)
    carry = jnp.zeros(B, jnp.int32)
    unroll = jax.jit(
        lambda workers, key: rollout.unroll(an_agent, pure, None, workers, key, T)
    )
    for unroll_key in (key, more):
        workers, known, _ = unroll(workers, unroll_key)
        act_keys, env_keys = plan(unroll_key)
        env.plan(env_keys)
        step, carry, rows = host_rows(env, step, carry, act_keys)
        steps = jax.tree.map(lambda *x: np.stack(x), *[row[0] for row in rows], step)
        jax.tree.map(np.testing.assert_array_equal, steps, known.steps)
        for i, field in enumerate((known.action, known.reward, known.discount), 1):
            np.testing.assert_array_equal(np.stack([row[i] for row in rows]), field)
    assert steps.last.any()


def test_a_step_without_a_key_is_refused():
    env = from_pure(probes.counter(B), jax.random.key(0))
    with pytest.raises(RuntimeError, match="reset comes before"):
        env.step(np.zeros(B, int))
    env.reset()
    with pytest.raises(RuntimeError, match="no key is planned"):
        env.step(np.zeros(B, int))
    env.plan(jax.random.split(jax.random.key(1), 2))
    env.step(np.zeros(B, int))
    env.step(np.zeros(B, int))
    with pytest.raises(RuntimeError, match="no key is planned"):
        env.step(np.zeros(B, int))
    env.close()
    env.close()


def keyed(pure):
    """The environment with a typed key in its state."""

    def reset(key):
        state, step = pure.reset(key)
        return (state, key), step

    def step(env_state, action, key):
        state, kept = env_state
        kept, use = jax.random.split(kept)
        state, *rows = pure.step(state, action, use)
        return ((state, kept), *rows)

    return pure._replace(reset=reset, step=step, episode=None)


@pytest.mark.sample(1)
@pytest.mark.parametrize("wrap", [lambda env: env, keyed])
def test_a_snapshot_brings_it_back(wrap):
    pure = wrap(make("Breakout-MinAtar", B))
    act_keys, env_keys = plan(jax.random.key(4))
    env, carry = from_pure(pure, jax.random.key(0)), jnp.zeros(B, jnp.int32)
    step = env.reset()
    env.plan(env_keys)
    step, carry, _ = host_rows(env, step, carry, act_keys[:20])
    snapshot = env.snapshot()
    known = host_rows(env, step, carry, act_keys[20:])
    other = from_pure(pure, jax.random.key(9))
    restored = other.restore(snapshot)
    jax.tree.map(np.testing.assert_array_equal, restored, step)
    other.plan(env_keys[20:])
    found = host_rows(other, restored, carry, act_keys[20:])
    jax.tree.map(np.testing.assert_array_equal, found, known)


def test_it_says_what_the_environment_says():
    pure = make("CartPole-v1", B)
    env = from_pure(pure, jax.random.key(0))
    for field in ("num_envs", "observation_spec", "action_spec", "name"):
        assert getattr(env, field) == getattr(pure, field)
    assert env.max_episode_steps == pure.max_episode_steps == 500


def test_it_computes_on_the_first_cpu_device():
    env = from_pure(probes.counter(B), jax.random.key(0))
    with jax.default_device(jax.devices("cpu")[-1]):
        env.reset()
        env.plan(jax.random.split(jax.random.key(1), 1))
        env.step(np.zeros(B, int))
    devices = {x.devices().pop() for x in jax.tree.leaves(env.snapshot())}
    assert devices == {jax.devices("cpu")[0]}
