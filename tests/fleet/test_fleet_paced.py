"""Learners at their own pace in processes: AD-PSGD, apart."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CHILD = Path(__file__).parent / "paced_child.py"


@pytest.fixture(scope="module")
def told():
    """What came of all runs, in a process without the checks of types."""
    pytest.importorskip("ray")
    paths = [CHILD.parent.parent.parent, CHILD.parent, *filter(None, sys.path)]
    environ = os.environ | {"PYTHONPATH": ":".join(map(str, paths))}
    command = [sys.executable, str(CHILD)]
    child = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-2000:]
    return json.loads(child.stdout.splitlines()[-1])


def test_a_free_run_is_repeated_in_one_process_bit_for_bit(told):
    """All of it, also where it went on in other processes, and its metrics; as data, in
    one program, to rounding."""
    found = told["repeated"]
    assert found["hashes"][0] == found["hashes"][1]
    assert found["from_data"] < 1e-4
    assert found["metrics"] == []
    assert found["entries"] == 40
    assert sum(found["turns"]) == found["met"] == 20
    assert found["missed"] == [0, 40]
    assert sum(found["lags"].values()) == 20
    assert sum("turns; in them it met" in line for line in found["lines"]) > 0
    assert min(found["steps"]) > 0


def test_one_that_is_not_done_holds_up_nobody(told):
    """It has no turn while the others have all, and meet it; then it has one."""
    found = told["held"]
    assert sum(found["before"]) == 30 and found["before"][2] == 0
    assert min(found["before"][:2]) > 0 and min(found["met"]) > 0
    assert found["after"][2] > 0
    assert found["lag"] >= 30


def test_the_loss_of_one_ends_the_run(told):
    found = told["raised"]
    assert found["end"].startswith(
        "learner 1 is lost, and gossip.on_error allows 0 restarts. learner 1, process"
    )
    assert found["entries"] == 10
    assert not found["alive"]


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_one_that_is_lost_is_begun_anew_if_that_is_asked_for(told, how):
    """It has turns again, and is met; all that is let in is done, and the record ends
    where it was lost."""
    found = told[how]
    assert found["end"] == ""
    first, *others = found["told"]
    assert first.startswith("learner 1 is made anew: learner 1, process")
    assert any("cannot be repeated" in x for x in others)
    assert found["restarts"] == 1 and found["finite"]
    assert found["turns"] == found["updates"][0] >= 1020
    assert len(set(found["updates"])) == 1
    # But for a turn that was the lost one's, and whose numbers are lost with it.
    missed, meetings = found["missed"]
    assert 0 < missed < meetings and meetings in (999, 1000)
    assert found["entries"] == 10
    assert not found["alive"]
