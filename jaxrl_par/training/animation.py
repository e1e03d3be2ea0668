"""An episode as a picture that moves.

Environments that draw themselves, from their state, are asked to. Others are drawn from
observations: grids are shown as they are, a colour for each channel, classic control
from its numbers, since what gymnasium would draw it with is a large dependency.
"""

import colorsys
from collections.abc import Callable
from math import cos, pi, sin
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree
from PIL import Image, ImageDraw

from jaxrl_par import rollout
from jaxrl_par.envs import Environment
from jaxrl_par.envs.base import refuse_staggered
from jaxrl_par.envs.wrappers import WithPrevious
from jaxrl_par.training import video
from jaxrl_par.types import Agent, Box, Params, PRNGKey

_SIZE = 320
_MAX_FRAMES = 150
_MAX_STEPS = 600
_MILLISECONDS, _MILLISECONDS_OF_A_MOVE = 40, 160
_DARK, _LIGHT, _RED = (40, 44, 52), (250, 250, 250), (204, 71, 64)

Draw = Callable[[ImageDraw.ImageDraw, np.ndarray], None]


def can_draw(env: Environment) -> bool:
    """Whether `animate` knows how."""
    if env.draw is not None:
        return True
    spec = _drawn(env.observation_spec)
    if not isinstance(spec, Box):
        return False
    if env.name in _VECTORS:
        return spec.shape == (_VECTORS[env.name][0],)
    return len(spec.shape) in (2, 3) and min(spec.shape[:2]) >= 3


