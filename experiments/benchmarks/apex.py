"""Who slows whom in Ape-X: actors and the learner, together and each by itself.

    uv run --extra hosts --extra envpool experiments/benchmarks/apex.py
    ... apex.py --backend gymnasium

Three runs of the same programs, in turn, again and again. Only the pace differs:

    together   no ratio: neither waits for the other
    actors     a ratio so small that the learner has all but nothing to do
    learner    one so large that actors have all but nothing to do

Rates are of actors, environment steps per second, and of the learner, updates per
second, each after compilation and as soon as there is enough to learn from. Medians are
over rounds.
"""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random
from jaxrl_par.cli.entry import compute_in_place
from jaxrl_par.errors import above, at_least, not_chosen
from jaxrl_par.loops.pace import PaceConfig
from jaxrl_par.presets.apex import Args as Method
from jaxrl_par.presets.apex import make_agent
from jaxrl_par.training.files import write_json

PACES = {
    "together": PaceConfig(),
    "actors": PaceConfig(samples_per_insert=0.1),
    "learner": PaceConfig(samples_per_insert=1e5, run_ahead=1),
}


@dataclass(frozen=True)
class Args:
    """Measures Ape-X."""

    backend: Literal["envpool", "gymnasium"] = "envpool"
    num_actors: int = 1
    num_envs: int = 16
    rounds: int = 5
    seconds: float = 5.0
    """Length of each run, after compilation."""
    xla_threads: int = 2
    """Threads that XLA may compute with, besides those that call it."""
    output: Path | None = None

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = ("num_actors", "num_envs", "rounds", "xla_threads")
        found = at_least(self, **dict.fromkeys(counts, 1)) + not_chosen(self)
        return found + above(self, seconds=0)


def measured(args: Args, pace: PaceConfig) -> dict[str, float]:
    """Rates of one run."""
    usual = Method()
    threads = replace(usual.threads, num_actors=args.num_actors, pace=pace)
    settings = replace(
        usual, backend=args.backend, num_envs=args.num_envs, threads=threads
    )
    engine: Any = cli.place(settings, cli.compose(settings, make_agent))
    try:
        run = engine.init(random.key(0))
        # Until it is ready, each insert is an update.
        warm = settings.replay.min_size // settings.rows_added + 1
        run, _ = engine.advance(run, warm)
        before, started = engine.report(), time.perf_counter()
        while time.perf_counter() - started < args.seconds:
            run, _ = engine.advance(run, 1)
        after = engine.report()
    finally:
        engine.close()
    seconds = after.seconds - before.seconds

    def acted(report: Any) -> float:
        return report.actor_steps_per_second * report.seconds

    return {
        "actors": (acted(after) - acted(before)) / seconds,
        "learner": (after.updates - before.updates) / seconds,
    }


def run(args: Args) -> None:
    """Measures in turn, and shows medians."""
    os.environ.setdefault("NPROC", str(args.xla_threads))  # before XLA starts
    compute_in_place()
    rounds = [
        {name: measured(args, pace) for name, pace in PACES.items()}
        for _ in range(args.rounds)
    ]
    table = Table("", "alone", "together", "share")
    shares = {}
    for side, unit in (("actors", "steps/s"), ("learner", "updates/s")):
        alone, together = (
            median(x[name][side] for x in rounds) for name in (side, "together")
        )
        shares[side] = median(x["together"][side] / x[side][side] for x in rounds)
        table.add_row(
            side, f"{alone:,.0f} {unit}", f"{together:,.0f}", f"{shares[side]:.0%}"
        )
    Console().print(table)
    if args.output:
        told = {"machine": cli.machine(), "shares": shares, "rounds": rounds}
        write_json(args.output, told)


if __name__ == "__main__":
    cli.main(run, Args)
