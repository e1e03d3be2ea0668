"""How many one call acts for, and how long it waits for them."""

from dataclasses import dataclass
from typing import Literal

from jaxrl_par.errors import at_least, at_most, not_chosen


@dataclass(frozen=True)
class CentralConfig:
    """How many one call acts for, and how long it waits for them."""

    max_batch: int | None = None
    """Actors for whom one call acts, by default all. With fewer, actors whose indices
    differ by a multiple of it are never in the same call."""
    max_wait_ms: float = 1.0
    """Milliseconds for which the first of a batch waits for others. 0 acts at once for
    those who are there."""
    rows: Literal["joint", "apart"] = "joint"
    """joint: one matrix product for all, whose last bits are not those of local
    inference. apart: one actor after the other within the call, with those bits."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_chosen(self) + at_least(self, max_batch=1, max_wait_ms=0)
        return found + at_most(self, max_batch=4096, max_wait_ms=10**6)
