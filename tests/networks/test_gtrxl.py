"""GTrXL against its equations, written for one query and one key at a time."""

import re
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par.algorithms.impala import impala
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.networks import NetworkConfig, TransformerConfig, actor_critic
from jaxrl_par.networks.gates import BIASES, Gate
from jaxrl_par.networks.gtrxl import GTrXL, TransformerCarry, initial_carry
from jaxrl_par.testing import probes
from jaxrl_par.testing.checks import check_agent, check_learns
from jaxrl_par.types import Box, Discrete, TimeStep

B, D, H, F = 3, 8, 2, 5
M, T = 4, 12
SMALL = TransformerConfig(num_layers=2, num_heads=H, memory_length=M, mlp_width=7)
LONG = replace(SMALL, memory_length=16)
GATES = ("residual", "input", "output", "highway", "sigmoid_tanh", "gru")

every_gate = pytest.mark.parametrize("kind", GATES)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def normal(seed, *shape, scale=1.0):
    rng = np.random.default_rng(seed)
    return jnp.array(scale * rng.normal(size=shape), jnp.float32)


def randomised(tree, seed=0, scale=0.4):
    """The tree with random numbers for all its floats."""
    rng = np.random.default_rng(seed)

    def leaf(x):
        return jnp.array(scale * rng.normal(size=x.shape), x.dtype)

    return jax.tree.map(
        lambda x: leaf(x) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


class Net(NamedTuple):
    """A GTrXL with parameters far from where they start."""

    params: Any
    empty: TransformerCarry
    segment: Any
    """(params, carry, x [T, B, F], first [T, B]) -> y [T, B, D], carry."""
    step: Any
    """The same with T = 1, from cached keys and values."""


@cache
def net(config=SMALL, dtype=jnp.float32, width=D):
    module = GTrXL(config, width, dtype)
    empty = initial_carry(config, width, B, dtype)
    start = (empty, jnp.zeros((B, F)), jnp.zeros((1, B), bool))
    params = randomised(jax.eval_shape(module.init, jax.random.key(0), *start))

    @partial(jax.jit, static_argnums=4)
    def run(params, carry, x, first, acting):
        y, carry = module.apply(params, carry, x.reshape(-1, F), first, acting)
        return y.reshape(*first.shape, width), carry

    return Net(
        params,
        empty,
        lambda *args: run(*args, False),
        lambda *args: run(*args, True),
    )


def stream(length, seed=0, resets=0.15):
    rng = np.random.default_rng(seed)
    return normal(seed, length, B, F), jnp.array(rng.random((length, B)) < resets)


def one_by_one(net, carry, x, first):
    ys = []
    for t in range(len(x)):
        y, carry = net.step(net.params, carry, x[t : t + 1], first[t : t + 1])
        ys.append(y[0])
    return jnp.stack(ys), carry


def filled(net, length=M + 3, seed=9):
    """A memory after a few steps without an end."""
    _, carry = net.segment(net.params, net.empty, *stream(length, seed, resets=0.0))
    return carry


# Gates ---------------------------------------------------------------------------


def gate(kind, p, x, y):
    """The table of the paper, one row of x and y."""
    b = p.get("bias")
    if kind == "residual":
        return x + y
    if kind == "input":
        return sigmoid(x @ p["w"]) * x + y
    if kind == "output":
        return x + sigmoid(x @ p["w"] - b) * y
    if kind == "highway":
        s = sigmoid(x @ p["w"] + b)
        return s * x + (1 - s) * y
    if kind == "sigmoid_tanh":
        w, u = np.split(p["wu"], 2, axis=1)
        return x + sigmoid(y @ w - b) * np.tanh(y @ u)
    (w_r, w_z, w_h), (u_r, u_z) = np.split(p["w"], 3, axis=1), np.split(p["u"], 2, 1)
    r, z = sigmoid(y @ w_r + x @ u_r), sigmoid(y @ w_z + x @ u_z - b)
    return (1 - z) * x + z * np.tanh(y @ w_h + (r * x) @ p["u_h"])


@pytest.mark.sample(3)
@every_gate
def test_gates_follow_their_equations(kind):
    x, y = normal(0, 6, D), normal(1, 6, D)
    params = randomised(jax.eval_shape(Gate(kind).init, jax.random.key(0), x, y))
    actual = Gate(kind).apply(params, x, y)
    p = jax.tree.map(np.float64, params.get("params", {}))
    np.testing.assert_allclose(
        actual, gate(kind, p, np.float64(x), np.float64(y)), atol=1e-5
    )


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("kind", "bias", "by_x", "by_y"),
    [
        ("gru", None, 0.880797, 0.0),
        ("residual", None, 1.0, 1.0),
        ("highway", None, 0.731059, 0.268941),
        ("input", None, 0.5, 1.0),
        ("gru", 0.0, 0.5, 0.0),
        ("output", 2.0, 1.0, 0.119203),
        ("sigmoid_tanh", None, 1.0, 0.0),
        ("output", None, 1.0, 0.268941),
    ],
)
def test_gates_without_weights_give_the_numbers_of_the_paper(kind, bias, by_x, by_y):
    x, y = normal(0, 6, D), normal(1, 6, D)
    params = Gate(kind, bias).init(jax.random.key(0), x, y)
    params = jax.tree.map(lambda p: jnp.zeros_like(p) if p.ndim == 2 else p, params)
    actual = Gate(kind, bias).apply(params, x, y)
    np.testing.assert_allclose(actual, by_x * x + by_y * y, atol=1e-5)


