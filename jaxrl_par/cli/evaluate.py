"""`jaxrl-par evaluate`: a run from its folder, evaluated and perhaps filmed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxrl_par import training
from jaxrl_par.cli.entry import configure_jax, in_sentences
from jaxrl_par.errors import RefusedError
from jaxrl_par.training import TrainingError, video


@dataclass(frozen=True)
class EvaluateArgs:
    """Plays a run of a preset, in the environments that it was trained in."""

    folder: tyro.conf.Positional[Path]
    """That of the run."""
    checkpoint: str = "newest"
    """newest, best (by evaluation, where the run kept it), or the number of an
    update."""
    member: int | None = None
    """Of a population, counted from 0."""
    film: Path | None = None
    """Write a greedy episode there, as .gif, or as .mp4 where there is an encoder."""


def evaluate_command(argv: Sequence[str] | None = None) -> None:
    """Prints the results of the run that a command line names.

    Raises:
      SystemExit: code 2 if the command line is wrong, 1 if the run cannot be loaded or
        filmed; the error was printed.
    """
    args = tyro.cli(EvaluateArgs, args=argv, prog="jaxrl-par evaluate")
    with in_sentences(TrainingError, RefusedError):
        configure_jax()
        if args.film is not None:
            video.check_name(args.film)
        named = args.checkpoint
        checkpoint = int(named) if named.isdecimal() else named
        with training.load(
            args.folder, checkpoint=checkpoint, member=args.member
        ) as run:
            print(f"{run.path}, after update {run.update:,}:")
            for name, result in run.evaluate().items():
                print(f"  {name.replace('_', ' '):20} {result:.1f}")
            if args.film is not None:
                run.play(args.film)
                print(f"  {'film':20} {args.film}")
