"""The advice follows from what workers did, and every number finds its place."""

import re

import pytest

from jaxrl_par.bridge.parameter_server.report import ParameterServerReport

REFUSED = {"rejected": 0, "stale": 0, "outlying": 0, "skipped": 0}
BUSY = {"environment": 0.5, "gradient": 0.4, "updating": 0.1}


def report(**changes) -> ParameterServerReport:
    """One in which nothing is wrong."""
    fields = {
        "kind": "lock",
        "seconds": 10.0,
        "steps_per_second": 1234.0,
        "updates": 50,
        "refused": REFUSED,
        "workers": [BUSY] * 2,
        "shards": [],
        "lags": {0: 30, 1: 10, 3: 10},
        "statistics": {},
        "compile_seconds": 1.0,
        "restarts": 0,
        "dropped_rows": 3,
        "abandoned": [],
    }
    return ParameterServerReport(**fields | changes)


def refused(**reasons):
    """40 rejected in all."""
    return REFUSED | {"rejected": 40} | reasons


def test_the_lag_is_a_mean_over_gradients():
    assert report().lag() == pytest.approx((10 * 1 + 10 * 3) / 50)
    assert report(lags={}).lag() == 0.0


LOCKED = {"waiting for the lock": 0.3, "updating": 0.7}
PULLING = {"pulling": 0.25, "computing": 0.75}


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, "spend their time with environments and gradients"),
        ({"restarts": 4, "refused": refused(stale=40)}, "made anew 4 times: find"),
        ({"refused": refused(stale=20), "workers": [LOCKED]}, "40% .* were too stale"),
        ({"refused": refused(stale=10), "workers": [LOCKED]}, "wait for the lock 30%"),
        ({"refused": refused(outlying=20)}, "40% of the gradients had outlying losses"),
        # Before a replay was ready: that is as it should be.
        ({"refused": refused(), "workers": [LOCKED]}, "wait for the lock 30%"),
        ({"updates": 0}, "environments and gradients"),
        ({"workers": [LOCKED, BUSY]}, "workers spend 40% of the time with the store"),
        ({"workers": [PULLING], "kind": "server"}, "wait for the server 25%"),
        ({"workers": [PULLING], "kind": "lock"}, "environments and gradients"),
        ({"workers": [{"pulling": 0.2, "updating": 0.2}], "kind": "server"},
         "spend 40% of the time with the store: longer unrolls, or more environments"),
        ({"workers": [{"pulling": 0.05, "updating": 0.2}]}, "environments and"),
    ],
)  # fmt: skip
def test_the_advice_names_what_to_change_first(changes, advice):
    assert re.search(advice, report(**changes).advice())


def test_the_row_has_the_numbers_and_the_shares_by_thread():
    made = report(
        kind="server",
        refused={"rejected": 7, "stale": 4, "outlying": 2, "skipped": 1},
        restarts=2,
        workers=[{"pulling": 1.0}, BUSY],
        shards=[{"waiting for pushes": 0.4}, {"waiting for pushes": 0.2}],
        statistics={"queue_depth": 1.5},
    )
    assert made.row() == pytest.approx(
        {
            "worker_steps_per_second": 1234.0,
            "lag_max": 3,
            "rejected_total": 7,
            "stale_total": 4,
            "outlying_total": 2,
            "skipped_total": 1,
            "restarts": 2,
            "dropped_rows": 3,
            "queue_depth": 1.5,
            "worker_pulling": 0.5,
            "worker_environment": 0.25,
            "worker_gradient": 0.2,
            "worker_updating": 0.05,
            "shard_waiting_for_pushes": 0.3,
        }
    )
    assert report(lags={}).row()["lag_max"] == 0


def test_the_lines_say_where_time_went():
    lines = report(
        kind="hogwild",
        refused={"rejected": 1200, "stale": 1000, "outlying": 0, "skipped": 3},
        abandoned=["worker 1"],
        statistics={"lost_updates": 2.0, "raced_share": 0.125},
    ).lines()
    assert lines == [
        "  hogwild     1,234 steps/s, 5 updates/s; 1,200 rejected; 1,000 too stale, 3"
        " not finite; lost_updates 2, raced_share 0.125",
        "  2 workers   environment 50%, gradient 40%, updating 10%",
        "  lag         0.80 updates on average: 0: 60%, 1: 20%, 3: 20%",
        "  compiling   1.0 s",
        "  lost        0 restarts, 3 rows acted and not learned from",
        "  left behind worker 1",
    ]


def test_shards_have_a_line_and_bars_of_their_own():
    shares = {"updating": 0.25, "waiting for pushes": 0.75}
    made = report(kind="server", shards=[shares] * 3)
    assert made.lines()[0] == "  server      1,234 steps/s, 5 updates/s; 0 rejected"
    assert made.lines()[2] == "  3 shards    waiting for pushes 75%, updating 25%"
    assert made.bars() == {
        "worker 0": BUSY, "worker 1": BUSY,
        "shard 0": shares, "shard 1": shares, "shard 2": shares,
    }  # fmt: skip
    assert len(report().lines()) == 5 and len(report().bars()) == 2
