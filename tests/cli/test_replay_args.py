"""What replay is asked for on the command line: sizes of each share, and bad ones."""

from dataclasses import replace

import pytest

from jaxrl_par import presets
from jaxrl_par.algorithms.dqn import DQNConfig
from jaxrl_par.cli.replay import ReplayConfig
from jaxrl_par.errors import problems
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.presets.dqn import Args
from jaxrl_par.replay import Windows
from jaxrl_par.topologies.workers import WorkersConfig

SMALL = ReplayConfig(capacity=256, min_size=64, batch_size=32)
SHOWN = replace(SMALL, demonstrations="expert")
USUAL = Args(replay=SMALL)
LSTM = NetworkConfig(widths=(120, 84), memory="lstm")


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({}, None),
        ({"num_devices": 4}, None),
        ({"network": LSTM, "sequence": 4, "dqn": DQNConfig(burn_in=4)}, None),
        (
            {"replay": replace(SMALL, capacity=200)},
            "replay.capacity must be a multiple of the 64 rows that a step of training"
            " adds, such as 192 or 256, got 200",
        ),
        (
            {"replay": replace(SMALL, capacity=32, min_size=32)},
            "replay.capacity must be a multiple of the 64 rows that a step of training"
            " adds, such as 64, got 32",
        ),
        (
            {"replay": replace(SMALL, min_size=257)},
            "replay.min_size must be at most capacity = 256, got 257",
        ),
        (
            {"num_devices": 4, "replay": replace(SMALL, batch_size=30)},
            "replay.batch_size must be a multiple of num_devices = 4, got 30",
        ),
        (
            {"network": LSTM, "sequence": 3},
            "unroll_length must be a multiple of the 3 rows of a window, got 8",
        ),
        ({"sequence": 4}, "sequence is for networks with memory: leave it out, got 4"),
        (
            {"dqn": DQNConfig(n_step=9)},
            "dqn.n_step must be at most unroll_length = 8, got 9",
        ),
        (
            {"replay": replace(SMALL, batch_size=257)},
            "replay.batch_size must be at most the 256 windows that replay.capacity ="
            " 256 rows have, got 257",
        ),
        (
            {"dqn": DQNConfig(burn_in=2)},
            "dqn.burn_in is for networks with memory: leave it out, got 2",
        ),
        (
            {
                "replay": replace(
                    SMALL, demonstrations="expert", demonstration_ratio=1.0
                )
            },
            "replay.demonstration_ratio must be below 1, got 1.0",
        ),
        (
            {
                "replay": replace(
                    SMALL, demonstrations="expert", demonstration_ratio=0.0
                )
            },
            "replay.demonstration_ratio must be above 0, got 0.0",
        ),
        (
            {"replay": replace(SMALL, demonstration_ratio=0.5)},
            "replay.demonstration_ratio is for demonstrations: give"
            " replay.demonstrations, or leave it out",
        ),
        (
            {"replay": replace(SMALL, demonstrations="/nowhere")},
            "replay.demonstrations: /nowhere is no folder of demonstrations:"
            " `jaxrl-par record-demonstrations` writes one",
        ),
        (
            {"replay": SHOWN},
            "replay.demonstrations: there is no expert of CartPole-v1, but of I-Mazes"
            " of any size, such as IMaze-21x21, and of Grasping-16x16. Demonstrations"
            " of a trained run are written by `jaxrl-par record-demonstrations"
            " RUN_FOLDER --out FOLDER`: give that FOLDER",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_told(changed, wrong):
    assert problems(replace(USUAL, **changed)) == ([wrong] if wrong else [])


def test_a_burn_in_that_has_no_rows_is_told():
    for sequence, burn_in, wrong in (
        (4, 5, "must be at most the 4 rows of a sequence, got 5"),
        (None, 2, "needs several sequences in an unroll: give sequence below"),
    ):
        given = {"sequence": sequence, "dqn": DQNConfig(burn_in=burn_in)}
        (found,) = problems(replace(USUAL, network=LSTM, **given))
        assert found.startswith("dqn.burn_in " + wrong)


def test_distributions_and_zero_starts_are_for_those_who_read_them():
    for given, wrong in (
        ({"v_min": 0.0}, "dqn.v_min is for values = categorical, not expected"),
        ({"num_atoms": 9}, "dqn.num_atoms is for values = categorical or quantile"),
        (
            {"values": "categorical", "huber_delta": 2.0},
            "dqn.huber_delta is for values = expected or quantile, not categorical",
        ),
        (
            {"values": "categorical", "v_min": 10.0},
            "dqn.v_max must be above 10.0, got 10.0",
        ),
        (
            {"values": "quantile", "huber_delta": None},
            "dqn.huber_delta must be a number for quantiles, got None",
        ),
        ({"start": "zero"}, "dqn.start is for networks with memory"),
        ({"measure_staleness": True}, "dqn.measure_staleness is for networks with"),
    ):
        args = replace(USUAL, dqn=replace(USUAL.dqn, **given))
        (found,) = problems(args)
        assert found.startswith(wrong)
    zero = replace(USUAL, network=LSTM, dqn=DQNConfig(start="zero"))
    assert not problems(zero) and zero.windows.constant_carry


def test_r2d2_is_dqn_with_memory():
    args = presets.get("r2d2").config()
    assert not problems(args) and args.windows == Windows(40, 20, 4)
    (found,) = problems(replace(args, network=NetworkConfig()))
    assert found == "network.memory must not be none: without memory, take dqn"


def test_a_worker_makes_one_gradient_of_each_unroll():
    several = replace(SMALL, updates_per_step=2)
    for given, number in ((SMALL, 0), (several, 1)):
        args = Args(topology="delayed", replay=given)
        found = problems(args)
        assert len(found) == number and all("has no halves" in x for x in found)


def test_each_share_keeps_its_part():
    """Devices learn from parts of a batch; a worker draws a whole one of its own."""
    joint = Args(num_devices=2, replay=SMALL)
    assert (joint.shares, joint.rows_added) == (2, 64)
    each = Args(topology="delayed", replay=SMALL, workers=WorkersConfig(num_workers=4))
    assert (each.shares, each.rows_added) == (4, 64)
    alone = Args(topology="gossip", replay=SMALL)
    assert (alone.shares, alone.rows_added) == (4, 64) and not problems(alone)


def test_windows_are_rows_without_memory_and_sequences_with_it():
    ahead = replace(USUAL, dqn=DQNConfig(n_step=3))
    assert ahead.windows == Windows(1, 0, 2, constant_carry=True)
    memory = replace(ahead, network=LSTM, sequence=4)
    assert memory.windows == Windows(4, 0, 2)


def test_a_run_that_is_played_needs_no_demonstrations(tmp_path):
    given = replace(SMALL, demonstrations=str(tmp_path), demonstration_ratio=0.5)
    played = replace(USUAL, replay=given).played()
    assert not problems(played) and played.demonstrated() is None
