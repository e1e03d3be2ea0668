"""How much of its teacher's return a small network keeps, by the loss it learns from.

    python experiments/policy_distillation_study.py --num-seeds 1

A2C trains a teacher on every game. Students with at most a quarter of its parameters
learn from it by each method, and one network from all teachers together:

    kl, nll, mse      the student acts
    actor_mimic       so does it, with cross-entropy and the teacher's features
    kl_teacher_acts   as kl, but the teacher acts

Policies of A2C are far from greedy, so that what tells good from bad is small in their
divergence: a temperature of 1/4 makes the student learn what the teacher prefers.

Started again, the study goes on with what is missing. It writes study.json and
table.txt, with `--draw-only` from the cases that there are. Returns are means over
episodes of sampled actions, and of greedy ones of which 5 % are random: a game without
chance has one greedy episode, which tells little.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, envs, random, training
from jaxrl_par.algorithms.a2c import A2CConfig
from jaxrl_par.algorithms.policy_distillation import PolicyDistillationConfig
from jaxrl_par.errors import at_least
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.networks.heads import uniform_actions
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets import a2c, policy_distillation
from jaxrl_par.presets.a2c import Args as TeacherArgs
from jaxrl_par.presets.policy_distillation import Args as StudentArgs
from jaxrl_par.training import TrainingConfig
from jaxrl_par.training.comparison import to_json
from jaxrl_par.training.evaluation import evaluate
from jaxrl_par.types import ActFn, Agent, Carry, Params, PRNGKey, Specs, TimeStep

Method = Literal["kl", "nll", "mse", "actor_mimic", "kl_teacher_acts"]
_KL = PolicyDistillationConfig("kl", temperature=0.25)
CONFIGS = {
    "kl": _KL,
    "nll": PolicyDistillationConfig("nll"),
    "mse": PolicyDistillationConfig("mse"),
    "actor_mimic": PolicyDistillationConfig("cross_entropy", 0.25, feature_cost=0.01),
    "kl_teacher_acts": _KL,
}
MODES = ("sampled", "greedy")
EPSILON = 0.05
TEACHER = TeacherArgs(
    unroll_length=16,
    network=NetworkConfig(widths=(128,), activation="relu"),
    optimizer=OptimizerConfig(learning_rate=5e-3, max_grad_norm=1.0),
    a2c=A2CConfig(gae_lambda=0.95, entropy_cost=0.03),
)
STUDENT = StudentArgs(
    network=NetworkConfig(channels=16, widths=(30,), activation="relu")
)


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/policy_distillation_study")
    """Folder of the results; those of other settings belong into another one."""
    games: tuple[str, ...] = (
        "Breakout-MinAtar",
        "Asterix-MinAtar",
        "SpaceInvaders-MinAtar",
    )
    methods: tuple[Method, ...] = get_args(Method)
    num_seeds: int = 1
    """Students of each method and game. Each game has one teacher."""
    episodes: int = 300
    """Of an evaluation of each game."""
    teacher_steps: int = 1_000_000
    """Environment steps of each teacher."""
    student_steps: int = 600_000
    """Those of a student, for each game."""
    together: NetworkConfig = NetworkConfig(widths=(128,), activation="relu")
    """Of the student of all games."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = {"num_seeds": 1, "teacher_steps": 1, "student_steps": 1}
        found = at_least(self, episodes=1, **counts)
        if not self.games or len(set(self.games)) < len(self.games):
            found.append(f"games must be one or more, each once, got {self.games}")
        return found + [
            x for game in self.games for x in cli.environment_problems(game)
        ]


def run(args: Args) -> None:
    """Trains what is missing, and tells all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it: teachers first."""
    for game in args.games:
        yield f"teacher-{game}", partial(taught, args, game)
    for seed in range(args.num_seeds):
        for method in args.methods:
            for game in args.games:
                given = (args, (game,), method, seed, STUDENT.network)
                yield f"{method}-{game}-{seed}", partial(learned, *given)
        if len(args.games) > 1:
            given = (args, args.games, "kl", seed, args.together)
            yield f"kl-together-{seed}", partial(learned, *given)


def settings_of(args: Args, name: str) -> TrainingConfig:
    """A run without pictures, that begins anew where it was ended."""
    return TrainingConfig(
        name=name,
        runs_dir=str(args.out / "runs"),
        auto_resume=True,
        log_interval=100,
        tensorboard=False,
        gif=False,
        evaluation_episodes=1,
    )


def taught(args: Args, game: str) -> dict[str, Any]:
    """A teacher of one game."""
    name = f"teacher-{game}"
    settings = replace(
        TEACHER,
        env_name=game,
        total_steps=args.teacher_steps,
        training=settings_of(args, name),
    )
    trained = a2c.EXPERIMENT.run(settings)
    told = played(args, trained.directory.path, (game,))
    return {"method": "teacher", "games": [game], "seed": 0} | told


