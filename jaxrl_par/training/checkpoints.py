"""Checkpoints of a run: verified on load, written so that a crash cannot harm them.

A checkpoint is one step of orbax: the leaves of the `Run` by their path in the tree,
and a manifest with the config, and the shape, dtype and SHA-256 of each leaf. orbax
does not notice flipped bits, hence the sums. Nothing is pickled.
"""

import math
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl_par.hosts.collective import fetched, said_by_first, spread
from jaxrl_par.lazy import late
from jaxrl_par.loops import Run
from jaxrl_par.training import manifests, regrouping
from jaxrl_par.training.comparison import differences, listed
from jaxrl_par.training.failures import CheckpointError, DamagedError, tell
from jaxrl_par.training.learned import read_learned
from jaxrl_par.training.steps import MARKER, Steps, whole_steps
from jaxrl_par.training.words import option, switch

BEST = "best"
"""Folder beside the steps, of the run with the best evaluation."""

if TYPE_CHECKING:
    import orbax.checkpoint as ocp
else:
    ocp = late("orbax.checkpoint")


class Checkpoints(AbstractContextManager):
    """The newest steps of one run in a folder that holds nothing else but the best."""

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        keep: int | None = 2,
        *,
        extends: Collection[str] = (),
        read_only: bool = False,
    ):
        """Makes the folder, or takes up one that an earlier `Checkpoints` made.

        Args:
          config: what must be the same in a run that continues from here.
          extends: what may be otherwise there all the same.
          keep: newest steps kept, or None for all; older ones are deleted after a save.
          read_only: for who does not hold the run: nothing is made, removed or renamed.

        Raises:
          CheckpointError: the folder has content, and not ours. It is left as it is.
        """
        self._config, self._extends = dict(config), extends
        self._read_only = read_only
        self._steps = Steps(directory, keep, read_only=read_only)
        self.directory = self._steps.directory

    def __exit__(self, *exception: object) -> None:
        self._steps.close()

    @property
    def steps(self) -> list[int]:
        """Saved steps, oldest first."""
        return self._steps.numbers

    def described(self) -> str:
        """The newest whole step, in a sentence. Any thread may ask, also during a
        save."""
        steps = whole_steps(self.directory)
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
        self._steps.come_back()
        if said_by_first(step not in self.steps):
            self._save(step, run, {})

    def save_best(self, step: int, run: Run, score: float) -> None:
        """Keeps the run in the folder `best`, if no run there has a score as high.

        Raises:
          DiskFullError, FileError, CheckpointError: the best before is kept.
        """
        self._steps.come_back()
        with self._best(read_only=False) as best:
            scores = best._scores()
            is_better = score > max(scores.values(), default=-math.inf)
            if not said_by_first(is_better):
                return
            if step in scores:
                best._steps.delete(step)
            best._save(step, run, {"score": score})
            for other in scores.keys() - {step}:
                best._steps.delete(other)

    def _save(self, step: int, run: Run, about: Mapping[str, Any]) -> None:
        leaves = fetched(manifests.leaves_of(run))
        manifest = manifests.manifest(run, leaves, self._config, about)
        # The best may come before one that a run had which was then resumed.
        self._steps.write(step, leaves, manifest, force=bool(about))

    def restore(self, like: Run) -> Run | None:
        """The newest step that is whole, or None if none was ever saved.

        Steps that are damaged are named in a warning and put aside. So is another
        version of a library, with which a run goes on, but not to the same bits, and
        so is a part that was left out.

        Args:
          like: a run of the same program; arrays are placed on its devices.

        Raises:
          CheckpointError: no step is usable, or they are of another config.
        """
        if not said_by_first(bool(self.steps)):
            return None
        _, run = self._first_whole(
            reversed(self.steps),
            lambda step: self._restore(step, like),
            "\nNothing was changed. Restore the folder from a copy, or start again"
            f" under another {option('name')}",
        )
        if manifests.leaves_out(run):
            warnings.warn(
                f"{self.directory} is without what the run kept to learn from, as it"
                " was asked for: that is empty now, so the run goes on, but not to the"
                " bits that it would have come to",
                stacklevel=2,
            )
        return run

    def restore_best(self, like: Run) -> Run | None:
        """The run of the best evaluation, or None if none was kept.

        Raises:
          CheckpointError: it is damaged, or of another config.
        """
        if not (self.directory / BEST / MARKER).exists():
            return None
        with self._best(read_only=True) as best:
            scores = best._scores()
            if not scores:
                return None
            step = max(scores, key=lambda x: scores[x])
            try:
                return best._restore(step, like)
            except DamagedError as error:
                raise CheckpointError(f"{best._steps.path(step)}: {error}") from error

    def restore_learned(
        self,
        like: Run,
        step: int | None = None,
        member: int | None = None,
        join: Callable[[Run], Run] | None = None,
    ) -> tuple[int, Run]:
        """What a run has learned, without what only training needs, and its step.

        Args:
          like: a run of the same program as shapes, without what is local.
          step: one that was saved; by default the newest that is whole.
          member: of a population.
          join: makes one run of all members, where none is named.

        Raises:
          CheckpointError: there is no such step or member, or what is there is damaged
            or of another program.
        """
        if step is not None and step not in self.steps:
            raise CheckpointError(
                f"{self.directory} has no checkpoint of update {step}. It has"
                f" {', '.join(map(str, self.steps)) or 'none'}"
            )
        return self._first_whole(
            reversed(self.steps) if step is None else [step],
            lambda step: read_learned(self._steps, step, like, member, join),
        )

    def _best(self, *, read_only: bool) -> "Checkpoints":
        options = {"extends": self._extends, "read_only": read_only}
        return Checkpoints(self.directory / BEST, self._config, None, **options)

    def _scores(self) -> dict[int, float]:
        """The scores of steps that can be read; more than one after a crash alone."""
        scores = {}
        for step in self.steps:
            try:
                scores[step] = self._steps.read_manifest(step)["score"]
            except (DamagedError, KeyError) as error:
                tell(f"{self._steps.path(step)} is no best checkpoint: {error}")
        return scores

    def _first_whole(
        self, steps: Iterable[int], read: Callable[[int], Run], advice: str = ""
    ) -> tuple[int, Run]:
        """The first step that can be trusted, and its run."""
        reasons: dict[int, str] = {}
        for step in steps:
            try:
                run = read(step)
            except DamagedError as error:
                reasons[step] = str(error)
                continue
            if reasons:
                self._pass_over(reasons, step)
            return step, run
        told = _told(reasons) or " none was saved"
        raise CheckpointError(
            f"no checkpoint in {self.directory} is usable:{told}{advice}"
        )

    def _pass_over(self, reasons: Mapping[int, str], usable: int) -> None:
        told = (
            f"{self.directory}: going back to step {usable}, because newer ones are"
            f" damaged:{_told(reasons)}"
        )
        if not self._read_only:
            self._steps.put_aside(reasons)
            told += "\nThey were renamed to damaged-*"
        warnings.warn(told, stacklevel=4)

    def _restore(self, step: int, like: Run) -> Run:
        whole = manifest = self._steps.read_manifest(step)
        extended = {n: x for n, x in self._config.items() if n in self._extends}
        manifest = manifest | {"config": manifest["config"] | extended}
        wanted = manifests.kinds(like)
        saved = regrouping.saved_kinds(wanted, whole, self._config)
        manifests.check(manifest, saved, self._config, self._steps.path(step))
        expected = manifests.leaves_of(like)
        restored = {
            # Data of keys have an axis besides.
            n: np.empty((*saved[n][1], *x.shape[len(wanted[n][1]) :]), x.dtype)
            for n, x in expected.items()
        }
        target = {name: x for name, x in restored.items() if x.size}
        arguments = ocp.args.StandardRestore(target)
        restored |= self._steps.read_state(step, arguments)
        manifests.check_sums(saved, restored, manifest)
        if saved != wanted:
            restored = regrouping.regrouped(restored, expected)
            warnings.warn(
                f"{self._steps.path(step)} is of another number of devices. Each acts"
                " with random numbers of its own, so the run goes on, but not to the"
                " bits that it would have come to",
                stacklevel=5,
            )
        run = manifests.with_leaves(like, spread(restored, expected))
        if changed := differences(manifest["versions"], manifests.versions()):
            warnings.warn(
                f"{self._steps.path(step)} was written by other versions, so the run"
                " goes on, but not to the bits that those would give:"
                + listed(changed),
                stacklevel=5,
            )
        return run


def state_hash(run: Run) -> str:
    """One SHA-256 of all leaves: equal for runs that are equal bit for bit."""
    values = fetched(manifests.leaves_of(run))
    return manifests.digest(manifests.describe(manifests.kinds(run), values))


def _told(reasons: Mapping[int, str]) -> str:
    return "".join(f"\n  step {step}: {reason}" for step, reason in reasons.items())
