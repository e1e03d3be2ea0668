"""Demonstrations as a folder: bit for bit what was done, or an error that says why."""

import json
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import pytest
from toy_workers import TOY

from jaxrl_par import envs, random
from jaxrl_par.envs.imaze_expert import imaze_expert
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.testing import probes
from jaxrl_par.training import demonstrations
from jaxrl_par.training.demonstrations import DemonstrationsError, read, write
from jaxrl_par.training.files import UNFINISHED, FileError
from jaxrl_par.training.manifests import digest
from jaxrl_par.training.recording import record
from jaxrl_par.types import Box, Discrete, TimeStep, Trajectory

BYTES = Box((2, 3), np.dtype(np.uint8), low=0.0, high=255.0)
TURNED = Box((3, 2), np.dtype(np.uint8), low=0.0, high=255.0)
SPECS = ({"picture": BYTES, "number": Box(())}, Discrete(3))


def made(rows=4, lanes=2):
    """Pictures as bytes, beside numbers."""
    draw = np.random.default_rng(0)
    shape = (rows + 1, lanes)
    picture = draw.integers(0, 256, (*shape, 2, 3), np.uint8)
    obs = {"picture": picture, "number": draw.normal(size=shape).astype(np.float32)}
    first, last = np.zeros(shape, bool), draw.integers(0, 2, shape) == 1
    action = draw.integers(0, 3, (rows, lanes), np.int32)
    reward = draw.normal(size=(rows, lanes)).astype(np.float32)
    steps = TimeStep(obs, first, last)
    return Trajectory(steps, action, reward, np.ones_like(reward), {}, ())


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "shown"
    write(path, made(), SPECS, {"agent": "somebody"})
    return path


def test_what_is_read_is_what_was_written_bit_for_bit(folder):
    found, given = read(folder, SPECS), made()
    assert jax.tree.structure(found) == jax.tree.structure(given)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(given), strict=True):
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes()
    # Each observation is there once, in its own dtype.
    picture = np.load(folder / "obs_1.npy", allow_pickle=False)
    assert picture.dtype == np.uint8 and picture.shape == (5, 2, 2, 3)
    assert json.loads((folder / "manifest.json").read_text())["about"] == {
        "agent": "somebody"
    }


def refused(path, specs=SPECS):
    with pytest.raises(DemonstrationsError) as error:
        read(path, specs)
    return str(error.value)


def test_a_folder_without_demonstrations_says_what_it_is(tmp_path, folder):
    assert "is no folder of demonstrations: `jaxrl-par record" in refused(
        tmp_path / "a"
    )
    (tmp_path / "empty").mkdir()
    assert "has no demonstrations: the folder is empty" in refused(tmp_path / "empty")
    # As a recording that was killed leaves it.
    (folder / "manifest.json").unlink()
    assert "it has no manifest.json, which is written last" in refused(folder)


