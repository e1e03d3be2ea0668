"""One learner and three hosts of actors, of which one is cut off in the middle."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrl_par.envs import host

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


def namespaces():
    path = BENCHMARKS / "namespaces.py"
    spec = importlib.util.spec_from_file_location("namespaces", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_packet_goes_to_its_address_and_others_nowhere():
    network = namespaces()
    header = bytes([0x45]) + bytes(11) + bytes([10, 77, 0, 1]) + bytes([10, 77, 0, 3])
    assert network._destination(header) == "10.77.0.3"
    assert network._destination(bytes([0x60]) + bytes(39)) == ""
    assert network._destination(b"") == ""
    assert network.named(2) == {"jaxrl0": "10.77.0.1", "jaxrl1": "10.77.0.2"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_host_that_is_cut_off_costs_its_actor_and_no_more(tmp_path):
    """It is made anew on another host, and the run goes on to where it is told to end.
    With a delay each way the lag is counted as without."""
    pytest.importorskip("ray")
    if reason := namespaces().why_not() or host.problems("LunarLander-v3", "auto"):
        pytest.skip(str(reason))
    output = tmp_path / "found.json"
    options = ["--num-updates", "20", "--delays-ms", "1", "--output", str(output)]
    script = str(BENCHMARKS / "actor_hosts.py")
    done = subprocess.run([sys.executable, script, *options], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found = json.loads(output.read_text())
    (rate,) = found["rates"]
    assert rate["updates"] >= 20 and rate["steps_per_second"] > 0
    assert 0 <= rate["lag"] <= rate["lag_max"]
    cut = found["cut"]
    assert cut["exit_code"] == 75 and cut["restarts"] >= 1
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True)
    assert not any(name in names.stdout for name in namespaces().named(4))
