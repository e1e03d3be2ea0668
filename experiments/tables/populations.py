"""Members and tasks."""

from typing import Any

from tables.markdown import shown, table


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


def pbt(data: Any) -> str:
    rows = [(x["method"], x["best"], x["median"], x["means"]) for x in data["rows"]]
    head = ("method", "best member of the seeds", "median", "means of all members")
    return table(head, rows)


def es_references(data: Any) -> str:
    names = "reference_rows", "last", "median_last", "mean"
    head = ("reference rows", "greedy return at the end, seeds", "median")
    rows = [map(x.get, names) for x in data["rows"]]
    return table((*head, "mean of the run"), rows)
