"""What experiments share that learn from replay."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import jax

from jaxrl_par.cli import experts
from jaxrl_par.cli.args import Args
from jaxrl_par.errors import ReadIf, above, at_least, below
from jaxrl_par.loops import Learner, data_shapes, replayed, without_halves
from jaxrl_par.loops.pace import stuck
from jaxrl_par.replay import (
    Buffer,
    PriorityConfig,
    Windows,
    memory,
    mixed,
    prioritised,
    uniform,
    unsaved,
)
from jaxrl_par.training import demonstrations
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.types import Agent, Trajectory


@dataclass(frozen=True)
class ReplayConfig:
    """What is kept, and how much is learned from it."""

    read_if: ClassVar[ReadIf] = {
        "priorities": ("prioritised", (True,)),
        "expert_steps": ("demonstrations", (experts.EXPERT,)),
    }
    """What each of these fields is for: another one, and its values."""

    capacity: int = 10_240
    """Rows that are kept, by all devices, workers or learners together: whole unrolls,
    so it is a multiple of the rows that a step of training adds."""
    min_size: int = 1_280
    """Rows that are kept before anything is learned; rounded up to whole unrolls."""
    batch_size: int = 128
    """Windows in a batch, of all devices together. Each worker draws as many, and each
    learner that gossips."""
    updates_per_step: int = 1
    """Batches in each step of training."""
    prioritised: bool = False
    """Draw by priorities; otherwise each window as often as every other."""
    priorities: PriorityConfig = PriorityConfig()
    unsaved: bool = False
    """Leave what is kept out of checkpoints, which are small then. A run that is
    resumed has an empty buffer, new priorities and beta at its start: until min_size
    nothing is learned, and it does not go on to the same bits."""
    demonstrations: str | None = None
    """Learn from demonstrations too: those in a folder that `jaxrl-par
    record-demonstrations` wrote; or "expert", somebody who knows the environment, as
    there is of I-Mazes. They are kept whole by each device and worker."""
    demonstration_ratio: float = 1 / 256
    """The probability that a window of a batch is of a demonstration."""
    expert_steps: int = 2_000
    """Environment steps that the expert shows, before the run."""

    @property
    def needs_recorded(self) -> bool:
        """Whether first priorities are those of whoever acted."""
        return self.prioritised and self.priorities.first == "recorded"

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = {"capacity": 1, "min_size": 1, "batch_size": 1, "updates_per_step": 1}
        found = at_least(self, **counts)
        if not found and self.min_size > self.capacity:
            told = f"min_size must be at most capacity = {self.capacity}"
            found.append(f"{told}, got {self.min_size}")
        found += above(self, demonstration_ratio=0) + below(self, demonstration_ratio=1)
        return found + at_least(self, expert_steps=1)


@dataclass(frozen=True)
class ReplayArgs(Args):
    """An experiment whose learner keeps what was acted."""

    part: ClassVar[str] = "dqn"
    """The field with the algorithm's config."""

    replay: ReplayConfig = ReplayConfig()

    @property
    def windows(self) -> Windows:
        """Which rows of an unroll a batch has."""
        raise NotImplementedError

    @property
    def shares(self) -> int:
        """Devices, workers or learners that each keep a part."""
        if self.topology == "gossip":
            return self.gossip.num_learners
        return self.num_devices if self._is_joint else self.workers.num_workers

    @property
    def rows_added(self) -> int:
        """Rows that a step of training adds, or of workers a turn of each."""
        shared = 1 if self._is_joint else self.shares
        return self._lanes_together * shared * self.unroll_length

    @property
    def _is_joint(self) -> bool:
        """Whether devices share each batch; workers and learners that gossip have
        batches of their own."""
        return self.system in ("compiled", "threads")

    @property
    def _lanes_together(self) -> int:
        """Environments whose unrolls are added to one replay, or to those of devices
        that share each batch."""
        return self.lanes if self._is_joint else self.envs_each

    def largest_product(self) -> int:
        windows = self.windows
        rows = windows.burn_in + windows.trained(self.unroll_length)
        learned = self.replay.batch_size * (rows + windows.lookahead)
        acted = super().largest_product()
        return max(acted, acted * learned // self.rows_per_update)

    def make_buffer(self, agent: Agent) -> Buffer:
        """That of one device or worker.

        Raises:
          TrainingError: as `demonstrated`.
        """
        given, length = self.replay, self.unroll_length
        sizes = (
            given.capacity // self.shares // length,
            given.batch_size // (self.shares if self._is_joint else 1),
            self.windows,
        )
        min_size = -(-given.min_size // (self.shares * length))
        if (demonstrated := self.demonstrated()) is not None:
            buffer = mixed(
                demonstrated,
                *sizes,
                given.priorities if given.prioritised else None,
                ratio=given.demonstration_ratio,
                initial_carry=agent.initial_carry,
                min_size=min_size,
            )
        elif given.prioritised:
            buffer = prioritised(*sizes, given.priorities, min_size=min_size)
        else:
            buffer = uniform(*sizes, min_size=min_size)
        return unsaved(buffer) if given.unsaved else buffer

    def memory_needed(self, learner: Learner) -> str:
        lanes = self._lanes_together // (self.shares if self._is_joint else 1)
        shapes = data_shapes(learner, lanes, self.unroll_length)
        devices, shares = jax.local_devices(), self.shares
        together = min(shares, len(devices)) if self._is_joint else shares
        if self._is_joint and devices[0].platform != "cpu":
            together = 1  # each has memory of its own
        kind = "learner" if self.topology == "gossip" else "worker"
        kind = "device" if self._is_joint else kind
        return memory.accepted(
            rows=self.replay.capacity,
            each=memory.num_bytes(shapes),
            parts=f"{shares} {kind}{'s' * (shares > 1)}",
            together=together,
            free=memory.free_bytes(devices[0]),
            added=self.rows_added,
        )

    def make_learner(self, agent: Agent) -> Learner:
        """How the agent learns: from batches of what is kept."""
        count = self.replay.updates_per_step
        buffer = self.make_buffer(agent)
        return replayed(self.normalized(agent), buffer, updates_per_step=count)

    def demonstrated(self) -> Trajectory | None:
        """The demonstrations, if there are to be any.

        Raises:
          TrainingError: those in the folder are damaged, of other specs, or too short.
        """
        given, name = self.replay, "replay.demonstrations"
        if given.demonstrations is None:
            return None
        if given.demonstrations == experts.EXPERT:
            env = self.make_env(experts.NUM_ENVS)
            return experts.shown(self.env_name, env, given.expert_steps, self.seed)
        try:
            return demonstrations.read(given.demonstrations, self.specs())
        except demonstrations.DemonstrationsError as error:
            raise TrainingError(f"{name}: {error}") from error

    def played(self) -> "ReplayArgs":
        """As `Args.played`. Demonstrations need not be there any more."""
        usual = type(self)().replay
        alone = replace(
            self.replay,
            demonstrations=None,
            demonstration_ratio=usual.demonstration_ratio,
            expert_steps=usual.expert_steps,
        )
        return replace(self, training=super().played().training, replay=alone)

    def problems(self) -> list[str]:
        found = super().problems()
        if found or self.replay.problems() or self.windows.problems():
            return found
        return self._buffer_problems()

    def _buffer_problems(self) -> list[str]:
        given, added, found = self.replay, self.rows_added, []
        if given.capacity % added:
            below = given.capacity // added * added
            near = " or ".join(str(x) for x in (below, below + added) if x)
            found.append(
                f"replay.capacity must be a multiple of the {added} rows that a step of"
                f" training adds, such as {near}, got {given.capacity}"
            )
        if self._is_joint and given.batch_size % self.shares:
            told = "replay.batch_size must be a multiple of num_devices"
            found.append(f"{told} = {self.shares}, got {given.batch_size}")
        if self.unroll_length % self.windows.trained(self.unroll_length):
            found.append(
                f"unroll_length must be a multiple of the {self.windows.length} rows of"
                f" a window, got {self.unroll_length}"
            )
        windows = self.windows
        if (ahead := windows.lookahead + 1) > self.unroll_length:
            told = f"n_step must be at most unroll_length = {self.unroll_length}"
            found.append(f"{self.part}.{told}, got {ahead}")
        most = given.capacity // windows.trained(self.unroll_length)
        if given.batch_size > most:
            found.append(
                f"replay.batch_size must be at most the {most} windows that"
                f" replay.capacity = {given.capacity} rows have, got {given.batch_size}"
            )
        if self.system == "threads" and self.threads.is_decoupled:
            trained = self.windows.trained(self.unroll_length)
            trained *= given.batch_size * given.updates_per_step
            waits = stuck(self.threads.pace, added, trained)
            found += [f"threads.pace.{line}" for line in waits]
        late = self.topology in ("delayed", "workers")
        if late and given.updates_per_step > 1:
            found.append(
                f"replay.updates_per_step must be 1 here, got {given.updates_per_step}:"
                f" {without_halves(self.topology)}. Several are for compiled or threads"
            )
        return found + self._demonstration_problems()

    def _demonstration_problems(self) -> list[str]:
        given, name = self.replay, "replay.demonstrations"
        usual = type(self)().replay
        if given.demonstrations is None:
            changed = given.demonstration_ratio != usual.demonstration_ratio
            told = f"replay.demonstration_ratio is for demonstrations: give {name}"
            return [f"{told}, or leave it out"] if changed else []
        if given.demonstrations == experts.EXPERT:
            return [f"{name}: {x}" for x in experts.problems(self.env_name)]
        try:
            demonstrations.read_manifest(Path(given.demonstrations))
        except TrainingError as error:
            return [f"{name}: {error}"]
        return []
