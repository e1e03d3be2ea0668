"""All metrics that modules of this package declare, with their units and meanings.

    python -m jaxrl_par.training.metrics

A row of metrics.jsonl has those of the loop that trains, of the algorithm, of where it
ran, and of evaluations.
"""

import pkgutil
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib import import_module

from rich.console import Console
from rich.table import Table

from jaxrl_par.measured import Metric


def declared(package: str = "jaxrl_par") -> dict[str, dict[str, Metric]]:
    """By module, the metrics that it records; imports all modules of the package."""
    found = {name: import_module(name) for name in _modules(package)}
    metrics = {name: getattr(module, "METRICS", {}) for name, module in found.items()}
    return {name: known for name, known in metrics.items() if known}


def undeclared(names: set[str]) -> set[str]:
    """Of these names of a row, those that nobody declares."""
    known = {pattern for module in declared().values() for pattern in module}
    return {x for x in names if not any(fnmatchcase(x, pattern) for pattern in known)}


def unit_of(name: str) -> str | None:
    """That of a metric, None if no loaded module declares it or they differ."""
    loaded = [x for name, x in list(sys.modules.items()) if name.startswith("jaxrl_")]
    known = [x for module in loaded for x in getattr(module, "METRICS", {}).items()]
    exact = {metric.unit for pattern, metric in known if pattern == name}
    alike = {metric.unit for pattern, metric in known if fnmatchcase(name, pattern)}
    units = exact or alike
    return units.pop() if len(units) == 1 else None


def _modules(package: str) -> Iterator[str]:
    paths = import_module(package).__path__
    for found in pkgutil.walk_packages(paths, f"{package}."):
        if not found.name.endswith("__main__"):
            yield found.name


def main() -> None:
    """Prints a table for each module."""
    console = Console()
    for module, metrics in declared().items():
        table = Table("metric", "unit", "meaning", title=module, title_justify="left")
        for name, metric in metrics.items():
            table.add_row(name, *metric)
        console.print(table)


if __name__ == "__main__":
    main()
