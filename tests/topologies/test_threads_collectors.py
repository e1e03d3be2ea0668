"""Asynchronous collectors: slow robots in threads, one trainer, pulls at episodes."""

import json
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import envs, loops, random
from jaxrl_par.algorithms.pulling import pulling_at_starts
from jaxrl_par.envs.host import from_pure
from jaxrl_par.loops.pace import PaceConfig
from jaxrl_par.replay import Windows, uniform, without_carry
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_recorded, threads
from jaxrl_par.training.checkpoints import state_hash
from jaxrl_par.types import Agent, Info

LENGTH, BATCH, ROWS = 4, 8, 10
"""Rows of an unroll, of a batch, and of an episode with the one that ends it."""


class Number(NamedTuple):
    params: jax.Array


def make_env(key):
    """A robot that takes a while."""
    env = envs.make("LQR-1x1", 1, bound=np.inf, length=ROWS - 1)
    robot = from_pure(env, key)
    step = robot.step

    def slow(action):
        time.sleep(0.002)
        return step(action)

    robot.step = slow
    return robot


def telling() -> Agent:
    """Acts the number of updates that its parameters have."""

    def act(params, carry, step, key):
        return params + jnp.zeros((*step.first.shape, 1)), carry, {}

    env = envs.make("LQR-1x1", 1, bound=np.inf)
    return Agent(
        init=lambda key, step: Number(jnp.float32(0)),
        initial_carry=lambda num_envs: (),
        act=act,
        greedy=act,
        grad=lambda state, batch, key, axis: (0.0 * state.params, Info({})),
        apply=lambda state, grads, metrics: Number(state.params + 1),
        specs=env.specs,
    )


def learner():
    buffer = without_carry(uniform(256, BATCH, Windows(1)))
    return loops.replayed(pulling_at_starts(telling()), buffer)


def config(num_actors, ratio=None):
    pace = PaceConfig(samples_per_insert=ratio)
    return ThreadsConfig(num_actors, "decoupled", pace=pace)


def collected(num_actors, num_updates, ratio, path):
    """The run, its kept items in the order in which they came, and the record."""
    bridge = threads(
        learner(), make_env, LENGTH, config(num_actors, ratio), data_mesh(1)
    )
    bridge.record(path)
    try:
        run, _ = bridge.advance(bridge.init(random.key(0)), num_updates)
        report = bridge.report()
    finally:
        bridge.close()
    entries = [entry for line in path.open() for entry in json.loads(line)]
    data = run.local.data
    items = jax.tree.map(lambda x: np.asarray(x[0][: len(entries)]), data.items)
    return run, items, entries, report


@pytest.mark.slow
@pytest.mark.parametrize("num_actors", [1, 3])
def test_collectors_hold_what_was_newest_where_their_episode_began(
    num_actors, tmp_path
):
    _, items, entries, _ = collected(num_actors, 60, 4.0, tmp_path / "schedule.jsonl")
    older = 0
    for actor in range(num_actors):
        mine = [i for i, entry in enumerate(entries) if entry[0] == actor]
        held = None
        for i in mine:
            version = items.extras["version"][i]
            assert len(set(version.tolist())) == 1
            for row in range(LENGTH):
                if items.steps.first[i, row]:
                    held = version[row]
                assert items.action[i, row, 0] == held
                older += held < version[row]
        assert len(mine) > ROWS / LENGTH
    assert older > 0  # else no episode was longer than an unroll


@pytest.mark.slow
@pytest.mark.parametrize("num_actors", [1, 3])
def test_a_row_is_trained_as_often_as_the_cap_allows(num_actors, tmp_path):
    """Three times at most: the trainer waits for slow robots, and they never for it."""
    path = tmp_path / "schedule.jsonl"
    run, _, entries, report = collected(num_actors, 60, 3.0, path)
    inserted, updates, ready = 0, 0, False
    for line in path.open():
        unrolls = len(json.loads(line))
        inserted += unrolls * ready
        updates += ready
        assert updates * BATCH <= 3 * inserted * LENGTH
        ready = True  # from the second update on, as one unroll is enough
    assert report.samples_per_insert == updates * BATCH / (inserted * LENGTH) <= 3
    assert int(run.progress.updates) == 60
    assert {entry[0] for entry in entries} == {*range(num_actors)}


@pytest.mark.slow
def test_a_recorded_run_of_collectors_is_repeated_bit_for_bit(tmp_path):
    """What each holds is part of it."""
    path = tmp_path / "schedule.jsonl"
    first, *_ = collected(2, 25, 4.0, path)
    given = learner(), make_env, LENGTH, config(2, 4.0), data_mesh(1), path
    again = repeat_recorded(*given)
    try:
        second, _ = again.advance(again.init(random.key(0)), 25)
    finally:
        again.close()
    same = [x._replace(local=x.local._replace(debt=())) for x in (first, second)]
    assert state_hash(same[0]) == state_hash(same[1])
