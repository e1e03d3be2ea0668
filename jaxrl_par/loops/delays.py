"""Who finishes when, as a choice of a few words: what makes the schedule of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from jaxrl_par.errors import (
    ReadIf,
    above,
    at_least,
    at_most,
    below,
    not_chosen,
    refuse,
)
from jaxrl_par.loops import rounds, schedules
from jaxrl_par.loops.records import RecordError, read, read_turns
from jaxrl_par.loops.rounds import Rounds
from jaxrl_par.loops.schedules import Schedule

Storage = Literal["ring", "copies"]
Durations = Float[np.ndarray, "N W"]


@dataclass(frozen=True)
class DelaysConfig:
    """Who finishes when: what makes the schedule of a run."""

    read_if: ClassVar[ReadIf] = {
        "delay": ("model", ("constant",)),
        "slowest": ("model", ("per_worker",)),
        "tail": ("model", ("heavy_tailed",)),
        "record": ("model", ("recorded",)),
    }
    """What each of these fields is for: another one, and its values."""

    model: Literal[
        "none", "constant", "per_worker", "random", "heavy_tailed", "recorded"
    ] = "random"
    """none, constant: workers in turn, with parameters of 0 or `delay` updates before.
    per_worker: each is always as fast; random: durations are exponential, heavy_tailed:
    Pareto, and nobody waits. recorded: as threads were."""
    delay: int = 4
    """Age of the parameters under constant, in updates."""
    slowest: float = 4.0
    """How many times as long as the fastest the slowest takes, under per_worker.
    The others are between them, in equal ratios."""
    tail: float = 1.5
    """P(duration > x) falls as x**-tail, under heavy_tailed."""
    record: str | None = None
    """The schedule.jsonl of a run with topology workers and one shard, for recorded, or
    with a quorum of one of threads with that. A longer run begins it again."""
    storage: Storage = "ring"
    """ring keeps as many parameters as the largest delay, copies one for each worker:
    the same numbers, and less memory where delays may be long. Copies are for
    per_worker, random and heavy_tailed."""
    quorum: int | None = None
    """Unrolls that make an update, the first that are there, oldest first; workers act
    with the newest parameters, and only their actions are old. The others are learned
    from later, or dropped as workers.staleness says. With one of each it is lockstep.
    None: each gradient of a worker is an update."""
    lag: int = 0
    """With a quorum: unrolls that a worker may begin before its last one was learned
    from."""

    def problems(self) -> list[str]:
        found = not_chosen(self) + at_least(self, delay=0, slowest=1)
        found += at_least(self, quorum=1, lag=0)
        found += at_most(self, delay=10**6, lag=10**6)
        found += below(self, slowest=float("inf")) + above(self, tail=1)
        if self.model == "recorded" and self.record is None:
            found.append("record must be a schedule.jsonl for model = recorded")
        read_by = {"constant": "delay", "per_worker": "slowest", "heavy_tailed": "tail"}
        found += [
            f"{name} is for model = {model}, not {self.model}"
            for model, name in (read_by | {"recorded": "record"}).items()
            if model != self.model and getattr(self, name) != getattr(type(self), name)
        ]
        if self.storage == "copies" and self.model in ("none", "constant", "recorded"):
            found.append(
                "storage = copies is for per_worker, random and heavy_tailed;"
                f" {self.model} needs ring"
            )
        return found + self._problems_of_quorum()

    def _problems_of_quorum(self) -> list[str]:
        if self.quorum is None:
            return [f"lag is for a quorum, got {self.lag}"] if self.lag else []
        found = []
        if self.model == "constant":
            found.append("model must be no constant with a quorum, got constant")
        if self.storage == "copies":
            found.append("storage must be ring with a quorum, got copies")
        if self.model == "recorded" and self.lag:
            found.append(f"lag must be 0 for model = recorded, got {self.lag}")
        return found

    def schedule(self, num_workers: int, num_turns: int, seed: int) -> Schedule:
        """
        Args:
          num_turns: of all models but recorded, which is as long as its record.
          seed: of random and heavy_tailed.

        Raises:
          ValueError: the config is out of range.
          RecordError: there is no record, or none of so many workers and one shard.
        """
        refuse(self)
        if self.record is not None:
            return recorded(Path(self.record), num_workers)
        if self.model in ("none", "constant"):
            delay = self.delay if self.model == "constant" else 0
            return schedules.in_turn(num_workers, num_turns, delay)
        return schedules.simulated(self.durations(num_workers, num_turns, seed))

    def rounds(
        self, num_workers: int, num_updates: int, seed: int, max_lag: int | None
    ) -> Rounds:
        """With a quorum, what takes the place of a schedule.

        Args:
          num_updates, seed: as for `schedule`.
          max_lag: age in updates beyond which an unroll is dropped.

        Raises:
          ValueError: the config is out of range.
          RecordError: there is no record, or it does not fit.
        """
        refuse(self)
        assert self.quorum is not None
        if self.record is not None:
            found = read(Path(self.record))
            return rounds.recorded(found, num_workers, self.quorum)
        durations = self.durations(num_workers, num_updates, seed)
        return rounds.simulated(durations, self.quorum, self.lag, max_lag)

    def durations(self, num_workers: int, num_turns: int, seed: int) -> Durations:
        """Times of workers' turns; all alike where the model says nothing of them."""
        size = num_turns, num_workers
        if self.model == "random":
            return schedules.exponential(*size, seed)
        if self.model == "heavy_tailed":
            return schedules.heavy_tailed(*size, seed, self.tail)
        slowest = self.slowest if self.model == "per_worker" else 1.0
        return schedules.steady(
            num_turns, np.geomspace(1.0, 1.0 / slowest, num_workers)
        )


def recorded(path: Path, num_workers: int) -> Schedule:
    """The schedule of a run of `topologies.workers`, which it recorded at `path`.

    Raises:
      RecordError: as `read_turns`; or it is not of one shard and so many workers.
    """
    turns = read_turns(path)
    worker = np.array([x.worker for x in turns], np.int32)
    if set(worker.tolist()) != set(range(num_workers)):
        raise RecordError(
            f"{path} is a schedule of {len(set(worker.tolist()))} workers, asked for"
            f" {num_workers}"
        )
    if any(len(x.read) != 1 for x in turns):
        raise RecordError(
            f"{path}: parameters in several shards, whose delays differ; a schedule"
            " has one delay for all of them"
        )
    read = np.array([x.read[0] for x in turns], np.int32)
    return Schedule(worker, np.arange(len(turns), dtype=np.int32) - read)
