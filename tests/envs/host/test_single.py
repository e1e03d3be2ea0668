"""Simulators stepped one by one: their rows, seeds, and how they come back."""

from functools import partial

import gymnasium
import jax
import numpy as np
import pytest
from host_checks import check, lander, lengths, random_actions
from toy_simulators import Counter, Faulty, Unusual

from jaxrl_par.envs.host import from_callable, rows


class Spec:
    def __init__(self, id, max_episode_steps):
        self.id, self.max_episode_steps = id, max_episode_steps


class Limited(Counter):
    spec = Spec("Limited-v0", 7)


@pytest.mark.parametrize("ending", ["terminated", "truncated", "both"])
def test_rows_are_those_of_the_stream(ending):
    env = from_callable(partial(Counter, 3, ending), 2, 7)
    steps, actions, reward, discount = check(env, 30)
    time = np.arange(31) % 4
    np.testing.assert_array_equal(steps.obs[..., 0], np.stack([time, time], 1))
    np.testing.assert_array_equal(steps.last[:, 1], time == 3)
    moved = time[1:, None] > 0
    np.testing.assert_array_equal(steps.obs[1:, :, 1], np.where(moved, actions, 0))
    paid = np.float32(time[:-1, None] + 0.1 * actions)
    np.testing.assert_array_equal(reward, np.where(moved, paid, 0))
    ends = 1.0 if ending == "truncated" else 0.0
    known = np.where(moved, np.where(time[1:, None] == 3, ends, 1), 0)
    np.testing.assert_array_equal(discount, known * np.ones((1, 2)))


def test_environments_end_at_different_times():
    made = iter([2, 5])
    env = from_callable(lambda: Counter(next(made)), 2, 0)
    steps, *_ = check(env, 30)
    assert lengths(steps) == [[2] * 10, [5] * 5]


def test_seeds_depend_on_seed_environment_and_episode_only():
    def seeds(seed, lengths):
        made = iter(lengths)
        env = from_callable(lambda: Counter(next(made)), len(lengths), seed)
        steps, *_ = check(env, 30)
        return [steps.obs[steps.first[:, i], i, 2] for i in range(len(lengths))]

    a, b = seeds(3, (2, 5))
    assert len(np.unique(np.concatenate([a, b]))) == len(a) + len(b)
    assert a.min() >= 0 and b.max() < 2**31
    longer, *_ = seeds(3, (5, 5))
    np.testing.assert_array_equal(longer, a[: len(longer)])
    for found, known in zip(seeds(3, (2, 5)), (a, b), strict=True):
        np.testing.assert_array_equal(found, known)
    assert not np.intersect1d(
        np.concatenate(seeds(4, (2, 5))), np.concatenate([a, b])
    ).size


def test_observations_of_every_kind():
    env = from_callable(Unusual, 2, 0)
    steps, actions, *_ = check(env, 20)
    time = np.arange(21) % 5
    taken = np.where(time[1:, None] == 0, 0, actions)
    np.testing.assert_array_equal(steps.obs["taken"][1:], taken)
    np.testing.assert_array_equal(steps.obs["pair"][1][:, 1], time)
    assert env.snapshot() is None
    with pytest.raises(NotImplementedError, match="Unusual cannot be restored"):
        env.restore(None)


@pytest.mark.parametrize("name", ["CartPole-v1", "LunarLander-v3", "Pendulum-v1"])
def test_simulators_of_gymnasium(name):
    lander(name)
    env = from_callable(lambda: gymnasium.make(name), 3, 0)
    steps, *_, discount = check(env, 250)
    assert env.name == name
    assert env.max_episode_steps == gymnasium.spec(name).max_episode_steps
    assert steps.last.any()
    if name == "Pendulum-v1":
        assert lengths(steps) == [[200]] * 3
        assert (discount[199] == 1).all()
    elif name == "CartPole-v1":
        assert not discount[steps.last[1:]].any()


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["CartPole-v1", "LunarLander-v3", "Pendulum-v1"])
@pytest.mark.parametrize("when", ["running", "last", "first", "reset"])
def test_a_snapshot_brings_a_deterministic_simulator_back(name, when):
    lander(name)

    def make():
        return from_callable(lambda: gymnasium.make(name), 3, 5)

    env, rng = make(), np.random.default_rng(1)
    step = env.reset()
    count = {"running": 75, "reset": 0}.get(when, 10_000)
    for _ in range(count):
        step = env.step(random_actions(env, rng))[0]
        if getattr(step, when, np.zeros(1, bool)).any():
            break
    # Rows that come after must not reach into it.
    shapes = jax.tree.map(np.shape, env.snapshot())
    snapshot, shown = jax.tree.map(np.copy, (env.snapshot(), step))
    kept = env.snapshot()
    other = make()
    restored = other.restore(snapshot)
    jax.tree.map(np.testing.assert_array_equal, restored, shown)
    jax.tree.map(np.testing.assert_array_equal, other.snapshot(), snapshot)
    for _ in range(250):
        action = random_actions(env, rng)
        found, known = other.step(action), env.step(action)
        jax.tree.map(np.testing.assert_array_equal, found, known)
    jax.tree.map(np.testing.assert_array_equal, kept, snapshot)
    assert jax.tree.map(np.shape, env.snapshot()) == shapes


