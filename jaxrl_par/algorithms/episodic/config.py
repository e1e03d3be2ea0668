"""What episodic control is asked for."""

from dataclasses import dataclass

from jaxrl_par.errors import above, at_least, at_most, not_between


@dataclass(frozen=True)
class EpisodicConfig:
    """Hyperparameters that MFEC and NEC share."""

    gamma: float = 0.99
    """Discount per environment step."""
    capacity: int = 5_000
    """Entries of each action. An entry takes 4 (D + 2) bytes, with keys of D numbers,
    on every device."""
    num_neighbours: int = 11
    """k: entries that a value is made of, at most `capacity`. The papers take 11 for
    MFEC and 50 for NEC; on CPU a lookup of 50 takes five times as long."""
    key_width: int = 64
    """D, numbers of a key."""
    epsilon_start: float = 1.0
    epsilon_final: float = 0.005
    """Where the rate of exploration falls to, linearly."""
    anneal_steps: int = 5_000
    """Environment steps of all environments until it is there."""

    def problems(self) -> list[str]:
        """What is out of range."""
        unit = dict.fromkeys(("gamma", "epsilon_start", "epsilon_final"), (0, 1))
        counts = dict.fromkeys(("capacity", "num_neighbours", "key_width"), 1)
        found = not_between(self, **unit) + at_least(self, anneal_steps=1, **counts)
        if not found:
            found += at_most(self, num_neighbours=self.capacity)
        return found


@dataclass(frozen=True)
class MFECConfig(EpisodicConfig):
    """Hyperparameters of model-free episodic control."""

    longest: int | None = None
    """Steps of the longest episode, whose rows are kept until its return is known.
    None: the environment's time limit."""

    def problems(self) -> list[str]:
        """What is out of range."""
        return super().problems() + at_least(self, longest=1)


@dataclass(frozen=True)
class NECConfig(EpisodicConfig):
    """Hyperparameters of neural episodic control."""

    key_width: int = 32
    n_step: int = 8
    """N: rewards in a target, before it bootstraps; fewer where an unroll ends."""
    delta: float = 1e-3
    """In the kernel 1 / (squared distance + delta)."""
    alpha: float = 0.1
    """Share of the way to a target that a value moves when its key is written again."""
    value_rate: float = 1.0
    """Rate at which values follow the gradient, by plain steps: moments of an entry
    would outlive it. The loss is a mean over rows."""
    key_rate: float = 1e-3
    """That of keys, which move by no more than sqrt(delta), the kernel's width: nearer
    than that, its gradient is as large as 1 / delta^1.5."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems() + not_between(self, alpha=(0, 1))
        found += at_least(self, n_step=1, value_rate=0, key_rate=0)
        return found + above(self, delta=0)
