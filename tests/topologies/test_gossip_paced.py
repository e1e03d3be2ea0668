"""Learners at their own pace, each alone: their turns, here without processes."""

from collections import Counter

import jax
import numpy as np
import pytest
from nearness import assert_near
from test_gossip import ENV, KEY, at, placed, steered

from jaxrl_par.fleet.turns import Grant
from jaxrl_par.loops import learner_of, schedules
from jaxrl_par.loops.records import RecordError, Turn
from jaxrl_par.topologies.gossip import GossipConfig, gossip
from jaxrl_par.topologies.gossip.paced import OwnPace, PacedReplay, Partners
from jaxrl_par.topologies.gossip.system import System

pytestmark = pytest.mark.slow


def learners(config, agent, values):
    """All of them, each alone, from these parameters on."""
    system = System(learner_of(agent), ENV, 1, config)
    members = [OwnPace(KEY, system) for _ in range(config.num_learners)]
    for i, (member, x) in enumerate(zip(members, values, strict=True)):
        member.begin(i)
        start = at(member.run, x)
        local = start.local._replace(read=system.shared(start.learner))
        member.resume(start._replace(local=local))
        member.join(0)
    return members, Partners(system)


def turn(members, number, place, partner, env_steps, lost=()):
    """One of them is done, and meets the other; its steps, and its metrics."""
    alone, missed = partner == place, partner in lost
    name = "" if alone or missed else "another"
    given = members[place].parts()
    theirs = members[partner].parts() if name else None
    if name:
        members[partner].give(given)
    grant = Grant(number, env_steps, place if missed else partner, name, missed)
    return members[place].meet(grant, theirs)


def params(members):
    return np.array([float(x.run.learner.params) for x in members])


def test_two_that_meet_have_their_mean_and_the_update_is_kept():
    """TRAP F2: A at 0 and B at 8 average while A learns -1."""
    members, _ = learners(GossipConfig(2, pace="own"), placed((1.0, 0.0)), [0.0, 8.0])
    assert members[0].act() == (0, 1, True)
    metrics = turn(members, 0, 0, 1, 0)
    assert params(members).tolist() == [3.0, 4.0]
    assert (metrics["distance"], metrics["lag"], *metrics["missed"]) == (8, 0, 0, 1)


def test_others_that_met_it_meanwhile_are_kept():
    """A begins at 0 and learns -1; before it is done C, at 16, has met it."""
    config = GossipConfig(3, pace="own")
    members, _ = learners(config, placed((1.0, 0.0, 0.0)), [0.0, 8.0, 16.0])
    for member in members:
        member.act()
    turn(members, 0, 2, 0, 0)
    assert params(members).tolist() == [8.0, 8.0, 8.0]
    metrics = turn(members, 1, 0, 1, 1)
    assert params(members).tolist() == [7.0, 8.0, 8.0]
    assert metrics["lag"] == 1


def record(places):
    """Of turns, in which each learner goes on at once."""
    unrolls, reads, found = Counter(), Counter(), []
    for number, place in enumerate(places):
        found.append(Turn(place, unrolls[place], 0, (reads[place],)))
        unrolls[place] += 1
        reads[place] = number + 1
    return found


@pytest.mark.parametrize("kind", ["ring", "random"])
def test_turns_of_a_record_are_what_they_are_as_data(kind):
    """To rounding; what is counted is the same, and rates count what all have acted."""
    schedule = schedules.simulated(schedules.exponential(30, 3, seed=1))
    config = GossipConfig(3, kind, interval=2, pace="own")
    system = System(learner_of(steered()), ENV, 1, config)
    replay = PacedReplay(system, record(schedule.worker.tolist()))
    ours, metrics = replay.advance(replay.init(KEY), 30)
    program = gossip(steered(), ENV, 1, config, schedule=schedule)
    theirs, step = jax.jit(program.init)(KEY), jax.jit(program.step)
    for number in range(30):
        theirs, row = step(theirs)
        assert row["lag"] == metrics["lag"][number]
        np.testing.assert_allclose(row["distance"], metrics["distance"][number], 1e-4)
    assert_near(ours.learner.params, theirs.learner.params, 1e-5)
    counts = [
        (x.learner.elapsed, x.progress, x.local.since, x.local.unroll, x.local.turn)
        for x in (ours, theirs)
    ]
    assert jax.tree.all(jax.tree.map(np.array_equal, *counts))


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        (record([0, 1]), "the record has 2 updates, asked for 3"),
        (record([0, 3, 1]), r"the record is of learners \[0, 1, 3\], asked for 3"),
        ([Turn(0, 0, 0, (1,))] * 3, "update 0 of the record does not fit this run"),
        ([Turn(0, 2, 0, (0,))] * 3, "update 0 of the record does not fit this run"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(turns, told):
    system = System(learner_of(placed()), ENV, 1, GossipConfig(3, pace="own"))
    with pytest.raises(RecordError, match=told):
        replay = PacedReplay(system, turns)
        replay.advance(replay.init(KEY), 3)


def test_the_mean_of_all_is_kept_and_they_come_together():
    config = GossipConfig(4, pace="own")
    values = [0.0, 3.0, 8.0, -7.0]
    members, partners = learners(config, placed(), values)
    rows = partners(members[0].run.key, 0, 24)
    far = [np.ptp(params(members))]
    for number in range(24):
        place = number % 4
        members[place].act()
        turn(members, number, place, rows[number][place], number)
        assert params(members).sum() == pytest.approx(4.0, abs=1e-5)
        far.append(np.ptp(params(members)))
    assert (np.diff(far) <= 1e-6).all() and far[-1] < 0.01 * far[0]


def test_who_would_meet_one_that_is_lost_goes_on_alone_and_it_is_counted():
    members, _ = learners(GossipConfig(2, pace="own"), placed((1.0, 0.0)), [0.0, 8.0])
    members[0].act()
    metrics = turn(members, 0, 0, 1, 0, lost={1})
    assert params(members).tolist() == [-1.0, 8.0]
    assert tuple(metrics["missed"]) == (1, 1)


def test_one_in_the_place_of_another_begins_with_what_it_is_given():
    """It draws anew, and is not asked for what the other had begun."""
    members, _ = learners(GossipConfig(2, pace="own"), steered(), [1.0, 1.0])
    run = at(members[1].run, 5.0)
    members[1].replace(run, number=9, unrolls=4)
    members[1].join(70)
    assert (members[1].read, members[1].act().unroll) == (9, 4)
    turn(members, 10, 1, 1, 90)
    # Its gradient is what it had, and its place.
    assert params(members)[1] == 5.0 - 0.5 * (5.0 + 1)
    since = members[1].standing(11, 91).local.since
    assert (int(since.updates), int(since.env_steps)) == (0, 0)


def test_partners_of_a_turn_are_those_of_the_program():
    """Whoever's turn it is, also beyond a million turns."""
    config = GossipConfig(3, pace="own")
    system = System(learner_of(placed()), ENV, 1, config)
    rows = Partners(system)(KEY, 10**6 - 2, 4)
    assert np.shape(rows) == (4, 3)
    assert not (np.array(rows) == np.arange(3)).any()
    assert Partners(system)(KEY, 10**6, 1) == rows[2:3]
