"""What a threaded run and its serial replay share: actors, learner, and their state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxrl_par import loops, rollout
from jaxrl_par.axis import Axis
from jaxrl_par.bridge.actor import Actor, ActorState, MakeEnv, acting
from jaxrl_par.bridge.learner import Learner, copied
from jaxrl_par.bridge.source import Source
from jaxrl_par.loops import Run
from jaxrl_par.types import (
    Params,
    PRNGKey,
    State,
    TimeStep,
    Trajectory,
)


class Local(NamedTuple):
    """What a bridge keeps in `Run.local`."""

    actors: tuple[ActorState, ...]
    """Each after the last of its unrolls that was learned from."""
    past_params: tuple[Params, ...]
    """The parameters before the newest, oldest first, that lockstep still acts with."""
    data: Any
    """The learner's, on the devices of its mesh."""


@dataclass(frozen=True)
class Parts:
    """What a bridge is built from."""

    make_env: MakeEnv
    """From a key to the environments of one actor."""
    unroll_length: int
    num_actors: int
    batch: int
    """Unrolls of actors that make a batch."""
    learner: loops.Learner
    mesh: Mesh
    axis: Axis
    actor_device: Any
    """A `jax.Device`."""
    check_bounds: bool
    num_past_params: int
    """Older parameters that are part of the run."""
    num_distillers: int
    """Threads that teach what acts; 0 if the learner does it."""


class System(Source[Actor]):
    """Actors and a learner, without anything that decides when they run."""

    def __init__(self, parts: Parts, key: PRNGKey):
        super().__init__(key)
        self.parts = parts
        self.learner = Learner(
            parts.learner,
            parts.mesh,
            parts.axis,
            self.tally,
            apart=parts.num_distillers > 0,
        )
        self._acting = acting(
            parts.learner.actor, parts.unroll_length, parts.num_actors
        )
        self._cpu = jax.local_devices(backend="cpu")[0]

    @property
    def compile_seconds(self) -> float:
        return self.learner.compile_seconds

    def actor(self, index: int, **options: Any) -> Actor:
        """An actor, still without environments."""
        parts = self.parts
        return Actor(
            index,
            parts.make_env,
            self._acting,
            parts.unroll_length,
            self._root,
            parts.actor_device,
            check_bounds=parts.check_bounds,
            **options,
        )

    def new_run(self, actors: Sequence[Actor]) -> Run:
        """The run at its start, from actors that have environments."""
        run, step = self.first_run(self.parts.learner.init, actors[0].env)
        run = self.learner.place(run)
        past = (self.actor_params(run.learner),) * self.parts.num_past_params
        states = tuple(actor.state() for actor in actors)
        params = self.parts.learner.params(run.learner)
        shapes = jax.eval_shape(self._batch_shapes, params, step)
        data = self.learner.data(shapes)
        return self.with_local(run, Local(states, past, data))

    def actor_params(self, state: State) -> Params:
        """The parameters that act, for actors."""
        return copied(self.parts.learner.params(state), self.parts.actor_device)

    def student(self, state: State) -> State:
        """The part of the learner's state that distillers update."""
        distillation = self.parts.learner.distillation
        assert distillation is not None
        return distillation.student(state)

    def with_local(self, run: Run, local: Local) -> Run:
        """The run, with what actors need to go on from here."""
        actors, past = jax.device_put(local[:2], self._cpu)
        return run._replace(local=Local(actors, past, local.data))

    def _batch_shapes(self, params: Params, step: TimeStep) -> Trajectory:
        """Zeros in the shapes of a batch, to be traced and not computed."""
        parts = self.parts
        shapes = rollout.shapes(parts.learner.actor, params, step, parts.unroll_length)
        one = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        batch = Trajectory.join([one] * parts.batch)
        version = jnp.zeros(batch.reward.shape, jnp.int32)
        return batch._replace(extras=batch.extras | {"version": version})
