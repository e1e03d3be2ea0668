"""Episodic control's settings: bad ones, memory that is told, and runs that go on."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxrl_par import cli
from jaxrl_par.algorithms.episodic import MFECConfig, NECConfig
from jaxrl_par.cli.replay import ReplayConfig
from jaxrl_par.errors import RefusedError, problems
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.presets.episodic_control import EXPERIMENT, Args
from jaxrl_par.replay import memory
from jaxrl_par.topologies.threads import ThreadsConfig
from jaxrl_par.training import TrainingConfig, load
from jaxrl_par.training.failures import TrainingError

pytestmark = pytest.mark.usefixtures("declared")

MFEC = Args()
NEC = Args(method="nec")


@pytest.mark.parametrize(
    ("args", "wrong"),
    [
        (MFEC, None),
        (NEC, None),
        (replace(MFEC, num_envs=2, unroll_length=100), None),
        (
            replace(MFEC, mfec=MFECConfig(capacity=9, num_neighbours=10)),
            "mfec.num_neighbours must be at most 9, got 10",
        ),
        (
            replace(NEC, nec=NECConfig(num_neighbours=5_001)),
            "nec.num_neighbours must be at most 5000, got 5001",
        ),
        (
            replace(MFEC, mfec=MFECConfig(capacity=127)),
            "mfec.capacity must be at least the 128 rows that are written at a time,"
            " got 127",
        ),
        (
            replace(NEC, nec=NECConfig(capacity=63)),
            "nec.capacity must be at least the 64 rows that are written at a time,"
            " got 63",
        ),
        (
            replace(MFEC, nec=NECConfig(gamma=0.9)),
            "nec.gamma is for method = nec, not mfec: leave it out, got 0.9",
        ),
        (
            replace(MFEC, network=NetworkConfig(widths=(9,))),
            "network.widths is for method = nec, not mfec: leave it out, got [9]",
        ),
        (
            replace(MFEC, replay=replace(MFEC.replay, batch_size=8)),
            "replay.batch_size is for method = nec, not mfec: leave it out, got 8",
        ),
        (
            replace(NEC, mfec=MFECConfig(longest=9)),
            "mfec.longest is for method = mfec, not nec: leave it out, got 9",
        ),
        (
            replace(NEC, nec=NECConfig(n_step=9)),
            "n_step must be at most unroll_length = 8, got 9",
        ),
        (
            replace(MFEC, topology="gossip"),
            "topology must be compiled or threads here, got gossip",
        ),
    ],
)
def test_settings_are_refused_with_what_is_right(args, wrong):
    found = problems(args)
    assert (not found) if wrong is None else any(wrong in line for line in found)


def test_actions_that_cannot_be_counted_are_refused():
    for args in (MFEC, NEC):
        with pytest.raises(TrainingError, match="single Discrete action, not Box"):
            EXPERIMENT.learner(replace(args, env_name="Pendulum-v1"))


def test_a_network_with_memory_makes_no_keys():
    small = NetworkConfig(widths=(4,), memory="lstm")
    with pytest.raises(TrainingError, match="memory must be none, got lstm"):
        EXPERIMENT.learner(replace(NEC, network=small))


def test_what_tables_take_is_told_and_refused(monkeypatch):
    """Catch: keys are its 50 pixels, 3 x 5000 x (4 x 50 + 8) bytes; NEC's have 32."""
    learner = EXPERIMENT.learner(MFEC)
    told = "table: 5,000 entries of each action, 3.1 MB"
    assert MFEC.memory_needed(learner) == told
    assert replace(MFEC, num_devices=2).memory_needed(learner) == (
        f"{told} on each of 2 devices"
    )
    assert NEC.memory_needed(EXPERIMENT.learner(NEC)).splitlines() == [
        "table: 5,000 entries of each action, 2.0 MB",
        "replay: 10,240 rows, 2.4 MB",
    ]
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**6)
    with pytest.raises(RefusedError, match=r"3\.1 MB, .* at most 1,602 would fit"):
        MFEC.memory_needed(learner)


def tiny(args, tmp_path, **changed):
    """Four updates; a checkpoint after the second."""
    settings = TrainingConfig(
        runs_dir=str(tmp_path), log_interval=1, gif=False, tensorboard=False,
        evaluation_envs=2, evaluation_episodes=1,
        name=changed.pop("name", "run"),
    )  # fmt: skip
    replay = ReplayConfig(capacity=128, min_size=32, batch_size=8, updates_per_step=2)
    config = {"capacity": 64, "num_neighbours": 3}
    own = {
        "mfec": {"mfec": MFECConfig(**config, longest=20)},
        "nec": {"nec": NECConfig(**config), "replay": replay},
    }[args.method]
    given = {"num_envs": 4, "total_steps": 110, "training": settings} | own | changed
    return replace(args, **given)


@pytest.mark.slow
@pytest.mark.parametrize("args", [MFEC, NEC], ids=["mfec", "nec"])
def test_a_run_that_was_cut_goes_on_bit_for_bit_and_is_loaded(args, tmp_path):
    whole = EXPERIMENT.run(tiny(args, tmp_path, name="whole"))
    first = tiny(args, tmp_path, name="cut", total_steps=50)
    EXPERIMENT.run(first)
    more = replace(first, total_steps=110)
    more = replace(more, training=replace(more.training, resume=True))
    resumed = EXPERIMENT.run(more)
    assert resumed.summary.updates == whole.summary.updates == 4
    same = np.testing.assert_array_equal
    jax.tree.map(same, resumed.run.learner, whole.run.learner)
    local = (jax.tree.leaves(x.run.local) for x in (resumed, whole))
    for x, y in zip(*local, strict=True):
        if not jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
            same(x, y)
    with load(whole.directory.path) as run:
        assert run.evaluate() == whole.summary.evaluation


@pytest.mark.slow
@pytest.mark.parametrize("args", [MFEC, NEC], ids=["mfec", "nec"])
def test_catch_is_learned_in_some_thousand_steps(args):
    """DQN, with the settings of its preset, has less than 0 there."""
    small = {"mfec": MFECConfig(capacity=1_000), "nec": NECConfig(capacity=1_000)}
    args = replace(args, **{args.method: small[args.method]})
    (point,) = cli.seed_curves(EXPERIMENT.learner(args), args, 2, 1, 60)
    assert point["rows"] == 3_840 and min(point["return"]) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("args", [MFEC, NEC], ids=["mfec", "nec"])
def test_actors_in_threads_fill_one_table(args, tmp_path):
    threads = ThreadsConfig(num_actors=2, schedule="lockstep")
    args = tiny(args, tmp_path, topology="threads", threads=threads, num_devices=2)
    assert not problems(args)
    trained = EXPERIMENT.run(args)
    table = trained.run.learner.table
    assert int(np.sum(table.count)) > 10 and int(table.clock) == 8
