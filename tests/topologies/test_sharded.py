"""Data parallelism changes where a program runs, not what it computes."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import loops, random, rollout
from jaxrl_par.agents import TrainState, stepped
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.normalize import Normalized, normalize_observations
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.algorithms.reinforce import ReinforceConfig, reinforce
from jaxrl_par.axis import Axis
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, episodic, scanned
from jaxrl_par.topologies.sharded import data_mesh, sharded, share
from jaxrl_par.types import Agent, Info

NUM_ENVS = 8
ENV = probes.counter(NUM_ENVS)
# Keeps the gradient itself: in parameters its last digits are lost. Not Adam, which
# ignores the gradient's scale and so would hide a sum in place of a mean.
SGD = optax.chain(optax.trace(decay=0.0), optax.sgd(0.1))


def network(memory="none", env=ENV):
    config = NetworkConfig(widths=(16,), memory=memory, memory_width=8)
    return actor_critic(env.observation_spec, env.action_spec, config)


AGENTS = {
    "a2c": lambda: a2c(network(), SGD),
    "a2c, summed": lambda: a2c(network(), SGD, A2CConfig(reduction="sum")),
    "a2c, lstm": lambda: a2c(network("lstm"), SGD),
    "impala": lambda: impala(network(), SGD),
    "impala, lstm, summed": lambda: impala(
        network("lstm"), SGD, ImpalaConfig(reduction="sum")
    ),
    "ppo": lambda: ppo(network(), SGD),
    "ppo, gru": lambda: ppo(network("gru"), SGD),
    "reinforce, mean": lambda: reinforce(network(), SGD),
    "reinforce, learned": lambda: reinforce(
        network(), SGD, ReinforceConfig(baseline="learned", reduction="mean")
    ),
    "normalized ppo": lambda: normalize_observations(ppo(network(), SGD)),
}


def acted(agent):
    workers = rollout.start(agent, ENV, random.key(0))
    state = agent.init(random.key(1), workers.step)
    _, trajectory, _ = rollout.unroll(
        agent, ENV, agent.params(state), workers, random.key(2), length=7
    )
    return state, trajectory


def part(trajectory, index, size):
    """The trajectory of `size` environments from `index` * `size` on."""
    rows = trajectory._replace(carry=())
    own = jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, index * size, size, axis=1), rows
    )
    carry = jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, index * size, size), trajectory.carry
    )
    return own._replace(carry=carry)


def gradient(state):
    """That of the latest update; with it, statistics but for one device's count."""
    if isinstance(state, Normalized):
        statistics = state.statistics
        return gradient(state.inner), statistics.mean, statistics.variance
    return state.opt_state[0].trace


