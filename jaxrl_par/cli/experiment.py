"""What a run is made of, as a value: to be started by name, loaded and played."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxrl_par.cli.args import Args
from jaxrl_par.cli.place import MakeAgent, compose
from jaxrl_par.cli.run import train
from jaxrl_par.loops import Learner
from jaxrl_par.training import Trained
from jaxrl_par.training.provenance import experiment_name


class Experiment(NamedTuple):
    """Settings, and what learns with them.

    experiment = Experiment(Args, make_agent)
    trained = experiment.run(Args(num_envs=8))  # or cli.launch(experiment)
    """

    config: type[Args]
    make_agent: MakeAgent
    leave: Callable[[Any, Learner, Trained], None] = lambda *_: None
    """(args, learner, trained): writes what a run leaves besides, such as an actor."""

    @property
    def name(self) -> str:
        """That of the preset or script, as `config.json` has it."""
        return experiment_name(self.config)

    def run(self, args: Args) -> Trained:
        """Composes what the settings ask for, and trains it.

        Raises:
          TrainingError, Interrupted: as `compose` and `train`.
        """
        learner = compose(args, self.make_agent)
        trained = train(args, learner)
        self.leave(args, learner, trained)
        return trained
