"""What a run is made of, as a value: to be started by name, loaded and played."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tyro.conf import OmitArgPrefixes

from jaxrl_par.cli.args import Args
from jaxrl_par.cli.files import ConfigError, over
from jaxrl_par.cli.place import MakeAgent, compose
from jaxrl_par.cli.run import evaluations, train
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.errors import RefusedError, problems, refuse
from jaxrl_par.hosts.collective import leads
from jaxrl_par.loops import Learner, Run
from jaxrl_par.training import Trained
from jaxrl_par.training.comparison import to_json
from jaxrl_par.training.decoration import harmless
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.pages import write_report
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
    train: Callable[[Any, Learner], Trained] = train
    """(args, learner): by default trains that learner where the settings say."""

    @property
    def name(self) -> str:
        """That of the preset or script, as `config.json` has it."""
        return experiment_name(self.config)

    def on(
        self,
        name: str,
        *,
        environments: Callable[[int], Environment] | None = None,
        simulators: Callable[[int, int], HostEnvironment] | None = None,
    ) -> "Experiment":
        """The experiment in environments of one's own, which are called so.

        Args:
          environments: num_envs -> environments that can be compiled; or else
          simulators: (num_envs, seed) -> simulators, for threads and workers.

        Raises:
          RefusedError: both were given, or neither.
        """
        given = [x for x in (environments, simulators) if x is not None]
        if len(given) != 1:
            raise RefusedError("on takes environments or simulators, one of the two")
        fields = {
            "__doc__": self.config.__doc__,
            # Of whom the run will say that it is.
            "__module__": getattr(given[0], "__module__", "__main__"),
            "__annotations__": {"env_name": str},
            "env_name": name,
            "environments": environments and staticmethod(environments),
            "simulators": simulators and staticmethod(simulators),
        }
        made = type(self.config.__name__, (self.config,), fields)
        return self._replace(config=dataclass(frozen=True)(made))

    def settings(self, path: Path) -> Args:
        """Those in the `config.json` of a run, to be loaded and not to be resumed.
        Fields that it lacks have the experiment's defaults.

        Raises:
          ConfigError: the file is none, or of another experiment, or is wrong.
        """
        wrong: list[str] = []
        args = over(self.config(), path, wrong)
        if not wrong:
            args = args.played()
            wrong = problems(args, unnamed=OmitArgPrefixes)
        if wrong:
            raise ConfigError(str(path), wrong)
        return args

    def learner(self, args: Args) -> Learner:
        """What learns. Raises as `compose`."""
        return compose(args, self.make_agent)

    def evaluations(
        self, args: Args, learner: Learner
    ) -> Callable[[Run], dict[str, float]]:
        """As `train` evaluates."""
        return evaluations(args, learner)

    def run(self, args: Args) -> Trained:
        """Composes what the settings ask for, and trains it.

        Raises:
          TrainingError: the settings are out of range.
          TrainingError, Interrupted: as `compose` and `train`.
        """
        try:
            refuse(args)
        except RefusedError as error:
            raise TrainingError(str(error)) from error
        learner = self.learner(args)
        trained = self.train(args, learner)
        if leads():
            self.leave(args, learner, trained)
            with harmless("the report"):
                write_report(trained.directory.path, to_json(self.config()))
        return trained
