"""Which environments there are. Nothing here imports JAX, or what it only names.

Importing gymnax starts a JAX backend. So that a wrong name is refused before a device
is touched, gymnax's names are read from its source unless it is imported already.
"""

import ast
import re
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import NamedTuple

_LIST = "_BUILTIN_ENV_IDS"
_PARSING = Lock()
"""Python 3.11 does not parse in two threads at once, and each actor asks."""


class Family(NamedTuple):
    """Environments of ours, named after their size: IMaze-9x9, MemoryChain-30."""

    module: str
    sizes: range
    """Sizes that the constructor accepts, as far as they are sensible."""
    usual: tuple[int, ...]
    """Sizes that `names` lists."""
    is_square: bool = True
    """The size is that of both sides, and the name has it twice."""

    def suffix(self, size: int) -> str:
        """What the name has after a hyphen."""
        return f"{size}x{size}" if self.is_square else str(size)


FAMILIES = {
    "IMaze": Family("imaze", range(5, 1000, 2), usual=(9, 15)),
    "MetaFetch": Family("meta_fetch", range(2, 1000), usual=(7,)),
    "MemoryChain": Family("memory_chain", range(1, 1000), (30,), is_square=False),
}


def names() -> tuple[str, ...]:
    """Environments that `make` knows, of ours only the usual sizes.

    MNISTBandit-bsuite downloads its images.
    """
    return (*own_names(), *gymnax_names())


def is_name(name: str) -> bool:
    """Whether `make` knows it: one of `names`, or of ours in another size, or several
    joined by "+"."""
    return all(map(_is_one, tasks(name)))


def tasks(name: str) -> tuple[str, ...]:
    """Those that the name has: one, or several that one network learns."""
    return tuple(name.split("+"))


def _is_one(name: str) -> bool:
    return family_and_size(name) is not None or name in gymnax_names()


def own_names() -> tuple[str, ...]:
    """Ours, in the usual sizes."""
    return tuple(
        f"{name}-{family.suffix(size)}"
        for name, family in FAMILIES.items()
        for size in family.usual
    )


def family_and_size(name: str) -> tuple[str, int] | None:
    """Of an environment of ours."""
    match = re.fullmatch(r"(\w+)-(([1-9][0-9]{0,3}).*)", name)
    if match is None or match[1] not in FAMILIES:
        return None
    family, size = FAMILIES[match[1]], int(match[3])
    fits = size in family.sizes and match[2] == family.suffix(size)
    return (match[1], size) if fits else None


def gymnax_names() -> tuple[str, ...]:
    """Gymnax's."""
    # While it is imported in another thread it has none yet.
    listed = getattr(sys.modules.get("gymnax"), "registered_envs", None)
    if listed is not None:
        return tuple(listed)
    with _PARSING:
        return _read_from_gymnax()


@cache
def _read_from_gymnax() -> tuple[str, ...]:
    spec = find_spec("gymnax")
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).with_name("registration.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == _LIST:
            return tuple(ast.literal_eval(node.value))
    raise ImportError(f"gymnax no longer lists its environments in {_LIST}")


def simulator_names() -> dict[str, tuple[str, ...]]:
    """Those of each library that is installed: Gymnasium, ALE and EnvPool."""
    found: dict[str, tuple[str, ...]] = {}
    if find_spec("gymnasium"):
        import gymnasium

        if find_spec("ale_py"):
            gymnasium.register_envs(import_module("ale_py"))
        known = sorted(gymnasium.registry)
        found["Gymnasium"] = tuple(x for x in known if not x.startswith("ALE/"))
        found["ALE"] = tuple(x for x in known if x.startswith("ALE/"))
    if find_spec("envpool"):
        found["EnvPool"] = tuple(sorted(import_module("envpool").list_all_envs()))
    return {library: there for library, there in found.items() if there}
