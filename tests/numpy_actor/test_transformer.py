"""One step of NumPy's GTrXL at a time, by the equations over a whole episode."""

import numpy as np
import pytest

from jaxrl_par.numpy_actor.arrays import Arrays
from jaxrl_par.numpy_actor.memories import empty, kept
from jaxrl_par.numpy_actor.transformer import Transformer

D, H, M, F, B, T, LAYERS = 6, 2, 3, 5, 2, 9, 2
CONFIG = {"num_layers": LAYERS, "num_heads": H, "memory_length": M, "mlp_width": 4}
NETWORK = {"memory": "gtrxl", "memory_width": D, "transformer": CONFIG}
GATES = {
    "residual": {},
    "input": {"w": D},
    "output": {"w": D, "bias": 0},
    "highway": {"w": D, "bias": 0},
    "sigmoid_tanh": {"wu": 2 * D, "bias": 0},
    "gru": {"w": 3 * D, "u": 2 * D, "u_h": D, "bias": 0},
}


def weights(gate, seed=0):
    """By name, far from 0."""
    shapes = {"Linear_0.kernel": (F, D), "Linear_0.bias": (D,)}
    shapes |= dict.fromkeys(("content_bias", "position_bias"), (H, D // H))
    for i in range(LAYERS):
        layer = {
            "attention.scale": (D,),
            "attention.shift": (D,),
            "attention.query_key_value": (D, 3 * D),
            "attention.position": (D, D),
            "attention.output": (D, D),
            "mlp_norm.scale": (D,),
            "mlp_norm.bias": (D,),
            "Linear_0.kernel": (D, 4),
            "Linear_0.bias": (4,),
            "Linear_1.kernel": (4, D),
            "Linear_1.bias": (D,),
        }
        for one in ("attention_gate", "mlp_gate"):
            for name, width in GATES[gate].items():
                layer[f"{one}.{name}"] = (D, width) if width else (D,)
        shapes |= {f"layer_{i}.{name}": shape for name, shape in layer.items()}
    rng = np.random.default_rng(seed)
    return {
        f"m.{name}": (0.7 * rng.normal(size=x)).astype(np.float32)
        for name, x in shapes.items()
    }


def s(x):
    return 1 / (1 + np.exp(-x))


def joined(kind, of, x, y):
    if kind == "residual":
        return x + y
    if kind == "input":
        return s(x @ of("w")) * x + y
    b = of("bias")
    if kind == "output":
        return x + s(x @ of("w") - b) * y
    if kind == "highway":
        share = s(x @ of("w") + b)
        return share * x + (1 - share) * y
    if kind == "sigmoid_tanh":
        w, u = np.split(of("wu"), 2, axis=1)
        return x + s(y @ w - b) * np.tanh(y @ u)
    (w_r, w_z, w_h), (u_r, u_z) = np.split(of("w"), 3, 1), np.split(of("u"), 2, 1)
    r, z = s(y @ w_r + x @ u_r), s(y @ w_z + x @ u_z - b)
    return (1 - z) * x + z * np.tanh(y @ w_h + (r * x) @ of("u_h"))


def norm(x, scale, shift):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * scale + shift


def attended(of, c, p, past):
    """What the last of `past` gets from it and up to M before it."""
    rows = [norm(x, of("scale"), of("shift")) for x in past[-M - 1 :]]
    q, k, v = np.split(of("query_key_value"), 3, axis=1)
    frequencies = 10000.0 ** (-2 * np.arange(D // 2) / D)
    mixed, size = np.zeros(D), D // H
    for h in range(H):
        part = slice(h * size, (h + 1) * size)
        query, scores = (rows[-1] @ q)[part], []
        for distance, row in enumerate(reversed(rows)):
            angles = distance * frequencies
            r = of("position") @ np.concatenate([np.sin(angles), np.cos(angles)])
            content = (query + c[h]) @ (row @ k)[part]
            scores.append((content + (query + p[h]) @ r[part]) / np.sqrt(size))
        share = np.exp(scores) / np.exp(scores).sum()
        mixed[part] = share @ [(row @ v)[part] for row in reversed(rows)]
    return mixed @ of("output")


def under(arrays, prefix):
    """Those whose names begin so, by what follows."""
    return lambda name: arrays[prefix + name]


def whole_episode(arrays, gate, features):
    """Outputs [T, D] of one episode."""
    arrays = {name: x.astype(np.float64) for name, x in arrays.items()}
    biases = (arrays["m.content_bias"], arrays["m.position_bias"])
    stream = features @ arrays["m.Linear_0.kernel"] + arrays["m.Linear_0.bias"]
    for i in range(LAYERS):
        layer = f"m.layer_{i}."
        of, attention = under(arrays, layer), under(arrays, f"{layer}attention.")
        gates = [under(arrays, f"{layer}{x}_gate.") for x in ("attention", "mlp")]
        out = []
        for t, x in enumerate(stream):
            y = attended(attention, *biases, stream[: t + 1])
            x = joined(gate, gates[0], x, np.maximum(y, 0))
            y = norm(x, of("mlp_norm.scale"), of("mlp_norm.bias"))
            for j in (0, 1):
                y = np.maximum(y @ of(f"Linear_{j}.kernel") + of(f"Linear_{j}.bias"), 0)
            out.append(joined(gate, gates[1], x, y))
        stream = np.array(out)
    return stream


def played(arrays, gate, features, first, carry):
    """Outputs [T, B, D], and the memory after every step."""
    memory = Transformer(Arrays(arrays), "m", F, D, CONFIG | {"gate": gate})
    inputs, outputs = np.ones((F + 1, B), np.float32), np.empty((D, B), np.float32)
    remember = memory.bind(B, inputs, outputs)
    found, memories = [], []
    for x, start in zip(features, first, strict=True):
        inputs[:-1] = x.T
        carry = remember(start, carry)
        found.append(outputs.T.copy())
        memories.append(carry)
    return np.array(found), memories


@pytest.mark.parametrize("gate", GATES)
def test_steps_are_those_of_the_equations_over_whole_episodes(gate):
    """Rings go round twice, and one environment starts anew on its way."""
    arrays = weights(gate)
    features = np.random.default_rng(1).normal(size=(T, B, F)).astype(np.float32)
    first = np.zeros((T, B), bool)
    first[0] = first[4, 1] = True
    rng = np.random.default_rng(2)
    # What was there before means nothing.
    carry = tuple(
        np.float32(rng.normal(size=x.shape)) if x.dtype == np.float32 else x + 2
        for x in empty(NETWORK, B)
    )
    found, memories = played(arrays, gate, features, first, carry)
    parts = [(0, 0, T), (1, 0, 4), (1, 4, T)]
    for b, start, end in parts:
        expected = whole_episode(arrays, gate, features[start:end, b])
        np.testing.assert_allclose(found[start:end, b], expected, atol=1e-4)
    lengths = np.array([m[-1] for m in memories])
    assert lengths[:, 1].tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 4]
    assert [m[-2].tolist() for m in memories[:3]] == [[3, 3], [0, 0], [1, 1]]
    assert {x.dtype for x in memories[-1][-2:]} == {np.dtype(np.int32)}
    shapes = [(B, *shape) for shape, _ in kept(NETWORK)]
    assert [x.shape for x in memories[-1]] == shapes


def test_a_memory_that_was_handed_over_stays_as_it_was():
    arrays, first = weights("gru"), np.zeros((1, B), bool)
    carry = empty(NETWORK, B)
    played(arrays, "gru", np.ones((1, B, F), np.float32), first, carry)
    assert not any(x.any() for x in carry)
