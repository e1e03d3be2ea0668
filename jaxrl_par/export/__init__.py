"""Actors that leave: a folder that acts without the program that trained it."""

from jaxrl_par.export.folder import ExportedActor, ExportError, load, write
from jaxrl_par.networks.plain import for_numpy

__all__ = ["ExportError", "ExportedActor", "for_numpy", "load", "write"]
