"""Environments as streams: `make` one by name, wrap it, or write your own."""

from jaxrl_par.envs.base import Environment, Episode
from jaxrl_par.envs.gymnax import from_gymnax
from jaxrl_par.envs.registry import is_name, make, names

__all__ = ["Environment", "Episode", "from_gymnax", "is_name", "make", "names"]
