"""A process that is lost, or hangs, ends all of its run with code 75."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LONELY = Path(__file__).with_name("lonely.py")
ROOT = LONELY.parents[2]


def start(words: list[str]) -> subprocess.Popen:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, str(LONELY), *words],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )


@contextmanager
def processes(
    count: int, silence: float = 30, patience: float = 60
) -> Iterator[list[subprocess.Popen]]:
    """So many, that have come together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    said = [str(x) for x in (silence, patience)]
    words = [[address, f"{count}", f"{i}", *said] for i in range(count)]
    started = [start(x) for x in words]
    try:
        for process in started:
            assert process.stdout
            assert process.stdout.readline() == "here\n"
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def tell(process: subprocess.Popen, word: str) -> None:
    assert process.stdin
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def end(process: subprocess.Popen) -> tuple[int, str]:
    code = process.wait(60)
    assert process.stderr
    return code, process.stderr.read()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_process_that_is_killed_ends_all_others(lost):
    with processes(3) as all_of_them:
        all_of_them[lost].kill()
        others = {i: end(x) for i, x in enumerate(all_of_them) if i != lost}
    for i, (code, told) in others.items():
        assert code == 75, told
        about = f"process {lost} died" if 0 in (i, lost) else "another one was lost"
        assert told.startswith(f"error: process {i} ends, to be started again: ")
        assert about in told


def test_a_process_that_leaves_without_a_word_is_lost():
    with processes(2) as (first, second):
        tell(second, "exit")
        assert end(first)[0] == 75


@pytest.mark.slow
def test_a_process_that_is_stopped_is_silent_and_ends_itself_when_it_goes_on():
    with processes(2, silence=2) as (first, second):
        second.send_signal(signal.SIGSTOP)
        code, told = end(first)
        assert code == 75
        assert "process 1 was silent for 2 s" in told
        second.send_signal(signal.SIGCONT)
        assert end(second)[0] == 75


@pytest.mark.slow
def test_all_may_be_stopped_for_longer_than_silence_and_go_on():
    """As by Ctrl-Z, or a laptop that is closed."""
    with processes(2, silence=2) as both:
        for process in both:
            process.send_signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            both[0].wait(4)
        for process in both:
            process.send_signal(signal.SIGCONT)
        with pytest.raises(subprocess.TimeoutExpired):
            both[0].wait(1)
        for process in both:
            tell(process, "done")
        assert [end(process) for process in both] == [(0, ""), (0, "")]


def test_a_process_whose_chunk_does_not_come_back_ends_all():
    """It is alive, and its thread still beats: only patience sees that."""
    with processes(2, patience=1.5) as (first, second):
        tell(first, "border")
        tell(second, "sleep")
        ends = [end(first), end(second)]
    assert [code for code, _ in ends] == [75, 75]
    assert any("hosts.patience = 1.5 s" in told for _, told in ends)


@pytest.mark.slow
def test_an_error_ends_the_others_with_75_and_has_its_own_code():
    with processes(3) as (first, second, third):
        tell(second, "fail")
        assert end(second) == (1, "")
        assert [end(first)[0], end(third)[0]] == [75, 75]


def test_an_error_that_another_failure_led_to_is_no_error_of_ones_own():
    with processes(2) as (first, second):
        tell(second, "fail")
        assert end(second)[0] == 1
        tell(first, "puzzled")
        code, told = end(first)
    assert code == 75
    assert "process 1 ended by an error" in told


@pytest.mark.slow
def test_who_is_done_waits_for_all():
    with processes(3) as (first, second, third):
        for process in (first, second):
            tell(process, "done")
        for process in (first, second):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
        tell(third, "done")
        assert [end(x) for x in (first, second, third)] == [(0, "")] * 3
