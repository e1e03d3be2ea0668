"""How many actors there are, and who waits for whom."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxrl_par.bridge.central.config import CentralConfig
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.errors import ReadIf, at_least, at_most, not_chosen
from jaxrl_par.loops.pace import PaceConfig


@dataclass(frozen=True)
class ThreadsConfig:
    """How many actors there are, and who waits for whom."""

    read_if: ClassVar[ReadIf] = {
        "lag": ("schedule", ("lockstep",)),
        "quorum": ("schedule", ("lockstep",)),
        "max_lag": ("schedule", ("free", "lockstep")),
        "queue_size": ("schedule", ("free", "decoupled")),
        "pace": ("schedule", ("decoupled",)),
        "publish_interval": ("schedule", ("decoupled",)),
        "central": ("inference", ("central",)),
        "act_with": ("inference", ("local",)),
    }
    """What each of these fields is for: another one, and its values."""

    num_actors: int = 2
    """Threads, each with environments of its own."""
    schedule: Literal["free", "lockstep", "decoupled"] = "free"
    """free: a thread waits only for the queue. lockstep: deterministic. decoupled, with
    replay: the learner goes on with what it has, and waits only as `pace` says."""
    lag: int = 1
    """Lockstep: updates by which the acting parameters are old. 0 acts and learns in
    turn, 1 at the same time."""
    max_lag: int | None = None
    """Free: most updates by which any row may be old when it is learned from. Actors
    wait for it to hold; None has no bound but the queue's length. Lockstep with a
    quorum: what is older is dropped, and counted; None drops nothing."""
    quorum: int | None = None
    """Lockstep: unrolls that make a batch, the first that are there, by default one of
    each actor. With fewer nobody waits for the slowest: what it acts is learned later,
    oldest first, or dropped as max_lag says; actors have the newest parameters, and
    lag + 1 unrolls each at most that were not learned from."""
    unrolls_per_update: int | None = None
    """Unrolls of actors that make a batch; by default as many as there are actors, and
    one where decoupled."""
    queue_size: int | None = None
    """Free, decoupled: unrolls that may wait; by default those of one batch."""
    pace: PaceConfig = PaceConfig()
    """Decoupled: how much is learned for what is acted."""
    publish_interval: int = 1
    """Decoupled: updates between two copies of the parameters to the actors."""
    supervision: SupervisionConfig = SupervisionConfig()
    actor_device: Literal["cpu", "learner"] = "cpu"
    """Where actors act. The CPU answers soonest for small networks; the learner's first
    device pays for large ones, or many environments."""
    inference: Literal["local", "central"] = "local"
    """local: each actor acts for its environments. central: one thread acts for all,
    and actors hold no network and no memory. Unless in lockstep, each step is acted
    with the newest parameters."""
    central: CentralConfig = CentralConfig()
    act_with: Literal["auto", "jax", "numpy"] = "auto"
    """numpy: actors need no JAX, and processes of a fleet import none, which start
    sooner and are smaller: for actor-critics that can be exported to NumPy. The same
    numbers are drawn; log-probabilities differ by rounding. auto: numpy for those of
    dense layers, in simulators that are made from a seed, as they are in a fleet;
    jax in lockstep, which promises the bits of other topologies, and for all else."""
    keep_unrolls: bool = False
    """Where a run is recorded, keep the unrolls too, beside the schedule: for
    simulators. With them it is repeated, bit for bit, without simulators or actors.
    They are all that was learned from, uncompressed."""
    num_distillers: int = 0
    """Distillation, and other chains whose last stage acts and has lessons: threads
    that update the actor at the same time, without a lock, while the learner goes on.
    One is deterministic; more than the lessons of a step (updates_per_step) have
    nothing to do. 0 leaves it to the learner's program."""

    @property
    def batch(self) -> int:
        """Unrolls of a batch."""
        if self.quorum is not None:
            return self.quorum
        return self.unrolls_per_update or (1 if self.is_decoupled else self.num_actors)

    @property
    def has_quorum(self) -> bool:
        """Whether an update may leave actors out. All of them are lockstep."""
        return self.quorum is not None and self.quorum < self.num_actors

    @property
    def is_deterministic(self) -> bool:
        """Whether a run does not depend on who is faster."""
        return self.schedule == "lockstep" and not self.has_quorum

    @property
    def is_decoupled(self) -> bool:
        """Whether the learner goes on without new unrolls."""
        return self.schedule == "decoupled"

    @property
    def slots(self) -> int:
        """Actors for whom one call of central inference acts."""
        return self.central.max_batch or self.num_actors

    @property
    def updates_per_version(self) -> int:
        """Updates between two versions that actors can have."""
        return self.publish_interval if self.is_decoupled else 1

    @property
    def num_past_params(self) -> int:
        """Versions before the newest that lockstep still acts with."""
        return self.lag if self.is_deterministic else 0

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_chosen(self)
        found += at_least(self, num_actors=1, unrolls_per_update=1, queue_size=1)
        found += at_least(self, lag=0, max_lag=0, num_distillers=0, publish_interval=1)
        found += at_most(self, num_actors=4096, num_distillers=4096, lag=10**6)
        found += at_most(self, unrolls_per_update=10**6, queue_size=10**6)
        if self.slots > self.num_actors:
            told = f"num_actors = {self.num_actors}, got {self.slots}"
            found.append(f"central.max_batch must be at most {told}")
        found += self._problems_without_jax()
        if self.schedule == "lockstep":
            return found + self._problems_in_lockstep()
        if self.lag != type(self).lag:
            found.append("lag is for the lockstep schedule; free has max_lag")
        if self.is_decoupled:
            found += self._problems_decoupled()
        return found

    def _problems_without_jax(self) -> list[str]:
        if self.act_with != "numpy":
            return []
        wanted = {"inference": "local", "actor_device": "cpu"}
        return [
            f"{name} must be {value} with act_with = numpy, got {getattr(self, name)}"
            for name, value in wanted.items()
            if getattr(self, name) != value
        ]

    def _problems_in_lockstep(self) -> list[str]:
        found = []
        given = self.unrolls_per_update
        if given is not None and (self.quorum is not None or given != self.num_actors):
            found.append(
                "unrolls_per_update: lockstep learns from one unroll of each of the"
                f" {self.num_actors} actors, or of a quorum, got {given}"
            )
        found += at_least(self, quorum=1) + at_most(self, quorum=self.num_actors)
        fixed = ("queue_size",) if self.has_quorum else ("max_lag", "queue_size")
        return found + [
            f"{name} is for the free schedule; lockstep has a fixed lag"
            for name in fixed
            if getattr(self, name) is not None
        ]

    def _problems_decoupled(self) -> list[str]:
        found = []
        if self.max_lag is not None:
            told = "max_lag is for the free schedule; decoupled has pace.run_ahead"
            found.append(f"{told}, got {self.max_lag}")
        if self.num_distillers:
            found.append(
                "num_distillers must be 0 with the decoupled schedule, got"
                f" {self.num_distillers}: replay leaves no lessons"
            )
        return found
