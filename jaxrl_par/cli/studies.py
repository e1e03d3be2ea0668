"""What studies and benchmarks have in common: cases that are kept, and the machine."""

import os
import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import make_folder, read_object, write_json

_VARIABLES = ("XLA_FLAGS", "OMP_NUM_THREADS", "NPROC")
_LIBRARIES = ("jax", "jaxlib", "flax", "gymnax", "numpy")


def kept_cases(
    folder: Path, planned: Iterable[tuple[str, Callable[[], dict[str, Any]]]]
) -> list[dict[str, Any]]:
    """Runs the cases that the folder lacks, and returns all that it has, by name.

    Each is written as soon as it is done: started again, a study goes on.

    Args:
      planned: names, and functions that run the case and return what JSON can hold.

    Raises:
      TrainingError: there is no case at all.
      FileError, DiskFullError: a case cannot be written, or one that was is damaged.
    """
    make_folder(folder)
    for name, run in planned:
        path = folder / f"{name}.json"
        if not path.exists():
            write_json(path, run())
    found = [read_object(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise TrainingError(f"no case has been trained in {folder}")
    return found


def machine() -> dict[str, Any]:
    """What this ran on, and with what: to be written beside figures."""
    usable = getattr(os, "sched_getaffinity", None)  # not on every system
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "cores_used": len(usable(0)) if usable else os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "environment": {name: os.environ.get(name, "") for name in _VARIABLES},
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _LIBRARIES},
    }
