"""An actor that never comes to newer parameters is an alarm, not a curve."""

import numpy as np

from jaxrl_par.bridge.actor_learner.pulls import Pulls
from jaxrl_par.bridge.unrolled import Unrolled
from jaxrl_par.types import Trajectory


def unrolled(actor, *versions):
    """What an actor did, with a version in each row."""
    extras = {"version": np.array(versions, np.int32)[:, None]}
    nothing = np.zeros(0)
    rows = Trajectory(*(nothing,) * 4, extras, ())  # pyright: ignore
    return Unrolled(actor, 0, 0, versions[0], rows, None, {}, None)  # pyright: ignore


def noted(most, *updates):
    """After updates from unrolls of (actor, version)."""
    pulls = Pulls(most)
    for version, unrolls in enumerate(updates):
        pulls.note([unrolled(*x) for x in unrolls], version)
    return pulls.stuck()


def test_a_lag_that_grows_by_one_with_each_update_is_found():
    updates = [[(0, version), (1, 2)] for version in range(2, 12)]
    updates = [[], [], *updates]
    assert noted(4, *updates) == {1: 9}
    assert noted(9, *updates) == {}


def test_a_lag_that_stays_or_falls_is_none():
    assert noted(2, *([(0, max(0, version - 5))] for version in range(30))) == {}
    # Unrolls that waited, and then one that pulled.
    assert noted(3, *([(0, 0)] for _ in range(4)), [(0, 4)], [(0, 4)]) == {}


def test_it_is_the_newest_of_an_unroll_that_counts():
    updates = ([(0, 0, version)] for version in range(20))
    assert noted(3, *updates) == {}


def test_several_unrolls_in_one_update_count_once():
    assert noted(0, [(0, 0)] * 5) == {}
