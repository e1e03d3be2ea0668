"""Who finishes when, and how old the parameters are that it used: asynchrony as data.

A schedule is made before the run that follows it, and can be looked at, stored, and
followed again. Its turns are the updates of a run: in turn n worker `worker[n]`
finishes an unroll that it began with the parameters of `delay[n]` turns before. Each
turn's unroll is the next one of its worker, wherever the others are.

Times are in units of the mean time that a worker takes from one turn to its next.
"""

import heapq
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxrl_par.errors import above, lacking, refuse_any

Ints = Int[np.ndarray, " N"]


class Schedule(NamedTuple):
    """N turns; a run of more turns begins it again. Arrays of JAX may be traced."""

    worker: Int[Array, " N"] | Ints
    delay: Int[Array, " N"] | Ints
    """At most the number of turns before; where the schedule begins, nobody waits for
    what was before it."""

    @property
    def traced(self) -> bool:
        """Whether it is known only when the program runs."""
        return any(isinstance(x, Tracer) for x in self)


def not_a_schedule(schedule: Any) -> list[str]:
    """A line for what is none."""
    makes = "a Schedule, as the functions of loops.schedules make"
    return lacking(makes, "worker", "delay", schedule=schedule)


def in_turn(num_workers: int, num_turns: int, delay: Int[Array, ""] | int = 0):
    """Workers one after the other, all with parameters of `delay` turns before.

    Args:
      delay: may be traced.
    """
    turns = np.arange(num_turns, dtype=np.int32)
    worker = turns % np.int32(num_workers)
    if isinstance(delay, int | np.integer):
        return Schedule(worker, np.minimum(turns, np.int32(delay)))
    return Schedule(worker, jnp.minimum(turns, delay.astype(jnp.int32)))


def together(num_workers: int, num_turns: int) -> Schedule:
    """All workers read the same parameters, and wait for each other to finish."""
    worker = in_turn(num_workers, num_turns).worker
    return Schedule(worker, worker)


def simulated(durations: Float[np.ndarray, "N W"]) -> Schedule:
    """N turns of W workers that never wait: each reads the newest parameters when it
    has finished, and is busy for its next duration.

    Args:
      durations: [n, w], the time that worker w takes for its n-th unroll.

    Raises:
      ValueError: a duration is not finite and above 0.
    """
    if not (np.isfinite(durations).all() and (durations > 0).all()):
        raise ValueError("durations must be finite and above 0")
    num_turns, num_workers = durations.shape
    worker, delay = np.empty((2, num_turns), np.int32)
    finishes = sorted((durations[0, w], w) for w in range(num_workers))  # also a heap
    unroll, read = [0] * num_workers, [0] * num_workers
    for turn in range(num_turns):
        now, w = finishes[0]
        worker[turn], delay[turn] = w, turn - read[w]
        read[w] = turn + 1
        unroll[w] = min(unroll[w] + 1, num_turns - 1)
        heapq.heapreplace(finishes, (now + durations[unroll[w], w], w))
    return Schedule(worker, delay)


def steady(num_turns: int, speeds: Float[np.ndarray, " W"]) -> Float[np.ndarray, "N W"]:
    """Durations of workers that are always as fast as `speeds` says."""
    durations = 1.0 / np.asarray(speeds, float)
    return np.broadcast_to(durations, (num_turns, len(durations)))


def exponential(
    num_turns: int, num_workers: int, seed: int
) -> Float[np.ndarray, "N W"]:
    """Durations without memory, of mean 1."""
    return np.random.default_rng(seed).exponential(size=(num_turns, num_workers))


def heavy_tailed(
    num_turns: int, num_workers: int, seed: int, tail: float
) -> Float[np.ndarray, "N W"]:
    """Durations by Pareto, of mean 1: P(duration > x) falls as x**-tail.

    Most are shorter than the mean, and a few hold up their worker for very long.

    Raises:
      ValueError: `tail` is not above 1, so that there is no mean.
    """
    refuse_any(above({"tail": tail}, tail=1))
    draws = np.random.default_rng(seed).pareto(tail, (num_turns, num_workers))
    return (1.0 + draws) * (tail - 1.0) / tail


def problems(schedule: Schedule, num_workers: int, max_delay: int) -> list[str]:
    """What is wrong with a schedule that is known: nothing is said of traced arrays."""
    if schedule.traced:
        return []
    worker, delay = (np.asarray(x) for x in schedule)
    if worker.shape != delay.shape or worker.ndim != 1 or not len(worker):
        return [
            "a schedule needs two arrays [N] with N at least 1, got shapes"
            f" {worker.shape} and {delay.shape}"
        ]
    found = []
    if worker.min() < 0 or worker.max() >= num_workers:
        found.append(
            f"workers must be in 0 .. {num_workers - 1}, got {worker.min()} .."
            f" {worker.max()}"
        )
    early = np.flatnonzero(delay > np.arange(len(delay)))
    if len(early):
        found.append(
            f"turn {early[0]} has a delay of {delay[early[0]]}, from before the start"
        )
    if delay.min() < 0 or delay.max() > max_delay:
        found.append(
            f"delays must be in 0 .. {max_delay}, got {delay.min()} .. {delay.max()}"
        )
    return found


def own_copies(schedule: Schedule) -> bool:
    """Whether each worker reads the newest parameters just when it has finished, so
    that one copy for each of them is all that is needed."""
    read: dict[int, int] = {}
    for turn, (worker, delay) in enumerate(np.stack(schedule, axis=1).tolist()):
        if turn - delay != read.get(worker, 0):
            return False
        read[worker] = turn + 1
    return True
