"""Gossip against all-reduce: seconds to a return, where messages take long and where
one learner is slow.

    python experiments/gossip_study.py

Learners are those of `topologies.gossip`, all on this device, and time is simulated:
what an update and a message take is data. Each case is a whole run of A2C, all seeds in
one program; a step of the program is an update of all learners or of one.

    all-reduce  gradients are averaged over all: everybody waits for the slowest, and
                then for 2 ceil(log2 N) messages, those of a tree there and back
    together    gossip in one random matching after each update: partners wait for each
                other, and for the message that both send at once
    own         AD-PSGD: nobody waits; a learner's update takes its own time, and two
                messages to ask a partner and be answered

Adam, as here, makes three algorithms of them, and not one with three clocks. What is
shown is when the last 100 episodes of all learners, in the order in which they ended,
have a mean return of `threshold`. It writes study.json and study.png: every seed, and
the median. After Lian et al., arXiv:1710.06952, section 5.
"""

import json
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, envs, random, training
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.axis import Axis
from jaxrl_par.errors import above, at_least
from jaxrl_par.loops import Program, Run, schedules
from jaxrl_par.loops.matchings import matching_of, matchings
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.gossip import GossipConfig, gossip
from jaxrl_par.training.comparison import to_json
from jaxrl_par.types import Agent, Count, PRNGKey

Name = Literal["all-reduce", "together", "own"]
LAST = 100
"""Episodes whose mean decides."""


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/gossip_study")
    env_name: str = "CartPole-v1"
    """As gymnax registers it, or one of ours, such as IMaze-9x9 or MetaFetch-7x7."""
    methods: tuple[Name, ...] = get_args(Name)
    delays_ms: tuple[float, ...] = (0.0, 1.0, 10.0)
    """Milliseconds that a message takes."""
    slowest: tuple[float, ...] = (1.0, 4.0)
    """How many times as long as the others one learner takes."""
    compute_ms: float = 5.0
    """Milliseconds that an update of one learner takes, its acting too."""
    num_learners: int = 8
    num_seeds: int = 5
    num_updates: int = 1500
    """Updates of each learner; at its own pace, in the mean."""
    threshold: float = 200.0
    """Mean return that is to be reached."""
    num_envs: int = 8
    """Environments of each learner."""
    unroll_length: int = 16
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=3e-3, max_grad_norm=1.0, anneal=False
    )
    network: NetworkConfig = NetworkConfig()
    a2c: A2CConfig = A2CConfig(gae_lambda=0.95, entropy_cost=0.0)
    draw_only: bool = False
    """Train nothing."""

    @property
    def conditions(self) -> list[tuple[float, float]]:
        """(milliseconds of a message, times that one learner takes)"""
        return list(product(self.delays_ms, self.slowest))

    def compute(self, slowest: float) -> np.ndarray:
        """[N] milliseconds of an update; the first learner may be slow."""
        compute = np.full(self.num_learners, self.compute_ms)
        compute[0] *= slowest
        return compute

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = ("num_learners", "num_seeds", "num_updates", "num_envs")
        found = at_least(self, unroll_length=1, **dict.fromkeys(counts, 1))
        found += above(self, compute_ms=0) + at_least(self, slowest=1, delays_ms=0)
        found += cli.environment_problems(self.env_name)
        for name in ("methods", "delays_ms", "slowest"):
            if not getattr(self, name):
                found.append(f"{name} must name at least one")
        return found


def run(args: Args) -> None:
    """Trains every case, and draws."""
    path = args.out / "study.json"
    if args.draw_only:
        if not path.exists():
            raise training.TrainingError(f"there are no results in {path}")
        cases = json.loads(path.read_text())["cases"]
    else:
        cases = [case for method in args.methods for case in studied(method, args)]
        args.out.mkdir(parents=True, exist_ok=True)
        summary = {"settings": to_json(args), "cases": cases}
        path.write_text(json.dumps(summary, indent=1))
    show(args, cases)
    draw(args, cases)


