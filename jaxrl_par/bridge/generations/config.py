"""How many workers there are, and how a generation is divided among them."""

from dataclasses import dataclass

from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.errors import at_least, at_most


@dataclass(frozen=True)
class PartsConfig:
    """How a generation is divided, and when it closes."""

    num_parts: int | None = None
    """Parts of a generation, each with as many pairs, and an episode of the parameters
    as they are. Who is done with one takes the next. None: one for each worker."""
    quorum: int | None = None
    """Parts after which a generation closes. What comes later is dropped, and counted:
    slow is seldom random, so its mean fitness is told. None: all of them."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_parts=1, quorum=1)
        found += at_most(self, num_parts=2**20)
        if self.quorum is not None and self.num_parts is not None and not found:
            found += at_most(self, quorum=self.num_parts)
        return found


@dataclass(frozen=True)
class GenerationsConfig:
    """Workers, and what they divide among them."""

    num_workers: int = 4
    parts: PartsConfig = PartsConfig()
    supervision: SupervisionConfig = SupervisionConfig()

    @property
    def num_parts(self) -> int:
        """Parts of a generation."""
        return self.parts.num_parts or self.num_workers

    @property
    def quorum(self) -> int:
        """Parts that are learned from."""
        return self.parts.quorum or self.num_parts

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_workers=1) + at_most(self, num_workers=4096)
        parts, quorum = self.parts.num_parts, self.parts.quorum
        if not found and parts is None and quorum and quorum > self.num_workers:
            found.append(
                "parts.quorum must be at most the parts of a generation,"
                f" {self.num_workers}, got {quorum}"
            )
        return found
