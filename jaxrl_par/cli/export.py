"""`jaxrl-par export`: what acts in a run, as a folder that acts without it."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from jaxrl_par import export, training
from jaxrl_par.cli.config import parse_words
from jaxrl_par.cli.entry import configure_jax
from jaxrl_par.training.interrupts import exits


@dataclass(frozen=True)
class ExportArgs:
    """Writes what acts in the run of a FOLDER: NumPy's form, StableHLO and ONNX."""

    to: Path | None = None
    """Where; by default into `actor` in the folder of the run."""
    onnx: bool = False
    """Write it as ONNX too, which the extra of that name does."""
    checkpoint: str = "newest"
    """newest, best (by evaluation, where the run kept it), or the number of an
    update."""
    member: int | None = None
    """Of a population, counted from 0; or a learner that gossips, by default the mean
    of all."""

    def problems(self) -> list[str]:
        """What is missing."""
        if self.onnx and find_spec("onnx") is None:
            return ["onnx is not installed: pip install 'jaxrl-par[onnx]'"]
        return []


def export_command(argv: Sequence[str], program: str = "jaxrl-par export") -> None:
    """Writes the folder of an actor, and prints where.

    Args:
      program: how the help calls the command.

    Raises:
      SystemExit: the command line is wrong.
      TrainingError, RefusedError: the run cannot be loaded, or its actor not exported.
      Interrupted: a signal came.
    """
    (folder,), args = parse_words(ExportArgs, argv, program, "FOLDER")
    with exits():
        configure_jax()
        named = args.checkpoint
        checkpoint = int(named) if named.isdecimal() else named
        with training.load(folder, checkpoint=checkpoint, member=args.member) as run:
            path = export.write_run(run, args.to, onnx=args.onnx)
            print(f"{path}, after update {run.update:,}")
