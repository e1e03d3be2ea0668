"""Gorila's settings: what a bundle has, how often a row is learned from, bad ones."""

from dataclasses import replace

import jax
import pytest

from jaxrl_par import cli, presets, random
from jaxrl_par.errors import problems
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.loops.outliers import OutlierConfig
from jaxrl_par.presets.gorila import EXPERIMENT, Args
from jaxrl_par.topologies.delayed import DelaysConfig

pytestmark = pytest.mark.usefixtures("declared")

USUAL = Args()
LATE = Args(topology="delayed")


def test_by_default_a_row_is_learned_from_16_times():
    """One batch for each unroll of a bundle."""
    for args in (USUAL, LATE, replace(LATE, memory="global")):
        assert args.problems() == []
        assert args.replay.batch_size / args.rows_per_update == 16


@pytest.mark.slow
def test_a_local_replay_is_a_share_and_a_global_one_is_all():
    """Unrolls of 4 rows, so many are kept in all."""
    for memory, number, ready in (("local", 640, 80), ("global", 2560, 320)):
        args = replace(LATE, memory=memory)
        learner = cli.compose(args, presets.get("gorila").make_agent)
        program = cli.place(args, learner)
        local = jax.eval_shape(program.init, random.key(0)).local
        shape = local.data.items.reward.shape
        assert shape == ((4, number, 4) if memory == "local" else (number, 4))
        assert args.rows_added == (32 if memory == "local" else 8)
        assert -(-args.replay.min_size // (args.shares * args.unroll_length)) == ready


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        (
            {"memory": "global"},
            "memory = global is for topology = delayed, not workers: a record of"
            " threads says which parameters a worker had read, and not what others had"
            " put into a replay by then",
        ),
        (
            {"memory": "global", "topology": "compiled"},
            "memory = global is for topology = delayed, not compiled",
        ),
        (
            {"outliers": OutlierConfig(num_deviations=2.0)},
            "workers.outliers.num_deviations is for rule = reject, not accept: leave it"
            " out, got 2.0",
        ),
        (
            {"outliers": OutlierConfig("reject", warm_up=0)},
            "workers.outliers.warm_up must be at least 1, got 0",
        ),
        (
            {"outliers": OutlierConfig("reject", 2.0), "topology": "threads"},
            "workers.outliers.num_deviations is for topology = delayed or workers, not"
            " threads: leave it out, got 2.0",
        ),
        (
            {"staleness": StalenessConfig("reject", -1)},
            "workers.staleness.max_staleness must be at least 0, got -1",
        ),
        (
            {"num_envs": 6},
            "num_envs must be a multiple of workers.num_workers = 4, got 6",
        ),
    ],
)
def test_bad_settings_are_told(changed, wrong):
    parts = {x: changed.pop(x) for x in ("outliers", "staleness") if x in changed}
    args = replace(USUAL, **changed, workers=replace(USUAL.workers, **parts))
    assert problems(args) == [wrong]


def test_a_memory_that_there_is_not_gets_the_nearest_name(capsys):
    with pytest.raises(SystemExit):
        cli.parse(Args, ["--memory", "globl"])
    assert "global" in capsys.readouterr().err


def test_other_stores_have_one_shard_and_take_that_for_an_answer():
    for store in ("hogwild", "lock"):
        workers = replace(USUAL.workers, store=store)
        (wrong,) = problems(replace(USUAL, workers=workers))
        assert wrong.endswith(f"is for store = server; {store} has one, got 4")
        args = replace(USUAL, workers=replace(workers, num_shards=1))
        assert problems(args) == []
    # As data there are none of both.
    found = problems(replace(args, topology="delayed"))
    assert [x.split()[0] for x in found] == ["workers.store", "workers.num_shards"]


def test_as_data_bundles_may_be_slow():
    args = replace(LATE, delays=DelaysConfig("heavy_tailed", storage="copies"))
    assert args.problems() == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "on each of 4 workers"),
        ({"topology": "delayed", "memory": "global"}, ""),
    ],
)
def test_a_run_says_what_its_replay_takes(options, told):
    """Its option `memory` is another thing."""
    args = Args(**options)
    learner = EXPERIMENT.learner(args)
    said = args.memory_needed(learner)
    assert said.startswith("replay: 10,240 rows") and told in said
