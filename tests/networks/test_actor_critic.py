"""Networks of every configuration keep the promises of `Network`."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import envs, random
from jaxrl_par.distributions import Categorical, DiagNormal, SquashedNormal
from jaxrl_par.envs.wrappers import WithPrevious, previous_action_and_reward
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.types import Box, Discrete, TimeStep

T, B = 5, 3
VECTOR, IMAGE, INTEGER = Box((4,)), Box((5, 6, 2)), Discrete(7)
ARMS, BOUNDED, FREE = (
    Discrete(3),
    Box((2,), low=np.array([-2.0, 0.0]), high=np.array([2.0, 5.0])),
    Box((2,)),
)
POINT = Box((2,), low=np.array([-2.0, 1.0]), high=np.array([2.0, 1.0]))
HUGE = Box((2,), low=-3.4e38, high=3.4e38)
PREVIOUS = WithPrevious({"map": IMAGE, "place": INTEGER}, ARMS, Box(()))
PIXELS, SQUARE = Box((36, 37, 2), np.dtype(np.uint8)), Box((9, 8, 2))
ATARI = Box((84, 84, 4), np.dtype(np.uint8))
PREVIOUS_SQUARE = PREVIOUS._replace(obs={"map": SQUARE, "place": INTEGER})
PREVIOUS_PIXELS = WithPrevious(PIXELS, ARMS, Box(()))
SMALL = {"widths": (16, 8), "memory_width": 6, "channels": 3}

CASES = {
    "mlp": (VECTOR, ARMS, {}),
    "mlp separate": (VECTOR, ARMS, {"shared": False}),
    "conv": (IMAGE, ARMS, {"activation": "relu"}),
    "conv separate": (IMAGE, FREE, {"shared": False}),
    "flattened image": (IMAGE, ARMS, {"torso": "mlp"}),
    "integers": (INTEGER, ARMS, {}),
    "gaussian": (VECTOR, FREE, {}),
    "squashed": (VECTOR, BOUNDED, {"policy": "squashed"}),
    "lstm": (VECTOR, ARMS, {"memory": "lstm"}),
    "lstm separate": (IMAGE, BOUNDED, {"memory": "lstm", "shared": False}),
    "gru": (INTEGER, ARMS, {"memory": "gru"}),
    "gru separate squashed": (
        VECTOR,
        BOUNDED,
        {"memory": "gru", "shared": False, "policy": "squashed"},
    ),
    "pytree": (PREVIOUS, ARMS, {"memory": "lstm"}),
    "shallow": (PIXELS, ARMS, {}),
    "shallow pytree": (PREVIOUS_PIXELS, ARMS, {"memory": "lstm"}),
    "deep pytree": (PREVIOUS_SQUARE, BOUNDED, {"torso": "deep"}),
    "deep separate": (
        SQUARE,
        FREE,
        {"torso": "deep", "memory": "lstm", "shared": False},
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def sample(spec, rng, shape):
    if isinstance(spec, Discrete):
        return jnp.array(rng.integers(spec.num_values, size=shape), jnp.int32)
    if spec.dtype == np.uint8:
        return jnp.array(rng.integers(256, size=(*shape, *spec.shape)), jnp.uint8)
    return jnp.array(rng.normal(size=(*shape, *spec.shape)), jnp.float32)


def stream(specs, seed=0, length=T, num_envs=B):
    """Steps [T, B] with random observations and episode starts."""
    rng, shape = np.random.default_rng(seed), (length, num_envs)
    obs = jax.tree.map(
        lambda spec: sample(spec, rng, shape),
        specs,
        is_leaf=lambda x: isinstance(x, Box | Discrete),
    )
    return TimeStep(obs, jnp.array(rng.random(shape) < 0.3), jnp.zeros(shape, bool))


def row(steps, t):
    return jax.tree.map(lambda x: x[t], steps)


def make(specs, action, **options):
    """A small network, compiled."""
    network = actor_critic(specs, action, NetworkConfig(**(SMALL | options)))
    functions = {name: getattr(network, name) for name in ("init", "apply", "unroll")}
    return network._replace(**{name: jax.jit(f) for name, f in functions.items()})


BUILT = {}


def build(case, seed=0):
    """Network, parameters, memory and steps of a case, which compiles only once."""
    key = str(case)
    if key not in BUILT:
        BUILT[key] = _build(case, seed)
    return BUILT[key]


def _build(case, seed):
    specs, action, options = case
    network = make(specs, action, **options)
    steps = stream(specs)
    # Far from the near-uniform start, so that outputs depend on everything.
    rng = np.random.default_rng(seed)

    def parameters(leaf):
        # Fifteen convolutions would else leave the range of useful numbers.
        scale = 0.4 if leaf.shape[0] <= 64 else (2 / leaf.shape[0]) ** 0.5
        return jnp.array(scale * rng.normal(size=leaf.shape), leaf.dtype)

    params = jax.tree.map(
        parameters,
        jax.eval_shape(network.init, jax.random.key(0), row(steps, 0)),
    )
    carry = jax.tree.map(lambda x: x + 0.5, network.initial_carry(B))
    return network, params, carry, steps


def assert_close(actual, expected, **tolerance):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, **tolerance), actual, expected
    )


@pytest.mark.sample(1)
@every_case
def test_unroll_gives_what_apply_gives_in_a_row(case):
    network, params, carry, steps = build(case)
    outputs, _ = network.unroll(params, carry, steps)
    policy, values = outputs
    kind = Categorical
    if isinstance(case[1], Box):
        squashed = case[2].get("policy") == "squashed"
        kind = SquashedNormal if squashed else DiagNormal
    assert type(policy) is kind
    num_outputs = case[1].num_values if kind is Categorical else 2
    assert all(x.shape == (T, B, num_outputs) for x in jax.tree.leaves(policy))
    assert values.shape == (T, B)
    for t in range(T):
        one, carry = network.apply(params, carry, row(steps, t))
        assert_close(one, row(outputs, t), rtol=1e-5, atol=1e-5)
    assert float(jnp.std(values)) > 1e-3


@pytest.mark.sample(1)
@every_case
def test_environments_do_not_meet(case):
    """Each environment's outputs depend on its own observations and memory only."""
    network, params, carry, steps = build(case)
    expected, _ = network.unroll(params, carry, steps)
    turned = jax.tree.map(lambda x: jnp.roll(x, 1, axis=1), steps)
    carry = jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), carry)
    actual, _ = network.unroll(params, carry, turned)
    actual = jax.tree.map(lambda x: jnp.roll(x, -1, axis=1), actual)
    assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.sample(1)
