"""Both halves of an update, side by side, are the whole; staleness obeys its rules."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import loops, random, rollout
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.impala import impala
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.algorithms.q_learning import q_learning
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.loops import asynchronous
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.networks import NetworkConfig, actor_critic, q_network
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.types import Count, Info

KEY = random.key(0)
ENV = probes.observation_reward(4)
# The trace holds the gradient that was applied.
SGD = optax.chain(optax.trace(0.0), optax.scale(-0.25))


def network(memory="none", make=actor_critic):
    config = NetworkConfig(widths=(4,), memory=memory, memory_width=4)
    return make(ENV.observation_spec, ENV.action_spec, config)


AGENTS = {
    "a2c": lambda: a2c(network(), SGD),
    "a2c, adam": lambda: a2c(network(), optax.adam(0.1)),
    "impala, lstm": lambda: impala(network("lstm"), SGD),
    "ppo": lambda: ppo(network(), SGD),
    "normalized a2c": lambda: normalize_observations(a2c(network(), SGD)),
    "q-learning": lambda: q_learning(network(make=q_network), SGD),
}


def assert_equal(actual, expected):
    """Bit for bit."""
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


@cache
def acted(name):
    """(agent, state, trajectory)"""
    agent = AGENTS[name]()

    @jax.jit
    def act(key):
        workers = rollout.start(agent, ENV, key)
        state = agent.init(key, workers.step)
        _, trajectory, _ = rollout.unroll(
            agent, ENV, agent.params(state), workers, key, 5
        )
        return state, trajectory

    return agent, *act(random.key(1))


# Both halves ---------------------------------------------------------------------


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "name", ["a2c", "impala, lstm", "ppo", "normalized a2c", "q-learning"]
)
def test_both_halves_side_by_side_are_one_update(name):
    agent, state, trajectory = acted(name)
    learner = loops.learner_of(agent)
    unroll = Count(jnp.int32(0), jnp.int32(3))
    _, key = loops.unroll_keys(KEY, unroll, 1)

    @jax.jit
    def halves(state, trajectory):
        _, given = asynchronous.gradient(learner, state, (), trajectory, KEY, unroll, 1)
        seen = learner.halves.observe(state, trajectory, Axis())
        after, metrics = asynchronous.apply_stale(
            learner.halves.apply, seen, given, jnp.int32(0), StalenessConfig()
        )
        return after, given, metrics

    @jax.jit
    def whole(state, trajectory):
        return loops.learn(agent, state, trajectory, key)

    after, given, metrics = halves(state, trajectory)
    expected, expected_metrics = whole(state, trajectory)
    assert_equal(after, passed(expected, given.env_steps))
    assert metrics["rejected"] == metrics["lag"] == metrics["skipped"] == 0
    for name in ("rejected", "lag", "stale", "outlying"):
        del metrics[name]
    assert_equal(given.metrics | metrics, expected_metrics)
    # Episodes of one step: every second row is `last`.
    assert given.env_steps == 4 * 3


def test_a_gradient_draws_what_that_instance_would_draw_from_that_unroll():
    agent, state, trajectory = acted("a2c")

    def grad(state, batch, key, axis):
        return state.params, Info({"draw": jax.random.uniform(key)})

    _, given = asynchronous.gradient(
        loops.learner_of(agent._replace(grad=grad)),
        state,
        (),
        trajectory,
        KEY,
        Count(*map(jnp.int32, (2, 3))),
        4,
    )
    key = KEY
    for part in (2, 3, 4):
        key = jax.random.fold_in(key, part)
    _, learn_key = jax.random.split(key)
    _, grad_key = jax.random.split(learn_key)
    assert given.metrics["draw"] == jax.random.uniform(grad_key)


@pytest.mark.slow
def test_a_turn_is_that_of_an_instance_of_the_synchronous_program():
    agent, *_ = acted("a2c")
    program = compiled(agent, ENV, 5, axis=Axis("data"))
    start = jax.jit(
        jax.vmap(program.init, axis_name="data", axis_size=2, in_axes=None)
    )(KEY)
    after, metrics = jax.jit(jax.vmap(program.step, axis_name="data"))(start)
    state = jax.tree.map(lambda x: x[0], start.learner)
    root = start.key[0]

    @jax.jit
    def turn(worker):
        streams = jax.tree.map(lambda x: x[worker], start.local.streams)
        return asynchronous.turn(
            loops.learner_of(agent), ENV, 5, state, state, streams, (), root,
            Count.zero(), worker,
        )  # fmt: skip

    turns = [turn(worker) for worker in (0, 1)]
    for worker, done in enumerate(turns):
        own = jax.tree.map(lambda x, w=worker: x[w], after.local.streams)
        assert_equal(done.streams, own)
        np.testing.assert_array_equal(
            done.gradient.env_steps, jnp.sum(~done.trajectory.steps.last[:-1])
        )
    grads = jax.tree.map(lambda x, y: (x + y) / 2, *(x.gradient.grads for x in turns))
    applied = jax.tree.map(lambda x: x[0], after.learner.opt_state[0].trace)
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(applied), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    episodes = [x.gradient.metrics["episode_return"] for x in turns]
    for field in ("total", "count"):
        total = sum(getattr(x, field) for x in episodes)
        assert total == getattr(metrics["episode_return"], field)[0]


def test_a_turn_acts_with_one_state_and_learns_with_another():
    agent, state, _ = acted("a2c")
    workers = rollout.start(agent, ENV, KEY)
    leaves, tree = jax.tree.flatten(state.params)
    keys = jax.random.split(KEY, len(leaves))
    leaves = [
        x + 3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)
    ]
    other = state._replace(params=jax.tree.unflatten(tree, leaves))

    @jax.jit
    def turn(acting, learning):
        zero = Count.zero()
        return asynchronous.turn(
            loops.learner_of(agent), ENV, 5, acting, learning, workers, (), KEY, zero, 0
        )

    done, same = turn(state, other), turn(state, state)
    assert_equal(done.trajectory, same.trajectory)
    # The other one would have acted differently.
    with pytest.raises(AssertionError):
        assert_equal(turn(other, other).trajectory, same.trajectory)
    grads, _ = jax.jit(partial(agent.grad, axis=Axis()))(other, done.trajectory, KEY)
    for x, y in zip(
        jax.tree.leaves(done.gradient.grads), jax.tree.leaves(grads), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    with pytest.raises(AssertionError):
        assert_equal(done.gradient.grads, same.gradient.grads)


# Staleness -----------------------------------------------------------------------


@cache
def gradient():
    """(agent, state, grads)"""
    agent, state, trajectory = acted("a2c")
    grads, _ = jax.jit(partial(agent.grad, axis=Axis()))(state, trajectory, KEY)
    return agent, state, grads


@cache
def applying(config):
    """(state, grads, staleness) -> (state, metrics), compiled."""
    agent, *_ = gradient()

    def given(state, grads, staleness):
        worth = loops.Gradient(grads, {}, jnp.int32(12))
        return asynchronous.apply_stale(agent.apply, state, worth, staleness, config)

    return jax.jit(given)


def applied(staleness, config=StalenessConfig()):
    _, state, grads = gradient()
    return applying(config)(state, grads, jnp.int32(staleness))


@pytest.mark.sample(2)
@pytest.mark.parametrize("staleness", [0, 1, 8, 9, 1000])
def test_accept_applies_a_gradient_of_any_staleness(staleness):
    _, state, grads = gradient()
    after, metrics = applied(staleness)
    assert_equal(after.opt_state[0].trace, grads)
    assert_equal(
        after.params, jax.tree.map(lambda x, g: x - 0.25 * g, state.params, grads)
    )
    assert metrics["lag"] == staleness
    assert metrics["rejected"] == metrics["skipped"] == 0


@pytest.mark.parametrize("staleness, rejected", [(0, 0), (3, 0), (4, 1), (1000, 1)])
def test_reject_discards_what_is_staler_than_the_bound(staleness, rejected):
    agent, state, grads = gradient()
    after, metrics = applied(staleness, StalenessConfig("reject", max_staleness=3))
    expected = state if rejected else jax.jit(agent.apply)(state, grads, {})
    assert_equal(after, expected)
    assert metrics["rejected"] == metrics["stale"] == rejected
    assert metrics["lag"] == staleness and metrics["skipped"] == 0
    assert metrics["grad_norm"] == applied(0)[1]["grad_norm"]


@pytest.mark.parametrize("num_workers, max_staleness", [(4, 0), (4, 2), (5, 1), (3, 2)])
def test_workers_that_read_together_are_rejected_from_the_bound_on(
    num_workers, max_staleness
):
    """Gorila: gradient k of a round is k updates stale, and W - 1 - m are rejected."""
    _, state, grads = gradient()
    given = applying(StalenessConfig("reject", max_staleness))
    version, rejected = 0, []
    for _ in range(3):
        read = version
        for _ in range(num_workers):
            state, metrics = given(state, grads, jnp.int32(version - read))
            rejected.append(int(metrics["rejected"]))
            version += 1 - rejected[-1]
    one = [0] * (max_staleness + 1) + [1] * (num_workers - 1 - max_staleness)
    assert rejected == one * 3


@pytest.mark.parametrize("staleness", [0, 1, 2, 3, 8])
def test_scale_divides_by_the_staleness(staleness):
    _, state, grads = gradient()
    after, metrics = applied(staleness, StalenessConfig("scale"))
    scale = np.float32(1) / np.float32(max(staleness, 1))
    scaled = jax.tree.map(lambda x: np.asarray(x) * scale, grads)
    assert_equal(after.opt_state[0].trace, scaled)
    expected = jax.tree.map(lambda x, g: x - 0.25 * g, state.params, scaled)
    assert_equal(after.params, expected)
    norm = applied(0)[1]["grad_norm"]
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-6)
    assert metrics["rejected"] == 0 and metrics["lag"] == staleness


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("rule", ["accept", "reject", "scale"])
def test_what_is_not_finite_is_skipped(rule, bad):
    _, state, grads = gradient()
    first, *others = jax.tree.leaves(grads)
    spoiled = [first.at[(0,) * first.ndim].set(bad), *others]
    grads = jax.tree.unflatten(jax.tree.structure(grads), spoiled)
    for staleness in (0, 9):
        given = applying(StalenessConfig(rule))
        after, metrics = given(state, grads, jnp.int32(staleness))
        assert_equal(after, state)
        assert metrics["skipped"] == 1
        assert metrics["rejected"] == (rule == "reject" and staleness == 9)


def test_settings_out_of_range_are_named():
    assert StalenessConfig().problems() == []
    assert StalenessConfig("reject", 0).problems() == []
    # Type checks of the tests refuse it before the package could.
    config = StalenessConfig("reject", max_staleness=-1)
    object.__setattr__(config, "rule", "drop")
    rule, bound = config.problems()
    assert "rule" in rule and "drop" in rule
    assert bound == "max_staleness must be at least 0, got -1"


# What a worker needs of the state ------------------------------------------------


def names(state, mask):
    """First parts of the paths of the chosen leaves, and of the others."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state)]
    chosen = {x for x, read in zip(paths, mask, strict=True) if read}
    return chosen, set(paths) - chosen


