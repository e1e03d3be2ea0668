"""Signals while a process imports, before any part of the package can hear them."""

import os
import signal
import subprocess
import sys

import pytest

from jaxrl_par.exit_codes import EXIT_CODES, end_at_once, ended_at_once

# As NumPy's: what is raised within its import comes out as another error.
LIBRARY = """
import time
print("importing", flush=True)
try:
    time.sleep(60)
except BaseException as error:
    raise ImportError("the C-extensions failed") from error
"""


@pytest.mark.parametrize("number", EXIT_CODES)
def test_a_signal_during_imports_ends_with_its_code_and_without_words(number, tmp_path):
    (tmp_path / "jax.py").write_text(LIBRARY)
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxrl_par", "a2c"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.getcwd()}"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    out = process.communicate(timeout=30)
    assert (process.returncode, out) == (EXIT_CODES[number], ("", ""))


def test_what_is_ignored_stays_so_and_all_handlers_come_back():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handlers = {x: signal.getsignal(x) for x in EXIT_CODES}
        with ended_at_once():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) == end_at_once
        assert {x: signal.getsignal(x) for x in EXIT_CODES} == handlers
    finally:
        signal.signal(signal.SIGHUP, before)
