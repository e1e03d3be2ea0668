"""Atari games: their rows, images and settings."""

import numpy as np
import pytest
from host_checks import check

from jaxrl_par.envs.host import from_vector, make
from jaxrl_par.envs.host.atari import atari
from jaxrl_par.types import Discrete

pytest.importorskip("ale_py")


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("name", "actions"), [("ALE/Pong-v5", 6), ("ALE/Breakout-v5", 4)]
)
def test_games_keep_the_contract(name, actions):
    env = make(name, 3, 0)
    assert (env.name, env.max_episode_steps) == (name, 27_000)
    assert env.action_spec == Discrete(actions)
    spec = env.observation_spec
    assert spec.shape == spec.low.shape == (84, 84, 4) and spec.dtype == np.uint8
    steps, *_ = check(env, 60)
    assert steps.obs.flags.c_contiguous
    # The newest frame is the last channel, and moves one down in each step.
    np.testing.assert_array_equal(steps.obs[1:, ..., 2], steps.obs[:-1, ..., 3])
    assert (steps.obs[1:, ..., 3] != steps.obs[:-1, ..., 3]).any()
    # Up to 30 no-ops set them apart.
    assert (steps.obs[10, 0] != steps.obs[10, 1]).any()
    env.close()
    env.close()


def test_settings_are_the_published_ones(monkeypatch):
    import ale_py

    made = {}
    kind = ale_py.ALEVectorInterface

    def spy(**options):
        made.update(options)
        return kind(**options)

    monkeypatch.setattr(ale_py, "ALEVectorInterface", spy)
    make("ALE/Pong-v5", 1, 0)
    published = {
        "frame_skip": 4,
        "maxpool": True,
        "grayscale": True,
        "noop_max": 30,
        "stack_num": 4,
        "reward_clipping": False,
        "episodic_life": False,
        "use_fire_reset": False,
        "full_action_space": False,
        "repeat_action_probability": 0.0,
        "max_episode_steps": 108_000,
        "autoreset_mode": "NextStep",
    }
    assert {key: made[key] for key in published} == published
    env = atari("ALE/Pong-v5", 1, 0, full_action_space=True, sticky_actions=0.25)
    assert env.action_spec == Discrete(18)
    assert made["repeat_action_probability"] == 0.25


@pytest.mark.slow
def test_seeds_decide():
    def images(seed):
        env = make("ALE/Breakout-v5", 2, seed)
        env.reset()
        return np.stack([env.step(np.array([1, 1]))[0].obs for _ in range(30)])

    np.testing.assert_array_equal(images(0), images(0))
    assert (images(0) != images(1)).any()


@pytest.mark.sample(1)
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_both_modes_give_the_same_kind_of_stream(mode):
    from ale_py.vector_env import AtariVectorEnv

    # 40 frames are ten steps.
    vector_env = AtariVectorEnv(
        "breakout",
        2,
        autoreset_mode=mode,
        max_num_frames_per_episode=40,
        noop_max=30,
        use_fire_reset=False,
    )
    env = from_vector(vector_env, 0, name="Breakout")
    steps, _, _, discount = check(env, 60)
    np.testing.assert_array_equal(steps.last[:, 0], np.arange(61) % 11 == 10)
    assert (discount[~steps.first[1:]] == 1).all()
    stacks = steps.obs.reshape(61, 2, 4, -1)
    # The final stack goes on from the one before, and the next one starts afresh.
    np.testing.assert_array_equal(stacks[10, :, :3], stacks[9, :, 1:])
    np.testing.assert_array_equal(stacks[22, :, :3].any(-1), np.zeros((2, 3), bool))
    assert stacks[22, :, 3].any()


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match="did you mean 'ALE/Pong-v5'"):
        make("ALE/Pong-v4", 1, 0)
    with pytest.raises(ValueError, match="use backend 'gymnasium'"):
        make("ALE/Pong-v5", 1, 0, backend="processes")
