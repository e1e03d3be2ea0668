"""Environments as streams: `make` one by name, wrap it, or write your own."""

from typing import TYPE_CHECKING

from jaxrl_par.lazy import lazily

if TYPE_CHECKING:
    from jaxrl_par.envs.base import Environment, Episode
    from jaxrl_par.envs.catalogue import is_name, names
    from jaxrl_par.envs.gymnax import from_gymnax
    from jaxrl_par.envs.raw import Raw, from_raw
    from jaxrl_par.envs.registry import make
    from jaxrl_par.envs.resets import Resets

__getattr__, __dir__ = lazily(__name__)
__all__ = [
    "Environment",
    "Episode",
    "Raw",
    "Resets",
    "from_gymnax",
    "from_raw",
    "is_name",
    "make",
    "names",
]
