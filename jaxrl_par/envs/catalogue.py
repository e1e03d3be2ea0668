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
from typing import NamedTuple

from jaxrl_par.envs.sources import parsed
from jaxrl_par.envs.suites import table
from jaxrl_par.errors import RefusedError, nearest

_LIST = "_BUILTIN_ENV_IDS"


class Family(NamedTuple):
    """Environments of ours, named after their sizes: IMaze-9x9, MemoryChain-30. A
    family of tasks has the episodes of a trial for its last one: Bandits-5x10."""

    maker: str
    """Module and function, of all sizes; one for a square, none for the episodes."""
    sizes: tuple[range, ...]
    """Sizes that it accepts, as far as they are sensible."""
    usual: tuple[tuple[int, ...], ...]
    """Sizes that `names` lists."""
    is_square: bool = False
    """Both sizes are the same."""
    in_trials: bool = False
    """It makes tasks, and environments are trials in them."""


_EPISODES = _LENGTHS = range(1, 10_000)
FAMILIES = {
    "IMaze": Family("imaze.IMaze", (range(5, 1000, 2),) * 2, ((9, 9), (15, 15)), True),
    "MetaFetch": Family("meta_fetch.MetaFetch", (range(2, 1000),) * 2, ((7, 7),), True),
    "DynaMaze": Family("dyna_maze.DynaMaze", (range(6, 7), range(9, 10)), ((6, 9),)),
    "Grasping": Family("grasping.Grasping", (range(8, 1000),) * 2, ((16, 16),), True),
    "MemoryChain": Family("memory_chain.MemoryChain", (range(1, 1000),), ((30,),)),
    "LinearSystem": Family("tasks.linear_system.LinearSystem", (_LENGTHS,), ((50,),)),
    "PointMass": Family("tasks.point_mass.PointMass", (_LENGTHS,), ((50,),)),
    "Door": Family("tasks.door.Door", (_LENGTHS,), ((60,),)),
    "LQR": Family(
        "tasks.linear_quadratic.LinearQuadratic",
        (range(1, 100), range(1, 100)),
        usual=((1, 1), (2, 1)),
    ),
    "Bandits": Family(
        "tasks.bandits.bernoulli_bandits",
        (range(2, 1000), _EPISODES),
        usual=((5, 10), (5, 100)),
        in_trials=True,
    ),
    "RandomMDPs": Family(
        "tasks.mdps.random_mdps",
        (range(2, 1000), _EPISODES),
        usual=((10, 10),),
        in_trials=True,
    ),
    "Mazes": Family(
        "tasks.mazes.mazes",
        (range(5, 100, 4), _EPISODES),
        usual=((9, 5),),
        in_trials=True,
    ),
}


def names() -> tuple[str, ...]:
    """Environments that `make` knows, of ours only the usual sizes, and of suites those
    that are installed.

    MNISTBandit-bsuite downloads its images, and jumanji::Sokoban-v0 its levels.
    """
    suites = table.names().values()
    return (*own_names(), *gymnax_names(), *(x for known in suites for x in known))


def is_name(name: str) -> bool:
    """Whether `make` knows it: one of `names`, or of ours in another size, or several
    joined by "+"."""
    return all(map(_is_one, tasks(name)))


def unknown(name: str, kind: str = "environment") -> RefusedError:
    """The error for a name that `make` does not know, for the caller to raise."""
    wrong = next(x for x in tasks(name) if not _is_one(x))
    if table.is_of_a_suite(wrong):
        return table.refusal(wrong)
    hint = nearest(wrong, names()) or table.nearest_task(wrong) or "."
    known = sorted((*own_names(), *gymnax_names()))
    told = f"unknown {kind} {wrong!r}{hint} Known: {', '.join(known)}"
    return RefusedError(f"{told}; and those of suites: jaxrl-par list-envs")


def tasks(name: str) -> tuple[str, ...]:
    """Those that the name has: one, or several that one network learns."""
    return tuple(name.split("+"))


def _is_one(name: str) -> bool:
    if table.is_of_a_suite(name):
        return table.is_name(name)
    return family_and_sizes(name) is not None or name in gymnax_names()


def own_names() -> tuple[str, ...]:
    """Ours, in the usual sizes."""
    return tuple(
        f"{name}-{'x'.join(map(str, sizes))}"
        for name, family in FAMILIES.items()
        for sizes in family.usual
    )


def family_and_sizes(name: str) -> tuple[str, tuple[int, ...]] | None:
    """Of an environment of ours; a square has one size."""
    match = re.fullmatch(r"(\w+)-([1-9][0-9]{0,3})(?:x([1-9][0-9]{0,3}))?", name)
    if match is None or match[1] not in FAMILIES:
        return None
    family, sizes = FAMILIES[match[1]], tuple(int(x) for x in match.groups()[1:] if x)
    fits = len(sizes) == len(family.sizes)
    fits = fits and all(x in y for x, y in zip(sizes, family.sizes, strict=True))
    if family.is_square:
        fits, sizes = fits and len({*sizes}) == 1, sizes[:1]
    return (match[1], sizes) if fits else None


def gymnax_names() -> tuple[str, ...]:
    """Gymnax's."""
    # While it is imported in another thread it has none yet.
    listed = getattr(sys.modules.get("gymnax"), "registered_envs", None)
    if listed is not None:
        return tuple(listed)
    return _read_from_gymnax()


@cache
def _read_from_gymnax() -> tuple[str, ...]:
    spec = find_spec("gymnax")
    assert spec is not None and spec.origin is not None
    for node in parsed(Path(spec.origin).with_name("registration.py")).body:
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
