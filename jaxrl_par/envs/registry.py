"""Environments by name: our own, and all of gymnax."""

import ast
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.gymnax import from_gymnax
from jaxrl_par.errors import unknown_name

_LIST = "_BUILTIN_ENV_IDS"


class _Family(NamedTuple):
    """Environments of ours, named after their size: IMaze-9x9."""

    module: str
    sizes: range
    """Sizes that the constructor accepts, as far as they are sensible."""
    usual: tuple[int, ...]
    """Sizes that `names` lists."""


# Named here by strings, because their modules import gymnax.
_FAMILIES = {
    "IMaze": _Family("imaze", range(5, 1000, 2), usual=(9, 15)),
    "MetaFetch": _Family("meta_fetch", range(2, 1000), usual=(7,)),
}


def names() -> tuple[str, ...]:
    """Environments that `make` knows, of ours only the usual sizes.

    MNISTBandit-bsuite downloads its images. Importing gymnax starts a JAX backend. So
    that a wrong name is refused before a device is touched, its names are read from its
    source unless it is imported already.
    """
    own = [f"{x}-{n}x{n}" for x, family in _FAMILIES.items() for n in family.usual]
    return (*own, *_gymnax_names())


def is_name(name: str) -> bool:
    """Whether `make` knows it: one of `names`, or of ours in another size."""
    return _family_and_size(name) is not None or name in _gymnax_names()


def make(name: str, num_envs: int, **params: Any) -> Environment:
    """Copies of an environment, with statistics of their episodes.

    Args:
      name: as gymnax registers it, such as "CartPole-v1" or "Breakout-MinAtar", or one
        of ours: "IMaze-9x9", where any odd size from 5 will do, or "MetaFetch-7x7".
      params: what differs from the default, fields of the environment's parameters or
        arguments of its class.

    Raises:
      ValueError: no such environment or parameter, or a value is not allowed.
    """
    if not is_name(name):
        raise unknown_name("environment", name, names())
    constructor = _constructor(name)
    own = {*signature(constructor).parameters}
    env = constructor(**{x: params.pop(x) for x in own & params.keys()})
    defaults = env.default_params
    known = {*signature(type(defaults)).parameters}
    for unknown in params.keys() - known:
        raise unknown_name(f"parameter of {name}", unknown, known | own)
    for field, value in params.items():
        # gymnax selects between arrays, which must have the same dtype.
        if isinstance(value, int) and isinstance(getattr(defaults, field), float):
            params[field] = float(value)
    return from_gymnax(env, num_envs, defaults.replace(**params), name=name)


def _constructor(name: str) -> Callable[..., Any]:
    """Makes an environment with gymnax's interface from what cannot be traced."""
    sized = _family_and_size(name)
    if sized is None:
        import gymnax

        # Its own environments take nothing that one would want to change.
        return lambda: gymnax.make(name)[0]
    family, size = sized
    module = import_module(f"jaxrl_par.envs.{_FAMILIES[family].module}")
    return partial(getattr(module, family), size)


def _family_and_size(name: str) -> tuple[str, int] | None:
    match = re.fullmatch(r"(\w+)-([1-9][0-9]*)x\2", name)
    if match is None or match[1] not in _FAMILIES:
        return None
    family, size = match[1], int(match[2])
    return (family, size) if size in _FAMILIES[family].sizes else None


def _gymnax_names() -> tuple[str, ...]:
    if "gymnax" in sys.modules:
        return tuple(sys.modules["gymnax"].registered_envs)
    spec = find_spec("gymnax")
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).with_name("registration.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == _LIST:
            return tuple(ast.literal_eval(node.value))
    raise ImportError(f"gymnax no longer lists its environments in {_LIST}")
