"""Asynchronous NAF where robots really take their time: collectors in threads.

    python experiments/naf_threads_study.py

As `naf_study.py`, by the clock: each robot is a pendulum that sleeps `step_ms` in each
step. Each of N collectors is a thread with one robot, which pulls where an episode
begins; one trainer learns from what there is, up to a cap of updates for each row, and
nobody waits for anybody else. The trainer's parameters are kept every `kept_updates`
updates, and played when the run is over. What is shown is when greedy episodes return
`threshold` in three of them in a row. Runs take minutes, and most of that asleep. It
writes study.json: every seed, and the median. After Gu et al., arXiv:1610.00633.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random
from jaxrl_par.algorithms.actor_critic import NAFConfig
from jaxrl_par.envs.host import HostEnvironment, from_pure
from jaxrl_par.errors import above, at_least
from jaxrl_par.loops.pace import PaceConfig
from jaxrl_par.presets.naf import Args as Method
from jaxrl_par.presets.naf import make_agent
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, threads
from jaxrl_par.training.evaluation import evaluator
from jaxrl_par.types import PRNGKey


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/naf_threads_study")
    """Folder of the results; those of other settings belong into another one."""
    num_collectors: tuple[int, ...] = (1, 2, 4)
    num_seeds: int = 3
    step_ms: float = 20.0
    """Milliseconds that a robot sleeps in each step."""
    num_updates: int = 6_000
    """Of the trainer, in a run."""
    updates_per_row: float = 1.0
    """Updates for each row, at most."""
    kept_updates: int = 50
    threshold: float = -200.0
    """Mean return that is to be reached."""
    num_played: int = 50
    """Greedy episodes of each of the kept parameters, with the same starts."""
    settings: Method = replace(
        Method(),
        topology="threads",
        pull="episode",
        unroll_length=4,
        naf=NAFConfig(warm_up=800, noise=0.3),
        replay=replace(
            Method().replay, capacity=20_000, min_size=200, updates_per_step=1
        ),
    )
    """What all cases share; num_envs, threads and total_steps are not read."""

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = ("num_seeds", "num_updates", "kept_updates", "num_played")
        found = at_least(self, num_collectors=1, **dict.fromkeys(counts, 1))
        found += above(self, step_ms=0, updates_per_row=0)
        if not self.num_collectors:
            found.append("num_collectors must name at least one")
        return found

    def of(self, num_collectors: int) -> Method:
        """The settings of a case."""
        pace = PaceConfig(self.updates_per_row * self.settings.replay.batch_size)
        config = ThreadsConfig(num_collectors, "decoupled", pace=pace)
        return replace(self.settings, num_envs=num_collectors, threads=config)


def run(args: Args) -> None:
    """Trains what is missing, and shows all there is."""
    write(args, cli.kept_cases(args.out / "cases", planned(args)))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for seed in range(args.num_seeds):
        for number in args.num_collectors:
            yield f"{number}-{seed}", partial(trained, number, seed, args)


def sleeping(settings: Method, step_ms: float, key: PRNGKey) -> HostEnvironment:
    """A robot."""
    robot = from_pure(settings.make_env(1), key)
    step = robot.step

    def slow(action: Any) -> Any:
        time.sleep(step_ms / 1000)
        return step(action)

    robot.step = slow
    return robot


def trained(num_collectors: int, seed: int, args: Args) -> dict[str, Any]:
    """When a run had learned it, and what its threads did."""
    settings = args.of(num_collectors)
    learner = cli.compose(settings, make_agent)
    make_env = partial(sleeping, settings, args.step_ms)
    engine = threads(
        learner, make_env, settings.unroll_length, settings.threads, data_mesh(1)
    )
    seconds, kept = [], []
    with engine:
        run, _ = engine.advance(engine.init(random.key(seed)), 1)  # and compiles
        began = time.perf_counter()
        for _ in range(args.num_updates // args.kept_updates):
            run, _ = engine.advance(run, args.kept_updates)
            seconds.append(time.perf_counter() - began)
            kept.append(jax.device_get(learner.params(run.learner)))
        report: Any = engine.report()
    greedy = learner.actor._replace(act=learner.actor.greedy)
    play = jax.jit(evaluator(greedy, settings.make_env(args.num_played), 1))
    returns = [float(np.mean(play(x, random.key(10_000)).returns)) for x in kept]
    reached = cli.first_above(args.threshold, seconds, returns)
    print(f"{num_collectors} collectors: {reached} s, of {seconds[-1]:.0f}", flush=True)
    return {
        "num_collectors": num_collectors, "seed": seed, "seconds": reached,
        "steps": int(run.progress.env_steps), "seconds_of_run": seconds[-1],
        "samples_per_insert": report.samples_per_insert,
    }  # fmt: skip


def write(args: Args, results: list[dict[str, Any]]) -> None:
    """Table and numbers."""
    table = Table("collectors", "seconds of every seed", "median", "times as fast")
    rows: list[dict[str, Any]] = []
    for number in sorted({x["num_collectors"] for x in results}):
        mine = [x["seconds"] for x in results if x["num_collectors"] == number]
        middle = median(math.inf if x is None else x for x in mine)
        first = rows[0]["median"] if rows else middle
        faster = first / middle if first else math.nan
        row = {"num_collectors": number, "seconds": mine, "median": _finite(middle)}
        row |= {"times_as_fast": _finite(faster)}
        rows.append(row | {"threshold": args.threshold, "step_ms": args.step_ms})
        told = " ".join("-" if x is None else f"{x:.1f}" for x in mine)
        table.add_row(str(number), told, *_told(row["median"], row["times_as_fast"]))
    cli.write_study(args.out, args.settings, rows, results)
    Console(width=110).print(table)


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _told(*numbers: float | None) -> list[str]:
    return ["-" if x is None else f"{x:.2f}" for x in numbers]


if __name__ == "__main__":
    cli.main(run, Args)
