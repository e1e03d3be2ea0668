"""The rounds of actor-learner distillation: who learns what, from which rows."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import envs, loops, random, rollout
from jaxrl_par.algorithms.distilled import distilled
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.axis import Axis
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import DistillationConfig, Teacher
from jaxrl_par.networks import (
    NetworkConfig,
    TransformerConfig,
    actor_critic,
    asymmetric,
)
from jaxrl_par.replay import ring
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.types import DistillationBatch

NUM_ENVS, LENGTH = 4, 5
KEY = random.key(7)
SMALL = NetworkConfig(widths=(8,), memory="lstm", memory_width=8)
LARGE = NetworkConfig(
    widths=(8,),
    memory="gtrxl",
    memory_width=8,
    transformer=TransformerConfig(1, 2, memory_length=4, mlp_width=8),
)
CONFIG = DistillationConfig(updates_per_step=3, batch_size=6, capacity=12)
ONE = DistillationConfig(updates_per_step=1, batch_size=6, capacity=12)


@cache
def environment(num_envs=NUM_ENVS):
    return previous_action_and_reward(probes.counter(num_envs))


@cache
def network(config):
    """Compiled once for all tests."""
    env = environment()
    made = actor_critic(env.observation_spec, env.action_spec, config)
    return made._replace(apply=jax.jit(made.apply), unroll=jax.jit(made.unroll))


def parts(config=CONFIG, rate=0.01):
    """(student, learner), of which both models take steps of Adam."""
    large = network(LARGE)
    actor = distilled(network(SMALL), optax.adam(0.01))
    learner = impala(large, optax.adam(rate), ImpalaConfig(behaviour_cost=0.1))
    teacher = Teacher(large.initial_carry, large.unroll)
    return actor, loops.distillation(actor, learner, teacher, config)


def assert_equal(actual, expected):
    """Bit for bit."""
    leaves = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for x, y in leaves:
        np.testing.assert_array_equal(x, y)


def equal(x, y):
    leaves = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


@cache
def learn_function(config=CONFIG, rate=0.01):
    """Compiled once for all tests."""
    return jax.jit(parts(config, rate)[1].learn, static_argnums=4)


@cache
def start(config=CONFIG, rate=0.01):
    """(workers, state, memory) before the first round."""
    actor, learning = parts(config, rate)
    workers = jax.jit(partial(rollout.start, actor, environment()))(KEY)
    state = jax.jit(learning.init)(KEY, workers.step)
    shapes = rollout.shapes(actor, learning.params(state), workers.step, LENGTH)
    return workers, state, learning.start(shapes)


@cache
def unroll_function():
    return jax.jit(partial(rollout.unroll, parts()[0], environment(), length=LENGTH))


@cache
def rounds(num_updates, config=CONFIG, rate=0.01):
    """(state before, trajectory, state, memory and metrics after) of each round."""
    workers, state, memory = start(config, rate)
    learn = learn_function(config, rate)
    done = []
    for n in range(num_updates):
        key, before = jax.random.fold_in(KEY, n), state
        workers, trajectory, _ = unroll_function()(
            state.student.params, workers, key=key
        )
        state, memory, metrics = learn(state, memory, trajectory, key, Axis())
        done.append((before, trajectory, state, memory, metrics))
    return done


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.01])
def test_no_reward_reaches_the_actor_but_through_its_teacher(rate):
    """The same data with other rewards: other gradients of the learner, and while it
    stands still, the same actor bit for bit."""
    learn = learn_function(rate=rate)
    _, state, memory = start(rate=rate)
    other = (state, memory)
    for _, trajectory, *_ in rounds(3, rate=rate):
        paid = trajectory._replace(reward=1.0 - 3.0 * trajectory.reward)
        state, memory, metrics = learn(state, memory, trajectory, KEY, Axis())
        *other, other_metrics = learn(*other, paid, KEY, Axis())
        assert not np.allclose(metrics["grad_norm"], other_metrics["grad_norm"])
    assert equal(state.student, other[0].student) == (rate == 0.0)


@pytest.mark.slow
def test_the_learner_learns_from_what_was_acted_and_not_from_its_student():
    """Two students of different diligence, the same data."""
    few = ONE
    learner = rounds(1)[0][2].teacher
    _, state, memory = start(few)
    _, trajectory, *_ = rounds(1)[0]
    key = jax.random.fold_in(KEY, 0)
    state, _, _ = learn_function(few)(state, memory, trajectory, key, Axis())
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7),
        state.teacher.params,
        learner.params,
    )
    assert not equal(state.student, rounds(1)[0][2].student)


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, ONE])
def test_the_ratio_of_updates_is_what_was_asked_for(config):
    state = rounds(2, config)[-1][2]
    counts = {
        name: int(getattr(state, name).opt_state[0].count)
        for name in ("student", "teacher")
    }
    assert counts == {"student": 2 * config.updates_per_step, "teacher": 2}
    assert int(state.updates) == 2


def joined(done):
    """Steps of all rounds in a row, each once."""
    steps = [jax.tree.map(lambda x: x[:-1], row[1].steps) for row in done]
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *steps)


@pytest.mark.slow
def test_the_replay_holds_what_was_acted_and_what_the_teacher_said():
    """Against one unroll of the learner over all rounds, from an empty memory: its own
    memory goes on, though it never acts."""
    done = rounds(3, rate=0.0)
    large = network(LARGE)
    params = done[0][0].teacher.params
    (policy, values), _ = large.unroll(
        params, large.initial_carry(NUM_ENVS), joined(done)
    )
    _, _, _, memory, _ = done[-1]
    assert int(memory.teacher.archive.size) == 12
    items = memory.teacher.archive.items
    for n, (_, trajectory, *_) in enumerate(done):
        rows = slice(n * LENGTH, (n + 1) * LENGTH)
        lanes = slice(n * NUM_ENVS, (n + 1) * NUM_ENVS)
        mine = jax.tree.map(lambda x, lanes=lanes: x[lanes], items)
        np.testing.assert_allclose(
            mine.policy.logits, policy.logits[rows].swapaxes(0, 1), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(mine.values, values[rows].T, rtol=1e-4, atol=1e-5)
        assert_equal(mine.carry, trajectory.carry)
        assert_equal(
            mine.steps, jax.tree.map(lambda x: x[:-1].swapaxes(0, 1), trajectory.steps)
        )
        assert mine.updates.tolist() == [n] * NUM_ENVS


@pytest.mark.sample(1)
@pytest.mark.parametrize("teacher", ["stored", "recomputed"])
def test_a_round_is_what_its_parts_do(teacher):
    """Written out: the runner before the teacher's update, then batches one by one."""
    config = replace(CONFIG, teacher=teacher)
    (zeroth, one) = rounds(2, config)
    before, trajectory, after, memory, metrics = one
    actor, _ = parts(config)
    large = network(LARGE)
    own = impala(large, optax.adam(0.01), ImpalaConfig(behaviour_cost=0.1))
    first = jax.tree.map(lambda x: x[:-1], zeroth[1].steps)
    _, carry = large.unroll(
        zeroth[0].teacher.params, large.initial_carry(NUM_ENVS), first
    )
    key = jax.random.fold_in(KEY, 1)
    learner_key, distil_key = jax.random.split(key)
    batch = trajectory._replace(carry=carry)
    grads, _ = jax.jit(partial(own.grad, axis=Axis()))(
        before.teacher, batch, learner_key
    )
    expected = own.apply(before.teacher, grads, {})

    def close(actual, expected):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5),
            actual,
            expected,
        )

    close(after.teacher.params, expected.params)
    student, ages = before.student, []
    grad = jax.jit(partial(actor.grad, axis=Axis()))
    for distil in jax.random.split(distil_key, config.updates_per_step):
        sample_key, _ = jax.random.split(distil)
        item = ring.sample(memory.teacher.archive, sample_key, 6)
        steps = jax.tree.map(lambda x: x.swapaxes(0, 1), item.steps)
        if teacher == "stored":
            said = jax.tree.map(lambda x: x.swapaxes(0, 1), (item.policy, item.values))
        else:
            said, _ = large.unroll(after.teacher.params, item.memory, steps)
        batch = DistillationBatch(steps, item.carry, *said)
        grads, _ = grad(student, batch, KEY)
        student = actor.apply(student, grads, {})
        ages.append(np.mean(1 - item.updates))
    close(after.student.params, student.params)
    assert float(metrics["distil_age"]) == pytest.approx(np.mean(ages))
    assert 0 < np.mean(ages) < 1
    # The runner spoke before the update, with the memory as it was.
    rows = jax.tree.map(lambda x: x[:-1], trajectory.steps)
    (policy, _), _ = large.unroll(before.teacher.params, carry, rows)
    weight = ~trajectory.steps.last[:-1]
    fresh = trajectory.extras["policy"].kl(policy)
    np.testing.assert_allclose(
        metrics["fresh_kl"].total, np.sum(weight * fresh), rtol=1e-3, atol=1e-6
    )
    assert metrics["fresh_kl"].count == np.sum(weight)


