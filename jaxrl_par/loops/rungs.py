"""Rungs of successive halving: how many members go on, and from when on.

Source: Jamieson and Talwalkar, arXiv:1502.07943; Li et al., arXiv:1603.06560, section 3
for the factor eta.
"""

from dataclasses import dataclass
from typing import NamedTuple

from jaxrl_par.errors import at_least, refuse


class Rung(NamedTuple):
    """From `begin` to the next rung so many members are trained."""

    begin: int
    """Steps of training before it."""
    members: int


@dataclass(frozen=True)
class HalvingConfig:
    """When members of a population are judged, and how many go on."""

    first: int = 0
    """Steps of training before the first time. 0: never, all are trained to the end."""
    eta: int = 3
    """One member of so many goes on; and it takes so many times as long until the next
    time, so that each rung costs about as many steps."""
    window: int = 10
    """Latest scores of a member, one for each step of training, whose mean counts."""

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, first=0, eta=2, window=1)


def rungs(num_members: int, num_updates: int, config: HalvingConfig) -> list[Rung]:
    """All rungs of so many steps of training, the first with all members.

    The numbers are products of integers: with logarithms in float64 1000 members and
    eta 10 have two times to be judged, and not three.

    Raises:
      ValueError: a count is below 1, or the config is out of range.
    """
    refuse(config)
    refuse(num_members=num_members, num_updates=num_updates)
    found, begin = [Rung(0, num_members)], config.first
    while 0 < begin < num_updates and found[-1].members >= config.eta:
        found.append(Rung(begin, found[-1].members // config.eta))
        begin *= config.eta
    return found


def member_steps(found: list[Rung], num_updates: int) -> int:
    """Steps of training of all members together, if those who go on do not start
    again."""
    ends = [rung.begin for rung in found[1:]] + [num_updates]
    return sum(
        rung.members * (end - rung.begin) for rung, end in zip(found, ends, strict=True)
    )
