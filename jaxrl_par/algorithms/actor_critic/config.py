"""What SAC, TD3, DDPG and NAF, and critics of other policies, are asked for."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxrl_par.errors import ReadIf, above, at_least, not_between, not_chosen
from jaxrl_par.targets import lost_steps


@dataclass(frozen=True)
class TargetsConfig:
    """What is learned from replay: targets, and slow copies that they are of."""

    gamma: float = 0.99
    """Discount per environment step."""
    n_step: int = 1
    """Rewards in a target, before it bootstraps."""
    target_rate: float = 0.005
    """Share of the way that slow copies go in each update."""
    target_period: int = 1
    """Updates in which they go it together, in one step: for very small rates, which
    float32 loses."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_between(self, gamma=(0, 1), target_rate=(0, 1))
        found += at_least(self, n_step=1, target_period=1)
        return found or lost_steps(self.target_rate, self.target_period)


@dataclass(frozen=True)
class CriticConfig(TargetsConfig):
    """Hyperparameters of critics that learn from replay."""

    num_critics: int = 2
    """Critics, the lowest of which is believed."""

    def problems(self) -> list[str]:
        """What is out of range."""
        return super().problems() + at_least(self, num_critics=1)


@dataclass(frozen=True)
class OffPolicyConfig(TargetsConfig):
    """And those of who acts, too, and learns from replay."""

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
class ActorCriticConfig(OffPolicyConfig, CriticConfig):
    """Hyperparameters of who has critics beside a policy."""


@dataclass(frozen=True)
class NoiseConfig(OffPolicyConfig):
    """And how actions differ from those of a deterministic policy. Noise is in units of
    the bounds: half a width is 1."""

    read_if: ClassVar[ReadIf] = {
        "ladder_base": ("exploration", ("ladder",)),
        "ladder_exponent": ("exploration", ("ladder",)),
        "noise": ("exploration", ("constant", "process")),
        "reversion": ("exploration", ("process",)),
    }
    """What each of these fields is for: another one, and its values."""

    exploration: Literal["constant", "ladder", "process", "covariance"] = "constant"
    """constant: each action has new normal noise, of all environments as much. ladder:
    of each environment another amount, as Ape-X has them. process: noise of
    Ornstein and Uhlenbeck, which goes on within an episode, so that actions drift."""
    noise: float = 0.1
    """Standard deviation of normal noise; of the process, of what a step adds."""
    reversion: float = 0.15
    """Share of the process's noise that a step takes away (theta, for steps of 1)."""
    ladder_base: float = 0.4
    """Environment i of N has noise = base^(1 + exponent i / (N - 1))."""
    ladder_exponent: float = 3.0

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems() + not_between(
            self, ladder_base=(0, 1), reversion=(0, 1)
        )
        return found + at_least(self, ladder_exponent=0, noise=0)


@dataclass(frozen=True)
class SACConfig(ActorCriticConfig):
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
class TD3Config(NoiseConfig, ActorCriticConfig):
    """Hyperparameters of TD3. Noise is in units of the bounds: half a width is 1."""

    exploration: Literal["constant", "ladder", "process"] = "constant"
    """As above."""
    policy_delay: int = 2
    """Updates of the critics for one of the policy."""
    target_period: int = 2
    """As above: by default copies move with the policy."""
    smoothing: float = 0.2
    """Standard deviation of the noise on actions in targets."""
    smoothing_clip: float = 0.5
    """The largest of it."""

    def problems(self) -> list[str]:
        """What is out of range."""
        lowest = {"policy_delay": 1, "smoothing": 0, "smoothing_clip": 0}
        return super().problems() + at_least(self, **lowest)


@dataclass(frozen=True)
class DDPGConfig(TD3Config):
    """Hyperparameters of DDPG: those of TD3, with one critic and no delay."""

    num_critics: int = 1
    target_period: int = 1
    policy_delay: int = 1
    smoothing: float = 0.0


@dataclass(frozen=True)
class NAFConfig(NoiseConfig):
    """Hyperparameters of NAF. Noise is in units of the bounds: half a width is 1."""

    read_if: ClassVar[ReadIf] = {
        **NoiseConfig.read_if,
        "noise": ("exploration", ("constant", "process", "covariance")),
    }
    """What each of these fields is for: another one, and its values."""

    exploration: Literal["constant", "ladder", "process", "covariance"] = "process"
    """As above. covariance: noise of the covariance P^-1, of rewards before they are
    scaled: more along directions in which Q is flat. `noise` scales it."""
    noise: float = 0.2
    """As above."""
    reward_scale: float = 0.1
    """What rewards are multiplied by. Until V has come to values that are far from 0,
    every error pushes mu away from what was acted, and so to its bounds."""

    def problems(self) -> list[str]:
        """What is out of range."""
        return super().problems() + above(self, reward_scale=0)
