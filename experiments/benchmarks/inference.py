"""Central inference against local: rate, lag and sizes of batches, in one figure.

    uv run experiments/benchmarks/inference.py
    ... inference.py --backend processes --num-envs 8 16 --networks small

IMPALA with actors in free threads. `local`: each actor acts for its environments.
`joint` and `apart`: one thread acts for all, in one matrix product, or one actor after
the other within a call (see `topologies.threads`). The simulators of an actor step
together in `--step-ms` milliseconds and leave the interpreter to others, as those in
processes do; with `--backend processes` they are in processes: LunarLander, and Pong
for networks that read images. Each call that acts has a fixed cost, so that central
inference should win where many actors have few environments each.

Kinds are measured in turn, again and again. Rates are environment steps per second that
were acted, after compilation, and all numbers are medians over rounds.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table
from sleeping import Sleeping

from jaxrl_par import cli, random
from jaxrl_par.algorithms.impala import impala
from jaxrl_par.cli.entry import compute_in_place
from jaxrl_par.envs import host
from jaxrl_par.errors import at_least, not_chosen, unknown_name
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import CentralConfig, ThreadsConfig, threads
from jaxrl_par.training.files import write_json
from jaxrl_par.types import Agent, Box

NETWORKS = {
    "small": NetworkConfig(widths=(64, 64)),
    "lstm": NetworkConfig(widths=(256,), memory="lstm", memory_width=256),
    "large": NetworkConfig(widths=(1024, 1024)),
    "shallow": NetworkConfig(torso="shallow", widths=(256,)),
    "deep": NetworkConfig(torso="deep", widths=(256,)),
}
IMAGES = ("shallow", "deep")
KINDS = ("local", "joint", "apart")
COLORS = {"local": "#4c72b0", "joint": "#c44e52", "apart": "#ccb974"}


@dataclass(frozen=True)
class Args:
    """Measures central inference beside local."""

    backend: Literal["sleeping", "processes"] = "sleeping"
    networks: tuple[str, ...] = tuple(NETWORKS)
    num_envs: tuple[int, ...] = (8, 32, 64, 128, 256)
    """Environments of all actors."""
    envs_each: tuple[int, ...] = (1, 8)
    """Environments of an actor."""
    step_ms: float = 2.0
    """Milliseconds that a step of sleeping simulators takes."""
    max_wait_ms: float = 1.0
    """Of central inference."""
    acting_only: bool = False
    """Learn nothing, so that the learner takes no time."""
    actor_device: Literal["cpu", "learner"] = "cpu"
    rounds: int = 3
    seconds: float = 3.0
    """Length of each measurement, after compilation."""
    output: Path = Path("inference.json")
    """The figure has its name and ends in .png."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_chosen(self) + at_least(self, step_ms=0, max_wait_ms=0, rounds=1)
        found += at_least(self, seconds=0)
        unknown = [x for x in self.networks if x not in NETWORKS]
        found += [f"networks: {unknown_name('name', x, NETWORKS)}" for x in unknown]
        for name in ("num_envs", "envs_each"):
            low = [size for size in getattr(self, name) if size < 1]
            found += [f"{name} must be at least 1, got {size}" for size in low]
        return found


def make_env(args: Args, network: str, num_envs: int, key: Any) -> host.HostEnvironment:
    """The simulators of one actor."""
    if args.backend == "sleeping":
        images = Box((84, 84, 4), np.dtype(np.uint8))
        spec = images if network in IMAGES else Box((54,))
        return Sleeping(num_envs, spec, np.array([args.step_ms / 1e3]))
    name = "ALE/Pong-v5" if network in IMAGES else "LunarLander-v3"
    seed = int(jax.random.bits(key)) >> 1
    return host.make(name, num_envs, seed, backend="processes")


def make_agent(args: Args, network: str) -> Agent:
    """IMPALA, for such simulators."""
    env = make_env(args, network, 1, random.key(0))
    env.close()
    agent = impala(actor_critic(*env.specs, NETWORKS[network]), optax.sgd(1e-4))
    if not args.acting_only:
        return agent

    def no_grad(state, batch, key, axis):
        # XLA leaves out what is not used.
        return jax.tree.map(jnp.zeros_like, agent.grad(state, batch, key, axis))

    return agent._replace(grad=no_grad)


