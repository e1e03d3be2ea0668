"""What is asked for of several processes, and refused before any of them starts."""

from dataclasses import replace

import pytest

from jaxrl_par import presets
from jaxrl_par.errors import problems
from jaxrl_par.hosts.config import HostsConfig
from jaxrl_par.hosts.world import detected

GIVEN = HostsConfig(coordinator="10.0.0.1:7000", num_processes=2, process_id=1)


def test_nothing_is_asked_for_by_default():
    assert not HostsConfig().is_given
    assert GIVEN.is_given
    assert problems(HostsConfig()) == problems(GIVEN) == []
    assert GIVEN.address == ("10.0.0.1", 7000)
    assert replace(GIVEN, coordinator="[::1]:7").address == ("::1", 7)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"process_id": 2}, "process_id must be at most 1, got 2"),
        ({"process_id": -1}, "process_id must be at least 0, got -1"),
        ({"num_processes": 0}, "num_processes must be at least 1, got 0"),
        ({"num_processes": None}, "num_processes is missing"),
        ({"coordinator": "10.0.0.1"}, "coordinator must be HOST:PORT"),
        ({"coordinator": "::1:7000"}, "coordinator must be HOST:PORT"),
        ({"coordinator": "h:70000"}, "coordinator must be HOST:PORT"),
        ({"detect": True}, "coordinator is found by detect: leave one of them out"),
        ({"silence": 0.5}, "silence must be at least 1, got 0.5"),
        (
            {"coordinator": None, "num_processes": None, "process_id": None}
            | {"patience": 5.0},
            "patience is for several processes: leave it out",
        ),
        ({"patience": 0.0}, "patience must be above 0, got 0.0"),
    ],
)
def test_what_is_out_of_range_is_refused_in_a_sentence(changes, told):
    assert problems(replace(GIVEN, **changes))[0].startswith(told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "num_devices must be at least 2: each of hosts.num_processes = 2 needs"),
        (
            {"topology": "threads", "num_devices": 2},
            "hosts.coordinator is for topology = compiled, not threads",
        ),
    ],
)
def test_experiments_refuse_hosts_that_they_cannot_use(changes, told):
    args = presets.get("a2c").config(hosts=GIVEN, num_envs=4)
    assert any(x.startswith(told) for x in problems(replace(args, **changes)))
    assert problems(replace(args, num_devices=2)) == []


def test_a_sweep_is_of_one_process():
    args = presets.get("sweep").config(hosts=GIVEN, num_devices=2)
    (told,) = problems(args)
    assert told.startswith("hosts: a sweep is of one process")


def test_slurm_tells_who_a_process_is_but_only_if_it_is_asked(monkeypatch):
    """Tasks of an allocation may be as many runs."""
    environment = {
        "SLURM_JOB_ID": "5",
        "SLURM_STEP_NODELIST": "node[03-04]",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "0",
        "SLURM_STEP_NUM_NODES": "2",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert detected(HostsConfig()) == (HostsConfig(), None)
    config, devices = detected(HostsConfig(detect=True, silence=7.0))
    assert config.address == ("node03", 5 + 65535 - 2**12 + 1)
    assert (config.num_processes, config.process_id, config.silence) == (2, 1, 7.0)
    assert devices == [0]


def test_to_detect_a_cluster_where_there_is_none_is_refused(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ValueError, match="this is no cluster that jax knows"):
        detected(HostsConfig(detect=True))
