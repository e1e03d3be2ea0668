"""What the algorithms reach: named tasks over fixed seeds, each through its own script.

    python experiments/benchmarks/learning.py --out runs/learning
    python experiments/benchmarks/learning.py --only DQN C51 --out runs/replay

A score is the mean return of 100 evaluation episodes at the end, five in each of twenty
environments, with sampled actions, and with greedy ones of what is learned from replay.
Every seed is shown; the median counts. Writes learning.json after each task, and
learning.png with the curves of training.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli

EXPERIMENTS = Path(__file__).parent.parent
BREAKOUT = (
    "--env-name Breakout-MinAtar --total-steps 5000000 --unroll-length 16"
    " --network.activation relu --network.widths 128"
    " --optimizer.learning-rate 5e-3 --a2c.entropy-cost 0.06 --log-interval 100"
)
PENDULUM = (
    "--env-name Pendulum-v1 --total-steps 1000000 --num-envs 16 --unroll-length 128"
    " --num-epochs 10 --num-minibatches 16 --optimizer.learning-rate 1e-3"
    " --normalize --ppo.entropy-cost 0.0 --ppo.gamma 0.95"
)
CHAIN = (
    "--env-name MemoryChain-bsuite --total-steps 1000000 --unroll-length 16"
    " --optimizer.learning-rate 3e-3"
)
C51 = "--dqn.values categorical --dqn.v-min 0 --dqn.v-max 100"
WITHOUT_MEMORY = "--env-name MemoryChain-30 --show-previous --total-steps 200000"
# Name: (script and options, number of seeds).
TASKS = {
    "PPO, CartPole, 200 k": ("ppo.py", "", 5),
    "A2C, CartPole, 3 M": ("a2c.py", "", 5),
    "REINFORCE, CartPole, 2.3 M": ("reinforce.py", "", 5),
    "A3C, CartPole, 2 M": ("a3c.py", "", 5),
    "n-step Q, CartPole, 2 M": ("async_q.py", "", 5),
    "PPO, Pendulum, 1 M": ("ppo.py", PENDULUM, 3),
    "A2C with LSTM, MemoryChain": ("a2c.py", f"{CHAIN} --network.memory lstm", 3),
    "A2C without memory, MemoryChain": ("a2c.py", CHAIN, 3),
    "A2C, Breakout-MinAtar, 5 M": ("a2c.py", BREAKOUT, 3),
    "IMPALA, Breakout-MinAtar, 4 M": ("impala.py", "", 5),
    "PPO in threads, LunarLander, 3 M": ("ppo_threads.py", "", 5),
    "IMPALA in threads, LunarLander, 3 M": ("impala_threads.py", "", 5),
    "DQN, CartPole, 300 k": ("dqn.py", "", 3),
    "C51, CartPole, 300 k": ("dqn.py", C51, 3),
    "Quantiles, CartPole, 300 k": ("dqn.py", "--dqn.values quantile", 3),
    "R2D2, MemoryChain-30, 200 k": ("r2d2.py", "", 3),
    "DQN without memory, MemoryChain-30, 200 k": ("dqn.py", WITHOUT_MEMORY, 3),
}
GREEDY = ("dqn.py", "r2d2.py")
"""Scripts whose sampled actions explore at a fixed rate."""


@dataclass(frozen=True)
class Args:
    """Which tasks, and where to write."""

    out: Path = Path("runs/learning")
    """Folder of the results and of the runs."""
    only: tuple[str, ...] = ("",)
    """Parts of the names of the tasks to run; all by default."""


def main(args: Args) -> None:
    """Runs the tasks one after the other."""
    args.out.mkdir(parents=True, exist_ok=True)
    table = Table("task", "returns of the seeds", "median", "steps", "steps/s")
    results = {}
    for name, (script, options, num_seeds) in TASKS.items():
        if any(part in name for part in args.only):
            runs = [one(script, options, seed, args.out) for seed in range(num_seeds)]
            acted = "greedy" if script in GREEDY else "score"
            scores = [run[acted] for run in runs]
            rate = median(run["steps_per_second"] for run in runs)
            results[name] = {"command": f"{script} {options}", "runs": runs}
            table.add_row(
                name,
                " ".join(f"{score:.1f}" for score in scores),
                f"{median(scores):.1f}",
                f"{median(run['env_steps'] for run in runs):,.0f}",
                f"{rate:,.0f}",
            )
            report = {"machine": cli.machine(), "tasks": results}
            (args.out / "learning.json").write_text(json.dumps(report, indent=1))
    draw(results, args.out / "learning.png")
    Console(width=110).print(table)


def one(script: str, options: str, seed: int, out: Path) -> dict:
    """The summary and curve of one run."""
    command = [sys.executable, str(EXPERIMENTS / script), *options.split()]
    command += ["--seed", str(seed), "--runs-dir", str(out / "runs"), "--no-gif"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    folder = newest(out / "runs")
    summary = json.loads((folder / "summary.json").read_text())
    rows = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    curve = [
        (row["env_steps"], row["episode_return"])
        for row in rows
        if row.get("episode_return") is not None
    ]
    score = summary["evaluation"]["sampled_return"]
    print(f"{script} {options} --seed {seed}: {score:.1f}", flush=True)
    return {
        "seed": seed,
        "score": score,
        "greedy": summary["evaluation"]["greedy_return"],
        "curve": curve[:: max(1, len(curve) // 100)],
        **{k: summary[k] for k in ("env_steps", "steps_per_second", "compile_seconds")},
    }


def newest(runs: Path) -> Path:
    """The folder of the run that has just ended."""
    return max(
        runs.glob("*/summary.json"), key=lambda path: path.stat().st_mtime
    ).parent


def draw(results: dict, path: Path) -> None:
    """A panel for each task, a line for each seed."""
    columns = min(len(results), 4)
    rows = -(-len(results) // max(columns, 1))
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
    for i, (name, result) in enumerate(results.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for run in result["runs"]:
            axes.plot(*zip(*run["curve"], strict=True), linewidth=1)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("environment steps")
        axes.set_ylabel("episode return")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main(cli.parse(Args))
