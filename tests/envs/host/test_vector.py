"""Gymnasium's vector environments, in their three modes, against rows known before."""

import gc
import multiprocessing
import os
import signal
import threading
import time
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics, RescaleObservation
from host_checks import check, lander
from toy_simulators import Batch, Counter, Faulty, Hang, Unusual

from jaxrl_par.envs.host import from_callable, from_vector
from jaxrl_par.errors import RefusedError
from jaxrl_par.types import Box, Discrete

MODES = list(AutoresetMode)
LENGTHS = (2, 3, 3, 5)
ENDINGS = ("terminated", "truncated", "both", "terminated")


def counters(kind, mode, lengths=LENGTHS, endings=ENDINGS, **options):
    makers = [partial(Counter, *each) for each in zip(lengths, endings, strict=True)]
    return kind(makers, autoreset_mode=mode, **options)


def expected(lengths, endings, actions):
    """obs (time and action), first, last, reward, discount from the definition."""
    obs, first, last, reward, discount = [], [], [], [], []
    for i, (length, ending) in enumerate(zip(lengths, endings, strict=True)):
        time = 0
        rows = [(0, 0, True, False, None, None)]
        for action in actions[:, i]:
            if time == length:
                time = 0
                rows.append((0, 0, True, False, 0.0, 0.0))
                continue
            paid = np.float32(time + 0.1 * action)
            time += 1
            over = time == length
            ended = over and ending != "truncated"
            rows.append((time, action, False, over, paid, 0.0 if ended else 1.0))
        columns = list(zip(*rows, strict=True))
        obs.append(np.stack(columns[:2], -1))
        first.append(columns[2])
        last.append(columns[3])
        reward.append(columns[4][1:])
        discount.append(columns[5][1:])
    return [np.stack(x, 1) for x in (obs, first, last, reward, discount)]


@pytest.mark.sample(1)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_rows_are_those_of_the_stream_in_every_mode(kind, mode):
    context = {"context": "spawn"} if kind is AsyncVectorEnv else {}
    env = from_vector(counters(kind, mode, **context), 7)
    steps, actions, reward, discount = check(env, 40)
    env.close()
    obs, *rows = expected(LENGTHS, ENDINGS, actions)
    np.testing.assert_array_equal(steps.obs[..., :2], obs)
    for found, known in zip(
        (steps.first, steps.last, reward, discount), rows, strict=True
    ):
        np.testing.assert_array_equal(found, known)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("copy", [True, False])
def test_environments_that_end_together(mode, copy):
    ends = (3, 3), ("truncated", "terminated")
    env = from_vector(counters(SyncVectorEnv, mode, *ends, copy=copy), 7)
    steps, actions, reward, _ = check(env, 20)
    obs, _, _, known, _ = expected(*ends, actions)
    np.testing.assert_array_equal(steps.obs[..., :2], obs)
    np.testing.assert_array_equal(reward, known)


@pytest.mark.parametrize("mode", MODES)
def test_observations_of_every_kind(mode):
    env = from_vector(SyncVectorEnv([Unusual] * 3, autoreset_mode=mode), 0)
    steps, actions, *_ = check(env, 20)
    assert env.action_spec == Discrete(4, start=-2)
    assert env.observation_spec["taken"] == Discrete(4)
    assert env.observation_spec["pair"][1].dtype == np.int32
    time = np.arange(21) % 5
    taken = np.where(time[1:, None] == 0, 0, actions)
    np.testing.assert_array_equal(steps.obs["taken"][1:], taken)
    np.testing.assert_array_equal(steps.obs["image"][:, 1, 0, 1, 0], 10 * time)
    np.testing.assert_array_equal(steps.obs["pair"][1][:, 2], time)
    bits = (time[:, None] >> np.arange(3)) & 1
    np.testing.assert_array_equal(steps.obs["pair"][0][:, 0], bits)
    np.testing.assert_array_equal(steps.last[:, 0], time == 4)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_each_episode_has_a_seed_of_its_own_where_the_adapter_resets(mode):
    steps, *_ = check(from_vector(counters(SyncVectorEnv, mode), 7), 40)
    seeds = steps.obs[steps.first][:, 2]
    assert len(np.unique(seeds)) == len(seeds) > 30
    again, *_ = check(from_vector(counters(SyncVectorEnv, mode), 7), 40)
    np.testing.assert_array_equal(again.obs, steps.obs)
    other, *_ = check(from_vector(counters(SyncVectorEnv, mode), 8), 40)
    assert not np.intersect1d(other.obs[..., 2], seeds).size


