"""A chain of learners: what each stage sees, changes and calls its metrics."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import loops, random
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.axis import Axis
from jaxrl_par.envs.host import from_pure
from jaxrl_par.loops import Learner, Lessons, Stage, chain, halves_of
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, threads
from jaxrl_par.training.checkpoints import state_hash
from jaxrl_par.types import TimeStep, Trajectory

KEY = random.key(7)
ENV = probes.clock(2)
LENGTH = 3
NETWORK = NetworkConfig(widths=(4,))
CONFIG = ThreadsConfig(num_actors=1, schedule="lockstep", lag=1)


@cache
def agent():
    made = actor_critic(ENV.observation_spec, ENV.action_spec, NETWORK)
    return a2c(made, optax.adam(0.1))


def assert_equal(actual, expected):
    """Bit for bit."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


def unroll(reward):
    """A trajectory of one row of one environment."""
    flags = jnp.zeros((2, 1), jnp.bool_)
    row = jnp.full((1, 1), reward, jnp.float32)
    return Trajectory(TimeStep(flags, flags, flags), row, row, row, {}, ())


STEP = TimeStep(*3 * [jnp.zeros(1, jnp.bool_)])


def wandering(rate, **options):
    """A learner that goes towards the rewards, and by chance elsewhere."""

    def learn(state, data, trajectory, key, axis):
        error = jnp.mean(trajectory.reward) - state
        state = state + rate * error + jax.random.normal(key, state.shape)
        return state, data + error, {"error": error, "skipped": error[0]}

    return Learner(
        agent(),
        lambda key, step: jax.random.normal(key, (3,)),
        lambda state: {"mean": state},
        lambda trajectory: jnp.zeros(3),
        learn,
        **options,
    )


def test_two_learners_in_a_chain_are_each_of_them_alone_bit_for_bit():
    # They learn in the order in which they are given, and start in that of names.
    alone = {"slow": wandering(0.1), "quick": wandering(0.5)}
    both = chain(acts="slow", **alone)
    state, data = both.init(KEY, STEP), both.start(unroll(0.0))
    quick_key, slow_key = jax.random.split(KEY)
    states = {
        "quick": alone["quick"].init(quick_key, STEP),
        "slow": alone["slow"].init(slow_key, STEP),
    }
    datas = dict.fromkeys(alone, jnp.zeros(3))
    for update in range(3):
        given = unroll(update), jax.random.fold_in(KEY, update), Axis()
        state, data, metrics = both.learn(state, data, *given)
        expected = {"skipped": 0.0}
        for (name, learner), key in zip(
            alone.items(), jax.random.split(given[1]), strict=True
        ):
            states[name], datas[name], more = learner.learn(
                states[name], datas[name], given[0], key, Axis()
            )
            expected["skipped"] += more["skipped"]
            expected[f"{name}_error"] = more["error"]
        assert_equal(state._asdict(), states | {"updates": jnp.int32(update + 1)})
        assert_equal(data._asdict(), datas)
        assert_equal(metrics, expected)
    assert_equal(both.params(state), {"mean": states["slow"]})
    assert_equal(both.actor.params(states["slow"]), {"mean": states["slow"]})


# A model, and values that are planned with it, as in Dyna: numbers to work out by hand.


def learn_model(state, data, trajectory, key, axis, parts):
    reward = jnp.sum(trajectory.reward)
    return state + reward, data + 1, {"error": reward - state}


def imagine(parts, key):
    return parts.state.model, parts.data.model, parts.state.updates


def plan(values, imagined, axis):
    model, kept, updates = imagined
    now = 2 * values + model
    metrics = {"value": now, "kept": 1.0 * kept, "made": 1.0 * updates}
    return now, metrics | {"skipped": jnp.float32(1)}


MODEL = Stage(
    init=lambda key, step: jnp.float32(0),
    learn=learn_model,
    start=lambda trajectory: jnp.int32(10),
)


def planning(draw=imagine, **options):
    values = Stage(lambda key, step: jnp.float32(1), Lessons(2, draw, plan))
    values = values._replace(actor=agent()._replace(params=lambda state: state))
    return chain(acts="values", model=MODEL._replace(**options), values=values)


def test_a_stage_sees_the_newest_of_all_and_changes_its_own():
    """Twice values = 2 values + model in each step, after the model's turn."""
    learner = planning()
    state, data = learner.init(KEY, STEP), learner.start(unroll(0.0))
    assert state == (0, 1, 0) and state._fields == ("model", "values", "updates")
    state, data, metrics = learner.learn(state, data, unroll(3.0), KEY, Axis())
    assert state == (3, 2 * (2 * 1 + 3) + 3, 1) and data == (11, ())
    assert learner.params(state) == 13
    assert metrics == {
        "model_error": 3, "values_value": (5 + 13) / 2, "values_kept": 11,
        "values_made": 0, "skipped": 2,
    }  # fmt: skip
    state, data, metrics = learner.learn(state, data, unroll(1.0), KEY, Axis())
    assert state == (4, 2 * (2 * 13 + 4) + 4, 2) and data == (12, ())
    assert metrics["values_made"] == 1