def test_metrics_of_lessons_are_means_and_what_was_skipped_adds_up():
    join = parts()[1].deferred.join
    lessons = {"kl": jnp.array([1.0, 2.0, 6.0]), "skipped": jnp.array([0.0, 1.0, 1.0])}
    joined = join({"loss": jnp.float32(5), "skipped": jnp.float32(1)}, lessons)
    assert joined == {"loss": 5.0, "skipped": 3.0, "distil_kl": 3.0}


@pytest.mark.slow
def test_devices_share_the_models_and_not_the_replay():
    """The learner's gradient is that of the joint batch. Each device distils from its
    own shard, and all apply the mean of their gradients."""
    num_devices = 2
    env = environment(NUM_ENVS // num_devices)
    config = DistillationConfig(1, batch_size=3, capacity=8 // num_devices)
    program = compiled(parts(config)[1], env, LENGTH, axis=Axis("data"))
    program = sharded(program, data_mesh(num_devices))
    run = jax.jit(program.init)(KEY)
    step = jax.jit(program.step)
    run, _ = step(run)
    before = jax.device_get(run)
    after, _ = step(run)
    after = jax.device_get(after)
    for leaf in jax.tree.leaves(run.learner):
        shards = [np.asarray(x.data) for x in leaf.addressable_shards]
        assert len(shards) == num_devices
        assert all(np.array_equal(x, shards[0]) for x in shards)
    replay = after.local.data.teacher.archive
    shown = replay.items.steps.obs.action.reshape(num_devices, -1)
    assert len(np.unique(shown, axis=0)) == num_devices

    # What the devices sampled, drawn again from their shards.
    actor, _ = parts(config)
    grads = []
    for device in range(num_devices):
        key = jax.random.fold_in(run.key, 0)
        key = jax.random.fold_in(jax.random.fold_in(key, 1), device)
        _, learn_key = jax.random.split(key)
        _, distil_key = jax.random.split(learn_key)
        (key,) = jax.random.split(distil_key, 1)
        sample_key, _ = jax.random.split(key)
        own = jax.tree.map(lambda x, device=device: x[device], replay)
        item = ring.sample(own, sample_key, 3)
        steps, policy, values = jax.tree.map(
            lambda x: x.swapaxes(0, 1), (item.steps, item.policy, item.values)
        )
        batch = DistillationBatch(steps, item.carry, policy, values)
        grads.append(
            jax.jit(partial(actor.grad, axis=Axis()))(
                before.learner.student, batch, KEY
            )[0]
        )
    mean = jax.tree.map(lambda *xs: sum(xs) / num_devices, *grads)
    expected = actor.apply(before.learner.student, mean, {})
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5),
        after.learner.student.params,
        expected.params,
    )


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_is_skipped_and_counted():
    _, before, memory = start()
    _, trajectory, *_ = rounds(1)[0]
    broken = trajectory._replace(reward=trajectory.reward.at[2, 1].set(jnp.nan))
    state, _, metrics = learn_function()(before, memory, broken, KEY, Axis())
    assert_equal(state.teacher, before.teacher)
    assert float(metrics["skipped"]) == 1
    assert not equal(state.student, before.student)


