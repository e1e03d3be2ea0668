"""Updates from the first of several workers: those of threads, without threads."""

import jax
import numpy as np
import optax
import pytest

from jaxrl_par import random
from jaxrl_par.algorithms.impala import impala
from jaxrl_par.envs.host import from_pure
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import records, remembering, rounds, schedules
from jaxrl_par.loops.learner import Remember
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.quorum import quorum
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, threads
from jaxrl_par.training.checkpoints import state_hash

KEY, LENGTH, NUM_ENVS = random.key(7), 5, 2
ENV = previous_action_and_reward(probes.counter(NUM_ENVS))
NETWORK = NetworkConfig(widths=(8,), memory="lstm", memory_width=8)
AGENT = impala(actor_critic(*ENV.specs, NETWORK), optax.adam(0.03))


def program(found, num_workers, learner=AGENT):
    return quorum(learner, ENV, LENGTH, found, num_workers=num_workers)


def stepped(program, number):
    run, step, rows = jax.jit(program.init)(KEY), jax.jit(program.step), []
    for _ in range(number):
        run, metrics = step(run)
        rows.append(metrics)
    return run, jax.device_get(rows)


def acted_by(config, number, path=None):
    make_env = lambda key: from_pure(ENV, key)  # noqa: E731
    with threads(AGENT, make_env, LENGTH, config, data_mesh(1)) as engine:
        if path:
            engine.record(path)
        run, metrics = engine.advance(engine.init(KEY), number)
    return run, jax.device_get(metrics)


def learned(run):
    return state_hash(run._replace(local=()))


@pytest.mark.slow
@pytest.mark.parametrize("lag", [0, 2])
def test_a_quorum_of_all_is_lockstep_bit_for_bit(lag):
    durations = schedules.heavy_tailed(8, 3, 0, tail=1.5)
    ours, rows = stepped(program(rounds.simulated(durations, 3, lag), 3), 6)
    theirs, metrics = acted_by(ThreadsConfig(3, "lockstep", lag), 6)
    assert learned(ours) == learned(theirs)
    for name in ("lag", "lag_max", "episode_return", "episode_length"):
        np.testing.assert_allclose(
            [x[name].total for x in rows], metrics[name].total, rtol=1e-6
        )
    for i, actor in enumerate(theirs.local.actors):
        for own, x in zip(ours.local.streams.carry, actor.carry, strict=True):
            np.testing.assert_array_equal(own[i], x)


@pytest.mark.slow
def test_what_threads_recorded_with_a_quorum_is_repeated_bit_for_bit(tmp_path):
    """With what was too old, if the machine was so: acted, and not learned from."""
    path = tmp_path / "schedule.jsonl"
    config = ThreadsConfig(3, "lockstep", 1, quorum=2, max_lag=1)
    theirs, _ = acted_by(config, 8, path)
    found = rounds.recorded(records.read(path), 3, 2)
    ours, rows = stepped(program(found, 3), 8)
    assert learned(ours) == learned(theirs)
    dropped = sum(x.dropped for line in records.read(path) for x in line)
    assert sum(x["dropped"] for x in rows) == dropped


@pytest.mark.slow
def test_what_is_dropped_is_acted_and_not_learned_from():
    """Trap F9: with a bound of one update nothing of the slow is ever learned from."""
    durations = np.broadcast_to(np.array([1.0, 1.0, 3.0, 3.0]), (12, 4))
    found = rounds.simulated(durations, 2, 0, 1)
    run, rows = stepped(program(found, 4), 12)
    kinds, worker = found.kind, found.worker
    acted = np.bincount(worker[kinds != rounds.NOTHING], minlength=4)
    assert np.array(run.local.unroll.units).tolist() == acted.tolist()
    assert acted.tolist() == [12, 12, 4, 4]
    assert sum(x["dropped"] for x in rows) == 8
    assert max(x["lag_max"].total for x in rows) == 0
    fast = rounds.simulated(durations[:, :2], 2)
    alone, _ = stepped(program(fast, 2), 12)
    assert learned(run) == learned(alone)


@pytest.mark.slow
def test_rounds_begin_again_where_they_end():
    """Delays of a new beginning find parameters of the one before."""
    durations = schedules.exponential(5, 3, 0)
    found = rounds.simulated(durations, 2, 1)
    twice = rounds.Rounds(*(np.concatenate([x, x]) for x in found))
    once, again = (stepped(program(x, 3), 9)[0] for x in (found, twice))
    assert learned(once) == learned(again)


def test_what_does_not_fit_is_refused():
    found = rounds.simulated(np.ones((4, 3)), 2)
    with pytest.raises(RefusedError, match=r"workers must be in 0 \.\. 1, got 2"):
        program(found, 2)
    in_order = remembering(
        AGENT, Remember(lambda num_envs: (), lambda params, memory, trajectory: memory)
    )
    with pytest.raises(RefusedError, match="needs one of each of the 3 workers, got 2"):
        program(found, 3, in_order)
    program(rounds.simulated(np.ones((4, 3)), 3), 3, in_order)
