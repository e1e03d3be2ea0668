"""`jaxrl-par compare`: runs side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxrl_par import training


@dataclass(frozen=True)
class CompareArgs:
    """How runs ended, their curves in one picture, and what differs in their configs.

    Runs whose settings differ in the seed alone are one curve: the interquartile mean,
    with its 95 % bootstrap interval as a band."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Those of runs, finished or not, or folders that have those of runs in them."""
    metric: str = "episode_return"
    """Which of the metrics to compare."""
    out: Path = Path("comparison.png")
    """The picture; one that is there is replaced."""


def compare_command(argv: Sequence[str] | None = None) -> None:
    """Prints the comparison that a command line asks for, and draws it.

    Raises:
      SystemExit: the command line is wrong.
      TrainingError: no run can be compared, or the picture cannot be written.
    """
    args = tyro.cli(CompareArgs, args=argv, prog="jaxrl-par compare")
    comparison = training.compare(args.folders, args.metric)
    print(comparison.text())
    comparison.draw(args.out)
    print(f"\nCurves: {args.out}")
