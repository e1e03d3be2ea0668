"""The config of every experiment: environments, budget, topology, and what is wrong.

A script subclasses `Args`, with its own defaults and its algorithm's config, and says
in `topologies` on which of them its learner runs. All that other topologies need is
there too, and refused where it is not for the one that was chosen.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import ClassVar, get_args

import jax
import optax

from jaxrl_par import envs
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.axis import Axis
from jaxrl_par.cli.fields import Flat
from jaxrl_par.cli.problems import (
    endless_problems,
    environments_problems,
    size_problems,
    topology_problems,
)
from jaxrl_par.cli.readers import Topology, readers
from jaxrl_par.envs import Environment, host
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.host import wrappers as host_wrappers
from jaxrl_par.envs.resets import Resets
from jaxrl_par.envs.suites import table
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.errors import (
    at_least,
    at_most,
    either,
    not_a_seed,
    not_chosen,
    refuse_any,
    unread,
)
from jaxrl_par.hosts.config import HostsConfig
from jaxrl_par.loops import Engine, Learner, Program, Run, learner_of
from jaxrl_par.loops.delays import DelaysConfig
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.configs import FleetConfig, ThreadsConfig, WorkersConfig
from jaxrl_par.topologies.gossip import GossipConfig, averaged
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.types import Agent, PRNGKey, Specs

_HIGHEST = {"num_envs": 2**20, "unroll_length": 2**20, "num_devices": 2**20}
_HIGHEST |= {"xla_threads": 1024}
_LOSSES = ("gossip.on_error", "gossip.max_restarts")


@dataclass(frozen=True)
class Args:
    """Environments, budget, topology, network and optimizer of an experiment."""

    topologies: ClassVar[tuple[str, ...]] = get_args(Topology)
    lacks: ClassVar[str] = ""
    """Topologies that the experiment's learner runs on, and why on no others."""
    fleet_of: ClassVar[str] = "threads"
    """What the processes of a fleet do: act, as threads do, or compute gradients, as
    workers. The name of that topology."""
    goes_on: ClassVar[bool] = True
    """Whether episodes go on from one update to the next: else all are played from
    their start, and where later ones begin does not matter."""
    environments: ClassVar[Callable[[int], Environment] | None] = None
    """A script's own, which can be compiled: num_envs -> environments. `env_name` is
    then what they are called, and names none."""
    plays_itself: ClassVar[bool] = False
    """Whether it can learn a game from both sides, where steps are of one player and
    the other in turn: all that it bootstraps is multiplied by discounts, which may be
    -1, and it judges nothing by returns of episodes."""
    simulators: ClassVar[Callable[[int, int], HostEnvironment] | None] = None
    """A script's own, in their place: (num_envs, seed) -> simulators."""

    env_name: str = "CartPole-v1"
    """Name in gymnax, or one of ours, such as IMaze-9x9 or MetaFetch-7x7. For threads,
    workers and a fleet any other name is a simulator's, as Gymnasium, ALE
    ("ALE/Pong-v5") or EnvPool register it."""
    backend: host.Backend | None = None
    """What steps simulators: `envs.host.make` describes the choices. With one, every
    name is a simulator's, "CartPole-v1" too."""
    seed: int = 0
    topology: Topology = "compiled"
    """compiled: one program acts and learns in turn. delayed: one program, in which
    gradients come as late as `delays` says. threads: actors act while a learner learns.
    workers: threads that share parameters, as fast as they are. gossip: learners with
    parameters of their own, which they average with a few others. fleet: threads or
    workers in other processes, with the settings of the one or the other."""
    num_devices: int = 1
    """For compiled, threads and fleet: devices that share what is learned from, and
    average their gradients; those of all processes together, if there are several. For
    gossip: 1, or one for each learner."""
    num_envs: int = 32
    """Environments of all devices, actors, workers or learners together."""
    unroll_length: int = 32
    """Steps of each environment for an update."""
    total_steps: int = 1_000_000
    """Environment steps, as the metrics count them: training ends with the update
    that reaches them. Rates that are annealed are 0 there. Rows that only show the end
    of an episode are learned from, too, and are no steps."""
    xla_threads: int = 0
    """Threads that XLA computes with on CPU. 0: one for a single program of small
    matrix products, else as many as there are processors."""
    show_previous: bool = False
    """Show the previous action and reward with each observation."""
    masked: bool = False
    """Simulators tell in `info["action_mask"]` which actions there are, and no others
    are chosen. Pure environments show their masks by themselves."""
    resets: Resets = Resets()
    """Of pure environments by name, where they are trained in; evaluations have fresh
    resets."""
    normalize: bool = False
    """Normalise observations by their running mean and standard deviation."""
    repeat: str | None = None
    """The schedule.jsonl of a run with these settings, of workers, of learners that
    gossip in processes at their own pace, or of threads with the free schedule: it is
    repeated in one thread, bit for bit, but for hogwild. With
    threads.keep_unrolls nothing is acted: the unrolls are read that the run kept."""
    optimizer: OptimizerConfig = OptimizerConfig()
    network: NetworkConfig = NetworkConfig()
    threads: ThreadsConfig = ThreadsConfig()
    workers: WorkersConfig = WorkersConfig()
    """Their number and what becomes of stale or outlying gradients are those of delayed
    too."""
    delays: DelaysConfig = DelaysConfig()
    """Of delayed, and of gossip in one process where pace = own."""
    gossip: GossipConfig = GossipConfig()
    in_processes: bool = False
    """For gossip: each learner in a process of its own, by Ray, as `fleet` says."""
    hosts: HostsConfig = HostsConfig()
    fleet: FleetConfig = FleetConfig()
    training: Flat[TrainingConfig] = TrainingConfig()

    @property
    def system(self) -> str:
        """The topology, or of a fleet that whose system it runs."""
        return self.fleet_of if self.topology == "fleet" else self.topology

    @property
    def shares_data(self) -> bool:
        """For delayed: whether workers have one replay, and not one each."""
        return False

    @property
    def rows_per_update(self) -> int:
        """Rows that a step of training learns from: its most environment steps. For
        workers and delayed it is the gradient of one worker."""
        return self.lanes * self.unroll_length

    def largest_product(self) -> int:
        """Multiplications of the largest matrix product in a gradient. Observations
        count where the name says that they are pictures: to make them starts XLA."""
        return self.product_of(self.network)

    def product_of(self, network: NetworkConfig) -> int:
        """`largest_product` of one network."""
        rows, width = self.rows_per_update, max(network.widths, default=1)
        inputs = 400 if self.env_name.endswith("-MinAtar") else 1
        products = [rows * width * max(width, inputs)]
        if network.memory == "gtrxl":
            products.append(4 * rows * network.memory_width**2)
        elif network.memory != "none":
            # Step by step: inputs and memory to four gates.
            products.append(8 * self.lanes * network.memory_width**2)
        return max(products)

    @property
    def max_updates(self) -> int:
        """The most steps of training that the budget allows: every other row, at least,
        is an environment step. Not for whole episodes."""
        return 2 * math.ceil(self.total_steps / self.rows_per_update) + 1

    @property
    def is_annealed(self) -> bool:
        """Whether what is learned depends on how long the run is to be: a rate that is
        annealed ends with it, and so does a schedule that is made before."""
        configs = [getattr(self, field.name) for field in fields(self)]
        optimizers = [x for x in configs if isinstance(x, OptimizerConfig)]
        return any(x.anneal for x in optimizers) or self.in_turns

    @property
    def in_turns(self) -> bool:
        """Whether a schedule of turns, an array, is made before the run."""
        paced = self.is_at_own_pace and not self.in_processes
        return self.topology == "delayed" or paced

    @property
    def is_at_own_pace(self) -> bool:
        """Whether learners gossip, each when it is done."""
        return self.topology == "gossip" and self.gossip.pace == "own"

    @property
    def lanes(self) -> int:
        """Environments that a step of training learns from."""
        if self.topology in ("compiled", "gossip") and not self.is_at_own_pace:
            return self.num_envs
        if self.system == "threads":
            return self.threads.batch * self.envs_each
        if self.topology == "delayed":
            return (self.delays.quorum or 1) * self.envs_each
        return self.envs_each

    @property
    def envs_each(self) -> int:
        """Environments of each device, actor or worker."""
        return self.num_envs // self.shared_by[1]

    @property
    def shared_by(self) -> tuple[str, int]:
        """Who has environments of its own, and how many of them there are."""
        if self.topology == "compiled":
            return "num_devices", self.num_devices
        if self.system == "threads":
            return "threads.num_actors", self.threads.num_actors
        if self.topology == "gossip":
            return "gossip.num_learners", self.gossip.num_learners
        return "workers.num_workers", self.workers.num_workers

    @property
    def owns_environments(self) -> bool:
        """Whether the script makes environments itself, and not by name."""
        return not (self.environments is None and self.simulators is None)

    @property
    def is_pure(self) -> bool:
        """Whether environments can be compiled, and are no simulators."""
        if self.owns_environments:
            return self.environments is not None
        return self.backend is None and envs.is_name(self.env_name)

    def make_env(self, num_envs: int) -> Environment:
        """So many pure environments, as the agent is to see them."""
        make = self.environments or partial(envs.make, self.env_name)
        return self._shown(make(num_envs))

    def training_env(self, num_envs: int) -> Environment:
        """`make_env`, whose episodes begin as was asked for."""
        if self.resets == Resets():
            return self.make_env(num_envs)
        return self._shown(envs.make(self.env_name, num_envs, resets=self.resets))

    def _shown(self, env: Environment) -> Environment:
        return previous_action_and_reward(env) if self.show_previous else env

    def make_host_env(
        self, key: PRNGKey, num_envs: int | None = None, *, render: bool = False
    ) -> HostEnvironment:
        """Simulators, or pure environments behind their contract, as the agent is to
        see them; by default those of an actor or worker. To `render` they are stepped
        in this thread, unless they are EnvPool's."""
        num_envs = num_envs or self.envs_each
        if self.is_pure:
            return host.from_pure(self.make_env(num_envs), key)
        return self.seeded(num_envs, render=render)(key)

    def seeded(
        self, num_envs: int | None = None, *, render: bool = False
    ) -> host.Seeded:
        """What makes simulators, as `make_host_env`, also where there is no JAX."""
        num_envs = num_envs or self.envs_each
        drawn = render and self.backend != "envpool"
        made_by_name = partial(
            host.make,
            self.env_name,
            backend="auto" if drawn else self.backend or "auto",
            render=drawn,
            info_metrics=self.training.info_metrics,
            masked=self.masked,
        )
        make = partial(self.simulators or made_by_name, num_envs)
        return host.Seeded(
            partial(host_wrappers.showing_previous, make)
            if self.show_previous
            else make
        )

    def specs(self) -> tuple[Specs, Specs]:
        """Specs of observations and actions, from an environment that is closed.

        Raises:
          RefusedError: an evaluation in such environments might never end.
        """
        if self.is_pure:
            return self.make_env(1).specs
        env = self.make_host_env(jax.random.key(self.seed), 1)
        env.close()
        # Of a script's own simulators, the limit is known only now.
        refuse_any(endless_problems(self, env.max_episode_steps))
        return env.specs

    def make_optimizer(
        self, config: OptimizerConfig | None = None
    ) -> optax.GradientTransformation:
        """By default `optimizer`; its rate, if annealed, is 0 at the end of the run."""
        return make_optimizer(config or self.optimizer, self.total_steps)

    def make_learner(self, agent: Agent) -> Learner:
        """How the agent learns: from each trajectory once."""
        return learner_of(self.normalized(agent))

    def normalized(self, agent: Agent) -> Agent:
        """The agent, which sees normalised observations if that was asked for."""
        return normalize_observations(agent) if self.normalize else agent

    def memory_needed(self, learner: Learner) -> str:
        """What the learner's data takes, in a line that a run begins with; empty where
        that is little. Nothing is taken yet.

        Raises:
          RefusedError: it does not fit.
        """
        del learner
        return ""

    def make_program(self, learner: Learner, env: Environment, axis: Axis) -> Program:
        """What a device does with topology = compiled; `env` is its share."""
        return compiled(learner, env, self.unroll_length, axis)

    def make_delayed(self, learner: Learner) -> Program | None:
        """What runs with topology = delayed; None for gradients that come late."""
        del learner

    def make_engine(self, learner: Learner) -> Engine | None:
        """What runs in workers, here or in a fleet; None for those of gradients."""
        del learner

    @property
    def joined(self) -> Callable[[Run], Run] | None:
        """From a run of several learners to one that acts where it is evaluated: of
        those that gossip, one with the mean of their parameters."""
        return averaged if self.topology == "gossip" else None

    @property
    def judged(self) -> "Args":
        """The config of the environments that it is evaluated in: of a game against
        itself, whose returns say nothing, that against an opponent."""
        return replace(self, env_name=table.opposed(self.env_name))

    def played(self) -> "Args":
        """For a run that is not trained any more: what it was logged to and shown need
        not be here."""
        kept = {"wandb": False, "resume": False, "auto_resume": False}
        return replace(self, training=replace(self.training, **kept))

    def problems(self) -> list[str]:
        """What is out of range, or belongs to another topology."""
        counts = {"num_envs": 1, "unroll_length": 1, "total_steps": 1, "xla_threads": 0}
        low = at_least(self, num_devices=1, **counts) + at_most(self, **_HIGHEST)
        found = low + not_a_seed(seed=self.seed)
        if unknown := not_chosen(self):  # all else depends on it
            return found + unknown
        countable = not (low or self.threads.problems() or self.workers.problems())
        found += topology_problems(self) + self.environment_problems()
        return found + (size_problems(self) if countable else [])

    def environment_problems(self) -> list[str]:
        """Environments that there are not, or that the topology cannot step."""
        return environments_problems(self)

    def unread(self, name: str) -> str:
        """What a field, by dotted name, is for; empty if it is read here."""
        who = readers(name)
        if not {self.topology, self.system} & set(who):
            return f"is for topology = {either(who)}, not {self.topology}"
        if name.startswith("resets.") and not self.goes_on:
            return "is for episodes that go on: here each is played from its start"
        if name.startswith("delays.") and not self.in_turns:
            if self.is_at_own_pace:
                return "is not for in_processes, where each is as fast as it is"
            return f"is for gossip.pace = own, not {self.gossip.pace}"
        if name in _LOSSES and not self.in_processes:
            return "is for in_processes"
        gossips, paced = self.topology == "gossip", self.is_at_own_pace
        if name == "repeat" and gossips and not (paced and self.in_processes):
            return "is for in_processes with gossip.pace = own"
        if name.startswith("fleet.") and gossips and not self.in_processes:
            return "is for in_processes"
        return unread(self, name)
