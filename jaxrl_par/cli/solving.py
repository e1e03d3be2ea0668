"""Training until a task is solved: what studies of more workers measure."""

import time
from collections import deque
from typing import Any

import numpy as np

from jaxrl_par import random
from jaxrl_par.cli.args import Args
from jaxrl_par.cli.place import place
from jaxrl_par.loops import Learner, Program
from jaxrl_par.training.engines import Compiled

LAST = 100
"""Episodes whose mean decides."""


def until_solved(learner: Learner, settings: Args, threshold: float) -> dict[str, Any]:
    """Trains where the settings say, until the last 100 episodes have a mean return of
    `threshold`, or the budget of environment steps is spent.

    Returns:
      solved, best_return (None before 100 episodes have ended), episodes, env_steps,
      updates; seconds and cpu_seconds, without those of compiling; and the engine's
      report.
    """
    placed = place(settings, learner)
    chunk = settings.training.log_interval
    engine = Compiled(placed, chunk) if isinstance(placed, Program) else placed
    episodes, seconds, cpu, window, solved = 0, 0.0, 0.0, Window(), False
    try:
        run = engine.init(random.key(settings.seed))
        while not solved and int(run.progress.env_steps) < settings.total_steps:
            started, used = time.perf_counter(), time.process_time()
            compiled = engine.compile_seconds
            run, metrics = engine.advance(run, chunk)
            compiled = engine.compile_seconds - compiled
            seconds += time.perf_counter() - started - compiled
            cpu += time.process_time() - used - compiled
            returns = metrics["episode_return"]
            for total, count in zip(*map(np.asarray, returns), strict=True):
                episodes += int(count)
                window.add(float(total), float(count))
                if window.best is not None and window.best >= threshold:
                    solved = True
                    break
    finally:
        engine.close()
    report = engine.report()
    return {
        "solved": solved,
        "best_return": window.best,
        "episodes": episodes,
        "env_steps": int(run.progress.env_steps),
        "updates": int(run.progress.updates),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "report": None if report is None else report.row(),
    }


class Window:
    """The newest episodes, just so many that they are 100 or more."""

    def __init__(self) -> None:
        self.best: float | None = None
        """The largest mean return that they ever had."""
        self._last: deque[tuple[float, float]] = deque()

    def add(self, total: float, count: float) -> None:
        """So many more, with this sum of returns."""
        self._last.append((total, count))
        while sum(x for _, x in self._last) - self._last[0][1] >= LAST:
            self._last.popleft()
        total, number = (sum(x) for x in zip(*self._last, strict=True))
        if number >= LAST:
            reached = total / number
            self.best = reached if self.best is None else max(self.best, reached)
