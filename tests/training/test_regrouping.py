"""A run goes on with another number of devices, and the same environments."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import envs, loops, presets, random
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.axis import Axis
from jaxrl_par.loops import Program
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.training.checkpoints import Checkpoints
from jaxrl_par.training.failures import CheckpointError

LANES = 8


def made(num_devices):
    """A2C with memory, on so many devices."""
    env = envs.make("CartPole-v1", LANES // num_devices)
    network = actor_critic(
        *env.specs, NetworkConfig(widths=(8,), memory="lstm", memory_width=4)
    )
    agent = a2c(network, optax.sgd(0.1))
    if num_devices == 1:
        return compiled(agent, env, 4)
    return sharded(compiled(agent, env, 4, Axis("data")), data_mesh(num_devices))


def kept(folder, num_devices):
    config = {"num_devices": num_devices, "seed": 0}
    return Checkpoints(folder, config, extends=("num_devices",))


def lanes(run):
    """Leaves of all environments in progress, [LANES, ...], whoever steps them."""
    leaves = jax.tree.leaves(run.local.streams)
    split = run.local.streams.step.first.ndim == 2
    return [np.asarray(x).reshape(LANES, *x.shape[1 + split :]) for x in leaves]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, 2),
        pytest.param(2, 4, marks=pytest.mark.slow),
        pytest.param(4, 1, marks=pytest.mark.slow),
    ],
)
def test_lanes_are_those_that_were_saved_in_their_order(before, after, tmp_path):
    program = made(before)
    run = jax.jit(program.init)(random.key(0))
    run, _ = jax.jit(program.step)(run)
    with kept(tmp_path, before) as store:
        store.save(1, run)
    like = jax.jit(made(after).init)(random.key(1))
    with (
        kept(tmp_path, after) as store,
        pytest.warns(UserWarning, match="another number of devices"),
    ):
        found = store.restore(like)
    for old, new in zip(lanes(run), lanes(found), strict=True):
        np.testing.assert_array_equal(old, new)
    jax.tree.map(np.testing.assert_array_equal, run.learner, found.learner)
    np.testing.assert_array_equal(
        jax.random.key_data(run.key), jax.random.key_data(found.key)
    )
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, like)


def keeping(num_devices):
    """A program whose devices keep a number each."""

    def init(key):
        return loops.new_run(jnp.zeros(2), {"kept": jnp.zeros(3)}, key)

    program = Program(init, lambda run: (run, {}))
    return program if num_devices == 1 else sharded(program, data_mesh(num_devices))


def test_what_else_devices_keep_is_not_shared_anew(tmp_path):
    with kept(tmp_path, 2) as store:
        store.save(1, jax.jit(keeping(2).init)(random.key(0)))
    like = jax.jit(keeping(4).init)(random.key(0))
    told = r"num_devices = 2, and .*local.kept.* cannot be shared by 4"
    with kept(tmp_path, 4) as store, pytest.raises(CheckpointError, match=told):
        store.restore(like)


@pytest.mark.slow
def test_a_run_is_resumed_on_more_devices(tmp_path):
    experiment = presets.get("a2c")
    args = experiment.config(num_envs=8, unroll_length=4, total_steps=640)
    args = replace(args, optimizer=replace(args.optimizer, anneal=False), num_devices=2)
    settings = replace(
        args.training, runs_dir=str(tmp_path), name="run", log_interval=2, gif=False,
        evaluation_envs=2, evaluation_episodes=1, tensorboard=False,
    )  # fmt: skip
    args = replace(args, training=settings)
    first = experiment.run(args)
    more = replace(
        args, num_devices=4, total_steps=1280, training=replace(settings, resume=True)
    )
    with pytest.warns(UserWarning, match="another number of devices"):
        second = experiment.run(more)
    assert second.summary.updates > first.summary.updates
    assert second.run.local.streams.step.first.shape == (4, 2)
    assert json.loads(second.directory.config.read_text())["num_devices"] == 4
