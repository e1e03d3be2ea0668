"""Entries of `info` at the ends of episodes, through every adapter."""

import warnings
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from host_checks import random_actions
from toy_simulators import Counter, Telling

from jaxrl_par import random
from jaxrl_par.envs.host import from_callable, from_pure, from_vector, make
from jaxrl_par.envs.host.info import EpisodeInfo, known, total
from jaxrl_par.envs.host.wrappers import previous_action_and_reward
from jaxrl_par.testing import probes
from jaxrl_par.types import Mean

LENGTHS, STEPS = (2, 3, 3, 5), 41


def makers():
    return [partial(Telling, length, "truncated") for length in LENGTHS]


def sync(mode, names):
    return from_vector(
        SyncVectorEnv(makers(), autoreset_mode=mode), 0, info_metrics=names
    )


def processes(mode, names):
    vector_env = AsyncVectorEnv(makers(), autoreset_mode=mode, context="spawn")
    return from_vector(vector_env, 0, info_metrics=names)


def single(mode, names):
    made = iter(makers())
    return from_callable(lambda: next(made)(), 4, 0, info_metrics=names)


def with_previous(mode, names):
    return previous_action_and_reward(single(mode, names))


def played(env, steps=STEPS):
    """What was told, and the number of episodes that ended."""
    rng, ended = np.random.default_rng(0), 0
    env.reset()
    for _ in range(steps):
        ended += env.step(random_actions(env, rng))[0].last.sum(axis=0)
    return env.take_info(), ended


def means(info):
    return {n: x.total / x.count if x.count else None for n, x in info.items()}


@pytest.mark.parametrize(
    ("make_env", "mode"),
    [
        (single, None),
        (with_previous, None),
        *((sync, mode) for mode in AutoresetMode),
        pytest.param(processes, AutoresetMode.SAME_STEP, marks=pytest.mark.slow),
        pytest.param(processes, AutoresetMode.NEXT_STEP, marks=pytest.mark.slow),
    ],
)
def test_entries_are_means_over_the_last_steps_of_episodes(make_env, mode):
    """Not over those of other steps, of resets, or of steps that are not shown."""
    env = make_env(mode, ["time", "flag", "is_success"])
    told, ended = played(env)
    # An episode takes one more row than it has steps.
    counts = np.array([(STEPS + 1) // (length + 1) for length in LENGTHS])
    assert ended == counts.sum()
    odd = counts @ (np.array(LENGTHS) % 2)
    assert told.keys() == {"success_rate", "info_time", "info_flag"}
    assert told["success_rate"] == (odd, ended)
    assert told["info_time"] == (counts @ LENGTHS, ended)
    assert told["info_flag"] == (ended, ended)
    assert {x.count for x in env.take_info().values()} == {0}
    env.close()


@pytest.mark.parametrize("make_env", [single, partial(sync)])
def test_what_is_absent_or_no_number_is_told_once_and_not_counted(make_env):
    env = make_env(AutoresetMode.NEXT_STEP, ["word", "tim", "time"])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        told, ended = played(env)
    assert (told["info_word"].count, told["info_tim"].count) == (0, 0)
    assert told["info_time"].count == ended
    first, second = (str(warning.message) for warning in warned)
    assert "info['word'] is no finite number: 'far'" in first
    assert "info has no 'tim'; did you mean 'time'? It has: action, flag," in second


def test_nothing_is_read_before_an_episode_ends():
    class Sealed(dict):
        def get(self, *args):
            raise AssertionError("read")

    class Silent(Counter):
        def step(self, action):
            *row, _ = super().step(action)
            return *row, {} if self.time == self.length else Sealed()

    env = from_callable(Silent, 2, 0, info_metrics=["x"])
    with pytest.warns(UserWarning, match="info has no 'x' It has no entries"):
        played(env)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((True, 1), (np.bool_(False), 0), (3, 3), (0.5, 0.5), (np.float16(2), 2)),
        *((np.array([4.0]), 4), (np.int64(7), 7)),
        *((None, None), ("1", None), ([1], None), ({"a": 1}, None), (1j, None)),
        *((np.nan, None), (np.inf, None), (np.array([1, 2]), None), (10**400, None)),
        *((np.array(["a"]), None), (np.array(None), None), (object(), None)),
        (np.ma.masked, None),
    ],
)
def test_only_finite_numbers_count(value, number):
    info = EpisodeInfo(["x"], "toy")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        info.add({"x": value, "success": value}, 0)
    assert len(warned) == 2 * (number is None)
    expected = {"info_x": number, "success_rate": number}
    assert means(info.take()) == expected


