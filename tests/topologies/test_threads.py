"""Threads change when things happen, and nothing else that a schedule does not say."""

import warnings

import jax
import numpy as np
import optax
import pytest
from nearness import assert_near
from warned import warned

from jaxrl_par import loops, random, rollout
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.axis import Axis
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import HostEnvironment, from_callable, from_pure
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.loops.records import RecordError
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_recorded, threads
from jaxrl_par.training.checkpoints import Checkpoints, state_hash
from jaxrl_par.types import Count

NUM_ENVS, LENGTH = 2, 5
ENV = previous_action_and_reward(probes.counter(NUM_ENVS))
KEY = random.key(7)


def network(memory="none"):
    config = NetworkConfig(widths=(8,), memory=memory, memory_width=8)
    return actor_critic(ENV.observation_spec, ENV.action_spec, config)


AGENTS = {
    "impala, lstm": lambda: impala(network("lstm"), optax.adam(0.03)),
    "impala": lambda: impala(network(), optax.adam(0.03)),
    "impala, summed": lambda: impala(
        network(), optax.sgd(0.001), ImpalaConfig(reduction="sum")
    ),
    "normalized": lambda: normalize_observations(impala(network(), optax.adam(0.03))),
}


def make_env(key):
    return from_pure(ENV, key)


def make_cartpole(key):
    gymnasium = pytest.importorskip("gymnasium")
    seed = int(jax.random.bits(key)) >> 1
    return from_callable(lambda: gymnasium.make("CartPole-v1"), NUM_ENVS, seed)


def engine(learner, config, num_devices=1, make=make_env):
    return threads(learner, make, LENGTH, config, data_mesh(num_devices))


def lockstep(num_actors=1, lag=0):
    return ThreadsConfig(num_actors=num_actors, schedule="lockstep", lag=lag)


def advanced(bridge, num_updates, chunk=4):
    """The run after so many updates, and the metrics of all."""
    try:
        run, metrics = bridge.init(KEY), []
        for start in range(0, num_updates, chunk):
            run, new = bridge.advance(run, min(chunk, num_updates - start))
            metrics.append(new)
    finally:
        bridge.close()
    return run, jax.tree.map(lambda *xs: np.concatenate(xs), *metrics)


def learner_hash(run):
    """Of all but what actors keep for themselves."""
    return state_hash(run._replace(local=()))


def synchronous(learner, num_devices, num_updates):
    axis = Axis() if num_devices == 1 else Axis("data")
    program = compiled(learner, ENV, LENGTH, axis)
    if num_devices > 1:
        program = sharded(program, data_mesh(num_devices))
    run, metrics = jax.jit(program.init)(KEY), []
    step = jax.jit(program.step)
    for _ in range(num_updates):
        run, new = jax.block_until_ready(step(run))
        metrics.append(new)
    return run, jax.tree.map(lambda *xs: np.stack(xs), *metrics)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", AGENTS)
def test_lockstep_without_lag_is_the_synchronous_program(name):
    """Bit for bit: one actor is one program alone."""
    ours, metrics = advanced(engine(AGENTS[name](), lockstep()), 6)
    theirs, expected = synchronous(AGENTS[name](), 1, 6)
    assert learner_hash(ours) == learner_hash(theirs)
    for name in ("episode_return", "episode_length"):
        np.testing.assert_allclose(metrics[name].total, expected[name].total)
        np.testing.assert_array_equal(metrics[name].count, expected[name].count)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 4])
def test_actors_in_lockstep_are_devices_of_the_synchronous_program(num_devices):
    agent = AGENTS["impala, lstm"]()
    ours, _ = advanced(engine(agent, lockstep(num_devices), num_devices), 5)
    theirs, _ = synchronous(agent, num_devices, 5)
    assert learner_hash(ours) == learner_hash(theirs)


@pytest.mark.slow
def test_minibatches_and_epochs_are_those_of_the_synchronous_program():
    agent = ppo(network(), optax.adam(0.03))
    learner = loops.epochs(agent, 2, 5)
    ours, _ = advanced(engine(learner, lockstep()), 4)
    theirs, _ = synchronous(learner, 1, 4)
    assert learner_hash(ours) == learner_hash(theirs)


@pytest.mark.sample(1)
@pytest.mark.parametrize("lag", [1, 2])
def test_lockstep_acts_with_the_parameters_of_some_updates_before(lag):
    """Against the same, written as a loop."""
    agent = AGENTS["impala, lstm"]()
    ours, metrics = advanced(engine(agent, lockstep(lag=lag)), 7)
    learn_from = jax.jit(
        jax.vmap(
            loops.learn_from(loops.learner_of(agent), Axis("data")),
            axis_name="data", in_axes=(None, 0), out_axes=None,
        )
    )  # fmt: skip
    agent_key, env_key, root = jax.random.split(KEY, 3)
    workers = rollout.start(agent, ENV, jax.random.fold_in(env_key, 0))
    run = loops.new_run(agent.init(agent_key, workers.step), (), root)
    unroll = jax.jit(
        lambda params, workers, key: rollout.unroll(
            agent, ENV, params, workers, key, LENGTH
        )
    )
    behaviours = [run.learner.params]
    for n in range(7):
        key, _ = loops.unroll_keys(root, Count.zero().add(n), 0)
        params = behaviours[max(0, n - lag)]
        workers, trajectory, _ = unroll(params, workers, key)
        run, _ = learn_from(run, jax.tree.map(lambda x: x[None], trajectory))
        behaviours.append(run.learner.params)
    assert_near(ours.learner.params, run.learner.params, 1e-4)
    assert metrics["lag_max"].total.tolist() == [min(n, lag) for n in range(7)]


