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

from jaxrl_par.exit_codes import EXIT_CODES
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


@pytest.mark.slow
def test_a_signal_ends_a_compilation_before_training_began(tmp_path):
    process = start(tmp_path, TRAINING, "--seed", "1")
    returned, out = ends(process, signal.SIGTERM)
    assert returned == 75 and "ended while compiling" in out


def test_a_signal_before_training_ends_a_script_with_its_code():
    for number, code in EXIT_CODES.items():
        with pytest.raises(interrupts.Interrupted) as caught, interrupts.exits():
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert caught.value.code == code


@pytest.mark.slow
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
    before = {n: signal.getsignal(n) for n in EXIT_CODES}
    with interrupts.interrupts(), interrupts.exits():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {n: signal.getsignal(n) for n in EXIT_CODES} == before
    with interrupts.interrupts() as stop:
        pass
    assert stop() is None


def test_what_is_ignored_stays_so_and_so_do_handlers_of_a_program():
    """R4: nohup ignores SIGHUP."""

    def mine(number, frame):
        pass

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    other = signal.signal(signal.SIGUSR2, mine)
    try:
        with interrupts.interrupts() as stop, interrupts.exits():
            for number in (signal.SIGHUP, signal.SIGUSR2):
                os.kill(os.getpid(), number)
            time.sleep(0.1)
            assert signal.getsignal(signal.SIGUSR2) is mine
            assert stop() is None
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGUSR2, other)


# Without jax, whose import takes seconds: only `jax.monitoring` is used of it.
ALONE = f"""
import importlib.util, os, signal, sys, time, types
monitoring = types.SimpleNamespace(
    register_scalar_listener=print, register_event_duration_secs_listener=print,
    unregister_scalar_listener=print, unregister_event_duration_listener=print,
)
sys.modules["jax"] = types.SimpleNamespace(monitoring=monitoring)
folder = sys.modules["jaxrl_par.training"] = types.ModuleType("jaxrl_par.training")
folder.__path__ = ["{ROOT / "jaxrl_par" / "training"}"]
spec = importlib.util.spec_from_file_location(
    "interrupts", "{ROOT / "jaxrl_par" / "training" / "interrupts.py"}"
)
interrupts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(interrupts)
interrupts.COMPILER_GRACE = 2.0
"""


def alone(program: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE + program],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout
    for line in process.stdout:
        if line == "begins\n":
            return process
    raise AssertionError(f"ended with {process.wait()}")


def sent(process: subprocess.Popen, *numbers: signal.Signals) -> tuple[int, str]:
    """Its end, after signals with some time between."""
    try:
        for number in numbers:
            process.send_signal(number)
            time.sleep(1)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, out


WAITS = """
with interrupts.interrupts(lambda: "all is saved") as stop:
    print("begins", flush=True)
    while True:
        time.sleep(0.05)
"""


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([signal.SIGTERM, signal.SIGHUP], 75),
        ([signal.SIGINT, signal.SIGINT], 130),
        ([signal.SIGUSR1, signal.SIGUSR1], 75),
        # Warnings come before, and the system repeats the last one.
        ([signal.SIGUSR1, *[signal.SIGXCPU] * 2, *[signal.SIGTERM] * 2], 75),
    ],
)
def test_a_second_signal_ends_at_once(numbers, code):
    process = alone(WAITS)
    for number in numbers[:-1]:
        process.send_signal(number)
        time.sleep(1)
        assert process.poll() is None
    returned, out = sent(process, numbers[-1])
    assert returned == code
    assert f"{numbers[0].name}: ended at once. all is saved" in out


@pytest.mark.slow
def test_nobody_has_to_read_the_last_words():
    """As of a terminal that Ctrl-S holds, or a pager."""
    process = alone("""
with interrupts.interrupts(lambda: "all is saved") as stop:
    print("begins", flush=True)
    time.sleep(0.5)  # until who waits for that has read it
    os.set_blocking(1, False)
    while True:
        try:
            os.write(1, bytes(4096))
        except BlockingIOError:
            break
    os.set_blocking(1, True)
    while True:
        time.sleep(0.05)
""")
    for number in (signal.SIGTERM, signal.SIGTERM):
        time.sleep(1)
        process.send_signal(number)
    try:
        assert process.wait(30) == 75
    finally:
        process.kill()


@pytest.mark.slow
def test_who_signals_a_process_and_its_group_asks_once():
    process = alone(WAITS)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    assert sent(process, signal.SIGINT)[0] == 75


@pytest.mark.slow
def test_what_python_does_not_come_back_from_is_saved_and_ended():
    """As an evaluation within one compiled call: another thread saves."""
    process = alone("""
import threading
def wait():
    # The main thread ignores what its handlers raise.
    words = iter(["begins"])
    while True:
        try:
            for word in words:
                print(word, flush=True)
            time.sleep(60)
        except SystemExit:
            pass

with interrupts.interrupts(lambda: "described") as stop:
    with stop.answered_at_once(lambda: print("saved", flush=True)):
        wait()
""")
    code, out = sent(process, signal.SIGTERM)
    assert code == 75 and "saved\n" in out and "SIGTERM: ended. described" in out


def test_children_that_are_forked_do_not_hear_for_their_parent():
    process = alone("""
with interrupts.interrupts() as stop:
    children = []
    for number in (signal.SIGINT, signal.SIGTERM):
        if not (pid := os.fork()):
            time.sleep(20)
            os._exit(0)
        children.append(pid)
        time.sleep(0.3)
        os.kill(pid, number)
    time.sleep(0.3)
    assert stop() is None
    ended, status = os.waitpid(-1, 0)
    # As their parent ends them, and only so.
    assert ended == children[1] and os.WTERMSIG(status) == signal.SIGTERM
    os.kill(children[0], signal.SIGTERM)
    os.waitpid(children[0], 0)
    assert stop() is None
print("begins", flush=True)
""")
    assert process.wait(30) == 0
