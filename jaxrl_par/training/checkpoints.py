"""Checkpoints of a run: verified on load, written so that a crash cannot harm them.

A checkpoint is one step of orbax: the leaves of the `Run` by their path in the tree,
and a manifest with the config, and the shape, dtype and SHA-256 of each leaf. orbax
writes into a temporary folder and renames it, so a step is whole or absent. It does not
notice flipped bits, hence the sums. Nothing is pickled.
"""

import hashlib
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree

from jaxrl_par.loops import Run
from jaxrl_par.training.comparison import differences, listed, named
from jaxrl_par.training.directory import numbered
from jaxrl_par.training.failures import TrainingError, tell
from jaxrl_par.training.files import make_folder, shortened, writing
from jaxrl_par.training.words import option, switch

BEST = "best"
"""Folder beside the steps, of the run with the best evaluation."""

_MARKER = "JAXRL_PAR_CHECKPOINTS"
_FORMAT = 2
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")

Leaves = dict[str, Array]
"""Arrays by their path in the tree. Random keys are there as their data."""


class CheckpointError(TrainingError):
    """Checkpoints cannot be used as asked."""


class _DamagedError(Exception):
    """One step cannot be trusted; the one before may do."""


class Checkpoints(AbstractContextManager):
    """The newest steps of one run in a folder that holds nothing else but the best."""

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        keep: int | None = 2,
        *,
        read_only: bool = False,
    ):
        """Makes the folder, or takes up one that an earlier `Checkpoints` made.

        Args:
          config: what must be the same in a run that continues from here.
          keep: newest steps kept, or None for all; older ones are deleted after a save.
          read_only: for who does not hold the run: nothing is made, removed or renamed.

        Raises:
          CheckpointError: the folder has content, and not ours. It is left as it is.
        """
        self.directory = directory.absolute()
        self._config, self._keep, self._read_only = dict(config), keep, read_only
        if not read_only:
            _claim(self.directory)
            _remove_unfinished(self.directory)
        elif not (self.directory / _MARKER).exists():
            raise CheckpointError(f"{self.directory} has no checkpoints of jaxrl_par")
        self._open()

    def _open(self) -> None:
        # Training goes on only after the file is safe, and errors come from `save`.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            enable_async_checkpointing=False,
            create=False,
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        # While it is open, no folder that is made later can be taken for this one.
        self._descriptor = os.open(self.directory, os.O_RDONLY)

    def __exit__(self, *exception: object) -> None:
        self._manager.close()
        os.close(self._descriptor)

    @property
    def steps(self) -> list[int]:
        """Saved steps, oldest first."""
        return sorted(self._manager.all_steps())

    def described(self) -> str:
        """The newest whole step, in a sentence. Any thread may ask, also during a
        save."""
        # A step has its name, a number, only when all of it was written.
        paths = [x for x in self.directory.iterdir() if x.name.isdecimal()]
        steps = [int(path.name) for path in paths if _looks_whole(path)]
        if not steps:
            return "Nothing was saved before"
        return (
            f"{self.directory} has a checkpoint of update {max(steps):,}. Go on with"
            f" {switch('resume')}"
        )

    def save(self, step: int, run: Run) -> None:
        """Saves the run; a step that is there already stays as it is.

        Raises:
          DiskFullError, FileError: the steps saved before are kept.
          CheckpointError: so they are, but a later step is there, or orbax fails.
        """
        self._come_back()
        if step not in self.steps:
            self._save(step, run, {})

    def save_best(self, step: int, run: Run, score: float) -> None:
        """Keeps the run in the folder `best`, if no run there has a score as high.

        Raises:
          DiskFullError, FileError, CheckpointError: the best before is kept.
        """
        self._come_back()
        with Checkpoints(self.directory / BEST, self._config, keep=None) as best:
            scores = best._scores()
            if not score > max(scores.values(), default=-math.inf):
                return
            if step in scores:
                best._manager.delete(step)
            best._save(step, run, {"score": score})
            for other in scores.keys() - {step}:
                best._manager.delete(other)

    def restore_best(self, like: Run) -> Run | None:
        """The run of the best evaluation, or None if none was kept.

        Raises:
          CheckpointError: it is damaged, or of another config.
        """
        if not (self.directory / BEST / _MARKER).exists():
            return None
        with Checkpoints(
            self.directory / BEST, self._config, keep=None, read_only=True
        ) as best:
            scores = best._scores()
            if not scores:
                return None
            step = max(scores, key=lambda x: scores[x])
            try:
                return best._restore(step, like)
            except _DamagedError as error:
                raise CheckpointError(f"{best._step(step)}: {error}") from error

    def _scores(self) -> dict[int, float]:
        """The scores of steps that can be read; more than one after a crash alone."""
        scores = {}
        for step in self.steps:
            try:
                manifest = self._read(step, "manifest", ocp.args.JsonRestore())
                scores[step] = _checked(manifest)["score"]
            except (_DamagedError, KeyError) as error:
                tell(f"{self._step(step)} is no best checkpoint: {error}")
        return scores

    def _save(self, step: int, run: Run, about: Mapping[str, Any]) -> None:
        leaves = _leaves(run)
        arguments = ocp.args.Composite(
            # orbax refuses arrays without elements; their shape says all.
            state=ocp.args.StandardSave({n: x for n, x in leaves.items() if x.size}),
            manifest=ocp.args.JsonSave(_manifest(run, self._config, about)),
        )
        num_bytes = sum(x.nbytes for x in leaves.values())
        try:
            with writing(self._step(step), num_bytes):
                # The best may come before one that a run had which was then resumed.
                force = bool(about)
                saved = self._manager.save(step, args=arguments, force=force)
        except TrainingError:
            _remove_unfinished(self.directory)
            raise
        # orbax raises whatever its parts do, bare `Exception` among it.
        except Exception as error:
            _remove_unfinished(self.directory)
            raise CheckpointError(
                f"{self._step(step)} cannot be saved: {_said(error)}"
            ) from error
        if not saved:
            raise CheckpointError(
                f"{self.directory} has steps {self.steps}, all kept, so step {step} was"
                " not saved"
            )

    def _come_back(self) -> None:
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
        self.__exit__()
        _claim(self.directory)
        self._open()

    def restore(self, like: Run) -> Run | None:
        """The newest step that is whole, or None if none was ever saved.

        Steps that are damaged are named in a warning and put aside. So is another
        version of a library, with which a run goes on, but not to the same bits.

        Args:
          like: a run of the same program; arrays are placed on its devices.

        Raises:
          CheckpointError: no step is usable, or they are of another config.
        """
        reasons: dict[int, str] = {}
        for step in reversed(self.steps):
            try:
                run = self._restore(step, like)
            except _DamagedError as error:
                reasons[step] = str(error)
                continue
            if reasons:
                self._pass_over(reasons, step)
            return run
        if not reasons:
            return None
        raise CheckpointError(
            f"no checkpoint in {self.directory} is usable:{_steps(reasons)}\n"
            "Nothing was changed. Restore the folder from a copy, or start again under"
            f" another {option('name')}"
        )

    def restore_learned(
        self, like: Run, step: int | None = None, member: int | None = None
    ) -> tuple[int, Run]:
        """What a run has learned, without what only training needs, and its step.

        Args:
          like: a run of the same program as shapes, without what is local.
          step: one that was saved; by default the newest that is whole.
          member: of a population.

        Raises:
          CheckpointError: there is no such step or member, or what is there is damaged
            or of another program.
        """
        if step is not None and step not in self.steps:
            raise CheckpointError(
                f"{self.directory} has no checkpoint of update {step}. It has"
                f" {', '.join(map(str, self.steps)) or 'none'}"
            )
        reasons: dict[int, str] = {}
        for tried in reversed(self.steps) if step is None else [step]:
            try:
                run = self._restore_learned(tried, like, member)
            except _DamagedError as error:
                reasons[tried] = str(error)
                continue
            if reasons:
                self._pass_over(reasons, tried)
            return tried, run
        told = _steps(reasons) or " none was saved"
        raise CheckpointError(f"no checkpoint in {self.directory} is usable:{told}")

    def _restore_learned(self, step: int, like: Run, member: int | None) -> Run:
        manifest = _checked(self._read(step, "manifest", ocp.args.JsonRestore()))
        leaves, kinds = manifest["leaves"], _kinds(like)
        size = _population_size(self._step(step), leaves, kinds)
        _check_member(self.directory, member, size)
        lead = () if size is None else (size,)
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype), like
        )
        implementations = {}

        def as_data(run: Run) -> Leaves:
            # Shapes of keys do not tell of which kind they are; while tracing, keys do.
            for name, x in named(run).items():
                if _is_key(x):
                    implementations[name] = jax.random.key_impl(x)
            return _leaves(run)

        data = jax.eval_shape(as_data, like)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = {name: x for name, x in data.items() if x.size}
        arguments = ocp.args.PyTreeRestore(
            target,
            restore_args=dict.fromkeys(target, ocp.ArrayRestoreArgs(sharding=here)),
            partial_restore=True,
        )
        restored = self._read(step, "state", arguments)
        for name, x in data.items():
            restored.setdefault(name, jnp.zeros(x.shape, x.dtype))
        for name, kind in implementations.items():
            restored[name] = jax.random.wrap_key_data(restored[name], impl=kind)
        ordered = [restored[name] for name in named(like)]
        run = jax.tree.unflatten(jax.tree.structure(like), ordered)
        for name, leaf in _describe(run).items():
            if leaf != leaves[name]:
                raise _DamagedError(
                    f"leaf {name} is not what was saved: its SHA-256 differs"
                )
        return run if size is None else jax.tree.map(lambda x: x[member], run)

    def _restore(self, step: int, like: Run) -> Run:
        manifest = _checked(self._read(step, "manifest", ocp.args.JsonRestore()))
        _check(manifest, like, self._config, self._step(step))
        expected = _leaves(like)
        target = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            for name, x in expected.items()
            if x.size
        }
        restored = self._read(step, "state", ocp.args.StandardRestore(target))
        restored |= {name: x for name, x in expected.items() if not x.size}
        run = _with_leaves(like, restored)
        for name, leaf in _describe(run).items():
            if leaf != manifest["leaves"][name]:
                raise _DamagedError(
                    f"leaf {name} is not what was saved: its SHA-256 differs"
                )
        if changed := differences(manifest["versions"], _versions()):
            warnings.warn(
                f"{self._step(step)} was written by other versions, so the run goes on,"
                f" but not to the bits that those would give:{listed(changed)}",
                stacklevel=3,
            )
        return run

    def _read(self, step: int, item: str, arguments: Any) -> Any:
        try:
            composite = ocp.args.Composite(**{item: arguments})
            return self._manager.restore(step, args=composite)[item]
        # orbax raises whatever its parts do, bare `Exception` among it.
        except Exception as error:
            found = f"{self._step(step) / item} cannot be read: {_said(error)}"
            raise _DamagedError(found) from error

    def _pass_over(self, reasons: Mapping[int, str], usable: int) -> None:
        """Makes room for good steps of the same numbers, which orbax would not save."""
        told = (
            f"{self.directory}: going back to step {usable}, because newer ones are"
            f" damaged:{_steps(reasons)}"
        )
        if not self._read_only:
            for step in reasons:
                names = (numbered(f"damaged-{step}", i) for i in count(1))
                places = (self.directory / name for name in names)
                self._step(step).rename(next(x for x in places if not x.exists()))
            self._manager.reload()
            told += "\nThey were renamed to damaged-*"
        warnings.warn(told, stacklevel=3)

    def _step(self, step: int) -> Path:
        return self.directory / str(step)


