"""Parts of a state do what the whole would, and nothing of it is lost or doubled."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_workers import TOY, Toy

from jaxrl_par.agents import TrainState
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.bridge.parameter_server.shards import SCALARS, Shards
from jaxrl_par.elapsed import passed
from jaxrl_par.loops import Gradient
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.networks import NetworkConfig, actor_critic, q_network
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.testing import probes
from jaxrl_par.types import Agent

ENV = probes.counter(2)
NORM = 0.5
"""To which gradients are clipped."""


def network(make=actor_critic):
    config = NetworkConfig(widths=(3,))
    return make(ENV.observation_spec, ENV.action_spec, config)


def optimizer(name="adam", norm=NORM):
    config = OptimizerConfig(name=name, max_grad_norm=norm, anneal=False)
    return make_optimizer(config)


AGENTS = {
    "flat adam": lambda: a2c(network(), optimizer()),
    "flat rmsprop": lambda: a2c(network(), optimizer("rmsprop")),
    "flat sgd": lambda: a2c(network(), optimizer("sgd")),
    "adam": lambda: a2c(network(), optax.adam(0.1)),
    "clipped adam": lambda: a2c(
        network(), optax.chain(optax.clip_by_global_norm(NORM), optax.adam(0.1))
    ),
    "q": lambda: q_learning(
        network(q_network), optimizer("rmsprop"), QConfig(target_period=2)
    ),
}
by_agent = pytest.mark.parametrize("name", AGENTS)


@cache
def given(name):
    """(agent, state, three gradients); norms are about 4, 4 and 0.04"""
    agent = AGENTS[name]()
    key = jax.random.key(1)
    step = jax.jit(ENV.reset)(key)[1]
    state = jax.jit(agent.init)(key, step)
    tree = state.online if name == "q" else state.params
    leaves, tree = jax.tree.flatten(tree)
    random = np.random.default_rng(0)
    grads = [
        tree.unflatten([jnp.float32(c * random.normal(size=x.shape)) for x in leaves])
        for c in (1.0, 1.0, 0.01)
    ]
    return agent, state, grads


@cache
def shards(name, num_shards, config=StalenessConfig()):
    agent, state, grads = given(name)
    return Shards(agent.apply, state, grads[0], num_shards, config)


def bits(x):
    return np.asarray(x).view(np.uint32)


def assert_equal(actual, expected):
    """Bit for bit, and of one structure."""
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(bits(x), bits(y)),
                 actual, expected)  # fmt: skip


ENV_STEPS = 5


def part_of(grads):
    return Gradient(grads, {}, np.int32(ENV_STEPS), np.bool_(True))


def applied(divided, parts, grads, staleness=0):
    done = [
        divided.apply(part, g, np.int32(staleness))
        for part, g in zip(parts, divided.divide(part_of(grads)), strict=True)
    ]
    metrics = [dict(zip(SCALARS, np.asarray(x), strict=True)) for _, x in done]
    return [x for x, _ in done], metrics


@pytest.mark.sample(1)
@by_agent
@pytest.mark.parametrize("num_shards", [3, 1, 2])
def test_what_is_split_is_joined(name, num_shards):
    agent, state, grads = given(name)
    # All leaves differ from what they are at the start.
    state = jax.jit(agent.apply)(state, grads[0], {})
    divided = shards(name, num_shards)
    parts = divided.split(state)
    assert len(parts) == num_shards
    assert_equal(divided.join(parts), state)


@pytest.mark.sample(3)
@by_agent
@pytest.mark.parametrize("num_shards", [2, 3])
def test_a_part_of_a_gradient_is_as_long_as_the_whole(name, num_shards):
    divided = shards(name, num_shards)
    for grads in given(name)[2]:
        parts = [x.grads for x in divided.divide(part_of(grads))]
        assert len(parts) == num_shards
        whole = np.concatenate([np.ravel(x) for x in jax.tree.leaves(grads)])
        own = np.concatenate([np.asarray(x)[:-1] for x in parts])
        np.testing.assert_array_equal(own, whole)
        sizes = [len(x) - 1 for x in parts]
        assert max(sizes) - min(sizes) <= 1
        for part in parts:
            norm = np.linalg.norm(np.float64(part))
            np.testing.assert_allclose(
                norm, np.linalg.norm(np.float64(whole)), rtol=1e-6
            )


def test_what_is_small_beside_the_rest_keeps_the_length_of_the_rest():
    """Also of a shard that has nearly all of the norm: no difference is taken."""
    toy = Toy(jnp.zeros(4), jnp.zeros(4), jnp.int32(0))
    divided = Shards(TOY.apply, toy, toy.params, 2, StalenessConfig())
    whole = part_of(jnp.array([3e4, 4e4, 3e-3, 4e-3]))
    large, small = (x.grads for x in divided.divide(whole))
    np.testing.assert_allclose(large[-1], 5e-3, rtol=1e-5)
    np.testing.assert_allclose(small[-1], 5e4, rtol=1e-5)


@pytest.mark.sample(1)
@by_agent
@pytest.mark.parametrize("num_shards", [2, 3])
def test_updates_of_the_parts_are_that_of_the_whole(name, num_shards):
    """With and without clipping, over several updates."""
    agent, state, grads = given(name)
    divided, apply = shards(name, num_shards), jax.jit(agent.apply)
    parts = divided.split(state)
    for g in grads:
        state = passed(apply(state, g, {}), ENV_STEPS)
        parts, metrics = applied(divided, parts, g)
        norm = optax.tree.norm(g)
        for x in metrics:
            np.testing.assert_allclose(x["grad_norm"], norm, rtol=1e-5)
            assert x["skipped"] == x["rejected"] == x["lag"] == 0
    joined = divided.join(parts)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        joined, state,
    )  # fmt: skip
    assert jax.tree.structure(joined) == jax.tree.structure(state)


def test_without_clipping_those_of_sgd_are_so_bit_for_bit():
    """A root of a vector may differ in its last bit from that of its part."""
    agent = a2c(network(), optimizer("sgd", norm=1e9))
    _, state, grads = given("flat sgd")
    divided = Shards(agent.apply, state, grads[0], 3, StalenessConfig())
    parts, apply = divided.split(state), jax.jit(agent.apply)
    for g in grads:
        state = apply(state, g, {})
        parts, _ = applied(divided, parts, g)
    assert_equal(divided.join(parts), state)


def test_clipping_is_by_the_norm_of_all_shards():
    """Not by each one's own, which would be a larger step."""
    _, state, grads = given("flat sgd")
    divided = shards("flat sgd", 3)
    parts, _ = applied(divided, divided.split(state), grads[0])
    after = divided.join(parts).params
    step = optax.tree.norm(jax.tree.map(jnp.subtract, after, state.params))
    np.testing.assert_allclose(step, NORM * 1e-3, rtol=1e-4)


