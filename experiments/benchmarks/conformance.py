"""What environments of suites do where an episode ends: a table of questions.

    python experiments/benchmarks/conformance.py            # light tasks, ten minutes
    python experiments/benchmarks/conformance.py --heavy    # Craftax, too
    python experiments/benchmarks/conformance.py --only gymnax pgx

Each suite that is installed is asked twice: as our stream, and behind the suite's own
automatic reset. What is true is taken from the task's own transition, computed beside.
Streams also go through `testing.check_environment`. Whoever fails is in the table.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from episode_ends import (
    Answer,
    compiled,
    differ,
    followed,
    kept,
    paid,
    stable,
    started,
    truncates,
)
from own_resets import Wrapped
from wrapped import Subject, chosen, raw, stream

from jaxrl_par import cli
from jaxrl_par.envs import Raw, from_raw
from jaxrl_par.envs.raw import as_written
from jaxrl_par.envs.suites import table
from jaxrl_par.errors import at_least
from jaxrl_par.testing import check_environment

QUESTIONS = (
    "terminal observation kept",
    "limit is truncation",
    "resets differ",
    "rewards not lost",
    "dtypes stable",
    "same bits twice",
    "runs offline",
)
_GITHUB = "https://github.com"
THREADS = {
    "gymnax": [
        f"{_GITHUB}/RobertTLange/gymnax/issues/109",
        f"{_GITHUB}/RobertTLange/gymnax/pull/108",
    ],
    "brax": [
        f"{_GITHUB}/google/brax/issues/167",
        f"{_GITHUB}/google/brax/issues/275",
        f"{_GITHUB}/google/brax/pull/641",
    ],
    "playground": [
        f"{_GITHUB}/google-deepmind/mujoco_playground/issues/164",
        f"{_GITHUB}/google-deepmind/mujoco_playground/issues/179",
        f"{_GITHUB}/google-deepmind/mujoco_playground/issues/305",
    ],
    "jumanji": [
        f"{_GITHUB}/instadeepai/jumanji/pull/223",
        f"{_GITHUB}/instadeepai/jumanji/issues/275",
    ],
    "pgx": [f"{_GITHUB}/sotetsuk/pgx/pull/838"],
}
"""Where users met these faults. gymnax 1.0 repaired its own."""
_QUICKLY_COMPILED = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
PACKAGES = {"gymnax": "gymnax", "ours": "jaxrl-par"}


@dataclass(frozen=True)
class Args:
    """Asks the suites that are installed."""

    only: tuple[str, ...] = ()
    """Suites; all of them by default. Rows of other tasks stay in the output."""
    tasks: tuple[str, ...] = ()
    """Those of them; all by default."""
    heavy: bool = False
    """Also tasks that compile for minutes."""
    num_envs: int = 4
    num_steps: int = 48
    limit: int = 6
    """Time limit of episodes, where the task takes one."""
    output: Path = Path("conformance.json")

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, num_envs=1, num_steps=1, limit=1)


@contextmanager
def no_network() -> Iterator[list[Any]]:
    """Refuses connections to elsewhere, and lists who was asked for."""
    asked: list[Any] = []
    usual = socket.socket.connect, socket.getaddrinfo

    def refused(*given: Any, **options: Any) -> Any:
        asked.append(repr(given[-1] if given else options)[:80])
        raise OSError("no network in this table")

    socket.socket.connect = refused  # pyright: ignore
    socket.getaddrinfo = refused
    try:
        yield asked
    finally:
        socket.socket.connect, socket.getaddrinfo = usual


def asked(args: Args, make: Callable[[], Wrapped], limit: int | None) -> dict[str, Any]:
    """The answers of one side; each is yes, null, or why not."""
    with no_network() as network:
        try:
            answers = dict(
                zip(
                    QUESTIONS[:-1],
                    as_written(_answers)(args, make(), limit),
                    strict=True,
                )
            )
        except Exception as error:  # whatever it is, the table says so
            told = f"{type(error).__name__}: {error}".partition("\n")[0][:160]
            answers = dict.fromkeys(QUESTIONS[:-1], told)
    offline: Answer = not network or f"asks for {network[0]}"
    return answers | {QUESTIONS[-1]: offline}


def _answers(args: Args, wrapped: Wrapped, limit: int | None) -> list[Answer]:
    key, size = jax.random.key(0), (args.num_envs, args.num_steps)
    envs = compiled(wrapped, args.num_envs)
    rows, again = followed(envs, *size, key), followed(envs, *size, key)
    starts = started(envs, args.num_envs, -(-16 // args.num_envs), jax.random.key(1))
    leaves = zip(jax.tree.leaves(rows), jax.tree.leaves(again), strict=True)
    same = all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in leaves)
    return [
        kept(rows, limit),
        truncates(rows, limit),
        differ(rows, limit, starts),
        paid(rows, limit),
        stable(wrapped, key),
        same or "the same key gave other numbers",
    ]


def checked(made: Raw, name: str) -> Answer:
    """What `check_environment` says of the stream."""
    try:
        check_environment(from_raw(made, 4, name), 40)
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0][:160]
    return True


def of_subject(args: Args, suite: str, subject: Subject) -> list[dict[str, Any]]:
    """The rows of a task: our stream, and the suite's own."""
    told = {"suite": suite, "version": _version(suite), "task": subject.task}
    limit = args.limit if subject.limit else None
    try:
        with no_network():
            made = raw(suite, subject, args.limit)
    except Exception as error:
        why = f"{type(error).__name__}: {error}".partition("\n")[0][:160]
        return [told | {"side": "our stream", "check_environment": why}]
    ours = asked(args, lambda: stream(made), limit)
    rows = [told | {"side": "our stream", "answers": ours}]
    rows[0]["check_environment"] = checked(made, subject.task)
    if subject.wrapped is not None:
        make = subject.wrapped
        theirs = asked(args, lambda: make(subject.task, made, args.limit), limit)
        name = make(subject.task, made, args.limit).name
        rows.append(told | {"side": name, "answers": theirs})
    return rows


def _version(suite: str) -> str:
    if suite in table.SUITES:
        return version(table.SUITES[suite].needs[0].split(">")[0])
    return version(PACKAGES[suite])


def main(args: Args) -> None:
    """Asks, prints and writes after each task."""
    report: dict[str, Any] = {
        "args": asdict(args), "machine": cli.machine(), "jax": version("jax"),
        "questions": QUESTIONS, "threads": THREADS, "rows": [], "absent": {},
    }  # fmt: skip
    if args.output.exists():
        anew = [(suite, subject.task) for suite, subject in chosen(args)]
        before = json.loads(args.output.read_text())["rows"]
        report["rows"] = [x for x in before if (x["suite"], x["task"]) not in anew]
    for suite, subject in chosen(args):
        if suite in table.SUITES and (why := table.problem(suite)):
            report["absent"][suite] = why
            continue
        for row in of_subject(args, suite, subject):
            report["rows"].append(row)
            told = row.get("answers", {})
            told = told | {"check_environment": row.get("check_environment", True)}
            wrong = {x: y for x, y in told.items() if y not in (True, None)}
            print(f"{suite}::{subject.task}, {row['side']}: {wrong or 'yes'}")
        args.output.write_text(json.dumps(report, indent=1, default=str))


if __name__ == "__main__":
    os.environ.setdefault("NPROC", "1")
    # Nothing is timed, and most of the work is compiling.
    os.environ.setdefault("XLA_FLAGS", _QUICKLY_COMPILED)
    cli.configure_jax()
    main(cli.parse(Args))
