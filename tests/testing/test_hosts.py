"""The check of simulators accepts those that keep the contract, and no others."""

import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.envs.host import from_pure
from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.testing import check_host_environment, probes


def host(probe=probes.counter):
    return from_pure(probe(3), random.key(0))


@pytest.mark.sample(1)
@pytest.mark.parametrize("probe", [probes.counter, probes.continuous_action])
def test_the_probes_pass(probe):
    check_host_environment(host(probe), num_steps=20)


def broken(change):
    """A simulator whose rows are changed."""
    env = host()
    step = env.step
    env.step = lambda action: change(*step(action))
    return env


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda step, r, d: (step, r * np.nan, d), "reward of environment 0 in row 0"),
        (lambda step, r, d: (step, r, d[:1]), "discount has shape"),
        (
            lambda step, r, d: (step._replace(first=~step.first), r, d),
            "first of environment",
        ),
        (lambda step, r, d: (step, r + 1.0, d), "must be 0 after the end"),
    ],
)
def test_a_broken_row_is_named(change, message):
    with pytest.raises(BadRowError, match=message):
        check_host_environment(broken(change), num_steps=20)


def test_a_reset_must_start_episodes():
    env = host()
    reset = env.reset
    env.reset = lambda: reset()._replace(first=np.zeros(3, bool))
    with pytest.raises(AssertionError, match="must show `first`"):
        check_host_environment(env, num_steps=20)


def test_a_snapshot_keeps_its_shapes():
    env, sizes = host(), iter(range(100))
    env.snapshot = lambda: np.zeros(next(sizes))
    with pytest.raises(AssertionError, match="the snapshot has shapes"):
        check_host_environment(env, num_steps=20)
