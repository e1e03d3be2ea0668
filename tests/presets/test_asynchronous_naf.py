"""NAF as an experiment: pulls at episodes, actions without bounds, short runs."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import envs, presets, random
from jaxrl_par.algorithms.actor_critic import NAFConfig
from jaxrl_par.algorithms.pulling import Pulled
from jaxrl_par.errors import problems
from jaxrl_par.loops.pace import PaceConfig
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.numpy_actor import Actor
from jaxrl_par.topologies.threads import ThreadsConfig
from jaxrl_par.training import TrainingConfig, TrainingError
from jaxrl_par.training.checkpoints import state_hash
from jaxrl_par.types import TimeStep

EXPERIMENT = presets.get("naf")
SMALL = NetworkConfig(widths=(8,), activation="relu")


def short(path, **changed):
    """A run that learns from its third update on."""
    args = EXPERIMENT.config(
        total_steps=320,
        network=SMALL,
        naf=NAFConfig(warm_up=64),
        training=TrainingConfig(
            name="run", runs_dir=str(path), gif=False, tensorboard=False,
            evaluation_episodes=1, evaluation_envs=2, log_interval=10,
        ),
    )  # fmt: skip
    replay = replace(
        args.replay, capacity=256, min_size=48, batch_size=8, updates_per_step=1
    )
    return replace(args, **{"replay": replay} | changed)


def named(args, **changed):
    return replace(args, training=replace(args.training, **changed))


def test_asynchronous_naf_is_what_its_help_says():
    pace = PaceConfig(samples_per_insert=640.0)
    config = ThreadsConfig(num_actors=4, schedule="decoupled", pace=pace)
    args = EXPERIMENT.config(topology="threads", pull="episode", threads=config)
    assert not problems(args)


@pytest.mark.slow
def test_what_was_pulled_is_resumed_to_the_same_bits(tmp_path):
    """Episodes are longer than the first part of the run."""
    args = short(tmp_path, pull="episode", normalize=True)
    whole = EXPERIMENT.run(named(args, name="whole"))
    assert isinstance(whole.run.local.streams.carry, Pulled)
    EXPERIMENT.run(replace(args, total_steps=144))
    resumed = EXPERIMENT.run(named(args, resume=True))
    assert state_hash(resumed.run) == state_hash(whole.run)
    kept = jax.tree.leaves(whole.run.local.data.items.carry)
    assert kept == []


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["delayed", "gossip", "threads", "workers"])
def test_collectors_pull_on_every_topology(topology, tmp_path):
    trained = EXPERIMENT.run(short(tmp_path, topology=topology, pull="episode"))
    assert np.isfinite(trained.summary.evaluation["greedy_return"])


def free(num_envs):
    return envs.make("LQR-2x1", num_envs, bound=np.inf)


@pytest.mark.slow
def test_without_bounds_it_trains_and_its_actor_leaves(tmp_path):
    experiment = EXPERIMENT.on("Free", environments=free)
    given = short(tmp_path, naf=NAFConfig(warm_up=0, exploration="covariance"))
    args = experiment.config(
        total_steps=320, network=SMALL, naf=given.naf, replay=given.replay,
        training=given.training,
    )  # fmt: skip
    trained = experiment.run(args)
    actor, learner = Actor.load(trained.directory.actor), experiment.learner(args)
    obs = np.random.default_rng(0).normal(size=(3, 2)).astype("f4")
    no = np.zeros(3, bool)
    params, carry = learner.params(trained.run.learner), learner.actor.initial_carry(3)
    step = TimeStep(jnp.asarray(obs), jnp.asarray(no), jnp.asarray(no))
    expected, _, _ = learner.actor.greedy(params, carry, step, random.key(0))
    np.testing.assert_allclose(actor.step(obs, no, ())[0], expected, atol=1e-4)


def test_uniform_actions_without_bounds_are_refused(tmp_path):
    experiment = EXPERIMENT.on("Free", environments=free)
    given = TrainingConfig(runs_dir=str(tmp_path / "runs"))
    with pytest.raises(TrainingError, match="warm_up must be 0 where actions have no"):
        experiment.run(experiment.config(training=given))
    assert not (tmp_path / "runs").exists()
