"""The actor of a run that was trained, as a folder."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_par.export.files import ExportError
from jaxrl_par.export.folder import put
from jaxrl_par.export.step import acting
from jaxrl_par.networks import NetworkConfig, TransformerConfig
from jaxrl_par.training.loaded import Loaded

_BATCHES = (1, 16, 64)


def write_run(
    run: Loaded,
    path: str | Path | None = None,
    *,
    onnx: bool = False,
    overwrite: bool = False,
) -> Path:
    """Writes what acts in a run as `write` writes actors, and returns the folder.

    A GTrXL is compiled for batches of 1, 16 and 64; in NumPy and ONNX they are any.

    Args:
      path: by default `actor` in the run's folder.

    Raises:
      ExportError: what acts is no actor-critic that NumPy knows, or as `write`.
      DiskFullError: as `write`.
    """
    policy = run.agent.exportable
    if policy is None:
        raise ExportError(
            f"what acts in {run.path} is no policy of an actor-critic in float32: only"
            " those are exported. SAC, TD3, DDPG and NAF leave their actor at their end"
        )
    told = policy.described()
    network = _network(told["network"])
    actor = acting(network, *run.args.specs())
    arrays = {name: np.asarray(x) for name, x in policy.arrays(run.params).items()}
    return put(
        run.path / "actor" if path is None else Path(path),
        actor,
        arrays,
        {"normalization": told["normalization"]},
        batch_sizes=_BATCHES if network.memory == "gtrxl" else None,
        numpy=True,
        onnx=onnx,
        overwrite=overwrite,
    )


def _network(told: dict[str, Any]) -> NetworkConfig:
    """The config that was described."""
    fields = dict(told, transformer=TransformerConfig(**told["transformer"]))
    return NetworkConfig(**fields)