def test_what_is_deferred_is_learned_later_and_the_same():
    learner = planning()
    state, data = learner.init(KEY, STEP), learner.start(unroll(0.0))
    given = state, data, unroll(3.0), KEY, Axis()
    expected = learner.learn(*given)
    deferred = learner.deferred
    state, data, metrics, lessons = deferred.lead(*given)
    assert state == (3, 1, 1) and metrics.keys() == {"model_error", "skipped"}
    part, learned = deferred.part(state), []
    for number in range(2):
        lesson = jax.tree.map(lambda x, number=number: x[number], lessons)
        part, more = deferred.learn(part, lesson, Axis())
        learned.append(more)
    learned = jax.tree.map(lambda *xs: jnp.stack(xs), *learned)
    state = deferred.replace(state, part)
    assert_equal((state, data, deferred.join(metrics, learned)), expected)


def test_what_other_threads_learn_is_read_by_nobody_else():
    """In one program all see it, lessons that of the lesson before; elsewhere it would
    be old, and no one could tell."""

    def look(state, data, trajectory, key, axis, parts):
        return parts.state.values.real, data, {}

    def own(parts, key):
        return parts.state.values.real, parts.data.model, parts.state.updates

    looks = (planning(learn=look), 2 * (2 * 1 + 1) + 1)
    sees_its_own = (planning(own), 2 * (2 * 1 + 1) + 3)
    for learner, values in (looks, sees_its_own):
        state, data = learner.init(KEY, STEP), learner.start(unroll(0.0))
        given = state, data, unroll(3.0), KEY, Axis()
        state, _, _ = learner.learn(*given)
        assert state.values == values
        with pytest.raises(ValueError, match="stage 'values' is learned in threads"):
            learner.deferred.lead(*given)


def test_only_a_last_stage_that_acts_and_has_lessons_is_deferred():
    values = Stage(lambda key, step: jnp.float32(1), Lessons(2, imagine, plan))
    acting = MODEL._replace(actor=agent())
    assert chain(acts="model", model=acting, values=values).deferred is None
    able = values._replace(actor=agent())
    assert chain(acts="values", values=able, model=MODEL).deferred is None
    assert chain(acts="values", model=MODEL, values=able).deferred is not None


@pytest.mark.slow
def test_distillers_serve_any_chain_whose_last_stage_acts():
    """A stage that keeps the newest trajectory, and lessons of A2C from it: the numbers
    of one program."""

    def keep(state, data, trajectory, key, axis, parts):
        return state, trajectory, {"rows": jnp.float32(trajectory.reward.size)}

    def learn(state, trajectory, axis):
        batch = agent().prepare(state, trajectory, axis)
        state, info = loops.update(agent(), state, batch, KEY, axis)
        return state, info.metrics

    learner = chain(
        acts="policy",
        stream=Stage(lambda key, step: (), keep, start=lambda trajectory: trajectory),
        policy=Stage(
            agent().init,
            Lessons(2, lambda parts, key: parts.data.stream, learn),
            actor=agent(),
        ),
    )
    hashes, names = [], []
    for num_distillers in (0, 1):
        config = replace(CONFIG, num_distillers=num_distillers)
        engine = threads(
            learner, lambda key: from_pure(ENV, key), LENGTH, config, data_mesh(1)
        )
        try:
            run, metrics = engine.advance(engine.init(KEY), 4)
        finally:
            engine.close()
        hashes.append(state_hash(run))
        names.append(metrics.keys())
    assert hashes[0] == hashes[1] and int(run.learner.updates) == 4
    assert names[1] == names[0] | {"policy_raced"}


def test_a_chain_goes_on_in_order_if_a_stage_does_and_has_no_halves():
    assert planning(in_order=True).in_order and not planning().in_order
    assert chain(acts="only", only=wandering(0.1, in_order=True)).in_order
    with pytest.raises(ValueError, match=r"topology delayed .* has no halves"):
        halves_of(chain(acts="only", only=agent()), "delayed")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"acts": "polcy"}, "unknown stage 'polcy'; did you mean 'policy'?"),
        ({"acts": "model"}, "stage 'model' has no actor; with one: policy"),
        ({"a-b": MODEL}, "name cannot be 'a-b'; did you mean 'a_b'?"),
        ({"class": MODEL}, "name cannot be 'class'; did you mean 'stage_class'?"),
        ({"updates": MODEL}, "'updates' counts the steps of the chain"),
        ({"other": MODEL._replace(prefix="model_")}, "'model' and 'other' both begin"),
        (
            {"other": MODEL._replace(learn=Lessons(0, imagine, plan))},
            "other: lessons must be at least 1, got 0",
        ),
    ],
)
def test_stages_that_make_no_chain_are_refused(stages, message):
    with pytest.raises(ValueError) as error:
        chain(**({"acts": "policy", "policy": agent(), "model": MODEL} | stages))
    assert message in str(error.value)


def test_metrics_of_one_name_are_refused():
    """A name and what begins with another one may be the same."""
    other = MODEL._replace(
        learn=lambda state, data, *_: (state, data, {"b_error": state})
    )
    learner = chain(acts="a", a_b=MODEL, a=other._replace(actor=agent()))
    state, data = learner.init(KEY, STEP), learner.start(unroll(0.0))
    with pytest.raises(ValueError, match="two stages have a metric 'a_b_error'"):
        learner.learn(state, data, unroll(3.0), KEY, Axis())
