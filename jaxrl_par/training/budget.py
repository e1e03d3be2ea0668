"""When training ends: a number of updates or of environment steps."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxrl_par.errors import refuse

_MOST = 10**15  # counters have two int32, one for millions


class Budget(NamedTuple):
    """When training ends: at so many updates, or environment steps."""

    unit: Literal["updates", "env_steps"]
    amount: int
    per_update: int | None
    """The most of it that an update uses, where that is known."""

    def left(self, progress: Mapping[str, int]) -> int | None:
        """How many more updates there are at least; None if nothing is known."""
        missing = self.amount - progress[self.unit]
        return self.per_update and math.ceil(missing / self.per_update)

    def fraction(self, progress: Mapping[str, int]) -> float:
        """How much of it is used, from 0 to 1."""
        return min(progress[self.unit] / self.amount, 1.0)


def budget_of(
    num_updates: int | None, total_env_steps: int | None, steps_per_update: int | None
) -> Budget:
    """The one budget that is given.

    Raises:
      ValueError: there is not just one, or a number is out of range.
    """
    given = [x for x in (num_updates, total_env_steps) if x is not None]
    if len(given) != 1 or not _is_budget(given[0]):
        raise ValueError(
            "train takes num_updates or total_env_steps, a whole number of 1 to"
            f" {_MOST}; got {num_updates} and {total_env_steps}"
        )
    refuse(steps_per_update=steps_per_update)
    if num_updates is not None:
        return Budget("updates", num_updates, 1)
    return Budget("env_steps", given[0], steps_per_update)


def _is_budget(amount: Any) -> bool:
    whole = isinstance(amount, int | np.integer) and not isinstance(amount, bool)
    return bool(whole and 1 <= amount <= _MOST)
