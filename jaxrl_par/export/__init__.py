"""Actors that leave: a folder that acts without the program that trained it."""

from jaxrl_par.export.folder import ExportedActor, ExportError, load, write

__all__ = ["ExportError", "ExportedActor", "load", "write"]
