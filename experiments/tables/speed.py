"""Rates and times."""

from statistics import median
from typing import Any

from tables.markdown import shown, table


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


def draws(data: Any) -> str:
    rows = [
        (x["capacity"], x["ours_us"], x["flashbax_us"], x["ratio"], x["ratios"])
        for x in data["draws"]
    ]
    head = ("capacity", "ours, us", "flashbax, us", "times as fast", "rounds")
    return "A prioritised draw of 512, and an update of its priorities.\n\n" + table(
        head, rows
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


def selection(data: Any) -> str:
    rounds, middle = shown(data["ratios"]), data["median"]
    return f"{middle:.3f} times the CPU-seconds of the population; rounds: {rounds}."


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
