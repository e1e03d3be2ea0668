"""What is recorded can be read, whatever a crash left of it."""

import errno
import json
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_par.loops.records import (
    Entry,
    Recorder,
    RecordError,
    Turn,
    read,
    read_turns,
)

numbers = st.integers(0, 2**40)
runs = st.lists(st.tuples(numbers, numbers), max_size=3).map(tuple)
entries = st.builds(Entry, *[numbers] * 4, st.integers(0, 1), runs)
schedules = st.lists(st.lists(entries, max_size=3), max_size=8)


def write(path, updates, first_update=0):
    recorder = Recorder(path, first_update)
    for update in updates:
        recorder.write(update)
    recorder.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all examples of a property; they overwrite each other's file."""
    return tmp_path_factory.mktemp("record")


def some(number: int) -> list[list[Entry]]:
    return [[Entry(actor, i, 0, i) for actor in range(2)] for i in range(number)]


@given(updates=schedules)
def test_what_is_written_is_read(folder, updates):
    write(folder / "schedule.jsonl", updates)
    assert read(folder / "schedule.jsonl") == updates


@given(updates=schedules, data=st.data())
def test_a_line_that_a_crash_cut_off_is_left_out(folder, updates, data):
    path = folder / "cut.jsonl"
    write(path, updates)
    text = path.read_text()
    size = data.draw(st.integers(0, len(text)))
    path.write_text(text[:size])
    assert read(path) == updates[: text[:size].count("\n")]


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
    recorder = Recorder(tmp_path / "schedule.jsonl", 0)
    for n, update in enumerate(some(3), start=1):
        recorder.write(update)
        assert read(tmp_path / "schedule.jsonl") == some(3)[:n]
    recorder.close()


@pytest.mark.parametrize("ending", ["", "[[0, 5, 0"])
@pytest.mark.parametrize("resumed_at", [0, 2, 5])
def test_a_resumed_run_goes_on_after_the_updates_that_were_saved(
    tmp_path, resumed_at, ending
):
    path = tmp_path / "schedule.jsonl"
    write(path, some(5))
    path.write_text(path.read_text() + ending)
    again = [[Entry(7, 7, 1, 7)]]
    write(path, again, first_update=resumed_at)
    assert read(path) == some(5)[:resumed_at] + again


def test_a_new_run_leaves_nothing_of_an_old_record(tmp_path):
    write(tmp_path / "schedule.jsonl", some(5))
    write(tmp_path / "schedule.jsonl", some(1))
    assert read(tmp_path / "schedule.jsonl") == some(1)


def test_a_record_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(RecordError, match=r"no recorded schedule at .*schedule\.jsonl"):
        read(tmp_path / "schedule.jsonl")


@pytest.mark.parametrize(
    "line",
    ["", "7", "null", "[7]", "[[1, 2, 3]]", "[[1, 2, 3, 4, 5]]", '[["a"]]', "x",
     "[[1, 2, 3, 4.5]]", "[[1, 2, 3, Infinity]]", "[[1, 2, 3, null]]", "[" * 99_999],
)  # fmt: skip
def test_a_damaged_line_is_an_error_with_its_number(tmp_path, line):
    path = tmp_path / "schedule.jsonl"
    write(path, some(2))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(RecordError, match=r"schedule\.jsonl, line 3: no schedule"):
        read(path)


def test_a_byte_that_is_no_text_is_an_error_with_its_line(tmp_path):
    path = tmp_path / "schedule.jsonl"
    write(path, some(3))
    path.write_bytes(path.read_bytes().replace(b"[[0, 1,", b"[[0, \xff,"))
    with pytest.raises(RecordError, match=r"schedule\.jsonl, line 2: no schedule"):
        read(path)
    write(path, some(1), first_update=3)  # and the run itself goes on


