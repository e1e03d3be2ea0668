"""`jaxrl-par compare`: runs side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrl_par import training
from jaxrl_par.cli.config import parse_words
from jaxrl_par.errors import either
from jaxrl_par.training.pages import write_comparison
from jaxrl_par.training.plots import ENDS


@dataclass(frozen=True)
class CompareArgs:
    """How runs ended, their curves in one picture, and what differs in their configs.

    Each FOLDER is that of a run, finished or not, or has those of runs in it. Runs
    whose settings differ in the seed alone are one curve: the interquartile mean, with
    its 95 % bootstrap interval as a band."""

    metric: str = "episode_return"
    """Which of the metrics to compare."""
    out: Path = Path("comparison.png")
    """The picture, .jpg, .pdf, .png or .svg, or with the end .html a page with the
    tables besides; one that is there is replaced."""

    def problems(self) -> list[str]:
        """What cannot be written."""
        ends = (".html", *ENDS)
        if self.out.suffix.lower() in ends:
            return []
        return [f"out must end in {either(ends)}, got {self.out}"]


def compare_command(argv: Sequence[str]) -> None:
    """Prints the comparison that a command line asks for, and draws it.

    Raises:
      SystemExit: the command line is wrong.
      TrainingError: no run can be compared, or the picture cannot be written.
    """
    folders, args = parse_words(CompareArgs, argv, "jaxrl-par compare", "FOLDER ...")
    comparison = training.compare(folders, args.metric)
    print(comparison.text())
    if args.out.suffix.lower() == ".html":
        write_comparison(comparison, args.out)
    else:
        comparison.draw(args.out)
    print(f"\nCurves: {args.out}")