@pytest.mark.parametrize("kind", BIASES)
def test_gates_start_nearer_to_the_stream_with_a_larger_bias(kind):
    x, y = normal(0, 64, D), normal(1, 64, D)

    def distance(bias):
        params = Gate(kind, bias).init(jax.random.key(0), x, y)
        return float(jnp.mean(jnp.abs(Gate(kind, bias).apply(params, x, y) - x)))

    assert distance(6.0) < 0.1 * distance(0.0)
    assert distance(6.0) < distance(None) < distance(0.0)


# The equations -------------------------------------------------------------------


def norm(p, x):
    centred = x - x.mean()
    return centred / np.sqrt(np.mean(centred**2) + 1e-5) * p["scale"] + p["bias"]


def attend(p, bias, memory_length, queries, i, start):
    """The attention of step i to itself and to steps j since `start`."""
    w_q, w_k, w_v = np.split(p["query_key_value"], 3, axis=1)
    width, heads = D // H, []
    for h in range(H):
        of_head = slice(h * width, (h + 1) * width)
        q = queries[i] @ w_q[:, of_head]
        scores, values = [], []
        for j in range(max(start, i - memory_length), i + 1):
            w = 10000.0 ** (-2 * np.arange(D // 2) / D)
            table = np.concatenate([np.sin((i - j) * w), np.cos((i - j) * w)])
            r = p["position"][of_head] @ table
            k = queries[j] @ w_k[:, of_head]
            score = (q + bias[0][h]) @ k + (q + bias[1][h]) @ r
            scores.append(score / np.sqrt(width))
            values.append(queries[j] @ w_v[:, of_head])
        weights = np.exp(scores) / np.sum(np.exp(scores))
        heads.append(sum(a * v for a, v in zip(weights, values, strict=True)))
    return np.concatenate(heads) @ p["output"]


def transformer(config, p, x, first):
    """One environment's stream x [T, F] through all layers, at once."""
    bias = (p["content_bias"], p["position_bias"])
    e = x @ p["Linear_0"]["kernel"] + p["Linear_0"]["bias"]
    for layer in range(config.num_layers):
        q = p[f"layer_{layer}"]
        a = q["attention"]
        normed = [norm({"scale": a["scale"], "bias": a["shift"]}, row) for row in e]
        outputs, start = [], 0
        for i in range(len(e)):
            start = i if first[i] else start
            y = attend(q["attention"], bias, config.memory_length, normed, i, start)
            a = gate(config.gate, q["attention_gate"], e[i], np.maximum(y, 0))
            n = norm(q["mlp_norm"], a)
            hidden = n @ q["Linear_0"]["kernel"] + q["Linear_0"]["bias"]
            y = np.maximum(hidden, 0) @ q["Linear_1"]["kernel"] + q["Linear_1"]["bias"]
            outputs.append(gate(config.gate, q["mlp_gate"], a, np.maximum(y, 0)))
        e = np.array(outputs)
    return e


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "config",
    [SMALL, replace(SMALL, memory_length=9, gate="output")],
    ids=["short memory", "long memory"],
)
def test_segments_follow_the_equations(config):
    """Two segments and the memory between them, with episodes that start in both."""
    n = net(config)
    x, first = stream(T, seed=3)
    assert first[1:5].any() and first[5:].any() and not first.all(axis=1).any()
    early, carry = n.segment(n.params, n.empty, x[:5], first[:5])
    late, _ = n.segment(n.params, carry, x[5:], first[5:])
    p = jax.tree.map(np.float64, n.params["params"])
    for b in range(B):
        expected = transformer(config, p, np.float64(x[:, b]), first[:, b])
        actual = np.concatenate([early, late])[:, b]
        np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["residual", "gru"])
