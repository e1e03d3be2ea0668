"""More workers: episodes to solve, time to solve, time an episode, and speed-up.

    python experiments/worker_scaling.py
    python experiments/worker_scaling.py --settings.env-name LunarLander-v3 \\
        --threshold 150 --settings.total-steps 2000000 --out runs/scaling_lander \\
        --envs-per-worker 16 --settings.unroll-length 16 --settings.network.no-shared \\
        --settings.optimizer.name adam --settings.optimizer.learning-rate 5e-4 \\
        --settings.optimizer.max-grad-norm 0.5 --settings.a2c.entropy-cost 0.02 \\
        --log-interval 20 --num-seeds 1

Trains A3C until the last 100 episodes have a mean return of `threshold`, for numbers of
workers and kinds of store. Up to as many workers as this machine has cores they are
threads. Beyond that the number of threads says nothing about asynchrony: a pure
environment then runs under `topologies.delayed`, on one core, with the schedule of
equally fast workers; a simulator runs in threads that share the cores. Every point says
which it is: in the figure, those of threads with a core each are filled. Each case is
kept as soon as it is done: started again, the study goes on.

After a project of Stone and Sachdev (2019), who compared a lock, a parameter server and
Hogwild on LunarLander.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli
from jaxrl_par.errors import at_least
from jaxrl_par.presets.a3c import Args as Method
from jaxrl_par.presets.a3c import make_agent
from jaxrl_par.training.comparison import to_json


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/worker_scaling")
    num_workers: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    stores: tuple[str, ...] = ("lock", "hogwild", "server-1", "server-4")
    """A server with its number of shards. Late gradients know no stores: beyond the
    cores of this machine a pure environment has one point for all of them."""
    num_seeds: int = 3
    threshold: float = 475.0
    """Mean return at which the task is solved."""
    max_threads: int = os.cpu_count() or 1
    """Workers up to which a pure environment runs in threads."""
    envs_per_worker: int = 8
    settings: Method = field(default_factory=Method)
    """What all cases share but workers and seed; total_steps is where they give up."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = ("num_workers", "num_seeds", "max_threads", "envs_per_worker")
        found = at_least(self, **dict.fromkeys(counts, 1))
        settings, chunk = self.settings, self.settings.training.log_interval
        rows = self.envs_per_worker * settings.unroll_length * chunk
        if settings.total_steps < rows:
            found.append(
                f"settings.total_steps must be at least {rows}, the rows of one"
                f" log_interval of {chunk} gradients, got {settings.total_steps}"
            )
        known = ("lock", "hogwild")
        for store in self.stores:
            kind, _, shards = store.partition("-")
            server = kind == "server" and shards.isdigit() and int(shards) > 0
            if store not in known and not server:
                found.append(f"stores are lock, hogwild and server-4, got {store!r}")
        return found


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    pure = args.settings.is_pure
    for seed in range(args.num_seeds):
        for n in args.num_workers:
            late = pure and n > args.max_threads
            crowded = not pure and n > args.max_threads
            mode = (
                "delayed" if late else "threads, shared cores" if crowded else "threads"
            )
            for store in ("lock",) if late else args.stores:
                kind, _, shards = store.partition("-")
                workers = replace(
                    args.settings.workers,
                    num_workers=n,
                    store=kind,  # pyright: ignore
                    num_shards=int(shards or 1),
                )
                settings = replace(
                    args.settings,
                    seed=seed,
                    workers=workers,
                    topology="delayed" if late else "workers",
                    num_envs=n * args.envs_per_worker,
                )
                if late:
                    equal = replace(settings.delays, model="per_worker", slowest=1.0)
                    settings = replace(settings, delays=equal)
                name = f"{'delayed' if late else store}-{n}-{seed}"
                yield name, partial(trained, name, mode, settings, args.threshold)


