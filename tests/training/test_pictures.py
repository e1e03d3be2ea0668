"""Pictures: the curve, and an episode that moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxrl_par import envs, random
from jaxrl_par.envs.wrappers import (
    normalize_rewards,
    previous_action_and_reward,
    select_observation,
)
from jaxrl_par.training import plots
from jaxrl_par.training.animation import _VECTORS, _frame, animate, can_draw
from jaxrl_par.training.display import sparkline
from jaxrl_par.training.plots import draw_curve
from jaxrl_par.types import Agent, Discrete


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), np.int64)


def constant(env: envs.Environment, action: int) -> Agent:
    """Greedily does the same all the time; sampled, it would fail."""

    def greedy(params, carry, step, key):
        if isinstance(env.action_spec, Discrete):
            return jnp.full(step.first.shape, action), carry, {}
        return jnp.zeros((*step.first.shape, *env.action_spec.shape)), carry, {}

    def none(*args):
        raise AssertionError("only the greedy action is shown")

    return Agent(none, lambda num_envs: (), none, none, none, greedy)


def test_the_curve_shows_the_returns(tmp_path):
    rows = [{"env_steps": 10 * i, "episode_return": float(i)} for i in range(10)]
    draw_curve(rows, tmp_path / "up.png")
    draw_curve(
        [*rows[:5], {"env_steps": 45, "episode_return": None}], tmp_path / "b.png"
    )
    draw_curve([], tmp_path / "empty.png")
    up, empty = pixels(tmp_path / "up.png"), pixels(tmp_path / "empty.png")
    blue = (up[..., 2] > up[..., 0] + 80).nonzero()
    assert blue[0][blue[1].argmin()] > blue[0][blue[1].argmax()]  # it rises
    assert not (empty[..., 2] > empty[..., 0] + 80).any()


def test_the_curve_of_a_population_has_a_band(tmp_path):
    rows = [
        {"env_steps": i, "episode_return": [float(i), None, 3.0 * i]} for i in range(9)
    ]
    draw_curve(rows, tmp_path / "band.png")
    image = pixels(tmp_path / "band.png")
    light = (image[..., 2] > image[..., 0] + 20) & (image[..., 0] > 150)
    assert light.mean() > 0.05


def test_the_global_state_of_matplotlib_is_left_alone(tmp_path):
    import matplotlib.pyplot as plt

    draw_curve([], tmp_path / "empty.png")
    assert not plt.get_fignums()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Breakout-MinAtar"])
def test_an_episode_moves(tmp_path, name):
    env = envs.make(name, 1)
    animate(constant(env, 1), env, None, tmp_path / "episode.gif", random.key(0))
    image = Image.open(tmp_path / "episode.gif")
    assert 2 < image.n_frames <= 150
    first = pixels(tmp_path / "episode.gif")
    image.seek(image.n_frames - 1)
    assert (np.asarray(image.convert("RGB")) != first).any()
    if name == "CartPole-v1":  # pushed to one side all the time, it falls at once
        assert image.n_frames < 15


@pytest.mark.slow
def test_a_long_episode_is_thinned(tmp_path):
    env = envs.make("Pendulum-v1", 1, max_steps_in_episode=400)
    animate(constant(env, 0), env, None, tmp_path / "episode.gif", random.key(0))
    assert 100 < Image.open(tmp_path / "episode.gif").n_frames <= 150


@pytest.mark.slow
def test_environments_that_draw_themselves_are_asked_to(tmp_path):
    inner = envs.make("IMaze-5x5", 1)
    # Neither its observation nor the state around its state can be drawn.
    env = normalize_rewards(previous_action_and_reward(inner), gamma=0.9)
    assert can_draw(env) and not can_draw(env._replace(draw=None))
    animate(constant(env, 0), env, None, tmp_path / "episode.gif", random.key(0))
    image = Image.open(tmp_path / "episode.gif")
    assert min(image.size) >= 320
    # Ahead, into the wall above the goals: the stands that follow are one frame.
    assert image.n_frames == 3
    durations = []
    for i in range(3):
        image.seek(i)
        durations.append(image.info["duration"])
    stands = env.max_episode_steps - 2
    assert durations == [160, 160, 160 * stands + 1000]
    start_key = jax.random.split(random.key(0))[0]
    expected = env.draw(jax.jit(env.reset)(start_key)[0], 0).astype(np.int64)
    np.testing.assert_allclose(pixels(tmp_path / "episode.gif"), expected, atol=8)


def test_the_end_of_an_episode_is_always_shown(tmp_path):
    seen = []

    def draw(env_state, i):
        seen.append(int(env_state.episode.length[i]))
        return np.zeros((2, 3, 3), np.uint8)

    for length, shown in ((4, [0, 1, 2, 3, 4]), (299, [*range(1, 300, 2)])):
        env = envs.make("Pendulum-v1", 1, max_steps_in_episode=length)
        env = env._replace(draw=draw)
        seen.clear()
        animate(constant(env, 0), env, None, tmp_path / "x.gif", random.key(0))
        assert seen == shown
    # A small picture is enlarged, as far as whole pixels go.
    assert Image.open(tmp_path / "x.gif").size == (318, 212)


def test_a_pendulum_is_drawn_as_it_hangs():
    up = np.asarray(_frame("Pendulum-v1", np.array([1.0, 0.0, 0.0])).convert("RGB"))
    red = (up[..., 0].astype(int) - up[..., 1] > 80).nonzero()[0]
    assert red.max() < 180  # above the middle of 320
    down = np.asarray(_frame("Pendulum-v1", np.array([-1.0, 0.0, 0.0])).convert("RGB"))
    red = (down[..., 0].astype(int) - down[..., 1] > 80).nonzero()[0]
    assert red.min() > 140


def test_every_vector_that_is_drawn_is_one_of_gymnax():
    for name, (size, _) in _VECTORS.items():
        env = envs.make(name, 1)
        assert can_draw(env) and env.observation_spec.shape == (size,)
        obs = jax.jit(env.reset)(random.key(0))[1].obs
        assert len(_frame(name, np.asarray(obs[0])).convert("RGB").getcolors()) > 1


def test_what_cannot_be_drawn_is_refused_with_what_can(tmp_path):
    env = envs.make("UmbrellaChain-bsuite", 1)
    with pytest.raises(ValueError, match=r"Umbrella.*cannot be drawn.*CartPole-v1"):
        animate(constant(env, 0), env, None, tmp_path / "x.gif", random.key(0))
    assert not can_draw(select_observation(envs.make("CartPole-v1", 1), (0, 2)))
    with pytest.raises(ValueError, match="one environment, got 2"):
        env = envs.make("CartPole-v1", 2)
        animate(constant(env, 0), env, None, tmp_path / "x.gif", random.key(0))


def test_the_curve_is_there_while_training_runs(tmp_path, monkeypatch):
    rows = []
    live = plots.LiveCurve(tmp_path / "curve.png", rows)
    clock = iter([1e9, 1e9, 1e9 + 1.0])
    monkeypatch.setattr(plots.time, "monotonic", lambda: next(clock))
    rows.append({"env_steps": 1, "episode_return": 1.0})
    live.write(rows[-1])
    drawn = (tmp_path / "curve.png").read_bytes()
    rows.append({"env_steps": 2, "episode_return": 5.0})
    live.write(rows[-1])  # a second later: too soon
    assert (tmp_path / "curve.png").read_bytes() == drawn
    live.close()
    assert (tmp_path / "curve.png").read_bytes() != drawn


def test_a_sparkline_rises_with_its_values():
    assert sparkline([]) == ""
    assert sparkline([1.0]) == "▁"
    assert sparkline([0.0, 1.0, 2.0, 7.0]) == "▁▂▃█"
    long = sparkline([float(i) for i in range(1000)])
    assert len(long) == 20
    assert long == "".join(sorted(long)) and (long[0], long[-1]) == ("▁", "█")
