"""Simulators whose rows are known. Worker processes import this: no jax here."""

import multiprocessing
import os
import sys
import time

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv


class Counter(gymnasium.Env):
    """Shows [time, previous action, seed of the episode]; pays time + 0.1 * action.

    Args:
      ending: "terminated", "truncated" or "both", after `length` steps.
    """

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = spaces.Discrete(5)

    def __init__(self, length=3, ending="terminated"):
        self.length, self.ending, self.seed, self.time = length, ending, -1, None
        self.resets = 0

    def reset(self, *, seed=None, options=None):
        self.seed = self.seed if seed is None else seed
        self.time, self.resets = 0, self.resets + 1
        return self._obs(0), {}

    def step(self, action):
        assert self.time is not None and self.time < self.length, (
            "stepped after the end"
        )
        assert 0 <= action < 5
        reward = self.time + 0.1 * action
        self.time += 1
        over = self.time == self.length
        return (
            self._obs(action),
            reward,
            over and self.ending in ("terminated", "both"),
            over and self.ending in ("truncated", "both"),
            {},
        )

    def _obs(self, action):
        return np.array([self.time, action, self.seed], np.float64)


class Telling(Counter):
    """Tells in each step how far it is; at the end also whether the length is odd."""

    def step(self, action):
        obs, reward, terminated, truncated, _ = super().step(action)
        info = {"time": self.time, "action": int(action), "word": "far"}
        if terminated or truncated:
            info |= {"is_success": self.length % 2 == 1, "flag": np.bool_(True)}
        return obs, reward, terminated, truncated, info

    def reset(self, **options):
        return super().reset(**options)[0], {"is_success": True, "time": 1000}


class Unusual(gymnasium.Env):
    """Spaces of every kind; actions -2 .. 1, of which the last is shown."""

    observation_space = spaces.Dict(
        {
            "taken": spaces.Discrete(4, start=-2),
            "pair": spaces.Tuple(
                (spaces.MultiBinary(3), spaces.Box(0, 9, (), np.int64))
            ),
            "image": spaces.Box(0, 255, (2, 2, 1), np.uint8),
        }
    )
    action_space = spaces.Discrete(4, start=-2)

    def __init__(self):
        self.time = 0

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self._obs(-2), {}

    def step(self, action):
        self.time += 1
        return self._obs(int(action)), 1, False, self.time == 4, {}

    def _obs(self, action):
        bits = np.array([self.time >> k & 1 for k in range(3)], np.int8)
        image = np.full((2, 2, 1), 10 * self.time, np.uint8)
        pair = (bits, np.array(self.time, np.int64))
        return {"taken": np.int64(action), "pair": pair, "image": image}


class Hang(Counter):
    """Sleeps in the step with action 4, for longer than any test."""

    def step(self, action):
        if action == 4:
            time.sleep(1000)
        return super().step(action)


class Faulty(Counter):
    """Fails in the step with action 4."""

    def step(self, action):
        if action == 4:
            raise ZeroDivisionError("as told")
        return super().step(action)


class Batch(VectorEnv):
    """A vector environment of its own kind, with or without respect for masks.

    Shows [time, reset number of the environment], ends after `lengths` steps.
    """

    metadata = {"autoreset_mode": None}  # noqa: RUF012
    single_observation_space = spaces.Dict({"x": spaces.Box(-9, 999, (2,), np.float32)})
    single_action_space = spaces.Box(-1, 1, (2,), np.float64)

    def __init__(self, mode, lengths=(2, 3), keeps_to_mask=True):
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.num_envs, self.lengths = len(lengths), np.array(lengths)
        self.mode, self.keeps_to_mask = mode, keeps_to_mask
        self.time = np.zeros(self.num_envs, int)
        self.resets = np.zeros(self.num_envs, int)

    def reset(self, *, seed=None, options=None):
        assert seed is None or isinstance(seed, int)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        mask = mask if self.keeps_to_mask else np.ones(self.num_envs, bool)
        self.time[mask] = 0
        self.resets[mask] += 1
        return self._obs(), {}

    def step(self, actions):
        assert actions.dtype == np.float64
        self.time += 1
        over = self.time == self.lengths
        infos = {}
        if over.any():
            infos["final_obs"] = self._obs()
            self.time[over] = 0
            self.resets[over] += 1
        return self._obs(), actions.sum(1), over, np.zeros_like(over), infos

    def _obs(self):
        return {"x": np.stack([self.time, self.resets], 1).astype(np.float32)}


class Returns(gymnasium.Env):
    """Shows images of zeros; from the second step on, one result is another value."""

    observation_space = spaces.Box(0, 255, (2, 2, 1), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self, index=1, value=1.0):
        self.index, self.value, self.time = index, value, 0

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros((2, 2, 1), np.uint8), {}

    def step(self, action):
        self.time += 1
        results = [np.zeros((2, 2, 1), np.uint8), 1.0, False, False, {}]
        if self.time > 1:
            results[self.index] = self.value
        return tuple(results)


class Exits(Counter):
    """Ends the process that makes it: one of its own, or where the first is made."""

    def __init__(self, where):
        super().__init__()
        apart = multiprocessing.parent_process() is not None
        if where == "dies" and apart:
            os._exit(3)
        if where == "here" or (where == "in its process" and apart):
            sys.exit(0)
