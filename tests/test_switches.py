"""JAX's switches that careful users set: everything still traces, in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import CONTINUOUS, LEARNERS, OPTIMIZER, network

from jaxrl_par import exploration, loops, losses, random, returns
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.algorithms.tabular import (
    policy_iteration,
    random_walk,
    value_iteration,
)
from jaxrl_par.algorithms.vmpo import vmpo
from jaxrl_par.distributions import Categorical, DiagNormal, SquashedNormal
from jaxrl_par.envs import make
from jaxrl_par.networks import NetworkConfig, TransformerConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.types import Box, Discrete, TimeStep, example

SMALL_GTRXL = NetworkConfig(
    widths=(4,), policy="squashed", memory="gtrxl", memory_width=8,
    transformer=TransformerConfig(1, 2, 4, 8),
)  # fmt: skip
SEPARATE_GRUS = NetworkConfig(widths=(4,), shared=False, memory="gru", memory_width=4)


def of(env, config):
    return actor_critic(env.observation_spec, env.action_spec, config)


def corrected(env):
    config = ImpalaConfig(behaviour_cost=0.1, correction="epsilon")
    return impala(network(env), OPTIMIZER, config)


MORE = {
    "v-mpo, real numbers": (
        lambda env: vmpo(network(env), OPTIMIZER), probes.continuous_action(4)
    ),
    "ppo, squashed, gtrxl": (
        lambda env: loops.epochs(ppo(of(env, SMALL_GTRXL), OPTIMIZER), 2, 2),
        probes.continuous_action(4),
    ),
    "n-step a2c, two grus": (
        lambda env: a2c(of(env, SEPARATE_GRUS), OPTIMIZER, A2CConfig(n_step=3)),
        probes.clock(4),
    ),
    "impala, corrected otherwise": (corrected, probes.continuous_action(4)),
}  # fmt: skip
MORE |= {x: (made, probes.continuous_action(4)) for x, made in CONTINUOUS.items()}
CASES = {name: (made, probes.clock(4)) for name, made in LEARNERS.items()} | MORE
QUICK = {"x64": ("v-mpo", "ppo, squashed, gtrxl"), "rank": ("dqn, prioritised",)}
QUICK |= {"dtype": ("chain", "ppo, squashed, gtrxl")}


def traced(name):
    """Shapes of a learner's state after two updates: nothing is compiled."""
    made, env = CASES[name]
    program = compiled(made(env), env, 8)
    return jax.eval_shape(
        lambda: scanned(program, 2)(program.init(random.key(0)))[0]
    ).learner


def cases(switch):
    return [x if x in QUICK[switch] else pytest.param(x, marks=pytest.mark.slow)
            for x in CASES]  # fmt: skip


@pytest.mark.parametrize("name", cases("rank"))
def test_no_rank_is_promoted(name):
    with jax.numpy_rank_promotion("raise"):
        traced(name)


@pytest.mark.parametrize("name", cases("dtype"))
def test_no_dtype_is_promoted(name):
    with jax.numpy_dtype_promotion("strict"):
        traced(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", cases("x64"))
def test_what_is_learned_is_float32_although_float64_is_enabled(name):
    with jax.enable_x64(True):
        dtypes = {x.dtype.name for x in jax.tree.leaves(traced(name))}
    assert dtypes <= {"float32", "int32", "uint32"}


SWITCHES = {
    "x64": lambda: jax.enable_x64(True),
    "rank": lambda: jax.numpy_rank_promotion("raise"),
    "dtype": lambda: jax.numpy_dtype_promotion("strict"),
}
every_switch = pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)


@pytest.mark.slow
@every_switch
@pytest.mark.parametrize("torso", ["conv", "shallow", "deep"])
def test_image_networks_trace(torso, switch):
    spec, no = Box((36, 36, 3), np.dtype(np.uint8), 0.0, 255.0), np.zeros((2, 3), bool)
    steps = TimeStep(np.zeros((2, 3, 36, 36, 3), np.uint8), no, no)

    def gradient(key):
        net = actor_critic(spec, Discrete(3), NetworkConfig(torso=torso))
        params = net.init(key, jax.tree.map(lambda x: x[0], steps))
        return jax.grad(lambda p: net.unroll(p, (), steps)[0][1].sum())(params)

    with switch():
        leaves = jax.tree.leaves(jax.eval_shape(gradient, random.key(0)))
    assert {x.dtype.name for x in leaves} == {"float32"}


@pytest.mark.slow
@every_switch
@pytest.mark.parametrize("name", ["IMaze-9x9", "MetaFetch-7x7", "CartPole-v1"])
def test_environments_and_tables_trace(name, switch):
    env = make(name, 2)

    def step(key):
        return env.step(env.reset(key)[0], example(env.action_spec, 2), key)

    with switch():
        jax.eval_shape(step, random.key(0))
        jax.eval_shape(lambda: policy_iteration(random_walk(5)))
        jax.eval_shape(lambda: value_iteration(random_walk(5)))


@pytest.mark.sample(1)
@every_switch
@pytest.mark.parametrize(
    "name", ["MetaMaze-misc", "Freeway-MinAtar", "Swimmer-misc", "FourRooms-misc"]
)
def test_what_gymnax_has_traces_in_32_bits(name, switch):
    """Where it promotes ranks or dtypes, or mixes 32 and 64 bits."""

    def shapes():
        env = make(name, 2)
        action = example(env.action_spec, 2)
        state, _ = jax.eval_shape(env.reset, random.key(0))
        return jax.eval_shape(env.step, state, action, random.key(0))

    expected = shapes()
    with switch():
        assert shapes() == expected


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_functions_of_arrays_trace_without_promotion(dtype):
    """By themselves, as in a loss of one's own."""
    x, last, key = jnp.ones((4, 3), dtype), jnp.zeros((4, 3), bool), random.key(0)
    stream = {"rewards": x, "discounts": x, "last": last}
    values, rates = jnp.ones((5, 3), dtype), jnp.array([0.1, 0.2, 0.3, 0.4])

    def all_of_them():
        returns.n_step(**stream, values=values, n=3)
        returns.gae(**stream, values=values, lambda_=0.9)
        returns.vtrace(**stream, values=values, log_ratios=x, max_rho=2.0)
        returns.reached(**stream, n=2)
        returns.unsquashed(returns.squashed(x))
        for explored in (exploration.epsilon_greedy, exploration.boltzmann):
            explored(key, x, 0.1), explored(key, x, rates)
        exploration.ladder(3, [0.1, 0.2], [1.0, 1.0]), exploration.geometric_ladder(3)
        losses.clipped_surrogate(x, x, 0.2), losses.clipped_value_loss(x, x, x, 0.2)
        losses.over_rows(x, last), losses.row_mean(x, last)
        losses.of_sequences(x, last, 0.9)
        few_and_many = Categorical(x), Categorical(jnp.ones((4, 99), dtype))
        for one in (*few_and_many, DiagNormal(x, x), SquashedNormal(x, x, x, x)):
            action, _ = one.sample_and_log_prob(key)
            one.log_prob(action), one.entropy(), one.kl(one), one.mode()

    with jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(all_of_them)
