"""Bellman updaters and a trainer: who has seen what, by numbers to work out by hand."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import loops, random
from jaxrl_par.algorithms.qt_opt import QTOptConfig, labelled, nets_of, qt_opt
from jaxrl_par.axis import Axis
from jaxrl_par.envs.host import from_pure
from jaxrl_par.loops import LabellingConfig, labelling
from jaxrl_par.networks import NetworkConfig, candidate_values
from jaxrl_par.replay import Windows, fresh, ring, uniform
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_recorded, threads
from jaxrl_par.training.checkpoints import state_hash
from jaxrl_par.types import Agent, Info, TimeStep, Trajectory

KEY = random.key(3)
STEP = TimeStep(jnp.zeros((1, 1)), *2 * [jnp.zeros(1, bool)])
LOCKSTEP = ThreadsConfig(num_actors=1, schedule="lockstep", lag=0)


def counting() -> Agent:
    """Its state counts updates, and its batch is rows of labels."""

    def act(params, carry, step, key):
        return jnp.zeros(step.first.shape), carry, {}

    return Agent(
        init=lambda key, step: jnp.float32(0.0),
        initial_carry=lambda num_envs: (),
        act=act,
        greedy=act,
        grad=lambda state, batch, key, axis: (
            jnp.float32(1.0),
            Info({"label": jnp.mean(batch["label"])}),
        ),
        apply=lambda state, grads, metrics: state + grads,
        params=lambda state: state,
    )


def told(config, *, updates_per_step=2, num_steps=5, buffer=fresh()):
    """Metrics of each step; labels are what an updater knows of the count."""

    def label(count, batch, key):
        rewards = batch.reward.ravel()
        return {"label": count + 0.0 * rewards, "reward": rewards}

    learner = labelling(
        counting(), label, lambda state: state, buffer, config,
        batch_size=8, updates_per_step=updates_per_step,
    )  # fmt: skip
    flags = jnp.zeros((2, 2), bool)
    rows = jnp.ones((1, 2))
    steps = TimeStep(jnp.zeros((2, 2, 1)), flags, flags)
    acted = Trajectory(steps, rows, rows, rows, {}, ())
    state, data = learner.init(KEY, STEP), learner.start(acted)
    found = []
    learn = jax.jit(learner.learn, static_argnums=4)
    for number in range(num_steps):
        key = jax.random.fold_in(KEY, number)
        state, data, metrics = learn(state, data, acted, key, Axis())
        found.append({name: float(x) for name, x in metrics.items()})
    return state, found


def test_labels_are_of_copies_as_they_were_polled():
    """Two updates a step. An updater that polls in every third step labels with what it
    knew then; the newest labels alone are kept."""
    config = LabellingConfig(batch_size=2, capacity=2, poll_interval=3)
    state, found = told(config)
    assert float(state.trainer) == 10 and int(state.updates) == 5
    assert [x["label"] for x in found] == [0, 0, 0, 6, 6]
    assert [x["label_polled_age"] for x in found] == [0, 1, 2, 0, 1]
    assert [x["label_age"] for x in found] == [0, 1, 2, 0, 1]


@pytest.mark.slow
def test_updaters_take_turns_to_poll():
    """Of two with an interval of 2, all poll in the first step and then one a step."""
    config = LabellingConfig(2, batch_size=2, capacity=4, poll_interval=2)
    _, found = told(config)
    assert [x["label_polled_age"] for x in found] == [0, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.slow
def test_rows_are_kept_as_long_as_there_is_room():
    """Four steps of labels: what is drawn is up to three steps old."""
    config = LabellingConfig(batch_size=2, capacity=8)
    _, found = told(config, num_steps=12)
    ages = [x["label_age"] for x in found]
    assert ages[0] == 0 and 0 < max(ages) < 3 and np.mean(ages[4:]) > 0.8


@pytest.mark.slow
def test_nothing_is_learned_before_the_replay_is_ready():
    buffer = uniform(8, 2, Windows(1), min_size=5)
    config = LabellingConfig(batch_size=2, capacity=2)
    state, found = told(config, buffer=buffer)
    # Two lanes a step: ready in the third of five.
    assert float(state.trainer) == 6 and [x["label"] for x in found][:3] == [0, 0, 0]


def endless(num_envs):
    """Nothing terminates, so every label depends on who made it; pays 0 or more."""
    env = probes.continuous_action(num_envs)

    def step(env_state, action, key):
        env_state, step, reward, _ = env.step(env_state, action, key)
        paid = jnp.where(step.first, 0.0, jnp.maximum(1.0 + reward, 0.0) / 10.0)
        return env_state, step, paid, (~step.first).astype(jnp.float32)

    return env._replace(step=step)


ENV = endless(4)
VALUES = candidate_values(*ENV.specs, NetworkConfig(widths=(8,)))
CONFIG = QTOptConfig(target_rate=0.5, delay=1)
NETS = nets_of(VALUES, ENV.action_spec, CONFIG)
AGENT = qt_opt(VALUES, ENV.action_spec, optax.sgd(0.5), CONFIG)
BOTH = LabellingConfig(2, batch_size=4, poll_interval=2, capacity=16)
LABELS = LabellingConfig(batch_size=8, capacity=16)


def label(copies, batch, key):
    return labelled(copies, batch, key, Axis(), NETS)


def learner(config=LABELS, updates_per_step=1):
    buffer = uniform(16, config.batch_size, Windows(1))
    return labelling(
        AGENT, label, lambda state: state.copies, buffer, config,
        batch_size=8, updates_per_step=updates_per_step,
    )  # fmt: skip


@pytest.mark.slow
def test_one_updater_and_one_trainer_in_order_are_fitted_q_iteration():
    """The sheet's check 5: label a batch, add it, draw rows, one step of regression."""
    made = learner()
    _, step = ENV.reset(KEY)
    rng = np.random.default_rng(0)

    def acted():
        steps = jax.tree.map(lambda x: jnp.stack([x, x]), step)
        steps = steps._replace(
            obs=jnp.asarray(rng.uniform(-1, 1, steps.obs.shape), jnp.float32),
            first=jnp.zeros((2, 4), bool),
            last=jnp.zeros((2, 4), bool),
        )
        action = jnp.asarray(rng.uniform(-1, 1, (1, 4, 1)), jnp.float32)
        reward = jnp.asarray(rng.uniform(0, 1, (1, 4)), jnp.float32)
        return Trajectory(steps, action, reward, jnp.ones((1, 4)), {}, ())

    first = acted()
    state, data = made.init(KEY, step), made.start(first)
    learn = jax.jit(made.learn, static_argnums=4)
    ours = state.trainer
    buffer = uniform(16, 8, Windows(1))
    replay, kept = buffer.init(first), None
    for number in range(3):
        rows, key = (first if number == 0 else acted()), jax.random.fold_in(KEY, number)
        state, data, _ = learn(state, data, rows, key, Axis())
        # By hand, with the keys of the chain.
        label_key, train_key = jax.random.split(key)
        (own,) = jax.random.split(label_key, 1)
        sample_key, own = jax.random.split(own)
        replay = buffer.add(replay, (), rows)
        batch, _ = buffer.sample(replay, rows, sample_key, Axis())
        new = label(ours.copies, batch, own)
        kept = ring.empty(new, 16) if kept is None else kept
        kept = ring.add(kept, new)
        (own,) = jax.random.split(train_key, 1)
        sample_key, own = jax.random.split(own)
        drawn = ring.sample(kept, sample_key, 8)
        ours, _ = loops.update(AGENT, ours, drawn, own)
    assert_near(state.trainer.params, ours.params)
    assert_near(state.trainer.copies, ours.copies)