@pytest.mark.parametrize(
    "infos",
    [
        *(None, [], {}, {"x": {"y": np.ones(2)}}, {"x": 3j}, {"x": "a", "_x": True}),
        *({"x": np.array("a"), "_x": None}, {"x": np.array(["a", "b"], object)}),
    ],
)
def test_infos_of_another_kind_count_nothing(infos):
    info = EpisodeInfo(["x"], "toy")
    with pytest.warns(UserWarning, match="'x'"):
        info.add_lanes(infos, np.array([0, 1]))
        info.add(infos, 0)
    assert means(info.take()) == {"info_x": None, "success_rate": None}


def test_masks_say_which_environments_gave_an_entry():
    info = EpisodeInfo(["x"], "toy")
    infos = {"x": np.array([1.0, 2.0, 4.0]), "_x": np.array([True, False, True])}
    with pytest.warns(UserWarning, match="info has no 'x'"):
        info.add_lanes(infos, np.array([1, 2]))
    assert info.take()["info_x"] == (4, 1)


def test_environments_that_do_not_count_are_left_out():
    info = EpisodeInfo(["x"], "toy")
    for lane, value in ((0, 1.0), (2, 4.0), (0, 2.0)):
        info.add({"x": value}, lane)
    assert info.take(np.array([True, True, False]))["info_x"] == (3, 2)
    assert info.take()["info_x"] == (0, 0)


class Elsewhere:
    dtype = "float32"

    def __array__(self, dtype=None, copy=None):
        raise TypeError("on another device")


def test_what_cannot_be_an_array_is_no_number():
    info = EpisodeInfo([], "toy")
    with pytest.warns(UserWarning, match="'success'. is no finite number"):
        info.add({"success": Elsewhere()}, 0)


def test_success_is_known_by_either_name_and_without_one_nothing_is_logged():
    info = EpisodeInfo([], "toy")
    info.add({"success": 1.0}, 0)
    info.add({"is_success": False, "success": True}, 0)
    info.add({}, 0)
    (told,) = info.take().items()
    assert told == ("success_rate", (1, 2))
    assert known(dict([told])) == dict([told])
    assert known(info.take() | {"a": Mean(1, 1)}) == {"a": (1, 1)}


def test_totals_weigh_every_episode_the_same():
    first, second = {"info_x": Mean(1.0, 1.0)}, {"info_x": Mean(6.0, 3.0)}
    assert total([first, second]) == {"info_x": (7, 4)}
    assert total([{}, {}]) == {}


def test_pure_environments_tell_nothing():
    env = from_pure(probes.counter(2), random.key(0))
    assert env.take_info() == {}


@pytest.mark.parametrize(
    "backend", ["gymnasium", pytest.param("processes", marks=pytest.mark.slow)]
)
def test_simulators_by_name_are_asked_too(backend):
    env = make("CartPole-v1", 1, 0, backend=backend, info_metrics=["x"])
    assert env.take_info().keys() == {"success_rate", "info_x"}
    env.close()


def test_gymnasium_tells_masks_and_final_infos_as_is_assumed():
    """Should they change, this says so before the adapters are suspected."""
    env = SyncVectorEnv(makers(), autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    for _ in range(2):
        infos = env.step(np.zeros(4, int))[-1]
    assert infos["final_info"]["_is_success"].tolist() == [True, False, False, False]
    assert infos["time"].tolist() == [1000, 2, 2, 2]
    assert infos["final_info"]["time"][0] == 2
    assert gymnasium.__version__.startswith("1.")
