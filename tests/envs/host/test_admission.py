"""What a simulator may not give is refused with environment, field, episode and step;
what loses nothing comes through."""

import re
from decimal import Decimal

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from toy_simulators import Returns

from jaxrl_par.envs.host import from_callable, from_vector
from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.envs.host.unrolls import UnrollBuffer
from jaxrl_par.types import Box, Discrete

PLACE = "environment 1 of sim, episode 0, step 2"


class Sim:
    """Shows zeros, and in its second step what it is told."""

    spec = None
    action_space = spaces.Discrete(2)

    def __init__(self, space, change=lambda *results: results, index=1):
        self.observation_space, self.change, self.index = space, change, index

    def reset(self, *, seed):
        self.time = 0
        return self.zeros(), {}

    def step(self, action):
        self.time += 1
        results = self.zeros(), 1.0, False, False, {}
        return self.change(*results) if self.time == 2 and self.index else results

    def zeros(self):
        space = self.observation_space
        if isinstance(space, spaces.Dict):
            return {k: np.zeros(x.shape, x.dtype) for k, x in space.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(np.zeros(x.shape, x.dtype) for x in space)
        return np.full(space.shape, getattr(space, "start", 0), space.dtype)

    def close(self):
        pass


class Mute:
    def __repr__(self):
        raise RuntimeError("no words")


FLOATS, MUTE = spaces.Box(-1, 1, (2,), np.float32), Mute()


def second(change, space=FLOATS):
    """The second row of two environments, of which one is changed."""
    made = iter(range(2))
    env = from_callable(lambda: Sim(space, change, next(made)), 2, 0, name="sim")
    env.reset()
    env.step(np.zeros(2, int))
    return env.step(np.zeros(2, int))


def shown(obs, space=FLOATS):
    """What comes of an observation."""
    return second(lambda _, *rest: (obs, *rest), space)[0].obs


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda obs, reward, ended, cut, info: (obs, reward, ended, info), "4 results"),
        (lambda *results: (*results, {}), "6 results"),
        (lambda *results: list(results), "a list"),
        (lambda *results: None, "a NoneType"),
        (lambda *results: (*results[:4], False), "False for info"),
        (lambda *results: (*results[:3], {}, False), "False for info"),
        (lambda *results: (*results[:4], MUTE), "one whose repr raises"),
    ],
)
def test_a_step_returns_exactly_five_results(change, found):
    with pytest.raises(BadRowError) as error:
        second(change)
    told = str(error.value)
    assert told.startswith(f"step of {PLACE} must return (observation, reward,")
    assert f"returned {found}" in told and "GymV21CompatibilityV0" in told


@pytest.mark.parametrize(
    "given", [np.zeros(2, np.float32), (np.zeros(2, np.float32), {}, {}), {}, (0, 1)]
)
def test_a_reset_returns_exactly_two_results(given):
    class Old(Sim):
        def reset(self, *, seed):
            return given

    env = from_callable(lambda: Old(FLOATS), 1, 0, name="sim")
    with pytest.raises(
        BadRowError, match=r"reset of environment 0 of sim, episode 0, s"
    ):
        env.reset()