def engine(num_distillers=0, **options):
    config = replace(LOCKSTEP, num_distillers=num_distillers)
    given = learner(**options)
    return threads(given, lambda key: from_pure(ENV, key), 2, config, data_mesh(1))


def advanced(bridge, num_updates=6):
    try:
        return bridge.advance(bridge.init(KEY), num_updates)
    finally:
        bridge.close()


def learned(run):
    return state_hash(run._replace(learner=run.learner.trainer, local=()))


@pytest.mark.slow
def test_lockstep_without_lag_is_the_synchronous_program():
    run, _ = advanced(engine())
    program = compiled(learner(), ENV, 2)
    theirs, step = jax.jit(program.init)(KEY), jax.jit(program.step)
    for _ in range(6):
        theirs = jax.block_until_ready(step(theirs)[0])
    # Not the replay: in threads it has the versions that acted, too.
    labels = jax.tree.map(lambda x: x[None], theirs.local.data.updaters.labelled)
    ours = run._replace(local=run.local.data.updaters.labelled)
    assert state_hash(ours) == state_hash(theirs._replace(local=labels))


@pytest.mark.slow
def test_updaters_go_on_beside_a_trainer_with_what_it_was_before_its_lessons():
    """With one, nothing races: the same twice, though cut in two, and another one than
    without, as labels lag behind."""
    hashes = []
    for parts in ((6,), (6,), (2, 4)):
        bridge = engine(1, updates_per_step=2)
        try:
            run = bridge.init(KEY)
            for count in parts:
                run, metrics = bridge.advance(run, count)
        finally:
            bridge.close()
        hashes.append(learned(run))
        assert int(run.learner.updates) == 6 and not metrics["raced"].any()
    alone, _ = advanced(engine(updates_per_step=2))
    assert hashes[0] == hashes[1] == hashes[2]
    assert hashes[0] != learned(alone)


@pytest.mark.slow
def test_a_recorded_run_is_repeated_with_what_updaters_saw(tmp_path):
    config = ThreadsConfig(num_actors=2, num_distillers=1)
    made = partial(from_pure, ENV)
    path = tmp_path / "schedule.jsonl"
    bridge = threads(learner(BOTH), made, 2, config, data_mesh(1))
    bridge.record(path)
    run, _ = advanced(bridge)
    again = repeat_recorded(learner(BOTH), made, 2, config, data_mesh(1), path)
    repeated, _ = advanced(again)
    assert learned(run) == learned(repeated)


@pytest.mark.slow
def test_a_trainer_of_several_threads_learns_every_lesson():
    run, metrics = advanced(engine(2, updates_per_step=4))
    assert np.all(np.isfinite(metrics["td_error"].total))
    assert int(run.learner.updates) == 6


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_updaters": 0}, "num_updaters must be at least 1, got 0"),
        ({"poll_interval": 0}, "poll_interval must be at least 1, got 0"),
        (
            {"num_updaters": 3, "capacity": 400},
            "capacity must be a multiple of the 384 rows that are labelled in a step,"
            " such as 384, got 400",
        ),
    ],
)
def test_bad_settings_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        learner(replace(LabellingConfig(), **changed))
