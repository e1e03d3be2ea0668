"""A step of training is the same wherever it runs, and survives what is not finite."""

from functools import cache, partial
from itertools import permutations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from jaxrl_par import loops, rollout
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.axis import Axis
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, episodic
from jaxrl_par.types import Agent, Count, Info, Mean, TimeStep

# Not Adam: it ignores the gradient's scale and so would hide a sum in place of a mean.
# The trace holds the gradient that was applied.
KEY = jax.random.key(0)
SGD = optax.chain(optax.trace(0.0), optax.scale(-0.1))


def learner(env, algorithm=a2c, **config):
    settings = NetworkConfig(widths=(4,))
    network = actor_critic(env.observation_spec, env.action_spec, settings)
    return algorithm(network, SGD, **config)


def assert_equal(actual, expected):
    """Bit for bit, keys included; NaN equals NaN."""

    def bits(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(bits(x), bits(y))


def train(program, num_steps):
    """A compiled call of so many steps."""

    def call(run):
        return jax.lax.scan(lambda run, _: program.step(run), run, length=num_steps)

    return jax.jit(call)


# The loop ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("num_minibatches", [1, 2])
def test_several_calls_of_one_step_are_one_call_of_several(num_minibatches):
    env = probes.observation_reward(4)
    agent = learner(env, ppo)
    program = compiled(loops.epochs(agent, 1, num_minibatches), env, 4)
    start = jax.jit(program.init)(KEY)
    expected, metrics = train(program, 3)(start)
    run, one = start, train(program, 1)
    for i in range(3):
        run, row = one(run)
        assert_equal(row, jax.tree.map(lambda x, i=i: x[i : i + 1], metrics))
    assert_equal(run, expected)


def failing_at(env, row, environment):
    """Pays NaN for the action at one row of the stream of `counter`."""

    def step(env_state, action, key):
        env_state, step, reward, discount = env.step(env_state, action, key)
        bad = (step.obs[:, 1] == row + 1) & (jnp.arange(env.num_envs) == environment)
        return env_state, step, jnp.where(bad, jnp.nan, reward), discount

    return env._replace(step=step)


def test_a_reward_that_is_not_finite_skips_its_update_and_no_other():
    env = failing_at(probes.counter(2), row=5, environment=1)
    program = compiled(learner(env), env, 4)
    step = jax.jit(program.step)
    run = jax.jit(program.init)(KEY)
    rows = []
    for _ in range(3):
        before, (run, metrics) = run, step(run)
        same = jax.tree.map(
            lambda x, y: bool((x == y).all()), before.learner, run.learner
        )
        progress = run.progress
        rows.append(
            (all(jax.tree.leaves(same)), float(metrics["skipped"]),
             int(progress.skipped), int(progress.skipped_in_a_row))
        )  # fmt: skip
    assert rows == [(False, 0, 0, 0), (True, 1, 1, 1), (False, 0, 1, 0)]
    assert int(run.progress.updates) == 3


def test_only_the_minibatch_that_is_not_finite_is_skipped():
    env = failing_at(probes.counter(2), row=5, environment=1)

    # Without them, one bad reward reaches the advantages of its whole sequence.
    def prepare(state, trajectory, axis):
        return trajectory.reward.reshape(-1)

    class OneNumber(NamedTuple):
        params: jax.Array

    agent = learner(env)._replace(
        init=lambda key, step: OneNumber(jnp.zeros(())),
        act=lambda params, carry, step, key: (jnp.zeros(2, jnp.int32), carry, {}),
        prepare=prepare,
        grad=lambda state, batch, key, axis: (jnp.mean(batch), Info({})),
        apply=lambda state, grads, metrics: OneNumber(state.params + 1.0),
    )
    program = compiled(loops.epochs(agent, 3, 4), env, 4)
    run, metrics = train(program, 3)(jax.jit(program.init)(KEY))
    np.testing.assert_array_equal(metrics["skipped"], [0, 3, 0])
    assert run.learner.params == 12 + 9 + 12
    assert run.progress.skipped == 3 and run.progress.skipped_in_a_row == 0


def test_steps_with_a_skipped_update_are_counted_in_a_row():
    env = probes.counter(2)

    def step(env_state, action, key):
        env_state, step, reward, discount = env.step(env_state, action, key)
        return env_state, step, reward * jnp.nan, discount

    broken = env._replace(step=step)
    program = compiled(learner(broken), broken, 4)
    start = jax.jit(program.init)(KEY)
    run, _ = train(program, 3)(start)
    assert run.progress.skipped == run.progress.skipped_in_a_row == 3
    assert_equal(run.learner, start.learner)


def test_minibatches_that_are_skipped_in_one_step_are_one_step_in_a_row():
    progress = loops.Progress(Count.zero(), Count.zero(), jnp.int32(5), jnp.int32(1))
    after = loops.count_skipped(progress, {"skipped": jnp.float32(3)})
    assert (after.skipped, after.skipped_in_a_row) == (8, 2)
    after = loops.count_skipped(after, {"skipped": jnp.float32(0)})
    assert (after.skipped, after.skipped_in_a_row) == (8, 0)


def test_progress_counts_past_a_million_and_no_rows_that_are_last():
    env = probes.counter(2, length=3)
    program = compiled(learner(env), env, 7)
    run = jax.jit(program.init)(KEY)
    assert int(run.progress.env_steps) == 0
    near = Count(jnp.int32(4), jnp.int32(999_999))
    run = run._replace(progress=run.progress._replace(updates=near, env_steps=near))
    run, _ = jax.jit(program.step)(run)
    assert int(run.progress.updates) == 5_000_000
    # 7 rows of 2 environments, of which the fourth ended an episode.
    assert int(run.progress.env_steps) == 4_999_999 + 12


def test_episodic_learns_from_one_episode_of_each_environment():
    num_envs = 3
    env = probes.clock(num_envs)
    program = episodic(learner(env), env, num_envs)
    run, metrics = train(program, 2)(jax.jit(program.init)(KEY))
    returns = [(b + 1) * b + b * (b + 1) / 2048 for b in range(num_envs)]
    np.testing.assert_allclose(metrics["episode_return"].total, sum(returns), rtol=1e-6)
    np.testing.assert_array_equal(metrics["episode_length"].total, 6)
    np.testing.assert_array_equal(metrics["episode_length"].count, num_envs)
    assert int(run.progress.env_steps) == 2 * 6
    assert run.local == ()


def test_each_epoch_learns_from_each_item_once_in_a_new_order():
    class Seen(NamedTuple):
        params: jax.Array
        """How often each item was seen, [N]."""
        order: jax.Array
        """Items in the order in which they came."""

    def grad(state, items, key, axis):
        return (jnp.zeros(12).at[items].add(1.0), items), Info({})

    def apply(state, grads, metrics):
        counts, items = grads
        return Seen(state.params + counts, jnp.concatenate([state.order, items])[3:])

    agent = Agent(
        init=lambda key, step: None,
        initial_carry=lambda num_envs: (),
        act=lambda *args: None,
        greedy=lambda *args: None,
        grad=grad,
        apply=apply,
        prepare=lambda state, trajectory, axis: jnp.arange(12),
    )
    state = Seen(jnp.zeros(12), jnp.zeros(24, jnp.int32))
    _, trajectory = batch_of(probes.counter(2), 2)
    seen, metrics = loops.learn(
        agent, state, trajectory, KEY, num_epochs=2, num_minibatches=4
    )
    np.testing.assert_array_equal(seen.params, 2)
    first, second = np.split(np.asarray(seen.order), 2)
    assert set(first) == set(second) == set(range(12))
    assert (first != second).any() and (first != np.arange(12)).any()
    assert metrics["skipped"] == 0


# Parallel ------------------------------------------------------------------------


def batch_of(env, length, agent=None):
    """(state, trajectory) of a fresh agent."""
    agent = agent or learner(env)

    @jax.jit
    def act(key):
        workers = rollout.start(agent, env, key)
        state = agent.init(key, workers.step)
        return state, rollout.unroll(agent, env, state.params, workers, key, length)[1]

    return act(jax.random.key(3))


def mesh_of(num_devices):
    devices = jax.devices()[:num_devices]
    return Mesh(devices, ("data",), axis_types=(AxisType.Auto,))


def on_shard_map(update, num_devices, check_vma):
    def on_device(state, shard):
        return update(state, jax.tree.map(lambda x: x[0], shard))

    mapped = jax.shard_map(
        on_device,
        mesh=mesh_of(num_devices),
        in_specs=(P(), P("data")),
        out_specs=P(),
        check_vma=check_vma,
    )
    return jax.jit(mapped)


def on_vmap(update, num_devices):
    del num_devices
    return jax.jit(jax.vmap(update, (None, 0), axis_name="data"))


def on_pmap(update, num_devices):
    devices = jax.devices()[:num_devices]
    return jax.pmap(update, "data", in_axes=(None, 0), devices=devices)


WAYS = {
    "vmap": on_vmap,
    "pmap": on_pmap,
    "shard_map": partial(on_shard_map, check_vma=False),
    "shard_map_checked": partial(on_shard_map, check_vma=True),
}


def assert_close(actual, expected):
    """To 1e-6 of the largest element; `actual` may hold one copy for each instance."""
    largest = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(expected))

    def leaf(x, y):
        y = np.broadcast_to(y, x.shape)
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6 * largest)

    jax.tree.map(leaf, actual, expected)


