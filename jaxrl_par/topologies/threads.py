"""Actors in threads, a learner on the mesh: for simulators on a CPU (Sebulba).

Actor threads step environments of their own and act in batches with the newest
parameters; unrolls go through a bounded queue to one learner, which is sharded like any
other. While the learner updates, actors act: what is learned from is a little old, and
every row says how old. V-trace corrects for it.

Three schedules. `free` is as fast as threads are, and can be recorded. `lockstep` is
deterministic: update n learns from the n-th unroll of every actor, acted with the
parameters of a fixed number of updates before; with lag 0 that is the synchronous
program, bit for bit. A recorded free run can be run again by `repeated`.

Where what acts is taught by what learns, distillers can teach it in threads of their
own while the learner goes on: see `bridge.distillers`. Version n of the parameters has
the lessons of n updates in every schedule. So with one distiller all of the above
holds; several race, and no schedule makes them deterministic.

Source: Hessel et al., arXiv:2104.06272, section 3; Espeholt et al., arXiv:1802.01561;
Parisotto and Salakhutdinov, arXiv:2104.01655, section 4.1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
from jax.sharding import Mesh

from jaxrl_par.axis import Axis
from jaxrl_par.bridge import exchange, record
from jaxrl_par.bridge.actor import MakeEnv
from jaxrl_par.bridge.crew import Limits
from jaxrl_par.bridge.replay import Replay
from jaxrl_par.bridge.system import Parts
from jaxrl_par.bridge.threaded import Threaded
from jaxrl_par.errors import not_chosen
from jaxrl_par.loops import Learner, learner_of
from jaxrl_par.types import Agent


@dataclass(frozen=True)
class ThreadsConfig:
    """How many actors there are, and who waits for whom."""

    num_actors: int = 2
    """Threads, each with environments of its own."""
    schedule: Literal["free", "lockstep"] = "free"
    """free: nobody waits longer than the queue says. lockstep: deterministic."""
    lag: int = 1
    """Lockstep: updates by which the acting parameters are old. 0 acts and learns in
    turn, 1 at the same time."""
    max_lag: int | None = None
    """Free: most updates by which any row may be old when it is learned from. Actors
    wait for it to hold; None has no bound but the queue's length."""
    unrolls_per_update: int | None = None
    """Unrolls of actors that make a batch; by default as many as there are actors."""
    queue_size: int | None = None
    """Free: unrolls that may wait; by default those of one batch."""
    on_error: Literal["raise", "restart"] = "raise"
    """What an error of an environment does: ends the run, or makes the environments of
    that actor anew. Restarts are counted, and what was acted is dropped and counted."""
    max_restarts: int = 10
    """Restarts of an actor after which its next error ends the run."""
    env_timeout: float = 60.0
    """Seconds that one call of an environment may take."""
    patience: float = 300.0
    """Seconds that one thread may wait for another."""
    check_bounds: bool = True
    """Refuse observations outside the bounds that the environment declares."""
    actor_device: Literal["cpu", "learner"] = "cpu"
    """Where actors act. The CPU answers soonest for small networks; the learner's first
    device pays for large ones, or many environments."""
    num_distillers: int = 0
    """Distillation: threads that update the actor at the same time, without a lock,
    while the learner goes on. One is deterministic; more than updates_per_step have
    nothing to do. 0 leaves it to the learner's program."""

    @property
    def batch(self) -> int:
        """Unrolls of a batch."""
        return self.unrolls_per_update or self.num_actors

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_chosen(self)
        for name, least in (
            ("num_actors", 1), ("lag", 0), ("max_lag", 0), ("unrolls_per_update", 1),
            ("queue_size", 1), ("max_restarts", 0), ("num_distillers", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                found.append(f"{name} must be at least {least}, got {value}")
        for name in ("env_timeout", "patience"):
            if not getattr(self, name) > 0:
                found.append(f"{name} must be above 0, got {getattr(self, name)}")
        if self.schedule == "lockstep":
            if self.batch != self.num_actors:
                found.append(
                    "unrolls_per_update: lockstep learns from one unroll of each of the"
                    f" {self.num_actors} actors, got {self.unrolls_per_update}"
                )
            found += [
                f"{name} is for the free schedule; lockstep has a fixed lag"
                for name in ("max_lag", "queue_size")
                if getattr(self, name) is not None
            ]
        return found


def threads(
    learner: Agent | Learner,
    make_env: MakeEnv,
    unroll_length: int,
    config: ThreadsConfig,
    mesh: Mesh,
    axis: Axis = Axis("data"),
) -> Threaded:
    """An engine for `training.train`, which starts its threads when it first advances.

    `Threaded.record` says where to write the schedule, which `repeated` can repeat.

    Args:
      learner: an agent alone learns from each batch once. One that needs its
        trajectories in order gets an unroll of every actor in each batch, and in the
        free schedule a bound on the lag of 1 unless there is one.
      make_env: the environments of one actor, from a key. All have the same specs.
      mesh: the learner's devices, which share the environments of each batch.

    Raises:
      ValueError: the config is out of range.
    """
    learner = learner_of(learner)
    problems = config.problems()
    if learner.in_order and config.batch != config.num_actors:
        problems.append(
            "unrolls_per_update: this learner goes on from unroll to unroll, and needs"
            f" one of each of the {config.num_actors} actors, got"
            f" {config.unrolls_per_update}"
        )
    problems += _distiller_problems(config, learner, mesh)
    if problems:
        raise ValueError("; ".join(problems))
    lockstep = config.schedule == "lockstep"
    lag = config.lag if lockstep else 0
    parts = _parts(learner, make_env, unroll_length, config, mesh, axis, lag)

    def schedule(first_update: int) -> exchange.Schedule:
        if lockstep:
            return exchange.Lockstep(config.lag, config.num_actors, first_update)
        if learner.in_order:
            max_lag = 1 if config.max_lag is None else config.max_lag
            return exchange.InTurn(max_lag, config.num_actors, first_update)
        if config.max_lag is not None:
            return exchange.Bounded(config.max_lag, config.batch, first_update)
        return exchange.Free(config.queue_size or config.batch)

    restarts = config.max_restarts if config.on_error == "restart" else 0
    limits = Limits(config.patience, config.env_timeout, restarts)
    return Threaded(parts, schedule, limits)


def repeated(
    learner: Agent | Learner,
    make_env: MakeEnv,
    unroll_length: int,
    config: ThreadsConfig,
    mesh: Mesh,
    recorded: Path,
    axis: Axis = Axis("data"),
) -> Replay:
    """An engine that repeats a run which `threads` recorded, in one thread.

    Arguments are those of the recorded run. On CPU it ends in the same bits.

    Raises:
      ValueError: the run had several distillers, whose races are in no record.
      RecordError: there is no record at `recorded`, or it is damaged.
    """
    learner = learner_of(learner)
    problems = _distiller_problems(config, learner, mesh)
    if config.num_distillers > 1:
        problems.append(
            "num_distillers: several write at the same time, which no record repeats;"
            f" a run with 0 or 1 can be replayed, got {config.num_distillers}"
        )
    if problems:
        raise ValueError("; ".join(problems))
    parts = _parts(learner, make_env, unroll_length, config, mesh, axis, 0)
    return Replay(parts, record.read(recorded))


def _distiller_problems(
    config: ThreadsConfig, learner: Learner, mesh: Mesh
) -> list[str]:
    """Where there is nothing to distil, or more devices than distillers can serve."""
    if not config.num_distillers:
        return []
    found = []
    if learner.distillation is None:
        found.append(
            "num_distillers: this learner distils nothing, so it must be 0, got"
            f" {config.num_distillers}"
        )
    if mesh.size > 1:
        found.append(
            "num_distillers: distillers draw from the archive of one device, and"
            f" the learner has {mesh.size}. Use one, or 0 distillers"
        )
    return found


def _parts(
    learner: Learner,
    make_env: MakeEnv,
    unroll_length: int,
    config: ThreadsConfig,
    mesh: Mesh,
    axis: Axis,
    num_past_params: int,
) -> Parts:
    if unroll_length < 1:
        raise ValueError(f"unroll_length must be at least 1, got {unroll_length}")
    device = mesh.devices.flat[0]
    if config.actor_device == "cpu":
        device = jax.local_devices(backend="cpu")[0]
    return Parts(
        make_env,
        unroll_length,
        config.num_actors,
        config.batch,
        learner,
        mesh,
        axis,
        device,
        config.check_bounds,
        num_past_params,
        config.num_distillers,
    )
