"""What only tells, when it cannot be told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("out", "message"),
    [("closed", ""), ("/dev/full", "error: stdout cannot be written: no space left")],
)
def test_who_cannot_print_ends_in_a_sentence_at_most(out, message):
    """Both what is written at once and what waits until the end."""
    buffered = {k: x for k, x in os.environ.items() if k != "PYTHONUNBUFFERED"}
    for count in (1, 1_000_000):
        code = f"""
from jaxrl_par.pipes import while_it_is_read
with while_it_is_read():
    print("a" * {count})
"""
        command = [sys.executable, "-c", code]
        if out == "closed":
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered
            )
            process.stdout.close()
            told, code = process.stderr.read(), process.wait(60)
            process.stderr.close()
        else:
            if not Path(out).exists():
                pytest.skip("no such device")
            with open(out, "w") as full:
                done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE)
            told, code = done.stderr, done.returncode
        assert code == 1
        assert told.decode().startswith(message) and b"Traceback" not in told
