"""PPO against itself at tic-tac-toe, beside what is exact: who meets which positions.

    python experiments/self_play_study.py

The game has 4,520 positions in which somebody moves, so all that is shown is computed
from the policy's probabilities in each of them, and nothing is played:

    return        of the greedy policy against a random opponent, from either side
    best          share of the positions with a choice that matters, as often as they
                  are met, in which the greedy move is one of the best: in games of the
                  policy against itself, and against a random opponent
    met           share of what is met against a random opponent that the policy meets
                  in one of 1,000 games against itself, or in more
    value_error   root mean square, in its own games, of what the network says and what
                  the policy gets against itself
    entropy       of a move in its own games, nats

Cases differ in the price of entropy. Writes study.json and study.png. Who is best:
minimax, as in Knuth and Moore, 'An analysis of alpha-beta pruning', section 3.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random
from jaxrl_par.errors import at_least
from jaxrl_par.networks import actor_critic
from jaxrl_par.presets.ppo import Args as Settings
from jaxrl_par.presets.ppo import make_agent
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.population import population
from jaxrl_par.types import Masked, TimeStep

_LINES = np.array(
    [[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8],
     [2, 4, 6]]
)  # fmt: skip
SHOWN = ("return", "best_own", "best_random", "met", "value_error", "entropy")


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/self_play_study")
    """Folder of the results; those of other settings belong into another one."""
    entropy_costs: tuple[float, ...] = (0.01, 0.03, 0.1)
    num_seeds: int = 3
    first_seed: int = 0
    """Seeds are counted from there: others to choose settings than to show them."""
    num_points: int = 5
    """Looks at each run."""
    settings: Settings = Settings(env_name="pgx::tic_tac_toe-self-play")
    """What all cases share, but for the entropy cost."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, num_seeds=1, first_seed=0, num_points=1, entropy_costs=0)


class Game(NamedTuple):
    """All positions in which somebody moves, the empty board first."""

    boards: Bool[np.ndarray, "N 9 2"]
    """Stones of who moves, and of the other one."""
    after: Int[np.ndarray, "N 9"]
    """Which position an action leads to; -1 where the game is over, or it is none."""
    pays: Float[np.ndarray, "N 9"]
    """1 where the action wins."""

    @property
    def allowed(self) -> Bool[np.ndarray, "N 9"]:
        return ~self.boards.any(2)

    @property
    def moves(self) -> Int[np.ndarray, " N"]:
        """How many were made."""
        return self.boards.sum((1, 2))


def tic_tac_toe() -> Game:
    """The game, from its rules."""
    empty = np.zeros((9, 2), bool)
    boards, number = [empty], {empty.tobytes(): 0}
    after, pays = [], []
    for board in boards:  # grows
        after.append(np.full(9, -1))
        pays.append(np.zeros(9))
        for action in np.flatnonzero(~board.any(1)):
            moved = board.copy()
            moved[action, 0] = True
            if moved[_LINES, 0].all(1).any():
                pays[-1][action] = 1.0
            elif not moved.any(1).all():
                following = np.ascontiguousarray(moved[:, ::-1])
                place = number.setdefault(following.tobytes(), len(boards))
                boards.extend([following] if place == len(boards) else [])
                after[-1][action] = place
    return Game(np.array(boards), np.array(after), np.array(pays))


def ahead(game: Game, values: Any, gamma: float = 1.0) -> Float[np.ndarray, "N 9"]:
    """Values of all actions, from those [N] of who moves then."""
    following = np.where(game.after < 0, 0.0, np.asarray(values)[game.after])
    return np.where(game.allowed, game.pays - gamma * following, -np.inf)


def backed_up(
    game: Game, chosen: Callable[[Any, Any], Any], gamma: float = 1.0
) -> Float[np.ndarray, " N"]:
    """Values of who moves, from the end of the game to its beginning.

    Args:
      chosen: (values of the actions [n, 9], positions [n]) -> values [n].
    """
    values = np.zeros(len(game.boards))
    for made in reversed(range(9)):
        rows = np.flatnonzero(game.moves == made)
        values[rows] = chosen(ahead(game, values, gamma)[rows], rows)
    return values


def met(game: Game, first: Any, second: Any) -> Float[np.ndarray, " N"]:
    """How often each position is met in a game.

    Args:
      first, second: probabilities [N, 9] with which either side moves.
    """
    often = np.zeros(len(game.boards))
    often[0] = 1.0
    for made in range(9):
        rows = np.flatnonzero(game.moves == made)
        flow = (first if made % 2 == 0 else second)[rows] * often[rows, None]
        goes_on = game.after[rows] >= 0
        np.add.at(often, game.after[rows][goes_on], flow[goes_on])
    return often


def mean(probs: Any, values: Any) -> Float[np.ndarray, " n"]:
    """Over actions [n, 9], those of no probability left out."""
    return np.sum(probs * np.where(probs > 0, values, 0.0), axis=1)


