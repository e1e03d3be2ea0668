"""A folder with steps of orbax, each of them a manifest and a state.

orbax writes into a temporary folder and renames it, so a step is whole or absent.
"""

import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxrl_par.lazy import late
from jaxrl_par.training.directory import numbered
from jaxrl_par.training.failures import (
    CheckpointError,
    DamagedError,
    TrainingError,
    tell,
)
from jaxrl_par.training.files import FileError, make_folder, read_json, writing
from jaxrl_par.training.manifests import Values, checked
from jaxrl_par.training.words import option

_LATE = 0.3  # seconds in which all that orbax began is done

MARKER = "JAXRL_PAR_CHECKPOINTS"
"""File that says whose folder it is."""

if TYPE_CHECKING:
    import orbax.checkpoint as ocp
else:
    ocp = late("orbax.checkpoint")


class Steps:
    """The steps that are there. The folder holds nothing else but the best."""

    def __init__(self, directory: Path, keep: int | None, *, read_only: bool):
        """Arguments and errors are those of `Checkpoints`."""
        self.directory = directory.absolute()
        self._keep = keep
        if not read_only:
            _claim(self.directory)
            remove_unfinished(self.directory)
        elif not (self.directory / MARKER).exists():
            raise CheckpointError(f"{self.directory} has no checkpoints of jaxrl_par")
        self._open()

    def _open(self) -> None:
        # Training goes on only after the file is safe, and errors come from `write`.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            enable_async_checkpointing=False,
            create=False,
            # The only process that opens it, of however many there are.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=0,
                active_processes={0},
                barrier_sync_key_prefix="process_0",
            ),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        # While it is open, no folder that is made later can be taken for this one.
        self._descriptor = os.open(self.directory, os.O_RDONLY)

    def close(self) -> None:
        self._manager.close()
        os.close(self._descriptor)

    @property
    def numbers(self) -> list[int]:
        """Saved steps, oldest first."""
        return sorted(self._manager.all_steps())

    def path(self, step: int) -> Path:
        return self.directory / str(step)

    def write(
        self, step: int, leaves: Values, manifest: Mapping[str, Any], *, force: bool
    ) -> None:
        """Writes a step.

        Args:
          force: also one that is older than another step.

        Raises:
          DiskFullError, FileError: the steps written before are kept.
          CheckpointError: so they are, but orbax fails, or does not take the step.
        """
        arguments = ocp.args.Composite(
            # orbax refuses arrays without elements; their shape says all.
            state=ocp.args.StandardSave({n: x for n, x in leaves.items() if x.size}),
            manifest=ocp.args.JsonSave(manifest),
        )
        num_bytes = sum(x.nbytes for x in leaves.values())
        try:
            with writing(self.path(step), num_bytes), _late_parts():
                saved = self._manager.save(step, args=arguments, force=force)
        except TrainingError:
            remove_unfinished(self.directory)
            raise
        # orbax raises whatever its parts do, bare `Exception` among it.
        except Exception as error:
            remove_unfinished(self.directory)
            raise CheckpointError(
                f"{self.path(step)} cannot be saved: {_said(error)}"
            ) from error
        if not saved:
            raise CheckpointError(
                f"{self.directory} has steps {self.numbers}, all kept, so step {step}"
                " was not saved"
            )

    def read_manifest(self, step: int) -> dict[str, Any]:
        """Raises DamagedError if it cannot be read, or is not what was written."""
        return checked(self._read(step, "manifest", ocp.args.JsonRestore()))

    def read_state(self, step: int, arguments: Any) -> dict[str, Any]:
        """The leaves, as arrays of NumPy or JAX.

        Args:
          arguments: of orbax, with what the leaves are to be.

        Raises:
          DamagedError: it cannot be read.
        """
        return self._read(step, "state", arguments)

    def _read(self, step: int, item: str, arguments: Any) -> Any:
        try:
            composite = ocp.args.Composite(**{item: arguments})
            with _late_parts():
                return self._manager.restore(step, args=composite)[item]
        # orbax raises whatever its parts do, bare `Exception` among it.
        except Exception as error:
            found = f"{self.path(step) / item} cannot be read: {_said(error)}"
            raise DamagedError(found) from error

    def delete(self, step: int) -> None:
        self._manager.delete(step)

    def put_aside(self, steps: Collection[int]) -> None:
        """Makes room for good steps of the same numbers, which orbax would not save."""
        for step in steps:
            names = (numbered(f"damaged-{step}", i) for i in count(1))
            places = (self.directory / name for name in names)
            self.path(step).rename(next(x for x in places if not x.exists()))
        self._manager.reload()

    def come_back(self) -> None:
        """Makes the folder anew if it was moved or removed: what is learned is saved.

        Raises:
          CheckpointError: in its place is another folder.
        """
        if self.directory.exists():
            here, ours = self.directory.stat(), os.fstat(self._descriptor)
            if os.path.samestat(here, ours):
                return
            raise CheckpointError(
                f"{self.directory} was replaced while the run went on, and what is"
                " there now is not touched: nothing more can be saved"
            )
        tell(f"{self.directory} was moved or removed: what is saved now is there again")
        self.close()
        _claim(self.directory)
        self._open()


def whole_steps(directory: Path) -> list[int]:
    """Steps that look whole, as far as is seen without reading all arrays, which takes
    long. Any thread may ask, also during a save."""
    # A step has its name, a number, only when all of it was written.
    # glob, and not iterdir, finds nothing in a folder that was moved.
    paths = [x for x in directory.glob("*") if x.name.isdecimal()]
    return [int(path.name) for path in paths if _looks_whole(path)]


def remove_unfinished(directory: Path) -> None:
    """Removes what a save left that did not come to its end."""
    for path in directory.glob("*.orbax-checkpoint-tmp"):
        # Writers of a save that failed may still add files, for a moment.
        for _ in range(50):
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                break
            time.sleep(0.1)
        else:
            shutil.rmtree(path)


def _looks_whole(step: Path) -> bool:
    try:
        checked(read_json(step / "manifest" / "metadata"))
    except (FileError, DamagedError):
        return False
    return (step / "state").is_dir()


def _claim(directory: Path) -> None:
    marker = directory / MARKER
    if marker.exists():
        return
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(
            f"{directory} is not a folder of checkpoints that jaxrl_par made, and it is"
            f" not empty. It was left as it is; use another {option('name')} or"
            f" {option('runs_dir')}"
        )
    make_folder(directory)
    with writing(marker, 1):
        marker.touch()


@contextmanager
def _late_parts() -> Iterator[None]:
    """Keeps quiet about arrays that are still being read or written when another one
    could not be: orbax has then closed the event loop, which Python would tell with a
    trace."""
    hook = sys.unraisablehook

    def tell_others(about: "sys.UnraisableHookArgs") -> None:
        if str(about.exc_value) != "Event loop is closed":
            hook(about)

    sys.unraisablehook = tell_others
    try:
        yield
    except Exception:
        time.sleep(_LATE)
        raise
    finally:
        sys.unraisablehook = hook


def _said(error: Exception) -> str:
    text = str(error).partition("\n")[0].partition(" [tensorstore_spec")[0]
    return f"{type(error).__name__}: {text}"