@pytest.mark.parametrize(
    ("space", "obs", "why"),
    [
        (spaces.Box(0, 255, (2,), np.uint8), [0, 300], "element [1] cannot be held by"
         " uint8 with bounds [0, 255]: 300"),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([0, -1]), "uint8"),
        (spaces.Box(0, 9, (2,), np.int64), np.array([0, 2**32]), "is not in -2147"),
        (spaces.Box(0, 9, (2,), np.int64), np.uint64([0, 2**64 - 1]), "int64"),
        (spaces.Box(0, 9, (), np.int32), 2**32, "int32"),
        (spaces.Box(0, 9, (2,), np.int32), np.array([0, 2.5]), "of dtype float64"),
        (spaces.Discrete(3), -1, "is not in 0 .. 2: -1"),
        (spaces.Discrete(3), 3, "is not in 0 .. 2: 3"),
        (spaces.Discrete(3), 2**32, "is not in 0 .. 2: 4294967296"),
        (spaces.Discrete(3), 2**70, "must be int64"),
        (spaces.Discrete(3, start=2), 1, "is not in 2 .. 4: 1"),
        (spaces.Discrete(3), 1.0, "is a float, 1.0, and must be int64"),
        (spaces.Discrete(3), True, "is a bool"),
        (spaces.Discrete(1), 1, "is not in 0 .. 0: 1"),
        (spaces.MultiBinary(2), np.array([0, 0.5]), "of dtype float64"),
        (spaces.MultiBinary(2), np.array([0, 300]), "int8"),
        (spaces.Box(0, 1, (2,), np.bool_), np.array([0, 1]), "of dtype int64"),
        (FLOATS, np.array([0, 0.1]), "element [1] cannot be held by float32"),
        (FLOATS, np.array([0, 2**24 + 1]), "cannot be held by float32"),
        (FLOATS, np.array([0, 2**53 + 1]), "cannot be held by float32"),
        (FLOATS, np.array([0, 2**63 - 1]), "cannot be held by float32"),
        (spaces.Box(-1, 1, (2,), np.float16), np.float32([0, 0.1]), "by float16"),
        (FLOATS, np.array(["0", "1"]), "of dtype <U1"),
        (FLOATS, np.zeros(2, complex), "of dtype complex128"),
        (FLOATS, np.array([0, None]), "of dtype object"),
        (FLOATS, np.zeros(2, bool), "of dtype bool"),
        (FLOATS, None, "is a NoneType"),
        (FLOATS, np.ma.masked_array(np.zeros(2, np.float32), [0, 1]), "is masked"),
        (FLOATS, MUTE, "is a Mute, one whose repr raises RuntimeError, and must be"),
        (FLOATS, [[0.0], [0.0, 1.0]], "is a list that is no array"),
        (FLOATS, np.zeros(3, np.float32), "has the shape (3,), not (2,)"),
        (FLOATS, np.zeros((), np.float32), "has the shape (), not (2,)"),
        (FLOATS, np.zeros((1, 2), np.float32), "has the shape (1, 2), not (2,)"),
        (spaces.Discrete(3), np.zeros(1, int), "has the shape (1,), not ()"),
    ],
)  # fmt: skip
def test_an_observation_that_a_cast_would_change_is_refused(space, obs, why):
    with pytest.raises(BadRowError) as error:
        shown(obs, space)
    told = str(error.value)
    assert told.startswith(f"observation of {PLACE} ") and why in told, told


@pytest.mark.parametrize(
    ("space", "obs", "known"),
    [
        (FLOATS, [0.5, -1.0], np.float32([0.5, -1])),
        (FLOATS, np.array([1, 0]), np.float32([1, 0])),
        (FLOATS, np.float16([0.1, 0]), np.float32(np.float16([0.1, 0]))),
        (FLOATS, np.array([np.nan, np.inf]), np.float32([np.nan, np.inf])),
        (FLOATS, np.array([0.5, 0], ">f4"), np.float32([0.5, 0])),
        (spaces.Box(-1, 1, (2,), np.float64), np.array([0.1, 0]), np.float32([0.1, 0])),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([255, 0]), np.uint8([255, 0])),
        (spaces.Box(0, 9, (2,), np.int64), np.int8([9, 1]), np.int32([9, 1])),
        (spaces.Box(0, 9, (2,), np.uint64), np.uint64([9, 1]), np.int32([9, 1])),
        (spaces.Box(0, 9, (2,), np.dtype(">i2")), [9, 1], np.int16([9, 1])),
        (FLOATS, np.ma.masked_array([0.5, 0], [0, 0]), np.float32([0.5, 0])),
        (spaces.MultiBinary(2), np.array([True, False]), np.int8([1, 0])),
        (spaces.Box(0, 1, (2,), np.bool_), [True, False], np.array([True, False])),
        (spaces.Discrete(3, start=-1), np.uint8(1), np.int32(2)),
        (spaces.Discrete(3), np.array(2, np.int16), np.int32(2)),
        (spaces.Box(-1, 1, (), np.float32), 0.5, np.float32(0.5)),
    ],
)
def test_a_cast_that_changes_nothing_stays(space, obs, known):
    found = shown(obs, space)[1]
    assert found.dtype == known.dtype
    np.testing.assert_array_equal(found, known)


