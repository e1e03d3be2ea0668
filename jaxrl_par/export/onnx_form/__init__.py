"""A step of an actor as a program in ONNX, from the description that NumPy reads.

A batch is of any size. Memory is an input, and what it becomes an output, `next_` and
its name; it is cleared where `first` is true. All else is inside as constants.

Written node by node: a converter of JAX's programs (jax2onnx 0.13.0, tried with jax
0.10.2) has errors with GTrXL and the deep network, and brings 26 packages.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from jaxrl_par.export.files import ExportError
from jaxrl_par.export.onnx_form.graph import Graph
from jaxrl_par.export.onnx_form.memories import remembered
from jaxrl_par.export.onnx_form.policy import decided
from jaxrl_par.export.onnx_form.torso import features
from jaxrl_par.networks.plain import unknown
from jaxrl_par.numpy_actor.arrays import Arrays


def problems(network: Mapping[str, Any]) -> list[str]:
    """Lines that say why a network that was described has no such form."""
    found = [f"onnx has no {line}" for line in unknown(network)]
    if find_spec("onnx") is None:
        found.append("onnx is not installed: pip install 'jaxrl-par[onnx]'")
    return found


def written(
    config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> tuple[bytes, dict[str, Any]]:
    """The file, and what its inputs and outputs are called.

    Args:
      config: as `numpy_actor.Actor` reads it.
      arrays: by name, all that acting needs.

    Raises:
      ExportError: ONNX is not installed, or does not know the network.
    """
    network = config["network"]
    if lines := problems(network):
        raise ExportError("; ".join(lines))
    graph, known = Graph(), Arrays(arrays)
    name = "params.torso" if network["shared"] else "params.actor"
    x, masks = features(graph, config, known, name)
    first = graph.input("first", np.bool_, ())
    x, after = remembered(graph, network, known, f"{name}_memory", x, first)
    outputs = decided(graph, config, known, x, masks) | after
    return graph.finish(outputs)