def state_hash(run: Run) -> str:
    """One SHA-256 of all leaves: equal for runs that are equal bit for bit."""
    return _digest(_describe(run))


def _looks_whole(step: Path) -> bool:
    """Whether its manifest is as it was written: what can be seen without reading all
    arrays, which takes long."""
    try:
        _checked(json.loads((step / "manifest" / "metadata").read_text()))
    except (OSError, ValueError, _DamagedError):
        return False
    return (step / "state").is_dir()


def _claim(directory: Path) -> None:
    marker = directory / _MARKER
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


def _remove_unfinished(directory: Path) -> None:
    """What a save left that did not come to its end."""
    for path in directory.glob("*.orbax-checkpoint-tmp"):
        # Writers of a save that failed may still add files, for a moment.
        for _ in range(50):
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                break
            time.sleep(0.1)
        else:
            shutil.rmtree(path)


def _leaves(run: Run) -> Leaves:
    return {
        name: jax.random.key_data(x) if _is_key(x) else x
        for name, x in named(run).items()
    }


def _with_leaves(like: Run, leaves: Leaves) -> Run:
    def leaf(x: Array, data: Array) -> Array:
        if not _is_key(x):
            return data
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))

    restored = [leaf(x, leaves[name]) for name, x in named(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), restored)