def measured(args: Args, network: str, kind: str, actors: int, each: int) -> Any:
    """Numbers of one run."""
    rows: Any = "joint" if kind == "local" else kind
    config = ThreadsConfig(
        actors,
        inference="local" if kind == "local" else "central",
        central=CentralConfig(max_wait_ms=args.max_wait_ms, rows=rows),
        actor_device=args.actor_device,
    )
    agent = make_agent(args, network)

    def make(key: Any) -> host.HostEnvironment:
        return make_env(args, network, each, key)

    with threads(agent, make, 20, config, data_mesh(1)) as engine:
        run = engine.init(random.key(0))
        run, _ = engine.advance(run, 2)
        before, started = engine.report(), time.perf_counter()
        while time.perf_counter() - started < args.seconds:
            run, _ = engine.advance(run, 1)
        after = engine.report()
    assert before is not None and after is not None
    seconds = after.seconds - before.seconds
    lags = {lag: n - before.lags.get(lag, 0) for lag, n in after.lags.items()}
    told = {
        "steps_per_second": (_acted(after) - _acted(before)) / seconds,
        "updates_per_second": (after.updates - before.updates) / seconds,
        "lag": sum(lag * n for lag, n in lags.items()) / max(sum(lags.values()), 1),
    }
    first, last = before.batches, after.batches
    if first is not None and last is not None:
        steps = last.steps - first.steps
        told["actors_in_a_call"] = steps / max(last.calls - first.calls, 1)
        told["wait_ms"] = 1e3 * (last.waited - first.waited) / max(steps, 1)
    return told


def _acted(report: Any) -> float:
    return report.actor_steps_per_second * report.seconds


def sizes(args: Args) -> list[tuple[int, int]]:
    """(environments, those of an actor), where they make whole actors."""
    pairs = ((n, each) for each in args.envs_each for n in args.num_envs)
    return [(n, each) for n, each in pairs if n % each == 0]


def compared(args: Args) -> Iterator[list[dict[str, Any]]]:
    """A row of medians for each kind, of one network and size after the other."""
    for network in args.networks:
        for num_envs, each in sizes(args):
            given = num_envs // each, each
            rounds = [
                {kind: measured(args, network, kind, *given) for kind in KINDS}
                for _ in range(args.rounds)
            ]
            rows = []
            for kind in KINDS:
                told = [x[kind] for x in rounds]
                numbers = {name: median(x[name] for x in told) for name in told[0]}
                ratio = median(
                    x[kind]["steps_per_second"] / x["local"]["steps_per_second"]
                    for x in rounds
                )
                place = {"network": network, "num_envs": num_envs, "envs_each": each}
                rows.append({**place, "kind": kind, "of_local": ratio, **numbers})
            yield rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A table for the terminal."""
    names = ("network", "num_envs", "envs_each", "kind", "steps_per_second")
    names += ("of_local", "lag", "actors_in_a_call", "wait_ms")
    table = Table(*(name.replace("_", " ") for name in names))
    for row in rows:
        cells = [row.get(name, "") for name in names]
        table.add_row(*(f"{x:,.2f}" if isinstance(x, float) else str(x) for x in cells))
    Console().print(table)


def draw(args: Args, rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Rates, lags and sizes of batches by number of environments; a column for each
    network, a line for each kind and number of environments of an actor."""
    from matplotlib.figure import Figure

    measures = {
        "steps_per_second": "steps/s",
        "of_local": "rate / local rate",
        "lag": "lag in updates",
        "actors_in_a_call": "actors in a call",
    }
    size = (3.2 * len(args.networks), 2.4 * len(measures))
    figure = Figure(figsize=size, layout="constrained")
    shape = len(measures), len(args.networks)
    axes = figure.subplots(*shape, squeeze=False, sharex=True)
    styles = dict(zip(args.envs_each, ("-", "--", ":", "-.") * 4, strict=False))
    for column, network in enumerate(args.networks):
        for row, (name, label) in enumerate(measures.items()):
            axis = axes[row][column]
            for each, style in styles.items():
                for kind in KINDS:
                    line = [
                        (x["num_envs"], x[name])
                        for x in rows
                        if (x["network"], x["envs_each"]) == (network, each)
                        and x["kind"] == kind
                        and name in x
                    ]
                    told = f"{kind}, {each} each"
                    look = {"color": COLORS[kind], "linestyle": style, "marker": "."}
                    axis.plot(
                        *zip(*line, strict=True), label=told, **look
                    ) if line else None
            axis.set_xscale("log", base=2)
            axis.set(ylabel=label if column == 0 else "")
        axes[0][column].set_title(network)
        axes[-1][column].set(xlabel="environments")
    axes[0][0].legend(fontsize=6)
    figure.savefig(path, dpi=120)


def run(args: Args) -> None:
    """Measures, and writes the table and the figure."""
    compute_in_place()
    settings = asdict(args) | {"output": args.output.name}
    rows = []
    for more in compared(args):  # which may take an hour, so all of it is kept
        rows += more
        told = {"machine": cli.machine(), "settings": settings, "rows": rows}
        write_json(args.output, told)
    show(rows)
    draw(args, rows, args.output.with_suffix(".png"))


if __name__ == "__main__":
    cli.main(run, Args)
