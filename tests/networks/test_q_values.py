"""Networks of action values read what actor-critics read, and keep their promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.networks import (
    NetworkConfig,
    TransformerConfig,
    actor_critic,
    q_network,
)
from jaxrl_par.testing import check_network, probes
from jaxrl_par.types import Box, Discrete, TimeStep

T, B = 4, 3
SIZES = {
    "widths": (16, 8),
    "memory_width": 8,
    "channels": 3,
    "transformer": TransformerConfig(num_layers=1, memory_length=3, mlp_width=8),
}
VECTOR, IMAGE = Box((4,)), Box((9, 8, 2))
PIXELS = Box((36, 37, 2), np.dtype(np.uint8))
CASES = {
    "mlp": (VECTOR, {}),
    "lstm": (VECTOR, {"memory": "lstm"}),
    "gru": (VECTOR, {"memory": "gru"}),
    "gtrxl": (VECTOR, {"memory": "gtrxl"}),
    "conv": (IMAGE, {"memory": "lstm"}),
    "deep": (IMAGE, {"torso": "deep"}),
    "shallow": (PIXELS, {}),
    "pytree": ({"place": Discrete(5), "map": IMAGE}, {"activation": "relu"}),
}


def stream(specs):
    """Steps [T, B] with random observations and episode starts."""
    rng = np.random.default_rng(0)

    def leaf(spec):
        if isinstance(spec, Discrete):
            return jnp.array(rng.integers(spec.num_values, size=(T, B)), jnp.int32)
        scale = 255 if spec.dtype == np.uint8 else 1
        return jnp.array(scale * rng.random((T, B, *spec.shape)), spec.dtype)

    is_spec = {"is_leaf": lambda x: isinstance(x, Box | Discrete)}
    obs = jax.tree.map(leaf, specs, **is_spec)
    return TimeStep(obs, jnp.array(rng.random((T, B)) < 0.3), jnp.zeros((T, B), bool))


def row(steps, t):
    return jax.tree.map(lambda x: x[t], steps)


@pytest.mark.sample(1)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_with_the_heads_of_an_actor_critic_it_has_its_outputs(case):
    """One torso, one memory: what the two networks read is the same in every bit."""
    specs, options = case
    config = NetworkConfig(**(SIZES | options))
    steps = stream(specs)
    other = actor_critic(specs, Discrete(3), config)
    network = q_network(specs, Discrete(4), config)
    params = jax.jit(other.init)(random.key(0), row(steps, 0))
    carry = jax.tree.map(
        lambda x: x + 0.5 if jnp.issubdtype(x.dtype, jnp.floating) else x,
        other.initial_carry(B),
    )
    heads = params["params"].pop("_Heads_0")
    params["params"]["q_values"] = jnp.concatenate([heads["policy"], heads["value"]], 1)
    params["params"]["q_values_bias"] = jnp.arange(4.0)
    fresh = jax.eval_shape(network.init, random.key(0), row(steps, 0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)

    unrolled, after = jax.jit(network.unroll)(params, carry, steps)
    params = {"params": params["params"] | {"_Heads_0": heads}}
    heads["policy_bias"], heads["value_bias"] = jnp.arange(3.0), jnp.array([3.0])
    (policy, values), other_after = jax.jit(other.unroll)(params, carry, steps)
    expected = jnp.concatenate([policy.logits, values[..., None]], axis=-1)
    assert unrolled.shape == (T, B, 4) and unrolled.dtype == jnp.float32
    np.testing.assert_allclose(unrolled, expected, rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(after) == jax.tree.structure(other_after)
    jax.tree.map(np.testing.assert_array_equal, after, other_after)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_it_keeps_the_promises_of_a_network(memory):
    env = probes.counter(4)
    # `shared` and `policy` are of actor-critics.
    config = NetworkConfig(memory=memory, shared=False, policy="squashed", **SIZES)
    check_network(q_network(env.observation_spec, env.action_spec, config), env)


@pytest.mark.sample(1)
@pytest.mark.parametrize("memory", ["none", "gtrxl"])
def test_values_of_a_network_that_computes_in_bfloat16_are_float32(memory):
    config = NetworkConfig(compute_dtype="bfloat16", memory=memory, **SIZES)
    network, steps = q_network(VECTOR, Discrete(2), config), stream(VECTOR)
    carry = network.initial_carry(B)
    params = jax.eval_shape(network.init, random.key(0), row(steps, 0))
    outputs, _ = jax.eval_shape(network.unroll, params, carry, steps)
    one, _ = jax.eval_shape(network.apply, params, carry, row(steps, 0))
    for leaf in jax.tree.leaves((params, outputs, one)):
        assert leaf.dtype == jnp.float32


@pytest.mark.slow
def test_values_start_of_about_unit_size_and_without_bias():
    network, steps = q_network(VECTOR, Discrete(50)), stream(VECTOR)
    params = network.init(random.key(0), row(steps, 0))
    outputs, _ = network.unroll(params, (), steps)
    assert 0.03 < float(jnp.std(outputs)) < 1.0
    np.testing.assert_array_equal(params["params"]["q_values_bias"], np.zeros(50))
    kernel = params["params"]["q_values"]
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(50), atol=1e-4)


@pytest.mark.parametrize(
    ("specs", "action", "options", "message"),
    [
        (VECTOR, Box((2,)), {}, "need a single Discrete action, not Box"),
        (VECTOR, Discrete(3, shape=(2,)), {}, "need a single Discrete action"),
        (VECTOR, Discrete(3), {"torso": "deep"}, "torso = deep needs images"),
        (VECTOR, Discrete(3), {"memory_width": 0}, "memory_width must be at least 1"),
        (
            VECTOR,
            Discrete(3),
            {"memory": "gtrxl", "transformer": TransformerConfig(num_layers=0)},
            "transformer.num_layers must be at least 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(specs, action, options, message):
    with pytest.raises(ValueError, match=message):
        q_network(specs, action, NetworkConfig(**options))


def outputs(advantages, state, num_atoms=None):
    """Values in two states, which are shown as unit vectors, from a linear network.

    Args:
      advantages: [2, A] or [2, A, atoms]; state: [2] or [2, atoms].
    """
    num_actions = advantages.shape[1]
    net = q_network(
        Box((2,)),
        Discrete(num_actions),
        NetworkConfig(widths=()),
        dueling=True,
        num_atoms=num_atoms,
    )
    no = jnp.zeros(2, bool)
    step = TimeStep(jnp.eye(2), ~no, no)
    params = net.init(random.key(0), step)
    given = {"q_values": advantages.reshape(2, -1), "state_value": state.reshape(2, -1)}

    def chosen(path, x):
        name = jax.tree_util.keystr(path)
        known = [v for k, v in given.items() if f"'{k}'" in name]
        return jnp.asarray(known[0], jnp.float32) if known else x

    params = jax.tree_util.tree_map_with_path(chosen, params)
    return np.asarray(net.apply(params, net.initial_carry(2), step)[0])


def test_states_of_a_batch_have_means_of_their_own():
    """V = 0, A = ((1, 3), (10, 20)); and the fact sheet's V = 1, A = (1, 2, 6)."""
    advantages = np.array([[1.0, 3.0], [10.0, 20.0]])
    found = outputs(advantages, np.zeros(2))
    np.testing.assert_allclose(found, [[-1.0, 1.0], [-5.0, 5.0]], rtol=1e-6)
    found = outputs(np.array([[1.0, 2.0, 6.0]] * 2), np.ones(2))
    np.testing.assert_allclose(found[0], [-1.0, 0.0, 4.0], atol=1e-6)


@pytest.mark.sample(1)
@pytest.mark.parametrize("num_atoms", [2, 3])
def test_atoms_have_means_over_actions(num_atoms):
    """Also where there are as many atoms as actions."""
    rng = np.random.default_rng(0)
    advantages = rng.normal(size=(2, 2, num_atoms))
    state = rng.normal(size=(2, num_atoms))
    expected = state[:, None] + advantages - advantages.mean(axis=1, keepdims=True)
    found = outputs(advantages, state, num_atoms)
    np.testing.assert_allclose(found, expected, atol=1e-5)
