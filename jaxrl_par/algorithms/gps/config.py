"""Settings of guided policy search."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxrl_par.errors import ReadIf, above, at_least, not_chosen


@dataclass(frozen=True)
class PriorConfig:
    """The mixture of Gaussians that the regression of dynamics begins from."""

    num_clusters: int = 8
    num_steps: int = 4
    """Of expectation and maximisation, in each iteration."""
    strength: float = 1.0
    """Samples that it is worth in the regression of each step."""

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, num_clusters=1, num_steps=1) + above(self, strength=0)


@dataclass(frozen=True)
class GPSConfig:
    """Hyperparameters of guided policy search."""

    read_if: ClassVar[ReadIf] = {
        "acts": ("method", ("mdgps",)),
        "dual_rate": ("method", ("badmm",)),
        "first_weight": ("method", ("badmm",)),
    }
    """What each of these fields is for: another one, and its values."""

    method: Literal["mdgps", "badmm"] = "mdgps"
    """mdgps: controllers stay near the global policy as it is. badmm: near what they
    were, drawn to the global policy by multipliers, and it to them."""
    acts: Literal["controllers", "policy"] = "controllers"
    """Whose rollouts all learn from. policy: the global one's, which so is taught where
    it comes to by itself, and learns slower. With badmm the controllers act."""
    kl_step: float = 0.5
    """Divergence that a controller's step may have at first, in nats for each step of
    an episode; all are bounded together."""
    smallest_step: float = 0.1
    largest_step: float = 2.0
    """Between so many times `kl_step` the bound moves: it grows where costs fall as
    predicted, and shrinks where they do not."""
    initial_std: float = 1.0
    """Of the first controllers' actions, around 0."""
    smallest_std: float = 0.05
    """To which controllers become certain, and no more: without noise nobody learns
    dynamics, and from a certain one every step would be too far."""
    prior: PriorConfig = PriorConfig()
    dual_rate: float = 0.1
    """Of the multipliers."""
    first_weight: float = 0.01
    """Of the divergence between controllers and the global policy, beside their costs;
    it doubles where they do not come nearer, and halves where they come fast."""

    @property
    def on_policy(self) -> bool:
        """Whether the global policy acts."""
        return self.method == "mdgps" and self.acts == "policy"

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_chosen(self) + above(self, kl_step=0, smallest_step=0)
        found += above(self, initial_std=0, first_weight=0)
        found += at_least(self, largest_step="smallest_step", dual_rate=0)
        found += at_least(self, smallest_std=0)
        return found
