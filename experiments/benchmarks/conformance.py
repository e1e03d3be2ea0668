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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from wrapped import SUBJECTS, Bare, Seen, Subject, Wrapped, raw, stream

from jaxrl_par import cli
from jaxrl_par.envs import Raw, from_raw
from jaxrl_par.envs.raw import as_written
from jaxrl_par.envs.suites import table
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
PACKAGES = {"gymnax": "gymnax", "ours": "jaxrl-par"}


@dataclass(frozen=True)
class Args:
    """Asks the suites that are installed."""

    only: tuple[str, ...] = ()
    """Suites; all of them by default."""
    heavy: bool = False
    """Also tasks that compile for minutes."""
    num_envs: int = 4
    num_steps: int = 48
    limit: int = 6
    """Time limit of episodes, where the task takes one."""
    output: Path = Path("conformance.json")


class Rows(NamedTuple):
    """T steps of B environments."""

    seen: Seen
    bare: Bare
    idle: Any
    first: Any
    """What reset shows, [B, ...]."""


def followed(wrapped: Wrapped, num_envs: int, num_steps: int, key: Any) -> Rows:
    """Random legal actions."""
    reset_key, step_key = jax.random.split(key)

    def one(state, key):
        act_key, env_key = jax.random.split(key)
        action = wrapped.act(state, act_key)
        bare, idle = wrapped.bare(state, action, env_key), wrapped.idle(state)
        state, seen = wrapped.step(state, action, env_key)
        return state, (seen, bare, jnp.asarray(idle, bool))

    def advance(state, key):
        return jax.vmap(one)(state, jax.random.split(key, num_envs))

    state, first = jax.vmap(wrapped.reset)(jax.random.split(reset_key, num_envs))
    keys, rows = jax.random.split(step_key, num_steps), []
    # Not in a scan, which refuses those whose dtypes change.
    step = jax.jit(advance)
    for key in keys:
        state, row = step(state, key)
        rows.append(jax.device_get(row))
    seen, bare, idle = jax.tree.map(lambda *x: np.stack(x), *rows)
    return Rows(seen, bare, idle, jax.device_get(first))


Answer = bool | str | None
"""Yes, why not, or None where there is nothing to ask."""


def kept(rows: Rows, limit: int | None) -> Answer:
    """What follows the last action of an episode is shown."""
    ends = _ends(rows)
    if not ends.any():
        return "no episode ended"
    same = _alike(rows.seen.successor, rows.bare.obs)[ends]
    return bool(same.all()) or f"{(~same).sum()} of {same.size} are not shown"


def truncates(rows: Rows, limit: int | None) -> Answer:
    """An episode that its limit alone ends goes on for who estimates values."""
    if limit is None:
        return None
    cut = _ends(rows) & ~rows.bare.terminated.astype(bool) & (_lengths(rows) == limit)
    if not cut.any():
        return "no episode was cut"
    wrong = cut & (rows.seen.discount == 0)
    return not wrong.any() or f"{wrong.sum()} of {cut.sum()} are ends"


def differ(rows: Rows, limit: int | None, starts: Any) -> Answer:
    """Episodes begin in different ways, if the task does.

    Args:
      starts: what many resets show.
    """
    if _alike(starts, jax.tree.map(lambda x: x[:1], starts), 1).all():
        return None
    if _alike(rows.first, jax.tree.map(lambda x: x[:1], rows.first), 1).all():
        return "all environments begin alike"
    begins = rows.idle if rows.idle.any() else _ends(rows)
    repeated = total = 0
    for b in range(begins.shape[1]):
        first = jax.tree.map(lambda x, b=b: x[b][None], rows.first)
        found = jax.tree.map(lambda x, b=b: x[begins[:, b], b], rows.seen.obs)
        same = _alike(found, first, 1)
        repeated, total = repeated + int(same.sum()), total + same.size
    return repeated < total or f"all {total} begin as the first episode did"


def paid(rows: Rows, limit: int | None) -> Answer:
    """Every reward of the task is there, and no other."""
    wanted = np.where(rows.idle, 0.0, rows.bare.reward)
    same = np.isclose(rows.seen.reward, wanted, rtol=1e-4, atol=1e-4)
    return bool(same.all()) or f"{(~same).sum()} of {same.size} are others"


def stable(wrapped: Wrapped, key: Any) -> Answer:
    """A scan takes what reset and step return."""
    state, obs = jax.eval_shape(wrapped.reset, key)
    action = jax.eval_shape(wrapped.act, state, key)
    after, seen = jax.eval_shape(wrapped.step, state, action, key)
    before, then = ((state, obs), (after, seen.obs))
    if jax.tree.structure(before) != jax.tree.structure(then):
        return "step returns another structure than reset"
    paths = [jax.tree_util.keystr(x) for x, _ in jax.tree.leaves_with_path(before)]
    for path, x, y in zip(
        paths, jax.tree.leaves(before), jax.tree.leaves(then), strict=True
    ):
        kinds = [(z.shape, z.dtype, z.weak_type) for z in (x, y)]
        if kinds[0] != kinds[1]:
            told = [f"{z.dtype}{' weak' * z.weak_type}{list(z.shape)}" for z in (x, y)]
            return f"{path} is {told[0]}, and {told[1]} after a step"
    return True


def _ends(rows: Rows) -> Any:
    return rows.seen.over.astype(bool) & ~rows.idle


def _lengths(rows: Rows) -> Any:
    """Steps of the episode, that of the row included."""
    count, found = np.zeros(rows.idle.shape[1], int), []
    for over, idle in zip(rows.seen.over.astype(bool), rows.idle, strict=True):
        count = np.where(idle, 0, count + 1)
        found.append(count)
        count = np.where(over, 0, count)
    return np.stack(found)


def _alike(x: Any, y: Any, axes: int = 2) -> Any:
    """Which rows are the same up to rounding: [T, B], or [B] for one axis."""

    def close(a: Any, b: Any) -> Any:
        found = np.isclose(np.asarray(a, float), np.asarray(b, float), 1e-4, 1e-4)
        return found.reshape(*found.shape[:axes], -1).all(-1)

    return np.all(jax.tree.leaves(jax.tree.map(close, x, y)), axis=0)


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
    rows, again = followed(wrapped, *size, key), followed(wrapped, *size, key)
    starts = jax.vmap(wrapped.reset)(jax.random.split(jax.random.key(1), 16))[1]
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
    report = {
        "args": asdict(args), "machine": cli.machine(), "jax": version("jax"),
        "questions": QUESTIONS, "rows": [], "absent": {},
    }  # fmt: skip
    for suite, subjects in SUBJECTS.items():
        if args.only and suite not in args.only:
            continue
        if suite in table.SUITES and (why := table.problem(suite)):
            report["absent"][suite] = why
            continue
        for subject in subjects:
            if subject.heavy and not args.heavy:
                continue
            for row in of_subject(args, suite, subject):
                report["rows"].append(row)
                answers = row.get("answers", {})
                wrong = {x: y for x, y in answers.items() if y not in (True, None)}
                if row.get("check_environment", True) is not True:
                    wrong["check_environment"] = row["check_environment"]
                print(f"{suite}::{subject.task}, {row['side']}: {wrong or 'yes'}")
            args.output.write_text(json.dumps(report, indent=1, default=str))


if __name__ == "__main__":
    os.environ.setdefault("NPROC", "1")
    cli.configure_jax()
    main(tyro.cli(Args))