def changed(folder, change):
    """The manifest with other content, and a sum that is right again."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    path.write_text(json.dumps(content | {"sha256": digest(content)}))


@pytest.mark.parametrize("name", ["obs_0", "last", "reward"])
def test_an_array_that_is_missing_or_changed_is_named(folder, name):
    path = folder / f"{name}.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    told = refused(folder)
    assert told.startswith(f"{path} is not what was recorded: its SHA-256 differs")
    path.unlink()
    assert refused(folder).startswith(f"{path} is missing")


def test_a_damaged_manifest_is_refused(folder):
    path = folder / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"rows": 4', '"rows": 5'))
    assert "not what was saved: its SHA-256 differs" in refused(folder)
    for damaged in (text[:-20], text.replace('"rows": 4', '"rows": NaN')):
        path.write_text(damaged)
        with pytest.raises(FileError, match=r"manifest\.json"):
            read(folder, SPECS)
    path.write_text(text)
    changed(folder, lambda x: x.update(format=2))
    assert "has layout 2 of demonstrations" in refused(folder)
    changed(folder, lambda x: (x.update(format=1), x.pop("lanes")))
    assert "must have ['about', 'arrays', 'format', 'lanes'" in refused(folder)


def test_nothing_is_unpickled(folder):
    """Not even where somebody made all hashes right."""

    class Trap:
        def __reduce__(self):
            return Path(folder / "sprung").touch, ()

    path = folder / "reward.npy"
    np.save(path, np.array([[Trap()] * 2] * 4), allow_pickle=True)
    right = sha256(path.read_bytes()).hexdigest()
    changed(folder, lambda x: x["arrays"]["reward"].update(sha256=right))
    assert "is no array of NumPy: Object arrays cannot be loaded" in refused(folder)
    assert not (folder / "sprung").exists()


def test_other_rows_than_the_manifest_says_are_told(folder):
    changed(folder, lambda x: x.update(rows=5))
    assert "obs_0.npy must be float32 [6, 2], got float32 [5, 2]" in refused(folder)


@pytest.mark.parametrize(
    ("specs", "told"),
    [
        ((SPECS[0], Discrete(4)), "actions.num_values: 3 there, 4 now"),
        (({"picture": BYTES}, SPECS[1]), "observations.number.shape: [] there, 'abse"),
        (
            (
                {**SPECS[0], "picture": Box((3, 2), np.dtype(np.uint8), 0.0, 255.0)},
                SPECS[1],
            ),
            "observations.picture.shape: [2, 3] there, [3, 2] now",
        ),
        (
            ({**SPECS[0], "picture": Box((2, 3), low=0.0, high=255.0)}, SPECS[1]),
            "observations.picture.dtype: 'uint8' there, 'float32' now",
        ),
        (
            ({**SPECS[0], "number": Box((), high=1.0)}, SPECS[1]),
            "observations.number.high: 'inf' there, 1.0 now",
        ),
    ],
)
def test_demonstrations_of_other_specs_are_refused(folder, specs, told):
    found = refused(folder, specs)
    assert f"{folder} has demonstrations of other observations or actions" in found
    assert told in found and "Record them in the same environment" in found


def test_what_is_not_of_the_specs_is_not_written(tmp_path):
    given = made()._replace(action=made().action.astype(np.int64))
    with pytest.raises(DemonstrationsError, match=r"action.*int32.* there.*int64"):
        write(tmp_path / "new", given, SPECS)
    assert not (tmp_path / "new").exists()


def test_what_is_in_a_folder_stays(folder, tmp_path):
    with pytest.raises(DemonstrationsError, match="has demonstrations already"):
        write(folder, made(), SPECS)
    (tmp_path / "note.txt").touch()
    with pytest.raises(DemonstrationsError, match="is not empty: give another"):
        write(tmp_path, made(), SPECS)
    with pytest.raises(DemonstrationsError, match="is a file: give a folder"):
        write(tmp_path / "note.txt", made(), SPECS)


def test_a_write_that_fails_leaves_no_demonstrations(tmp_path, monkeypatch):
    def full(path, data):
        if path.name == "reward.npy":
            raise FileError("no room")
        path.write_bytes(data)

    monkeypatch.setattr(demonstrations, "write_bytes", full)
    with pytest.raises(FileError):
        write(tmp_path / "new", made(), SPECS)
    assert "which is written last" in refused(tmp_path / "new")
    assert not list((tmp_path / "new").glob(f"*{UNFINISHED}"))


def test_a_recording_has_every_row_of_the_stream_once():
    """Rewards of the clock are functions of what is shown beside them."""
    env = probes.counter(3)
    recording = record(TOY, jax.numpy.zeros(5), env, 40, random.key(0), greedy=False)
    given = recording.trajectory
    rows, last = given.reward.shape[0], given.steps.last
    assert recording.env_steps == (~last[:-1]).sum()
    # No more rows than were asked for.
    assert recording.env_steps >= 40 > (~last[:-2]).sum()
    assert given.steps.first[0].all() and given.steps.last.shape == (rows + 1, 3)
    np.testing.assert_array_equal(given.steps.first[1:], last[:-1])
    assert not np.any(given.reward[last[:-1]]) and not np.any(given.discount[last[:-1]])
    ended = [
        given.reward[a:b, lane].sum()
        for lane in range(3)
        for ends in [[0, *(np.flatnonzero(last[:, lane]) + 1)]]
        for a, b in pairwise(ends)
    ]
    np.testing.assert_allclose(recording.returns, ended, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 7, 9, 15])
def test_the_expert_always_finds_the_right_goal_of_an_i_maze(size):
    env = previous_action_and_reward(envs.make(f"IMaze-{size}x{size}", 8))
    recording = record(imaze_expert(), (), env, 1500, random.key(0))
    assert len(recording.returns) > 30 and np.all(recording.returns == 1.0)
    shortest = 3 * (size - 3) / 2 + 1
    lengths = np.diff(np.flatnonzero(recording.trajectory.steps.last[:, 0]))
    assert min(lengths) - 1 == shortest
