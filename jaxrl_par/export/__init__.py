"""Actors that leave: a folder that acts without the program that trained it."""

from jaxrl_par.export.files import ExportError
from jaxrl_par.export.folder import ExportedActor, load, write
from jaxrl_par.export.onnx_form import problems as onnx_problems
from jaxrl_par.export.runs import write_run
from jaxrl_par.networks.plain import for_numpy

__all__ = [
    "ExportError",
    "ExportedActor",
    "for_numpy",
    "load",
    "onnx_problems",
    "write",
    "write_run",
]
