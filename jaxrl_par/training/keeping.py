"""Where a run is kept, and by whom: of several processes, process 0 keeps all of it."""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jaxrl_par.hosts.collective import leads
from jaxrl_par.training.checkpoints import Checkpoints
from jaxrl_par.training.decoration import Aside, WeightsAndBiases
from jaxrl_par.training.directory import (
    RunDirectory,
    identity,
    open_directory,
    recorded,
)
from jaxrl_par.training.following import NoCheckpoints, NoDirectory, NoLines
from jaxrl_par.training.plots import LiveCurve
from jaxrl_par.training.rows import JsonLines, Sink, TensorBoard
from jaxrl_par.training.settings import TrainingConfig


def folder_of(
    args: Any, settings: TrainingConfig, default: str, extends: Collection[str]
) -> RunDirectory:
    """The folder of the run. As `open_directory`, for who leads."""
    if leads():
        return open_directory(args, settings, default, extends)
    return NoDirectory(Path(settings.name or default))


def checkpoints_of(
    directory: RunDirectory,
    args: Any,
    settings: TrainingConfig,
    extends: Collection[str],
) -> Checkpoints | NoCheckpoints:
    """The checkpoints of the run. As `Checkpoints`, for who leads."""
    if not leads():
        return NoCheckpoints(directory.checkpoints)
    kept = identity(args, settings), settings.keep_checkpoints
    return Checkpoints(directory.checkpoints, *kept, extends=extends)


def sinks_of(
    directory: RunDirectory,
    args: Any,
    settings: TrainingConfig,
    done: Mapping[str, int],
    *,
    resumed: bool,
) -> tuple[JsonLines | NoLines, list[Sink]]:
    """The rows of a run that is so far, and all that they are written to."""
    if not leads():
        return NoLines(), []
    lines = JsonLines(directory.metrics, done["updates"])
    curve = partial(LiveCurve, directory.curve, lines.rows)
    sinks: list[Sink] = [lines, Aside("curve.png", curve)]
    if settings.tensorboard:
        purge_step = done["env_steps"] + 1 if resumed else None
        board = partial(TensorBoard, directory.tensorboard, purge_step)
        sinks.append(Aside("TensorBoard", board))
    if settings.wandb:
        path, config = directory.path, recorded(args, settings)
        make = partial(WeightsAndBiases, path, directory.wandb, config)
        sinks.append(Aside("W&B", make, patience=120.0))
    return lines, sinks