def test_without_outputs_of_its_parts_the_network_is_its_input(kind):
    """Exactly so, with the residual gate; up to the gates' factor with the GRU's."""
    n = net(replace(SMALL, gate=kind))

    def last_layers(path, leaf):
        names = [key.key for key in path]
        in_gate = any("gate" in name for name in names)
        last = "output" in names or (names[-2] == "Linear_1" and len(names) > 3)
        if in_gate:
            return jnp.full_like(leaf, 2.0 if leaf.ndim == 1 else 0.0)
        return jnp.zeros_like(leaf) if last else leaf

    params = jax.tree.map_with_path(last_layers, n.params)
    x, first = stream(T)
    y, _ = n.segment(params, filled(n), x, first)
    dense = n.params["params"]["Linear_0"]
    expected = x.reshape(-1, F) @ dense["kernel"] + dense["bias"]
    if kind == "residual":
        np.testing.assert_array_equal(y.reshape(-1, D), expected)
    else:
        np.testing.assert_allclose(
            y.reshape(-1, D), 0.880797**4 * expected, rtol=1e-4, atol=1e-6
        )


@pytest.mark.slow
def test_parameter_counts_are_the_papers():
    config = TransformerConfig(num_layers=12, num_heads=8, mlp_width=1024)

    def sizes(gate):
        module = GTrXL(replace(config, gate=gate), 512)
        carry = jax.eval_shape(partial(initial_carry, config, 512, 1))
        start = (carry, jnp.zeros((1, 512)), jnp.zeros((1, 1), bool))
        params = jax.eval_shape(module.init, jax.random.key(0), *start)["params"]
        return {
            jax.tree_util.keystr(path): leaf.size
            for path, leaf in jax.tree.leaves_with_path(params)
            if "layer_" in jax.tree_util.keystr(path)
        }

    for gate_name, weights, biases in (
        ("residual", 0, 0),
        ("output", 6_291_456, 24 * 512),
        ("gru", 37_748_736, 24 * 512),
    ):
        of_all = sizes(gate_name)
        of_gates = {name: size for name, size in of_all.items() if "gate" in name}
        assert sum(n for name, n in of_gates.items() if "bias" not in name) == weights
        assert sum(n for name, n in of_gates.items() if "bias" in name) == biases
        rest = [size for name, size in of_all.items() if "gate" not in name]
        matrices = sum(size for size in rest if size >= 512 * 512)
        assert matrices == 12 * (5 * 512**2 + 2 * 512 * 1024)
        vectors = 12 * (2 * 2 * 512 + 1024 + 512)
        assert sum(rest) == matrices + vectors  # attention has no bias of its own


# Memory --------------------------------------------------------------------------


