"""Masks that simulators tell in their info, and actions of several parts."""

from typing import ClassVar

import numpy as np
import pytest

from jaxrl_par import presets
from jaxrl_par.envs import host
from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.envs.host.masking import InfoMasks
from jaxrl_par.envs.host.unrolls import UnrollBuffer
from jaxrl_par.envs.host.wrappers import previous_action_and_reward
from jaxrl_par.training import TrainingConfig
from jaxrl_par.types import Box, Discrete, Masked, MultiDiscrete

gymnasium = pytest.importorskip("gymnasium")
from gymnasium import spaces  # noqa: E402
from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402

TAXI = next(name for name in gymnasium.registry if name.startswith("Taxi-"))


class Told:
    """Three steps; step t allows all but action t, and the final one nothing."""

    observation_space = spaces.Box(0, 9, (1,), np.float32)
    action_space: ClassVar = spaces.Discrete(4, start=-1)
    metadata: ClassVar = {}
    render_mode = spec = None

    def reset(self, *, seed=None, options=None):
        self.time, self.given = 0, []
        return self._obs(), self.info()

    def step(self, action):
        self.time += 1
        self.given.append(action)
        ended = self.time == 3
        return self._obs(), 1.0, ended, False, self.info()

    def _obs(self):
        return np.full(1, self.time, np.float32)

    def info(self):
        mask = np.ones(4, np.int8)
        mask[self.time] = 0
        return {"action_mask": mask * (self.time < 3)}

    def close(self):
        pass


def vector(num_envs, maker=Told, **options):
    return host.from_vector(
        SyncVectorEnv([maker] * num_envs, **options), 0, name="told", masked=True
    )


def single(num_envs, maker=Told):
    return host.from_callable(maker, num_envs, 0, name="told", masked=True)


@pytest.mark.parametrize("make", [single, vector])
def test_masks_of_resets_and_steps_come_with_the_observation(make):
    env = make(2)
    assert env.action_spec == Discrete(4, start=-1)
    assert isinstance(env.observation_spec, Masked)
    assert env.observation_spec.allowed.shape == (4,)
    rows = UnrollBuffer(*env.specs, 8, 2)
    step = env.reset()
    rows.write_step(0, step)
    for t in range(8):
        time = t % 4
        assert step.obs.obs.tolist() == [[time]] * 2
        assert step.last.tolist() == [time == 3] * 2
        expected = [i != time for i in range(4)] if time < 3 else [False] * 4
        assert step.obs.allowed.tolist() == [expected] * 2
        action = rows.write_action(t, np.full(2, 3, np.int32))
        step, reward, discount = env.step(action)
        rows.write_step(t + 1, step)
        rows.write_reward(t, reward, discount)
    rows.check()
    env.close()


def test_simulators_get_their_own_numbers():
    """S8: 0 of the stream is -1 there."""
    made = [Told(), Told()]
    makers = iter(made)
    env = host.from_callable(lambda: next(makers), 2, 0)
    env.reset()
    env.step(np.array([0, 3], np.int32))
    assert [x.given for x in made] == [[-1], [2]]


def changed(change):
    """A simulator that tells another mask from its second step on."""

    class Other(Told):
        def info(self):
            told = super().info()
            return change(told) if self.time == 2 else told

    return Other


@pytest.mark.parametrize("make", [single, vector])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda told: {}, "info of environment 0 of told.* has no 'action_mask'"),
        (
            lambda told: {"action_mask": np.ones(5, np.int8)},
            r"environment 0 of told.* is int8 \[5\], and must be .* \[4\]",
        ),
        (
            lambda told: {"action_mask": np.full(4, 2, np.int8)},
            r"environment 0 of told.* has more than 0 and 1",
        ),
        (
            lambda told: {"action_mask": np.zeros(4, np.int8)},
            "environment 0 of told, episode 0, step 2 allows no action",
        ),
    ],
)
def test_other_masks_are_refused_with_environment_and_step(make, change, told):
    env = make(1, changed(change))
    env.reset()
    action = np.zeros(1, np.int32)
    env.step(action)
    with pytest.raises(BadRowError, match=told) as error:
        env.step(action)
    assert "step 2" in str(error.value)
    env.close()


