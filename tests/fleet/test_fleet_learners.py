"""Learners in processes, which average with one another: compiled gossip, apart."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
CHILD = Path(__file__).parent / "gossip_child.py"


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


@pytest.mark.timeout(900)
def test_they_do_what_a_learner_on_each_device_does(told):
    """Bit for bit; statistics of observations move, too. To rounding what they do side
    by side on one device."""
    found = told["equal"]
    assert found["ours"] == found["theirs"]
    assert found["beside"] < 1e-4
    assert found["shape"] == [4, 3]
    assert found["missed"] == 0 < found["met"]


@pytest.mark.timeout(900)
def test_a_run_goes_on_in_other_processes_where_it_was_left(told):
    whole, resumed = told["resumed"]
    assert whole == resumed


@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_one_that_dies_or_stands_still_is_missed_and_counted(told, how):
    """The other goes on alone; in the run the lost one has the mean of all others. When
    the last one is lost, the run ends."""
    found = told[how]
    (said,) = found["told"]
    assert said.startswith(
        "learner 1 is lost: 1 of 2 go on without it. learner 1, proc"
    )
    assert found["missed"] == [12, 0] and found["meetings"] == [12, 0]
    assert found["norms"] == [False, True]
    assert found["from_mean"] < 1e-6
    assert found["updates"] == [14, 14]
    assert found["end"].startswith("all 2 learners are lost. learner 0, process")
    assert not found["alive"]
