"""A run from its folder: the agent as it was trained, to be evaluated and played.

run = training.load("runs/ppo-CartPole-v1")
print(run.evaluate())
run.play("episode.gif")
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax

from jaxrl_par import random
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.errors import RefusedError, nearest
from jaxrl_par.loops import Learner, Run, new_run
from jaxrl_par.training import animation, filming
from jaxrl_par.training.checkpoints import BEST, Checkpoints
from jaxrl_par.training.directory import RunDirectory
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import read_object
from jaxrl_par.training.provenance import KEY
from jaxrl_par.training.words import switch, way
from jaxrl_par.types import Agent, Params, PRNGKey, Specs, TimeStep, example

_PRESETS = "jaxrl_par.presets"
"""They stand on this part, which finds them by name, as a plug-in."""


@runtime_checkable
class Settings(Protocol):
    """What settings tell of the environments that a run has; `cli.Args` does."""

    @property
    def is_pure(self) -> bool: ...

    @property
    def seed(self) -> int: ...

    @property
    def joined(self) -> Callable[[Run], Run] | None: ...

    def specs(self) -> tuple[Specs, Specs]: ...

    def make_env(self, num_envs: int) -> Environment: ...

    def make_host_env(
        self, key: PRNGKey, num_envs: int | None = None, *, render: bool = False
    ) -> HostEnvironment: ...


@runtime_checkable
class Experiment(Protocol):
    """What makes a run of its settings once more; `cli.Experiment` does."""

    def settings(self, path: Path) -> Any:
        """Those in a `config.json`, but for what is of the machine that it ran on."""
        ...

    def learner(self, args: Any) -> Learner: ...

    def evaluations(
        self, args: Any, learner: Learner
    ) -> Callable[[Run], dict[str, float]]: ...


class Loaded(AbstractContextManager):
    """A run that is not trained any more."""

    def __init__(
        self, path: Path, update: int, args: Any, learner: Learner, run: Run, evaluate
    ):
        """`run`: without what is local. Users call `load`."""
        self.path = path
        """The folder."""
        self.update = update
        """The update after which it was saved."""
        self.args = args
        """The settings, from `config.json`."""
        self.agent: Agent = learner.actor
        """What acts: `act` samples, `greedy` takes the mode."""
        self.params: Params = learner.params(run.learner)
        """With what it acts."""
        self._run, self._evaluate = run, evaluate
        self._env: Environment | HostEnvironment | None = None

    @property
    def env(self) -> Environment | HostEnvironment:
        """One environment, made as those that it was trained in; `close` closes it."""
        env = self._env
        if env is None and self.args.is_pure:
            env = self.args.make_env(1)
        elif env is None:
            env = self.args.make_host_env(random.key(self.args.seed), 1)
        self._env = env
        return env

    def evaluate(self) -> dict[str, float]:
        """Results by name, those of the run's own evaluation at this update."""
        return self._evaluate(self._run)

    def play(self, path: str | Path, key: PRNGKey | None = None) -> None:
        """Writes a picture that moves of one greedy episode.

        Args:
          path: ends in .gif, or in .mp4 where there is an encoder.
          key: of the episode.

        Raises:
          ValueError: the environment cannot be drawn, or the path ends otherwise.
          TrainingError: the file cannot be written.
        """
        draw_episode(self.args, self.agent, self.params, path, key or random.key(0))

    def close(self) -> None:
        """Closes the environment, if it is a simulator that was made."""
        if isinstance(self._env, HostEnvironment):
            self._env.close()
        self._env = None

    def __exit__(self, *exception: object) -> None:
        self.close()


