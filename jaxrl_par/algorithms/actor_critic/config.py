"""What SAC, TD3 and DDPG, and critics of other policies, are asked for."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxrl_par.errors import ReadIf, above, at_least, not_between, not_chosen

_SHORTEST = 1e-3
"""Share of the way below which float32 loses steps of a copy, while it is still 1 in
10^4 away."""


@dataclass(frozen=True)
class CriticConfig:
    """Hyperparameters of critics that learn from replay."""

    gamma: float = 0.99
    """Discount per environment step."""
    n_step: int = 1
    """Rewards in a target, before it bootstraps."""
    num_critics: int = 2
    """Critics, the lowest of which is believed."""
    target_rate: float = 0.005
    """Share of the way that slow copies go in each update."""
    target_period: int = 1
    """Updates in which they go it together, in one step: for very small rates, which
    float32 loses."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_between(self, gamma=(0, 1), target_rate=(0, 1))
        counts = dict.fromkeys(("n_step", "num_critics", "target_period"), 1)
        return found + at_least(self, **counts) or self._lost_steps()

    def _lost_steps(self) -> list[str]:
        """That slow copies would stand still before they are where they should be."""
        rate, period = self.target_rate, self.target_period
        traced = not isinstance(rate, int | float) or not isinstance(period, int)
        if traced or not 0 < rate < 1 or 1 - (1 - rate) ** period >= _SHORTEST:
            return []
        needed = math.ceil(math.log1p(-10 * _SHORTEST) / math.log1p(-rate))
        return [
            f"target_rate = {rate} makes steps that float32 loses: with target_period ="
            f" {needed} they are longer, and rarer"
        ]


@dataclass(frozen=True)
class OffPolicyConfig(CriticConfig):
    """Hyperparameters that SAC, TD3 and DDPG all have."""

    warm_up: int = 1_000
    """Environment steps of all environments in which actions are drawn uniformly from
    their bounds."""
    eta: float = 0.9
    """Share of the maximum in the priority of a sequence, and 1 - eta of the mean."""
    record_priority: bool = False
    """Leave the priority of each row in the extras, at the parameters that acted."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems() + not_between(self, eta=(0, 1))
        return found + at_least(self, warm_up=0) + not_chosen(self)


@dataclass(frozen=True)
class SACConfig(OffPolicyConfig):
    """Hyperparameters of SAC."""

    read_if: ClassVar[ReadIf] = {"target_entropy": ("learn_temperature", (True,))}
    """What each of these fields is for: another one, and its values."""

    temperature: float = 1.0
    """alpha, what a nat of entropy is worth; the first one where it is learned."""
    learn_temperature: bool = True
    """Move it until the policy's entropy is `target_entropy`."""
    target_entropy: float | None = None
    """In nats, of actions in units of their bounds. None: -1 for each dimension."""

    def problems(self) -> list[str]:
        """What is out of range."""
        return super().problems() + above(self, temperature=0)


@dataclass(frozen=True)
class TD3Config(OffPolicyConfig):
    """Hyperparameters of TD3. Noise is in units of the bounds: half a width is 1."""

    read_if: ClassVar[ReadIf] = {
        "ladder_base": ("exploration", ("ladder",)),
        "ladder_exponent": ("exploration", ("ladder",)),
        "noise": ("exploration", ("constant",)),
    }
    """What each of these fields is for: another one, and its values."""

    policy_delay: int = 2
    """Updates of the critics for one of the policy."""
    target_period: int = 2
    """As above: by default copies move with the policy."""
    smoothing: float = 0.2
    """Standard deviation of the noise on actions in targets."""
    smoothing_clip: float = 0.5
    """The largest of it."""
    exploration: Literal["constant", "ladder"] = "constant"
    """How far actions are from the policy's. constant: all environments have the same
    noise. ladder: a constant one for each environment, as Ape-X has them."""
    noise: float = 0.1
    """Standard deviation of normal noise."""
    ladder_base: float = 0.4
    """Environment i of N has noise = base^(1 + exponent i / (N - 1))."""
    ladder_exponent: float = 3.0

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems() + not_between(self, ladder_base=(0, 1))
        lowest = dict.fromkeys(("noise", "smoothing", "smoothing_clip"), 0)
        return found + at_least(self, policy_delay=1, ladder_exponent=0, **lowest)


@dataclass(frozen=True)
class DDPGConfig(TD3Config):
    """Hyperparameters of DDPG: those of TD3, with one critic and no delay."""

    num_critics: int = 1
    target_period: int = 1
    policy_delay: int = 1
    smoothing: float = 0.0