def animate(
    agent: Agent, env: Environment, params: Params, path: str | Path, key: PRNGKey
) -> None:
    """Writes one greedy episode, or its first 600 steps.

    Args:
      env: one environment.
      path: ends in .gif, or in .mp4 where there is an encoder.

    Raises:
      ValueError: `env` is several, or cannot be drawn, and the error says which can; or
        the path ends otherwise.
      TrainingError: the file cannot be written.
    """
    video.check_name(path)
    rollout.refuse_other_specs(agent, env)
    if env.num_envs != 1:
        raise ValueError(f"an animation shows one environment, got {env.num_envs}")
    refuse_staggered(env)
    if not can_draw(env):
        raise ValueError(
            f"{env.name} cannot be drawn from {env.observation_spec}. What can be:"
            f" observations that are images, {', '.join(sorted(_VECTORS))}, and"
            " environments with a function `draw`"
        )
    shown = _greedy_episode(agent, env, params, key)
    stride = -(-len(shown) // _MAX_FRAMES)
    # The end is always among them.
    frames = [
        _frame(env.name, x[0]) if env.draw is None else _enlarged(env.draw(x, 0))
        for x in shown[::-stride][::-1]
    ]
    milliseconds = _MILLISECONDS if env.draw is None else _MILLISECONDS_OF_A_MOVE
    video.save(frames, path, milliseconds * stride)


def _greedy_episode(
    agent: Agent, env: Environment, params: Params, key: PRNGKey
) -> list[PyTree]:
    """The T+1 observations of one episode, or its states if they are what is drawn."""
    start_key, act_key = jax.random.split(key)
    length = min(env.max_episode_steps or _MAX_STEPS, _MAX_STEPS)

    @jax.jit
    def play(params: Params):
        params = agent.settle(params)

        def advance(workers, key):
            act_key, env_key = jax.random.split(key)
            step = workers.step
            action, carry, _ = agent.greedy(params, workers.carry, step, act_key)
            env_state, after, _, _ = env.step(workers.env_state, action, env_key)
            shown = _drawn(step.obs) if env.draw is None else workers.env_state
            return rollout.Streams(env_state, after, carry), (shown, step.last)

        # One more than the steps, since each shows where it starts.
        keys = jax.random.split(act_key, length + 1)
        return jax.lax.scan(advance, rollout.start(agent, env, start_key), keys)[1]

    shown, last = jax.device_get(play(params))
    ends = np.flatnonzero(last[:, 0])
    end = ends[0] if ends.size else length
    return [jax.tree.map(lambda x, t=t: x[t], shown) for t in range(end + 1)]


def _drawn(obs: PyTree) -> PyTree:
    """The observation, or its spec, without the previous action and reward."""
    return obs.obs if isinstance(obs, WithPrevious) else obs


def _frame(name: str, obs: np.ndarray) -> Image.Image:
    if name not in _VECTORS:
        return _enlarged(_grid(obs))
    image = Image.new("RGB", (_SIZE, _SIZE), _LIGHT)
    _VECTORS[name][1](ImageDraw.Draw(image), obs)
    return image


def _enlarged(picture: np.ndarray) -> Image.Image:
    """An image of it, with large pixels if they are few."""
    height, width = picture.shape[:2]
    scale = max(_SIZE // max(height, width), 1)
    size = (width * scale, height * scale)
    return Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)


def _grid(obs: np.ndarray) -> np.ndarray:
    """Colours [H, W, 3] of an image, whose later channels lie over earlier ones."""
    channels = obs.reshape(*obs.shape[:2], -1).astype(np.float32)
    low, high = channels.min(), channels.max()
    weights = (channels - low) / (high - low) if high > low else channels - low
    picture = np.zeros((*obs.shape[:2], 3))
    for i, weight in enumerate(np.split(weights, weights.shape[-1], axis=-1)):
        colour = np.array(colorsys.hsv_to_rgb(i / weights.shape[-1], 0.65, 0.95))
        picture = (1 - weight) * picture + weight * colour
    return (255 * picture).astype(np.uint8)


def _cart_pole(draw: ImageDraw.ImageDraw, obs: np.ndarray) -> None:
    x, angle = _SIZE / 2 + float(obs[0]) / 2.4 * _SIZE / 2, float(obs[2])
    ground = 0.75 * _SIZE
    draw.line((0, ground, _SIZE, ground), fill=_DARK, width=2)
    draw.rectangle((x - 28, ground - 30, x + 28, ground), fill=_DARK)
    tip = (x + 130 * sin(angle), ground - 30 - 130 * cos(angle))
    draw.line((x, ground - 30, *tip), fill=_RED, width=9)


def _pendulum(draw: ImageDraw.ImageDraw, obs: np.ndarray) -> None:
    # The angle is 0 upright; obs is (cos, sin, velocity).
    middle = _SIZE / 2
    tip = (middle - 125 * float(obs[1]), middle - 125 * float(obs[0]))
    draw.line((middle, middle, *tip), fill=_RED, width=16)
    draw.ellipse((middle - 6, middle - 6, middle + 6, middle + 6), fill=_DARK)


def _acrobot(draw: ImageDraw.ImageDraw, obs: np.ndarray) -> None:
    # obs is (cos, sin) of both angles; 0 hangs down, the second adds to the first.
    first = np.arctan2(float(obs[1]), float(obs[0]))
    second = first + np.arctan2(float(obs[3]), float(obs[2]))
    middle, length = _SIZE / 2, 70
    elbow = (middle + length * sin(first), middle + length * cos(first))
    tip = (elbow[0] + length * sin(second), elbow[1] + length * cos(second))
    draw.line((0, middle - length, _SIZE, middle - length), fill=_DARK, width=2)
    draw.line((middle, middle, *elbow), fill=_DARK, width=10)
    draw.line((*elbow, *tip), fill=_RED, width=10)


def _mountain_car(draw: ImageDraw.ImageDraw, obs: np.ndarray) -> None:
    def place(position: float) -> tuple[float, float]:
        height = sin(3 * position) * 0.45 + 0.55
        return (position + 1.2) / 1.8 * _SIZE, _SIZE * (0.9 - 0.6 * height)

    hill = [place(-1.2 + 1.8 * i / 60) for i in range(61)]
    draw.line(hill, fill=_DARK, width=3)
    flag_x, flag_y = place(pi / 6)
    draw.line((flag_x, flag_y, flag_x, flag_y - 40), fill=_DARK, width=3)
    x, y = place(float(obs[0]))
    draw.ellipse((x - 12, y - 24, x + 12, y), fill=_RED)


_VECTORS: dict[str, tuple[int, Draw]] = {
    "CartPole-v1": (4, _cart_pole),
    "Pendulum-v1": (3, _pendulum),
    "Acrobot-v1": (6, _acrobot),
    "MountainCar-v0": (2, _mountain_car),
    "MountainCarContinuous-v0": (2, _mountain_car),
}
"""Elements of the observation, and what draws it."""