@every_case
def test_every_observation_and_parameter_matters(case):
    network, params, carry, steps = build(case)

    def total(params, obs):
        (policy, values), _ = network.unroll(params, carry, steps._replace(obs=obs))
        outputs = [values, *jax.tree.leaves(policy)[:2]]
        return sum(jnp.sum(jnp.sin(3 * x)) for x in outputs)

    floating = all(
        jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(steps.obs)
    )
    gradient = jax.jit(jax.grad(total, (0, 1) if floating else 0))(params, steps.obs)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.any(leaf != 0), f"{jax.tree_util.keystr(path)} has no effect"
    if not floating:
        before = total(params, steps.obs)
        leaves, tree = jax.tree.flatten(steps.obs)
        for i, leaf in enumerate(leaves):
            other = jnp.roll(leaf, 1, axis=0)
            changed = tree.unflatten([*leaves[:i], other, *leaves[i + 1 :]])
            assert total(params, changed) != before


@pytest.mark.sample(1)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("memory", ["lstm", "gru"])
def test_nothing_before_a_first_step_changes_an_output(memory, shared):
    """Bit for bit, in unroll and in apply."""
    case = (VECTOR, ARMS, {"memory": memory, "shared": shared})
    network, params, carry, steps = build(case)
    steps = steps._replace(first=jnp.zeros((T, B), bool).at[2, :2].set(True))
    obs = steps.obs.at[:2, :2].set(1e20)
    bad = jax.tree.map(lambda x: x.at[:2].set(jnp.nan), carry)
    clean, _ = network.unroll(params, carry, steps)
    dirty, _ = network.unroll(params, bad, steps._replace(obs=obs))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[2:], y[2:]), clean, dirty)
    assert not np.array_equal(clean[1][:2], dirty[1][:2])

    (clean, after), (dirty, bad_after) = (
        network.apply(params, memory, row(steps, 2)) for memory in (carry, bad)
    )
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    jax.tree.map(np.testing.assert_array_equal, after, bad_after)


def test_actor_and_critic_remember_apart():
    case = (VECTOR, ARMS, {"memory": "lstm", "shared": False})
    network, params, (actor, critic), steps = build(case)
    steps = steps._replace(first=jnp.zeros((T, B), bool))
    (policy, values), after = network.unroll(params, (actor, critic), steps)
    other = jax.tree.map(lambda x: x + 1.0, actor)
    (moved, same), other_after = network.unroll(params, (other, critic), steps)
    np.testing.assert_array_equal(same, values)
    jax.tree.map(np.testing.assert_array_equal, other_after[1], after[1])
    assert not np.allclose(moved.logits, policy.logits, atol=1e-3)
    (policy, moved), _ = network.unroll(params, (actor, other), steps)
    assert not np.allclose(moved, values, atol=1e-3)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["FrozenLake-misc", "Breakout-MinAtar", "Pendulum-v1"])
