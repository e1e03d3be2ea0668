"""Films of simulators, and the files that they are written to."""

import errno
import os
import stat
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxrl_par import random
from jaxrl_par.envs.host import HostEnvironment, from_callable, make
from jaxrl_par.envs.host.wrappers import previous_action_and_reward
from jaxrl_par.errors import RefusedError
from jaxrl_par.training import filming, video
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.types import Agent

spaces = pytest.importorskip("gymnasium").spaces


class Drawn:
    """Ends after so many steps; its picture says how many there were."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)
    render_mode = "rgb_array"

    def __init__(self, length=5, size=(40, 60)):
        self.length, self.size, self.time = length, size, 0

    def reset(self, *, seed=None):
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(1, np.float32), 1.0, self.time == self.length, False, {}

    def render(self):
        return np.full((*self.size, 3), self.time % 256, np.uint8)

    def close(self):
        """Has nothing to free."""


class Images(Drawn):
    """Draws nothing, and shows a stack of two images, of which the last is new."""

    observation_space = spaces.Box(0, 255, (8, 8, 2), np.uint8)
    render_mode = None

    def reset(self, *, seed=None):
        return self._obs(), {}

    def step(self, action):
        self.time += 1
        return self._obs(), 1.0, self.time == self.length, False, {}

    def _obs(self):
        return np.stack([np.zeros((8, 8)), np.full((8, 8), self.time)], -1).astype("u1")


def greedy(params, carry, step, key):
    return jnp.zeros(step.first.shape, jnp.int32), carry, {}


def none(*args):
    raise AssertionError("only the greedy action is shown")


AGENT = Agent(none, lambda num_envs: (), none, none, none, greedy)


def simulator(kind=Drawn, **options):
    return from_callable(lambda: kind(**options), 1, 0)


def shown(env, path, **options):
    """The grey of each frame, and their durations."""
    filming.film(AGENT, env, None, path, random.key(0), **options)
    image, greys, durations = Image.open(path), [], []
    for number in range(image.n_frames):
        image.seek(number)
        greys.append(image.convert("RGB").getpixel((0, 0))[0])
        durations.append(image.info["duration"])
    return image.size, greys, durations


@pytest.mark.parametrize("kind", [Drawn, Images])
@pytest.mark.parametrize("wrap", [lambda env: env, previous_action_and_reward])
def test_every_step_of_a_short_episode_is_shown_to_its_end(tmp_path, kind, wrap):
    size, greys, durations = shown(wrap(simulator(kind)), tmp_path / "a.gif")
    assert greys == [0, 1, 2, 3, 4, 5]
    assert durations == [40] * 5 + [1000]
    assert size == ((300, 200) if kind is Drawn else (320, 320))


@pytest.mark.slow
def test_long_episodes_and_large_pictures_make_small_files(tmp_path):
    env = simulator(length=1000, size=(400, 200))
    size, greys, durations = shown(env, tmp_path / "a.gif", max_steps=251)
    assert size == (160, 320) and len(greys) <= 150
    assert greys[:3] == [0, 2, 4] and greys[-1] == 251
    assert durations[0] == 80


def test_drawing_that_is_slow_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(filming, "_SECONDS", 0.0)
    assert shown(simulator(length=100), tmp_path / "a.gif")[1] == [0, 1]


def test_what_cannot_be_drawn_is_refused_in_a_sentence(tmp_path):
    class Blind(Drawn):
        render_mode = None

    class Wrong(Drawn):
        def render(self):
            return None

    path = tmp_path / "a.gif"
    with pytest.raises(RefusedError, match="Blind cannot be drawn: it has no render"):
        shown(simulator(Blind), path)
    with pytest.raises(ValueError, match=r"must give an array .* uint8, got NoneType"):
        shown(simulator(Wrong), path)
    with pytest.raises(RefusedError, match="shows one environment, got 2"):
        shown(from_callable(Drawn, 2, 0), path)
    assert HostEnvironment.render(simulator(Blind)) is None
    assert not list(tmp_path.iterdir())


def test_simulators_by_name_draw_themselves_if_asked_to():
    env = make("CartPole-v1", 1, 0)
    env.reset()
    assert env.render() is None
    env.close()
    assert env.render() is None
    pytest.importorskip("pygame")
    env = make("CartPole-v1", 1, 0, render=True)
    env.reset()
    assert env.render().shape == (400, 600, 3)
    env.close()


def test_names_of_files_say_what_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_encoder", lambda: None)
    frame = Image.new("RGB", (3, 3))
    with pytest.raises(RefusedError, match=r"a.wav must end in .gif or .mp4"):
        video.save([frame], tmp_path / "a.wav", 40)
    with pytest.raises(RefusedError, match=r"pip install 'jaxrl-par\[video\]', or wri"):
        video.save([frame], tmp_path / "a.mp4", 40)
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="file"):
        video.save([frame], tmp_path / "file" / "a.gif", 40)
    video.save([frame], tmp_path / "b" / "A.GIF", 40)
    assert Image.open(tmp_path / "b" / "A.GIF").n_frames == 1


def test_where_nothing_can_be_written_nothing_need_be_removed(tmp_path, monkeypatch):
    """As on a file system that is for reading alone."""

    def refused(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(video, "_write_gif", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(TrainingError, match="gif cannot be written: read-only"):
        video.save([Image.new("RGB", (3, 3))], tmp_path / "a.gif", 40)


def encoder(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def test_an_encoder_gets_even_sides_and_its_failure_is_a_sentence(
    tmp_path, monkeypatch
):
    keeps = 'for last; do :; done; (echo "$@"; wc -c) > "$last"'
    made = encoder(tmp_path / "keeps", keeps)
    monkeypatch.setattr(video, "_encoder", lambda: made)
    path = tmp_path / "a.mp4"
    video.save([Image.new("RGB", (3, 5))] * 2, path, 100)
    arguments, count = path.read_text().splitlines()
    assert "-s 4x6 -r 1000/100" in arguments
    assert int(count) == 4 * 6 * 3 * (2 + 9)  # the last stays for a second
    broken = encoder(tmp_path / "broken", "cat > /dev/null; echo no codec >&2; exit 1")
    monkeypatch.setattr(video, "_encoder", lambda: broken)
    with pytest.raises(TrainingError, match="cannot be encoded: no codec"):
        video.save([Image.new("RGB", (3, 5))], path, 100)
    assert path.read_text().startswith(arguments)
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "broken", "keeps"]


def test_the_real_encoder_keeps_frames_and_their_time(tmp_path):
    reader = pytest.importorskip("imageio_ffmpeg")
    shades = [Image.new("RGB", (47, 31), (10 * i, 0, 0)) for i in range(20)]
    video.save(shades, tmp_path / "a.mp4", 40)
    about, *frames = reader.read_frames(str(tmp_path / "a.mp4"))
    assert about["source_size"] == (48, 32)
    assert about["fps"] == 25.0
    assert len(frames) == 20 + 24  # the last stays for a second
    reds = [np.frombuffer(x, np.uint8).reshape(32, 48, 3)[:31, :47, 0] for x in frames]
    # Colours are compressed, with loss.
    assert max(abs(float(x.mean()) - 10 * i) for i, x in enumerate(reds[:20])) < 6
