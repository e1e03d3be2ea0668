"""Models, controllers and plans."""

from typing import Any

from tables.markdown import table


def guided(data: Any) -> str:
    names = "pace", "seed", "opened", "best", "time"
    doors = [map(x.get, names) for x in data["rows"]["doors"]]
    head = ("workers", "seed", "doors opened at the end", "at best", "simulated time")
    names = "model", "num_workers", "busy_without_trainer", "busy"
    names = (*names, "rounds_per_time", "rounds_per_time_own")
    waiting = [map(x.get, names) for x in data["rows"]["utilisation"]]
    told = ("durations", "workers", "busy", "busy, and a trainer", "rounds in a time")
    return (
        "Shares of doors, in poses that nobody was shown, that the global policy opens;"
        " the workers' durations are heavy-tailed.\n\n"
        + table(head, doors)
        + "\n\nShares of time that workers are busy where all wait for the slowest, and"
        " for a trainer that takes as long as they do in the mean; rounds of all"
        " workers in a unit of time then, and where nobody waits.\n\n"
        + table((*told, "at their own pace"), waiting)
    )


def opened(data: Any) -> str:
    names = "pace", "seed", "opened", "best"
    rows = [map(x.get, names) for x in data["rows"]["doors"]]
    return "Nothing was tuned on these seeds and poses.\n\n" + table(
        ("workers", "seed", "doors opened at the end", "at best"), rows
    )


def dyna(data: Any) -> str:
    walks = [x for x in data["rows"] if "maze" in x]
    head = ("maze", "steps of episode 1", "episodes to 20 steps", "steps of episode 50")
    told = [(x["maze"], x["first"], x["episode"], x["last"]) for x in walks]
    maze = table(head, told)
    deep = [x for x in data["rows"] if "share" in x]
    if not deep:
        return maze
    names = "steps", "median", "mean_returns", "median_at_end"
    heads = "share of imagination", "rows to 475, seeds", "median"
    shares = table(
        (*heads, "mean return of the run, seeds", "median at the end"),
        [tuple(map(x.get, ("share", *names))) for x in deep],
    )
    note = (
        "CartPole, all else equal; share 0 is DQN. Rows until the first single"
        " evaluation, of 40 greedy episodes, is at least 475; a dash never."
    )
    return f"{maze}\n\n{note}\n\n{shares}"


def lander(data: Any) -> str:
    names = "env_steps", "episodes", "seconds", "seconds_per_episode", "speed_up"
    rows = [
        (
            x["method"],
            x["num_workers"],
            f"{sum(x['solved'])} of {len(x['solved'])}",
            *map(x.get, names),
            x["best_returns"],
        )
        for x in data["rows"]
    ]
    head = ("method", "workers", "solved", "steps", "episodes", "s", "s an episode")
    settings = data["settings"]
    return (
        f"Medians over seeds of runs that end at a mean return of"
        f" {settings['threshold']:g} in 100 episodes, or after"
        f" {settings['total_steps']:,} steps, on {data['machine']['cores']} cores. Best"
        " return is the largest mean of 100 episodes, of every seed.\n\n"
        + table((*head, "speed-up", "best return"), rows)
    )


def qt_opt(data: Any) -> str:
    names = "case", "success", "median_success"
    rows = [
        (*map(x.get, names), f"{x['median_overestimation']:+.3f}") for x in data["rows"]
    ]
    head = ("case", "success at the end, seeds", "median")
    return table((*head, "value at the start less what is got, median"), rows)