def test_a_record_that_cannot_be_written_does_not_end_the_run(tmp_path):
    """Half a line, of a disk that is full, is not left there."""
    path = tmp_path / "schedule.jsonl"
    first = len(json.dumps(some(1)[0])) + 1
    recorder = Recorder(path, 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (first + 9, limits[1]))
    try:
        recorder.write(some(1)[0])
        with pytest.warns(UserWarning, match=r"schedule\.jsonl cannot be written: "):
            recorder.write(some(2)[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    recorder.write(some(3)[2])
    recorder.close()
    assert read(path) == some(1)
    (tmp_path / "folder").mkdir()
    with pytest.warns(UserWarning, match="cannot be written"):
        Recorder(tmp_path / "folder", 0).write(some(1)[0])


def test_a_record_whose_disk_is_gone_does_not_end_the_run(tmp_path, monkeypatch):
    """Half a line, which cannot be taken back, is not read."""
    path = tmp_path / "schedule.jsonl"
    recorder = Recorder(path, 0)
    recorder.write(some(1)[0])

    class Gone:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            if self.file.tell() % 2 == 0:
                raise OSError(errno.EIO, "Input/output error")
            return self.file.write(data[:1])

        def truncate(self, size):
            raise OSError(errno.EROFS, "Read-only file system")

        def close(self):
            self.file.close()

    monkeypatch.setattr(recorder, "_file", Gone(recorder._file))
    with pytest.warns(UserWarning, match="Input/output error"):
        recorder.write(some(2)[1])
    assert read(path) == some(1)


# Of workers -----------------------------------------------------------------------

turns = st.builds(
    Turn,
    numbers,
    numbers,
    numbers,
    st.lists(numbers, min_size=1, max_size=3).map(tuple),
)


@given(pushes=st.lists(turns, max_size=8))
def test_turns_that_are_written_are_read(folder, pushes):
    path = folder / "turns.jsonl"
    write(path, [[turn] for turn in pushes])
    assert read_turns(path) == pushes


@pytest.mark.parametrize(
    "line",
    ["", "7", "[]", "[7]", "[[1, 2, 3]]", "[[1, 2, 3, 4]]", '[[1, 2, 3, ["a"]]]',
     "[[1, 2, 3, [4], 5]]", "[[1, 2, 3, [4]], [1, 3, 3, [5]]]"],
)  # fmt: skip
def test_a_damaged_turn_is_an_error_with_its_number(tmp_path, line):
    path = tmp_path / "schedule.jsonl"
    write(path, [[Turn(0, 0, 0, (0, 0))]])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(RecordError, match=r"schedule\.jsonl, line 2: no schedule"):
        read_turns(path)


def test_turns_of_actors_and_of_workers_are_not_mistaken_for_each_other(tmp_path):
    path = tmp_path / "schedule.jsonl"
    write(path, [[Turn(0, 0, 0, (0,))]])
    with pytest.raises(RecordError, match="line 1"):
        read(path)
    write(path, [[Entry(0, 0, 0, 0)]])
    with pytest.raises(RecordError, match="line 1"):
        read_turns(path)


def test_several_versions_of_an_unroll_are_the_last_column(tmp_path):
    path = tmp_path / "schedule.jsonl"
    entries = [Entry(0, 1, 0, 7, 0, ((7, 2), (8, 2), (9, 1))), Entry(1, 1, 0, 7)]
    write(path, [entries])
    assert path.read_text() == (
        "[[0, 1, 0, 7, 0, [[7, 2], [8, 2], [9, 1]]], [1, 1, 0, 7]]\n"
    )
    assert read(path) == [entries]
    assert [entries[0].version_at(row) for row in range(5)] == [7, 7, 8, 8, 9]
    assert [entries[1].version_at(row) for row in (0, 4)] == [7, 7]
    assert (entries[0].versions, entries[1].versions) == ((7, 8, 9), (7,))


@pytest.mark.parametrize("runs", ["3", "[3]", "[[3]]", '[[3, "1"]]', "[[3, 1, 1]]"])
def test_runs_that_are_none_are_refused(tmp_path, runs):
    path = tmp_path / "schedule.jsonl"
    path.write_text(f"[[0, 0, 0, 3, 0, {runs}]]\n")
    with pytest.raises(RecordError, match="line 1: no schedule"):
        read(path)
