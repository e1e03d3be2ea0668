"""Who acts is a choice of its own: central inference is local inference."""

import threading
from contextlib import nullcontext
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near
from scripted import World, at, engine, raising

from jaxrl_par import random
from jaxrl_par.algorithms.impala import impala
from jaxrl_par.bridge.actor_learner import system
from jaxrl_par.bridge.central.config import CentralConfig
from jaxrl_par.bridge.central.place import Place
from jaxrl_par.envs.host import from_pure
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.loops.records import RecordError
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_recorded, threads
from jaxrl_par.training.checkpoints import Checkpoints, state_hash
from jaxrl_par.types import Agent, Info

LENGTH, EACH = 5, 2
ENV = previous_action_and_reward(probes.counter(EACH))
KEY = random.key(7)
CENTRAL = {"inference": "central"}
APART = {"inference": "central", "central": CentralConfig(rows="apart")}


class Counted(NamedTuple):
    params: dict


def _act(params, carry, step, key):
    """Each leaf of the parameters is seen, and memory is the sum of observations."""
    carry = carry + step.obs[:, 0]
    seen = {name: jnp.full(step.first.shape, x) for name, x in params.items()}
    drawn = jax.random.uniform(key, step.first.shape)
    action = jnp.zeros(step.first.shape, jnp.int32)
    return action, carry, seen | {"memory": carry, "drawn": drawn}


COUNTED = Agent(
    init=lambda key, step: Counted({name: jnp.int32(0) for name in "abcd"}),
    initial_carry=jnp.zeros,
    act=_act,
    grad=lambda state, batch, key, axis: (jnp.mean(batch.reward), Info({})),
    apply=lambda state, grads, metrics: Counted(
        {name: x + 1 for name, x in state.params.items()}
    ),
    greedy=_act,
)
"""Every leaf of its parameters is their version."""


ACTING, COMPILED = cache(system.acting), cache(system.compiled)


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch):
    """Engines of one agent act with the same compiled functions."""
    monkeypatch.setattr(system, "acting", ACTING)
    monkeypatch.setattr(system, "compiled", COMPILED)


def agent(memory="lstm", widths=(8,)):
    config = NetworkConfig(widths=widths, memory=memory, memory_width=8)
    network = actor_critic(ENV.observation_spec, ENV.action_spec, config)
    return impala(network, optax.adam(0.03))


def make_env(key):
    return from_pure(ENV, key)


def bridge(learner, config, each=EACH):
    env = previous_action_and_reward(probes.counter(each))
    make = partial(from_pure, env)
    return threads(learner, make, LENGTH, config, data_mesh(1))


def lockstep(num_actors, lag=0, **options):
    return ThreadsConfig(num_actors, "lockstep", lag, **options)


def advanced(made, num_updates, chunk=4):
    with made:
        run, metrics = made.init(KEY), []
        for start in range(0, num_updates, chunk):
            run, new = made.advance(run, min(chunk, num_updates - start))
            metrics.append(new)
    return run, jax.tree.map(lambda *xs: np.concatenate(xs), *metrics)


def unrolls_of(made, num_updates):
    """What was learned from, and by which version."""
    with made:
        run, seen = made.init(KEY), []
        count = made._system.learner.count

        def noting(unrolls, version):
            seen.extend((item, version) for item in unrolls)
            return count(unrolls, version)

        made._system.learner.count = noting
        _, metrics = made.advance(run, num_updates)
    return seen, metrics


# Equality -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_one_actor_in_lockstep_is_the_compiled_program(memory):
    """Bit for bit: its batch has the shape of local inference."""
    made = agent(memory)
    ours, _ = advanced(bridge(made, lockstep(1, **CENTRAL)), 4)
    program = compiled(made, ENV, LENGTH)
    theirs, step = jax.jit(program.init)(KEY), jax.jit(program.step)
    for _ in range(4):
        theirs, _ = jax.block_until_ready(step(theirs))
    nothing = {"local": ()}
    assert state_hash(ours._replace(**nothing)) == state_hash(
        theirs._replace(**nothing)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("lag", "each"), [(0, 1), (1, 2)])
