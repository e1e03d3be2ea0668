"""The ratio of learning to acting, where each goes on by itself: a rate limiter.

    debt = samples_per_insert * rows inserted - rows trained,   0 <= debt <= bound

in rows, from 0 where the buffer is ready. Who would leave these bounds waits for the
other: the learner below 0, the actors above `run_ahead` inserts. Fractions are exact,
so a run of any length keeps its ratio.

Both may go on for ever only if an insert (a) or an update (b) is always within bounds,
whatever was done before: if the bound is at least a + b - gcd(a, b).
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from jaxrl_par.errors import at_least, at_most, refuse, refuse_any

_LEAST = 0.001
"""The smallest ratio."""


@dataclass(frozen=True)
class PaceConfig:
    """Who waits for whom, where a learner goes on with what it has."""

    samples_per_insert: float | None = None
    """Rows that are trained for each row that is inserted, to the nearest fraction
    whose denominator is at most 1000; the learner waits for actors where it would be
    more. None: nobody waits for the other."""
    run_ahead: int | None = None
    """Batches of unrolls that actors may insert before the learner has trained as much
    for them as it should. None: actors wait for the queue alone."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, samples_per_insert=_LEAST, run_ahead=1)
        found += at_most(self, samples_per_insert=10**6, run_ahead=10**6)
        if not found and self.run_ahead and self.samples_per_insert is None:
            told = "run_ahead is for a ratio: give samples_per_insert, or leave it out"
            found.append(f"{told}, got {self.run_ahead}")
        return found


def stuck(config: PaceConfig, inserted: int, trained: int) -> list[str]:
    """What would make actors and the learner wait for each other, in a state that both
    reach: see the module.

    Args:
      inserted: rows of a batch of unrolls.
      trained: rows of an update.
    """
    if config.samples_per_insert is None or config.run_ahead is None:
        return []
    insert, update = _ratio(config) * inserted, Fraction(trained)
    common = Fraction(
        math.gcd(insert.numerator, update.numerator * insert.denominator),
        insert.denominator,
    )
    least = math.ceil((insert + update - common) / insert)
    if config.run_ahead >= least:
        return []
    return [
        f"run_ahead must be at least {least}, got {config.run_ahead}: with inserts of"
        f" {inserted} rows, updates of {trained} and samples_per_insert ="
        f" {config.samples_per_insert:g}, actors and learner would wait for each other"
    ]


class Pace:
    """How far inserts and updates are apart. It never waits itself."""

    def __init__(self, config: PaceConfig, inserted: int, trained: int):
        """
        Args:
          inserted, trained: as for `stuck`.

        Raises:
          RefusedError: the config is out of range, or `stuck`.
        """
        refuse(config, inserted=inserted, trained=trained)
        refuse_any(stuck(config, inserted, trained))
        self._bounded = config.samples_per_insert is not None
        ratio = _ratio(config)
        # Whole numbers, of which a row trained is so many.
        self._update = trained * ratio.denominator
        self._insert = inserted * ratio.numerator
        self._most = config.run_ahead and config.run_ahead * self._insert
        self._rows = inserted, trained
        self._done = [0, 0]
        self.debt = 0
        """In rows times the ratio's denominator."""
        self.ready = False
        """Before that, inserts are no debt: it would be worked off at once."""

    def may_insert(self) -> bool:
        """Whether the actors may go on."""
        if not (self._bounded and self.ready) or self._most is None:
            return True
        return self.debt + self._insert <= self._most

    def may_update(self) -> bool:
        """Whether the learner may go on."""
        return not (self._bounded and self.ready) or self.debt >= self._update

    def insert(self) -> None:
        """Counts an insert."""
        if self.ready:
            self._done[0] += 1
            self.debt += self._insert if self._bounded else 0

    def update(self) -> None:
        """Counts an update."""
        if self.ready:
            self._done[1] += 1
            self.debt -= self._update if self._bounded else 0

    def samples_per_insert(self) -> float | None:
        """The ratio that came about since it is ready; None without an insert."""
        inserted, trained = (n * x for n, x in zip(self._done, self._rows, strict=True))
        return trained / inserted if inserted else None


def _ratio(config: PaceConfig) -> Fraction:
    """0.1 is a tenth. Of long fractions the debt would be no number of a checkpoint."""
    exact = Fraction(repr(float(config.samples_per_insert or 0)))
    return exact.limit_denominator(round(1 / _LEAST))
