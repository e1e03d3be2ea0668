"""Stragglers: what a quorum of actors gains in steps per second, and costs in return.

    python experiments/straggler_study.py

Actors step simulators that now and then take very long: CartPole, which sleeps by
Pareto's law. Lockstep waits for the slowest of n actors; with a quorum an update takes
the first q of n unrolls, and learns from the others later, or drops them where they are
older than `max_lag` updates. A2C in threads, q = n, 0.8 n and 0.6 n, over seeds; a case
is kept as soon as it is done: started again, the study goes on.

It writes study.json and study.png: environment steps that were learned from per second,
and returns against them, every seed. After Wijmans et al., arXiv:1911.00357 (DD-PPO),
section 3, which cuts stragglers off at 60 %.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, envs, presets, random
from jaxrl_par.envs.host import HostEnvironment, from_pure
from jaxrl_par.errors import above, at_least
from jaxrl_par.loops.engine import Engine
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.a2c import Args as Method
from jaxrl_par.presets.a2c import make_agent
from jaxrl_par.topologies.threads import ThreadsConfig
from jaxrl_par.training.comparison import to_json

LONGEST = 100
"""The longest sleep, in means: else one of a heavy tail could take hours."""


class Stalling(HostEnvironment):
    """Environments whose steps take long, and some very long."""

    def __init__(self, env: HostEnvironment, seed: int, mean: float, tail: float):
        """`mean`: seconds of a sleep; P(sleep > x) falls as x**-tail."""
        self._env, self._random = env, np.random.default_rng(seed)
        self._mean, self._tail = mean, tail
        self._describe(env)

    def reset(self):
        return self._env.reset()

    def step(self, action: Any):
        draw = 1.0 + self._random.pareto(self._tail)
        time.sleep(self._mean * min(draw * (self._tail - 1.0) / self._tail, LONGEST))
        return self._env.step(action)

    def plan(self, keys: Any) -> None:
        self._env.plan(keys)

    def close(self) -> None:
        self._env.close()


def _settings() -> Method:
    """A2C in threads, with a rate that suits the few steps that sleeping allows."""
    return replace(
        Method(),
        topology="threads",
        num_envs=40,
        unroll_length=16,
        total_steps=100_000,
        optimizer=OptimizerConfig(learning_rate=5e-3, max_grad_norm=1.0),
        threads=ThreadsConfig(num_actors=5, schedule="lockstep", max_lag=4, quorum=4),
    )


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/straggler_study")
    shares: tuple[float, ...] = (1.0, 0.8, 0.6)
    """Of all actors, those that make a quorum."""
    num_seeds: int = 3
    mean_ms: float = 5.0
    """Milliseconds that a step of an actor's environments takes, in the mean."""
    tail: float = 1.3
    """P(time > x) falls as x**-tail."""
    settings: Method = field(default_factory=_settings)
    """What all cases share but quorum and seed; a quorum is not read there, and max_lag
    only with one."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1) + above(self, mean_ms=0, tail=1)
        if not self.shares or not all(0 < x <= 1 for x in self.shares):
            found.append(f"shares must be numbers in (0, 1], got {self.shares}")
        if self.settings.topology != "threads":
            found.append("settings.topology must be threads")
        return found


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    threads = args.settings.threads
    for seed in range(args.num_seeds):
        for share in args.shares:
            quorum = max(round(share * threads.num_actors), 1)
            is_whole = quorum == threads.num_actors
            own = replace(
                threads, quorum=quorum, max_lag=None if is_whole else threads.max_lag
            )
            settings = replace(args.settings, seed=seed, threads=own)
            yield f"{quorum}-{seed}", partial(trained, args, settings)


def stalling(args: Args, env_name: str, num_envs: int, seed: int) -> Stalling:
    """Environments of one actor."""
    env = from_pure(envs.make(env_name, num_envs), random.key(seed))
    return Stalling(env, seed, args.mean_ms / 1000, args.tail)


def trained(args: Args, settings: Method) -> dict[str, Any]:
    """One case: its rate, and returns by environment steps."""
    make = partial(stalling, args, settings.env_name)
    experiment = presets.get("a2c").on(settings.env_name, simulators=make)
    given = {x.name: getattr(settings, x.name) for x in fields(settings)}
    config: Any = experiment.config(**given)
    engine: Any = cli.place(config, cli.compose(config, make_agent))
    assert isinstance(engine, Engine)
    points, seconds = [], 0.0
    with engine:
        started = engine.init(random.key(settings.seed))
        while (steps := int(started.progress.env_steps)) < settings.total_steps:
            began, compiled = time.perf_counter(), engine.compile_seconds
            started, metrics = engine.advance(started, settings.training.log_interval)
            seconds += time.perf_counter() - began
            seconds -= engine.compile_seconds - compiled
            returns: Any = metrics["episode_return"]
            total, count = (float(np.sum(x)) for x in returns)
            points.append((steps, total / count if count else None))
    report: Any = engine.report()
    threads, rate = settings.threads, steps / seconds
    print(f"{threads.quorum} of {threads.num_actors}: {rate:,.0f} steps/s", flush=True)
    last = [x for _, x in points[-max(len(points) // 10, 1) :] if x is not None]
    return {
        "quorum": threads.quorum,
        "num_actors": threads.num_actors,
        "seed": settings.seed,
        "steps_per_second": rate,
        "seconds": seconds,
        "return": float(np.mean(last)) if last else None,
        "points": points,
        "lag": report.lag(),
        "dropped": sum(report.stale_rows),
        "learned_shares": list(report.learned_shares),
    }


def write(args: Args, cases: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    rows = [
        [x for x in cases if x["quorum"] == quorum]
        for quorum in sorted({x["quorum"] for x in cases}, reverse=True)
    ]
    show(rows)
    summary = {
        "settings": to_json(args.settings), "mean_ms": args.mean_ms, "tail": args.tail,
        "machine": cli.machine(), "cases": cases,
    }  # fmt: skip
    (args.out / "study.json").write_text(json.dumps(summary, indent=1))
    draw(args.out, rows)


def show(rows: list[list[dict[str, Any]]]) -> None:
    """Prints the table."""
    table = Table(
        "quorum", "steps/s", "of lockstep's", "return of every seed", "lag",
        "rows too old", "least share learned", title="medians over seeds",
    )  # fmt: skip
    rates = [median(x["steps_per_second"] for x in row) for row in rows]
    for row, rate in zip(rows, rates, strict=True):
        returns = ["-" if x["return"] is None else f"{x['return']:.0f}" for x in row]
        shares = [y for x in row for y in x["learned_shares"]]
        table.add_row(
            f"{row[0]['quorum']} of {row[0]['num_actors']}",
            f"{rate:,.0f}",
            f"{rate / rates[0]:.2f}",
            " ".join(returns),
            f"{median(x['lag'] for x in row):.2f}",
            f"{median(x['dropped'] for x in row):,.0f}",
            f"{min(shares):.0%}" if shares else "all",
        )
    Console(width=110).print(table)


def draw(out: Path, rows: list[list[dict[str, Any]]]) -> None:
    """Rates, and returns against seconds; every seed."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    rates, returns = figure.subplots(1, 2)
    for number, row in enumerate(rows):
        label, color = f"{row[0]['quorum']} of {row[0]['num_actors']}", f"C{number}"
        y = [x["steps_per_second"] for x in row]
        rates.plot([label] * len(y), y, "o", color=color, alpha=0.5)
        rates.plot([label], [median(y)], "_", color=color, markersize=24)
        for case in row:
            known = [x for x in case["points"] if x[1] is not None]
            times = [x / case["steps_per_second"] for x, _ in known]
            values = [y for _, y in known]
            is_first = case is row[0]
            returns.plot(
                times, values, color=color, alpha=0.7, label=label if is_first else None
            )
    rates.set(xlabel="quorum", ylabel="environment steps a second")
    rates.set_ylim(bottom=0)
    returns.set(xlabel="seconds, at the mean rate", ylabel="return of episodes")
    returns.legend()
    figure.savefig(out / "study.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
