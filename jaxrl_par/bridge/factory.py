"""Where a pool's members come from: the keys of a run, and what all members share."""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from jaxrl_par import loops, rollout
from jaxrl_par.bridge.reports import Tally, Times
from jaxrl_par.bridge.supervision import Activity
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.host.sharing import Owners
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import Run
from jaxrl_par.types import Agent, PRNGKey, TimeStep, example

# A fold of the root that no update comes to: see `loops.unroll_keys`.
_FRESH = np.uint32(0xFFFFFFFE)


class PooledActor(ABC):
    """An actor, or what else has environments: see `actor.Actor`."""

    env: Any = None

    def __init__(self, index: int, root: PRNGKey, device: Any, activity: Activity):
        """
        Args:
          device: a `jax.Device`, where it acts.
          activity: told before and after each call of the environment.
        """
        self.index = index
        self.times = Times()
        self.rows = 0
        """Rows acted until now, over all environments and generations."""
        self.generation = 0
        """How often the environments were made anew."""
        self.next_unroll = 0
        """The unroll in progress, or the next one."""
        self._root = jax.device_put(root, device)
        self._device = device
        self._activity = activity

    @property
    def rows_in_progress(self) -> int:
        """Rows of the unroll in progress, over all environments."""
        return 0

    @abstractmethod
    def start(self, key: PRNGKey, generation: int = 0, unroll: int = 0) -> None:
        """Makes the environments, and shows the first observations."""

    @abstractmethod
    def resume(self, state: Any, key: PRNGKey, fresh_key: PRNGKey) -> bool:
        """Goes on from a saved state; False if the environments had to start anew.

        Args:
          key: made the environments of the state's generation.
          fresh_key: makes new ones where a simulator cannot be brought back.

        Raises:
          RuntimeError: the simulator came back to something else.
        """

    @abstractmethod
    def state(self) -> Any:
        """All of the actor; valid between two unrolls."""

    @abstractmethod
    def where(self, row: int | None = None) -> str:
        """For errors: actor, environment and step, by default that in progress."""

    def cancel(self) -> None:
        """Makes it end with `Stopped` after its next call, from another thread."""
        self._activity.give_up()

    @abstractmethod
    def close(self) -> None:
        """Frees the environments.

        Raises:
          Stopped: it was cancelled.
        """


M = TypeVar("M", bound=PooledActor)


class ActorFactory(ABC, Generic[M]):
    """Makes members, and their environments' keys."""

    def __init__(self, key: PRNGKey, agent: Agent | None = None):
        """
        Args:
          key: that of a new run. It is split as `topologies.compiled` does.
          agent: acts in the environments, if it is to be checked that it can.
        """
        self._agent = agent
        self.tally = Tally()
        self._owners = Owners("actor", "each must be given environments of its own")
        self._agent_key, self._env_key, self._root = jax.random.split(key, 3)

    @abstractmethod
    def actor(self, index: int, **options: Any) -> M:
        """A member, still without environments."""

    def claim(self, member: int, env: Any) -> None:
        """Notes what a member steps from now on.

        Raises:
          RefusedError: it is no `HostEnvironment`, or has other specs than those that
            the agent was made for, or some of it was made before, for any member.
        """
        if not isinstance(env, HostEnvironment):
            raise RefusedError(
                "what makes the environments of an actor must give a HostEnvironment,"
                f" as envs.host.make does, not {env!r:.60}"
            )
        if self._agent is not None:
            rollout.refuse_other_specs(self._agent, env)
        self._owners.claim(member, env)

    def env_key(self, actor: int, generation: int) -> PRNGKey:
        """The key of a member's environments. That of generation 0 is what device
        `actor` of a sharded program would have."""
        if generation == 0:
            return jax.random.fold_in(self._env_key, actor)
        fresh = jax.random.fold_in(jax.random.fold_in(self._root, _FRESH), actor)
        return jax.random.fold_in(fresh, generation)

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
