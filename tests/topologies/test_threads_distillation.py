"""Distillation with actors in threads: the learner's memory and replay go with it."""

import jax
import numpy as np
import optax
import pytest
from warned import warned

from jaxrl_par import loops, random
from jaxrl_par.algorithms.distilled import distilled
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.axis import Axis
from jaxrl_par.bridge.actor_learner.queue import InTurn
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import from_pure
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.networks import (
    NetworkConfig,
    TransformerConfig,
    actor_critic,
    asymmetric,
)
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_recorded, threads
from jaxrl_par.training.checkpoints import Checkpoints, state_hash

NUM_ENVS, LENGTH = 2, 5
ENV = previous_action_and_reward(probes.counter(NUM_ENVS))
KEY = random.key(7)
SMALL = NetworkConfig(widths=(8,), memory="lstm", memory_width=8)
LARGE = NetworkConfig(
    widths=(8,),
    memory="gtrxl",
    memory_width=8,
    transformer=TransformerConfig(1, 2, memory_length=4, mlp_width=8),
)


def parts(method="distillation", teacher="stored"):
    """The learner."""
    small, large = (
        actor_critic(ENV.observation_spec, ENV.action_spec, x) for x in (SMALL, LARGE)
    )
    if method == "distillation":
        actor = distilled(small, optax.adam(0.03))
        learner = impala(large, optax.adam(0.03), ImpalaConfig(behaviour_cost=0.1))
        config = loops.DistillationConfig(2, 4, 12, teacher)
        said = loops.Teacher(large.initial_carry, large.unroll)
        return loops.distillation(actor, learner, said, config)
    agent = impala(asymmetric(small, large), optax.adam(0.03))
    remember = loops.Remember(
        large.initial_carry,
        lambda params, memory, acted: large.unroll(
            params["critic"], memory, acted.rows
        )[1],
    )
    return loops.remembering(agent, remember)


def make_env(key):
    return from_pure(ENV, key)


def engine(config, num_devices=1, **options):
    mesh = data_mesh(num_devices)
    return threads(parts(**options), make_env, LENGTH, config, mesh)


def advanced(bridge, num_updates):
    try:
        return bridge.advance(bridge.init(KEY), num_updates)[0]
    finally:
        bridge.close()


def learned(run):
    """Both models, all that the learner keeps, and the counters."""
    return state_hash(run._replace(local=run.local.data))


def lockstep(num_actors=1, lag=0):
    return ThreadsConfig(num_actors=num_actors, schedule="lockstep", lag=lag)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "num_actors"),
    [({}, 2), ({"teacher": "recomputed"}, 1), ({"method": "asymmetric"}, 1)],
)
def test_lockstep_without_lag_is_the_synchronous_program(options, num_actors):
    """Bit for bit, replays and memories of the learner too: actor i is device i."""
    ours = advanced(engine(lockstep(num_actors), num_actors, **options), 6)
    axis = Axis() if num_actors == 1 else Axis("data")
    program = compiled(parts(**options), ENV, LENGTH, axis)
    if num_actors > 1:
        program = sharded(program, data_mesh(num_actors))
    theirs, step = jax.jit(program.init)(KEY), jax.jit(program.step)
    for _ in range(6):
        theirs = jax.block_until_ready(step(theirs)[0])
    if num_actors == 1:
        # Data of the learner on a mesh have an axis of its devices.
        data = jax.tree.map(lambda x: x[None], theirs.local.data)
        theirs = theirs._replace(local=theirs.local._replace(data=data))
    assert learned(ours) == learned(theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("max_lag", "inference"),
    [(None, "local"), (0, "local"), (2, "local"), (2, "central")],
)
def test_in_the_free_schedule_every_actor_takes_its_turn(max_lag, inference, tmp_path):
    """Lane b of each batch is the same environment where it was left, though nobody
    waits for others to act. A recorded run is repeated bit for bit."""
    config = ThreadsConfig(num_actors=3, max_lag=max_lag, inference=inference)
    bridge = engine(config)
    path = tmp_path / "schedule.jsonl"
    bridge.record(path)
    seen = []
    try:
        run = bridge.init(KEY)
        take = bridge._system.learner.upload

        def watch(unrolls):
            seen.append([(x.actor, x.unroll) for x in unrolls])
            return take(unrolls)

        bridge._system.learner.upload = watch
        run, metrics = bridge.advance(run, 8)
    finally:
        bridge.close()
    assert seen[:8] == [[(actor, n) for actor in range(3)] for n in range(8)]
    assert metrics["lag_max"].total.max() <= (1 if max_lag is None else max_lag)
    again = advanced(
        repeat_recorded(parts(), make_env, LENGTH, config, data_mesh(1), path), 8
    )
    assert learned(run) == learned(again)


