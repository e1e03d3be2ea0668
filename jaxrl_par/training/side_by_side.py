"""Runs side by side: how they ended, their curves, and what differs in their configs.

Runs whose configs differ in nothing but the seed, and in how they are kept, are seeds
of one group. A population's members count as a seed each, at an equal share of its
environment steps; those that differ in more are groups of their own.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxrl_par.training import plots
from jaxrl_par.training.comparison import differences
from jaxrl_par.training.directory import RunDirectory
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.intervals import Interval, interval
from jaxrl_par.training.readings import Reading, read

_POINTS = 100
"""Of a curve."""
_WIDTH = 28
"""The longest value in a table."""


class Group(NamedTuple):
    """Runs that differ in their seeds."""

    name: str
    """The folder of the first."""
    runs: tuple[Reading, ...]

    @property
    def environment(self) -> str:
        return str(self.runs[0].config.get("env_name", ""))

    @property
    def num_seeds(self) -> int:
        return sum(len(run.values) for run in self.runs)

    @property
    def end(self) -> Interval:
        """The metric over the last tenth of the rows that each seed has it in, [1]."""
        known = (x[np.isfinite(x)] for run in self.runs for x in run.values)
        return interval(np.array([[x[-max(len(x) // 10, 1) :].mean()] for x in known]))

    @property
    def evaluation(self) -> dict[str, Interval]:
        """The results, [1], of final evaluations, where all runs have them."""
        results = [run.evaluation for run in self.runs]
        return {
            name: interval(np.array([[x[name]] for x in results]))
            for name in results[0]
            if all(name in x for x in results)
        }

    @property
    def curve(self) -> tuple[Float[np.ndarray, " G"], Interval]:
        """Environment steps of a grid, and the metric there, by straight lines.

        It goes from where the last of the seeds begins to where the first ends, so that
        all its points are of the same seeds; it is empty where there is no such step.
        """
        both = [(run.steps, x) for run in self.runs for x in run.values]
        known = [(steps[np.isfinite(x)], x[np.isfinite(x)]) for steps, x in both]
        begin = max(steps[0] for steps, _ in known)
        end = min(steps[-1] for steps, _ in known)
        grid = np.linspace(begin, end, _POINTS if begin <= end else 0)
        return grid, interval(np.stack([np.interp(grid, *curve) for curve in known]))


@dataclass(frozen=True)
class Comparison:
    """Several groups of runs."""

    metric: str
    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    """What was left out, and what a reader should know, in a sentence each."""

    @property
    def differences(self) -> dict[str, tuple[Any, ...]]:
        """For each field that differs, by dotted name, the value in each group."""
        first, *others = (group.runs[0].config for group in self.groups)
        pairs = [differences(first, other) for other in others]
        old = {name: before for pair in pairs for name, (before, _) in pair.items()}
        return {
            name: (before, *(pair.get(name, (before, before))[1] for pair in pairs))
            for name, before in old.items()
        }

    def text(self) -> str:
        """The notes, a table of ends, and one of what differs."""
        parts = [*self.notes, _aligned(self.ends())]
        if different := self.differences:
            named = ["", *(group.name for group in self.groups)]
            rows = [[name, *map(_shortened, x)] for name, x in different.items()]
            parts.append("What differs:\n" + _aligned([named, *rows]))
        return "\n\n".join(parts)

    def draw(self, path: str | Path) -> None:
        """Writes the curves as a picture, with a panel for each environment.

        Raises:
          RefusedError: the name does not end as a picture's.
          TrainingError: it cannot be written there; an old one is as it was.
        """
        panels: dict[str, list[plots.Band]] = {}
        for group in self.groups:
            label = f"{group.name} ({_seeds(group.num_seeds)})"
            band = plots.Band(label, *group.curve)
            panels.setdefault(group.environment, []).append(band)
        plots.draw_bands(panels, Path(path), self.metric)

    def ends(self) -> list[list[str]]:
        """A table of how the groups ended, with a row of titles."""
        results = [group.evaluation for group in self.groups]
        named = list(dict.fromkeys(name for x in results for name in x))
        titles = ["", "environment", "seeds", self.metric, *named]
        titles = [*titles, "steps", "steps/s", "hours"]
        rows = [
            [
                group.name,
                group.environment,
                str(group.num_seeds),
                _spelled(group.end),
                *(_spelled(x[n]) if n in x else "-" for n in named),
                _mean([run.env_steps for run in group.runs], ",.0f"),
                _mean([_rate(run) for run in group.runs], ",.0f"),
                _mean([run.seconds / 3600 for run in group.runs], ".2f"),
            ]
            for group, x in zip(self.groups, results, strict=True)
        ]
        return [[title.replace("_", " ") for title in titles], *rows]


def compare(
    folders: str | Path | Iterable[str | Path], metric: str = "episode_return"
) -> Comparison:
    """Reads runs, finished or not, and puts seeds of the same experiment together.

    What cannot be read is left out, and said in the notes.

    Args:
      folders: those of runs, or folders that have those of runs in them, or one.
      metric: one that `metrics.jsonl` has.

    Raises:
      TrainingError: no run is left.
    """
    notes: list[str] = []
    runs: list[Reading] = []
    if isinstance(folders, str | Path):
        folders = [folders]
    for path in _run_folders([Path(folder) for folder in folders]):
        try:
            runs += read(path, metric)
        except TrainingError as error:
            notes.append(f"Left out: {error}")
    if not runs:
        told = "".join(f"\n  {note}" for note in notes) or " no folder was given"
        raise TrainingError(f"there is nothing to compare:{told}")
    notes += [note for run in runs for note in run.notes]
    names = Counter(path.name for path in {run.path for run in runs})
    grouped: dict[str, list[Reading]] = {}
    for run in _distinct(runs, notes):
        grouped.setdefault(json.dumps(run.config, sort_keys=True), []).append(run)
    groups = []
    for seeds in grouped.values():
        path, members = seeds[0].path, seeds[0].members
        name = path.name if names[path.name] == 1 else str(path)
        name = f"{name}: {members}" if members else name
        groups.append(Group(name, tuple(seeds)))
    notes += [note for group in groups for note in _noticed(group)]
    if len(environments := {group.environment for group in groups}) > 1:
        listed = ", ".join(sorted(environments))
        notes.append(f"These are of several environments, a panel each: {listed}")
    return Comparison(metric, tuple(groups), tuple(notes))


def _run_folders(paths: Sequence[Path]) -> Iterator[Path]:
    """Each folder once; in place of one without a config, those of runs in it."""
    seen = set()
    for path in paths:
        inside = [path]
        if not RunDirectory(path).config.exists():
            inside = sorted(x.parent for x in path.glob("*/config.json")) or [path]
        for found in inside:
            if found.resolve() not in seen:
                seen.add(found.resolve())
                yield found


def _distinct(runs: Sequence[Reading], notes: list[str]) -> Iterator[Reading]:
    """Runs without copies of others, which would make intervals too narrow."""
    first: dict[str, Path] = {}
    for run in runs:
        if run.state is not None and run.state in first:
            notes.append(
                f"Left out: {run.path} ended in the same bits as {first[run.state]}"
            )
        else:
            if run.state is not None:
                first[run.state] = run.path
            yield run


def _noticed(group: Group) -> Iterator[str]:
    """What a reader of its numbers should know."""
    seeds = Counter(json.dumps(run.seed) for run in group.runs)
    for seed, count in seeds.items():
        if count > 1:
            yield f"{group.name}: {count} runs have the seed {seed}, and count as many"
    populations = [run for run in group.runs if len(run.values) > 1 and not run.members]
    if members := sum(len(run.values) for run in populations):
        yield (f"{group.name}: {members} members of populations count as a seed each")
    last = [float(run.steps[-1]) for run in group.runs]
    if not len(group.curve[0]):
        yield f"{group.name} has no curve: there is no step at which all its seeds are"
    elif min(last) < 0.9 * max(last):
        shortest = group.runs[last.index(min(last))].path
        yield f"{group.name}: its curve ends at {min(last):,.0f} steps, as {shortest}"


def _rate(run: Reading) -> float:
    return run.env_steps / run.seconds if run.seconds > 0 else math.nan


def _mean(values: Sequence[int | float], form: str) -> str:
    mean = sum(values) / len(values)
    return format(mean, form) if math.isfinite(mean) else "-"


def _spelled(ends: Interval) -> str:
    """The mean, and its interval where there are seeds for one."""
    mean, *band = (f"{float(x[0]):.4g}" for x in ends if x is not None)
    return f"{mean} [{', '.join(band)}]" if band else mean


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
