"""The advice follows from what actors and learner did."""

import re

import pytest

from jaxrl_par.bridge.actor_learner.report import ActorLearnerReport
from jaxrl_par.bridge.central.desk import Batches
from jaxrl_par.loops.pace import PaceConfig


def report(**changes) -> ActorLearnerReport:
    """One of a run in balance."""
    fields = {
        "seconds": 10.0,
        "actor_steps_per_second": 100.0,
        "learner_steps_per_second": 90.0,
        "updates": 5,
        "actors": [{"acting": 0.5, "environment": 0.5}] * 2,
        "uploader": {"uploading": 0.1, "waiting for unrolls": 0.9},
        "learner": {"updating": 0.9, "waiting for unrolls": 0.1},
        "queue_depth": 1.5,
        "queue_size": 2,
        "uploaded_bytes": 1000,
        "lags": {0: 30, 2: 10},
        "compile_seconds": 1.0,
        "restarts": 0,
        "dropped_rows": 3,
        "abandoned": [],
    }
    return ActorLearnerReport(**fields | changes)


def test_the_lag_is_a_mean_over_rows():
    assert report().lag() == pytest.approx((0 * 30 + 2 * 10) / 40)
    assert report(lags={}).lag() == 0.0


WAITING = {"updating": 0.4, "waiting for unrolls": 0.6}
ASKING = {"waiting for inference": 0.8, "environment": 0.2}
BLOCKED = {"acting": 0.3, "waiting for parameters": 0.4, "waiting for the queue": 0.3}


def acted(busy: float) -> Batches:
    """Of a thread that acts for so much of its time."""
    return Batches({"acting": busy}, 100, 150, 2, waited=0.3, longest=0.2)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, "in balance"),
        ({"learner": WAITING}, "learner waits for actors 60% .* more actor threads or a"
         " cheaper environment"),
        ({"learner": WAITING, "actors": [{"acting": 0.7, "environment": 0.3}]},
         "actors spend 70% acting: more environments for each actor, or a smaller"),
        ({"actors": [BLOCKED]}, "actors wait for the learner 70% .* fewer actors"),
        ({"actors": [BLOCKED], "learner": WAITING}, "actors wait for the learner 70%"),
        ({"learner": WAITING, "uploader": {"uploading": 0.8}}, "uploading takes 80%"),
        ({"uploader": {"uploading": 0.8}}, "in balance"),
        ({"learner": WAITING, "pace": PaceConfig(8.0), "samples_per_insert": 7.9},
         "learner waits 60% of the time, because it has trained as much as pace"),
        ({"learner": WAITING, "pace": PaceConfig(8.0), "samples_per_insert": 4.0},
         "learner waits for actors 60%"),
        ({"restarts": 4, "learner": WAITING}, "made anew 4 times: find out why"),
        ({"learner": WAITING, "actors": [ASKING], "batches": acted(0.9)},
         "inference 80% of the time, which acts 90% .* 75% full: a smaller network"),
        ({"learner": WAITING, "actors": [ASKING], "batches": acted(0.3)},
         "which acts 30% of the time: a smaller central.max_wait_ms"),
        ({"actors": [ASKING], "batches": acted(0.9)}, "in balance"),
        ({"restarts": 4, "stuck": {3: 40}}, "actors 3 never pull newer parameters"),
    ],
)  # fmt: skip
def test_the_advice_names_what_to_change_first(changes, advice):
    assert re.search(advice, report(**changes).advice())


def test_the_row_has_the_numbers_and_the_shares_by_thread():
    row = report(actors=[{"acting": 1.0}, BLOCKED]).row()
    assert row == pytest.approx(
        {
            "actor_steps_per_second": 100.0,
            "learner_steps_per_second": 90.0,
            "queue_depth": 1.5,
            "uploaded_bytes": 1000,
            "restarts": 0,
            "dropped_rows": 3,
            "actor_acting": 0.65,
            "actor_waiting_for_parameters": 0.2,
            "actor_waiting_for_the_queue": 0.15,
            "uploader_uploading": 0.1,
            "uploader_waiting_for_unrolls": 0.9,
            "learner_updating": 0.9,
            "learner_waiting_for_unrolls": 0.1,
        }
    )


@pytest.mark.parametrize(
    ("pace", "ratio", "told"),
    [
        (PaceConfig(8.0, 4), 7.987, "7.99 samples an insert, at most 8; actors ahead:"
         " at most 4 batches"),
        (PaceConfig(0.5), 0.4, "0.40 samples an insert, at most 0.5; actors ahead: no"
         " bound"),
        (PaceConfig(), 3.0, "3.00 samples an insert; neither waits for the other"),
        (PaceConfig(), None, "nothing inserted; neither"),
    ],
)  # fmt: skip
def test_the_pace_is_told_with_its_bounds(pace, ratio, told):
    lines = report(pace=pace, samples_per_insert=ratio)
    assert any(told in line for line in lines.lines())
    assert lines.row()["samples_per_insert"] == ratio
    assert "samples_per_insert" not in report().row()


def test_batches_and_an_actor_that_never_pulls_are_told():
    told = report(batches=acted(0.5), stuck={3: 40})
    assert any("batches     1.5 of 2 actors on average" in x for x in told.lines())
    assert any(
        "ALARM       actor 3 acts with parameters that" in x for x in told.lines()
    )
    assert told.row()["inference_fill"] == 0.75 and told.row()["stuck_actors"] == 1
    assert told.row()["inference_acting"] == 0.5
    assert not {"stuck_actors", "inference_fill"} & set(report().row())
