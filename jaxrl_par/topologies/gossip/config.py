"""Which learners average with which, and when."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxrl_par.errors import ReadIf, at_least, at_most, not_chosen


@dataclass(frozen=True)
class GossipConfig:
    """Which learners average with which, and when."""

    read_if: ClassVar[ReadIf] = {
        "on_error": ("pace", ("own",)),
        "max_restarts": ("on_error", ("restart",)),
    }
    """What each of these fields is for: another one, and its values."""

    num_learners: int = 4
    """Learners, each with parameters and environments of its own. With several devices
    as many as these, one on each."""
    kind: Literal["ring", "random", "full"] = "random"
    """ring: thirds of itself and of both neighbours. random: halves of itself and of a
    partner, in one matching that is drawn for all; where they are odd, one rests. full:
    the mean of all."""
    interval: int = 1
    """Updates of a learner from one averaging to the next."""
    pace: Literal["together", "own"] = "together"
    """together: all update, then average. own: each is as fast as it is in its process,
    or on one device as `delays` says, acts with what it had when it began, and averages
    with one neighbour when it is done; a step of training is then the update of one of
    them."""
    average_optimizer: bool = False
    """Average what the optimizer keeps, too. By default it stays each learner's own."""
    on_error: Literal["raise", "restart"] = "raise"
    """What the loss of a learner's process does, at its own pace: ends the run, or
    begins that learner anew with the mean of the others, which is counted. Together, it
    is missed until the end."""
    max_restarts: int = 10
    """Learners' processes that may be lost before the next one ends the run."""

    @property
    def restarts(self) -> int:
        """Learners that are begun anew."""
        return self.max_restarts if self.on_error == "restart" else 0

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_chosen(self) + at_least(self, num_learners=1, interval=1)
        found += at_least(self, max_restarts=0)
        found += at_most(self, num_learners=4096, interval=1000)
        if self.pace == "own" and self.kind == "full":
            found.append(
                "kind must be ring or random for pace = own, got full: one neighbour"
                " at a time"
            )
        return found
