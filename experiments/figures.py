"""Writes results/README.md from the results beside it: no number there is typed.

    python experiments/figures.py

Each section is a function from one file of results to Markdown, with the command that
makes the file again. A file that is not there has no section.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
FIRST = """# Results

Written by `python experiments/figures.py` from the JSON in this folder, which the
commands below make: do not edit. Most files say what machine they are from; those that
do not are from two cores of an AMD EPYC, Python 3.11, jax 0.10.2, no GPU. Ratios are
taken within pairs that ran in turn; medians are over pairs, rounds or seeds.
"""


class Section(NamedTuple):
    """A part of the page."""

    title: str
    file: str
    """In the folder of results."""
    command: str
    render: Callable[[Any], str]


def page(folder: Path = RESULTS) -> str:
    """The whole text."""
    parts = [FIRST]
    for title, file, command, render in SECTIONS:
        if (folder / file).exists():
            told = render(json.loads((folder / file).read_text())).strip()
            parts.append(f"## {title}\n\n`{command}`\n\n{told}\n")
            if picture := _picture(folder / file):
                parts.append(f"![{title}]({picture.relative_to(folder)})\n")
    return "\n".join(parts)


def _picture(path: Path) -> Path | None:
    beside = path.with_suffix(".png")
    return beside if beside.exists() else None


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(shown, line))} |" for line in lines)


def shown(x: Any) -> str:
    """A number as short as it says enough, a list with commas; None is a dash."""
    if x is None:
        return "-"
    if isinstance(x, list | tuple):
        return ", ".join(map(shown, x))
    if not isinstance(x, float):
        return f"{x:,}" if isinstance(x, int) else str(x)
    size = abs(x)
    if size >= 1e6:
        return f"{x / 1e6:.2f} M"
    if size >= 1e4:
        return f"{x / 1e3:.0f} k"
    if size >= 1e3:
        return f"{x / 1e3:.1f} k"
    digits = 1 if size >= 20 else 2
    text = f"{round(x, digits) + 0.0:.{digits}f}"  # + 0.0: not -0
    return text.removesuffix(".0")


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


def draws(data: Any) -> str:
    rows = [
        (x["capacity"], x["ours_us"], x["flashbax_us"], x["ratio"], x["ratios"])
        for x in data["draws"]
    ]
    head = ("capacity", "ours, us", "flashbax, us", "times as fast", "rounds")
    return "A prioritised draw of 512, and an update of its priorities.\n\n" + table(
        head, rows
    )


def burn_in(data: Any) -> str:
    rows = [
        (x["method"], x["return"], x["median"], median(x["staleness_last"]))
        for x in data["rows"]
    ]
    head = ("memory before a window", "return of the seeds", "median", "staleness")
    return table(head, rows)


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


def pairs(data: Any) -> str:
    ratios, middle = data["ratios"], data["median_ratio"]
    rows = []
    for kind, name in (("cpu", "CPU-second"), ("wall", "second")):
        ours, theirs = (
            median(
                x[side]["env_steps"] / x[side][f"{kind}_seconds"] for x in data["runs"]
            )
            for side in ("ours", "theirs")
        )
        rows.append((name, ours, theirs, ratios[kind], middle[kind]))
    return table(("steps per", "ours", "theirs", "pairs", "median"), rows)


def throughput(data: Any) -> str:
    shares = "of_bound", "of_best_layouts"
    rows = [
        (x["name"], x["num_envs"], *map(x.get, ("steps/CPU-s", *shares)))
        for x in data["records"]
    ]
    head = ("program", "environments", "steps per CPU-second", "of the bound")
    return (
        "The bound is the environments and every matrix product alone: as it is"
        " written, and in the best of its layouts. The first share can pass 1.\n\n"
    ) + table((*head, "of best layouts"), rows)


def bridge(data: Any) -> str:
    rows = []
    for name, one in data["cases"].items():
        rates = [
            median(
                pair[side]["env_steps"] / pair[side]["wall_seconds"]
                for pair in one["pairs"]
            )
            for side in (0, 1)
        ]
        lag = median(pair[1]["lag"] for pair in one["pairs"])
        rows.append((name, *rates, one["shares"]["wall"], lag))
    act = ", ".join(f"{us:.0f} us for {n}" for n, us in data["act_us"].items())
    return (
        "IMPALA in actor threads, beside the same simulators with random actions.\n\n"
        + table(("case", "alone", "bridge", "share", "lag"), rows)
        + f"\n\nOne call to act, NumPy to NumPy, 64 x 64 units: {act} environments."
    )


def impala_table(data: Any) -> str:
    kinds = ("constant", "mild", "heavy")
    rows = [(name, *(x[kind] for kind in kinds)) for name, x in data["rates"].items()]
    return (
        "Environment steps per second, when simulators' steps take equal times, mildly"
        " and heavily varying ones of the same mean.\n\n"
    ) + table(("who waits for whom", *kinds), rows)


def scaling(data: Any) -> str:
    rest = "efficiency", "equality"
    rows = [
        tuple(map(x.get, ("stage", "place", "steps_per_second", "cores", *rest)))
        for x in data["rows"]
    ]
    return table(("stage", "place", "steps/s", "cores", *rest), rows)


def fleet(data: Any) -> str:
    rows = [
        (name, one["threads"], one["fleet"], one["ratio"])
        for name, one in data.items()
        if "ratio" in one
    ]
    sent = data["transport"]
    middle, most = sent["ms_50"], sent["ms_90"]
    return (
        table(("simulator", "threads, steps/s", "fleet", "median ratio"), rows)
        + f"\n\n{sent['bytes'] / 1e6:.2f} MB from another process: {middle:.2f} ms, in"
        f" one of ten calls {most:.2f} ms or more."
    )


def fleet_actors(data: Any) -> str:
    kinds = "jax", "numpy"
    rows = [
        (name.replace("_", " "), *(median(one[x]) for x in kinds), one["ratio"])
        for name, one in data.items()
    ]
    return table(("a process with one actor", *kinds, "median ratio"), rows)


def stragglers(data: Any) -> str:
    found: dict[int, list[Any]] = {}
    for case in data["cases"]:
        found.setdefault(case["quorum"], []).append(case)
    rows = [
        (
            f"{quorum} of {cases[0]['num_actors']}",
            [round(x["steps_per_second"]) for x in cases],
            [x["return"] for x in cases],
        )
        for quorum, cases in found.items()
    ]
    return table(("quorum", "steps/s of the seeds", "return of the seeds"), rows)


def hosts(data: Any) -> str:
    rows = [(x["delay_ms"], x["updates_per_second"]) for x in data["rates"]]
    return (
        "A2C on two hosts, network namespaces with a delay between them.\n\n"
        + table(("ms each way", "updates/s"), rows)
        + f"\n\nCut off in the middle, both end with exit codes"
        f" {shown(data['cut']['exit_codes'])} after {data['cut']['seconds']:.1f} s."
    )


def distillation(data: Any) -> str:
    names = "method", "dprl", "evaluations", "median", "steps_to_three_quarters"
    rows = [
        (*map(x.get, names), median(x["steps_per_cpu_second"])) for x in data["rows"]
    ]
    head = ("method", "updates of the actor", "seeds", "median")
    return table((*head, "steps to return 0.75", "steps/CPU-s"), rows)


def latency(data: Any) -> str:
    measured = {kind for x in data["us"].values() for one in x.values() for kind in one}
    kinds = [x for x in ("jit", "StableHLO", "NumPy", "ONNX") if x in measured]
    rows = [
        (name, batch, *(one.get(kind, {}).get("cpu") for kind in kinds))
        for name, batches in data["us"].items()
        for batch, one in batches.items()
    ]
    return "CPU microseconds of one call to act.\n\n" + table(
        ("network", "batch", *kinds), rows
    )


def workers(data: Any) -> str:
    rows = [
        (x["case"], x["store"], x["steps_per_second"]["1"], x["speed_up"])
        for x in data["rows"]
    ]
    head = ("environments", "store", "steps/s of one", "two workers, times as fast")
    return table(head, rows)


def worker_scaling(data: Any) -> str:
    names = "num_workers", "mode", "store", "episodes", "seconds"
    rows = [
        (*map(x.get, names), f"{sum(x['solved'])} of {len(x['solved'])}")
        for x in sorted(data["rows"], key=lambda x: (x["num_workers"], x["store"]))
    ]
    head = ("workers", "how", "store", "episodes", "seconds", "seeds that solved it")
    return f"Until a mean return of {data['threshold']}.\n\n" + table(head, rows)


def by_seeds(group: tuple[str, ...], value: str) -> Callable[[Any], str]:
    """A table of cases that have a seed each."""

    def render(data: Any) -> str:
        found: dict[Any, list[float]] = {}
        for case in data["cases"]:
            found.setdefault(tuple(case[x] for x in group), []).append(case[value])
        rows = [
            (*key, values, median(float("inf") if x is None else x for x in values))
            for key, values in found.items()
        ]
        return table((*group, f"{value} of the seeds", "median"), rows)

    return render


def collectors(data: Any) -> str:
    names = "trainer", "num_collectors", "seconds", "median", "times_as_fast"
    head = ("trainer", "collectors", "seconds of the seeds", "median", "times as fast")
    return (
        f"Seconds of robots that take {data['rows'][0]['step_ms']:g} ms for a step,"
        f" until greedy episodes return {data['rows'][0]['threshold']:g} in three"
        f" evaluations in a row, in {data['settings']['env_name']}.\n\n"
    ) + table(head, [map(x.get, names) for x in data["rows"]])


def evolution(data: Any) -> str:
    names = "members", "steps/CPU-s", "environment", "products", "ns/step", "of_bound"
    rows = [map(x.get, names) for x in data["records"]]
    sent = [(x["exchange"], x["widths"], x["bytes"]) for x in data["exchanged"]]
    head = ("members", "steps/CPU-s", "environment, ns", "products, ns")
    return (
        table((*head, "a step, ns", "of the bound"), rows)
        + "\n\nBytes that two devices exchange in a generation of the first size:\n\n"
        + table(("exchanged", "units of the layers", "bytes"), sent)
    )


def es_workers(data: Any) -> str:
    rows = [
        (x["cap"] or None, x["workers"], x["speed_up"], x["efficiency"], x["return"])
        for x in data["rows"]
    ]
    head = ("cap", "workers", "times as fast", "efficiency", "return of the seeds")
    return table(head, rows)


def rl2(data: Any) -> str:
    def references(found: dict[str, float]) -> str:
        return ", ".join(f"{name} {shown(x)}" for name, x in found.items())

    names = "task", "rows", "return", "error"
    rows = [(*map(x.get, names), references(x["references"])) for x in data["rows"]]
    head = ("task", "rows", "return of the seeds", "standard errors", "to compare")
    return table(head, rows)


def maml(data: Any) -> str:
    rows = [
        (x["method"], *([seed[n] for seed in x["returns"]] for n in range(4)))
        for x in data["rows"]
    ]
    head = ("method", "before a gradient", "after one", "after two", "after three")
    return "Mean returns in new tasks, every seed.\n\n" + table(head, rows)


def episodic(data: Any) -> str:
    rows = [
        (x["method"], x["first"], x["dqn_level_from"], x["median_at_end"])
        for x in data["rows"]
    ]
    head = ("method", "mean return of the first 50 k rows, seeds")
    return table((*head, "rows from which DQN is as good", "median at the end"), rows)


def students(data: Any) -> str:
    kinds = "sampled", "sampled_mean", "greedy", "greedy_mean"
    names = "method", "share_of_parameters", *kinds
    rows = [(", ".join(x["games"]), *map(x.get, names)) for x in data["rows"]]
    head = ("games", "loss", "parameters, of the teacher's", "sampled, each game")
    return (
        "Shares of the teachers' returns that students keep; means over games are"
        " geometric.\n\n"
    ) + table((*head, "mean", "greedy, each game", "mean"), rows)


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


def lqr(data: Any) -> str:
    settings, faster = data["settings"], data["times_as_fast"]
    sizes = f"{settings['num_states']} initial states x {settings['num_steps']} steps"
    return (
        f"{sizes}, {settings['state_size']} numbers of state,"
        f" {settings['num_actions']} of action: vmapped, they are"
        f" {shown(faster['vmapped than numpy'])} times as fast as a loop in NumPy and"
        f" {shown(faster['vmapped than compiled_loop'])} times as fast as a Python loop"
        " over a compiled pass. With their axis behind all others from the beginning,"
        f" so that nothing is moved, {shown(faster['behind than numpy'])} and"
        f" {shown(faster['behind than compiled_loop'])} times."
    )


def pbt(data: Any) -> str:
    rows = [(x["method"], x["best"], x["median"], x["means"]) for x in data["rows"]]
    head = ("method", "best member of the seeds", "median", "means of all members")
    return table(head, rows)


def dyna(data: Any) -> str:
    walks = [x for x in data["rows"] if "maze" in x]
    head = ("maze", "steps of episode 1", "episodes to 20 steps", "steps of episode 50")
    told = [(x["maze"], x["first"], x["episode"], x["last"]) for x in walks]
    maze = table(head, told)
    deep = [x for x in data["rows"] if "share" in x]
    if not deep:
        return maze
    shares = table(
        ("share of imagination", "rows to 475, seeds", "median", "median at the end"),
        [(x["share"], x["steps"], x["median"], x["median_at_end"]) for x in deep],
    )
    return (
        f"{maze}\n\nCartPole, all else equal; share 0 is DQN, a dash never.\n\n{shares}"
    )


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


def selection(data: Any) -> str:
    rounds, middle = shown(data["ratios"]), data["median"]
    return f"{middle:.3f} times the CPU-seconds of the population; rounds: {rounds}."


def conformance(data: Any) -> str:
    """Questions as columns; why an answer is no stands below."""
    questions = [*data["questions"], "check_environment"]
    rows, reasons = [], []
    for row in data["rows"]:
        answers = row.get("answers", {}) | {
            "check_environment": row.get("check_environment")
        }
        name = f"{row['suite']} {row['version']}: {row['task']}"
        told = [_answer(answers.get(x)) for x in questions]
        rows.append([name, row["side"], *told])
        reasons += [
            f"* {name}, {row['side']}, {x}: {y}"
            for x, y in answers.items()
            if isinstance(y, str)
        ]
    threads = [f"* {suite}: {', '.join(x)}" for suite, x in data["threads"].items()]
    whole = [table(["task", "side", *questions], rows), "What a no is:"]
    whole += ["\n".join(reasons), "Where users met these faults:", "\n".join(threads)]
    return "\n\n".join([f"jax {data['jax']}. A dash: there is nothing to ask.", *whole])


def _answer(x: Any) -> str:
    return "no" if isinstance(x, str) else {True: "yes", None: "-"}[x]


def resets(data: Any) -> str:
    ways = list(data["rows"][0]["ratios"])
    rows = [[x["name"], *(x["ratios"][way] for way in ways)] for x in data["rows"]]
    told = (
        "Speed as a multiple of that with fresh resets, in CPU-seconds; the number is"
    )
    return f"{told} how many are computed a step.\n\n" + table(["task", *ways], rows)


def suites(data: Any) -> str:
    rows = [
        [f"{x['suite']}: {x['task']}", x["ratios"].get("bare"), x["ratios"].get("own")]
        for x in data["rows"]
    ]
    told = f"The stream's speed, with {data['args']['kind']} resets, in CPU-seconds."
    head = ["task", "of the bare transition's", "of the suite's own reset's"]
    return f"{told}\n\n{table(head, rows)}"


def counted(what: str) -> Callable[[Any], str]:
    """How many of the trials ended as promised."""
    return lambda data: f"{data['clear']} of {data[what]} ended clearly."


_B, _E = "python experiments/benchmarks", "python experiments"
_PPO = f"{_B}/pairs.py --ours '... throughput.py --json-line' --theirs 'PureJaxRL'"
_DQN = f"{_B}/pairs.py --ours '... replay.py --json-line' --theirs '... replay_peers.py"
_AC = f"{_B}/pairs.py --ours '... off_policy.py --algorithm"
_REJAX = "--theirs '... replay_peers.py rejax"
SECTIONS = (
    Section("Learning", "learning.json", f"{_B}/learning.py", learning),
    Section(
        "Learning from replay",
        "learning_replay.json",
        f"{_B}/learning.py --only 'DQN, CartPole' C51",
        learning_from_replay,
    ),
    Section(
        "PPO beside PureJaxRL: CartPole", "pairs_ppo_cartpole.json", _PPO, pairs
    ),
    Section(
        "PPO beside PureJaxRL: Breakout, one thread", "pairs_ppo_breakout.json", _PPO,
        pairs,
    ),
    Section(
        "PPO beside PureJaxRL: Breakout, two threads",
        "pairs_ppo_breakout_two_threads.json", _PPO, pairs,
    ),
    Section(
        "DQN beside PureJaxRL", "pairs_dqn_purejaxrl.json", f"{_DQN} purejaxrl'", pairs
    ),
    Section("DQN beside Rejax", "pairs_dqn_rejax.json", f"{_DQN} rejax'", pairs),
    Section(
        "SAC beside Rejax", "pairs_sac_rejax.json", f"{_AC} sac' {_REJAX}-sac'", pairs
    ),
    Section(
        "TD3 beside Rejax", "pairs_td3_rejax.json", f"{_AC} td3' {_REJAX}-td3'", pairs
    ),
    Section(
        "Evolution strategies beside evosax", "pairs_es_evosax.json",
        f"{_B}/pairs.py --ours '... evolution.py --json-line'"
        " --theirs '... evosax_peer.py'", pairs,
    ),
    Section(
        "Share of the lower bound", "throughput_cartpole.json", f"{_B}/throughput.py",
        throughput,
    ),
    Section("A generation", "evolution.json", f"{_B}/evolution.py", evolution),
    Section(
        "Evolution strategies on more workers", "es_study/study.json",
        f"{_E}/es_study.py", es_workers,
    ),
    Section(
        "Ape-X by the number of actors",
        "apex_study/study.json",
        f"{_E}/apex_study.py",
        apex_actors,
    ),
    Section("Replay", "replay_study/study.json", f"{_E}/replay_study.py", replay),
    Section("Draws", "replay_draws.json", f"{_B}/replay.py --only draws", draws),
    Section("Burn-in", "burn_in_study/study.json", f"{_E}/burn_in_study.py", burn_in),
    Section(
        "Memory in I-Maze 9x9: R2D2 beside DQN", "memory_study/study.json",
        f"{_E}/memory_study.py --first-seed 1", memory,
    ),
    Section(
        "Demonstrations: R2D3 beside R2D2", "demonstration_study/study.json",
        f"{_E}/demonstration_study.py --ratios 0 0.25 --num-seeds 2", demonstrations,
    ),
    Section("The bridge", "bridge.json", f"{_B}/bridge.py", bridge),
    Section(
        "Who waits for whom", "impala_table.json", f"{_B}/impala_table.py",
        impala_table,
    ),
    Section(
        "Where episodes end in suites", "conformance.json", f"{_B}/conformance.py",
        conformance,
    ),
    Section("Where episodes begin", "resets.json", f"{_B}/resets.py", resets),
    Section("The stream beside suites", "suites.json", f"{_B}/suites.py", suites),
    Section("Devices", "scaling.json", f"{_B}/scaling.py", scaling),
    Section("Fleet", "fleet.json", f"{_B}/fleet.py --pairs 5", fleet),
    Section(
        "Processes without JAX", "fleet_actors.json",
        f"{_B}/fleet_actors.py --pairs 5", fleet_actors,
    ),
    Section("Hosts", "hosts.json", f"{_B}/hosts.py", hosts),
    Section(
        "Stragglers", "straggler_study/study.json", f"{_E}/straggler_study.py",
        stragglers,
    ),
    Section(
        "Gossip", "gossip_study/study.json", f"{_E}/gossip_study.py",
        by_seeds(("delay_ms", "slowest", "method"), "seconds"),
    ),
    Section(
        "Asynchronous NAF", "naf/study.json", f"{_E}/naf_study.py", collectors
    ),
    Section(
        "Distillation, I-Maze 9x9", "distillation_imaze/study.json",
        f"{_E}/distillation_study.py", distillation,
    ),
    Section(
        "Distillation, Meta-Fetch 7x7", "distillation_metafetch/study.json",
        f"{_E}/distillation_study.py --settings.env-name MetaFetch-7x7", distillation,
    ),
    Section("Actors that left", "latency.json", f"{_B}/latency.py", latency),
    Section("Workers", "workers.json", f"{_B}/workers.py", workers),
    Section(
        "More workers, CartPole", "worker_scaling/scaling.json",
        f"{_E}/worker_scaling.py", worker_scaling,
    ),
    Section(
        "More workers, LunarLander", "worker_scaling_lander/scaling.json",
        f"{_E}/worker_scaling.py (see its help)", worker_scaling,
    ),
    Section(
        "Staleness", "staleness/staleness.json", f"{_E}/staleness.py",
        by_seeds(("method", "delay"), "return"),
    ),
    Section(
        "Gorila's bundles", "gorila/gorila.json", f"{_E}/gorila_study.py",
        by_seeds(("num_bundles", "method"), "return"),
    ),
    Section(
        "Random search, halving, PBT", "pbt_study/study.json", f"{_E}/pbt_study.py",
        pbt,
    ),
    Section(
        "What copying costs", "selection.json", f"{_B}/selection.py", selection
    ),
    Section("RL^2", "rl2/study.json", f"{_E}/rl2_study.py", rl2),
    Section(
        "What a gradient gains in a new task", "maml/study.json",
        f"{_E}/maml_study.py", maml,
    ),
    Section(
        "Episodic control against DQN, Catch", "episodic_control/study.json",
        f"{_E}/episodic_control_study.py", episodic,
    ),
    Section(
        "NEC with a table of 128 entries against DQN, Catch",
        "episodic_control_small/study.json",
        f"{_E}/episodic_control_study.py --methods nec dqn --nec.capacity 128"
        " --total-steps 40000 --num-points 16",
        episodic,
    ),
    Section(
        "Students of one game and of several", "policy_distillation/study.json",
        f"{_E}/policy_distillation_study.py", students,
    ),
    Section(
        "Doors, and who waits for whom", "gps/study.json", f"{_E}/gps_study.py", guided
    ),
    Section(
        "Doors in other poses, by other seeds", "gps_fresh/study.json",
        f"{_E}/gps_study.py --paces together --first-seed 2 --num-seeds 3"
        " --poses-seed 20000", opened,
    ),
    Section("LQR over initial states", "lqr.json", f"{_B}/lqr.py", lqr),
    Section("Dyna", "dyna/study.json", f"{_E}/dyna_study.py", dyna),
    Section(
        "LunarLander by workers", "lunar_lander/study.json",
        f"{_E}/lunar_lander_study.py (settings in study.json)", lander,
    ),
    Section(
        "A task of each suite, with PPO",
        "suites/study.json",
        f"{_E}/suites_study.py",
        tasks_of_suites,
    ),
    Section(
        "Tic-tac-toe against oneself",
        "self_play/study.json",
        f"{_E}/self_play_study.py",
        self_play,
    ),
    Section(
        "Achievements in Craftax-Classic",
        "craftax/study.json",
        f"{_E}/craftax_study.py",
        craftax,
    ),
    Section("PPG beside PPO", "ppg/study.json", f"{_E}/ppg_study.py", ppg),
    Section(
        "QT-Opt: data, targets and updaters", "qt_opt/study.json",
        f"{_E}/qt_opt_study.py", qt_opt,
    ),
    Section(
        "Faults", "fault_injection.json", f"{_B}/fault_injection.py --num-faults 200",
        counted("faults"),
    ),
    Section(
        "Signals", "signal_storm.json", f"{_B}/signal_storm.py --num-signals 200",
        counted("signals"),
    ),
)  # fmt: skip


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(page())
