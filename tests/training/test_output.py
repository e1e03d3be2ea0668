"""Output that goes away ends nothing, not even the code with which Python ends."""

import io
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from jaxrl_par.training import output
from jaxrl_par.training.output import lasting_output

ROOT = Path(__file__).parents[2]
# Without the package, which takes seconds to import.
SCRIPT = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location(
    "output", "{ROOT / "jaxrl_par" / "training" / "output.py"}"
)
output = importlib.util.module_from_spec(spec)
spec.loader.exec_module(output)
with output.lasting_output():
    for number in range(20_000):
        print("a line", number, flush=number % 2 == 0)
    print("an error", file=sys.stderr)
    print("not flushed")
# What comes later is lost as well, and no error.
print("afterwards", flush=True)
open("done", "w").close()
"""


def run(tmp_path, redirected: str) -> tuple[int, str]:
    command = f'"{sys.executable}" -c "$SCRIPT" {redirected}'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env={**os.environ, "SCRIPT": SCRIPT},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (tmp_path / "done").exists()
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("redirected", "why"),
    [
        ("| head -n 1", "Broken pipe"),
        ("> /dev/full", "No space left"),
        (">&-", None),
        ("2>&1 >/dev/null | true", None),
        ("> /dev/full 2>&1", None),
    ],
)
def test_a_script_goes_on_without_its_output(tmp_path, redirected, why):
    code, err = run(tmp_path, redirected)
    assert code == 0
    assert "Exception ignored" not in err and "Traceback" not in err
    assert ("stdout is gone" in err) == (why is not None)
    assert why is None or why in err


def test_the_streams_are_restored_and_other_errors_are_told(capsys):
    before = sys.stdout, sys.stderr
    with pytest.raises(TypeError), lasting_output():
        print("shown")
        assert sys.stdout.encoding == before[0].encoding
        sys.stdout.write(3)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "shown\n"


@pytest.mark.parametrize("comes_back", [True, False])
def test_nobody_waits_for_long_for_who_does_not_read(monkeypatch, comes_back):
    """As a terminal that Ctrl-S holds, and a pager: what is lost is told by nobody."""
    monkeypatch.setattr(output, "PATIENCE", 0.2)
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    with open(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with lasting_output():
            for number in range(2000):
                print("lost", number, flush=True)
            if comes_back:
                os.read(reader, 2**20)
                print("there again", flush=True)
    with open(reader, "rb") as left:
        text = left.read()
    assert b"lost" not in text
    assert (b"there again" in text) == comes_back


def test_letters_that_the_encoding_lacks_end_nothing(monkeypatch):
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, "ascii"))
    with lasting_output():
        print("größe ▁▄█")
    assert file.getvalue() == b"gr??e ???\n"