def trained(name: str, mode: str, settings: Method, threshold: float) -> dict[str, Any]:
    """One case, until it is solved or gives up."""
    done = cli.until_solved(cli.compose(settings, make_agent), settings, threshold)
    print(name, done["episodes"], f"{done['seconds']:.1f} s", flush=True)
    return {
        "name": name,
        "mode": mode,
        "env_name": settings.env_name,
        "num_workers": settings.workers.num_workers,
        "store": settings.workers.store,
        "seed": settings.seed,
    } | done


def write(args: Args, results: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    rows = summarized(results)
    show(args, rows)
    summary = {
        "settings": to_json(args.settings), "threshold": args.threshold,
        "machine": cli.machine(), "rows": rows, "cases": results,
    }  # fmt: skip
    (args.out / "scaling.json").write_text(json.dumps(summary, indent=1))
    draw(args, rows)


def summarized(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each store and number of workers, over the seeds."""
    rows = []
    for key in sorted(
        {(x["name"].rsplit("-", 2)[0], x["num_workers"]) for x in results}
    ):
        mine = [
            x for x in results if (x["name"].rsplit("-", 2)[0], x["num_workers"]) == key
        ]
        rows.append(
            {
                "store": key[0],
                "num_workers": key[1],
                "mode": mine[0]["mode"],
                "solved": [x["solved"] for x in mine],
                "best_returns": [x["best_return"] for x in mine],
                "episodes": median(x["episodes"] for x in mine),
                "env_steps": median(x["env_steps"] for x in mine),
                "seconds": median(x["seconds"] for x in mine),
                "seconds_per_episode": median(
                    x["seconds"] / x["episodes"] for x in mine
                ),
            }
        )
    alone = {x["store"]: x["seconds"] for x in rows if x["num_workers"] == 1}
    for row in rows:
        if row["store"] in alone:
            row["speed_up"] = alone[row["store"]] / row["seconds"]
    return rows


def show(args: Args, rows: list[dict[str, Any]]) -> None:
    """Prints the table."""
    table = Table(
        "store", "workers", "mode", "solved", "episodes", "seconds", "ms an episode",
        "speed-up", title=f"{args.settings.env_name}: medians over seeds",
    )  # fmt: skip
    for row in rows:
        speed_up = f"{row['speed_up']:.2f}" if "speed_up" in row else ""
        table.add_row(
            row["store"], str(row["num_workers"]), row["mode"],
            f"{sum(row['solved'])} of {len(row['solved'])}", f"{row['episodes']:,.0f}",
            f"{row['seconds']:.1f}", f"{1e3 * row['seconds_per_episode']:.2f}",
            speed_up,
        )  # fmt: skip
    Console(width=110).print(table)


def draw(args: Args, rows: list[dict[str, Any]]) -> None:
    """A panel for each quantity, a line for each store."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    quantities = {
        "episodes": "episodes to solve",
        "seconds": "seconds to solve",
        "seconds_per_episode": "seconds an episode",
    }
    for axis, (name, label) in zip(
        figure.subplots(1, 3), quantities.items(), strict=True
    ):
        for store in sorted({x["store"] for x in rows}):
            points = [x for x in rows if x["store"] == store]
            points.sort(key=lambda x: x["num_workers"])
            dashed = points[0]["mode"] == "delayed"
            (line,) = axis.plot(
                [x["num_workers"] for x in points], [x[name] for x in points],
                "o--" if dashed else "o-", markerfacecolor="white",
                label="delayed, one core" if dashed else f"{store}, threads",
            )  # fmt: skip
            # Filled where each worker has a core; those on shared cores are hollow.
            alone = [x for x in points if x["mode"] == "threads"]
            axis.plot(
                [x["num_workers"] for x in alone], [x[name] for x in alone],
                "o", color=line.get_color(),
            )  # fmt: skip
        counts = sorted({x["num_workers"] for x in rows})
        axis.set(xlabel="workers", ylabel=label, xscale="log")
        axis.set_xticks(counts, [str(n) for n in counts])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
    figure.axes[0].legend(fontsize=7)
    figure.suptitle(f"{args.settings.env_name} to a mean return of {args.threshold:g}")
    figure.savefig(args.out / "scaling.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