def read_in_a_turn(agent, state):
    workers = rollout.start(agent, ENV, KEY)

    def turn(state, *rest):
        return asynchronous.turn(loops.learner_of(agent), ENV, 3, state, state, *rest)

    given = (workers, (), KEY, Count.zero(), jnp.int32(0))
    return names(state, asynchronous.parts_read(turn, state, *given))


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["a2c", "a2c, adam", "impala, lstm", "ppo"])
def test_a_worker_reads_parameters_and_nothing_of_the_optimizer(name):
    agent, state, _ = acted(name)
    read, left = read_in_a_turn(agent, state)
    assert len(read) == len(jax.tree.leaves(state.params))
    assert all(path.startswith(".params") for path in read)
    assert all(path.startswith(".opt_state") for path in left) and left


def test_a_worker_of_q_learning_reads_the_target_and_how_far_it_explored():
    agent, state, _ = acted("q-learning")
    read, left = read_in_a_turn(agent, state)
    starts = {path.split("[")[0].split(".")[1] for path in read}
    assert starts == {"online", "target", "elapsed"}
    assert {path.split("[")[0] for path in left} == {".opt_state", ".phase"}


def test_a_worker_of_normalised_observations_reads_their_statistics():
    agent, state, _ = acted("normalized a2c")
    read, left = read_in_a_turn(agent, state)
    statistics = {path for path in read if path.startswith(".statistics")}
    assert statistics == {".statistics.mean", ".statistics.variance"}
    left.remove(".statistics.count")
    assert all(path.startswith(".inner.opt_state") for path in left)


def test_parts_that_are_only_returned_are_read():
    state = {"a": 1.0, "b": 1.0, "c": 1.0}
    mask = asynchronous.parts_read(lambda s, x: (s["a"], s["b"] + x), state, 2.0)
    assert mask == [True, True, False]