def test_networks_fit_environments_that_show_the_last_action(name):
    env = previous_action_and_reward(envs.make(name, B))
    network = make(env.observation_spec, env.action_spec, memory="gru")
    env_state, step = jax.jit(env.reset)(random.key(0))
    params = network.init(random.key(1), step)
    (policy, values), carry = network.apply(params, network.initial_carry(B), step)
    action = policy.sample(random.key(2))
    _, step, _, _ = jax.jit(env.step)(env_state, action, random.key(3))
    (policy, values), carry = network.apply(params, carry, step)
    assert values.shape == policy.log_prob(action).shape == (B,)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((policy, values, carry)))


@pytest.mark.sample(1)
@pytest.mark.parametrize("options", [{}, {"shared": False}, {"memory": "lstm"}])
def test_the_policy_starts_near_uniform(options):
    network = make(VECTOR, ARMS, **({"widths": (64, 64)} | options))
    for seed in range(3):
        steps = stream(VECTOR, seed, num_envs=64)
        params = network.init(jax.random.key(seed), row(steps, 0))
        (policy, values), _ = network.unroll(params, network.initial_carry(64), steps)
        probabilities = jax.nn.softmax(policy.logits)
        np.testing.assert_allclose(probabilities, 1 / 3, atol=0.02)
        assert float(jnp.std(values)) > 0.01


@pytest.mark.sample(1)
@pytest.mark.parametrize("policy", ["squashed", "gaussian"])
def test_continuous_policies_start_in_the_middle(policy):
    network = make(VECTOR, BOUNDED, policy=policy, widths=(64, 64))
    steps = stream(VECTOR, num_envs=64)
    params = network.init(jax.random.key(0), row(steps, 0))
    (distribution, _), _ = network.unroll(params, (), steps)
    np.testing.assert_allclose(distribution.mean, 0.0, atol=0.05)
    np.testing.assert_array_equal(distribution.log_std, np.zeros((T, 64, 2)))
    if policy == "squashed":
        middle = np.broadcast_to([0.0, 2.5], (T, 64, 2))
        np.testing.assert_allclose(distribution.mode(), middle, atol=0.15)
        np.testing.assert_allclose(distribution.half_width[0, 0], [2.0, 2.5])


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("specs", "options"),
    [(IMAGE, {"memory": memory}) for memory in ("none", "lstm", "gru")]
    + [(PREVIOUS_PIXELS, {"memory": "lstm"}), (SQUARE, {"torso": "deep"})],
    ids=["none", "lstm", "gru", "shallow", "deep"],
)
def test_bfloat16_computes_but_outputs_and_parameters_are_float32(specs, options):
    network, params, carry, steps = build((specs, ARMS, options))
    expected, _ = network.unroll(params, carry, steps)
    half = make(specs, ARMS, **options, compute_dtype="bfloat16")
    fresh = jax.eval_shape(half.init, jax.random.key(0), row(steps, 0))
    gradient = jax.eval_shape(
        jax.grad(lambda p: half.unroll(p, carry, steps)[0][1].sum()), params
    )
    actual, _ = half.unroll(params, carry, steps)
    one, after = half.apply(params, carry, row(steps, 0))
    for leaf in jax.tree.leaves((fresh, actual, one, after, gradient)):
        assert leaf.dtype == jnp.float32
    assert_close(actual, expected, rtol=0.1, atol=0.1)
    assert not np.allclose(actual[1], expected[1], atol=1e-5)
    # All products but those of the heads, in torso and memory.
    jaxpr = str(jax.make_jaxpr(half.unroll)(params, carry, steps))
    dtypes = re.findall(r":(\w+)\[[\d,]*\] = dot_general", jaxpr)
    assert dtypes.count("f32") == 1 and dtypes.count("bf16") == len(dtypes) - 1
    convolutions = re.findall(r":(\w+)\[[\d,]*\] = conv_general_dilated", jaxpr)
    assert set(convolutions) <= {"bf16"}


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("specs", "action", "options", "expected"),
    [
        (VECTOR, ARMS, {}, 4 * 16 + 16 + 16 * 8 + 8 + 8 * 3 + 3 + 8 + 1),
        (
            VECTOR,
            ARMS,
            {"shared": False},
            2 * (4 * 16 + 16 + 16 * 8 + 8) + 8 * 3 + 3 + 8 + 1,
        ),
        (
            IMAGE,
            FREE,
            {},
            (9 * 2 * 3 + 3) + (3 * 4 * 3) * 16 + 16 + 16 * 8 + 8 + (8 * 2 + 2 + 2) + 9,
        ),
        (
            INTEGER,
            ARMS,
            {"memory": "lstm"},
            7 * 16 + 16 + 16 * 8 + 8 + 4 * (8 * 6 + 6 * 6 + 6) + (6 * 3 + 3) + 7,
        ),
        (
            VECTOR,
            ARMS,
            {"memory": "gru"},
            4 * 16 + 16 + 16 * 8 + 8 + 3 * (8 * 6 + 6 * 6 + 6) + 6 + (6 * 3 + 3) + 7,
        ),
        (
            ATARI,
            Discrete(6),
            {"widths": (256,)},
            (8 * 8 * 4 * 16 + 16 + 4 * 4 * 16 * 32 + 32 + 9 * 9 * 32 * 256 + 256)
            + (256 * 6 + 6 + 256 + 1),
        ),
        (
            ATARI,
            Discrete(6),
            {"widths": (256,), "torso": "deep"},
            (3 * 3 * 4 * 16 + 16 + 4 * (3 * 3 * 16 * 16 + 16) + 3 * 3 * 16 * 32 + 32)
            + (9 * (3 * 3 * 32 * 32 + 32) + 11 * 11 * 32 * 256 + 256)
            + (256 * 6 + 6 + 256 + 1),
        ),
        (  # The last action and reward are read by the memory, not by the dense layer.
            WithPrevious(ATARI, Discrete(6), Box(())),
            Discrete(6),
            {"widths": (256,), "memory": "lstm", "memory_width": 256},
            (8 * 8 * 4 * 16 + 16 + 4 * 4 * 16 * 32 + 32 + 9 * 9 * 32 * 256 + 256)
            + 4 * ((256 + 6 + 1) * 256 + 256 * 256 + 256)
            + (256 * 6 + 6 + 256 + 1),
        ),
    ],
)
def test_networks_have_the_size_that_their_config_says(
    specs, action, options, expected
):
    network = make(specs, action, **options)
    params = jax.eval_shape(network.init, jax.random.key(0), row(stream(specs), 0))
    assert sum(x.size for x in jax.tree.leaves(params)) == expected


