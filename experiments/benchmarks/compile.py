"""What a script compiles: seconds, and the size of what XLA makes of it.

Each script runs for a few updates in a process of its own, with an empty cache. JAX
says when a compilation begins and ends, and XLA writes each program down when it has
optimised it. A CPU-second is one of all threads of the process meanwhile: on a shared
machine it says more than a second. Reported are all programs above a tenth of a second,
such as a run's `init`, its chunk of updates (`call`) and the evaluation's `evaluate`,
with the result of the run before beside them, from the file that this one replaces.

    python experiments/benchmarks/compile.py --pythons python3.11 python3.12

measures with several interpreters, each with the packages that it has. A script that
takes longer than `--limit` is ended and said to have passed it: a program whose
compilation explodes would never end.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxrl_par import cli
from jaxrl_par.errors import above

HERE = Path(__file__).resolve().parent
QUICK = ["--no-gif", "--evaluation-episodes", "2", "--evaluation-envs", "2"]
SCRIPTS = {
    "a2c": ["--total-steps", "30000"],
    "a2c, Breakout-MinAtar": [
        *("--env-name", "Breakout-MinAtar"),
        *("--total-steps", "30000"),
    ],
    "ppo": ["--total-steps", "20000"],
    "impala": ["--total-steps", "30000"],
    "reinforce": ["--total-steps", "5000"],
    "async_q": ["--total-steps", "30000"],
    "a3c": ["--total-steps", "50000"],
    "actor_learner_distillation": ["--total-steps", "30000", "--num-envs", "16"],
    "impala_threads": ["--total-steps", "8192"],
}
# Runs in the child, before the script: prints a line for each compilation.
WATCH = """
import json, runpy, sys, threading, time
import jax

began = {}
COMPILATION = "/jax/core/compile/backend_compile_duration"

def begins(event, value, **details):
    if event == COMPILATION:
        began.setdefault(threading.get_ident(), []).append(time.process_time())

def ended(event, seconds, fun_name="", **details):
    if event == COMPILATION:
        cpu = time.process_time() - began[threading.get_ident()].pop()
        line = {"program": str(fun_name), "seconds": seconds, "cpu_seconds": cpu}
        print("COMPILED " + json.dumps(line), file=sys.stderr, flush=True)

jax.monitoring.register_scalar_listener(begins)
jax.monitoring.register_event_duration_secs_listener(ended)
sys.argv = sys.argv[1:]
print("JAX " + jax.__version__, file=sys.stderr, flush=True)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Args:
    """Measures the compilation of each script."""

    pythons: tuple[str, ...] = (sys.executable,)
    """Interpreters, each with this project installed."""
    only: str = ""
    """The scripts whose name contains this."""
    limit: float = 300.0
    """Seconds that a script may take."""
    shown_above: float = 0.1
    """Seconds: programs that compile faster are only in the sum."""
    output: Path = HERE.parent / "results" / "compile.json"

    def problems(self) -> list[str]:
        """What is out of range."""
        return above(self, limit=0)


def main(args: Args) -> None:
    """Measures, compares with what the output holds, and writes it anew."""
    scripts = {x: y for x, y in SCRIPTS.items() if args.only in x}
    if not scripts:
        raise SystemExit(f"no script contains {args.only!r}: {', '.join(SCRIPTS)}")
    before = json.loads(args.output.read_text()) if args.output.exists() else {}
    results: dict[str, Any] = dict(before)
    for python in args.pythons:
        for script, options in scripts.items():
            found = measured(python, script, options, args)
            key = f"{script}, jax {found['jax']}"
            show(key, found, before.get(key), args.shown_above)
            results[key] = found
    args.output.write_text(json.dumps(results, indent=1) + "\n")


def measured(
    python: str, script: str, options: list[str], args: Args
) -> dict[str, Any]:
    """Every program of one script: how often, seconds, and bytes of the largest."""
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--xla_dump_to={folder}/dump --xla_dump_hlo_as_text"
        environment = {
            **os.environ,
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache",
            "PYTHONPATH": str(HERE.parents[1]),
        }
        path = HERE.parent / f"{script.partition(',')[0]}.py"
        command = [python, "-c", WATCH, str(path), *options, *QUICK]
        # A group of its own: simulators in processes end with the script.
        process = subprocess.Popen(
            [*command, "--runs-dir", f"{folder}/runs"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, err = process.communicate(timeout=args.limit)
            passed = False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, err = process.communicate()
            passed = True
        if not passed and process.returncode:
            raise SystemExit(f"{script} failed with {python}:\n{err[-2000:]}")
        return {
            "jax": re.findall(r"^JAX (.*)$", err, re.M)[0],
            "passed_limit": passed,
            "programs": programs(err, sizes(Path(folder) / "dump")),
        }


def programs(err: str, bytes_of: dict[str, int]) -> dict[str, dict[str, Any]]:
    """What the lines of the child say, by the name of the function."""
    found: dict[str, dict[str, Any]] = {}
    for line in re.findall(r"^COMPILED (.*)$", err, re.M):
        entry = json.loads(line)
        name = entry["program"].removeprefix("jit(").removesuffix(")")
        one = found.setdefault(
            name, {"count": 0, "seconds": 0.0, "cpu_seconds": 0.0, "bytes": None}
        )
        one["count"] += 1
        for kind in "seconds", "cpu_seconds":
            one[kind] = round(one[kind] + entry[kind], 3)
        one["bytes"] = bytes_of.get(f"jit_{name}")
    return found


def sizes(dump: Path) -> dict[str, int]:
    """Bytes of the largest optimised program of each name, as XLA prints it."""
    found: dict[str, int] = {}
    for path in dump.glob("*after_optimizations.txt"):
        name = path.name.split(".")[1]
        found[name] = max(found.get(name, 0), path.stat().st_size)
    return found


def show(key: str, now: dict[str, Any], before: Any, shown_above: float) -> None:
    """One table; `before` is the same case of the run before, if there was one."""
    title = f"{key}{': PASSED THE LIMIT' if now['passed_limit'] else ''}"
    columns = ("seconds", "CPU-s", "kB", "seconds before", "CPU-s before", "kB before")
    table = Table("program", "count", *columns)
    table.title = title
    earlier = before["programs"] if before else {}
    for name, one in sorted(now["programs"].items(), key=lambda x: -x[1]["seconds"]):
        if one["seconds"] >= shown_above:
            old = earlier.get(name, {})
            table.add_row(name, str(one["count"]), *_cells(one), *_cells(old))
    count = sum(x["count"] for x in now["programs"].values())
    sums = (_cells(_summed(x)) for x in (now["programs"], earlier))
    table.add_row("all", str(count), *(cell for cells in sums for cell in cells))
    Console().print(table)


def _summed(found: dict[str, Any]) -> dict[str, Any]:
    if not found:
        return {}
    kinds = ("seconds", "cpu_seconds")
    return {x: sum(one[x] for one in found.values()) for x in kinds} | {"bytes": None}


def _cells(one: dict[str, Any]) -> tuple[str, str, str]:
    if not one:
        return "", "", ""
    kilobytes = f"{one['bytes'] / 1000:.0f}" if one["bytes"] else ""
    return f"{one['seconds']:.2f}", f"{one['cpu_seconds']:.2f}", kilobytes


if __name__ == "__main__":
    main(cli.parse(Args))
