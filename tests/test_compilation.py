"""Everything compiles in time: an explosion is a red test, and never a hang."""

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest
from compilation_child import SUBJECTS

CHILD = Path(__file__).with_name("compilation_child.py")
LIMIT = 60.0
"""Seconds for one subject: an idle core takes one to ten."""
# As a user's programs are compiled, not as the tests are.
FLAGS = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def too_slow(subjects: list[str], limit: float = LIMIT) -> list[str]:
    """Those that did not compile within the limit. Their process is ended, and another
    goes on behind them."""
    found = []
    while subjects:
        done = _compiled_by_one_process(subjects, limit)
        if done < len(subjects):
            found.append(subjects[done])
        subjects = subjects[done + 1 :]
    return found


def _compiled_by_one_process(subjects: list[str], limit: float) -> int:
    """How many came to an end, one after the other."""
    process = subprocess.Popen(
        [sys.executable, str(CHILD), *subjects],
        env={
            **os.environ,
            "PYTHONPATH": str(CHILD.parents[1]),
            "XLA_FLAGS": FLAGS,
            "JAX_ENABLE_COMPILATION_CACHE": "false",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stdout, lines))
    reader.start()
    done = 0
    try:
        line = lines.get(timeout=120)  # imports
        while line:
            try:
                line = lines.get(timeout=limit)
            except queue.Empty:
                return done
            done += line.startswith("end ")
        assert process.wait() == 0, f"{subjects[done]} raised: see above"
        return done
    finally:
        process.kill()
        process.wait()
        reader.join()


def _read(stdout: IO[str], lines: "queue.Queue[str]") -> None:
    for line in stdout:
        lines.put(line)
    lines.put("")


@pytest.mark.slow
def test_keys_environments_and_a_learner_compile_in_time():
    names = ["columns of split keys", "CartPole-v1", "Breakout-MinAtar", "impala, lstm"]
    assert too_slow(names) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everything_compiles_in_time():
    assert too_slow(list(SUBJECTS)) == []


@pytest.mark.slow
def test_what_takes_longer_is_named_and_the_rest_is_still_tried():
    names = ["columns of split keys", "CartPole-v1"]
    assert too_slow(names, limit=1e-3) == names
