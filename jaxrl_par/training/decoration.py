"""What only shows a run, such as pictures and TensorBoard: it may fail without harm.

A failure is told once, in a line, and training goes on. Nothing here is waited for
without end: sinks that reach a disk or a service have threads of their own.
"""

import os
import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxrl_par.training.failures import tell
from jaxrl_par.training.files import FileError, read_object, write_json
from jaxrl_par.training.rows import Row, Sink, scalar

_BACKLOG = 10_000
"""Rows that may wait for a sink; one that is so much slower than training is left."""


@contextmanager
def harmless(what: str) -> Iterator[None]:
    """Tells of an error in a line, and goes on behind this context."""
    try:
        yield
    except Exception as error:  # whatever a library for pictures may raise
        tell(f"{what}: {_said(error)}. Training is not affected")


class Aside:
    """A sink in a thread of its own, for which training never waits."""

    def __init__(self, what: str, make: Callable[[], Sink], patience: float = 30.0):
        """
        Args:
          what: its name, for a person.
          make: called in the thread.
          patience: seconds that `close` waits while nothing more is written.
        """
        self._what, self._patience = what, patience
        self._calls: queue.SimpleQueue[tuple[str, Row | None]] = queue.SimpleQueue()
        self._failed, self._telling = False, threading.Lock()
        self._thread = threading.Thread(target=self._work, args=(make,), daemon=True)
        self._thread.start()

    def write(self, row: Row) -> None:
        if not self._failed and self._calls.qsize() > _BACKLOG:
            self._fail(f"{_BACKLOG:,} rows wait to be written")
        self._ask("write", row)

    def flush(self) -> None:
        self._ask("flush")

    def close(self) -> None:
        self._ask("close")
        left = self._calls.qsize() + 1
        while self._thread.is_alive() and not self._failed:
            self._thread.join(self._patience)
            before, left = left, self._calls.qsize()
            if self._thread.is_alive() and left >= before:
                self._fail(f"nothing was written for {self._patience:g} seconds")

    def _ask(self, call: str, row: Row | None = None) -> None:
        if not self._failed:
            self._calls.put((call, row))

    def _work(self, make: Callable[[], Sink]) -> None:
        try:
            sink, call = make(), ""
            while call != "close" and not self._failed:
                call, row = self._calls.get()
                getattr(sink, call)(*([] if row is None else [row]))
        except Exception as error:
            self._fail(_said(error))

    def _fail(self, reason: str) -> None:
        """The first reason is told, before `close` may end and the process with it."""
        with self._telling:
            if not self._failed:
                tell(f"{self._what}: {reason}. Training goes on without it")
            self._failed = True


class WeightsAndBiases:
    """A run of W&B; `TrainingConfig.problems` says what to install without it.

    Without a key, or where the service does not answer, it is kept on disk, from where
    `wandb sync` sends it.
    """

    def __init__(self, directory: Path, identity: Path, config: dict[str, Any]):
        """
        Args:
          identity: file with the id, by which a resumed run goes on in the same one.
        """
        import wandb  # pyright: ignore[reportMissingImports]

        # Bounds of what it waits for, also when the process ends.
        settings = wandb.Settings(init_timeout=30.0, finish_timeout=60.0)
        about = {
            "project": "jaxrl_par",
            "id": _kept_id(identity),
            "name": directory.name,
            "dir": str(directory),
            "config": config,
            "resume": "allow",
            "settings": settings,
        }
        chosen = os.environ.get("WANDB_MODE", "online") != "online"
        try:
            # It would ask for a key on a terminal, and wait.
            if not chosen and not wandb.login(prompt=False):
                raise wandb.Error("there is no key: see `wandb login`")
            self._run = wandb.init(**about)
        except wandb.Error as error:
            tell(
                f"W&B: {_said(error)}. The run is kept in {directory / 'wandb'}, from"
                " where `wandb sync` sends it"
            )
            self._run = wandb.init(**about | {"mode": "offline"})

    def write(self, row: Row) -> None:
        self._run.log({n: scalar(x) for n, x in row.items()}, step=row["updates"])

    def flush(self) -> None:
        """W&B sends from a process of its own."""

    def close(self) -> None:
        self._run.finish()


def _kept_id(path: Path) -> str:
    """The id in the file, or a new one, which is then kept there."""
    if not path.exists():
        write_json(path, {"id": uuid.uuid4().hex})
    found = read_object(path).get("id")
    if not isinstance(found, str) or not found:
        raise FileError(f"{path}, line 1: it has no id of W&B")
    return found


def _said(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    return text or type(error).__name__
