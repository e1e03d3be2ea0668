"""Names of tasks, read from the source of a suite: none is imported for it.

Each function takes the folder of a suite's package, and finds nothing where the suite
no longer says it in this way.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrl_par.envs.sources import parsed

SELF_PLAY = "-self-play"
"""Behind the name of a game that the agent plays against itself."""
HIDDEN = {"kuhn_poker", "leduc_holdem", "sparrow_mahjong", "bridge_bidding", "mahjong"}
"""Games of pgx in which players know different things."""
_ALONE = {"2048"}


def pgx(folder: Path) -> tuple[str, ...]:
    """Those of `pgx.make`, which lacks bridge, and games of two with open cards once
    more, as self-play."""
    games = [*_strings(assigned(folder / "core.py", "EnvId"))]
    games = [x for x in games if x != "bridge_bidding"]
    single = {x for x in games if x.startswith("minatar-")} | _ALONE
    both = [x + SELF_PLAY for x in games if x not in single | HIDDEN]
    return (*games, *both)


def registered(folder: Path) -> tuple[str, ...]:
    """Those that the package gives to `register(id=...)` as it is imported."""
    found = []
    for node in ast.walk(parsed(folder / "__init__.py")):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "register":
            ids = [word.value for word in node.keywords if word.arg == "id"]
            found += [x for y in ids for x in _strings(y)]
    return tuple(found)


def brax(folder: Path) -> tuple[str, ...]:
    """Those of `brax.envs.get_environment`."""
    return _keys(assigned(folder / "envs" / "__init__.py", "_envs"))


def playground(folder: Path) -> tuple[str, ...]:
    """Those of the DeepMind Control Suite. All others fetch models from the network."""
    suite = folder / "_src" / "dm_control_suite"
    return _keys(assigned(suite / "__init__.py", "_envs"))


def craftax(folder: Path) -> tuple[str, ...]:
    """Those that its maker compares a name with, but with a reset of their own."""
    found = dict.fromkeys(_strings(parsed(folder / "craftax_env.py")))
    return tuple(x for x in found if x.endswith("-v1") and "AutoReset" not in x)


def navix(folder: Path) -> tuple[str, ...]:
    """Those that its modules register."""
    modules = sorted((folder / "environments").glob("[!_]*.py"))
    texts = (x.read_text("utf-8") for x in modules)
    return tuple(x for y in texts for x in re.findall(r'register_env\(\s*"(.+?)"', y))


def octax(folder: Path) -> tuple[str, ...]:
    """A game for each module that names its program, and each level of the others."""
    modules = sorted((folder / "environments").glob("[!_]*.py"))
    texts = {x.stem: x.read_text("utf-8") for x in modules}
    alone = {x for x, text in texts.items() if re.search("^rom_file", text, re.M)}
    programs = (x.stem for x in (folder.parent / "roms").glob("*.ch8"))
    levels = (x for x in programs if x.rstrip("0123456789") in texts.keys() - alone)
    return tuple(sorted({*alone, *(x for x in levels if x[-1].isdigit())}))


def assigned(path: Path, name: str) -> ast.AST | None:
    """What a module assigns to the name."""
    for node in parsed(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else ()
        if name in map(ast.unparse, targets):
            return node
    return None


def _keys(node: Any) -> tuple[str, ...]:
    """Of the dictionary that is assigned."""
    keys = node.value.keys if node and isinstance(node.value, ast.Dict) else ()
    return tuple(x for key in keys for x in _strings(key))


def _strings(node: Any) -> Iterator[str]:
    for part in ast.walk(node) if node else ():
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