PARTS = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Tuple([FLOATS])})


@pytest.mark.parametrize(
    ("obs", "why"),
    [
        ({"a": 1}, "observation of P has the keys ['a'], and must have ['a', 'b']"),
        ({"a": 1, "b": ([0, 0],), "c": 1}, "observation of P has the keys"),
        (np.zeros(2), "observation of P is a ndarray, not a dict"),
        ({"a": 1, "b": np.zeros(2)}, "observation['b'] of P is a ndarray, not a tuple"),
        ({"a": 1, "b": ()}, "observation['b'] of P has 0 parts, not 1"),
        ({"a": 1, "b": (0,)}, "observation['b'][0] of P has the shape"),
        ({"a": 7, "b": ([0, 0],)}, "observation['a'] of P is not in 0 .. 2"),
    ],
)
def test_parts_of_observations_are_named(obs, why):
    class Nested(Sim):
        def zeros(self):
            return {"a": 0, "b": (np.zeros(2, np.float32),)}

    made = iter(range(2))

    def change(_, *rest):
        return (obs, *rest)

    env = from_callable(lambda: Nested(PARTS, change, next(made)), 2, 0, name="sim")
    env.reset()
    env.step(np.zeros(2, int))
    with pytest.raises(BadRowError, match=re.escape(why.replace("P", PLACE, 1))):
        env.step(np.zeros(2, int))


@pytest.mark.parametrize(
    "reward",
    [
        *("1.5", None, {}, 1j, True, np.True_, np.zeros(2), [1.0], Decimal(1), 10**400),
        *(np.ma.masked, MUTE),
    ],
)
def test_a_reward_is_a_number(reward):
    what = f"reward of {PLACE} "
    with pytest.raises(BadRowError, match=what):
        second(lambda obs, _, *rest: (obs, reward, *rest))


@pytest.mark.parametrize(
    "reward",
    [3, 3.0, np.float64(3), np.float16(3), np.int8(3), np.array(3), np.array(3.0)],
)
def test_rewards_of_all_kinds_of_numbers_count(reward):
    assert second(lambda obs, _, *rest: (obs, reward, *rest))[1].tolist() == [1, 3]


@pytest.mark.parametrize("index", [2, 3])
@pytest.mark.parametrize(
    "flag", ["False", None, {}, 0, 1.0, np.zeros(1, bool), "", MUTE]
)
def test_a_flag_is_a_boolean(index, flag):
    def change(*results):
        return (*results[:index], flag, *results[index + 1 :])

    name = ("terminated", "truncated")[index - 2]
    with pytest.raises(BadRowError, match=f"^{name} of {PLACE} "):
        second(change)


@pytest.mark.parametrize("flag", [True, np.True_, np.array(True)])
def test_flags_of_python_and_numpy_count(flag):
    step, _, discount = second(lambda *x: (*x[:2], flag, flag, x[4]))
    assert step.last.tolist() == [False, True] and discount.tolist() == [1, 0]


# Vector simulators ----------------------------------------------------------------


