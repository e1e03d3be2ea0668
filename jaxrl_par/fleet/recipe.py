"""What a process makes its members from, and whether it is the same software there."""

import hashlib
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl_par.errors import RefusedError
from jaxrl_par.lazy import late

cloudpickle: Any = late("ray.cloudpickle")

_NUMERIC = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
)
"""Settings of JAX that decide about numbers."""
_CACHES = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
)


class Settings(NamedTuple):
    """What a process sets before it computes."""

    environ: dict[str, str]
    jax: dict[str, Any] | None
    """None: it computes without, and imports none."""
    path: list[str]
    """Where modules are found, besides."""


class Software(NamedTuple):
    """What has to be the same in all processes."""

    python: str
    jax: str
    jaxlib: str
    numpy: str
    jaxrl_par: str
    """A digest of its files: a version has many commits."""


class Recipe(NamedTuple):
    """What members are made from."""

    make: Callable[..., Any]
    """(key, *arguments) -> factory of members"""
    arguments: tuple[Any, ...]
    key: Any
    """That of the run, a `PRNGKey`, or for members without JAX the words of its
    root."""


@cache
def software() -> Software:
    """That of this process."""
    jax, jaxlib, numpy = map(importlib.metadata.version, ("jax", "jaxlib", "numpy"))
    package = digest(Path(__file__).resolve().parent.parent)
    return Software(platform.python_version(), jax, jaxlib, numpy, package)


def digest(folder: Path) -> str:
    """Of all Python files below it, 12 digits."""
    sha = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        sha.update(path.relative_to(folder).as_posix().encode() + b"\0")
        sha.update(path.read_bytes() + b"\0")
    return sha.hexdigest()[:12]


def differences(ours: Software, theirs: Software) -> list[str]:
    """A line for each that another process has otherwise."""
    return [
        f"{name} is {there} there and {here} here"
        for name, here, there in zip(Software._fields, ours, theirs, strict=True)
        if here != there
    ]


def packed(make: Callable[..., Any], arguments: tuple[Any, ...], key: Any) -> bytes:
    """A `Recipe`, as it is sent.

    Raises:
      RefusedError: some of it cannot be.
    """
    try:
        return cloudpickle.dumps(Recipe(make, arguments, key))
    except Exception as error:
        raise RefusedError(
            "the environments' maker and the agent must be functions that can be sent"
            " to other processes, without locks, files or simulators in them:"
            f" {type(error).__name__}: {error}"
        ) from error


def settings(
    xla_threads: int, *, shares_disk: bool, without_jax: bool = False
) -> Settings:
    """Of a process: one device, the CPU, and the numbers of this one.

    Args:
      shares_disk: whether it is on this machine, and has the same folders.
    """
    path = sys.path * shares_disk
    if without_jax:
        return Settings({}, None, path)
    import jax

    # Its actors have one device, whatever the learner has.
    count = r"--xla_force_host_platform_device_count=\S*"
    flags = re.sub(count, "", os.environ.get("XLA_FLAGS", "")).strip()
    environ = {"JAX_PLATFORMS": "cpu", "NPROC": str(xla_threads), "XLA_FLAGS": flags}
    # An actor's thread computes itself: handing over to another costs at each step.
    in_place = os.environ.get("JAX_CPU_ENABLE_ASYNC_DISPATCH", "0")
    environ["JAX_CPU_ENABLE_ASYNC_DISPATCH"] = in_place
    names = _NUMERIC + _CACHES * shares_disk
    given = {name: jax.config.values[name] for name in names}
    return Settings(environ, given, path)
