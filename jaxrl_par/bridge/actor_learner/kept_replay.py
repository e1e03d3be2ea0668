"""A recorded run once more, from unrolls that were kept: nothing is acted."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_par.bridge.actor_learner.kept_unrolls import KeptUnrolls, Known
from jaxrl_par.bridge.actor_learner.replay import ActorLearnerReplay
from jaxrl_par.bridge.actor_learner.system import Parts
from jaxrl_par.bridge.unrolled import Unrolled
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import Run, records
from jaxrl_par.loops.records import Entry
from jaxrl_par.types import PRNGKey, TimeStep, example


class _Shown(NamedTuple):
    """Environments, in what is known of them."""

    num_envs: int
    observation_spec: Any
    action_spec: Any


class _Nobody(NamedTuple):
    """In place of an actor."""

    env: _Shown

    def state(self) -> tuple[()]:
        """Nothing: the run cannot go on from here."""
        return ()


class KeptReplay(ActorLearnerReplay):
    """An engine that learns once more from what an `ActorLearnerEngine` learned from.

    Its runs have no actors, and cannot go on.
    """

    def __init__(self, parts: Parts, recorded: Path):
        """
        Raises:
          RefusedError: the agent does not say for which specs it was made.
          RecordError: there is no record, it is damaged, or kept no unrolls.
        """
        specs = parts.learner.actor.specs
        if specs is None:
            raise RefusedError(
                "to learn from unrolls that were kept, the agent must be one that knows"
                " the specs of observations and actions: Agent.specs"
            )
        super().__init__(parts, records.read(recorded))
        self._kept = KeptUnrolls(recorded)
        self._uses = Counter()  # nobody acts, so no parameters are kept
        num_envs = self._kept.num_envs(next(iter(self._learned(0))))
        self._env = _Shown(num_envs, *specs)

    def init(self, key: PRNGKey) -> Run:
        run = super().init(key)
        flags: Any = np.zeros(self._env.num_envs, np.bool_)
        obs = example(self._env.observation_spec, self._env.num_envs)
        step = TimeStep(obs, flags, flags)
        shapes = self._system.unroll_shapes(run.learner, step)
        leaves, tree = jax.tree.flatten(shapes)
        self._known = Known(tree, [(x.shape, np.dtype(x.dtype)) for x in leaves])
        return run

    def _actors(self) -> Sequence[_Nobody]:
        self._factory = self._system
        return [_Nobody(self._env)] * self._num_members

    def _acted(self, entries: Sequence[Entry]) -> dict[Entry, Unrolled]:
        learned = [x for x in entries if not x.dropped]
        unrolls = self._kept.unrolls(self._update, learned, self._known)
        return dict(zip(learned, unrolls, strict=True))

    def _learned(self, update: int) -> list[Entry]:
        """What an update of the record learned from.

        Raises:
          RecordError: there is no such update.
        """
        if update >= len(self._schedule):
            raise records.RecordError("the record has no update")
        return [x for x in self._schedule[update] if not x.dropped]
