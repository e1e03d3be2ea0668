"""What is learned, and by whom."""

from statistics import median
from typing import Any

from tables.markdown import shown, table


def learning(data: Any) -> str:
    rows = [
        (name, f"`{one['command'].strip()}`", scores, median(scores))
        for name, one in data["tasks"].items()
        if (scores := [run["score"] for run in one["runs"]])
    ]
    return (
        "Mean return of 100 evaluation episodes at the end, sampled actions. Budgets"
        " counted rows then, a few per cent more than environment steps.\n\n"
    ) + table(("task", "script and options", "seeds", "median"), rows)


def learning_from_replay(data: Any) -> str:
    rows = [
        (name, f"`{one['command'].strip()}`", scores, median(scores))
        for name, one in data["tasks"].items()
        if (scores := [run["greedy"] for run in one["runs"]])
    ]
    return "Mean return of 100 evaluation episodes at the end, greedy actions.\n\n" + (
        table(("task", "script and options", "seeds", "median"), rows)
    )


def ppg(data: Any) -> str:
    rows = [(x["method"], x["last"], x["median_last"], x["mean"]) for x in data["rows"]]
    head = ("method", "greedy return at the end, seeds", "median", "mean of the run")
    return table(head, rows)


def tasks_of_suites(data: Any) -> str:
    """Tasks of suites: what is reached, beside a network that knows nothing."""
    head = ("task", "untrained", "greedy return of every seed", "median", "rows")
    rows = [
        (x["task"], x["before"], x["last"], x["median"], x["rows"])
        for x in data["rows"]
    ]
    told = "Suites' own pay; games of pgx against a random opponent: 1 won, -1 lost."
    return f"{told}\n\n{table(head, rows)}"


def self_play(data: Any) -> str:
    """Self-play at tic-tac-toe by the price of entropy."""
    names = "entropy_cost", "return", "best_own", "best_random", "met", "value_error"
    rows = [[x[name] for name in (*names, "entropy")] for x in data["rows"]]
    head = (
        "entropy cost", "greedy return against random, seeds",
        "best moves in own games", "and against random", "positions met",
        "value's error", "entropy, nats",
    )  # fmt: skip
    return (
        f"After {data['rows'][0]['rows']:,} rows. Positions met: share of what is met"
        " against a random opponent that one of 1,000 games against oneself meets. All"
        f" exact: see the script.\n\n{table(head, rows)}"
    )


def craftax(data: Any) -> str:
    """Achievements, and those unlocked in a tenth of the episodes or more."""
    (row,) = data["rows"]
    ends = row["by_achievement"]
    names = [x for x in ends if x not in ("achievements", "return")]
    often = [x for x in names if max(ends[x]) >= 0.1]
    often.sort(key=lambda x: -max(ends[x]))
    rows = [
        (x.replace("_", " "), ends[x][:-1], ends[x][-1])
        for x in ("achievements", *often)
    ]
    told = f"Per episode, after {row['rows']:,} rows; below, shares of the episodes."
    return f"{told}\n\n{table(('achievement', 'seeds', 'never learns'), rows)}"


def replay(data: Any) -> str:
    rows = [(x["name"], x["return"], x["median"]) for x in data["rows"]]
    return (
        "Double dueling DQN on Breakout-MinAtar, 1 M rows, greedy returns, the mean of"
        " the last fifth of the evaluations. Seeds differ more than kinds.\n\n"
    ) + table(("replay", "seeds", "median"), rows)


def apex_actors(data: Any) -> str:
    rows = [
        (x["num_actors"], x["rows"], x["return"], x["median"]) for x in data["rows"]
    ]
    return (
        "Breakout-MinAtar, the same number of updates in all cases: returns of greedy"
        " episodes, the mean of the last fifth of the evaluations.\n\n"
    ) + table(("actors", "rows acted", "seeds", "median"), rows)


def burn_in(data: Any) -> str:
    rows = [
        (x["method"], x["return"], x["median"], median(x["staleness_last"]))
        for x in data["rows"]
    ]
    head = ("memory before a window", "return of the seeds", "median", "staleness")
    return table(head, rows)


def distillation(data: Any) -> str:
    names = "method", "dprl", "evaluations", "median", "steps_to_three_quarters"
    rows = [
        (*map(x.get, names), median(x["steps_per_cpu_second"])) for x in data["rows"]
    ]
    head = ("method", "updates of the actor", "seeds", "median")
    return table((*head, "steps to return 0.75", "steps/CPU-s"), rows)


def students(data: Any) -> str:
    modes = [(mode, f"{mode}_errors", f"{mode}_mean") for mode in ("sampled", "greedy")]
    names = "method", "share_of_parameters", *modes[0], *modes[1]
    rows = [(", ".join(x["games"]), *map(x.get, names)) for x in data["rows"]]
    head = ("games", "loss", "parameters, of the teacher's", "sampled, each game")
    error = ("standard error", "mean")
    return (
        "Shares of the teachers' returns that students keep, and standard errors over"
        " episodes; means over games are geometric. 5 % of the greedy actions are"
        " random.\n\n"
    ) + table((*head, *error, "greedy, each game", *error), rows)


def episodic(data: Any) -> str:
    rows = [
        (x["method"], x["first"], x["dqn_level_from"], x["median_at_end"])
        for x in data["rows"]
    ]
    head = ("method", "mean return of the first 50 k rows, seeds")
    return table((*head, "rows from which DQN is as good", "median at the end"), rows)


def memory(data: Any) -> str:
    last = max(x["curve"][-1]["rows"] for x in data["cases"])
    seeds = sorted({x["seed"] for x in data["cases"]})
    rows = [(x["method"], x["return"], x["median"]) for x in data["rows"]]
    return (
        "Mean return of 100 greedy episodes, which is the share of right goals: who"
        f" forgets the colour of the start has 0.5. After {last:,} rows.\n\n"
    ) + table(("memory", f"seeds {shown(seeds)}", "median"), rows)


def demonstrations(data: Any) -> str:
    usual = data["settings"]
    last = max(x["curve"][-1]["rows"] for x in data["cases"])
    seeds = sorted({x["seed"] for x in data["cases"]})
    rows = [(f"{x['ratio']:.4g}", x["return"], x["median"]) for x in data["rows"]]
    return (
        f"{usual['env_name']}, {usual['replay']['expert_steps']:,} steps of an expert,"
        f" greedy returns after {last:,} rows. Ratio 0 is R2D2.\n\n"
    ) + table(("demonstration ratio", f"seeds {shown(seeds)}", "median"), rows)
