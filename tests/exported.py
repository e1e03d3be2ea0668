"""Exported actors of many networks, and what they are shown."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par import export, trees
from jaxrl_par.envs.wrappers import WithPrevious
from jaxrl_par.networks import NetworkConfig, TransformerConfig, actor_critic
from jaxrl_par.networks.plain import described, without_critic
from jaxrl_par.specs import sent
from jaxrl_par.training.comparison import named
from jaxrl_par.types import Box, Discrete, Masked, MultiDiscrete, Spec, TimeStep

T, B = 6, 3
VECTOR, IMAGE, INTEGER = Box((4,)), Box((5, 6, 2)), Discrete(7)
PIXELS, BYTES = Box((5, 4, 2), np.dtype(np.uint8)), Box((9,), np.dtype(np.uint8))
ARMS, FREE = Discrete(3), Box((2,))
BOUNDED = Box((2,), low=np.array([-2.0, 0.0]), high=np.array([2.0, 5.0]))
PREVIOUS = WithPrevious({"place": INTEGER, "map": IMAGE}, ARMS, Box(()))
MIXED = {
    "seen": (PIXELS, BYTES),
    "felt": [VECTOR, IMAGE],
    "count": Box((), np.dtype(np.int32)),
}
MOVED = (
    Box((2, 5, 5)),
    Box((8, 9), np.dtype(np.uint8)),
    Box((2, 6, 7), np.dtype(np.uint8), 10.0, 180.0),
    Box((3,), np.dtype(np.int32), np.array([-9, 0, 4]), np.array([200, 300, 4])),
)
SCREEN = Box((36, 40, 3), np.dtype(np.uint8))
ODD = Box((9, 10, 2), np.dtype(np.uint8), 10.0, 180.0)
CHOICES = MultiDiscrete([[2, 3], [3, 1]], start=[[0, 7], [-1, 0]])
SMALL = {"widths": (16, 8), "memory_width": 6, "channels": 3}
SQUASHED = {"policy": "squashed"}


def flags(*shape):
    """The spec of a mask."""
    return Box(shape, np.dtype(bool), 0.0, 1.0)


def gtrxl(gate, heads=1):
    """Less memory than steps are played, so that rings go round."""
    shape = TransformerConfig(2, heads, memory_length=3, mlp_width=8, gate=gate)
    return {"memory": "gtrxl", "transformer": shape}


CASES = {
    "gru, separate, squashed": (
        VECTOR,
        BOUNDED,
        {"memory": "gru", "shared": False, "activation": "relu"} | SQUASHED,
    ),
    "mlp": (VECTOR, ARMS, {}),
    "relu, separate": (VECTOR, FREE, {"shared": False, "activation": "relu"}),
    "no layers": (PIXELS, ARMS, {"torso": "mlp", "widths": ()}),
    "lstm alone": (INTEGER, ARMS, {"widths": (), "memory": "lstm"}),
    "conv, pytree": (MIXED, BOUNDED, {"memory": "lstm"} | SQUASHED),
    "lstm": (PREVIOUS, ARMS, {"memory": "lstm", "torso": "mlp"}),
    "lstm, separate": (IMAGE, FREE, {"memory": "lstm", "shared": False}),
    "gru": (INTEGER, ARMS, {"memory": "gru"}),
    "conv": (PIXELS, ARMS, {"activation": "relu"}),
    "dense pytree": (MIXED, FREE, {"torso": "mlp"}),
    "other axes and bounds": (MOVED, ARMS, {}),
    "other bounds, dense": (MOVED, ARMS, {"torso": "mlp"}),
    "swish": (MIXED, ARMS, {"activation": "swish"}),
    "shallow": (
        {"seen": (SCREEN, BYTES), "count": INTEGER, "felt": VECTOR},
        ARMS,
        {"torso": "shallow"},
    ),
    "deep": ((ODD, Box((2, 8, 8))), ARMS, {"torso": "deep", "memory": "lstm"}),
    "deep, no layers": ((ODD, VECTOR), FREE, {"torso": "deep", "widths": ()}),
    "gtrxl": (PREVIOUS, ARMS, {"torso": "mlp"} | gtrxl("gru", heads=2)),
    "gtrxl, separate": (VECTOR, FREE, {"shared": False} | gtrxl("output")),
    "gtrxl, residual": (VECTOR, ARMS, gtrxl("residual")),
    "gtrxl, input": (VECTOR, ARMS, gtrxl("input")),
    "gtrxl, highway": (VECTOR, ARMS, gtrxl("highway")),
    "gtrxl, sigmoid_tanh": (VECTOR, ARMS, gtrxl("sigmoid_tanh", heads=3)),
    "masked": (
        WithPrevious(Masked({"seen": PIXELS, "felt": VECTOR}, flags(3)), ARMS, Box(())),
        Discrete(3, start=-1),
        {"memory": "lstm"},
    ),
    "heads": ((VECTOR, CHOICES), CHOICES, {"shared": False}),
    "masked heads": (Masked(VECTOR, flags(9)), CHOICES, {}),
    "masked combinations": (
        Masked(VECTOR, flags(2, 3, 4)),
        MultiDiscrete([2, 3, 4], start=[0, -5, 1]),
        {"memory": "gru"},
    ),
    "parts": (
        Masked(VECTOR, {"brake": flags(2), "gears": (flags(2, 3), None)}),
        {
            "steer": Box((1, 2), low=-2.0, high=6.0),
            "brake": Discrete(2, start=4),
            "gears": (MultiDiscrete([[2], [3]]), [Box((3,), low=-1.0, high=1.0)]),
        },
        SQUASHED,
    ),
}


def is_spec(x):
    return isinstance(x, Spec)


def sample(spec, rng, shape):
    if isinstance(spec, Discrete):
        return rng.integers(spec.num_values, size=shape).astype(np.int32)
    if isinstance(spec, MultiDiscrete):
        return rng.integers(spec.nvec, size=(*shape, *spec.shape)).astype(np.int32)
    if spec.dtype == bool:
        return rng.random((*shape, *spec.shape)) < 0.5
    if spec.dtype == np.float32:
        return rng.normal(size=(*shape, *spec.shape)).astype(np.float32)
    return rng.integers(200, size=(*shape, *spec.shape)).astype(spec.dtype)


def stream(specs, seed=0):
    """Steps [T, B] with random observations and episode starts."""
    rng = np.random.default_rng(seed)
    obs = jax.tree.map(lambda s: sample(s, rng, (T, B)), specs, is_leaf=is_spec)
    return TimeStep(obs, rng.random((T, B)) < 0.3, np.zeros((T, B), bool))


def row(steps, t):
    return jax.tree.map(lambda x: x[t], steps)


def parameters(network, step, seed=0):
    """Far from the near-uniform start, so that outputs depend on everything."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, jax.random.key(0), step)

    def drawn(x):
        scale = 0.4 / max(1.0, x.shape[0] / 16) ** 0.75
        return jnp.array(scale * rng.normal(size=x.shape), x.dtype)

    return jax.tree.map(drawn, shapes)


