"""Runs of learners that gossip: what they leave, what acts, and going on."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from nearness import assert_near
from test_asynchronous_runs import arguments, make_agent, run

from jaxrl_par import cli, random, training
from jaxrl_par.topologies.delayed import DelaysConfig
from jaxrl_par.topologies.gossip import GossipConfig
from jaxrl_par.topologies.workers import WorkersConfig
from jaxrl_par.training.checkpoints import state_hash

pytestmark = pytest.mark.usefixtures("declared")

EXPERIMENT = cli.Experiment(cli.Args, make_agent)


def gossiping(tmp_path, pace="together", name="run", num_updates=4, **options):
    plain = {"workers": WorkersConfig(), "topology": "gossip", "num_envs": 6}
    own = {"delays": DelaysConfig("per_worker")} if pace == "own" else {}
    args = arguments(tmp_path, name, num_updates, **plain | own | options)
    args = replace(args, gossip=GossipConfig(3, pace=pace))
    return replace(args, total_steps=(num_updates - 1) * args.rows_per_update + 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pace", "num_devices"), [("together", 1), ("together", 3), ("own", 1)]
)
def test_a_run_goes_on_bit_for_bit(tmp_path, pace, num_devices):
    whole = run(gossiping(tmp_path, pace, "whole", num_devices=num_devices))
    args = gossiping(tmp_path, pace, num_devices=num_devices)
    placed = cli.place(args, cli.compose(args, make_agent))
    start = random.key(args.seed)
    training.train(placed, args, args.training, key=start, num_updates=2)
    resumed = run(replace(args, training=replace(args.training, resume=True)))
    assert state_hash(resumed.run) == state_hash(whole.run)
    assert resumed.summary.updates == 4
    assert resumed.run.progress.updates.units.shape == (3,)


@pytest.mark.slow
def test_the_mean_of_all_parameters_acts_and_each_learner_can_be_had(tmp_path):
    trained = run(gossiping(tmp_path))
    params = trained.run.learner.params
    assert max(np.ptp(x, axis=0).max() for x in jax.tree.leaves(params)) > 0
    folder = trained.directory.path
    with training.load(folder, experiment=EXPERIMENT) as mean:
        means = jax.tree.map(lambda x: np.mean(x, axis=0), params)
        assert_near(mean.params, means)
        assert mean.evaluate() == trained.summary.evaluation
    with training.load(folder, experiment=EXPERIMENT, member=2) as last:
        assert_near(last.params, jax.tree.map(lambda x: x[2], params), 0.0)
    with pytest.raises(training.TrainingError, match="member must be 0 to 2, got 3"):
        training.load(folder, experiment=EXPERIMENT, member=3)


@pytest.mark.slow
def test_a_learner_on_each_device_does_what_they_do_on_one(tmp_path):
    one = run(gossiping(tmp_path, name="one"))
    three = run(gossiping(tmp_path, name="three", num_devices=3))
    assert_near(three.run.learner.params, one.run.learner.params, 1e-4)
    assert three.summary.env_steps == one.summary.env_steps