@cache
def joint_update(reduction):
    """(agent, state, batch, what one device makes of them)."""
    env = probes.delayed_reward(16)
    agent = learner(env, config=A2CConfig(reduction=reduction))
    state, batch = batch_of(env, 6, agent)
    expected = jax.jit(partial(loops.update, agent))(state, batch, KEY)
    return agent, state, batch, expected


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("num_devices", "reduction"),
    [(1, "mean"), (2, "mean"), (4, "mean"), (8, "mean"), (4, "sum")],
)
@pytest.mark.parametrize("way", WAYS)
def test_a_parallel_update_is_that_of_the_joint_batch(way, num_devices, reduction):
    agent, state, batch, (expected, info) = joint_update(reduction)
    shards = jax.tree.map(lambda x: jnp.stack(jnp.split(x, num_devices, axis=1)), batch)

    def update(state, shard):
        return loops.update(agent, state, shard, KEY, Axis("data"))

    actual, actual_info = WAYS[way](update, num_devices)(state, shards)
    # The trace is the gradient.
    assert_close(actual.opt_state, expected.opt_state)
    assert_close(actual.params, expected.params)
    assert_close(actual_info.metrics["grad_norm"], info.metrics["grad_norm"])
    ratios = [jax.tree.map(jnp.mean, x.metrics["entropy"]) for x in (actual_info, info)]
    means = [ratio.total / ratio.count for ratio in ratios]
    assert float(means[0]) == pytest.approx(float(means[1]), rel=1e-6)


