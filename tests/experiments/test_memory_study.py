"""R2D2 and DQN differ in nothing but memory."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "memory_study.py"


@pytest.fixture(scope="module")
def study():
    return runpy.run_path(str(SCRIPT))


def rows_learned(settings):
    trained = settings.windows.trained(settings.unroll_length)
    return trained * settings.replay.batch_size


@pytest.mark.parametrize("method", ["gtrxl", "lstm", "none"])
def test_methods_learn_from_as_many_rows(study, method):
    usual = study["Args"]().settings
    settings = study["with_memory"](method, usual)
    assert settings.network.memory == method
    assert rows_learned(settings) == rows_learned(usual)
    assert settings.replay.updates_per_step == usual.replay.updates_per_step
