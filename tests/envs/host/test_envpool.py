"""EnvPool's environments, against what the installed version is said to do."""

import importlib.util
import sys

import numpy as np
import pytest
from host_checks import check, lengths

from jaxrl_par.envs.host import from_envpool, make
from jaxrl_par.envs.host.envpool import channels_last, channels_last_spec
from jaxrl_par.types import Box, Discrete

installed = pytest.mark.skipif(
    importlib.util.find_spec("envpool") is None, reason="needs EnvPool"
)


@installed
def test_rows_are_those_of_the_stream():
    env = from_envpool("CartPole-v1", 8, 0, num_threads=2)
    assert (env.name, env.max_episode_steps) == ("CartPole-v1", 500)
    steps, actions, reward, discount = check(env, 150)
    assert steps.last.any(axis=0).all()
    moved = ~steps.first[1:]
    assert (reward[moved] == 1).all()
    fell = (np.abs(steps.obs[..., 2]) > 0.2095) | (np.abs(steps.obs[..., 0]) > 2.4)
    np.testing.assert_array_equal(steps.last, fell)
    np.testing.assert_array_equal(discount[moved], ~steps.last[1:][moved])
    # The position changes by the velocity before: rows and environments in order.
    known = steps.obs[:-1, :, 0] + 0.02 * steps.obs[:-1, :, 1]
    np.testing.assert_allclose(steps.obs[1:, :, 0][moved], known[moved], atol=1e-6)
    # To the right with action 1.
    faster = steps.obs[1:, :, 1] > steps.obs[:-1, :, 1]
    np.testing.assert_array_equal(faster[moved], actions[moved] == 1)
    env.close()


@installed
def test_a_time_limit_truncates():
    env = from_envpool("CartPole-v1", 4, 0, max_episode_steps=6)
    assert env.max_episode_steps == 6
    steps, _, _, discount = check(env, 40)
    assert lengths(steps) == [[6] * 5] * 4
    assert (discount[~steps.first[1:]] == 1).all()


@installed
def test_the_row_after_the_end_ignores_its_action_and_elapses_no_step():
    env = from_envpool("CartPole-v1", 2, 0, max_episode_steps=3)
    pool, elapsed = env._vector_env, []
    step = pool.step
    pool_step = lambda action: elapsed.append(step(action)) or elapsed[-1]  # noqa: E731
    env._vector_env = type("Pool", (), {"step": staticmethod(pool_step)})()
    env._vector_env.reset, env._vector_env.unwrapped = pool.reset, pool
    check(env, 8)
    found = [row[-1]["elapsed_step"][0] for row in elapsed]
    assert found == [1, 2, 3, 0, 1, 2, 3, 0]


@installed
def test_seeds_make_environments_and_runs_differ():
    def start(seed):
        env = from_envpool("CartPole-v1", 4, seed)
        return env.reset().obs[:, 0]

    np.testing.assert_array_equal(start(0), start(0))
    assert len(set(start(0)) | set(start(1)) | set(start(2))) == 12


@installed
def test_rows_in_another_order_are_refused():
    env = from_envpool("CartPole-v1", 2, 0)
    pool = env._vector_env
    obs, info = pool.reset()
    turned = {**info, "env_id": info["env_id"][::-1]}
    env._vector_env = type("Pool", (), {"unwrapped": pool})()
    env._vector_env.reset = lambda **_: (obs, turned)
    with pytest.raises(RuntimeError, match="not for all in order"):
        env.reset()


@installed
@pytest.mark.parametrize("name", ["LunarLander-v3", "FrozenLake-v1", "Pendulum-v1"])
def test_other_simulators(name):
    env = from_envpool(name, 3, 0)
    check(env, 120)
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.step(np.zeros((3, *env.action_spec.shape), env.action_spec.dtype))


@installed
def test_images_have_their_channels_last():
    env = from_envpool("Pong-v5", 2, 0)
    assert env.observation_spec.shape == (84, 84, 4)
    assert env.observation_spec.high.shape == (84, 84, 4)
    plain = env._vector_env.reset()[0]
    np.testing.assert_array_equal(env.reset().obs[..., 3] > 0, plain[:, 3] > 0)
    steps, *_ = check(env, 10)
    # The newest frame is the last channel, and moves one down in each step.
    np.testing.assert_array_equal(steps.obs[1:, ..., 2], steps.obs[:-1, ..., 3])


def test_only_the_axis_of_channels_moves():
    spec = Box((2, 3, 5), np.dtype(np.uint8), low=np.zeros((2, 3, 5)), high=255.0)
    obs = np.arange(4 * 30, dtype=np.uint8).reshape(4, 2, 3, 5)
    moved = channels_last({"a": (spec,)}, {"a": (obs,)})["a"][0]
    assert channels_last_spec((spec,))[0].shape == (3, 5, 2)
    assert channels_last_spec((spec,))[0].low.shape == (3, 5, 2)
    assert moved.shape == (4, 3, 5, 2) and moved.flags.c_contiguous
    for k in range(2):
        np.testing.assert_array_equal(moved[..., k], obs[:, k])
    for other in (Box((5, 3, 2), spec.dtype), Box((2, 3, 5)), Box((2, 3), spec.dtype)):
        assert channels_last_spec(other) is other


@installed
def test_dictionaries():
    env = from_envpool("MiniGrid-Empty-8x8-v0", 2, 0)
    assert env.observation_spec["direction"] == Discrete(4)
    assert env.observation_spec["image"].shape == (7, 7, 3)
    check(env, 30)


@installed
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Cartpole-v1", {}, "did you mean 'CartPole-v1'"),
        ("Breakout-MinAtar", {}, "is a pure environment, and no simulator: use"),
        ("CartPole-v1", {"max_episode_step": 5}, "did you mean 'max_episode_steps'"),
        ("CartPole-v1", {"batch_size": 1}, "batch_size"),
        ("CartPole-v1", {"max_num_players": 2}, "max_num_players"),
    ],
)
def test_wrong_names_and_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        from_envpool(name, 2, 0, **options)
    assert len(str(error.value)) < 1000


@installed
def test_make_knows_the_backend():
    env = make("CartPole-v1", 2, 0, backend="envpool")
    assert type(env).__name__ == "_EnvPoolHost"


def test_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxrl-par\[envpool\]'"):
        make("CartPole-v1", 2, 0, backend="envpool")
