"""Several processes, hosts and actors."""

from statistics import median
from typing import Any

from tables.markdown import shown, table


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


def worker_scaling(data: Any) -> str:
    names = "num_workers", "mode", "store", "episodes", "seconds"
    rows = [
        (*map(x.get, names), f"{sum(x['solved'])} of {len(x['solved'])}")
        for x in sorted(data["rows"], key=lambda x: (x["num_workers"], x["store"]))
    ]
    head = ("workers", "how", "store", "episodes", "seconds", "seeds that solved it")
    return f"Until a mean return of {data['threshold']}.\n\n" + table(head, rows)


def actor_hosts(data: Any) -> str:
    names = "delay_ms", "steps_per_second", "lag", "lag_max", "actor_transport"
    head = (
        "ms each way",
        "steps/s",
        "mean lag, updates",
        "largest",
        "share of time in transport",
    )
    cut = data["cut"]
    return (
        "IMPALA's learner, and three hosts of actors in network namespaces.\n\n"
        + table(head, [map(x.get, names) for x in data["rates"]])
        + f"\n\nOne host of actors cut off in the middle: its actors act again after"
        f" {cut['seconds_until_anew']:.1f} s, in which {cut['updates_meanwhile']}"
        f" updates were made without them. Asked to end, the learner ends with code"
        f" {cut['exit_code']}."
    )


def inference(data: Any) -> str:
    names = "network", "num_envs", "envs_each", "kind", "steps_per_second", "of_local"
    names += "lag", "actors_in_a_call", "wait_ms"
    head = "network", "environments", "of an actor", "inference", "steps/s", "of local"
    head += "lag, updates", "actors in a call", "ms a step waits"
    settings = data["settings"]
    return (
        f"A step of all simulators of an actor takes {settings['step_ms']:g} ms. The"
        f" learner {'only counts' if settings['acting_only'] else 'learns'}.\n\n"
    ) + table(head, [map(x.get, names) for x in data["rows"]])


def collectors(data: Any) -> str:
    names = ["trainer"] if "trainer" in data["rows"][0] else []
    names += ["num_collectors", "seconds", "median", "times_as_fast"]
    told = {"num_collectors": "collectors", "seconds": "seconds of the seeds"}
    head = [told.get(name, name.replace("_", " ")) for name in names]
    return (
        f"Seconds of robots that take {data['rows'][0]['step_ms']:g} ms for a step,"
        f" until greedy episodes return {data['rows'][0]['threshold']:g} in three"
        f" evaluations in a row, in {data['settings']['env_name']}.\n\n"
    ) + table(head, [map(x.get, names) for x in data["rows"]])


def kills(data: Any) -> str:
    parts, found = data["parts"], {}
    for one in parts["kills"]:
        found.setdefault(one["kind"], []).append(one["seconds"])
    rows = [(kind, len(seconds), max(seconds)) for kind, seconds in found.items()]
    told = f"learned twice: {parts['learned_twice']}, the record is "
    told += "repeated bit for bit" if parts["repeated"] else "not repeated"
    rows += [
        (name, len(run["kills"]), "ends as if undisturbed" if run["equal"] else "not")
        for name, run in data["runs"].items()
    ]
    left = "nothing" if not data["left"] else shown(sorted(data["left"]))
    return (
        table(("killed", "times", "most seconds until noticed, or the end"), rows)
        + f"\n\nOf the fleet whose parts were killed {told}. Left behind: {left}."
    )