def studied(method: Name, args: Args) -> Iterator[dict[str, Any]]:
    """What came of each condition and seed. Who waits for others learns the same under
    all of them, only at other times."""
    same = None if method == "own" else trained(args, program_of(method, args))
    for delay, slowest in args.conditions:
        compute = args.compute(slowest)
        if same is None:
            busy = compute + 2 * delay
            turns = args.num_updates * args.num_learners
            schedule = schedules.simulated(schedules.steady(turns, 1 / busy))
            config = GossipConfig(args.num_learners, pace="own")
            program = gossip(*parts_of(args), config, schedule=schedule)
            done = own_times(np.asarray(schedule.worker), busy)
            times = np.tile(done, (args.num_seeds, 1))
            parts = trained(args, program, turns)
        else:
            parts = same
            times = waiting_times(method, args, compute, delay)
        for seed, (time, total, count) in enumerate(zip(times, *parts, strict=True)):
            reached = seconds_to(args.threshold, time, total, count)
            yield {
                "method": method, "delay_ms": delay, "slowest": slowest, "seed": seed,
                "seconds": reached, "seconds_of_run": float(time.max()) / 1000,
            }  # fmt: skip
        print(f"{method}: {delay:g} ms, the slowest {slowest:g} x", flush=True)


def program_of(method: Name, args: Args) -> Program:
    """All learners, in one program on one device."""
    if method == "together":
        return gossip(*parts_of(args), GossipConfig(args.num_learners))
    axis = Axis("learners")
    program = compiled(*parts_of(args), axis)

    # What `topologies.sharded` computes, side by side.
    def init(key: PRNGKey) -> Run:
        each = jax.vmap(lambda place: program.init(key), axis_name=axis.name)
        return each(jnp.arange(args.num_learners))

    return Program(init, jax.vmap(program.step, axis_name=axis.name))


def parts_of(args: Args) -> tuple[Agent, envs.Environment, int]:
    """What a learner is made of: A2C, its environments, and the rows of an unroll."""
    env = envs.make(args.env_name, args.num_envs)
    agent = a2c(
        actor_critic(*env.specs, args.network), make_optimizer(args.optimizer), args.a2c
    )
    return agent, env, args.unroll_length


def trained(args: Args, program: Program, num_updates: int | None = None) -> Any:
    """Sums of returns and counts of episodes, [seeds, U] or [seeds, U, N]."""
    train = scanned(program, num_updates or args.num_updates)
    keys = jax.vmap(random.key)(jnp.arange(args.num_seeds))
    metrics = jax.jit(jax.vmap(lambda key: train(program.init(key))[1]))(keys)
    return list(jax.device_get(metrics["episode_return"]))


def waiting_times(
    method: Name, args: Args, compute: np.ndarray, delay: float
) -> np.ndarray:
    """[seeds, U, N] milliseconds at which updates are done that wait for others."""
    number, size = args.num_updates, args.num_learners
    if method == "all-reduce":
        each = compute.max() + 2 * math.ceil(math.log2(size)) * delay
        times = each * (1.0 + np.arange(number))
        return np.broadcast_to(times[:, None], (args.num_seeds, number, size))
    table = matchings(size)
    times = np.empty((args.num_seeds, number, size))
    for seed in range(args.num_seeds):
        now = np.zeros(size)
        for update, chosen in enumerate(matchings_of(args, seed)):
            done, partner = now + compute, table[chosen]
            met = np.maximum(done, done[partner]) + delay
            now = np.where(partner == np.arange(size), done, met)
            times[seed, update] = now
    return times


def matchings_of(args: Args, seed: int) -> np.ndarray:
    """[U] the matching of each update of a run, drawn as the program draws it."""
    root = jax.random.split(random.key(seed), 3)[2]
    updates = np.arange(1, args.num_updates + 1, dtype=np.int32)

    def one(update: Any) -> Any:
        return matching_of(root, Count.zero().add(update), args.num_learners)

    return np.asarray(jax.jit(jax.vmap(one))(updates))


