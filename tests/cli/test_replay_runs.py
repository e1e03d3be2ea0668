"""Runs that learn from replay: memory is told, and checkpoints may leave it out."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.cli.place import place
from jaxrl_par.cli.replay import ReplayConfig
from jaxrl_par.loops import Program, new_run
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.dqn import EXPERIMENT, Args
from jaxrl_par.replay import memory
from jaxrl_par.topologies.gossip import GossipConfig
from jaxrl_par.topologies.workers import WorkersConfig
from jaxrl_par.training import TrainingConfig, load
from jaxrl_par.training.checkpoints import Checkpoints, state_hash
from jaxrl_par.training.comparison import named
from jaxrl_par.training.engines import Compiled
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.types import Unsaved

pytestmark = pytest.mark.usefixtures("declared")

REPLAY = ReplayConfig(capacity=256, min_size=128, batch_size=8)
USUAL = Args(
    num_envs=2,
    unroll_length=4,
    total_steps=400,
    network=NetworkConfig(widths=(4,)),
    optimizer=OptimizerConfig(anneal=False),
    replay=REPLAY,
)


def settings(path, **changed) -> TrainingConfig:
    kept = {"name": "run", "runs_dir": str(path), "evaluation_envs": 1}
    quiet = {"evaluation_episodes": 1, "tensorboard": False, "gif": False}
    return TrainingConfig(**kept | quiet | changed)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "replay: 256 rows, 9.1 kB"),
        ({"num_devices": 2}, "replay: 256 rows, 4.6 kB on each of 2 devices"),
        (
            {"topology": "workers", "workers": WorkersConfig(num_workers=2)},
            "replay: 256 rows, 4.6 kB on each of 2 workers",
        ),
    ],
)
def test_what_replay_takes_is_told_for_each_part(changed, told):
    """64 unrolls of 4 rows: 64 x (5 x (16 + 2) + 4 x 12 + 4) bytes, and counters."""
    args = replace(USUAL, **changed)
    assert args.memory_needed(EXPERIMENT.learner(args)) == told


def test_a_replay_that_does_not_fit_is_refused_before_a_folder_is_made(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 9000)
    args = replace(USUAL, training=settings(tmp_path / "runs"))
    with pytest.raises(TrainingError, match=r"256 rows, 9\.1 kB, and 9\.0 kB are"):
        EXPERIMENT.run(args)
    assert not (tmp_path / "runs").exists()


def test_what_is_unsaved_is_left_out_and_told_where_a_run_goes_on(tmp_path):
    def run(number: float):
        kept = Unsaved({"items": jax.numpy.full(3, number)})
        return new_run(jax.numpy.float32(number), (jax.numpy.int32(number), kept), KEY)

    with Checkpoints(tmp_path / "checkpoints", {}) as store:
        store.save(1, run(1))
        with pytest.warns(UserWarning, match="is without what the run kept to learn"):
            restored = store.restore(run(0))
    assert restored is not None
    assert restored.learner == 1 and restored.local[0] == 1
    np.testing.assert_array_equal(restored.local[1].content["items"], [0, 0, 0])
    assert state_hash(run(1)) == state_hash(restored)


@pytest.mark.slow
@pytest.mark.parametrize(
    "topology", ["compiled", "gossip", "workers", "threads", "delayed"]
)
@pytest.mark.parametrize("prioritised", [False, True])
def test_a_run_goes_on_without_its_replay_and_with_all_else(
    tmp_path, topology, prioritised
):
    one = {"workers": WorkersConfig(num_workers=1)}
    args = replace(
        USUAL,
        topology=topology,
        replay=replace(
            REPLAY, unsaved=True, updates_per_step=1, prioritised=prioritised
        ),
        training=settings(tmp_path, log_interval=5),
        **one if topology in ("workers", "delayed") else {},
        **{"gossip": GossipConfig(2)} if topology == "gossip" else {},
    )
    trained = EXPERIMENT.run(args)
    more = replace(args, training=settings(tmp_path, log_interval=5, resume=True))
    if topology != "delayed":  # whose schedule is made for the whole run
        more = replace(more, total_steps=600)
    with pytest.warns(UserWarning, match="is without what the run kept to learn from"):
        resumed = EXPERIMENT.run(more)
    if topology != "delayed":
        assert resumed.summary.updates > trained.summary.updates
    with load(tmp_path / "run") as loaded:
        assert set(loaded.evaluate()) >= {"greedy_return"}


@pytest.mark.slow
def test_what_is_lost_is_what_was_kept_and_nothing_else(tmp_path):
    args = replace(USUAL, replay=replace(REPLAY, unsaved=True, prioritised=True))
    program = place(args, EXPERIMENT.learner(args))
    assert isinstance(program, Program)
    engine = Compiled(program, 40)
    run, _ = engine.advance(engine.init(KEY), 40)
    with Checkpoints(tmp_path / "checkpoints", {}) as store:
        store.save(40, run)
        before = jax.device_get(named(jax.tree.map(_data, run)))
        new = engine.init(KEY)
        empty = jax.device_get(named(jax.tree.map(_data, new)))
        with pytest.warns(UserWarning, match="to the bits"):
            restored = store.restore(new)
    assert restored is not None
    after = jax.device_get(named(jax.tree.map(_data, restored)))
    for name, x in after.items():
        wanted = empty if name.startswith("local.data.content") else before
        np.testing.assert_array_equal(x, wanted[name], err_msg=name)
    assert int(restored.local.data.content.unrolls.size) == 0
    assert int(run.local.data.content.unrolls.size) == 64
    # Nothing is learned until there is enough again, and then it is.
    soon, _ = engine.advance(restored, 10)
    assert same(soon.learner.online, run.learner.online)
    later, _ = engine.advance(soon, 10)
    assert not same(later.learner.online, run.learner.online)


def same(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def _data(x):
    is_key = jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if is_key else x


KEY = random.key(0)