class TestAsymmetric:
    """The baseline whose learner has a memory that no actor computes."""

    def build(self):
        small, large = network(SMALL), network(LARGE)
        both = asymmetric(small, large)
        agent = impala(both, optax.adam(0.01))
        remember = loops.Remember(
            large.initial_carry,
            lambda params, memory, acted: large.unroll(
                params["critic"], memory, acted.rows
            )[1],
        )
        return small, large, both, agent, loops.remembering(agent, remember)

    @pytest.mark.slow
    def test_acting_needs_the_actor_alone(self):
        small, _, both, agent, _ = self.build()
        env = environment()
        _, step = env.reset(KEY)
        params = both.init(KEY, step)
        assert jax.tree.structure(both.initial_carry(2)) == jax.tree.structure(
            small.initial_carry(2)
        )
        carry = agent.initial_carry(NUM_ENVS)
        action, _, extras = agent.act(params, carry, step, KEY)
        (policy, _), _ = small.apply(params["actor"], carry, step)
        np.testing.assert_array_equal(action, policy.sample(KEY))
        np.testing.assert_array_equal(extras["log_prob"], policy.log_prob(action))

    @pytest.mark.slow
    def test_the_critic_goes_on_from_trajectory_to_trajectory(self):
        _, large, _, agent, learning = self.build()
        env = environment()
        workers = rollout.start(agent, env, KEY)
        state = learning.init(KEY, workers.step)
        memory = large.initial_carry(NUM_ENVS)
        unroll = jax.jit(partial(rollout.unroll, agent, env, length=LENGTH))
        learn = jax.jit(learning.learn, static_argnums=4)
        seen = []
        for n in range(3):
            workers, trajectory, _ = unroll(
                state.params, workers, key=jax.random.fold_in(KEY, n)
            )
            rows = jax.tree.map(lambda x: x[:-1], trajectory.steps)
            seen.append(rows)
            _, memory, _ = learn(state, memory, trajectory, KEY, Axis())
        steps = jax.tree.map(lambda *xs: jnp.concatenate(xs), *seen)
        _, expected = large.unroll(
            state.params["critic"], large.initial_carry(NUM_ENVS), steps
        )
        following = workers.step
        critic = state.params["critic"]
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
            large.apply(critic, memory, following)[0],
            large.apply(critic, expected, following)[0],
        )

    @pytest.mark.slow
    def test_both_networks_learn(self):
        *_, learning = self.build()
        program = compiled(learning, environment(), LENGTH)
        run = jax.jit(program.init)(KEY)
        after, _ = jax.jit(scanned(program, 3))(run)
        for part in ("actor", "critic"):
            assert not equal(run.learner.params[part], after.learner.params[part])


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"updates_per_step": 0}, "updates_per_step must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"capacity": 6}, "multiple of the 4 items"),
    ],
)
def test_bad_settings_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        program = compiled(
            parts(DistillationConfig(**options))[1], environment(), LENGTH
        )
        jax.eval_shape(program.init, KEY)