def test_neighbouring_seeds_share_no_environment():
    def seeds(seed):
        vector_env = counters(SyncVectorEnv, AutoresetMode.NEXT_STEP)
        return set(from_vector(vector_env, seed).reset().obs[:, 2])

    assert len(seeds(0) | seeds(1) | seeds(2)) == 12


def test_the_mode_is_that_of_the_instance():
    next_step = counters(SyncVectorEnv, AutoresetMode.NEXT_STEP)
    same_step = counters(SyncVectorEnv, AutoresetMode.SAME_STEP)
    # The trap: one dict for both.
    assert next_step.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    for vector_env in (next_step, same_step):
        steps, actions, *_ = check(from_vector(vector_env, 0), 20)
        obs, *_ = expected(LENGTHS, ENDINGS, actions)
        np.testing.assert_array_equal(steps.obs[..., :2], obs)


def test_an_absent_mode_is_an_error_and_not_a_guess():
    with pytest.raises(ValueError, match="does not say how it resets"):
        from_vector(Batch(None), 0)


def test_a_mode_that_another_class_left_behind_does_not_count(monkeypatch):
    # As ale-py's vector environment does.
    left = {"autoreset_mode": AutoresetMode.SAME_STEP}
    monkeypatch.setattr(gymnasium.vector.VectorEnv, "metadata", left)
    vector_env = Batch(None)
    vector_env.metadata = left
    with pytest.raises(ValueError, match="does not say how it resets"):
        from_vector(vector_env, 0)


@pytest.mark.parametrize("lengths", [(2, 3), (2, 2)])
def test_vector_environments_of_other_classes(lengths):
    env = from_vector(Batch(AutoresetMode.SAME_STEP, lengths), 0)
    assert env.name == "Batch" and env.max_episode_steps is None
    assert env.action_spec.dtype == np.float32
    steps, actions, reward, _ = check(env, 20, bounds=False)
    rows = np.arange(21)
    time = np.stack([rows % (length + 1) for length in lengths], 1)
    np.testing.assert_array_equal(steps.obs["x"][..., 0], time)
    np.testing.assert_array_equal(steps.last, time == lengths)
    paid = np.float32(actions.astype(np.float64).sum(-1))
    np.testing.assert_array_equal(reward, np.where(time[1:] == 0, 0, paid))


def test_a_reset_beyond_the_mask_is_found():
    env = from_vector(Batch(AutoresetMode.SAME_STEP, keeps_to_mask=False), 0)
    with pytest.raises(RuntimeError, match="outside the mask"):
        check(env, 20, bounds=False)


def test_final_observations_that_are_not_reported_are_missed(monkeypatch):
    step = SyncVectorEnv.step
    monkeypatch.setattr(SyncVectorEnv, "step", lambda *args: (*step(*args)[:4], {}))
    env = from_vector(counters(SyncVectorEnv, AutoresetMode.SAME_STEP), 0)
    with pytest.raises(RuntimeError, match="does not report"):
        check(env, 5)


@pytest.mark.parametrize("mode", MODES)
def test_wrappers_of_vector_environments(mode):
    class Narrow(Counter):
        observation_space = spaces.Box(0, 2**31, (3,), np.float64)

    inner = SyncVectorEnv([partial(Narrow, n) for n in (2, 3)], autoreset_mode=mode)
    scale = 1
    if mode is not AutoresetMode.SAME_STEP:  # which that wrapper refuses
        inner = RescaleObservation(inner, np.float64(0), np.float64(1))
        scale = 2**31
    env = from_vector(RecordEpisodeStatistics(inner), 0)
    steps, *_ = check(env, 20, bounds=False)
    time = np.stack([np.arange(21) % 3, np.arange(21) % 4], 1)
    np.testing.assert_allclose(steps.obs[..., 0] * scale, time, rtol=1e-5)


def test_names_and_limits_come_from_the_spec():
    lander("LunarLander-v3")
    env = from_vector(gymnasium.make_vec("CartPole-v1", 2, "sync"), 0)
    assert (env.name, env.max_episode_steps) == ("CartPole-v1", 500)
    makers = [lambda: gymnasium.make("LunarLander-v3")] * 2
    env = from_vector(SyncVectorEnv(makers), 0)
    assert (env.name, env.max_episode_steps) == ("LunarLander-v3", 1000)
    # Its bounds are wrong: see the table.
    assert np.isinf(env.observation_spec.high)
    env = from_vector(SyncVectorEnv([Counter]), 0, name="mine", max_episode_steps=9)
    assert (env.name, env.max_episode_steps) == ("mine", 9)
    assert env.num_envs == 1


def test_gymnasiums_own_vector_environment():
    vector_env = gymnasium.make_vec("CartPole-v1", 4, "vector_entry_point")
    steps, *_ = check(from_vector(vector_env, 0), 100)
    assert steps.last.any()