@pytest.mark.sample(1)
@pytest.mark.parametrize("num_devices", [2, 1, 4, 8])
@pytest.mark.parametrize("name", AGENTS)
def test_an_update_on_many_devices_equals_one_on_their_joint_batch(name, num_devices):
    agent = AGENTS[name]()
    state, trajectory = acted(agent)
    key = random.key(3)
    expected, metrics = jax.jit(
        lambda state: loops.learn(agent, state, trajectory, key)
    )(state)

    def init(key):
        own = part(trajectory, jax.lax.axis_index("data"), NUM_ENVS // num_devices)
        return loops.Run(state, own, key, jnp.zeros(()))

    def step(run):
        learner, metrics = loops.learn(
            agent, run.learner, run.local, run.key, axis=Axis("data")
        )
        return run._replace(learner=learner), metrics

    program = sharded(loops.Program(init, step), data_mesh(num_devices))
    run, sharded_metrics = jax.jit(lambda key: program.step(program.init(key)))(key)
    actual, wanted = (jax.tree.leaves(gradient(x)) for x in (run.learner, expected))
    scale = max(np.abs(leaf).max() for leaf in wanted)
    for x, y in zip(actual, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(
        sharded_metrics["grad_norm"], metrics["grad_norm"], rtol=1e-5
    )


@pytest.mark.slow
def test_devices_act_differently_and_learn_the_same():
    agent = a2c(network(), SGD)
    program = compiled(agent, probes.clock(2), 8, axis=Axis("data"))
    program = sharded(program, data_mesh(4))
    run, metrics = jax.jit(lambda key: scanned(program, 3)(program.init(key)))(
        random.key(0)
    )
    assert run.local.streams.step.obs.shape[:2] == (4, 2)
    assert metrics["grad_norm"].shape == (3,)
    for leaf in jax.tree.leaves(run.learner.params):
        first, *others = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert all((first == other).all() for other in others)


def test_no_two_devices_draw_the_same_numbers():
    env = probes.observation_reward(16)
    agent = a2c(network(env=env), SGD)
    program = sharded(compiled(agent, env, 4, axis=Axis("data")), data_mesh(8))
    run = jax.jit(program.init)(random.key(0))
    # Bits that each device drew for its 16 environments: alike once in 2**16 pairs.
    for after in (run, jax.jit(program.step)(run)[0]):
        shown = np.asarray(after.local.streams.step.obs).reshape(8, 16)
        assert len(np.unique(shown, axis=0)) == 8


@pytest.mark.slow
def test_steps_of_all_devices_are_counted():
    env = probes.constant_reward(3, continuing=True)
    agent = a2c(network(env=env), SGD)
    program = sharded(compiled(agent, env, 5, axis=Axis("data")), data_mesh(4))
    run, _ = jax.jit(lambda key: scanned(program, 2)(program.init(key)))(random.key(0))
    assert int(run.progress.env_steps) == 2 * 5 * 3 * 4
    assert int(run.progress.updates) == 2


def told_apart(grad, optimizer, params, reduction="mean"):
    """An agent whose lanes are numbered over all devices, by their carry."""

    def act(params, carry, step, key):
        return jnp.zeros(step.first.shape, jnp.int32), carry, {}

    return Agent(
        init=lambda key, step: TrainState(params, optimizer.init(params)),
        initial_carry=lambda num_envs: jnp.arange(num_envs),
        act=act,
        greedy=act,
        grad=grad,
        apply=lambda state, grads, metrics: TrainState(
            *stepped(optimizer, state.params, state.opt_state, grads)
        ),
        reduction=reduction,
    )


def test_minibatches_of_an_epoch_have_each_row_of_the_joint_batch_once():
    """Devices act with keys apart. Were halves of permutations apart, 6 of 8 rows would
    be learned from, on average."""

    def count(state, batch, key, axis):
        return -jnp.sum(jax.nn.one_hot(batch.carry, 8), axis=0), Info({})

    agent = told_apart(count, optax.sgd(1.0), params=jnp.zeros(8), reduction="sum")
    learner = loops.epochs(agent, 3, 2)
    program = sharded(
        compiled(learner, probes.counter(4), 1, Axis("data")), data_mesh(2)
    )
    run, _ = jax.jit(lambda key: program.step(program.init(key)))(random.key(0))
    assert run.learner.params.tolist() == [3.0] * 8


def test_gradients_are_clipped_after_their_mean():
    grads = jnp.array([[6.0, 8.0], [0.0, 0.5]])
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))
    agent = told_apart(
        lambda state, batch, key, axis: (-grads[batch.carry[0]], Info({})),
        optimizer,
        params=jnp.zeros(2),
    )
    program = compiled(agent, probes.counter(1), 1, Axis("data"))
    program = sharded(program, data_mesh(2))
    run, _ = jax.jit(lambda key: program.step(program.init(key)))(random.key(0))
    np.testing.assert_allclose(run.learner.params, [0.5767, 0.8170], atol=1e-4)


def test_impossible_meshes_and_shares_are_rejected():
    with pytest.raises(ValueError, match="asked for 99 devices, found 8"):
        data_mesh(99)
    with pytest.raises(ValueError, match=r"num_envs = 10 .* num_devices = 4; 8 or 12"):
        share(10, 4)
    assert share(12, 4) == 3


def test_lanes_of_whole_episodes_are_told_apart_over_all_devices():
    """By their carry, such as a rate of exploration or the index of a member."""
    agent = a2c(network(), SGD)._replace(
        init=lambda key, step: jnp.zeros(NUM_ENVS, jnp.int32),
        initial_carry=lambda num_envs: jnp.arange(num_envs),
        act=lambda params, carry, step, key: (jnp.zeros_like(carry), carry, {}),
        params=lambda state: (),
        grad=lambda state, batch, key, axis: (jnp.float32(0), Info({})),
        apply=lambda state, grads, metrics: state,
        observe=lambda state, trajectory, axis: axis.gather(trajectory.carry),
    )
    program = episodic(agent, probes.counter(NUM_ENVS // 4), 3, Axis("data"))
    program = sharded(program, data_mesh(4))
    run, _ = jax.jit(lambda key: program.step(program.init(key)))(random.key(0))
    np.testing.assert_array_equal(run.learner, np.arange(NUM_ENVS))


def test_wrong_things_are_named():
    # As users call it: the tests check types first.
    untyped = inspect.unwrap(sharded)
    program = compiled(a2c(network(), optax.sgd(0.1), A2CConfig()), ENV, 2)
    with pytest.raises(ValueError, match=r"mesh must be a Mesh, .* got int: 2"):
        untyped(program, 2)
    with pytest.raises(ValueError, match=r"program must be a Program, .* Environment"):
        untyped(ENV, data_mesh(1))