@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize(
    "central",
    [
        CentralConfig(rows="apart"),
        CentralConfig(rows="apart", max_batch=2, max_wait_ms=0.0),
        CentralConfig(max_batch=1),
    ],
)
def test_actors_in_lockstep_have_the_bits_of_local_inference(
    lag, each, memory, central
):
    """All of the run, memory of the actors too, where the products of a single row have
    other bits in a batch."""
    made = agent(memory, widths=(64, 64))
    config = lockstep(3, lag, inference="central", central=central)
    ours, _ = advanced(bridge(made, config, each), 5)
    theirs, _ = advanced(bridge(made, lockstep(3, lag), each), 5)
    assert state_hash(ours) == state_hash(theirs)


@pytest.mark.slow
def test_a_joint_batch_does_not_depend_on_who_waited():
    made, hashes = agent(widths=(64, 64)), set()
    for max_wait_ms in (0.0, 0.0, 0.3, 50.0):
        central = CentralConfig(max_wait_ms=max_wait_ms)
        config = lockstep(3, 1, inference="central", central=central)
        hashes.add(state_hash(advanced(bridge(made, config), 6)[0]))
    assert len(hashes) == 1


@pytest.mark.slow
def test_a_joint_batch_is_local_inference_to_rounding():
    made = agent(widths=(64, 64))
    ours, _ = advanced(bridge(made, lockstep(3, **CENTRAL), 1), 1)
    theirs, _ = advanced(bridge(made, lockstep(3), 1), 1)
    assert_near(ours.learner.params, theirs.learner.params, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [CENTRAL, APART])
def test_resuming_in_lockstep_is_exact(options, tmp_path):
    """Through a checkpoint, in the middle of episodes, with the memory of all."""
    made, config = agent(), lockstep(2, 1, **options)
    whole, _ = advanced(bridge(made, config), 10, chunk=5)
    half, _ = advanced(bridge(made, config), 5, chunk=5)
    with Checkpoints(tmp_path / "checkpoints", {}, 2) as store:
        store.save(5, half)
        again = bridge(made, config)
        restored = store.restore(again.init(KEY))
    with again:
        again.resume(restored)
        resumed, _ = again.advance(restored, 5)
    assert state_hash(resumed) == state_hash(whole)


# Versions by row ------------------------------------------------------------------


def test_each_act_sees_whole_parameters_of_the_version_that_it_tells():
    """In a free run, where they are replaced in the middle of unrolls."""
    made = engine(World(), COUNTED, **CENTRAL, queue_size=1, unrolls_per_update=1)
    seen, metrics = unrolls_of(made, 40)
    for item, _ in seen:
        extras = item.trajectory.extras
        for name in "abcd":
            np.testing.assert_array_equal(extras[name], extras["version"])
        assert np.all(np.diff(extras["version"], axis=0) >= 0)
        assert item.version == extras["version"].min()
    # Lags are means and the largest over rows.
    for (item, version), lag, most in zip(
        seen, metrics["lag"].total, metrics["lag_max"].total, strict=True
    ):
        lags = version - item.trajectory.extras["version"]
        assert lag == pytest.approx(lags.mean()) and most == lags.max()


@pytest.mark.slow
@pytest.mark.parametrize("max_lag", [0, 1])
def test_the_largest_lag_of_a_row_is_within_the_bound(max_lag):
    made = engine(
        World(), COUNTED, **CENTRAL, max_lag=max_lag, num_actors=3, unrolls_per_update=2
    )
    _, metrics = unrolls_of(made, 20)
    assert metrics["lag_max"].total.max() <= max_lag
    assert max(made.report().lags) <= max_lag
    batches = made.report().batches
    assert batches.steps >= 20 * 2 * 4 and 0 < batches.fill <= 1


def test_in_lockstep_all_rows_have_the_version_of_their_unroll():
    options = {"schedule": "lockstep", "lag": 1, "num_actors": 2}
    seen, _ = unrolls_of(engine(World(), COUNTED, **CENTRAL, **options), 10)
    for item, version in seen:
        assert item.versions == {max(0, version - 1): 4}