def remembering(carry):
    """A memory as if something had been seen, without its counters."""
    real = lambda x: np.issubdtype(x.dtype, np.floating)  # noqa: E731
    return jax.tree.map(lambda x: x + 0.5 if real(x) else x, carry)


def written(path, case, **options):
    """(network, its parameters, folder) of a case."""
    specs, action, settings = case
    config = NetworkConfig(**(SMALL | settings))
    network = actor_critic(specs, action, config)
    params = parameters(network, row(stream(specs), 0))
    options = ({"batch_sizes": (B,)} if config.memory == "gtrxl" else {}) | options
    folder = export.write(
        path / "actor",
        network=config,
        observation_spec=specs,
        action_spec=action,
        params=params,
        **options,
    )
    return network, params, folder


def described_case(case):
    """What an actor of a case is made of: its description and its arrays."""
    specs, action, settings = case
    config = NetworkConfig(**(SMALL | settings))
    params = parameters(actor_critic(specs, action, config), row(stream(specs), 0))
    arrays = {name: np.asarray(x) for name, x in named(params).items()}
    if not config.shared:
        arrays = without_critic(arrays)
    told = described(specs, action, config) | {"normalization": None}
    # As JSON has it.
    return json.loads(json.dumps(told)), arrays


def assert_close(actual, expected):
    assert len(jax.tree.leaves(actual)) == len(jax.tree.leaves(expected))
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def taken(case, policy):
    """The mode as the environment takes it, and parameters of the policy by name."""
    action = sent(case[1], policy.mode())
    clipped = trees.map_leaves(
        lambda spec, x: np.clip(x, *spec.inner) if isinstance(spec, Box) else x,
        case[1],
        action,
    )
    return clipped, named(policy)


def actors_part(carry, shared):
    return tuple(jax.tree.leaves(carry if shared or not carry else carry[0]))
