"""Where a pool's members come from: the keys of a run, and what all members share."""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from jaxrl_par import loops, rollout
from jaxrl_par.bridge.pooled import PooledActor
from jaxrl_par.bridge.reports import Tally
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.host.sharing import Owners
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import Run
from jaxrl_par.types import Agent, PRNGKey, TimeStep, example

# A fold of the root that no update comes to: see `loops.unroll_keys`.
_FRESH = np.uint32(0xFFFFFFFE)


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