@pytest.mark.sample(1)
@pytest.mark.parametrize("torso", ["mlp", "conv", "shallow", "deep"])
def test_pixels_of_type_uint8_are_divided_by_255(torso):
    network, params, carry, steps = build((PIXELS, ARMS, {"torso": torso}))
    floats = make(Box(PIXELS.shape), ARMS, torso=torso)
    scaled = steps._replace(obs=steps.obs.astype(jnp.float32) / 255)
    actual, _ = network.unroll(params, carry, steps)
    expected, _ = floats.unroll(params, carry, scaled)
    assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert float(jnp.std(actual[1])) > 1e-3


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("specs", "torso"),
    [
        (Box((36, 36, 1)), "shallow"),
        (Box((84, 84, 4)), "shallow"),
        (Box((35, 36, 1)), "conv"),
        (Box((36, 35, 1)), "conv"),
        ({"near": Box((84, 84, 1)), "far": Box((10, 10, 1))}, "conv"),
        (Box((2, 84, 1)), "mlp"),
        (Box((84, 84)), "mlp"),
        (Box((84, 84), np.dtype(np.uint8)), "shallow"),
        (Box((4, 84, 84), np.dtype(np.uint8)), "shallow"),
    ],
    ids=str,
)
def test_auto_reads_images_by_their_size(specs, torso):
    def shapes(**options):
        init = make(specs, ARMS, **options).init
        params = jax.eval_shape(init, jax.random.key(0), row(stream(specs), 0))
        return jax.tree.map(lambda x: x.shape, params)

    assert shapes() == shapes(torso=torso)
    assert shapes() != shapes(torso="mlp" if torso != "mlp" else "auto", widths=(3,))


@pytest.mark.sample(1)
@pytest.mark.parametrize("case", ["shallow pytree", "deep pytree"])
def test_image_networks_have_relu_whatever_the_activation(case):
    specs, action, options = CASES[case]
    network, params, carry, steps = build(CASES[case])
    other = make(specs, action, **options, activation="relu")
    expected, _ = network.unroll(params, carry, steps)
    assert_close(other.unroll(params, carry, steps)[0], expected, rtol=1e-6)


