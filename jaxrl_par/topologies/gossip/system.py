"""What both paces are made of: learners that start alike, in environments apart."""

from dataclasses import dataclass

import jax
from jaxtyping import Array, Int

from jaxrl_par import loops, rollout
from jaxrl_par.envs import Environment
from jaxrl_par.loops import Learner, Run
from jaxrl_par.loops.learner import Data
from jaxrl_par.loops.peers import Parts, shared, with_shared
from jaxrl_par.topologies.gossip.config import GossipConfig
from jaxrl_par.types import PRNGKey, State


@dataclass(frozen=True)
class System:
    """What the programs are made of, nothing of which they change."""

    learner: Learner
    env: Environment
    unroll_length: int
    config: GossipConfig

    @property
    def size(self) -> int:
        """Learners."""
        return self.config.num_learners

    def shared(self, state: State) -> Parts:
        """What is averaged."""
        return shared(state, self.config.average_optimizer)

    def with_shared(self, state: State, parts: Parts) -> State:
        """The state with other such parts."""
        return with_shared(state, parts, self.config.average_optimizer)

    def start(
        self, key: PRNGKey, place: Int[Array, ""]
    ) -> tuple[Run, rollout.Streams, Data]:
        """One learner at its start, without what is local, its environments and data.

        All start with the same parameters, and draw apart, as devices do.
        """
        learner = self.learner
        learn_key, env_key, root = jax.random.split(key, 3)
        own = jax.random.fold_in(env_key, place)
        streams = rollout.start(learner.actor, self.env, own, place, self.size)
        state = learner.init(learn_key, streams.step)
        params = learner.params(state)
        shapes = rollout.shapes(learner.actor, params, streams.step, self.unroll_length)
        return loops.new_run(state, (), root), streams, learner.start(shapes)
