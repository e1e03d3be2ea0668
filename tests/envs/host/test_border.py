"""Random simulators through every adapter: right to the last bit, or refused with
environment, field and step."""

import re

import numpy as np
import pytest
import random_simulators as simulators

from jaxrl_par.envs.host.admission import BadRowError


def check(seed):
    """Whether the simulator of that seed was refused."""
    plan = simulators.draw(seed)
    actions = simulators.random_actions(plan, np.random.default_rng(seed))
    env = simulators.adapted(plan, seed)
    try:
        rows = simulators.driven(env, actions)
    except Exception as error:
        refused(plan, error)
        return True
    finally:
        env.close()
    # A value that is none of the space's may be in a step that is not shown.
    unseen = plan.fault in ("both: bounds", "both: nan")
    assert plan.struck is None or unseen, f"{plan.fault} came through"
    streams = simulators.expected(plan, actions, seed)
    simulators.check_right(plan, rows, streams, actions)
    return False


def refused(plan, error):
    told = " ".join([str(error), *getattr(error, "__notes__", [])])
    assert plan.struck is not None, f"refused what is right: {told}"
    row = getattr(error, "row", None)
    assert "sim" in told or row is not None, told
    if plan.struck == "raised":
        assert "out of fuel" in told and re.search(r"(step|row) \d+", told), told
    elif "outside the mask" not in told:  # which a reset changed
        assert isinstance(error, BadRowError), repr(error)
        assert plan.struck in told and re.search(r"environments? ", told), told
        assert re.search(r"(step|row) \d+", told), told


def sweep(seeds):
    count = 0
    for seed in seeds:
        try:
            count += check(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}: {simulators.draw(seed)}")
            raise
    return count / len(seeds)


def test_random_simulators_come_through_or_are_refused():
    assert 0.2 < sweep(range(120)) < 0.6


@pytest.mark.slow
def test_many_random_simulators_come_through_or_are_refused():
    assert 0.2 < sweep(range(1_000, 3_200)) < 0.6