@pytest.mark.parametrize("where", [0, -1])
def test_a_shard_skips_what_is_not_finite_in_another(where):
    _, state, grads = given("flat adam")
    divided = shards("flat adam", 3)
    leaves, tree = jax.tree.flatten(grads[0])
    leaves[where] = leaves[where].at[..., 0].set(np.nan)
    parts, metrics = applied(divided, divided.split(state), tree.unflatten(leaves))
    assert [x["skipped"] for x in metrics] == [1.0] * 3
    assert_equal(divided.join(parts), state)


def test_staleness_is_each_shards_own():
    config = StalenessConfig("reject", 1)
    divided = shards("flat sgd", 2, config)
    _, state, grads = given("flat sgd")
    (first, second), g = divided.split(state), divided.divide(part_of(grads[0]))
    after, x = divided.apply(first, g[0], np.int32(2))
    np.testing.assert_array_equal(after.params, first.params)
    assert dict(zip(SCALARS, x.tolist(), strict=True))["rejected"] == 1
    after, x = divided.apply(second, g[1], np.int32(1))
    assert np.any(np.asarray(after.params != second.params))
    assert dict(zip(SCALARS, x.tolist(), strict=True))["lag"] == 1


# What cannot be divided -----------------------------------------------------------


class Strange(NamedTuple):
    params: jax.Array
    table: jax.Array


def made(agent: Agent, state, grads, num_shards):
    return Shards(agent.apply, state, grads, num_shards, StalenessConfig())


def test_an_array_unlike_the_parameters_is_refused():
    state = Strange(jnp.zeros(4), jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"state.table, of shape \(2, 2\)"):
        made(TOY, state, state.params, 2)
    # One shard has all, whatever it is.
    whole = made(TOY, state, state.params, 1)
    assert_equal(whole.join(whole.split(state)), state)


def test_a_vector_of_another_size_is_refused():
    state = Strange(jnp.zeros(4), jnp.zeros(5))
    with pytest.raises(ValueError, match=r"table, of shape \(5,\), has not the"):
        made(TOY, state, state.params, 2)


def test_a_tree_of_other_shapes_is_refused():
    params = {"a": jnp.zeros(3), "b": jnp.zeros(1)}
    other = {"a": jnp.zeros(1), "b": jnp.zeros(3)}
    with pytest.raises(ValueError, match="has not the structure"):
        made(TOY, {"params": params, "other": other}, params, 2)


@pytest.mark.parametrize("num_shards", [0, -1, 6])
def test_the_number_of_shards_must_fit(num_shards):
    state = Toy(jnp.zeros(5), jnp.zeros(5), jnp.int32(0))
    with pytest.raises(ValueError, match=rf"1 .. 5, .* got {num_shards}"):
        made(TOY, state, state.params, num_shards)
    assert len(made(TOY, state, state.params, 5).split(state)) == 5


def test_a_norm_is_that_of_all_shards():
    """Clipped by norms of their own they would be 1 and 1, by the sum 0.43 and 0.57."""
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))
    apply = a2c(network(), clipped).apply
    state = TrainState(jnp.zeros(2), clipped.init(jnp.zeros(2)))
    grads = jnp.array([-3.0, -4.0])
    made = Shards(apply, state, grads, 2, StalenessConfig())
    parts = made.divide(Gradient(grads, {}, jnp.int32(0)))
    done = [
        made.apply(shard, part, np.int32(0))[0]
        for shard, part in zip(made.split(state), parts, strict=True)
    ]
    np.testing.assert_allclose(made.join(done).params, [0.6, 0.8], rtol=1e-6)