def test_image_networks_show_rewards_as_they_are():
    """To the heads, which are linear: three rewards in a line give values in a line."""
    network, params, carry, steps = build((PREVIOUS_PIXELS, ARMS, {}))
    values = [
        network.unroll(
            params, carry, steps._replace(obs=steps.obs._replace(reward=reward))
        )[0][1]
        for reward in jnp.broadcast_to(
            jnp.array([0.0, 5.0, 10.0])[:, None, None], (3, T, B)
        )
    ]
    assert float(jnp.abs(values[1] - values[0]).min()) > 0.1
    assert_close(values[2] - values[1], values[1] - values[0], rtol=1e-3)


@pytest.mark.sample(1)
@pytest.mark.parametrize("torso", ["shallow", "deep"])
def test_image_networks_start_near_uniform(torso):
    network = make(ATARI, Discrete(6), torso=torso, widths=(64,))
    steps = stream(ATARI, length=1, num_envs=8)
    params = network.init(jax.random.key(0), row(steps, 0))
    (policy, values), _ = network.unroll(params, (), steps)
    probabilities = jax.nn.softmax(policy.logits)
    np.testing.assert_allclose(probabilities, 1 / 6, atol=0.02)
    assert 0.01 < float(jnp.std(values)) < 1.0


@pytest.mark.slow
def test_a_population_of_networks_is_that_of_each_seed():
    network = make(IMAGE, ARMS, memory="lstm")
    step = row(stream(IMAGE), 0)
    keys = jax.random.split(random.key(0), 32)
    members = jax.jit(jax.vmap(lambda key: network.init(key, step)))(keys)
    for i in (0, 31):
        alone = network.init(keys[i], step)
        assert_close(row(members, i), alone, atol=1e-5)


@pytest.mark.parametrize(
    ("specs", "action", "options", "message"),
    [
        (VECTOR, ARMS, {"torso": "conv"}, "torso = conv needs images"),
        (Box((2, 9, 1)), ARMS, {"torso": "conv"}, "at least 3 x 3"),
        (VECTOR, ARMS, {"torso": "deep"}, "torso = deep needs images"),
        (Box((84, 7, 1)), ARMS, {"torso": "deep"}, "at least 8 x 8"),
        (Box((35, 84, 1)), ARMS, {"torso": "shallow"}, "at least 36 x 36"),
        ((ATARI, SQUARE), ARMS, {"torso": "shallow"}, "at least 36 x 36"),
        (VECTOR, FREE, {"policy": "squashed"}, "a lower and a higher bound"),
        (VECTOR, POINT, {"policy": "squashed"}, "whose distance is finite in float32"),
        (VECTOR, HUGE, {"policy": "squashed"}, "whose distance is finite in float32"),
        ({"a": 3}, FREE, {}, "observation_spec must be a Box, .*, got int: 3"),
        (VECTOR, Discrete(2, shape=(2,)), {}, "not an array .*: MultiDiscrete is"),
        (VECTOR, Box((2, 0)), {}, "no action to choose"),
        (VECTOR, {}, {}, "no action to choose"),
        (Box((4, 84, 84, 3), np.dtype(np.uint8)), ARMS, {}, "a stack of them into the"),
        (
            {"a": Box((2,)), "b": Box((2, 0))},
            ARMS,
            {},
            r"nothing to read in Box\(\(2, 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(specs, action, options, message):
    with pytest.raises(ValueError, match=message):
        actor_critic(specs, action, NetworkConfig(**options))


@pytest.mark.parametrize("policy", ["gaussian", "squashed"])
def test_actions_of_integers_are_refused_with_a_way_out(policy):
    levels = Box((2,), np.dtype(np.int64), low=-3.0, high=7.0)
    with pytest.raises(
        RefusedError, match=r"real numbers, .*int64.*one Discrete action"
    ):
        actor_critic(Box((4,)), levels, NetworkConfig(policy=policy))


def test_bounds_whose_sum_float32_does_not_hold_have_a_centre():
    config = NetworkConfig(widths=(), policy="squashed")
    net = actor_critic(Box((1,)), Box((1,), low=2e38, high=3e38), config)
    no = jnp.zeros(1, bool)
    step = TimeStep(jnp.zeros((1, 1)), no, no)
    params = net.init(random.key(0), step)
    policy = net.apply(params, (), step)[0][0]
    np.testing.assert_allclose(policy.centre, 2.5e38, rtol=1e-6)
