"""How much memory a buffer takes, and how much there is: known before it is taken."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from jaxrl_par.errors import RefusedError


def num_bytes(shapes: PyTree) -> int:
    """What arrays of these shapes and dtypes take together."""
    leaves = jax.tree.leaves(shapes)
    return sum(prod(x.shape) * x.dtype.itemsize for x in leaves)


def accepted(
    *, rows: int, each: int, parts: str, together: int, free: int | None, added: int
) -> str:
    """A sentence about a buffer that fits.

    Args:
      rows: its capacity, of all parts.
      each: bytes of one part.
      parts: "1 device", "4 workers".
      together: parts that are in the same memory.
      free: bytes of that memory, None where nobody knows.
      added: rows that a capacity is a multiple of.

    Raises:
      RefusedError: it does not fit; the largest capacity that does is told.
    """
    number = int(parts.split()[0])
    where = f" on each of {parts}" if number > 1 else ""
    told = f"{rows:,} rows, {spelled(each)}{where}"
    if free is None or each * together <= free:
        return f"replay: {told}"
    most = rows * free // (each * together) // added * added
    remedy = f"at most {most:,} would fit" if most else "not even the smallest fits"
    raise RefusedError(
        f"replay.capacity: {told}, and {spelled(free)} are free: {remedy}"
    )


def spelled(size: int) -> str:
    """A number of bytes, such as 1.2 GB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size} bytes"


def free_bytes(device: Any) -> int | None:
    """What is free where the device has its arrays, None where nobody knows.

    An accelerator reports its own. On CPU it is what the machine can give without
    swapping, or what is left of a container's limit, if that is less.

    Args:
      device: as `jax.devices` gives them.
    """
    if stats := device.memory_stats():
        limit, used = stats.get("bytes_limit"), stats.get("bytes_in_use", 0)
        return None if limit is None else limit - used
    return min(_host_limits(Path("/")), default=None)


def _host_limits(root: Path) -> Iterator[int]:
    """All that bound what this process can still take.

    Args:
      root: that of the file system, another one in tests.
    """
    found = _first_number(root / "proc/meminfo", r"MemAvailable:\s+(\d+) kB")
    if found is not None:
        yield 1024 * found
    else:
        # Not Linux: all there is, of which others have some.
        with suppress(AttributeError, ValueError, OSError):
            yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    groups = _text(root / "proc/self/cgroup")
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names = "memory.max", "memory.current", "inactive_file"
            mounts = ("sys/fs/cgroup", "sys/fs/cgroup/unified")
        elif "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes"
            names = (*names, "total_inactive_file")
            mounts = ("sys/fs/cgroup/memory",)
        else:
            continue
        for mount in mounts:
            # Any group above may have the limit. A container sees its own as the root.
            for folder in (path.strip("/"), *map(str, Path(path.strip("/")).parents)):
                yield from _left(root / mount / folder, *names)


def _left(group: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    most = _first_number(group / limit, r"^(\d+)$")
    used = _first_number(group / usage, r"^(\d+)$")
    if most is not None and used is not None:
        # Files that were read and can be dropped are no use of it.
        dropped = _first_number(group / "memory.stat", rf"^{cache} (\d+)$") or 0
        yield max(most - used + dropped, 0)


def _first_number(path: Path, pattern: str) -> int | None:
    found = re.search(pattern, _text(path), re.MULTILINE)
    return int(found[1]) if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
