"""What QT-Opt is asked for."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxrl_par.algorithms.qt_opt.cem import CEMConfig
from jaxrl_par.errors import ReadIf, at_least, not_between, not_chosen
from jaxrl_par.targets import lost_steps


@dataclass(frozen=True)
class QTOptConfig:
    """Hyperparameters of QT-Opt."""

    read_if: ClassVar[ReadIf] = {"delay": ("target", ("double", "clipped"))}
    """What each of these fields is for: another one, and its values."""

    gamma: float = 0.9
    """Discount per environment step."""
    target: Literal["single", "double", "clipped"] = "clipped"
    """V of the next state. single: the slow copy's largest value. double: what the
    delayed copy says of the slow copy's best action. clipped: the lower of both."""
    target_rate: float = 0.05
    """Share of the way that the slow copy goes in each update. The paper's is 1e-4, of
    15 million updates."""
    target_period: int = 1
    """Updates in which it goes them together, in one step: for very small rates, which
    float32 loses."""
    delay: int = 100
    """Updates by which the delayed copy is behind the slow one: so many at least, and
    less than twice as many."""
    epsilon: float = 0.1
    """Probability that an action is drawn uniformly from its bounds."""
    cem: CEMConfig = CEMConfig()
    """How the best action is found, in targets and by whoever acts."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_between(self, gamma=(0, 1), target_rate=(0, 1), epsilon=(0, 1))
        found += at_least(self, target_period=1, delay=1) + not_chosen(self)
        return found or lost_steps(self.target_rate, self.target_period)