@pytest.mark.slow
@pytest.mark.parametrize("lag", [0, 1])
def test_lockstep_is_deterministic(lag):
    agent = AGENTS["impala"]()
    hashes = {
        state_hash(advanced(engine(agent, lockstep(3, lag)), 9)[0]) for _ in range(3)
    }
    assert len(hashes) == 1


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "config",
    [
        ThreadsConfig(num_actors=3, unrolls_per_update=2),
        ThreadsConfig(num_actors=2, max_lag=1),
        ThreadsConfig(num_actors=2, queue_size=5, unrolls_per_update=1),
        ThreadsConfig(num_actors=2, schedule="lockstep", lag=1),
    ],
)
@pytest.mark.parametrize("make", [make_env, make_cartpole])
def test_a_recorded_run_is_repeated_bit_for_bit(config, make, tmp_path):
    if make is make_cartpole:
        env = make(KEY)
        net = actor_critic(env.observation_spec, env.action_spec)
        env.close()
        agent = impala(net, optax.adam(0.01))
    else:
        agent = AGENTS["impala, lstm"]()
    bridge = engine(agent, config, make=make)
    bridge.record(tmp_path / "schedule.jsonl")
    recorded, _ = advanced(bridge, 10)
    again = repeat_recorded(
        agent, make, LENGTH, config, data_mesh(1), tmp_path / "schedule.jsonl"
    )
    second, _ = advanced(again, 10)
    assert learner_hash(recorded) == learner_hash(second)
    assert state_hash(recorded._replace(local=recorded.local.actors)) == state_hash(
        second._replace(local=second.local.actors)
    )


@pytest.mark.slow
def test_another_order_than_the_recorded_one_gives_another_run(tmp_path):
    """So that the test above cannot pass by chance."""
    agent, config = (
        AGENTS["impala"](),
        ThreadsConfig(num_actors=2, unrolls_per_update=1),
    )
    path, hashes = tmp_path / "schedule.jsonl", set()
    for order in ((0, 1, 0, 1), (1, 0, 0, 1), (0, 0, 1, 1)):
        unrolls, lines = {0: 0, 1: 0}, []
        for actor in order:
            lines.append(f"[[{actor}, {unrolls[actor]}, 0, 0]]\n")
            unrolls[actor] += 1
        path.write_text("".join(lines))
        made = repeat_recorded(agent, make_env, LENGTH, config, data_mesh(1), path)
        run, _ = advanced(made, 4)
        hashes.add(learner_hash(run))
    assert len(hashes) == 3


def test_a_record_that_does_not_fit_is_refused(tmp_path):
    agent, config, mesh = AGENTS["impala"](), ThreadsConfig(num_actors=1), data_mesh(1)
    path = tmp_path / "schedule.jsonl"
    with pytest.raises(RecordError, match="no recorded schedule"):
        repeat_recorded(agent, make_env, LENGTH, config, mesh, path)
    path.write_text("[[0, 0, 0, 0]]\n[[0, 5, 0, 1]]\n")
    with pytest.raises(RecordError, match="wants unroll 5 of actor 0"):
        advanced(repeat_recorded(agent, make_env, LENGTH, config, mesh, path), 2)
    with pytest.raises(RecordError, match="has 2 updates, asked for 3"):
        advanced(repeat_recorded(agent, make_env, LENGTH, config, mesh, path), 3)


@pytest.mark.sample(1)
@pytest.mark.parametrize("max_lag", [0, 1, 3])
def test_no_row_is_older_than_the_bound(max_lag):
    config = ThreadsConfig(num_actors=4, unrolls_per_update=2, max_lag=max_lag)
    bridge = engine(AGENTS["impala"](), config)
    _, metrics = advanced(bridge, 20)
    assert metrics["lag_max"].total.max() <= max_lag
    report = bridge.report()
    assert max(report.lags) <= max_lag
    assert sum(report.lags.values()) == 20 * 2 * NUM_ENVS * LENGTH


def test_every_row_tells_the_version_that_acted():
    bridge, seen = engine(AGENTS["impala"](), ThreadsConfig(num_actors=2)), []
    count = bridge_count(bridge, seen)
    run = bridge.init(KEY)
    bridge._system.learner.count = count
    try:
        bridge.advance(run, 8)
    finally:
        bridge.close()
    for item, version in seen:
        assert np.all(item.trajectory.extras["version"] == item.version)
        assert item.trajectory.extras["version"].dtype == np.int32
        assert 0 <= item.version <= version