@pytest.mark.parametrize("check_vma", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_of_a_line_is_that_of_all_its_points(reduction, check_vma):
    """Of a loss that is the mean, or the sum, of params * x over the rows of a batch:
    that of all x, whether or not JAX sums over devices by itself."""

    class Line(NamedTuple):
        params: jax.Array

    def grad(state, batch, key, axis):
        def loss(params):
            return getattr(jnp, reduction)(params * batch)

        return jax.grad(loss)(state.params), Info({})

    agent = learner(probes.counter(2))._replace(
        grad=grad, apply=lambda state, grads, metrics: Line(grads), reduction=reduction
    )

    def update(state, batch):
        return loops.update(agent, state, batch, KEY, Axis("data"))[0]

    rows = jnp.arange(8.0).reshape(4, 2)
    found = on_shard_map(update, 4, check_vma)(Line(jnp.float32(3)), rows)
    assert found.params == getattr(np, reduction)(rows)


@pytest.mark.parametrize("check_vma", [False, True])
def test_a_gradient_that_the_agent_averages_inside_is_averaged_once(check_vma):
    """As that of an evolution strategy, which no `jax.grad` computes."""
    agent = learner(probes.counter(2))._replace(
        grad=lambda state, batch, key, axis: (axis.mean(jnp.mean(batch)), Info({})),
        apply=lambda state, grads, metrics: grads,
    )

    def update(state, batch):
        return loops.update(agent, state, batch, KEY, Axis("data"))[0]

    rows = jnp.arange(8.0).reshape(4, 2)
    assert on_shard_map(update, 4, check_vma)(jnp.float32(3), rows) == jnp.mean(rows)


@pytest.mark.slow
def test_what_is_prepared_is_that_of_the_joint_batch():
    env = probes.delayed_reward(8)
    agent = learner(env, ppo)  # normalises advantages
    state, batch = batch_of(env, 6, agent)
    expected, _ = jax.jit(partial(loops.learn, agent))(state, batch, KEY)
    shards = jax.tree.map(lambda x: jnp.stack(jnp.split(x, 2, axis=1)), batch)

    def learn(state, shard):
        return loops.learn(agent, state, shard, KEY, axis=Axis("data"))[0]

    actual = on_vmap(learn, 2)(state, shards)
    assert_close(actual.opt_state, expected.opt_state)


@pytest.mark.sample(4)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "max"])
def test_averages_are_those_over_the_axis(way, reduction):
    rows = jnp.arange(8.0).reshape(4, 2)

    def average(_, row):
        return getattr(Axis("data"), reduction)(row)

    expected = getattr(jnp, reduction)(rows, axis=0)
    assert_close(WAYS[way](average, 4)((), rows), expected)


