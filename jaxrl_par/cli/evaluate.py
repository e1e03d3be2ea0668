"""`jaxrl-par evaluate`: a run from its folder, evaluated and perhaps filmed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrl_par import training
from jaxrl_par.cli.config import parse_words
from jaxrl_par.cli.entry import configure_jax
from jaxrl_par.cli.experiment import Experiment
from jaxrl_par.training import video
from jaxrl_par.training.interrupts import exits


@dataclass(frozen=True)
class EvaluateArgs:
    """Plays the run of a FOLDER, in the environments that it was trained in."""

    checkpoint: str = "newest"
    """newest, best (by evaluation, where the run kept it), or the number of an
    update."""
    member: int | None = None
    """Of a population, counted from 0; or a learner that gossips, by default the mean
    of all."""
    film: Path | None = None
    """Write a greedy episode there, as .gif, or as .mp4 where there is an encoder."""


def evaluate_command(
    argv: Sequence[str],
    experiment: Experiment | None = None,
    program: str = "jaxrl-par evaluate",
) -> None:
    """Prints the results of the run that a command line names.

    Args:
      experiment: of which the run is; by default the preset that its folder names.
      program: how the help calls the command.

    Raises:
      SystemExit: the command line is wrong.
      TrainingError, RefusedError: the run cannot be loaded, or not be filmed.
      Interrupted: a signal came.
    """
    (folder,), args = parse_words(EvaluateArgs, argv, program, "FOLDER")
    with exits():
        configure_jax()
        if args.film is not None:
            video.check_name(args.film)
        named = args.checkpoint
        checkpoint = int(named) if named.isdecimal() else named
        with training.load(
            folder,
            experiment=experiment,
            checkpoint=checkpoint,
            member=args.member,
        ) as run:
            print(f"{run.path}, after update {run.update:,}:")
            for name, result in run.evaluate().items():
                print(f"  {name.replace('_', ' '):20} {result:.1f}")
            if args.film is not None:
                run.play(args.film)
                print(f"  {'film':20} {args.film}")