@pytest.mark.sample(1)
@pytest.mark.parametrize(("memory_length", "length"), [(4, 12), (9, 4), (5, 1), (1, 3)])
def test_steps_one_by_one_equal_segments(memory_length, length):
    """From an empty memory, and from one that the segment before has left."""
    n = net(replace(SMALL, memory_length=memory_length))
    by_step = by_segment = n.empty
    for seed in range(3):
        x, first = stream(length, seed)
        expected, by_step = one_by_one(n, by_step, x, first)
        actual, by_segment = n.segment(n.params, by_segment, x, first)
        np.testing.assert_allclose(actual, expected, atol=1e-5)
        np.testing.assert_array_equal(by_segment.cursor, by_step.cursor)
        np.testing.assert_array_equal(by_segment.length, by_step.length)
        slots = memory_length + 1
        age = (by_step.cursor[:, None] - 1 - np.arange(slots)) % slots
        held = np.asarray(age < by_step.length[:, None])
        for one, other in zip(by_segment.layers, by_step.layers, strict=True):
            np.testing.assert_allclose(one.inputs, other.inputs, atol=1e-5)
            for x, y in ((one.keys, other.keys), (one.values, other.values)):
                x, y = np.moveaxis(x, 2, 1)[held], np.moveaxis(y, 2, 1)[held]
                np.testing.assert_allclose(x, y, atol=1e-5)
        np.testing.assert_allclose(
            one_by_one(n, by_segment, x := stream(2, 7)[0], jnp.zeros((2, B), bool))[0],
            n.segment(n.params, by_step, x, jnp.zeros((2, B), bool))[0],
            atol=1e-5,
        )


@pytest.mark.slow
def test_sixty_four_steps_equal_one_segment():
    n = net(replace(SMALL, memory_length=64))
    x, first = stream(64, resets=0.0)
    expected, _ = one_by_one(n, n.empty, x, first)
    actual, _ = n.segment(n.params, n.empty, x, first)
    assert float(jnp.max(jnp.abs(actual - expected))) < 1e-5


def test_outputs_depend_on_no_later_step_and_on_as_many_before_as_layers_reach():
    n = net()
    x, first = stream(T, resets=0.0)
    t = 1
    before, _ = n.segment(n.params, n.empty, x, first)
    after, _ = n.segment(n.params, n.empty, x.at[t].add(1.0), first)
    changed = np.any(np.asarray(before != after), axis=2)
    seen = SMALL.num_layers * M
    assert not changed[:t].any() and not changed[t + seen + 1 :].any()
    assert changed[t : t + seen + 1].all() and t + seen + 1 < T


@pytest.mark.sample(1)
@pytest.mark.parametrize("acting", [False, True])
def test_nothing_before_a_first_step_changes_an_output(acting):
    """Bit for bit, whatever memory and features before it hold."""
    n, garbage = net(), 1e15
    x, _ = stream(T)
    first = jnp.zeros((T, B), bool).at[3, :2].set(True)
    carry = filled(n)
    bad = jax.tree.map(
        lambda leaf: leaf.at[:2].set(garbage) if leaf.ndim > 1 else leaf, carry
    )
    run = partial(one_by_one, n) if acting else partial(n.segment, n.params)
    clean, _ = run(carry, x, first)
    dirty, _ = run(bad, x.at[:3, :2].set(garbage), first)
    np.testing.assert_array_equal(clean[3:], dirty[3:])
    assert np.all(np.any(clean[:3, :2] != dirty[:3, :2], axis=2))
    assert np.all(np.isfinite(dirty))
    # The other environment reads on, and no slot of an empty memory is ever read.
    np.testing.assert_array_equal(clean[:, 2], dirty[:, 2])
    none = n.empty.length
    clean, _ = run(n.empty, x, first)
    dirty, _ = run(bad._replace(cursor=none, length=none), x, first)
    np.testing.assert_array_equal(clean, dirty)


@pytest.mark.slow
def test_absolute_time_does_not_matter():
    """The same episode, after more steps of others or wherever the ring begins."""
    n = net()
    x, first = stream(T, resets=0.0)
    alone, _ = n.segment(n.params, n.empty, x, first)
    more = jnp.concatenate([x[:5], x])
    later, _ = n.segment(
        n.params, n.empty, more, jnp.zeros((5 + T, B), bool).at[5].set(True)
    )
    np.testing.assert_allclose(later[5:], alone, atol=1e-6)

    carry = filled(n)
    shift = jnp.arange(1, B + 1)
    turned = TransformerCarry(
        jax.tree.map(
            lambda leaf: jax.vmap(partial(jnp.roll, axis=-2))(leaf, shift), carry.layers
        ),
        (carry.cursor + shift) % (M + 1),
        carry.length,
    )
    expected, _ = n.segment(n.params, carry, x, first)
    actual, _ = n.segment(n.params, turned, x, first)
    np.testing.assert_array_equal(actual, expected)
    actual, _ = one_by_one(n, turned, x[:3], first[:3])
    np.testing.assert_allclose(actual, expected[:3], atol=1e-5)


