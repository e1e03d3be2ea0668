"""`jaxrl-par report`: the page of a run, written again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxrl_par.cli.config import parse_words
from jaxrl_par.training.comparison import to_json
from jaxrl_par.training.directory import RunDirectory
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.loaded import preset_of
from jaxrl_par.training.pages import write_report


@dataclass(frozen=True)
class ReportArgs:
    """Writes report.html into the FOLDER of a run, finished or not: curves, where the
    time went, what differs from the defaults, versions. It needs no network."""


def report_command(argv: Sequence[str]) -> None:
    """Writes the page that a command line asks for.

    Raises:
      SystemExit: the command line is wrong.
      TrainingError: the folder is none of a run, or cannot be written to.
    """
    folders, _ = parse_words(ReportArgs, argv, "jaxrl-par report", "FOLDER ...")
    for folder in folders:
        print(write_report(folder, _defaults(RunDirectory(Path(folder)))))


def _defaults(directory: RunDirectory) -> dict[str, Any] | None:
    """Of the preset that the folder names; None where it names none."""
    try:
        preset: Any = preset_of(directory)
        return to_json(preset.config())
    except (OSError, TrainingError):
        return None  # the page says what of the folder cannot be read
