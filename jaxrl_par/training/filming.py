"""An episode of a simulator as a picture that moves, drawn by the simulator itself.

`animation` does the same for pure environments.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.wrappers import WithPrevious
from jaxrl_par.errors import RefusedError
from jaxrl_par.training import video
from jaxrl_par.types import Agent, Box, Params, PRNGKey

_SIZE = 320
"""The longer side of a frame."""
_MAX_FRAMES, _MAX_STEPS = 150, 1000
_SECONDS = 30.0
"""After which an episode is left, where drawing or the simulator is slow."""
_MILLISECONDS = 40


def film(
    agent: Agent,
    env: HostEnvironment,
    params: Params,
    path: str | Path,
    key: PRNGKey,
    *,
    max_steps: int = _MAX_STEPS,
) -> None:
    """Writes one greedy episode, or as much of it as half a minute can draw.

    Frames have at most 320 pixels a side; of a long episode, 150 frames are kept.

    Args:
      env: one environment that draws itself, as `host.make(..., render=True)` makes
        it, or shows images. It is reset, and not closed.
      path: ends in .gif, or in .mp4 where there is an encoder.

    Raises:
      ValueError: `env` is several or cannot be drawn, or the path ends otherwise.
      TrainingError: the file cannot be written.
    """
    video.check_name(path)
    if env.num_envs != 1:
        raise RefusedError(f"a film shows one environment, got {env.num_envs}")
    frames, stride, latest = [], 1, None
    for number, picture in enumerate(_pictures(agent, env, params, key, max_steps)):
        latest = _frame(picture)
        if number % stride == 0:
            frames.append(latest)
        if len(frames) > _MAX_FRAMES:
            frames, stride = frames[::2], 2 * stride
    # The end is always among them.
    if latest is not frames[-1] and latest is not None:
        frames.append(latest)
    video.save(frames, path, _MILLISECONDS * stride)


def _pictures(
    agent: Agent, env: HostEnvironment, params: Params, key: PRNGKey, max_steps: int
) -> Iterator[np.ndarray]:
    """What each step shows, from the first to the last."""
    cpu = jax.local_devices(backend="cpu")[0]
    params, key = jax.device_put((agent.settle(params), key), cpu)
    began = time.monotonic()

    @jax.jit
    def act(params: Params, carry, step, t):
        return agent.greedy(params, carry, step, jax.random.fold_in(key, t))[:2]

    with jax.default_device(cpu):
        step, carry = env.reset(), agent.initial_carry(1)
        yield _picture(env, step.obs)
        for t in range(max_steps):
            action, carry = act(params, carry, step, np.int32(t))
            step, _, _ = env.step(jax.tree.map(np.asarray, action))
            yield _picture(env, step.obs)
            if step.last[0] or time.monotonic() - began > _SECONDS:
                return


def _picture(env: HostEnvironment, obs) -> np.ndarray:
    """[H, W, 3] uint8"""
    drawn = env.render()
    if drawn is not None:
        return drawn
    spec = env.observation_spec
    if isinstance(spec, WithPrevious):
        spec, obs = spec.obs, obs.obs
    if isinstance(spec, Box) and spec.dtype == np.uint8 and len(spec.shape) == 3:
        image = np.asarray(obs)[0]
        # Of frames in a stack, the newest.
        return image if image.shape[-1] == 3 else np.repeat(image[..., -1:], 3, axis=-1)
    raise RefusedError(
        f"{env.name} cannot be drawn: it has no render() of mode 'rgb_array', and shows"
        " no images. Simulators of EnvPool, and those in processes, draw nothing"
    )


def _frame(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(picture)
    if max(image.size) > _SIZE:
        scale = _SIZE / max(image.size)
        size = [max(round(side * scale), 1) for side in image.size]
        return image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    scale = _SIZE // max(image.size)
    size = image.width * scale, image.height * scale
    return image.resize(size, Image.Resampling.NEAREST)
