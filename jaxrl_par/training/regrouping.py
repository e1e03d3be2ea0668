"""Environments in progress, shared by another number of devices than when they were
saved.

A device has lanes of its own, which the leaves of a run on several have as [D, B, ...];
a run on one has [B, ...]. All lanes together are the same, so they are cut at other
places. What else a device keeps for itself, as a replay, cannot be shared anew.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrl_par.training.failures import CheckpointError
from jaxrl_par.training.manifests import Kinds, Values

FIELD = "num_devices"
"""Of a config: how many devices there are."""
_LANES = "local.streams."


def saved_kinds(
    wanted: Kinds, content: Mapping[str, Any], config: Mapping[str, Any]
) -> Kinds:
    """Kinds of leaves that a checkpoint has to have for a run on `config`'s devices.

    Args:
      wanted: of the run that it is read for.
      content: its manifest.

    Raises:
      CheckpointError: it is of another number of devices, and they keep something
        besides their environments.
    """
    old, new = content["config"].get(FIELD, 1), config.get(FIELD, 1)
    found = {name: x["shape"] for name, x in content["leaves"].items()}
    if old == new or all(found.get(n) == shape for n, (_, shape) in wanted.items()):
        return wanted
    kinds = {}
    for name, (dtype, shape) in wanted.items():
        differs = name.startswith("local.") and found.get(name) != shape
        if differs and not name.startswith(_LANES):
            raise CheckpointError(
                f"the run was saved on {FIELD} = {old}, and what each device keeps for"
                f" itself ({name}) cannot be shared by {new}: resume it with {FIELD} ="
                f" {old}"
            )
        kinds[name] = dtype, _shared(shape, new, old) if differs else shape
    return kinds


def regrouped(values: Values, like: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The values, their lanes cut as in `like`."""
    return {name: x.reshape(like[name].shape) for name, x in values.items()}


def _shared(shape: list[int], devices: int, others: int) -> list[int]:
    """That shape of lanes on `devices`, on `others`."""
    lanes, *rest = [shape[0] * shape[1], *shape[2:]] if devices > 1 else shape
    return [lanes, *rest] if others == 1 else [others, lanes // others, *rest]
