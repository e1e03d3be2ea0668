"""What old parameters cost, and what helps: four methods over delays and seeds.

    python experiments/staleness.py --num-seeds 5

Actions are taken with parameters of some updates ago. In `topologies.delayed` that is
data, so all delays and seeds of a method are a population, one program:

    a2c     nothing is done about it
    vtrace  IMPALA weighs each row by the ratio of both policies
    reject  A2C; what is staler than max_staleness is discarded
    scale   A2C; a gradient is divided by its staleness

The methods get the same schedules, and differ in nothing else. Delays are random, as
those of workers that finish at random, with the mean that is asked for: of a constant
delay, reject would take either all or nothing, and scale would only be a smaller
learning rate (`--delay constant` shows it). Discarded data count as steps. Adam takes
a gradient relative to those before, so that scale only weighs them differently.

It writes staleness.json, which `--draw-only` takes as it is, and staleness.png: returns
of the last tenth of training against the mean delay.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, envs, random, training
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.errors import at_least
from jaxrl_par.loops import schedules
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.loops.schedules import Schedule
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.topologies.population import Population, population
from jaxrl_par.training.rows import total

Name = Literal["a2c", "vtrace", "reject", "scale"]
LABELS = {
    "a2c": "A2C, uncorrected",
    "vtrace": "V-trace",
    "reject": "A2C, stale data rejected",
    "scale": "A2C, scaled by staleness",
}


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/staleness")
    """Folder of the results."""
    env_name: str = "CartPole-v1"
    """As gymnax registers it, or one of ours, such as IMaze-9x9 or MetaFetch-7x7."""
    methods: tuple[Name, ...] = get_args(Name)
    delays: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32)
    """Mean delays, in turns."""
    delay: Literal["random", "constant"] = "random"
    """random: geometric."""
    num_seeds: int = 3
    num_workers: int = 4
    """They take turns."""
    num_envs: int = 8
    """Environments of each worker."""
    unroll_length: int = 32
    """Steps of each environment in a turn."""
    total_steps: int = 400_000
    """Environment steps of each case, in the mean over the cases of a method."""
    max_staleness: int = 8
    """Staleness, in updates, up to which reject learns from data."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-2, max_grad_norm=1.0)
    network: NetworkConfig = NetworkConfig(widths=(32, 32))
    a2c: A2CConfig = A2CConfig(gae_lambda=0.95)
    impala: ImpalaConfig = ImpalaConfig(vtrace_lambda=0.95)
    draw_only: bool = False
    """Train nothing."""

    @property
    def rows_per_turn(self) -> int:
        """Its most environment steps."""
        return self.num_envs * self.unroll_length

    @property
    def max_turns(self) -> int:
        """Turns of the longest run: every other row at least is an environment step."""
        return 2 * self.total_steps // self.rows_per_turn + self.chunk

    @property
    def chunk(self) -> int:
        """Turns of a compiled call."""
        return max(self.total_steps // (50 * self.rows_per_turn), 1)

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_workers=1, num_envs=1, unroll_length=1)
        found += cli.environment_problems(self.env_name)
        if not self.methods:
            found.append("methods must name at least one")
        if not self.delays or min(self.delays) < 0:
            found.append(f"delays must be numbers from 0 on, got {self.delays}")
        found += StalenessConfig("reject", self.max_staleness).problems()
        if not found and self.total_steps < 10 * self.rows_per_turn:
            found.append(
                "total_steps must allow 10 turns, 10 * num_envs * unroll_length ="
                f" {10 * self.rows_per_turn}, got {self.total_steps}"
            )
        return found


def run(args: Args) -> None:
    """Trains every case, and draws."""
    path = args.out / "staleness.json"
    if args.draw_only:
        if not path.exists():
            raise training.TrainingError(f"there are no results in {path}")
        results = json.loads(path.read_text())["cases"]
    else:
        results = [case for method in args.methods for case in trained(method, args)]
        args.out.mkdir(parents=True, exist_ok=True)
        settings = asdict(args)
        del settings["out"], settings["draw_only"]
        summary = {"settings": settings, "cases": results}
        path.write_text(json.dumps(summary, indent=1))
    draw(args.out, results)