def load(
    folder: str | Path,
    *,
    experiment: Experiment | None = None,
    checkpoint: str | int = "newest",
    member: int | None = None,
) -> Loaded:
    """The run in a folder, which stays as it is. Memory is that of what was learned.

    Args:
      experiment: what the run was made of; by default the preset that the folder names.
      checkpoint: "newest", "best" by evaluation, or the number of an update.
      member: of a population, or of learners that gossip, counted from 0; without it,
        of these the mean of their parameters acts.

    Raises:
      TrainingError: the folder is none of a run, damaged, of an experiment that is not
        known here, or has no such checkpoint.
    """
    directory = RunDirectory(Path(folder))
    if not directory.config.exists():
        raise _no_run(Path(folder))
    if experiment is None:
        experiment = preset_of(directory)
    best = checkpoint == BEST
    if not best and checkpoint != "newest" and type(checkpoint) is not int:
        raise RefusedError(
            "checkpoint must be 'newest', 'best' or the number of an update, got"
            f" {checkpoint!r}{nearest(str(checkpoint), ['newest', BEST])}"
        )
    if best and not (directory.checkpoints / BEST).exists():
        raise TrainingError(
            f"{folder} has no best checkpoint: {switch('keep_best')} keeps one while a"
            " run trains"
        )
    args = experiment.settings(directory.config)
    learner = experiment.learner(args)
    store = directory.checkpoints / BEST if best else directory.checkpoints
    step = checkpoint if isinstance(checkpoint, int) else None
    with Checkpoints(store, {}, keep=None, read_only=True) as checkpoints:
        given = _like(args, learner), step, member, args.joined
        update, run = checkpoints.restore_learned(*given)
    evaluate = experiment.evaluations(args, learner)
    return Loaded(Path(folder), update, args, learner, run, evaluate)


def written(folder: str | Path) -> dict[str, Any]:
    """What `config.json` says in the folder of a run. Nothing is made of it.

    Raises:
      TrainingError: the folder is none of a run, or the file is damaged.
    """
    directory = RunDirectory(Path(folder))
    if not directory.config.exists():
        raise _no_run(Path(folder))
    return read_object(directory.config)


def draw_episode(
    args: Settings, agent: Agent, params: Params, path: str | Path, key: PRNGKey
) -> None:
    """Writes a greedy episode of the settings' environment. Raises as `Loaded.play`."""
    if args.is_pure:
        animation.animate(agent, args.make_env(1), params, path, key)
        return
    env = args.make_host_env(key, 1, render=True)
    try:
        filming.film(agent, env, params, path, key)
    finally:
        env.close()


def _no_run(folder: Path) -> TrainingError:
    """The error for a path that is not a run's, with runs that may be meant."""
    told = f"{folder} is no folder of a run: it has no config.json"
    inside = sorted(x.parent.name for x in folder.glob("*/config.json"))
    if inside:
        shown = ", ".join(inside[:5]) + ", ..." * (len(inside) > 5)
        return TrainingError(f"{told}. Runs in it: {shown}")
    beside = [x.parent.name for x in folder.parent.glob("*/config.json")]
    return TrainingError(f"{told}{nearest(folder.name, beside)}")


def preset_of(directory: RunDirectory) -> Experiment:
    """The preset that the folder of a run names.

    Raises:
      TrainingError: its config is damaged, or names none.
    """
    about = read_object(directory.config).get(KEY)
    name = about.get("experiment") if isinstance(about, dict) else None
    presets = import_module(_PRESETS)
    if name not in presets.SUMMARIES:
        told = "says no experiment" if name is None else f"is of {name!r}, no preset"
        out = way(
            "start the script that trained it, with --evaluate", "give `experiment`"
        )
        raise TrainingError(f"{directory.config} {told}: {out}")
    return presets.get(name)


def _like(args: Settings, learner: Learner) -> Run:
    """Shapes of a run, without what is local."""
    key, (obs, _) = random.key(0), args.specs()

    def start() -> Run:
        flags = jax.numpy.zeros(1, bool)
        step = TimeStep(example(obs, 1), flags, flags)
        return new_run(learner.init(key, step), (), key)

    return jax.eval_shape(start)
