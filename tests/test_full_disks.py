"""Every writer on a disk that is full after so many pages, then after one more, until
there is room: what was there before is whole, or what is left is told as unfinished."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from exported import CASES, written
from PIL import Image

from jaxrl_par import export, numpy_actor
from jaxrl_par.bridge.actor_learner.kept_unrolls import Keeper, folder_of
from jaxrl_par.bridge.unrolled import Episodes, Unrolled
from jaxrl_par.export.files import ExportError, save
from jaxrl_par.loops import records
from jaxrl_par.loops.records import Entry, Recorder
from jaxrl_par.specs import Box, Discrete
from jaxrl_par.stream import TimeStep
from jaxrl_par.training import compare, demonstrations, video
from jaxrl_par.training.demonstrations import DemonstrationsError
from jaxrl_par.training.failures import DiskFullError
from jaxrl_par.training.pages import write_comparison, write_report
from jaxrl_par.training.plots import draw_curve
from jaxrl_par.training.rows import JsonLines, read_rows
from jaxrl_par.types import Trajectory

pytestmark = pytest.mark.slow
ROWS = [{"updates": i, "env_steps": i, "episode_return": 1.0 * i} for i in range(300)]


class Writer(NamedTuple):
    """What writes, and what looks at what it left."""

    begin: Callable
    """(folder): what is there before."""
    write: Callable
    """(folder)"""
    left: Callable
    """(folder): fails where a write that failed left what it may not."""
    ended: Callable
    """(folder): the same of one that came to its end."""


def run_folder(folder):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"env_name": "a", "seed": 0}))
    lines = "".join(json.dumps(x) + "\n" for x in ROWS)
    (folder / "metrics.jsonl").write_text(lines)


def single(name, write, begin=run_folder):
    """A writer of one file, which replaces an old one."""

    def started(folder):
        begin(folder)
        (folder / name).write_bytes(b"old")

    def left(folder):
        assert (folder / name).read_bytes() == b"old"
        assert not [x for x in folder.iterdir() if ".new" in x.name]

    def ended(folder):
        assert (folder / name).stat().st_size > 4096

    return Writer(started, write, left, ended)


def film(folder):
    draw = np.random.default_rng(0)
    frames = [
        Image.fromarray(draw.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(9)
    ]
    video.save(frames, folder / "a.gif", 40)


SPECS = (Box((8,)), Discrete(2))


def shown():
    rows, lanes = 60, 4
    flags = np.zeros((rows + 1, lanes), bool)
    obs = np.random.default_rng(0).normal(size=(rows + 1, lanes, 8))
    numbers = np.ones((rows, lanes), np.float32)
    action = np.zeros((rows, lanes), np.int32)
    steps = TimeStep(obs.astype(np.float32), flags, flags)
    return Trajectory(steps, action, numbers, numbers, {}, ())


def unfinished(folder):
    with pytest.raises(DemonstrationsError):
        demonstrations.read(folder / "shown", SPECS)
    for path in sorted((folder / "shown").glob("*")):
        path.unlink()


DEMONSTRATIONS = Writer(
    Path.mkdir,
    lambda folder: demonstrations.write(folder / "shown", shown(), SPECS),
    unfinished,
    lambda folder: demonstrations.read(folder / "shown", SPECS),
)
WRITERS = {
    "report": single("report.html", write_report),
    "comparison": single(
        "x.html", lambda folder: write_comparison(compare(folder), folder / "x.html")
    ),
    "picture": single("x.png", lambda folder: compare(folder).draw(folder / "x.png")),
    "curve": single("curve.png", lambda folder: draw_curve(ROWS, folder / "curve.png")),
    "film": single("a.gif", film),
    "demonstrations": DEMONSTRATIONS,
}


def until_there_is_room(disk, writer, most=200):
    """Pages that it needs."""
    folder = disk.path / "a"
    writer.begin(folder)
    begun = disk.used
    for pages in range(most):
        disk.limit(begun + pages)
        try:
            writer.write(folder)
        except DiskFullError as error:
            assert "no room to write" in str(error)
            writer.left(folder)
        else:
            writer.ended(folder)
            return pages
    raise AssertionError(f"{most} pages are not enough")


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_leaves_what_was_there_or_says_that_it_is_unfinished(disk, name):
    assert until_there_is_room(disk, WRITERS[name]) > 1


def test_an_export_is_whole_or_none(disk, tmp_path):
    source = written(tmp_path, CASES["mlp"])[2]
    config = json.loads((source / "config.json").read_text())
    files = {name: (source / name).read_bytes() for name in config.pop("files")}
    del config["sha256"]

    def write(folder):
        save(folder, files, config, False)

    def left(folder):
        with pytest.raises(ExportError, match="not a whole one"):
            export.load(folder)

    def ended(folder):
        numpy_actor.Actor.load(folder)
        export.load(folder)

    assert until_there_is_room(disk, Writer(Path.mkdir, write, left, ended)) > 2


def test_records_end_with_a_whole_line_and_the_run_goes_on(disk):
    """Of schedules, and of unrolls beside them."""
    path, begun = disk.path / "schedule.jsonl", disk.used
    counts, nothing = set(), Episodes(0.0, 0.0, 0)
    for pages in range(1, 60, 4):
        disk.limit(begun + pages)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            recorder, keeper = Recorder(path, 0), Keeper(path, 0)
            for update in range(9):
                recorder.write([Entry(i, update, 0, 0) for i in range(200)])
                keeper.write([Unrolled(0, update, 0, 0, shown(), nothing, {}, ())])
            recorder.close()
        lines = records.read(path) if path.exists() else []
        kept = sorted(folder_of(path).glob("*")) if folder_of(path).exists() else []
        assert len(caught) == (len(lines) < 9) + (len(kept) < 9)
        assert all(len(line) == 200 for line in lines)
        assert all(np.load(x).files for x in kept)
        counts.add((len(lines), len(kept)))
        for x in (*kept, path):
            x.unlink(missing_ok=True)
    assert len(counts) > 3


def test_metrics_end_with_a_whole_row_and_come_when_there_is_room(disk, capsys):
    path, begun, counts = disk.path / "metrics.jsonl", disk.used, set()
    for pages in range(1, 8):
        disk.limit(begun + pages)
        lines = JsonLines(path)
        for row in ROWS:
            lines.write(row)
        found = read_rows(path)
        assert found == ROWS[: len(found)]
        counts.add(len(found))
        disk.limit(begun + 64)
        lines.close()
        assert read_rows(path) == ROWS
        path.unlink()
    assert 0 < min(counts) < max(counts) == len(ROWS)