def own_times(worker: np.ndarray, busy: np.ndarray) -> np.ndarray:
    """[U] milliseconds at which turns are done, of learners that take `busy` each."""
    before = np.zeros(len(busy))
    times = np.empty(len(worker))
    for turn, who in enumerate(worker):
        before[who] += busy[who]
        times[turn] = before[who]
    return times


def seconds_to(
    threshold: float, times: np.ndarray, totals: np.ndarray, counts: np.ndarray
) -> float | None:
    """When the last episodes had that mean return; None if never.

    Args:
      times: [U] or [U, N], milliseconds at which updates were done.
      totals, counts: of the returns of the episodes that ended in them.
    """
    order = np.argsort(times, axis=None, kind="stable")
    times, totals, counts = (np.ravel(x)[order] for x in (times, totals, counts))
    last: deque[tuple[float, float]] = deque()
    total = number = 0.0
    for time, *more in zip(times, totals, counts, strict=True):
        last.append((more[0], more[1]))
        total, number = total + more[0], number + more[1]
        while number - last[0][1] >= LAST:
            gone = last.popleft()
            total, number = total - gone[0], number - gone[1]
        if number >= LAST and total / number >= threshold:
            return float(time) / 1000
    return None


def of(
    cases: list[dict[str, Any]], method: str, delay: float, slowest: float
) -> list[dict[str, Any]]:
    """Those of a method and a condition, a seed each."""
    wanted = method, delay, slowest
    names = "method", "delay_ms", "slowest"
    return [x for x in cases if tuple(x[name] for name in names) == wanted]


def show(args: Args, cases: list[dict[str, Any]]) -> None:
    """Prints the table."""
    table = Table(
        "method", "message", "slowest", "seconds of every seed", "median",
        title=f"simulated seconds to a return of {args.threshold:g} in {args.env_name}",
    )  # fmt: skip
    for delay, slowest in sorted({(x["delay_ms"], x["slowest"]) for x in cases}):
        for method in dict.fromkeys(x["method"] for x in cases):
            mine = [x["seconds"] for x in of(cases, method, delay, slowest)]
            shown = " ".join("-" if x is None else f"{x:.2f}" for x in mine)
            middle = median(math.inf if x is None else x for x in mine)
            told = "-" if math.isinf(middle) else f"{middle:.2f}"
            table.add_row(method, f"{delay:g} ms", f"{slowest:g} x", shown, told)
    Console(width=110).print(table)


def draw(args: Args, cases: list[dict[str, Any]]) -> None:
    """Every seed, and the median; crosses never reached it."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    conditions = sorted({(x["slowest"], x["delay_ms"]) for x in cases})
    methods = list(dict.fromkeys(x["method"] for x in cases))
    for number, method in enumerate(methods):
        color, middles = f"C{number}", []
        for place, (slowest, delay) in enumerate(conditions):
            mine = of(cases, method, delay, slowest)
            at = place + 0.2 * (number - (len(methods) - 1) / 2)
            for case in mine:
                known = case["seconds"] is not None
                height = case["seconds"] if known else case["seconds_of_run"]
                axis.plot(at, height, "o" if known else "x", color=color, alpha=0.5)
            times = [x["seconds"] for x in mine if x["seconds"] is not None]
            middles.append((at, median(times) if times else math.nan))
        x, y = zip(*middles, strict=True)
        axis.plot(x, y, "_", color=color, markersize=14, label=method)
    axis.set_xticks(
        range(len(conditions)),
        [f"{delay:g} ms\none {slow:g} x" for slow, delay in conditions],
    )
    axis.set(
        yscale="log", ylabel=f"simulated seconds to a return of {args.threshold:g}"
    )
    axis.set_xlabel("time of a message; time of the slowest learner")
    axis.legend()
    figure.savefig(args.out / "study.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
