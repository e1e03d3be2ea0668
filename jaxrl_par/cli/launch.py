"""Starts an experiment: to train, or to play what it has trained."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxrl_par.cli.entry import main, sentences
from jaxrl_par.cli.evaluate import evaluate_command
from jaxrl_par.cli.experiment import Experiment
from jaxrl_par.training.output import lasting_output

_EVALUATE = "--evaluate"
_ABOUT = (
    "--evaluate FOLDER plays a run of this experiment once more, and trains nothing;"
    " with --help it lists its options."
)


def launch(
    experiment: Experiment,
    argv: Sequence[str] | None = None,
    program: str | None = None,
) -> None:
    """Runs an experiment with the settings of the command line. As `main`.

    With `--evaluate FOLDER` it is `jaxrl-par evaluate FOLDER`, for runs of this
    experiment, which need not be a preset.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    words = [word.partition("=") for word in argv]
    names = [name for name, *_ in words]
    if _EVALUATE not in names:
        main(experiment.run, experiment.config, argv, program, _ABOUT)
        return
    place = names.index(_EVALUATE)
    _, equals, folder = words[place]
    argv[place : place + 1] = [folder] if equals else []
    called = f"{program or Path(sys.argv[0]).name} {_EVALUATE}"
    with lasting_output(), sentences():
        evaluate_command(argv, experiment, called)