def learned(
    args: Args, games: tuple[str, ...], method: str, seed: int, network: NetworkConfig
) -> dict[str, Any]:
    """A student of the teachers of some games."""
    together = len(games) > 1
    name = f"{method}-{'together' if together else ''.join(games)}-{seed}"
    settings = replace(
        STUDENT,
        env_name="+".join(games),
        teachers=tuple(str(args.out / "runs" / f"teacher-{x}") for x in games),
        acts="teacher" if method == "kl_teacher_acts" else "student",
        distil=CONFIGS[method],
        network=network,
        seed=seed,
        total_steps=args.student_steps * len(games),
        training=replace(settings_of(args, name), evaluation_envs=24),
    )
    trained = policy_distillation.EXPERIMENT.run(settings)
    told = played(args, trained.directory.path, games)
    return {"method": method, "games": list(games), "seed": seed} | told


def played(args: Args, folder: Path, games: tuple[str, ...]) -> dict[str, Any]:
    """Mean returns of a run's agent in each game, their standard errors, and how large
    it is."""
    loaded = training.load(folder)
    each = -(-args.episodes // 100)
    env = envs.make("+".join(games), 100 * len(games))
    modes = (loaded.agent.act, mostly_greedy(loaded.agent, env.specs))
    agents = dict(zip(MODES, modes, strict=True))
    returns: dict[str, dict[str, float]] = {game: {} for game in games}
    errors: dict[str, dict[str, float]] = {game: {} for game in games}
    for mode, act in agents.items():
        agent = loaded.agent._replace(act=act)
        result = evaluate(agent, env, loaded.params, random.key(1), each)
        of_games = np.split(np.asarray(result.returns), len(games), axis=1)
        for game, found in zip(games, of_games, strict=True):
            returns[game][mode] = float(np.mean(found))
            errors[game][mode] = float(np.std(found) / found.size**0.5)
    size = sum(x.size for x in jax.tree.leaves(loaded.params))
    print(f"{folder.name}: {returns}, {size:,} parameters", flush=True)
    return {"returns": returns, "errors": errors, "parameters": size}


def mostly_greedy(agent: Agent, specs: tuple[Specs, Specs]) -> ActFn:
    """The most likely action, or with probability EPSILON any that is possible."""

    def act(params: Params, carry: Carry, step: TimeStep, key: PRNGKey):
        greedy_key, random_key, which_key = jax.random.split(key, 3)
        action, carry, extras = agent.greedy(params, carry, step, greedy_key)
        drawn = uniform_actions(*specs, step.obs, random_key)
        explores = jax.random.bernoulli(which_key, EPSILON, step.first.shape)
        return jnp.where(explores, drawn, action), carry, extras

    return act


def write(args: Args, cases: list[dict[str, Any]]) -> None:
    """Table and numbers."""
    table = Table("student of", "method", "parameters", *(f"{x} kept" for x in MODES))
    teachers = {x["games"][0]: x for x in cases if x["method"] == "teacher"}
    rows = []
    students = [x for x in cases if x["method"] != "teacher"]
    for case in sorted(students, key=lambda x: (x["games"], x["method"], x["seed"])):
        row = kept(case, teachers)
        rows.append(row)
        shown = (" ".join(f"{x:.0%}" for x in row[mode]) for mode in MODES)
        means = (f" ({row[f'{mode}_mean']:.0%})" for mode in MODES)
        told = [f"{x}{y}" for x, y in zip(shown, means, strict=True)]
        names = ", ".join(x.removesuffix("-MinAtar") for x in row["games"])
        table.add_row(names, row["method"], f"{row['share_of_parameters']:.0%}", *told)
    settings = {"study": to_json(args) | {"out": None}}
    settings |= {"teacher": to_json(TEACHER), "student": to_json(STUDENT)}
    cli.write_study(args.out, settings, rows, cases)
    Console().print(table)
    with (args.out / "table.txt").open("w") as file:
        Console(file=file, width=100).print(table)


def kept(case: dict[str, Any], teachers: dict[str, Any]) -> dict[str, Any]:
    """Shares of the teachers' returns, game by game, their standard errors, and the
    geometric mean."""
    row = {key: case[key] for key in ("games", "method", "seed")}
    sizes = [teachers[game]["parameters"] for game in case["games"]]
    row["share_of_parameters"] = case["parameters"] / min(sizes)
    for mode in MODES:
        shares = [
            case["returns"][game][mode] / teachers[game]["returns"][game][mode]
            for game in case["games"]
        ]
        row[mode] = shares
        row[f"{mode}_errors"] = [
            _error(case, teachers[game], game, mode) for game in case["games"]
        ]
        row[f"{mode}_mean"] = math.prod(max(x, 0) for x in shares) ** (1 / len(shares))
    return row


def _error(
    case: dict[str, Any], teacher: dict[str, Any], game: str, mode: str
) -> float:
    """Standard error of a share: of a ratio of two means that are independent."""
    (mean, error), (whole, of_whole) = (
        (x["returns"][game][mode], x["errors"][game][mode]) for x in (case, teacher)
    )
    return math.hypot(error, mean / whole * of_whole) / whole


if __name__ == "__main__":
    cli.main(run, Args)
