"""What every experiment does with its learner: training, evaluation, a picture."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from jaxrl_par import random, training
from jaxrl_par.cli.args import Args
from jaxrl_par.cli.place import place
from jaxrl_par.errors import RefusedError
from jaxrl_par.hosts.collective import here, leads
from jaxrl_par.hosts.config import HostsConfig
from jaxrl_par.loops import Learner, Run
from jaxrl_par.training import animation
from jaxrl_par.training.decoration import harmless
from jaxrl_par.training.evaluation import Evaluation, in_pieces, results
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.host_evaluation import host_evaluator, simulators
from jaxrl_par.training.loaded import draw_episode
from jaxrl_par.training.provenance import experiment_name
from jaxrl_par.training.runner import Trained
from jaxrl_par.types import Agent, Params, PRNGKey


def in_a_path(env_name: str) -> str:
    """The name as part of a folder's: without what disks and copies read otherwise."""
    return env_name.replace("/", "-").replace("::", "-")


def train(args: Args, learner: Learner) -> Trained:
    """Trains on the chosen topology, evaluates, and draws an episode where it can. Of
    learners that gossip, the mean of their parameters acts there.

    Raises:
      TrainingError: also if what the learner keeps of its data does not fit.
      TrainingError, Interrupted: as `place` and `training.train`.
    """
    stem = experiment_name(type(args)).removesuffix(".py")
    program = place(args, learner)
    try:
        if told := args.memory_needed(learner):
            print(told)
    except RefusedError as error:
        raise TrainingError(str(error)) from error
    evaluate, join = evaluations(args, learner), args.joined or (lambda run: run)
    trained = training.train(
        program,
        # Who trains it is no part of what it is: others may go on with it.
        replace(args, hosts=HostsConfig()),
        args.training,
        key=random.key(args.seed),
        total_env_steps=args.total_steps,
        steps_per_update=args.rows_per_update,
        evaluate=lambda run: evaluate(join(run)),
        extends=("num_devices",)
        if args.is_annealed
        else ("num_devices", "total_steps"),
        default_name=f"{stem}-{in_a_path(args.env_name)}",
    )
    if args.training.gif and leads():
        draw(args, learner, trained._replace(run=join(trained.run)))
    return trained


def evaluations(args: Args, learner: Learner) -> Callable[[Run], dict[str, float]]:
    """Mean returns of sampled and greedy actions, with the same starts each time, what
    simulators tell of the episodes, and how many were cut, if any were."""
    agent = learner.actor
    agents = {"sampled": agent, "greedy": agent._replace(act=agent.greedy)}
    play = {name: _playing(args, x) for name, x in agents.items()}

    def evaluate(run: Run) -> dict[str, float]:
        run = here(run)
        params, key = learner.params(run.learner), evaluation_key(run)
        played = {name: results(f(params, key)) for name, f in play.items()}
        return {
            f"{n}_{what}": x for n, all in played.items() for what, x in all.items()
        }

    return evaluate


def _playing(args: Args, agent: Agent) -> Callable[[Params, PRNGKey], Evaluation]:
    """An evaluation in the environments of the experiment."""
    settings = args.training
    bounds = settings.evaluation_episodes, settings.evaluation_max_steps
    num_envs = settings.evaluation_envs
    if args.is_pure:
        return in_pieces(agent, args.make_env(num_envs), *bounds)
    limits = (args.threads if args.system == "threads" else args.workers).supervision
    play = host_evaluator(agent, *bounds, limits)

    def simulated(params: Params, key: PRNGKey) -> Evaluation:
        make_env = partial(args.make_host_env, key, num_envs)
        with simulators(make_env, limits) as env:
            return play(env, params, key)

    return simulated


def evaluation_key(run: Run) -> jax.Array:
    """The same at any time of a run, so that evaluations see the same starts."""
    # Training folds millions of updates into the root, which never come to this number.
    return jax.random.fold_in(run.key, np.uint32(0xFFFFFFFF))


def draw(args: Args, learner: Learner, trained: Trained) -> None:
    """A greedy episode into the folder of the run, where it can be drawn."""
    path = trained.directory.animation
    can_draw = not args.is_pure or animation.can_draw(args.make_env(1))
    if can_draw and not path.exists():
        params, key = learner.params(trained.run.learner), evaluation_key(trained.run)
        with harmless("the picture of an episode"):
            draw_episode(args, learner.actor, params, path, key)