def test_a_snapshot_is_the_episodes_in_progress():
    env = from_callable(Limited, 2, 0)
    env.reset()
    for action in ([1, 2], [3, 4], [1, 1], [2, 2], [2, 3], [0, 4]):
        env.step(np.array(action))
    snapshot = env.snapshot()
    assert snapshot.episode.tolist() == [1, 1] and snapshot.length.tolist() == [2, 2]
    assert snapshot.actions.shape == (2, 7)
    assert snapshot.actions[:, :3].tolist() == [[2, 0, 0], [3, 4, 0]]


def test_episodes_too_long_to_keep_are_not_kept():
    class Long(Counter):
        spec = Spec("Long-v0", 10_001)

    assert from_callable(Long, 1, 0).snapshot() is None


def test_a_simulator_that_ends_elsewhere_is_not_deterministic():
    env = from_callable(partial(Limited, 4), 1, 0)
    env.reset()
    for _ in range(3):
        env.step(np.zeros(1, int))
    other = from_callable(partial(Limited, 2), 1, 0)
    with pytest.raises(RuntimeError, match="not deterministic: episode 0"):
        other.restore(env.snapshot())


def test_an_episode_beyond_its_limit_is_an_error():
    env = from_callable(partial(Limited, 9), 1, 0)
    env.reset()
    with pytest.raises(RuntimeError, match="longer than the 7 steps"):
        for _ in range(8):
            env.step(np.zeros(1, int))


def test_an_error_names_environment_and_step():
    env = from_callable(Faulty, 2, 0, name="sim")
    env.reset()
    for _ in range(5):
        env.step(np.zeros(2, int))
    with pytest.raises(ZeroDivisionError) as error:
        env.step(np.array([0, 4]))
    assert error.value.__notes__ == ["in environment 1 of sim, episode 1, step 2"]


def test_simulators_are_closed_once_and_not_used_after():
    closed = []

    class Closing(Counter):
        def close(self):
            closed.append(self)

    env = from_callable(Closing, 3, 0)
    env.reset()
    env.close()
    env.close()
    assert len(closed) == len(set(map(id, closed))) == 3
    with pytest.raises(RuntimeError, match="Closing is closed"):
        env.step(np.zeros(3, int))


def test_what_is_made_is_closed_when_making_fails():
    closed, made = [], iter([Counter(), Counter(), Unusual()])
    for kind in (Counter, Unusual):
        kind.close = lambda self: closed.append(self)
    try:
        with pytest.raises(ValueError, match="environment 2 of Counter differs"):
            from_callable(lambda: next(made), 3, 0)
    finally:
        del Counter.close, Unusual.close
    assert len(closed) == 3


def test_large_seeds_are_different_ones():
    firsts = set()
    for seed in (0, 2**32, 2**63, 2**64):
        env = from_callable(Counter, 1, seed)
        firsts.add(int(env.reset().obs[0, 2]))
    assert len(firsts) == 4


@pytest.mark.parametrize(("num_envs", "seed"), [(1, True), (1, False)])
def test_a_number_that_is_none_is_refused(num_envs, seed):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        rows.check_arguments(num_envs, seed)


@pytest.mark.parametrize(("num_envs", "seed"), [(0, 0), (1, -1)])
def test_impossible_numbers_are_refused(num_envs, seed):
    with pytest.raises(ValueError, match="must be at least"):
        from_callable(Counter, num_envs, seed)