@pytest.mark.parametrize("other", [envs.make("Acrobot-v1", 4), probes.counter(4)])
def test_a_student_of_other_specs_than_its_teacher_is_refused(other):
    of_other = actor_critic(other.observation_spec, other.action_spec, SMALL)
    large = network(LARGE)
    teacher = Teacher(large.initial_carry, large.unroll)
    agents = distilled(of_other, optax.sgd(1.0)), impala(large, optax.sgd(1.0))
    with pytest.raises(RefusedError, match=r"the student was made for .*; its teacher"):
        loops.distillation(*agents, teacher, CONFIG)


@pytest.mark.slow
def test_distillation_learns_what_takes_memory():
    """Four seeds at once: the cue of the first step is asked for at the end. The actor
    sees no reward, and still earns it."""
    from jaxrl_par import envs

    env = envs.make("MemoryChain-bsuite", 32)
    large_config = NetworkConfig(
        widths=(16,), activation="relu", memory="gtrxl", memory_width=16,
        transformer=TransformerConfig(1, 2, memory_length=8, mlp_width=32),
    )  # fmt: skip
    small, large = (
        actor_critic(env.observation_spec, env.action_spec, x)
        for x in (NetworkConfig(widths=(16,), memory="lstm"), large_config)
    )
    actor = distilled(small, optax.adam(2e-3))
    learner = impala(large, optax.adam(3e-3), ImpalaConfig(behaviour_cost=0.1))
    learning = loops.distillation(
        actor,
        learner,
        Teacher(large.initial_carry, large.unroll),
        DistillationConfig(updates_per_step=4, batch_size=32, capacity=256),
    )
    program = compiled(learning, env, 12)

    @jax.jit
    @jax.vmap
    def train(key):
        return scanned(program, 120)(program.init(key))[1]["episode_return"]

    returns = train(jax.random.split(KEY, 4))
    late = returns.total[:, -20:].sum(1) / returns.count[:, -20:].sum(1)
    assert np.median(late) > 0.9, late