def _is_key(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _kinds(run: Run) -> dict[str, tuple[str, list[int]]]:
    """dtype and shape of each leaf."""
    # A key of ours, as on CPU, has the data and the bits of JAX's own on accelerators.
    return {
        name: (str(x.dtype).replace("key<fryu>", "key<fry>"), list(x.shape))
        for name, x in named(run).items()
    }


def _versions() -> dict[str, str]:
    """Versions of the libraries that decide which bits come next."""
    return {name: version(name) for name in _LIBRARIES}


def _describe(run: Run) -> dict[str, dict[str, Any]]:
    values: dict[str, np.ndarray] = jax.device_get(_leaves(run))
    return {
        name: {
            "dtype": dtype,
            "shape": shape,
            "sha256": hashlib.sha256(_bytes(values[name])).hexdigest(),
        }
        for name, (dtype, shape) in _kinds(run).items()
    }


def _bytes(x: np.ndarray) -> memoryview:
    # bfloat16 has no buffer that hashlib could read.
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8).data


def _manifest(
    run: PyTree, config: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    content = {
        "format": _FORMAT,
        "versions": _versions(),
        "config": dict(config),
        "leaves": _describe(run),
        **about,
    }
    return content | {"sha256": _digest(content)}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checked(manifest: Any) -> dict[str, Any]:
    """The content of a manifest that is as it was saved."""
    if not isinstance(manifest, dict):
        found = shortened(manifest)
        raise _DamagedError(f"the manifest must be an object, got {found}")
    content = {n: x for n, x in manifest.items() if n != "sha256"}
    if manifest.get("sha256") != _digest(content):
        raise _DamagedError("the manifest is not what was saved: its SHA-256 differs")
    return content


def _check(
    content: dict[str, Any], like: Run, config: Mapping[str, Any], path: Path
) -> None:
    """Refuses a manifest of another config or of another run."""
    if content["format"] != _FORMAT:
        raise CheckpointError(
            f"{path} has layout {content['format']} of checkpoints, and this version of"
            f" jaxrl_par reads {_FORMAT} alone. Finish the run with the version that"
            f" began it, or start again under another {option('name')}"
        )
    if different := differences(content["config"], config):
        raise CheckpointError(
            f"{path.parent} is of another config:{listed(different)}\n"
            "Continue with the settings it has, or start under another"
            f" {option('name')}"
        )
    saved = {n: (x["dtype"], x["shape"]) for n, x in content["leaves"].items()}
    if different := differences(saved, _kinds(like)):
        name, (old, new) = next(iter(different.items()))
        changed = differences(content["versions"], _versions())
        raise _DamagedError(
            f"{len(different)} leaves are not those of this program, such as {name}:"
            f" {old} there, {new} now"
            + (f". It was written by other versions:{listed(changed)}" * bool(changed))
        )


def _population_size(
    path: Path, leaves: Mapping[str, Any], kinds: Mapping[str, tuple[str, list[int]]]
) -> int | None:
    """The number of members, which are along the first axis of all leaves; None if the
    leaves are those of one run.

    Raises:
      CheckpointError: they are neither.
    """
    there = {n: (x["dtype"], x["shape"]) for n, x in leaves.items() if n in kinds}
    if there == dict(kinds):
        return None
    sizes = {tuple(shape[:1]) for _, shape in there.values()}
    if len(sizes) == 1 and (size := next(iter(sizes))):
        members = {n: (dtype, [*size, *shape]) for n, (dtype, shape) in kinds.items()}
        if there == members:
            return size[0]
    name, (old, new) = next(iter(differences(there, kinds).items()))
    raise CheckpointError(
        f"{path} is of another experiment or config: {name} is {old} there, {new} here"
    )


def _check_member(directory: Path, member: int | None, size: int | None) -> None:
    if size is None:
        if member is not None:
            raise CheckpointError(
                f"{directory} is of one run and no population: there is no member"
                f" {member}"
            )
    elif member is None or not 0 <= member < size:
        raise CheckpointError(
            f"{directory} is of a population: member must be 0 to {size - 1}, got"
            f" {member}"
        )


def _said(error: Exception) -> str:
    text = str(error).partition("\n")[0].partition(" [tensorstore_spec")[0]
    return f"{type(error).__name__}: {text}"


def _steps(reasons: Mapping[int, str]) -> str:
    return "".join(f"\n  step {step}: {reason}" for step, reason in reasons.items())
