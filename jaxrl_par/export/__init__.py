"""Actors that leave: a folder that acts without the program that trained it."""

from jaxrl_par.export.folder import ExportedActor, ExportError, for_numpy, load, write

__all__ = ["ExportError", "ExportedActor", "for_numpy", "load", "write"]
