"""Guided policy search on doors: who waits for whom, and what that costs.

    python experiments/gps_study.py --num-seeds 2

Workers have some of the initial states each, and take uneven times for their rollouts.
Together, all wait for the slowest, then for the trainer, which waits for them. At their
own pace nobody waits. Both see the same number of rollouts, and their global policy is
tested on doors in poses that nobody was shown. Time is simulated, in units of the mean
that a worker takes; in one the trainer makes as many updates as the settings say.

Besides, without learning: the share of time that workers and the trainer are busy, for
numbers of workers and kinds of unevenness. Started again, the study goes on with what
is missing. It writes study.json and study.png, with `--draw-only` from the cases that
there are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random
from jaxrl_par.axis import Axis
from jaxrl_par.envs.registry import alone
from jaxrl_par.errors import at_least
from jaxrl_par.loops import Program
from jaxrl_par.loops.delays import DelaysConfig
from jaxrl_par.loops.guided import Search
from jaxrl_par.loops.guided_turns import guided_turns, own_pace
from jaxrl_par.presets.gps import Args as Method
from jaxrl_par.presets.gps import make_agent
from jaxrl_par.types import TimeStep

Pace = Literal["together", "own"]
PACES = get_args(Pace)
MODELS = {
    "per_worker": DelaysConfig("per_worker"),
    "random": DelaysConfig("random"),
    "heavy_tailed": DelaysConfig("heavy_tailed"),
}
"""Of unevenness; the slowest takes 4 times as long, or durations are drawn."""
_LONG = 2_000
"""Turns of each worker, where nothing is learned."""


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/gps_study")
    """Folder of the results; those of other settings belong into another one."""
    paces: tuple[Pace, ...] = PACES
    num_seeds: int = 2
    first_seed: int = 0
    num_workers: int = 8
    num_rounds: int = 14
    """Rollouts of each initial state, in the mean, are so many times `rollouts`."""
    num_poses: int = 200
    """Doors of a test."""
    poses_seed: int = 10_000
    """Which ones."""
    settings: Method = Method()
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = ("num_seeds", "num_workers", "num_rounds", "num_poses")
        found = at_least(self, **dict.fromkeys(counts, 1))
        if not found and self.settings.num_envs % self.num_workers:
            found.append(
                f"settings.num_envs must be a multiple of num_workers ="
                f" {self.num_workers}, got {self.settings.num_envs}"
            )
        if (topology := self.settings.topology) != "compiled":
            found.append(f"settings.topology must be compiled here, got {topology}")
        return found


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for seed in range(args.first_seed, args.first_seed + args.num_seeds):
        for pace in args.paces:
            yield f"{pace}-{seed}", partial(trained, pace, seed, args)


def trained(pace: str, seed: int, args: Args) -> dict[str, Any]:
    """Doors opened by the global policy, after every round."""
    settings = replace(args.settings, seed=seed)
    learner = cli.compose(settings, make_agent)
    durations = MODELS["heavy_tailed"].durations(
        args.num_workers, args.num_rounds * args.num_workers, seed
    )
    if pace == "own":
        each = settings.num_envs // args.num_workers
        turns = own_pace(durations, settings.updates)
        search = settings.search(learner, each)
        program = guided_turns(search, turns, args.num_workers)
        times = turns.now.tolist()[args.num_workers - 1 :: args.num_workers]
    else:
        search = settings.search(learner, settings.num_envs)
        program = settings.make_program(
            learner, settings.make_env(settings.num_envs), Axis()
        )
        times = np.cumsum(durations[: args.num_rounds].max(axis=1) + 1.0).tolist()
    steps = args.num_workers if pace == "own" else 1
    curve = followed(program, search, steps, seed, args)
    print(f"{pace}, seed {seed}: {[round(x['opened'], 2) for x in curve]}", flush=True)
    for point, now in zip(curve, times, strict=True):
        point["time"] = now
    return {"pace": pace, "seed": seed, "curve": curve}


def followed(
    program: Program, search: Search, steps: int, seed: int, args: Args
) -> list[dict[str, float]]:
    """Tests after every so many steps."""
    now = jax.jit(program.init)(random.key(seed))
    step, test = jax.jit(program.step, donate_argnums=0), tester(search, args.num_poses)
    poses, curve = random.key(args.poses_seed), []
    for _ in range(args.num_rounds):
        for _ in range(steps):
            now, _ = step(now)
        opened, cost = test(search.agent.params(now.learner), poses)
        curve.append({"opened": float(opened), "cost": float(cost)})
    return curve


def tester(search: Search, num_poses: int) -> Callable[..., tuple[Any, Any]]:
    """(share of episodes that end well, mean cost) of greedy actions in new poses."""
    control, agent = search.control, search.agent
    succeeded = alone(control.name).succeeded

    def one(params: Any, key: Any) -> tuple[Any, Any]:
        def act(now, _):
            state, obs = now
            seen = TimeStep(obs[None], jnp.zeros(1, bool), jnp.zeros(1, bool))
            action, *_ = agent.greedy(params, agent.initial_carry(1), seen, key)
            state, obs, cost = control.step(state, action[0], key)
            return (state, obs), cost

        start = control.start(key)
        (state, _), costs = jax.lax.scan(act, start, length=control.num_steps)
        return succeeded(state), jnp.sum(costs)

    def test(params: Any, key: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, num_poses)
        opened, costs = jax.vmap(one, (None, 0))(params, keys)
        return jnp.mean(opened), jnp.mean(costs)

    return jax.jit(test)


def utilisation(model: str, num_workers: int) -> dict[str, Any]:
    """The share of time that workers, and in `busy` the trainer too, are at work if
    all wait for each other. At their own pace they always are."""
    durations = MODELS[model].durations(num_workers, _LONG, 0)
    durations = durations / durations.mean()
    slowest = float(durations.max(axis=1).mean())
    turns = own_pace(durations, 1)
    own = len(turns.now) / num_workers / float(turns.now[-1])
    # The trainer takes 1 in a round, and so do workers in the mean.
    return {
        "model": model,
        "num_workers": num_workers,
        "busy_without_trainer": 1.0 / slowest,
        "busy": 1.0 / (slowest + 1.0),
        "rounds_per_time": 1.0 / (slowest + 1.0),
        "rounds_per_time_own": own,
    }


def write(args: Args, results: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    counts = (2, 4, 8, 16)
    waiting = [utilisation(model, n) for model in MODELS for n in counts]
    table, rows = Table("pace", "seed", "doors opened", "best", "time"), []
    for result in sorted(results, key=lambda x: (x["pace"], x["seed"])):
        opened = [x["opened"] for x in result["curve"]]
        row = {"pace": result["pace"], "seed": result["seed"], "opened": opened[-1]}
        row |= {"best": max(opened), "time": result["curve"][-1]["time"]}
        rows.append(row)
        table.add_row(
            *(str(round(x, 3) if type(x) is float else x) for x in row.values())
        )
    summary: Any = {"doors": rows, "utilisation": waiting}
    cli.write_study(args.out, args.settings, summary, results)
    draw(args.out, results, waiting)
    Console().print(table)


def draw(
    out: Path, results: list[dict[str, Any]], waiting: list[dict[str, Any]]
) -> None:
    """Doors opened against time, and who is busy."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for i, pace in enumerate(PACES):
        for result in (x for x in results if x["pace"] == pace):
            points = [(x["time"], x["opened"]) for x in result["curve"]]
            label = f"{pace}, seed {result['seed']}"
            axes[0].plot(*zip(*points, strict=True), f"C{i}", label=label)
    axes[0].set(xlabel="simulated time", ylabel="doors opened, new poses", ylim=(0, 1))
    axes[0].legend()
    for i, model in enumerate(MODELS):
        of_model = [x for x in waiting if x["model"] == model]
        counts = [x["num_workers"] for x in of_model]
        for name, line in (("busy_without_trainer", "--"), ("busy", "-")):
            label = model if name == "busy" else f"{model}, without a trainer"
            busy = [x[name] for x in of_model]
            axes[1].plot(counts, busy, f"C{i}{line}o", label=label)
    axes[1].axhline(1.0, color="black", label="at their own pace")
    axes[1].set(xlabel="workers", ylabel="share of time they are busy", ylim=(0, 1.05))
    axes[1].set_xscale("log", base=2)
    axes[1].legend()
    figure.savefig(out / "study.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
