"""Signals while XLA compiles, when Python's own handlers do not run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxrl_par.training import interrupts

ROOT = Path(__file__).parents[2]
# XLA folds this constant convolution with an interpreter, which takes hours.
NEVER_COMPILES = """
import jax
import numpy as np

def compile_forever():
    def convolution():
        image = np.random.rand(1, 1, 900, 900).astype(np.float32)
        return jax.lax.conv(image, image, (1, 1), "SAME").sum()

    print("compiling", flush=True)
    jax.jit(convolution).lower().compile()
"""
TRAINING = """
import sys
import jax
from jaxrl_par import random
from toy_training import Args, toy, train
from jaxrl_par.cli import main

def evaluate(run):
    compile_forever()

def run(args):
    if args.seed == 1:
        compile_forever()
    train(toy(), args, args.training, key=random.key(0), num_updates=20,
          evaluate=evaluate)

main(run, Args)
"""


def start(tmp_path: Path, program: str, *options: str) -> subprocess.Popen:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, "-c", NEVER_COMPILES + program, *options],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    out = []
    for line in process.stdout:
        if line == "compiling\n":
            return process
        out.append(line)
    raise AssertionError(f"ended before it compiled: {process.wait()}\n{''.join(out)}")


def ends(process: subprocess.Popen, number: signal.Signals) -> tuple[int, str]:
    """Its code and what it printed, a second and a signal later."""
    time.sleep(1)
    process.send_signal(number)
    try:
        # A process that does not hear signals would compile for hours.
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)]
)
def test_a_signal_ends_a_compilation_and_says_what_was_saved(tmp_path, number, code):
    options = ["--runs-dir", "runs", "--name", "mine", "--evaluation-interval", "10"]
    process = start(tmp_path, TRAINING, *options, "--checkpoint-interval", "5")
    returned, out = ends(process, number)
    assert returned == code
    assert f"{number.name}: ended while compiling" in out
    # The evaluation after update 10 compiled, before that update was to be saved.
    assert "a checkpoint of update 10." in out
    assert "--resume" in out


def test_a_signal_ends_a_compilation_before_training_began(tmp_path):
    process = start(tmp_path, TRAINING, "--seed", "1")
    returned, out = ends(process, signal.SIGTERM)
    assert returned == 75 and "ended while compiling" in out


def test_a_signal_before_training_ends_a_script_with_its_code():
    for number, code in interrupts.EXIT_CODES.items():
        with pytest.raises(interrupts.Interrupted) as caught, interrupts.exits():
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert caught.value.code == code


def test_a_compilation_that_ends_in_time_ends_nothing(monkeypatch):
    monkeypatch.setattr(interrupts, "COMPILER_GRACE", 1.5)
    function = jax.jit(lambda x: jnp.sin(x) + 3)
    with interrupts.interrupts() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        function(jnp.ones(3))
        with pytest.raises(TypeError):
            jax.jit(lambda x: x + "text")(1.0)
        # What was compiled, or failed to be, is over: the grace means nothing to it.
        time.sleep(3)
        assert stop() == signal.SIGTERM


def test_listeners_and_handlers_are_gone_at_the_end():
    before = {n: signal.getsignal(n) for n in interrupts.EXIT_CODES}
    with interrupts.interrupts(), interrupts.exits():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {n: signal.getsignal(n) for n in interrupts.EXIT_CODES} == before
    with interrupts.interrupts() as stop:
        pass
    assert stop() is None