def bridge_count(bridge, seen):
    def count(unrolls, version):
        seen.extend((item, version) for item in unrolls)
        return {}

    return count


@pytest.mark.slow
@pytest.mark.parametrize("config", [lockstep(2, 1), lockstep(2, 0), lockstep(2, 2)])
@pytest.mark.parametrize("make", [make_env, make_cartpole])
def test_resuming_in_lockstep_is_exact(config, make, tmp_path):
    """Through a checkpoint, in the middle of episodes."""
    if make is make_cartpole:
        env = make(KEY)
        net = actor_critic(
            env.observation_spec, env.action_spec, NetworkConfig(memory="lstm")
        )
        env.close()
        agent = impala(net, optax.adam(0.01))
    else:
        agent = AGENTS["impala, lstm"]()
    whole, _ = advanced(engine(agent, config, make=make), 10, chunk=5)
    half, _ = advanced(engine(agent, config, make=make), 5, chunk=5)
    with Checkpoints(tmp_path / "checkpoints", {}, 2) as store:
        store.save(5, half)
        bridge = engine(agent, config, make=make)
        restored = store.restore(bridge.init(KEY))
    try:
        bridge.resume(restored)
        resumed, _ = bridge.advance(restored, 5)
    finally:
        bridge.close()
    assert state_hash(resumed) == state_hash(whole)


@pytest.mark.slow
def test_a_free_run_goes_on_after_its_last_committed_update():
    """No update is lost, and no randomness is used twice."""
    agent, config = AGENTS["impala"](), ThreadsConfig(num_actors=2)
    half, _ = advanced(engine(agent, config), 6)
    bridge = engine(agent, config)
    bridge.init(KEY)
    try:
        bridge.resume(half)
        unrolls = [int(actor.unroll) for actor in half.local.actors]
        assert [actor.next_unroll for actor in bridge._pool] == unrolls
        assert sum(unrolls) == 6 * 2
        run, _ = bridge.advance(half, 4)
    finally:
        bridge.close()
    assert int(run.progress.updates) == 10


class Forgetful(HostEnvironment):
    """A simulator that cannot be brought back."""

    def __init__(self, inner):
        self.inner = inner
        for name in ("num_envs", "observation_spec", "action_spec", "name"):
            setattr(self, name, getattr(inner, name))
        self.reset, self.step = inner.reset, inner.step
        self.plan, self.close = inner.plan, inner.close

    reset = step = close = None


@pytest.mark.slow
def test_a_simulator_that_cannot_be_brought_back_starts_anew_with_a_warning():
    agent, config = AGENTS["impala"](), lockstep(2, 0)

    def make(key):
        return Forgetful(make_env(key))

    half, _ = advanced(engine(agent, config, make=make), 5)
    bridge = engine(agent, config, make=make)
    bridge.init(KEY)
    try:
        with warned(r"4 episodes in progress of actors \[0, 1\]"):
            bridge.resume(half)
        run, _ = bridge.advance(half, 2)
    finally:
        bridge.close()
    assert [int(actor.generation) for actor in run.local.actors] == [1, 1]
    assert int(run.progress.updates) == 7


@pytest.mark.slow
def test_counts_are_those_of_the_synchronous_program():
    agent = AGENTS["impala"]()
    bridge = engine(agent, lockstep(2), 2)
    ours, _ = advanced(bridge, 6)
    theirs, _ = synchronous(agent, 2, 6)
    assert int(ours.progress.env_steps) == int(theirs.progress.env_steps)
    report = bridge.report()
    assert report.updates == 6
    assert report.uploaded_bytes > 0
    rows = 6 * 2 * NUM_ENVS * LENGTH
    assert report.lags == {0: rows}
    for shares in [*report.actors, report.uploader, report.learner]:
        np.testing.assert_allclose(sum(shares.values()), 1.0, atol=0.05)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ThreadsConfig(num_actors=0), "num_actors must be at least 1, got 0"),
        (ThreadsConfig(lag=-1), "lag must be at least 0"),
        (ThreadsConfig(lag=5), "lag is for the lockstep schedule; free has max_lag"),
        (
            ThreadsConfig(supervision=SupervisionConfig(env_timeout=0.0)),
            "env_timeout must be above 0",
        ),
        (
            ThreadsConfig(schedule="lockstep", unrolls_per_update=3),
            "one unroll of each of the 2 actors",
        ),
        (ThreadsConfig(schedule="lockstep", max_lag=1), "max_lag is for the free"),
        (
            ThreadsConfig(schedule="lockstep", queue_size=1),
            "queue_size is for the free",
        ),
    ],
)
def test_wrong_configs_are_refused_before_anything_starts(config, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=message):
            engine(AGENTS["impala"](), config)