def result(game: Game, policy: Any, opponent: Any) -> float:
    """What the policy gets on average, as it begins in every other game."""

    def value(first, second):
        def chosen(actions, rows):
            mover = first if game.moves[rows[0]] % 2 == 0 else second
            return mean(mover[rows], actions)

        return backed_up(game, chosen)[0]

    return (value(policy, opponent) - value(opponent, policy)) / 2


def judged(game: Game, probs: Any, values: Any, gamma: float) -> dict[str, float]:
    """All that is shown, of a policy [N, 9] and the values [N] that go with it."""
    greedy = np.eye(9)[np.argmax(probs, axis=1)]
    anyone = game.allowed / game.allowed.sum(1, keepdims=True)
    actions = ahead(game, backed_up(game, lambda x, _: x.max(1)))
    best = actions == actions.max(1, keepdims=True)
    matters = best.sum(1) < game.allowed.sum(1)
    own = met(game, probs, probs)
    others = np.where(game.moves % 2 == 0, met(game, greedy, anyone), 0.0)
    others += np.where(game.moves % 2 == 1, met(game, anyone, greedy), 0.0)
    right = np.sum(greedy * best, axis=1)
    gets = backed_up(game, lambda x, rows: mean(probs[rows], x), gamma)
    logs = np.log(np.where(probs > 0, probs, 1.0))
    return {
        "return": result(game, greedy, anyone),
        "best_own": float(np.average(right, weights=own * matters)),
        "best_random": float(np.average(right, weights=others * matters)),
        "met": float(np.average(own >= 1e-3, weights=others)),
        "value_error": float(np.average((values - gets) ** 2, weights=own)) ** 0.5,
        "entropy": float(np.average(-np.sum(probs * logs, axis=1), weights=own)),
    }


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains its seeds."""
    for cost in args.entropy_costs:
        yield f"entropy-{cost}", partial(trained, cost, args)


def trained(cost: float, args: Args) -> dict[str, Any]:
    """What is shown of all seeds, one program, at each look."""
    ppo = replace(args.settings.ppo, entropy_cost=cost)
    settings, game = replace(args.settings, ppo=ppo), tic_tac_toe()
    learner = cli.compose(settings, make_agent)
    env = settings.make_env(settings.num_envs)
    network = actor_critic(*env.specs, settings.network)
    shown = Masked(game.boards.reshape(-1, 3, 3, 2), game.allowed)
    no = np.zeros(len(game.boards), bool)

    def make_program(values: Any):
        del values  # members differ in their seeds alone
        return compiled(learner, env, settings.unroll_length)

    @jax.jit
    @jax.vmap
    def told(state):
        (policy, values), _ = network.apply(
            learner.params(state), (), TimeStep(shown, no, no)
        )
        return jax.nn.softmax(policy.logits), values

    seeds = np.arange(args.num_seeds) + args.first_seed
    program = population(make_program, {"seed": seeds}).program
    runs = jax.jit(program.init)(random.key(0))
    steps = settings.total_steps // settings.rows_per_update // args.num_points
    advance = jax.jit(scanned(program, max(steps, 1)), donate_argnums=0)
    curve = []
    for point in range(1, args.num_points + 1):
        runs, _ = advance(runs)
        members = zip(*map(np.asarray, told(runs.learner)), strict=True)
        found = [judged(game, *x, settings.ppo.gamma) for x in members]
        rows = point * max(steps, 1) * settings.rows_per_update
        curve.append({"rows": rows} | {x: [y[x] for y in found] for x in SHOWN})
        print(cost, rows, *(f"{x:.2f}" for x in curve[-1]["return"]), flush=True)
    return {"entropy_cost": cost, "curve": curve}


def write(args: Args, results: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    results = sorted(results, key=lambda x: x["entropy_cost"])
    shown = Table("entropy cost", *SHOWN)
    figure = Figure(figsize=(4.0 * len(SHOWN), 3.2), layout="constrained")
    plots, rows = figure.subplots(1, len(SHOWN)), []
    for result in results:
        curve, cost = result["curve"], result["entropy_cost"]
        ends = {x: curve[-1][x] for x in SHOWN}
        rows.append({"entropy_cost": cost, "rows": curve[-1]["rows"]} | ends)
        shown.add_row(f"{cost:g}", *(f"{median(x):.2f}" for x in ends.values()))
        for axes, name in zip(plots, SHOWN, strict=True):
            seeds = [x[name] for x in curve]
            cli.draw_seeds(axes, [x["rows"] for x in curve], seeds, f"{cost:g}")
            axes.set(title=name.replace("_", " "), xlabel="rows of acting")
    plots[0].legend(title="entropy cost")
    figure.savefig(args.out / "study.png", dpi=80)
    cli.write_study(args.out, args, rows, results)
    Console().print(shown)


if __name__ == "__main__":
    cli.main(run, Args)
