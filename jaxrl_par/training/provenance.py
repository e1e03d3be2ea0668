"""Where a run comes from: what started it, from which source, with which libraries."""

import os
import platform
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

KEY = "provenance"
"""Its name in `config.json`. It is no setting: a run resumes whatever it says."""

_PRESETS = "jaxrl_par.presets."
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


def provenance(args: Any) -> dict[str, Any]:
    """For a run with these settings, what JSON can hold:

    experiment  as `experiment_name`
    command     what the process was started with; None in a session
    versions    of Python, jaxrl_par and the libraries that decide its bits
    machine     as `machine`
    commit      of the experiment's source or else of jaxrl_par's, with "-dirty" if
                files differ from it; None where git knows neither
    """
    config, package = type(args), import_module("jaxrl_par")
    return {
        "experiment": experiment_name(config),
        "command": _command(),
        "versions": versions(),
        "machine": machine(),
        "commit": _commit(_source(config)) or _commit(package.__file__),
    }


def versions() -> dict[str, str]:
    """Of Python, jaxrl_par and the libraries that decide the bits of a run."""
    package = import_module("jaxrl_par")
    own = {"python": platform.python_version(), "jaxrl_par": package.__version__}
    return own | {name: version(name) for name in _LIBRARIES}


def machine() -> dict[str, Any]:
    """Processor, cores, and the devices of all processes."""
    usable = getattr(os, "sched_getaffinity", None)  # not on every system
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "cores_used": len(usable(0)) if usable else os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
    }


def experiment_name(config: type) -> str:
    """A preset's name; else the module that defines the config; else the script."""
    module = config.__module__
    if module.startswith(_PRESETS):
        return module.removeprefix(_PRESETS)
    if module not in ("__main__", "builtins") and not module.startswith("jaxrl_par."):
        return module
    return Path(script).name if (script := _script()) else "session"


def _script() -> str | None:
    """The file that was started; None in a notebook or another session."""
    return getattr(sys.modules["__main__"], "__file__", None)


def _command() -> str | None:
    if _script() is None:
        return None
    spec = sys.modules["__main__"].__spec__
    program = Path(sys.argv[0])
    first = [program.name if program.is_absolute() else str(program)]
    if spec is not None:
        first = ["python", "-m", spec.name.removesuffix(".__main__")]
    return shlex.join([*first, *sys.argv[1:]])


def _source(config: type) -> str | None:
    return getattr(sys.modules.get(config.__module__), "__file__", None)


def _commit(source: str | None) -> str | None:
    """Of the tree that the file belongs to."""
    if source is None:
        return None
    path = Path(source).absolute()
    try:
        _git(path.parent, "ls-files", "--error-unmatch", path.name)
        return _git(
            path.parent, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"
        )
    # No git, no tree, a file that is not of it, or a tree that takes git too long.
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=5,
    )
    return done.stdout.strip()
