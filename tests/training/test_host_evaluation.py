"""Evaluation on simulators: a bound, hangs and signals, in threads that end."""

import os
import signal
import threading
import time

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces
from scripted import AGENT, EPISODE, NUM_ENVS, Call, Scripted, World
from warned import warned

from jaxrl_par.bridge.supervision import HangError, SupervisionConfig
from jaxrl_par.envs.host import from_callable
from jaxrl_par.envs.host.wrappers import previous_action_and_reward
from jaxrl_par.training.evaluation import results
from jaxrl_par.training.host_evaluation import host_evaluator, simulators
from jaxrl_par.training.interrupts import Interrupted, interrupts

KEY = jax.random.key(0)
SOON = SupervisionConfig(env_timeout=0.5, close_seconds=0.5)


def make(world: World) -> Scripted:
    world.made.append(Scripted(world, 0, 0))
    return world.made[-1]


def play(world, episodes=2, max_steps=None, supervision=SOON):
    with simulators(lambda: make(world), supervision) as env:
        return host_evaluator(AGENT, episodes, max_steps, supervision)(env, None, KEY)


def hang_in(world: World, kind: str) -> None:
    def before(call: Call) -> None:
        if call.kind == kind and call.step >= (kind == "step"):
            world.hang()

    world.before = before


def test_episodes_are_cut_where_they_would_not_end(world):
    """S13: greedy actions that push a wall."""
    whole = play(world)
    assert whole.complete and np.all(whole.returns == EPISODE)
    nowhere = np.zeros(NUM_ENVS, bool)

    def endless(call, rows):
        if call.kind == "reset":
            return rows
        return (rows[0]._replace(first=nowhere, last=nowhere), *rows[1:])

    world.after = endless
    cut = play(world, episodes=3, max_steps=20)
    # The steps that would have begun an episode paid nothing.
    assert np.all(cut.returns[0] == 18) and np.all(cut.lengths[0] == 20)
    assert np.isnan(cut.returns[1:]).all() and cut.num_cut == 3 * NUM_ENVS
    Scripted.max_episode_steps = None
    try:
        with pytest.raises(ValueError, match="Scripted has no time limit"):
            play(world)
    finally:
        Scripted.max_episode_steps = EPISODE
    assert not world.unclosed()


class Short(gymnasium.Env):
    """Fails after one step, or succeeds after three."""

    observation_space = spaces.Box(0, 9, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length):
        self.length, self.time = length, 0

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        info = {"is_success": self.length == 3, "energy": 2.0 * self.length}
        over = self.time == self.length
        return np.zeros(1, np.float32), 1.0, over, False, info


def test_every_environment_counts_the_same_in_what_simulators_tell():
    lengths = iter([1, 3])
    made = from_callable(lambda: Short(next(lengths)), 2, 0, info_metrics=["energy"])
    with simulators(lambda: previous_action_and_reward(made), SOON) as env:
        result = host_evaluator(AGENT, 4, 10, SOON)(env, None, KEY)
    told = {"return": 2.0, "success_rate": 0.5, "info_energy": 4.0}
    assert results(result) == told
    assert result.info["success_rate"] == (4, 8)


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["reset", "step"])
def test_a_hang_is_an_error_that_names_it(world, kind):
    hang_in(world, kind)
    with pytest.raises(HangError, match=f"evaluation: {kind} has not returned") as info:
        play(world)
    assert info.value.__notes__ == ["in an evaluation of Scripted"]
    assert not world.unclosed()


@pytest.mark.slow
def test_a_close_that_hangs_is_a_warning(world):
    hang_in(world, "close")
    with warned("closing Scripted after an evaluation failed with HangError"):
        assert play(world).complete


def test_a_signal_ends_it_though_a_simulator_hangs(world):
    hang_in(world, "step")
    patient = SupervisionConfig(env_timeout=60.0, close_seconds=0.5)

    def send():
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    started = time.monotonic()
    with (
        interrupts() as signals,
        pytest.raises(Interrupted) as ended,
        signals.answered_at_once(lambda: None),
    ):
        play(world, supervision=patient)
    assert ended.value.code == 75 and time.monotonic() - started < 20
    assert not world.unclosed()
