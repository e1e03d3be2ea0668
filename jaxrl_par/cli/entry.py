"""What every experiment does around its algorithm: entry point, run, evaluation."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from jaxrl_par import envs, random
from jaxrl_par.cli.config import parse
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.errors import unknown_name
from jaxrl_par.loops import Engine, Learner, Program, Run, learner_of
from jaxrl_par.training import animation
from jaxrl_par.training.evaluation import evaluator
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.host_evaluation import host_evaluator
from jaxrl_par.training.interrupts import exits
from jaxrl_par.training.runner import Evaluate, Trained, train
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.types import Agent, PRNGKey

Args = TypeVar("Args")
_SCHEDULER = "xla_cpu_enable_concurrency_optimized_scheduler"


def main(run: Callable[[Args], object], config: type[Args]) -> None:
    """Runs an experiment with the config of the command line.

    Raises:
      SystemExit: code 2 if the command line is wrong, 1 if training cannot go on; the
        error was printed. As `Interrupted`, 75 after SIGTERM and 130 after Ctrl-C.
    """
    configure_jax()
    args = parse(config)
    try:
        with exits():
            run(args)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def configure_jax() -> None:
    """Sets what a script wants of JAX, before a device is used.

    Compiled programs are kept in `~/.cache/jaxrl_par`, or where
    JAX_COMPILATION_CACHE_DIR says. On CPU a scheduler is turned off that may deadlock
    in vmapped training. What the user has set stays.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _SCHEDULER not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_SCHEDULER}=false".strip()
    if not jax.config.values["jax_compilation_cache_dir"]:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "jaxrl_par"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def experiment(
    program: Program | Engine,
    learner: Agent | Learner,
    make_env: Callable[[int], Environment],
    args: Any,
    settings: TrainingConfig,
    *,
    seed: int,
    num_updates: int,
) -> Trained:
    """Trains, evaluates, and draws an episode.

    Args:
      make_env: environments to evaluate in, so many as it is asked for.
      args: the whole config, of which `settings` is a field.

    Raises:
      TrainingError, Interrupted: as `train`.
    """
    env, learner = make_env(1), learner_of(learner)
    trained = train(
        program,
        args,
        settings,
        key=random.key(seed),
        num_updates=num_updates,
        evaluate=_evaluations(learner, make_env(settings.evaluation_envs), settings),
        default_name=f"{Path(sys.argv[0]).stem}-{env.name}",
    )
    path = trained.directory.animation
    if settings.gif and animation.can_draw(env) and not path.exists():
        params, key = learner.params(trained.run.learner), evaluation_key(trained.run)
        animation.animate(learner.actor, env, params, path, key)
    return trained


def host_experiment(
    engine: Engine,
    learner: Agent | Learner,
    make_env: Callable[[PRNGKey, int], HostEnvironment],
    args: Any,
    settings: TrainingConfig,
    *,
    env_name: str,
    seed: int,
    num_updates: int,
) -> Trained:
    """Trains and evaluates on simulators, as `experiment` does on pure environments.

    Args:
      make_env: simulators to evaluate in, so many as it is asked for.

    Raises:
      TrainingError, Interrupted: as `train`.
    """
    learner = learner_of(learner)
    return train(
        engine,
        args,
        settings,
        key=random.key(seed),
        num_updates=num_updates,
        evaluate=_host_evaluations(learner, make_env, settings),
        default_name=f"{Path(sys.argv[0]).stem}-{env_name.replace('/', '-')}",
    )


def environment_problems(name: str) -> list[str]:
    """For `Args.problems`: that there is no such environment."""
    if envs.is_name(name):
        return []
    return [f"env_name: {unknown_name('name', name, envs.names())}"]


def _evaluations(
    learner: Learner, env: Environment, settings: TrainingConfig
) -> Evaluate:
    """Mean returns of sampled and greedy actions, with the same starts each time."""
    episodes = settings.evaluation_episodes
    agents = _evaluated(learner.actor)
    play = {n: jax.jit(evaluator(x, env, episodes)) for n, x in agents.items()}

    def evaluate(run: Run) -> dict[str, float]:
        key = evaluation_key(run)
        results = {n: f(learner.params(run.learner), key) for n, f in play.items()}
        return {n: float(x.returns.mean()) for n, x in results.items()}

    return evaluate


def _host_evaluations(
    learner: Learner,
    make_env: Callable[[PRNGKey, int], HostEnvironment],
    settings: TrainingConfig,
) -> Evaluate:
    """Mean returns as of `_evaluations`, in simulators that are made each time."""
    episodes = settings.evaluation_episodes
    play = {
        n: host_evaluator(x, episodes) for n, x in _evaluated(learner.actor).items()
    }

    def evaluate(run: Run) -> dict[str, float]:
        key = evaluation_key(run)
        results = {}
        for name, plays in play.items():
            env = make_env(key, settings.evaluation_envs)
            try:
                returns = plays(env, learner.params(run.learner), key)
            finally:
                env.close()
            results[name] = float(np.mean(returns))
        return results

    return evaluate


def _evaluated(agent: Agent) -> dict[str, Agent]:
    """Who plays in an evaluation, by the name of its result."""
    greedy = agent._replace(act=agent.greedy)
    return {"sampled_return": agent, "greedy_return": greedy}


def evaluation_key(run: Run) -> jax.Array:
    """The same at any time of a run, so that evaluations see the same starts."""
    # Training folds millions of updates into the root, which never come to this number.
    return jax.random.fold_in(run.key, np.uint32(0xFFFFFFFF))