def test_an_average_without_an_axis_changes_nothing():
    tree = {"x": jnp.arange(3.0)}
    assert Axis().sum(tree) is tree


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_anywhere_is_skipped_everywhere():
    env = probes.delayed_reward(4)
    agent = learner(env)
    state, batch = batch_of(env, 6, agent)
    shards = jax.tree.map(lambda x: jnp.stack(jnp.split(x, 4, axis=1)), batch)
    shards = shards._replace(reward=shards.reward.at[2, 0, 0].set(jnp.nan))

    def update(state, shard):
        return loops.update(agent, state, shard, KEY, Axis("data"))

    for way in WAYS:
        after, info = WAYS[way](update, 4)(state, shards)
        assert (info.metrics["skipped"] == 1).all()
        jax.tree.map(
            lambda x, y: np.testing.assert_array_equal(x, np.broadcast_to(y, x.shape)),
            after,
            state,
        )


# Randomness ----------------------------------------------------------------------


def showing_its_keys():
    """Observations are the keys that the environment was called with."""

    def show(key, first):
        obs = jax.random.key_data(key)[None]
        return TimeStep(obs, jnp.full(1, first), jnp.zeros(1, bool))

    env = probes.constant_reward(1, continuing=True)

    def step(env_state, action, key):
        env_state, _, reward, discount = env.step(env_state, action, key)
        return env_state, show(key, False), reward, discount

    return env._replace(
        reset=lambda key: (env.reset(key)[0], show(key, True)), step=step
    )


class Keys(NamedTuple):
    params: jax.Array
    """Those of `grad`, as bits that a mean over instances keeps apart."""


def remembering_its_keys():
    """The memory is the key that acted; the update's key is what is learned."""

    def act(params, carry, step, key):
        return jnp.zeros(1, jnp.int32), jax.random.key_data(key)[None], {}

    def grad(state, batch, key, axis):
        bits = jax.random.key_data(key)
        index = jax.lax.axis_index("data")
        return jnp.zeros((8, 2)).at[index].set(bits % 2**20), Info({})

    return Agent(
        init=lambda key, step: Keys(jnp.zeros((8, 2))),
        initial_carry=lambda num_envs: jnp.zeros((num_envs, 2), jnp.uint32),
        act=act,
        grad=grad,
        apply=lambda state, grads, metrics: Keys(grads),
        greedy=act,
        reduction="sum",
    )


@pytest.mark.sample(1)
@pytest.mark.parametrize("num_instances", [4, 1, 2, 8])
def test_no_two_instances_or_steps_share_a_key(num_instances):
    program = compiled(remembering_its_keys(), showing_its_keys(), 1, axis=Axis("data"))

    def run(key):
        def step(run, _):
            run, _ = program.step(run)
            return run, (
                run.local.streams.step.obs,
                run.local.streams.carry,
                run.learner.params,
            )

        start = program.init(key)
        return start.local.streams.step.obs, *jax.lax.scan(step, start, length=6)[1]

    mapped = jax.vmap(run, axis_name="data", axis_size=num_instances, in_axes=None)
    reset, env, act, learned = jax.jit(mapped)(KEY)
    keys = [reset.reshape(-1, 2), env.reshape(-1, 2), act.reshape(-1, 2)]
    drawn = np.concatenate([np.asarray(x) for x in keys])
    assert len(drawn) == num_instances * (1 + 2 * 6)
    assert len(np.unique(drawn, axis=0)) == len(drawn)
    learned = np.asarray(learned[0, :, :num_instances]).reshape(-1, 2)
    assert len(np.unique(learned, axis=0)) == len(learned) == num_instances * 6


def test_keys_do_not_repeat_after_a_million_steps():
    agent = remembering_its_keys()._replace(
        grad=lambda state, batch, key, axis: (state.params, Info({})), reduction="mean"
    )
    program = compiled(agent, showing_its_keys(), 1)
    run, drawn = program.init(KEY), []
    for updates in (Count.zero(), Count.zero().add(1_000_000)):
        progress = run.progress._replace(updates=updates)
        after, _ = jax.jit(program.step)(run._replace(progress=progress))
        drawn.append(np.asarray(after.local.streams.carry))
    assert (drawn[0] != drawn[1]).any()


