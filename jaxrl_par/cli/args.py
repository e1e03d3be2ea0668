"""The config of every experiment: environments, budget, topology, and what is wrong.

A script subclasses `Args`, with its own defaults and its algorithm's config, and says
in `topologies` on which of them its learner runs. All that other topologies need is
there too, and refused where it is not for the one that was chosen.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import ClassVar, Literal, get_args

import jax
import optax

from jaxrl_par import envs
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.axis import Axis
from jaxrl_par.cli.fields import Flat
from jaxrl_par.envs import Environment, host
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.host import wrappers as host_wrappers
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.errors import (
    at_least,
    at_most,
    either,
    not_a_seed,
    not_chosen,
    problems,
    refuse_any,
    unknown_name,
    unread,
)
from jaxrl_par.hosts.config import HostsConfig
from jaxrl_par.loops import Engine, Learner, Program, Run, learner_of
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.delayed import DelaysConfig
from jaxrl_par.topologies.fleet import FleetConfig
from jaxrl_par.topologies.gossip import GossipConfig, averaged
from jaxrl_par.topologies.threads import ThreadsConfig
from jaxrl_par.topologies.workers import WorkersConfig
from jaxrl_par.training.comparison import differences, to_json
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.types import Agent, PRNGKey, Spec, Specs

Topology = Literal["compiled", "delayed", "gossip", "threads", "workers", "fleet"]

SIMULATED = ("threads", "workers")
"""Systems that can step simulators, also in a fleet."""
READ_BY: dict[str, tuple[str, ...]] = {
    "backend": SIMULATED,
    "num_devices": ("compiled", "gossip", "threads"),
    # Workers send gradients, and statistics of observations have none.
    "normalize": ("compiled", "delayed", "gossip", "threads"),
    "repeat": SIMULATED,
    "threads": ("threads",),
    "workers": ("workers",),
    "workers.num_workers": ("delayed", "workers"),
    "workers.staleness": ("delayed", "workers"),
    "workers.outliers": ("delayed", "workers"),
    "delays": ("delayed", "gossip"),
    "delays.delay": ("delayed",),
    "delays.storage": ("delayed",),
    "gossip": ("gossip",),
    "hosts": ("compiled",),
    "fleet": ("fleet",),
}
"""Who reads a field or a part, if not all topologies do; the longest name decides. A
fleet reads what the system reads that it runs: see `Args.fleet_of`."""
_HIGHEST = {"num_envs": 2**20, "unroll_length": 2**20, "num_devices": 2**20}
_HIGHEST |= {"xla_threads": 1024}
_MOST_ROWS = 2**27  # a row has tens of bytes, or thousands
_MOST_TURNS = 10**8


@dataclass(frozen=True)
class Args:
    """Environments, budget, topology, network and optimizer of an experiment."""

    topologies: ClassVar[tuple[str, ...]] = get_args(Topology)
    lacks: ClassVar[str] = ""
    """Topologies that the experiment's learner runs on, and why on no others."""
    fleet_of: ClassVar[str] = "threads"
    """What the processes of a fleet do: act, as threads do, or compute gradients, as
    workers. The name of that topology."""
    environments: ClassVar[Callable[[int], Environment] | None] = None
    """A script's own, which can be compiled: num_envs -> environments. `env_name` is
    then what they are called, and names none."""
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
    normalize: bool = False
    """Normalise observations by their running mean and standard deviation."""
    repeat: str | None = None
    """The schedule.jsonl of a run with these settings, of workers or of threads with
    the free schedule: it is repeated in one thread, bit for bit, but for hogwild."""
    optimizer: OptimizerConfig = OptimizerConfig()
    network: NetworkConfig = NetworkConfig()
    threads: ThreadsConfig = ThreadsConfig()
    workers: WorkersConfig = WorkersConfig()
    """Their number and what becomes of stale or outlying gradients are those of delayed
    too."""
    delays: DelaysConfig = DelaysConfig()
    """Of delayed, and of gossip where pace = own."""
    gossip: GossipConfig = GossipConfig()
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
        own_pace = self.topology == "gossip" and self.gossip.pace == "own"
        return self.topology == "delayed" or own_pace

    @property
    def lanes(self) -> int:
        """Environments that a step of training learns from."""
        if self.topology in ("compiled", "gossip") and not self.in_turns:
            return self.num_envs
        if self.system == "threads":
            return self.threads.batch * self.envs_each
        return self.envs_each

    @property
    def envs_each(self) -> int:
        """Environments of each device, actor or worker."""
        return self.num_envs // self._shared_by[1]

    @property
    def is_pure(self) -> bool:
        """Whether environments can be compiled, and are no simulators."""
        if self._owns_environments:
            return self.environments is not None
        return self.backend is None and envs.is_name(self.env_name)

    def make_env(self, num_envs: int) -> Environment:
        """So many pure environments, as the agent is to see them."""
        make = self.environments or partial(envs.make, self.env_name)
        env = make(num_envs)
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
        seed = int(jax.random.bits(key)) >> 1
        drawn = render and self.backend != "envpool"
        make = self.simulators or partial(
            host.make,
            self.env_name,
            backend="auto" if drawn else self.backend or "auto",
            render=drawn,
            info_metrics=self.training.info_metrics,
        )
        env = make(num_envs, seed)
        show = host_wrappers.previous_action_and_reward
        return show(env) if self.show_previous else env

    def specs(self) -> tuple[Specs, Spec]:
        """Specs of observations and actions, from an environment that is closed.

        Raises:
          RefusedError: an evaluation in such environments might never end.
        """
        if self.is_pure:
            return self.make_env(1).specs
        env = self.make_host_env(jax.random.key(self.seed), 1)
        env.close()
        # Of a script's own simulators, the limit is known only now.
        refuse_any(self._endless_problems(env.max_episode_steps))
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

    def make_engine(self, learner: Learner) -> Engine | None:
        """What runs in workers, here or in a fleet; None for those of gradients."""
        del learner

    @property
    def joined(self) -> Callable[[Run], Run] | None:
        """From a run of several learners to one that acts where it is evaluated: of
        those that gossip, one with the mean of their parameters."""
        return averaged if self.topology == "gossip" else None

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
        found += self._topology_problems() + self._environment_problems()
        found += self._hosts_problems()
        return found + (self._size_problems() if countable else [])

    def unread(self, name: str) -> str:
        """What a field, by dotted name, is for; empty if it is read here."""
        readers = _readers(name)
        if not {self.topology, self.system} & set(readers):
            return f"is for topology = {either(readers)}, not {self.topology}"
        if name.startswith("delays.") and not self.in_turns:
            return f"is for gossip.pace = own, not {self.gossip.pace}"
        return unread(self, name)

    def _problems_of_parts(self) -> list[str]:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        found = {n: problems(part) for n, part in parts.items() if is_dataclass(part)}
        return [f"{name}.{line}" for name, lines in found.items() for line in lines]

    @property
    def _shared_by(self) -> tuple[str, int]:
        """Who has environments of its own, and how many of them there are."""
        if self.topology == "compiled":
            return "num_devices", self.num_devices
        if self.system == "threads":
            return "threads.num_actors", self.threads.num_actors
        if self.topology == "gossip":
            return "gossip.num_learners", self.gossip.num_learners
        return "workers.num_workers", self.workers.num_workers

    def _topology_problems(self) -> list[str]:
        if self.topology not in self.topologies:
            allowed = either(self.topologies)
            told = f"topology must be {allowed} here, got {self.topology}"
            return [told + (self.lacks and f": {self.lacks}")]
        changed = differences(to_json(type(self)()), to_json(self))
        # What a part says itself need not be said twice.
        refused = {line.split()[0].rstrip(":") for line in self._problems_of_parts()}
        ours = {self.topology, self.system}
        refused = {x for x in refused if ours & set(_readers(x))}
        found = [
            f"{name} {told}: leave it out, got {value}"
            for name, (_, value) in changed.items()
            if name not in refused and (told := self.unread(name))
        ]
        fixed = self.system == "threads" and self.threads.is_deterministic
        if self.repeat is not None and fixed:
            found.append("repeat is for threads with the free schedule, not lockstep")
        return found

    def _hosts_problems(self) -> list[str]:
        processes = self.hosts.num_processes or 1
        if self.topology != "compiled" or self.num_devices >= processes:
            return []
        told = f"each of hosts.num_processes = {processes} needs one"
        return [f"num_devices must be at least {processes}: {told}"]

    @property
    def _owns_environments(self) -> bool:
        return not (self.environments is None and self.simulators is None)

    def _own_problems(self) -> list[str]:
        """What is given for environments that are made by name."""
        asked = {"env_name": self.env_name, "backend": self.backend}
        asked |= {"info_metrics": self.training.info_metrics}
        usual = {"env_name": type(self).env_name, "backend": None, "info_metrics": ()}
        found = [
            f"{name} is for environments by name, and this script has its own: leave it"
            f" out, got {value}"
            for name, value in asked.items()
            if value != usual[name]
        ]
        if self.simulators is not None and self.system not in SIMULATED:
            found.append(self._cannot_compile())
        return found

    def _environment_problems(self) -> list[str]:
        if self._owns_environments:
            return self._own_problems()
        if self.is_pure:
            if names := self.training.info_metrics:
                found = f"info_metrics: {self.env_name} is compiled and has no info"
                return [f"{found}: leave it out, got {', '.join(names)}"]
            return []
        simulated = self.system in SIMULATED
        unknown = host.problems(self.env_name, self.backend or "auto")
        if self.backend is not None:
            found = unknown or self._endless_problems(self._known_limit())
            return found if simulated else []
        if unknown:
            found = environment_problems(self.env_name)
            if not simulated:
                return found
            (pure,), (simulator,) = found, unknown
            return [f"{pure}. As a simulator: {simulator.removeprefix('env_name: ')}"]
        if simulated:
            return self._endless_problems(self._known_limit())
        return [self._cannot_compile()]

    def _cannot_compile(self) -> str:
        others = [x for x in SIMULATED if x in self.topologies]
        instead = f": take {either(others)}" if others else ""
        return (
            f"env_name: {self.env_name} is a simulator's, which topology ="
            f" {self.topology} cannot compile{instead}"
        )

    def _known_limit(self) -> int | None:
        return host.time_limit(self.env_name, self.backend or "auto")

    def _endless_problems(self, known: int | None) -> list[str]:
        """That an evaluation of a simulator with this time limit might never end."""
        if known is not None or self.training.evaluation_max_steps is not None:
            return []
        return [
            f"evaluation_max_steps: {self.env_name} has no time limit, so episodes may"
            " never end: give the steps after which one of an evaluation is cut"
        ]

    def _size_problems(self) -> list[str]:
        name, count = self._shared_by
        if self.num_envs % count:
            wrong = f"num_envs must be a multiple of {name} = {count}"
            return [f"{wrong}, got {self.num_envs}"]
        if self.num_envs * self.unroll_length > _MOST_ROWS:
            wrong = f"num_envs * unroll_length must be at most {_MOST_ROWS}"
            return [f"{wrong}, got {self.num_envs} * {self.unroll_length}"]
        if self.in_turns and self.max_updates > _MOST_TURNS:
            most = (_MOST_TURNS - 1) // 2 * self.rows_per_update
            where = f"topology = {self.topology}"
            wrong = f"total_steps must be at most {most} for {where} here"
            told = "whose schedule is made before the run"
            return [f"{wrong}, {told}, got {self.total_steps}"]
        if self.topology == "gossip":
            return self._gossip_problems()
        if self.system == "threads" and self.lanes % self.num_devices:
            wrong = f"num_devices must divide the {self.lanes} environments of a batch"
            return [f"{wrong}, got {self.num_devices}"]
        return []

    def _gossip_problems(self) -> list[str]:
        number, devices = self.gossip.num_learners, self.num_devices
        if self.in_turns and self.delays.model == "constant":
            return ["delays.model: a constant delay is for topology = delayed"]
        if devices != 1 and self.in_turns:
            wrong = "num_devices must be 1 for gossip.pace = own, which is data"
            return [f"{wrong}, got {devices}"]
        if devices not in (1, number):
            wrong = f"num_devices must be 1 or gossip.num_learners = {number}"
            return [f"{wrong}, got {devices}"]
        return []


def environment_problems(name: str) -> list[str]:
    """For `Args.problems`: that there is no such pure environment."""
    if envs.is_name(name):
        return []
    return [f"env_name: {unknown_name('name', name, envs.names())}"]


def _readers(name: str) -> tuple[str, ...]:
    """Topologies that read the field of that dotted name."""
    if not name:
        return get_args(Topology)
    return READ_BY.get(name) or _readers(name.rpartition(".")[0])