@pytest.mark.slow
def test_a_run_is_resumed_bit_for_bit(tmp_path):
    """Both models, both optimisers, replay, and the memories of actors and learner."""
    config = lockstep(2, lag=1)
    whole = advanced(engine(config), 8)
    half = advanced(engine(config), 5)
    with Checkpoints(tmp_path / "checkpoints", {}, 2) as store:
        store.save(5, half)
        bridge = engine(config)
        restored = store.restore(bridge.init(KEY))
    try:
        bridge.resume(restored)
        resumed, _ = bridge.advance(restored, 3)
    finally:
        bridge.close()
    assert state_hash(resumed) == state_hash(whole)
    assert int(resumed.local.data.teacher.archive.size[0]) == 12


@pytest.mark.parametrize(("max_lag", "lag"), [(None, 1), (0, 0), (2, 2)])
def test_in_order_a_lag_has_a_bound_that_is_1_by_default(max_lag, lag):
    bridge = engine(ThreadsConfig(num_actors=3, max_lag=max_lag))
    schedule = bridge._make_schedule(0)
    assert isinstance(schedule, InTurn) and schedule.capacity == (lag + 1) * 3
    bridge.close()


def test_a_learner_with_a_memory_needs_an_unroll_of_every_actor():
    config = ThreadsConfig(num_actors=3, unrolls_per_update=2)
    with pytest.raises(ValueError, match="one of each of the 3 actors, got 2"):
        engine(config)


@pytest.mark.slow
def test_an_actor_made_anew_does_not_disturb_the_memory_of_its_learner():
    """Its next unroll starts episodes, at which the learner forgets too."""
    broken = []

    class Breaking(type(make_env(KEY))):
        """Fails once, in the middle of its third unroll."""

        count = 0

        def step(self, action):
            self.count += 1
            if self.count == 2 * LENGTH + 3 and not broken:
                broken.append(True)
                raise RuntimeError("out of fuel")
            return super().step(action)

    config = ThreadsConfig(
        num_actors=2, max_lag=0, supervision=SupervisionConfig(on_error="restart")
    )
    bridge = threads(
        parts(), lambda key: Breaking(ENV, key), LENGTH, config, data_mesh(1)
    )
    shown = {}
    try:
        run = bridge.init(KEY)
        upload = bridge._system.learner.upload

        def watch(unrolls):
            # Not what is uploaded ahead, for an update that never comes.
            for x in [x for x in unrolls if x.unroll < 6]:
                first = bool(x.trajectory.steps.first[0].all())
                shown.setdefault((x.actor, x.generation), []).append(first)
            return upload(unrolls)

        bridge._system.learner.upload = watch
        with warned("out of fuel"):
            run, metrics = bridge.advance(run, 6)
    finally:
        bridge.close()
    # One of the two actors is of generation 1 since its third unroll.
    (anew,) = (key for key in shown if key[1] == 1)
    assert len(shown) == 3 and shown[anew][0]
    assert sorted(map(len, shown.values())) == [2, 4, 6]
    assert np.all(np.isfinite(metrics["fresh_kl"].total))
    assert int(run.learner.updates) == 6
