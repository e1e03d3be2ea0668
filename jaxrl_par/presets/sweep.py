"""A sweep of A2C in one program: seeds and hyperparameters are a population.

With `--evolution.interval` its members copy each other, as in `pbt`; with
`--halving.first` those that do badly are frozen, and the best go on alone. The folder's
`members.json` has the hyperparameters of each member at the start; `load(folder,
member=3)` takes one of them, and `compare` has a curve for each combination.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random, training
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.errors import at_least
from jaxrl_par.hosts.config import HostsConfig
from jaxrl_par.loops import Learner, Program, Run
from jaxrl_par.loops.rungs import HalvingConfig, rungs
from jaxrl_par.loops.selection import SelectionConfig
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.evolving import evolving, members_of
from jaxrl_par.topologies.halving import halving
from jaxrl_par.topologies.halving import members_of as halving_members
from jaxrl_par.topologies.population import (
    Hyperparameters,
    Population,
    grid,
    population,
    random_search,
)
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.training import Trained
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(cli.Args):
    """Every combination, or a random search, of learning rates and entropy costs."""

    topologies: ClassVar[tuple[str, ...]] = ("compiled",)
    kind: ClassVar[str] = "sweep"
    """What its folder is called."""

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
    """Members of a random search, log-uniform in all ranges. 0 takes the grid."""
    gammas: tuple[float, ...] = ()
    """The grid's discounts, or the range of a random search, log-uniform in what they
    lack to 1. Empty: all have that of `a2c`."""
    evolution: SelectionConfig = SelectionConfig()
    """Of a random search, whose ranges are the bounds of what is copied."""
    halving: HalvingConfig = HalvingConfig()
    """With it `total_steps` are those of a member that goes on to the end."""
    network: NetworkConfig = NetworkConfig(widths=(32, 32))
    a2c: A2CConfig = A2CConfig(gae_lambda=0.95)

    @property
    def num_members(self) -> int:
        """Size of the population."""
        combinations = len(self.learning_rates) * len(self.entropy_costs)
        combinations *= max(len(self.gammas), 1)
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
        if not all(0 < x < 1 for x in self.gammas):
            found.append(f"gammas must be numbers in (0, 1), got {self.gammas}")
        found += self._evolution_problems()
        found += [] if found else self._halving_problems()
        if not found and self.num_members % self.num_devices:
            found.append(
                f"num_devices must divide the {self.num_members} members, got"
                f" {self.num_devices}"
            )
        return found

    def _evolution_problems(self) -> list[str]:
        interval, every = self.evolution.interval, self.training.log_interval
        if not interval:
            return []
        if not self.num_random:
            return ["evolution.interval is for a random search: give num_random"]
        found = []
        for name in ("learning_rates", "entropy_costs", "gammas"):
            values = getattr(self, name)
            if values and min(values) == max(values):
                found.append(f"{name} needs a range to evolve in, got {values}")
        alone = self.evolution.pace == "own"
        if alone and self.num_devices != 1:
            found.append(
                "num_devices must be 1 for evolution.pace = own, which is data: got"
                f" {self.num_devices}"
            )
        if every and interval % every and not alone:
            found.append(
                f"evolution.interval must be a multiple of log_interval = {every}, so"
                f" that a row of metrics is of the same members, got {interval}"
            )
        return found

    @property
    def num_updates(self) -> int:
        """Steps of training of a member that is trained to the end."""
        return max(self.total_steps // self.rows_per_update, 1)

    @property
    def num_turns(self) -> int:
        """Steps of training of all members, if they take them one at a time."""
        return self.max_updates * self.num_members

    def _halving_problems(self) -> list[str]:
        first, every = self.halving.first, self.training.log_interval
        if not first:
            return []
        found = []
        if self.evolution.interval:
            found.append("halving.first and evolution.interval exclude each other")
        if self.num_devices != 1:
            told = "the members that are left need not be as many on each device"
            found.append(f"num_devices must be 1 for halving: {told}")
        if every and first % every:
            found.append(
                f"halving.first must be a multiple of log_interval = {every}, so that a"
                f" row of metrics is of the same members, got {first}"
            )
        if first >= self.num_updates:
            found.append(
                f"halving.first must be below the {self.num_updates} steps of training"
                f" that total_steps are, got {first}"
            )
        if self.num_members < self.halving.eta:
            found.append(
                f"halving.eta must be at most the {self.num_members} members, got"
                f" {self.halving.eta}"
            )
        return found


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """What each member is, but for its hyperparameters."""
    return a2c(actor_critic(*specs, args.network), optimizer, args.a2c)


def members(args: Args) -> Population:
    """One A2C for each row of hyperparameters, all in one program."""
    env = args.make_env(args.num_envs)

    def make_program(values):
        own = replace(args.a2c, entropy_cost=values["entropy_cost"])
        if args.gammas:
            own = replace(own, gamma=values["gamma"])
        rate = replace(args.optimizer, learning_rate=values["learning_rate"])
        agent = make_agent(replace(args, a2c=own), env.specs, args.make_optimizer(rate))
        return compiled(args.make_learner(agent), env, args.unroll_length)

    mesh = None if args.num_devices == 1 else data_mesh(args.num_devices)
    made = population(make_program, _rows(args), mesh)
    if args.halving.first:
        found = rungs(args.num_members, args.num_updates, args.halving)
        program = halving(made.program, found, window=args.halving.window)
        return _seen(made, program, halving_members)
    if not args.evolution.interval:
        return made
    how = args.evolution
    explore = {
        name: how.explore(min(values), max(values), *scale)
        for name, values, *scale in _ranges(args)
    }
    program = evolving(
        made.program,
        explore,
        interval=how.interval,
        exploit=how.chosen(),
        window=how.window,
        schedule=how.schedule(args.num_members, args.num_turns),
    )
    return _seen(made, program, members_of)


def _seen(
    made: Population, program: Program, members: Callable[[Run], Run]
) -> Population:
    """The population, with another program, in whose run its members are found so."""
    return Population(
        program,
        member=lambda run, index: made.member(members(run), index),
        best=lambda run, scores: made.best(members(run), scores),
    )


def _ranges(args: Args) -> list[tuple[Any, ...]]:
    """Name, values and, where it is not log, scale of the hyperparameters."""
    found: list[tuple[Any, ...]] = [
        ("learning_rate", args.learning_rates),
        ("entropy_cost", args.entropy_costs),
    ]
    return found + ([("gamma", args.gammas, "discount")] if args.gammas else [])


def _rows(args: Args) -> Hyperparameters:
    """Hyperparameters of all members."""
    if not args.num_random:
        choices = {name: values for name, values, *_ in _ranges(args)}
        return grid(**choices, seed=range(args.seed, args.seed + args.num_seeds))
    ranges = {}
    for name, values, *scale in _ranges(args):
        low, high = min(values), max(values)
        ranges[name] = (1 - high, 1 - low) if scale else (low, high)
    drawn = random_search(random.key(args.seed), args.num_random, **ranges)
    return {n: 1 - x if n == "gamma" else x for n, x in drawn.items()}


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

    alone = bool(args.evolution.interval) and args.evolution.pace == "own"
    budget: dict[str, Any] = {
        "total_env_steps": args.total_steps * args.num_members,
        "steps_per_update": args.rows_per_update * (1 if alone else args.num_members),
    }
    if args.halving.first:
        budget = {"num_updates": args.num_updates}
    trained = training.train(
        sweep.program,
        args,
        args.training,
        key=random.key(args.seed),
        **budget,
        evaluate=evaluate,
        default_name=f"{args.kind}-{cli.in_a_path(args.env_name)}",
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
