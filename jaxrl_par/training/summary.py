"""What a run comes to, for people and for programs."""

import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import jax

from jaxrl_par.training.files import (
    FileError,
    line_of,
    read_object,
    shortened,
    write_json,
)
from jaxrl_par.training.rows import Row, scalar


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
    evaluation: dict[str, float | None]
    """Results of the final evaluation, by name; None where not finite."""

    @classmethod
    def read(cls, path: Path) -> "Summary":
        """The summary that a finished run left.

        Raises:
          FileError: the file is no such summary.
        """
        found = read_object(path)
        hints = get_type_hints(cls)
        for name in hints.keys() | found.keys():
            if name not in hints or not _fits(found.get(name), hints[name]):
                told = shortened(found[name]) if name in found else "nothing"
                raise FileError(
                    f"{path}, line {line_of(path, name)}: no summary of a run, whose"
                    f" {name} is {told}"
                )
        return cls(**found)

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))

    def text(self) -> str:
        """The lines that a run ends with."""
        results = self.evaluation.items()
        lines = {
            "return": _shown(self.episode_return),
            **{
                n.replace("_", " "): _shown(x) if "return" in n else _short(x)
                for n, x in results
            },
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


def _short(number: float | None) -> str:
    return "-" if number is None else f"{number:.3g}"


def _shown(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f}"


def _fits(value: Any, hint: Any) -> bool:
    if hint is float:
        return type(value) in (int, float)
    if get_origin(hint) is dict:
        numbers = value.values() if isinstance(value, dict) else ["none"]
        return all(_fits(x, float | None) for x in numbers)
    if options := get_args(hint):
        return any(_fits(value, option) for option in options)
    return type(value) is hint


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
