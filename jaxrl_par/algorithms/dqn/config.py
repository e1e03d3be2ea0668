"""What DQN is asked for."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxrl_par.algorithms.dqn import values
from jaxrl_par.algorithms.dqn.values import Values
from jaxrl_par.errors import ReadIf, above, at_least, not_between, not_chosen


@dataclass(frozen=True)
class DQNConfig:
    """Hyperparameters of DQN."""

    read_if: ClassVar[ReadIf] = {
        "epsilon_start": ("exploration", ("annealed",)),
        "epsilon_final": ("exploration", ("annealed",)),
        "anneal_steps": ("exploration", ("annealed",)),
        "ladder_base": ("exploration", ("ladder",)),
        "ladder_exponent": ("exploration", ("ladder",)),
        "target_period": ("polyak_rate", (None,)),
        "huber_delta": ("values", ("expected", "quantile")),
        "num_atoms": ("values", ("categorical", "quantile")),
        "v_min": ("values", ("categorical",)),
        "v_max": ("values", ("categorical",)),
    }
    """What each of these fields is for: another one, and its values."""

    gamma: float = 0.99
    """Discount per environment step."""
    n_step: int = 1
    """Rewards in a target, before it bootstraps."""
    double: bool = True
    """The online network chooses the action whose value the target network gives."""
    values: Literal["expected", "categorical", "quantile"] = "expected"
    """What the network gives for each action: its value, or the distribution of the
    return, as probabilities of atoms (C51) or as quantiles (QR-DQN)."""
    num_atoms: int = 51
    """Atoms or quantiles; the network must have as many."""
    v_min: float = -10.0
    v_max: float = 10.0
    """Returns at the first and the last atom, those beyond count there; in the space of
    h with `rescale`."""
    huber_delta: float | None = 1.0
    """The error above which the loss grows linearly, kappa of quantiles. None: squared
    errors, not of quantiles."""
    target_period: int = 100
    """Updates between two copies of the parameters to the target network."""
    polyak_rate: float | None = None
    """In place of copies: the target moves this share of the way in every update."""
    exploration: Literal["annealed", "ladder"] = "annealed"
    """annealed: one epsilon that falls linearly. ladder: a constant one for each
    environment, as Ape-X has them."""
    epsilon_start: float = 1.0
    epsilon_final: float = 0.05
    anneal_steps: int = 10_000
    """Environment steps of all environments until epsilon is at its final value."""
    ladder_base: float = 0.4
    """Environment i of N has epsilon = base^(1 + exponent i / (N - 1))."""
    ladder_exponent: float = 7.0
    start: Literal["stored", "zero"] = "stored"
    """Memory before a window's first row. stored: that of whoever acted, with the
    parameters of then. zero: none, as where an episode begins."""
    burn_in: int = 0
    """Rows on which memory is refreshed, without a gradient: those of the windows."""
    rescale: float | None = None
    """eps of h, in which values are learned; R2D2 has 1e-3. None: values themselves."""
    eta: float = 0.9
    """Share of the maximum in the priority of a sequence, and 1 - eta of the mean."""
    record_carry: bool = False
    """Leave the carry before each row in the extras, for windows that begin there."""
    record_priority: bool = False
    """Leave the priority of each row in the extras, at the parameters that acted."""
    measure_staleness: bool = False
    """Tell how far values are from those with the memory of acting, which is then kept
    for every row: `dqn.sequences`."""

    def problems(self) -> list[str]:
        unit = ("gamma", "epsilon_start", "epsilon_final", "ladder_base")
        found = not_between(self, **dict.fromkeys((*unit, "eta"), (0, 1)))
        found += not_between(self, polyak_rate=(0, 1)) + not_chosen(self)
        found += above(self, huber_delta=0, rescale=0)
        counts = {"n_step": 1, "target_period": 1, "anneal_steps": 1, "burn_in": 0}
        found += at_least(self, ladder_exponent=0, **counts)
        return found + self._distribution_problems()

    def _distribution_problems(self) -> list[str]:
        if self.values == "expected":
            return []
        if self.values == "quantile":
            found = at_least(self, num_atoms=1)
            if self.huber_delta is None:
                found.append("huber_delta must be a number for quantiles, got None")
            return found
        return at_least(self, num_atoms=2) + above(self, v_max=self.v_min)

    def kind(self) -> Values:
        """The kind of values."""
        if self.values == "categorical":
            atoms = (self.num_atoms, self.v_min, self.v_max)
            return values.categorical(*atoms, self.rescale)
        if self.values == "quantile":
            assert self.huber_delta is not None
            kappa = self.huber_delta
            return values.quantile(self.num_atoms, kappa, self.rescale)
        return values.expected(self.huber_delta)