@pytest.mark.slow
def test_instances_act_differently_and_learn_the_same():
    env = probes.observation_reward(4)
    program = compiled(learner(env), env, 3, axis=Axis("data"))

    def run(key):
        return jax.lax.scan(
            lambda run, _: program.step(run), program.init(key), length=3
        )

    mapped = jax.vmap(run, axis_name="data", axis_size=4, in_axes=None)
    runs, metrics = jax.jit(mapped)(KEY)
    assert len(np.unique(runs.local.streams.step.obs[..., 0], axis=0)) > 1
    for leaf in jax.tree.leaves((runs.learner, runs.progress, metrics)):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[0], leaf.shape))
    # 3 + 3 + 3 rows, every second of which ended an episode: 5 steps in 16 streams.
    assert int(jax.tree.map(lambda x: x[0], runs.progress.env_steps)) == 16 * 5


# Bad input -----------------------------------------------------------------------


def test_wrong_arguments_are_rejected():
    env = probes.counter(2)
    agent = learner(env, ppo)
    with pytest.raises(ValueError, match="unroll_length must be at least 1, got 0"):
        compiled(agent, env, 0)
    with pytest.raises(ValueError, match="num_epochs must be at least 1, got 0"):
        loops.epochs(agent, 0)
    with pytest.raises(ValueError, match="num_minibatches must be at least 1, got -1"):
        loops.epochs(agent, 1, -1)
    with pytest.raises(ValueError, match="max_steps must be at least 1, got 0"):
        episodic(agent, env, 0)
    program = compiled(loops.epochs(agent, 1, 3), env, 4)
    with pytest.raises(ValueError, match="num_minibatches = 3 does not divide the 8"):
        jax.eval_shape(program.step, jax.eval_shape(program.init, KEY))


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_minibatches_of_a_trajectory_are_whole_environments(memory):
    """One pass in halves is one update with each half, in the order drawn."""
    env = probes.counter(4)
    network = actor_critic(
        env.observation_spec, env.action_spec, NetworkConfig(widths=(4,), memory=memory)
    )
    agent = a2c(network, SGD)
    workers = rollout.start(agent, env, KEY)
    state = agent.init(KEY, workers.step)
    _, batch, _ = rollout.unroll(agent, env, state.params, workers, KEY, 12)
    after, _ = loops.learn(agent, state, batch, KEY, num_minibatches=2)

    def halves(order):
        now = state
        for lanes in (order[:2], order[2:]):
            grads, _ = agent.grad(now, batch.lanes(jnp.array(lanes)), KEY, Axis())
            now = agent.apply(now, grads, {})
        return now

    def near(x, y):
        pairs = zip(jax.tree.leaves(x.params), jax.tree.leaves(y.params), strict=True)
        return all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs)

    equal = [near(after, halves(order)) for order in permutations(range(4))]
    # The order within a half does not matter: 2 * 2 of 24 are the one that was drawn.
    assert sum(equal) == 4
    with pytest.raises(ValueError, match="num_minibatches = 3 does not divide the 4"):
        loops.learn(agent, state, batch, KEY, num_minibatches=3)


def test_apply_is_given_the_metrics_of_the_joint_batch():
    """A coefficient that adapts to them is then the same on all devices."""

    def apply(coefficient, grads, metrics):
        kl = metrics["kl"].total / metrics["kl"].count
        rate = jnp.where(kl > 1.5 * 0.02, 2.0, jnp.where(kl < 0.02 / 1.5, 0.5, 1.0))
        return coefficient * rate

    def grad(state, batch, key, axis):
        return jnp.mean(batch), Info({"kl": Mean(jnp.sum(batch), jnp.float32(2))})

    agent = learner(probes.counter(2))._replace(grad=grad, apply=apply)
    learn = partial(loops.update, agent, key=KEY, axis=Axis("device"))
    for halves, expected in (
        ([[0.0, 0.0], [0.1, 0.1]], 2.0),
        ([[0.0, 0.0], [0.02, 0.02]], 0.5),
        ([[0.0, 0.01], [0.03, 0.04]], 1.0),
    ):
        mapped = jax.vmap(lambda s, x: learn(s, x)[0], axis_name="device")
        after = mapped(jnp.ones(2), jnp.array(halves))
        np.testing.assert_array_equal(after, [expected] * 2)