@pytest.mark.sample(1)
@pytest.mark.parametrize("acting", [False, True])
def test_no_gradient_reaches_the_memory(acting):
    n = net()
    x, first = stream(1, resets=0.0)
    carry = filled(n)
    run = n.step if acting else n.segment

    def total(layers):
        y, after = run(n.params, carry._replace(layers=layers), x, first)
        return jnp.sum(jnp.sin(y)) + sum(map(jnp.sum, jax.tree.leaves(after.layers)))

    gradient = jax.grad(total)(carry.layers)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    other = jax.tree.map(lambda leaf: leaf + normal(5, *leaf.shape), carry.layers)
    assert total(other) != total(carry.layers)


@pytest.mark.slow
def test_weights_learn_from_what_the_memory_holds():
    """The gradient is the derivative of outputs with the memory's inputs as they are,
    whose keys and values change with the weights, in a segment of one step too."""
    n = net()
    x, first = stream(1, resets=0.0)
    carry = filled(n)
    kernel = n.params["params"]["layer_0"]["attention"]["query_key_value"]
    direction = normal(1, *kernel.shape).at[:, :D].set(0.0)

    def total(amount):
        changed = jax.tree.map(lambda leaf: leaf, n.params)
        attention = changed["params"]["layer_0"]["attention"]
        attention["query_key_value"] = kernel + amount * direction
        return jnp.sum(n.segment(changed, carry, x, first)[0])

    step = 2e-3
    numeric = (total(step) - total(-step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(total)(0.0), numeric, rtol=1e-2)
    assert abs(numeric) > 0.1


def test_a_step_neither_copies_the_memory_nor_projects_all_distances():
    """Temporaries are smaller than one leaf of the memory; products, than W_r R."""
    config = replace(SMALL, memory_length=256)
    module, carry = GTrXL(config, 64), initial_carry(config, 64, B)
    x, first = normal(0, B, F), jnp.zeros((1, B), bool)
    params = jax.eval_shape(module.init, jax.random.key(0), carry, x, first)
    one = jax.jit(partial(module.apply, acting=True), donate_argnums=1)
    compiled = one.lower(params, carry, x, first).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < carry.layers[0].keys.nbytes
    assert memory.alias_size_in_bytes >= sum(x.nbytes for x in jax.tree.leaves(carry))
    assert compiled.cost_analysis()["flops"] < 2 * config.num_layers * 257 * 64 * 64


@pytest.mark.slow
def test_bfloat16_is_close_and_only_in_products():
    x, first = stream(T)
    exact, _ = (n := net(LONG)).segment(n.params, n.empty, x, first)
    half = net(LONG, jnp.bfloat16)
    coarse, carry = half.segment(half.params, half.empty, x, first)
    assert coarse.dtype == carry.layers[0].inputs.dtype == jnp.float32
    assert carry.layers[0].keys.dtype == carry.layers[0].values.dtype == jnp.bfloat16
    assert 1e-4 < float(jnp.max(jnp.abs(coarse - exact))) < 0.1
    steps, after = one_by_one(half, half.empty, x, first)
    np.testing.assert_allclose(steps, coarse, atol=0.05)
    assert jax.tree.leaves(after)[1].dtype == jnp.bfloat16
    operations = str(jax.make_jaxpr(half.segment)(half.params, half.empty, x, first))
    assert re.search(r"bf16\[[^]]*\] = dot_general", operations)
    assert not re.search(r"bf16\[[^]]*\] = (exp|rsqrt|logistic|tanh)", operations)


@pytest.mark.slow
def test_odd_widths_have_sinusoids_too():
    config = replace(SMALL, num_heads=1)
    n = net(config, width=7)
    x, first = stream(5)
    expected, _ = one_by_one(n, n.empty, x, first)
    actual, _ = n.segment(n.params, n.empty, x, first)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


# Behind the one signature --------------------------------------------------------

CONFIG = NetworkConfig(
    widths=(16,), memory="gtrxl", memory_width=D, transformer=replace(SMALL)
)


@pytest.mark.slow
def test_networks_read_with_two_memories_under_vmap():
    """Policy and value with a memory each, for a population of parameters."""
    network = actor_critic(Box((F,)), Discrete(3), replace(CONFIG, shared=False))
    x, first = stream(T)
    steps = TimeStep(x, first, jnp.zeros_like(first))
    row = jax.tree.map(lambda leaf: leaf[0], steps)
    shape = jax.eval_shape(network.init, jax.random.key(0), row)
    members = [randomised(shape, seed) for seed in range(2)]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    start = network.initial_carry(B)
    assert [type(carry) for carry in start] == [TransformerCarry] * 2

    def read(params):
        def one(carry, step):
            outputs, carry = network.apply(params, carry, step)
            return carry, outputs

        return jax.lax.scan(one, start, steps)[1]

    stepped = jax.jit(jax.vmap(read))(both)
    unroll = jax.jit(network.unroll)
    for i, params in enumerate(members):
        (policy, values), after = unroll(params, start, steps)
        np.testing.assert_allclose(stepped[1][i], values, atol=1e-5)
        np.testing.assert_allclose(stepped[0].logits[i], policy.logits, atol=1e-5)
        assert jax.tree.structure(after) == jax.tree.structure(start)

    # Acting reads the cache of keys and values, learning the inputs they are made of.
    other = jax.tree.map(
        lambda leaf: leaf.at[..., 0].add(1.0) if leaf.ndim == 3 else leaf, after
    )
    further = row._replace(first=jnp.zeros(B, bool))
    act = jax.jit(network.apply)
    (_, expected), _ = act(params, after, further)
    (_, actual), _ = act(params, other, further)
    np.testing.assert_array_equal(actual, expected)
    one = jax.tree.map(lambda leaf: leaf[None], further)
    (_, learned), _ = unroll(params, other, one)
    assert not np.any(np.isclose(learned[0], expected, atol=1e-4))


def test_networks_keep_the_dtypes_of_their_memory():
    config = replace(CONFIG, compute_dtype="bfloat16")
    network = actor_critic(Box((F,)), Discrete(3), config)
    start, (x, first) = network.initial_carry(B), stream(T)
    steps = TimeStep(x, first, first)
    row = jax.tree.map(lambda leaf: leaf[0], steps)
    params = jax.eval_shape(network.init, jax.random.key(0), row)
    assert start.layers[0].keys.dtype == jnp.bfloat16
    for read, shown in ((network.apply, row), (network.unroll, steps)):
        _, after = jax.eval_shape(read, params, start, shown)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
            lambda x: (x.shape, x.dtype), start
        )


