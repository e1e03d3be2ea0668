"""A sweep of A2C in one program: seeds and hyperparameters are a population.

The folder's `members.json` has the hyperparameters of each member; `load(folder,
member=3)` takes one of them, and `compare` has a curve for each combination.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random, training
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.errors import at_least
from jaxrl_par.hosts.config import HostsConfig
from jaxrl_par.loops import Learner
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.population import Population, grid, population, random_search
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.training import Trained
from jaxrl_par.types import Agent, Spec, Specs


@dataclass(frozen=True)
class Args(cli.Args):
    """Every combination, or a random search, of learning rates and entropy costs."""

    topologies: ClassVar[tuple[str, ...]] = ("compiled",)

    num_envs: int = 16
    """Environments of each member."""
    num_devices: int = 1
    """Devices that share the members, whose number must be a multiple of it."""
    total_steps: int = 500_000
    """Environment steps of each member, in the mean over the members."""
    num_seeds: int = 2
    """Members for each combination; a random search draws anew for each member."""
    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    """The grid's, or the range of a random search."""
    entropy_costs: tuple[float, ...] = (1e-4, 1e-2)
    """The grid's, or the range of a random search."""
    num_random: int = 0
    """Members of a random search, log-uniform in both ranges. 0 takes the grid."""
    network: NetworkConfig = NetworkConfig(widths=(32, 32))
    a2c: A2CConfig = A2CConfig(gae_lambda=0.95)

    @property
    def num_members(self) -> int:
        """Size of the population."""
        combinations = len(self.learning_rates) * len(self.entropy_costs)
        return self.num_random or combinations * self.num_seeds

    def problems(self) -> list[str]:
        """What is out of range."""
        found = cli.Args.problems(replace(self, num_devices=1, hosts=HostsConfig()))
        if self.hosts.is_given:
            found.append("hosts: a sweep is of one process: give each seeds of its own")
        found += at_least(self, num_seeds=1, num_random=0, num_devices=1)
        for name in ("learning_rates", "entropy_costs"):
            values = getattr(self, name)
            if not values or min(values) <= 0:
                found.append(f"{name} must be numbers above 0, got {values}")
        if not found and self.num_members % self.num_devices:
            found.append(
                f"num_devices must divide the {self.num_members} members, got"
                f" {self.num_devices}"
            )
        return found


def make_agent(
    args: Args, specs: tuple[Specs, Spec], optimizer: optax.GradientTransformation
) -> Agent:
    """What each member is, but for its hyperparameters."""
    return a2c(actor_critic(*specs, args.network), optimizer, args.a2c)


def members(args: Args) -> Population:
    """One A2C for each row of hyperparameters, all in one program."""
    env = args.make_env(args.num_envs)

    def make_program(values):
        own = replace(args.a2c, entropy_cost=values["entropy_cost"])
        rate = replace(args.optimizer, learning_rate=values["learning_rate"])
        agent = make_agent(replace(args, a2c=own), env.specs, args.make_optimizer(rate))
        return compiled(args.make_learner(agent), env, args.unroll_length)

    if args.num_random:
        low_high = [(min(x), max(x)) for x in (args.learning_rates, args.entropy_costs)]
        rows = random_search(
            random.key(args.seed),
            args.num_random,
            learning_rate=low_high[0],
            entropy_cost=low_high[1],
        )
    else:
        rows = grid(
            learning_rate=args.learning_rates,
            entropy_cost=args.entropy_costs,
            seed=range(args.seed, args.seed + args.num_seeds),
        )
    mesh = None if args.num_devices == 1 else data_mesh(args.num_devices)
    return population(make_program, rows, mesh)


def train(args: Args, learner: Learner) -> Trained:
    """Trains all members, evaluates each, and shows them from the best on."""
    sweep = members(args)
    env = args.make_env(args.training.evaluation_envs)
    play = training.evaluator(learner.actor, env, args.training.evaluation_episodes)

    @jax.jit
    def scores(run):
        play_all = jax.vmap(play, in_axes=(0, None))
        results = play_all(learner.params(run.learner), random.key(args.seed))
        return results.returns.mean(axis=(1, 2))

    def evaluate(run):
        return {"best_return": float(scores(run).max())}

    trained = training.train(
        sweep.program,
        args,
        args.training,
        key=random.key(args.seed),
        total_env_steps=args.total_steps * args.num_members,
        steps_per_update=args.rows_per_update * args.num_members,
        evaluate=evaluate,
        default_name=f"sweep-{args.env_name}",
    )
    returns = np.asarray(scores(trained.run))
    if args.training.gif:
        best = sweep.best(trained.run, returns).run
        cli.draw(args, learner, trained._replace(run=best))
    table = Table("member", "learning rate", "entropy cost", "mean return")
    for index in np.argsort(-returns)[:10]:
        values = sweep.member(trained.run, int(index)).hyperparameters
        rate, cost = values["learning_rate"], values["entropy_cost"]
        table.add_row(str(index), f"{rate:.2e}", f"{cost:.2e}", f"{returns[index]:.1f}")
    Console().print(table)
    return trained


EXPERIMENT = cli.Experiment(Args, make_agent, train=train)