class Several(VectorEnv):
    """Four environments, which show time and never end, in memory that is reused."""

    single_observation_space = spaces.Box(-9, 99, (1,), np.float32)
    single_action_space = spaces.Discrete(2)
    num_envs = 4

    def __init__(self, change=lambda *results: results):
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.change, self.obs = change, np.zeros((4, 1), np.float32)

    def reset(self, *, seed=None, options=None):
        self.obs[:] = 0
        return self.obs, {}

    def step(self, actions):
        self.obs += 1
        no = np.zeros(4, bool)
        return self.change(self.obs, np.arange(4.0), no, no, {})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda o, r, *x: (o, 1.0, *x), "reward of the 4 environments of sim, row 1 has"
         " the shape (), not (4,)"),
        (lambda o, r, *x: (o, r[:1], *x), "reward of the 4 environments of sim, row 1"),
        (lambda o, r, *x: (o, r[:, None], *x), "reward of the 4"),
        (lambda o, r, *x: (o, r.astype(str), *x), "reward of the 4"),
        (lambda o, r, *x: (o, r > 0, *x), "reward of the 4"),
        (lambda o, r, e, c, i: (o, r, False, c, i), "terminated of the 4 environments"),
        (lambda o, r, e, c, i: (o, r, e, c[:1], i), "truncated of the 4 environments"),
        (lambda o, r, e, c, i: (o, r, e.astype(int), c, i), "terminated of the 4"),
        (lambda o, *x: (o[:3], *x), "observation of the 4 environments of sim, row 1"),
        (lambda o, *x: (o + 0.1, *x), None),
        (lambda o, *x: (o.astype(float) + 0.1, *x), "cannot be held by float32"),
        (lambda o, r, e, c, i: (o, r, e, i), "step of the 4 environments of sim, row"),
    ],
)  # fmt: skip
def test_rows_of_vector_simulators_have_an_element_for_each(change, why):
    env = from_vector(Several(change), 0, name="sim")
    env.reset()
    if why is None:
        env.step(np.zeros(4, int))
        return
    with pytest.raises(BadRowError, match=re.escape(why)):
        env.step(np.zeros(4, int))


class Reusing(VectorEnv):
    """Two environments of lengths 2 and 5; everything is shown in the same memory."""

    single_observation_space = spaces.Box(0, 9, (), np.float32)
    single_action_space = spaces.Discrete(2)
    num_envs = 2

    def __init__(self, mode, keeps_to_mask):
        self.metadata = {"autoreset_mode": mode}
        self.mode, self.keeps_to_mask = mode, keeps_to_mask
        self.obs, self.lengths = np.zeros(2, np.float32), np.array([2, 5])
        self.rewards, self.flags = np.zeros(2), np.zeros(2, bool)
        self.no = np.zeros(2, bool)

    def reset(self, *, seed=None, options=None):
        masked = options and self.keeps_to_mask
        self.obs[options["reset_mask"] if masked else slice(None)] = 0
        # What a step returned is no longer there.
        self.rewards[:], self.flags[:], self.no[:] = -7, False, True
        return self.obs, {}

    def step(self, actions):
        over, self.no[:] = self.flags.copy(), False
        self.obs += 1
        if self.mode is AutoresetMode.NEXT_STEP:
            self.obs[over] = 0
        self.rewards[:], self.flags[:] = self.obs, self.obs == self.lengths
        infos = {}
        if self.mode is AutoresetMode.SAME_STEP and self.flags.any():
            infos["final_obs"] = self.obs.copy()
            self.obs[self.flags] = 0
        return self.obs, self.rewards, self.flags, self.no, infos


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_what_a_step_returned_is_copied_before_a_reset(mode):
    env, rows = from_vector(Reusing(mode, keeps_to_mask=True), 0), []
    times = [env.reset().obs.copy()]
    for _ in range(17):
        step, reward, discount = env.step(np.zeros(2, int))
        times.append(step.obs.copy())
        rows.append((reward.copy(), step.last.copy(), discount.copy()))
    known = np.stack([np.arange(18) % 3, np.arange(18) % 6], 1)
    np.testing.assert_array_equal(times, known)
    rewards, last, discount = (np.stack(x) for x in zip(*rows, strict=True))
    np.testing.assert_array_equal(rewards, known[1:])
    np.testing.assert_array_equal(last, known[1:] == [2, 5])
    np.testing.assert_array_equal(discount, (known[1:] % [2, 5] > 0))


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_a_reset_beyond_its_mask_is_found_in_memory_that_is_reused(mode):
    env = from_vector(Reusing(mode, keeps_to_mask=False), 0)
    env.reset()
    with pytest.raises(RuntimeError, match="outside the mask"):
        for _ in range(17):
            env.step(np.zeros(2, int))


