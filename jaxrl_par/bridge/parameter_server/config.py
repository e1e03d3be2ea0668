"""How many workers there are, and how they share parameters."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.errors import ReadIf, at_least, at_most, not_chosen
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.loops.outliers import OutlierConfig


@dataclass(frozen=True)
class WorkersConfig:
    """How many workers there are, and how they share parameters."""

    read_if: ClassVar[ReadIf] = {"num_shards": ("store", ("server",))}
    """What each of these fields is for: another one, and its values."""

    num_workers: int = 4
    """Threads, each with environments and a copy of the parameters."""
    store: Literal["lock", "hogwild", "server"] = "lock"
    """lock: one worker at a time updates. hogwild: all at once, in place, without a
    lock; updates may be lost, which is counted. server: a thread for each shard."""
    num_shards: int = 1
    """Server: parts of the parameters, each with a version of its own."""
    staleness: StalenessConfig = StalenessConfig()
    """What becomes of gradients whose parameters are old."""
    outliers: OutlierConfig = OutlierConfig()
    """What becomes of gradients whose loss is far above those before."""
    supervision: SupervisionConfig = SupervisionConfig()

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_chosen(self) + at_least(self, num_workers=1, num_shards=1)
        found += at_most(self, num_workers=4096, num_shards=4096)
        if self.num_shards > 1 and self.store != "server":
            found.append(
                f"num_shards is for store = server; {self.store} has one, got"
                f" {self.num_shards}"
            )
        return found