def test_actions_of_another_shape_or_kind_are_refused():
    env = from_vector(counters(SyncVectorEnv, AutoresetMode.NEXT_STEP), 0)
    env.reset()
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(3,\)"):
        env.step(np.zeros(3, int))
    with pytest.raises(TypeError):
        env.step(np.full(4, 0.7))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Graph(spaces.Discrete(2), None),
        spaces.Text(5),
        spaces.Dict({"a": spaces.Text(5)}),
        spaces.Box(0, 2**40, (), np.int64),
    ],
)
def test_other_spaces_are_refused_by_name(space):
    class Other(Counter):
        observation_space = space

    with pytest.raises(ValueError, match="Other") as error:
        from_vector(SyncVectorEnv([Other]), 0, name="Other")
    assert str(space["a"] if isinstance(space, spaces.Dict) else space) in str(error)

    class Acts(Counter):
        action_space = space

    if not isinstance(space, spaces.Dict):
        with pytest.raises(ValueError, match="Acts"):
            from_vector(SyncVectorEnv([Acts]), 0, name="Acts")


def test_keys_that_read_the_same_are_refused():
    space = spaces.Dict({1: spaces.Discrete(2), "1": spaces.Discrete(3)})

    class Other(Counter):
        observation_space = spaces.Dict({"part": space})

    told = "observations of Other must have names of their own, got 1 and '1'"
    with pytest.raises(RefusedError, match=told):
        from_callable(Other, 1, 0, name="Other")


def test_bounds_that_stand_for_none_are_infinite():
    largest, tiny = np.finfo(np.float32).max, np.finfo(np.float32).tiny
    low = np.array([-largest, -1.0, tiny, tiny], np.float64)
    high = np.array([largest, 0.1, largest, 1.0], np.float64)

    class Wide(Counter):
        observation_space = spaces.Box(low, high, dtype=np.float64)

    spec = from_vector(SyncVectorEnv([Wide]), 0).observation_spec
    assert isinstance(spec, Box) and spec.dtype == np.float32
    np.testing.assert_array_equal(spec.low, np.float32([-np.inf, -1, -np.inf, tiny]))
    np.testing.assert_array_equal(spec.high, np.float32([np.inf, 0.1, np.inf, 1]))
    assert spec.low.dtype == spec.high.dtype == np.float32


def test_an_observation_unlike_its_space_is_refused():
    class Wrong(Counter):
        def _obs(self, action):
            return np.zeros(2)

    env = from_vector(SyncVectorEnv([Counter]), 0)
    env._vector_env.envs[0] = Wrong()
    env._vector_env.reset = lambda **_: (np.zeros((1, 2)), {})
    with pytest.raises(ValueError, match=r"\(1, 2\), not \(1, 3\)"):
        env.reset()


def test_an_error_names_the_environment():
    makers = [Counter, Faulty]
    env = from_vector(AsyncVectorEnv(makers, context="spawn"), 0, name="sim")
    env.reset()
    processes = env._vector_env.processes
    with pytest.raises(ZeroDivisionError, match="as told") as error:
        env.step(np.array([0, 4]))
    assert "in step of sim" in error.value.__notes__[0]
    assert "{1: " in error.value.__notes__[0]
    env.close()
    assert not any(process.is_alive() for process in processes)


def running(pids):
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


@pytest.mark.sample(1)
@pytest.mark.parametrize("how", ["idle", "killed", "hangs", "ignores SIGTERM"])
def test_no_process_is_left_after_close(how):
    makers = [Counter, Hang, Counter]
    env = from_vector(AsyncVectorEnv(makers, context="spawn"), 0, name="sim")
    env.reset()
    processes = env._vector_env.processes
    pids = [process.pid for process in processes]
    raised = []

    def act(actions):
        try:
            env.step(np.array(actions))
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=act, args=([0, 4, 0],))
    if how == "killed":
        os.kill(pids[1], signal.SIGKILL)
        act([0, 0, 0])
        assert "{1: -9}" in raised[0].__notes__[0]
    elif how == "hangs":
        thread.start()
        time.sleep(0.3)
    elif how == "ignores SIGTERM":
        # A stopped process does not act on signals but SIGKILL.
        os.kill(pids[1], signal.SIGSTOP)
    start = time.monotonic()
    env.close()
    assert time.monotonic() - start < 5
    if how == "hangs":
        thread.join(5)
        assert not thread.is_alive() and raised
    assert not running(pids) and not any(p.is_alive() for p in processes)
    env.close()
    with pytest.raises(RuntimeError, match="sim is closed"):
        env.step(np.zeros(3, int))
    gc.collect()
    assert not multiprocessing.active_children()