@pytest.mark.parametrize("error", [None, "raise"])
def test_memory_goes_on_over_unrolls_and_begins_anew_with_environments(error):
    """Observations count 0 .. 6, so that memory is known in every row."""
    world = World()
    if error:
        world.before = raising(at(6, actor=0))
    options = {"schedule": "lockstep", "lag": 0, "on_error": "restart"}
    made = engine(world, COUNTED, **CENTRAL, **options)
    with pytest.warns() if error else nullcontext():
        seen, _ = unrolls_of(made, 6)
    for actor in range(2):
        total = {}
        for item, _ in seen:
            if item.actor == actor:
                before = total.get(item.generation, 0.0)
                rows = item.trajectory.rows.obs[..., 0]
                memory = before + np.cumsum(rows, axis=0)
                np.testing.assert_array_equal(item.trajectory.extras["memory"], memory)
                np.testing.assert_array_equal(item.trajectory.carry, np.full(2, before))
                total[item.generation] = memory[-1, 0]
        assert len(total) == (2 if error and actor == 0 else 1)


def test_the_learner_gets_the_error_of_the_thread_that_acts(monkeypatch):
    """And nobody waits for an answer that will not come."""
    answer, error = Place.answer, ZeroDivisionError("in the network")

    def failing(self, requests, version, params):
        if requests[0].unroll == 2:
            raise error
        return answer(self, requests, version, params)

    monkeypatch.setattr(Place, "answer", failing)
    with engine(World(), COUNTED, **CENTRAL) as made:
        run = made.init(KEY)
        with pytest.raises(ZeroDivisionError) as raised:
            made.advance(run, 100)
        assert raised.value is error
    names = [thread.name for thread in threading.enumerate()]
    assert not {"inference", "actor 0", "actor 1"} & set(names)
    assert made.report().restarts == 0


# Records --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        ThreadsConfig(3, unrolls_per_update=2, queue_size=4, **CENTRAL),
        ThreadsConfig(2, max_lag=1, **APART),
        ThreadsConfig(2, "lockstep", **CENTRAL),
    ],
)
def test_a_recorded_run_is_repeated_bit_for_bit(config, tmp_path):
    """By one thread, row by row with the versions that acted."""
    path, made = tmp_path / "schedule.jsonl", agent()
    recorder = bridge(made, config)
    recorder.record(path)
    recorded, _ = advanced(recorder, 12)
    again = repeat_recorded(made, make_env, LENGTH, config, data_mesh(1), path)
    second, _ = advanced(again, 12)
    # But for the parameters of the past, which a replay does not keep.
    ours, theirs = (x._replace(local=x.local.actors) for x in (recorded, second))
    assert state_hash(ours) == state_hash(theirs)


LINES = "[[0, 0, 0, 0]]\n[[0, 1, 0, 0, 0, [[0, 3], [1, 2]]]]\n"


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("lines", "options", "found"),
    [
        (LINES, {}, "as inference = central acts, not local"),
        (
            LINES.replace("[1, 2]", "[1, 3]"),
            CENTRAL,
            "is of 6 rows, and an unroll of 5",
        ),
        (LINES.replace("[1, 2]", "[2, 2]"), CENTRAL, "wants version 2; there are"),
        (LINES, CENTRAL, None),
    ],
)
def test_a_record_by_rows_is_repeated_or_refused(tmp_path, lines, options, found):
    path = tmp_path / "schedule.jsonl"
    path.write_text(lines)
    config, pure = ThreadsConfig(1, **options), probes.counter(EACH)
    made = repeat_recorded(
        COUNTED, lambda key: from_pure(pure, key), LENGTH, config, data_mesh(1), path
    )
    if found is None:
        seen, _ = unrolls_of(made, 2)
        assert [item.versions for item, _ in seen] == [{0: 5}, {0: 3, 1: 2}]
        return
    with made, pytest.raises(RecordError, match=found):
        made.advance(made.init(KEY), 2)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"central": CentralConfig(max_batch=3), **CENTRAL},
         "central.max_batch must be at most num_actors = 2, got 3"),
        ({"central": CentralConfig(max_wait_ms=-1.0), **CENTRAL},
         "central.max_wait_ms must be at least 0"),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused(options, found):
    with pytest.raises(ValueError, match=found):
        bridge(COUNTED, ThreadsConfig(2, **options))