class NoArray:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("on another device")


@pytest.mark.parametrize(
    ("mask", "told"),
    [(NoArray(), "no array"), (np.ma.masked_array([1] * 4, [0, 0, 0, 1]), "itself")],
)
def test_what_cannot_be_an_array_is_no_mask(mask, told):
    env = single(1, changed(lambda info: {"action_mask": mask}))
    env.reset()
    env.step(np.zeros(1, np.int32))
    with pytest.raises(BadRowError, match=f"environment 0 of told.*step 2 is {told}"):
        env.step(np.zeros(1, np.int32))


@pytest.mark.parametrize(
    "infos",
    [
        {"action_mask": np.ones((1, 4), int)},
        {"action_mask": 1},
        {"action_mask": {}},
        {"action_mask": np.ones((2, 4), int), "_action_mask": np.ones(1, bool)},
    ],
)
def test_masks_of_fewer_environments_are_refused_with_the_one_without(infos):
    masks = InfoMasks(Discrete(4), 2, "sim")
    where = "environment {} of sim".format
    with pytest.raises(BadRowError, match=r"none for environment [01]"):
        masks.read_all(infos, where)


def test_an_unroll_names_the_row_without_an_action():
    specs = Masked(Box((1,)), Box((2,), np.dtype(bool), 0.0, 1.0))
    rows = UnrollBuffer(specs, Discrete(2), 1, 3)
    no = np.zeros(3, bool)
    for t in range(2):
        mask = np.ones((3, 2), bool)
        mask[2] = t == 0
        shown = Masked(np.zeros((3, 1), np.float32), mask)
        rows.write_step(t, host.rows.time_step(shown, no, no))
    rows.write_action(0, np.zeros(3, np.int32))
    rows.write_reward(0, np.zeros(3, np.float32), np.ones(3, np.float32))
    with pytest.raises(
        BadRowError, match="environment 2 in row 1 allows no action"
    ) as e:
        rows.check()
    assert e.value.row == 1


def test_masks_of_each_choice_are_joined_and_others_refused():
    class Several(Told):
        action_space: ClassVar = spaces.MultiDiscrete([2, 3])

        def info(self):
            return {"action_mask": (np.array([1, 0]), np.array([0, 1, 1]))}

    env = single(2, Several)
    assert env.reset().obs.allowed.tolist() == [[True, False, False, True, True]] * 2
    free = type("Free", (Told,), {"action_space": spaces.Box(-1, 1, (2,))})
    with pytest.raises(ValueError, match="masks actions that are Discrete or Multi"):
        single(1, free)
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        with pytest.raises(ValueError, match="with autoreset_mode NEXT_STEP"):
            vector(1, autoreset_mode=mode)
    with pytest.raises(ValueError, match="tells no masks of actions"):
        host.make("ALE/Pong-v5", 1, 0, masked=True)


ACTIONS = spaces.Dict({
    "steer": spaces.Box(-1.0, 1.0, (2, 1), np.float64),
    "gear": spaces.MultiDiscrete([3, 2], start=[-1, 0]),
    "brake": spaces.Discrete(2, start=5),
    "lamps": spaces.Tuple((spaces.MultiBinary(3), spaces.Discrete(2))),
})  # fmt: skip
CHOSEN = {
    "steer": np.array([[[0.5], [3.0]]] * 2, np.float32),
    "gear": np.array([[0, 1], [2, 0]], np.int32),
    "brake": np.array([0, 1], np.int32),
    "lamps": (np.array([[1, 0, 1]] * 2, np.int32), np.array([0, 1], np.int32)),
}


class Driven(Told):
    """Takes actions of several parts, which it keeps, if they are in its space."""

    action_space: ClassVar = ACTIONS

    def step(self, action):
        assert ACTIONS.contains(action), action
        return super().step(action)


class _Limited:
    id, max_episode_steps = "Driven", 3


def driven(num_envs):
    made = [Driven() for _ in range(num_envs)]
    for x in made:
        x.spec = _Limited
    makers = iter(made)
    return made, host.from_callable(lambda: next(makers), num_envs, 0)


