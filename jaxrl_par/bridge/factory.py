"""Where a pool's members come from: the keys of a run, and what all members share."""

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np

from jaxrl_par import loops
from jaxrl_par.bridge.reports import Tally, Times
from jaxrl_par.loops import Run
from jaxrl_par.types import PRNGKey, TimeStep, example

# A fold of the root that no update comes to: see `loops.unroll_keys`.
_FRESH = np.uint32(0xFFFFFFFE)


@runtime_checkable
class PooledActor(Protocol):
    """An actor, or what else has environments: see `actor.Actor`."""

    index: int
    times: Times
    env: Any
    rows: int
    """Rows that it acted until now."""

    @property
    def generation(self) -> int: ...

    @property
    def next_unroll(self) -> int: ...

    @property
    def rows_in_progress(self) -> int: ...

    def start(self, key: PRNGKey, generation: int = 0, unroll: int = 0) -> None: ...

    def resume(self, state: Any, key: PRNGKey, fresh_key: PRNGKey) -> bool: ...

    def state(self) -> Any: ...

    def where(self, row: int | None = None) -> str: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


M = TypeVar("M", bound=PooledActor)


class ActorFactory(ABC, Generic[M]):
    """Makes members, and their environments' keys."""

    def __init__(self, key: PRNGKey):
        """
                Args:
        <<<<<<< HEAD:jaxrl_par/bridge/factory.py
                  key: that of a new run. It is split as `topologies.compiled` does.
        ||||||| bfd08d2:jaxrl_par/bridge/source.py
                  key: of a new run. Its parts are those that `topologies.compiled` splits it into.
        =======
                  key: of a new run. Its parts are those that `compiled` splits it into.
        >>>>>>> contract:jaxrl_par/bridge/source.py
        """
        self.tally = Tally()
        self._agent_key, self._env_key, self._root = jax.random.split(key, 3)

    @property
    @abstractmethod
    def compile_seconds(self) -> float:
        """Time that compiling took until now."""

    @abstractmethod
    def actor(self, index: int, **options: Any) -> M:
        """A member, still without environments."""

    def env_key(self, actor: int, generation: int) -> PRNGKey:
        """The key of a member's environments. That of generation 0 is what device
        `actor` of a sharded program would have."""
        if generation == 0:
            return jax.random.fold_in(self._env_key, actor)
        fresh = jax.random.fold_in(jax.random.fold_in(self._root, _FRESH), actor)
        return jax.random.fold_in(fresh, generation)

    def resume(self, actor: M, state: Any) -> bool:
        """Resumes an actor as `Actor.resume` does, with the keys of this run."""
        generation = int(state.generation)
        return actor.resume(
            state,
            self.env_key(actor.index, generation),
            self.env_key(actor.index, generation + 1),
        )

    def first_run(self, init: Any, env: Any) -> tuple[Run, TimeStep]:
        """The run at its start, without what is local, and a step for shapes.

        Args:
          init: (key, step) -> the learner's state
          env: environments of one member, or what has their specs.
        """
        flags: Any = np.zeros(env.num_envs, np.bool_)
        step = TimeStep(example(env.observation_spec, env.num_envs), flags, flags)

        def start(agent_key: PRNGKey, root: PRNGKey, step: TimeStep) -> Run:
            run = loops.new_run(init(agent_key, step), (), root)
            # Strong types, as those that come from a file.
            return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), run)

        return jax.jit(start)(self._agent_key, self._root, step), step