def delays_of(args: Args) -> np.ndarray:
    """[number of delays, N], the same for all methods and seeds."""
    if args.delay == "constant":
        given = [schedules.in_turn(1, args.max_turns, x).delay for x in args.delays]
    else:
        # Of `mean + 1` workers without memory, who finishes next is anybody, so that a
        # delay is geometric; it is the number of turns of the others meanwhile.
        given = [
            schedules.simulated(
                schedules.exponential(args.max_turns, mean + 1, seed=mean)
            ).delay
            for mean in args.delays
        ]
    return np.stack([np.asarray(x) for x in given])


def members(method: Name, args: Args) -> Population:
    """A run for each delay and seed."""
    env = envs.make(args.env_name, args.num_envs)
    network = actor_critic(env.observation_spec, env.action_spec, args.network)
    optimizer = make_optimizer(args.optimizer, args.total_steps)
    if method == "vtrace":
        agent = impala(network, optimizer, args.impala)
    else:
        agent = a2c(network, optimizer, args.a2c)
    rule = method if method in ("reject", "scale") else "accept"
    delays = delays_of(args)
    worker = schedules.in_turn(args.num_workers, args.max_turns).worker

    def make_program(values: dict[str, Any]):
        return delayed(
            agent,
            env,
            args.unroll_length,
            Schedule(worker, jnp.asarray(delays)[values["row"]]),
            num_workers=args.num_workers,
            max_delay=int(delays.max()),
            stale="data",
            staleness=StalenessConfig(rule, args.max_staleness),
        )

    seeds = np.arange(args.num_seeds)
    rows = np.arange(len(args.delays))
    return population(
        make_program,
        {"row": np.repeat(rows, len(seeds)), "seed": np.tile(seeds, len(rows))},
    )


def trained(method: Name, args: Args) -> list[dict[str, Any]]:
    """What came of each delay and seed."""
    program = members(method, args).program
    runs = jax.jit(program.init)(random.key(0))
    call = jax.jit(scanned(program, args.chunk), donate_argnums=0)
    chunks = []
    num_members = len(args.delays) * args.num_seeds
    while total(runs.progress.env_steps) < args.total_steps * num_members:
        runs, metrics = call(runs)
        chunks.append(jax.device_get(metrics))
    metrics = jax.tree.map(lambda *xs: np.concatenate(xs), *chunks)
    means = delays_of(args).mean(axis=1)
    results = []
    for index, (row, seed) in enumerate(np.ndindex(len(args.delays), args.num_seeds)):
        own = jax.tree.map(lambda x, i=index: x[:, i], metrics)
        returns = own["episode_return"]
        parts = [
            (part.sum(), count.sum())
            for part, count in zip(
                np.array_split(returns.total, 10),
                np.array_split(returns.count, 10),
                strict=True,
            )
        ]
        curve = [float(total / count) if count else None for total, count in parts]
        results.append(
            {
                "method": method,
                "delay": args.delays[row],
                "seed": seed,
                "return": curve[-1],
                "curve": curve,
                "mean_delay": float(means[row]),
                "mean_lag": float(np.mean(own["lag"])),
                "rejected": float(np.mean(own["rejected"])),
                "skipped": int(np.sum(own["skipped"])),
            }
        )
    print(f"{method}: {len(results)} runs of {len(metrics['lag'])} turns", flush=True)
    return results


def draw(out: Path, results: list[dict[str, Any]]) -> None:
    """Table and figure: every seed, and the median."""
    table = Table("method", "delay", "return of every seed", "median", "rejected")
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for method, label in LABELS.items():
        mine = [x for x in results if x["method"] == method and x["return"] is not None]
        delays = sorted({x["delay"] for x in mine})
        medians = []
        for delay in delays:
            cases = [x for x in mine if x["delay"] == delay]
            scores = [x["return"] for x in cases]
            medians.append(np.median(scores))
            table.add_row(
                method,
                str(delay),
                " ".join(f"{score:.1f}" for score in scores),
                f"{medians[-1]:.1f}",
                f"{np.mean([x['rejected'] for x in cases]):.0%}",
            )
        if delays:
            (line,) = axis.plot(delays, medians, label=label, linewidth=2)
            points = [(x["delay"], x["return"]) for x in mine]
            axis.plot(
                *zip(*points, strict=True), "o", color=line.get_color(), alpha=0.4
            )
    axis.set_xscale("symlog", base=2, linthresh=1)
    axis.set(xlabel="mean delay in updates", ylabel="return, last tenth of training")
    axis.legend()
    figure.savefig(out / "staleness.png", dpi=120)
    Console().print(table)


if __name__ == "__main__":
    cli.main(run, Args)