def assert_told(given):
    first, second = given
    assert first["gear"].tolist() == [-1, 1] and second["gear"].tolist() == [1, 0]
    assert (first["brake"], second["brake"]) == (5, 6)
    # Within the bounds, and in the space's dtype.
    assert first["steer"].tolist() == [[0.5], [1.0]]
    assert first["steer"].dtype == np.float64
    assert first["lamps"][0].tolist() == [1, 0, 1] and second["lamps"][1] == 1


def test_parts_of_actions_reach_simulators_by_name():
    made, env = driven(2)
    spec = env.action_spec
    assert spec["gear"] == MultiDiscrete([3, 2], start=[-1, 0])
    assert spec["lamps"] == (MultiDiscrete([2, 2, 2]), Discrete(2))
    assert spec["brake"] == Discrete(2, start=5) and spec["steer"].shape == (2, 1)
    env.reset()
    env.step({name: CHOSEN[name] for name in sorted(CHOSEN, reverse=True)})
    assert_told([x.given[0] for x in made])
    with pytest.raises(ValueError, match="is not dict"):
        env.step(CHOSEN | {"more": CHOSEN["brake"]})
    with pytest.raises(ValueError, match=r"shape \(2, 2\), got \(2,\)"):
        env.step(CHOSEN | {"gear": CHOSEN["brake"]})
    # Those of a vector environment, too.
    vector_env = SyncVectorEnv([Driven] * 2)
    env = host.from_vector(vector_env, 0, name="driven")
    env.reset()
    env.step(CHOSEN)
    assert_told([x.given[0] for x in vector_env.envs])


def test_actions_of_parts_are_kept_shown_and_repeated():
    _, inner = driven(2)
    env = previous_action_and_reward(inner)
    rows = UnrollBuffer(*env.specs, 1, 2)
    step = env.reset()
    assert not step.obs.action["gear"].any()
    rows.write_step(0, step)
    step, *paid = env.step(rows.write_action(0, CHOSEN))
    assert step.obs.action["gear"].tolist() == CHOSEN["gear"].tolist()
    rows.write_step(1, step)
    rows.write_reward(0, *paid)
    rows.check(check_bounds=False)
    assert rows.action["lamps"][1].tolist() == [[0, 1]]
    with pytest.raises(BadRowError, match=r"action\['gear'\] has shape"):
        rows.write_action(0, CHOSEN | {"gear": CHOSEN["brake"]})
    with pytest.raises(BadRowError, match="action is dict"):
        rows.write_action(0, {"gear": CHOSEN["gear"]})
    made, again = driven(2)
    shown = previous_action_and_reward(again).restore(env.snapshot())
    assert shown.obs.action["brake"].tolist() == [0, 1]
    assert_told([x.given[0] for x in made])


@pytest.mark.slow
def test_a_simulator_that_tells_masks_is_never_asked_for_what_it_excludes(tmp_path):
    """Taxi, by PPO in threads, stepped in a process and in this one."""
    for backend in ("gymnasium", "processes"):
        env = host.make(TAXI, 2, 0, backend=backend, masked=True)
        step, rng = env.reset(), np.random.default_rng(0)
        for _ in range(30):
            assert step.obs.allowed.shape == (2, 6) and step.obs.allowed.any(1).all()
            allowed = np.where(step.obs.allowed, rng.random((2, 6)), -1)
            step, *_ = env.step(allowed.argmax(1).astype(np.int32))
        env.close()
    experiment = presets.get("ppo")
    settings = TrainingConfig(
        runs_dir=str(tmp_path), name="taxi", log_interval=1, gif=False,
        tensorboard=False, evaluation_envs=2, evaluation_episodes=1,
    )  # fmt: skip
    args = experiment.config(
        env_name=TAXI, topology="threads", masked=True, num_envs=4,
        unroll_length=8, total_steps=40, training=settings, num_minibatches=2,
    )  # fmt: skip
    trained = experiment.run(args)
    # All 200 steps cost 1; a passenger who is not there, whom masks exclude, would 10.
    assert trained.summary.evaluation["sampled_return"] >= -200
