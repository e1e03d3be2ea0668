"""What a run comes to, for people and for programs."""

import json
import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax

from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import write_json
from jaxrl_par.training.metrics import Row, scalar


@dataclass(frozen=True)
class Summary:
    """The end of a run, as in its `summary.json`."""

    name: str
    updates: int
    env_steps: int
    episode_return: float | None
    """Mean over the last tenth of the run, None if no episode ended."""
    steps_per_second: float
    """Environment steps for each second of training, without compilation."""
    seconds: float
    """Time of training, over all processes that the run took."""
    compile_seconds: float
    """Time that the process which wrote this spent compiling."""
    xla_threads: int
    """Threads that XLA had to compute with on CPU."""
    peak_memory_bytes: int
    """Peak of the fullest device, or of the process where a device does not say."""
    skipped: int
    """Gradients that were not finite and therefore not applied."""
    state_sha256: str
    """Hash of the final state: runs that agree in it are equal bit for bit."""
    evaluation: dict[str, float]
    """Results of the final evaluation, by name."""

    @classmethod
    def read(cls, path: Path) -> "Summary":
        """The summary that a finished run left.

        Raises:
          TrainingError: the file is no such summary.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise TrainingError(f"{path} is no summary of a run: {error}") from error

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))

    def text(self) -> str:
        """The lines that a run ends with."""
        value = "-" if self.episode_return is None else f"{self.episode_return:.1f}"
        results = self.evaluation.items()
        lines = {
            "return": value,
            **{name.replace("_", " "): f"{x:.1f}" for name, x in results},
            "environment steps": f"{self.env_steps:,}",
            "steps/s": f"{self.steps_per_second:,.0f}",
            "training": f"{self.seconds:.1f} s",
            "compilation": f"{self.compile_seconds:.1f} s",
            "threads of XLA": str(self.xla_threads),
            "peak memory": f"{self.peak_memory_bytes / 1e6:,.0f} MB",
        }
        if self.skipped:
            lines["skipped"] = f"{self.skipped} gradients that were not finite"
        return "\n".join(f"  {name:20} {text}" for name, text in lines.items())


def latest_return(rows: Sequence[Row]) -> float | None:
    """Mean of `episode_return` over the last tenth of the rows that have one."""
    values = [scalar(row.get("episode_return")) for row in rows]
    known = [x for x in values if x is not None]
    tail = known[-max(len(known) // 10, 1) :]
    return sum(tail) / len(tail) if tail else None


def xla_threads() -> int:
    """As many as NPROC says, which XLA reads when it starts, or as processors."""
    chosen = os.environ.get("NPROC", "")
    if chosen.isdigit():
        return int(chosen)
    # macOS does not say which of its processors a process may use.
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return len(usable(0))


def peak_memory_bytes() -> int:
    """The most memory in use so far, of a device if it counts, else of the process."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [x["peak_bytes_in_use"] for x in stats if "peak_bytes_in_use" in x]
    if peaks:
        return max(peaks)
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024