def one_layer(env):
    config = replace(CONFIG, transformer=replace(SMALL, num_layers=1))
    return actor_critic(env.observation_spec, env.action_spec, config)


@pytest.mark.slow
def test_agents_with_a_transformer_are_accepted():
    env = probes.counter(4)
    check_agent(ppo(one_layer(env), optax.sgd(0.1)), env, unroll_length=5)


@pytest.mark.slow
def test_a_transformer_learns_to_remember():
    env = probes.memory(16, length=3)
    agent = impala(one_layer(env), optax.adam(0.01))
    check_learns(agent, env, 0.95, num_updates=150, unroll_length=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_width": 10}, "memory_width must be a multiple of the 4 heads"),
        ({"transformer": TransformerConfig(num_heads=0)}, "num_heads must be at least"),
        ({"transformer": TransformerConfig(num_layers=0)}, "num_layers must be at"),
        ({"transformer": TransformerConfig(memory_length=0)}, "memory_length must be"),
        ({"transformer": TransformerConfig(mlp_width=0)}, "mlp_width must be at least"),
        (
            {"transformer": TransformerConfig(gate="input", gate_bias=1.0)},
            "transformer.gate_bias must be None with gate = input",
        ),
    ],
)
def test_wrong_configs_are_refused(options, message):
    config = NetworkConfig(**({"memory": "gtrxl"} | options))
    with pytest.raises(ValueError, match=message):
        actor_critic(Box((4,)), Discrete(2), config)


def test_an_unknown_gate_is_refused_with_the_nearest():
    config = TransformerConfig()
    object.__setattr__(config, "gate", "gruu")  # as from a file: types are not checked
    with pytest.raises(ValueError, match=r"transformer.gate: .*did you mean 'gru'"):
        actor_critic(Box((4,)), Discrete(2), replace(CONFIG, transformer=config))
