"""What TRPO and Q-Prop are asked for."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxrl_par.errors import ReadIf, at_least, at_most, not_between
from jaxrl_par.trust_region import TrustRegionConfig


@dataclass(frozen=True)
class TRPOConfig(TrustRegionConfig):
    """Hyperparameters of TRPO."""

    gamma: float = 0.99
    """Discount per environment step."""
    gae_lambda: float = 0.97
    """Decay of TD errors in an advantage: less bias towards 1, less noise towards 0."""
    normalize_advantages: bool = True
    """To mean 0 and standard deviation 1 over the joint batch."""
    value_steps: int = 40
    """Steps of the value function's optimizer after each of the policy, each on all
    rows."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems() + not_between(self, gamma=(0, 1), gae_lambda=(0, 1))
        found += at_least(self, value_steps=1)
        return found + at_most(self, value_steps=10**6)


@dataclass(frozen=True)
class QPropConfig(TRPOConfig):
    """Hyperparameters of Q-Prop's policy: those of TRPO, and how much is believed."""

    read_if: ClassVar[ReadIf] = {
        **TrustRegionConfig.read_if,
        "covariance": ("variant", ("conservative", "aggressive")),
    }
    """What each of these fields is for: another one, and its values."""

    variant: Literal["conservative", "aggressive", "adaptive", "one"] = "conservative"
    """eta, the weight of the control variate. one: 1. adaptive: cov / var, which leaves
    the least variance, over the joint batch. conservative: 1 where the covariance is
    above 0, else 0. aggressive: its sign."""
    covariance: Literal["batch", "rows"] = "batch"
    """What decides its sign. rows: each row's one sample, as in the paper, which biases
    the gradient, since eta then depends on the action. batch: all rows together."""
