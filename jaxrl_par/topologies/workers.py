"""Asynchronous workers in threads that share parameters: A3C and its relatives.

Each worker has environments of its own. Again and again it reads the shared parameters,
acts with them for an unroll, computes the gradient at them, and gives it to the store,
which applies it to whatever the parameters are by then. Nobody waits for anybody but at
the store, of which there are three kinds: see `bridge.stores`. The optimizer's state is
shared too, so RMSProp is A3C's Shared RMSProp.

One worker computes what the synchronous program does, bit for bit. A run of several
depends on which thread was faster, which is recorded; `repeated` repeats it in one
thread. With `lock` and `server` that ends in the same bits.

A step of training is a push of one worker, and learns from its environments alone:
gradients are as large as one worker's, and their number is what grows with workers.

Sources: Mnih et al., arXiv:1602.01783; Niu et al., arXiv:1106.5730; Nair et al.,
arXiv:1507.04296.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax

from jaxrl_par.bridge import record, stores
from jaxrl_par.bridge.actor import MakeEnv
from jaxrl_par.bridge.crew import Limits
from jaxrl_par.bridge.rerun import Rerun
from jaxrl_par.bridge.workforce import Workforce
from jaxrl_par.bridge.workshop import Parts
from jaxrl_par.envs import Environment
from jaxrl_par.errors import not_chosen
from jaxrl_par.loops import Learner, halves_of, learner_of
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.types import Agent, nothing

_STORES = {
    "lock": stores.Lock,
    "hogwild": stores.Hogwild,
    "server": stores.Server,
}


@dataclass(frozen=True)
class WorkersConfig:
    """How many workers there are, and how they share parameters."""

    num_workers: int = 4
    """Threads, each with environments and a copy of the parameters."""
    store: Literal["lock", "hogwild", "server"] = "lock"
    """lock: one worker at a time updates. hogwild: all at once, in place, without a
    lock; updates may be lost, which is counted. server: a thread for each shard."""
    num_shards: int = 1
    """Server: parts of the parameters, each with a version of its own."""
    staleness: StalenessConfig = field(default_factory=StalenessConfig)
    """What becomes of gradients whose parameters are old."""
    on_error: Literal["raise", "restart"] = "raise"
    """What an error of a worker does: ends the run, or makes its environments anew.
    Restarts are counted, and the gradient in progress is lost."""
    max_restarts: int = 10
    """Restarts of a worker after which its next error ends the run."""
    env_timeout: float = 60.0
    """Seconds that one call of a simulator may take."""
    patience: float = 300.0
    """Seconds that one thread may wait for another."""
    check_bounds: bool = True
    """Refuse observations outside the bounds that a simulator declares."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_chosen(self)
        for name, least in (("num_workers", 1), ("num_shards", 1), ("max_restarts", 0)):
            if getattr(self, name) < least:
                found.append(
                    f"{name} must be at least {least}, got {getattr(self, name)}"
                )
        for name in ("env_timeout", "patience"):
            if not getattr(self, name) > 0:
                found.append(f"{name} must be above 0, got {getattr(self, name)}")
        if self.num_shards > 1 and self.store != "server":
            found.append(
                f"num_shards is for store = server; {self.store} has one, got"
                f" {self.num_shards}"
            )
        return found


def workers(
    learner: Agent | Learner,
    env: Environment | MakeEnv,
    unroll_length: int,
    config: WorkersConfig,
    device: Any = None,
) -> Workforce:
    """An engine for `training.train`, which starts its threads when it first advances.

    `Workforce.record` says where to write the schedule, which `repeated` can repeat.

    Args:
      learner: has halves; an agent alone learns from each trajectory once.
      env: the environments of one worker: pure ones, or what makes simulators from a
        key. All workers have the same specs.
      device: a `jax.Device`, by default the first.

    Raises:
      ValueError: the config is out of range, or the learner has no halves.
    """
    parts = _parts(learner, env, unroll_length, config, device)
    restarts = config.max_restarts if config.on_error == "restart" else 0
    limits = Limits(config.patience, config.env_timeout, restarts)
    return Workforce(parts, _STORES[config.store], limits)


def repeated(
    learner: Agent | Learner,
    env: Environment | MakeEnv,
    unroll_length: int,
    config: WorkersConfig,
    recorded: Path,
    device: Any = None,
) -> Rerun:
    """An engine that repeats a run which `workers` recorded, in one thread.

    Arguments are those of the recorded run. On CPU it ends in the same bits, but for
    hogwild: there it ends where the run would have, had nobody raced, and the distance
    between the two is what races did.

    Raises:
      ValueError: the config is out of range.
      RecordError: there is no record at `recorded`, or it is damaged.
    """
    parts = _parts(learner, env, unroll_length, config, device)
    return Rerun(parts, record.read_turns(recorded))


def _parts(
    learner: Agent | Learner,
    env: Environment | MakeEnv,
    unroll_length: int,
    config: WorkersConfig,
    device: Any,
) -> Parts:
    problems = config.problems() + config.staleness.problems()
    if unroll_length < 1:
        problems.append(f"unroll_length must be at least 1, got {unroll_length}")
    learner = learner_of(learner)
    if halves_of(learner, "workers").observe is not nothing:
        problems.append(
            "this agent observes data without a gradient, such as statistics of"
            " observations, and workers send gradients only: leave normalisation out,"
            " or use `topologies.delayed`"
        )
    if problems:
        raise ValueError("; ".join(problems))
    return Parts(
        learner,
        env,
        unroll_length,
        config.num_workers,
        config.num_shards,
        config.staleness,
        device or jax.devices()[0],
        config.check_bounds,
    )
