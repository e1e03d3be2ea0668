"""Learners that gossip in processes: the same rounds, here without processes."""

import jax
import numpy as np
import pytest
from test_gossip import ENV, KEY, at, placed

from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import learner_of
from jaxrl_par.loops.matchings import matchings
from jaxrl_par.topologies.gossip import GossipConfig, gossip
from jaxrl_par.topologies.gossip.fleet import Meeting, Reading, fleet_of_learners
from jaxrl_par.topologies.gossip.system import System
from jaxrl_par.topologies.sharded import data_mesh


def learners(config, values, grads=(0.0,) * 16):
    """All of them, each alone, from these parameters on."""
    system = System(learner_of(placed(grads)), ENV, 1, config)
    members = [Meeting(KEY, system) for _ in range(config.num_learners)]
    for i, (member, x) in enumerate(zip(members, values, strict=True)):
        member.begin(i)
        member.resume(at(member.run, x))
    return members


def after(members, num_updates, lost=()):
    """Parameters after each round; who is lost neither updates nor answers."""
    found, metrics = [], []
    for _ in range(num_updates):
        sent = {i: x.update() for i, x in enumerate(members) if i not in lost}
        for i, (_, others, _) in sent.items():
            theirs = [sent[j][2] if j in sent else None for j in others]
            metrics.append(members[i].meet(theirs))
        found.append([float(x.run.learner.params) for x in members])
    return np.array(found, np.float32), metrics


@pytest.mark.slow
@pytest.mark.parametrize("config", [
    GossipConfig(3, "random"), GossipConfig(2, "ring"), GossipConfig(3, "full", 2),
])  # fmt: skip
def test_each_alone_does_what_a_learner_on_each_device_does(config):
    """Bit for bit; beside each other on one device, products of all are others."""
    values, grads = [0.0, 3.0, 6.0][: config.num_learners], (1.0, -2.0, 0.5)
    ours, _ = after(learners(config, values, grads), 5)
    mesh = data_mesh(config.num_learners)
    program = gossip(placed(grads), ENV, 1, config, mesh=mesh)
    run, step = at(jax.jit(program.init)(KEY), values), jax.jit(program.step)
    for row in ours:
        run, _ = step(run)
        np.testing.assert_array_equal(row, run.learner.params)


def test_a_ring_of_two_keeps_its_mean():
    """TRAP F3: (3, 6) becomes (5, 4)."""
    (found,), _ = after(learners(GossipConfig(2, "ring"), [3, 6]), 1)
    np.testing.assert_allclose(found, [5, 4], rtol=1e-6)


@pytest.mark.slow
def test_one_learner_alone_applies_its_own_gradient():
    for kind in ("ring", "random", "full"):
        (found,), _ = after(learners(GossipConfig(1, kind), [3], (1.0,)), 1)
        assert found.tolist() == [2.0]


def test_of_three_one_rests_and_pairs_are_the_same_for_all():
    """TRAP F4: one matching, from the key and the round, whoever asks."""
    read = [Reading(GossipConfig(3, "random"), i) for i in range(3)]
    seen = set()
    for round_ in range(1, 20):
        ((_, a),), ((_, b),), ((_, c),) = (x.of(KEY, round_) for x in read)
        assert [[a, b, c][x] for x in (a, b, c)] == [0, 1, 2]
        seen.add((a, b, c))
    assert seen == {tuple(row) for row in matchings(3).tolist()}


@pytest.mark.slow
def test_who_meets_one_that_is_lost_goes_on_alone():
    """Counted; the others stay in their pairs, and their mean is what it was."""
    members = learners(GossipConfig(3, "random"), [0, 3, 6])
    found, metrics = after(members, 12, lost={2})
    assert set(found[:, 2]) == {6.0}
    np.testing.assert_allclose(found[:, :2].sum(axis=1), 3.0, rtol=1e-6)
    assert found[-1, 0] == found[-1, 1] == 1.5
    missed = sum(float(x["missed"].total) for x in metrics)
    meetings = [x.of(members[0].run.key, n) for n in range(1, 13) for x in READINGS]
    assert missed == sum(place == 2 for ((_, place),) in meetings) > 0


READINGS = [Reading(GossipConfig(3, "random"), i) for i in range(2)]


@pytest.mark.slow
def test_learners_meet_at_each_multiple_of_the_interval():
    config = GossipConfig(2, "full", interval=3)
    found, _ = after(learners(config, [0, 4], (-1.0, 0.0)), 6)
    means = [[1, 4], [2, 4], [3.5, 3.5], [4.5, 3.5], [5.5, 3.5], [5, 5]]
    np.testing.assert_allclose(found, means, rtol=1e-6)


def test_what_cannot_be_in_processes_is_refused():
    pytest.importorskip("ray")
    with pytest.raises(RefusedError, match="num_learners must be at least 1, got 0"):
        fleet_of_learners(placed(), ENV, 1, GossipConfig(0))