def test_environments_that_show_the_same_memory_are_told_apart():
    memory = np.zeros(1, np.float32)

    class Shared(Sim):
        def __init__(self, number):
            super().__init__(spaces.Box(-9, 99, (1,), np.float32))
            self.number = number

        def zeros(self):
            memory[:] = 10 * self.number + self.time
            return memory

    made = iter(range(3))
    env = from_callable(lambda: Shared(next(made)), 3, 0)
    assert env.reset().obs[:, 0].tolist() == [0, 10, 20]
    assert env.step(np.zeros(3, int))[0].obs[:, 0].tolist() == [1, 11, 21]


# Actions --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_sent_is_within_bounds_in_the_dtype_of_the_space(dtype):
    low, high = np.array([-0.3, -np.inf], dtype), np.array([0.1, 0.7], dtype)
    sent = []

    class Strict(Sim):
        action_space = spaces.Box(low, high, dtype=dtype)

        def step(self, action):
            assert self.action_space.contains(action)
            sent.append(action.copy())
            action[:] = 99
            return super().step(action)

    env = from_callable(lambda: Strict(FLOATS, index=0), 2, 0)
    assert env.action_spec.dtype == np.float32
    assert (env.action_spec.low >= low).all() and (env.action_spec.high <= high).all()
    env.reset()
    action = np.float32([[5, 5], [-5, -1e30]])
    env.step(action)
    assert action.max() == 5  # its own copy
    least = max(float(np.finfo(dtype).min), -1e30)
    near = np.stack([high, [low[0], least]]).astype(np.float32)
    np.testing.assert_allclose(np.stack(sent).astype(np.float32), near, rtol=1e-6)


def test_choices_are_sent_as_they_are():
    spec = from_callable(lambda: Sim(FLOATS), 1, 0).action_spec
    assert spec == Discrete(2)


def test_integers_are_sent_within_bounds():
    sent = []

    class Levels(Sim):
        action_space = spaces.Box(-3, 7, (1,), np.int8)

        def step(self, action):
            sent.append((int(action[0]), action.dtype))
            return super().step(action)

    env = from_callable(lambda: Levels(FLOATS, index=0), 1, 0)
    assert isinstance(env.action_spec, Box)
    env.reset()
    env.step(np.array([[300]]))
    assert sent == [(7, np.int8)]


def test_choices_that_32_bits_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="32 bits cannot hold"):
        from_callable(lambda: Sim(spaces.Discrete(2**40)), 1, 0)


@pytest.mark.parametrize("adapter", ["single", "vector"])
def test_a_wrapper_that_meets_the_old_interface_is_told_the_way_out(adapter):
    class Old(Returns):
        def step(self, action):
            return super().step(action)[1:]

    def make():
        return gymnasium.wrappers.TimeLimit(Old(), 9)

    single = adapter == "single"
    env = from_callable(make, 1, 0) if single else from_vector(SyncVectorEnv([make]), 0)
    env.reset()
    with pytest.raises(ValueError, match="expected 5, got 4") as error:
        env.step(np.zeros(1, np.int32))
    assert "shimmy has GymV21CompatibilityV0" in error.value.__notes__[0]


@pytest.mark.parametrize("adapter", ["single", "vector"])
def test_an_action_that_is_no_number_reaches_no_simulator(adapter):
    class Robot(Returns):
        action_space = spaces.Box(-1, 1, (2,), np.float64)

        def step(self, action):
            assert np.isfinite(action).all(), action
            return super().step(action)

    if adapter == "single":
        env = from_callable(Robot, 2, 0, name="robot")
    else:
        env = from_vector(SyncVectorEnv([Robot, Robot]), 0, name="robot")
    env.reset()
    action = np.array([[0.5, -np.inf], [np.inf, 9.0]], np.float32)
    env.step(action)  # the nearest that is allowed
    action[1, 0] = np.nan
    with pytest.raises(BadRowError, match="action of environment 1 of robot, episode"):
        env.step(action)
    rows = UnrollBuffer(env.observation_spec, env.action_spec, 3, 2)
    with pytest.raises(BadRowError, match="action of environment 1 in row 2 is not"):
        rows.write_action(2, action)
