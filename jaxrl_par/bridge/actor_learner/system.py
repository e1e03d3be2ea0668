"""What a threaded run and its serial replay share: actors, learner, and their state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxrl_par import rollout
from jaxrl_par.axis import Axis
from jaxrl_par.bridge.acting import acting
from jaxrl_par.bridge.actor import Actor
from jaxrl_par.bridge.actor_learner.config import ThreadsConfig
from jaxrl_par.bridge.actor_learner.decoupled import DecoupledLearner
from jaxrl_par.bridge.actor_learner.learner import MeshLearner, copied
from jaxrl_par.bridge.central.actor import AskingActor, Desk
from jaxrl_par.bridge.central.compiled import compiled
from jaxrl_par.bridge.central.place import Place
from jaxrl_par.bridge.factory import ActorFactory
from jaxrl_par.bridge.plain import told as plain
from jaxrl_par.bridge.plain.actor import PlainActor
from jaxrl_par.bridge.unrolled import ActorState, AnyActor, MakeEnv
from jaxrl_par.loops import Learner, Run
from jaxrl_par.loops.pace import Pace
from jaxrl_par.types import (
    Count,
    Params,
    PlainPolicy,
    PRNGKey,
    State,
    TimeStep,
    Trajectory,
)

A = TypeVar("A", bound=AskingActor)


class Local(NamedTuple):
    """What actors and learner keep in `Run.local`."""

    actors: tuple[ActorState, ...]
    """Each after the last of its unrolls that was learned from, or dropped."""
    past_params: tuple[Params, ...]
    """The parameters before the newest, oldest first, that lockstep still acts with."""
    data: Any
    """The learner's, on the devices of its mesh."""
    debt: Count | tuple[()] = ()
    """`Pace.debt` of the decoupled schedule."""
    shown: Any = ()
    """The student that the next update reads, while distillers are ahead of it."""


@dataclass(frozen=True)
class Parts:
    """What actors and a learner are made from."""

    make_env: MakeEnv
    """Makes the environments of one actor from a key."""
    unroll_length: int
    config: ThreadsConfig
    learner: Learner
    mesh: Mesh
    axis: Axis

    @property
    def actor_device(self) -> Any:
        """The `jax.Device` where actors act."""
        if self.config.actor_device == "cpu":
            return jax.local_devices(backend="cpu")[0]
        return self.mesh.devices.flat[0]


class ActorLearnerSystem(ActorFactory[AnyActor]):
    """Actors and a learner, without anything that decides when they run."""

    def __init__(self, parts: Parts, key: PRNGKey, num_past_params: int = 0):
        """`num_past_params`: older parameters that are part of the run."""
        super().__init__(key, parts.learner.actor)
        self.parts = parts
        self.num_past_params = num_past_params
        self._num_envs = 0
        config = parts.config
        deferred = config.num_distillers > 0
        given = parts.learner, parts.mesh, parts.axis, self.tally
        self.learner = (
            DecoupledLearner(*given)
            if config.is_decoupled
            else MeshLearner(*given, deferred=deferred)
        )
        agent, length = parts.learner.actor, parts.unroll_length
        self._acting = acting(agent, length, config.num_actors)
        self._plain = agent.acts_plainly if config.act_with == "numpy" else None
        self.desk: Desk | None = None
        """Where actors ask, if inference is central: from whoever runs them."""

    def actor(self, index: int, **options: Any) -> AnyActor:
        """An actor, still without environments."""
        parts = self.parts
        if self._plain is not None:
            return self._plain_actor(index, self._plain, **options)
        if self.desk is not None:
            return self._asking(AskingActor, index, parts.make_env, **options)
        return Actor(index, parts.make_env, *self._given, **self._checks, **options)

    def _asking(
        self, make: Callable[..., A], index: int, *arguments: Any, **options: Any
    ) -> A:
        """An actor that asks who acts. `arguments`: its own, before those of all."""
        newest = self.parts.config.schedule != "lockstep"
        return make(
            index, *arguments, *self._given, **self._checks, **options,
            desk=self.desk, newest=newest,
        )  # fmt: skip

    @property
    def _given(self) -> tuple[Any, ...]:
        """What all actors share that act by JAX."""
        parts = self.parts
        return self._acting, parts.unroll_length, self._root, parts.actor_device

    @property
    def _checks(self) -> dict[str, Any]:
        bounds = self.parts.config.supervision.check_bounds
        return {"claim": self.claim, "check_bounds": bounds}

    def _plain_actor(self, index: int, policy: PlainPolicy, **options: Any):
        parts = self.parts
        told = plain.teller(parts.learner.actor)
        root = plain.words(self._root)
        return PlainActor(
            index, parts.make_env, plain.form(policy), parts.unroll_length, root, None,
            told=told, **self._checks, **options,
        )  # fmt: skip

    def place(self) -> Place:
        """Who acts for all actors, with what no actor has: for central inference."""
        parts = self.parts
        config, length = parts.config, parts.unroll_length
        given = self._acting, length, config.num_actors
        functions = compiled(parts.learner.actor, *given, config.central)
        device = parts.actor_device
        return Place(functions, *given, config.slots, self._root, device)

    def new_run(self, actors: Sequence[Any]) -> Run:
        """The run at its start, from actors that have environments, or what shows
        theirs."""
        env = actors[0].env
        assert env is not None
        self._num_envs = env.num_envs
        if self.parts.config.is_decoupled:
            self.pace()  # refuses one that would stop
        run, step = self.first_run(self.parts.learner.init, env)
        run = self.learner.place(run)
        past = (self.actor_params(run.learner),) * self.num_past_params
        states = tuple(actor.state() for actor in actors)
        data = self.learner.data(self._batch_shapes(run.learner, step))
        debt = Count.zero() if self.parts.config.is_decoupled else ()
        shown = jax.tree.map(jnp.copy, self.student(run.learner)) if self.shows else ()
        return self.with_local(run, Local(states, past, data, debt, shown))

    def pace(self) -> Pace:
        """That of the decoupled schedule, at its start; once there are environments.

        Raises:
          RefusedError: as `Pace`.
        """
        parts, kept = self.parts, self.parts.learner.kept
        assert kept is not None
        inserted = parts.config.batch * self._num_envs * parts.unroll_length
        trained = kept.rows(parts.unroll_length) * parts.mesh.size
        return Pace(parts.config.pace, inserted, trained)

    def actor_params(self, state: State) -> Params:
        """The parameters that act, for actors."""
        return self._for_actors(self.parts.learner.params(state))

    def past_params(self, params: Params) -> Params:
        """Parameters that were saved for actors, where these act."""
        if self._plain is not None:
            return {name: np.array(x) for name, x in params.items()}
        return jax.device_put(params, self.parts.actor_device)

    @property
    def shows(self) -> bool:
        """Whether updates read the student, while distillers go on with it."""
        deferred = self.parts.learner.deferred
        distils = self.parts.config.num_distillers > 0
        return distils and deferred is not None and deferred.shown

    def student(self, state: State) -> State:
        """The part of the learner's state that distillers update."""
        assert self.parts.learner.deferred is not None
        return self.parts.learner.deferred.part(state)

    def student_params(self, student: State) -> Params:
        """The parameters that act, from what `student` gives, for actors."""
        return self._for_actors(self.parts.learner.actor.params(student))

    def _for_actors(self, params: Params) -> Params:
        if self._plain is not None:
            return plain.arrays(self._plain, params)
        return copied(params, self.parts.actor_device)

    def with_local(self, run: Run, local: Local) -> Run:
        """The run, with what actors need to go on from here."""
        cpu = jax.local_devices(backend="cpu")[0]
        others = jax.device_put(local._replace(data=()), cpu)
        return run._replace(local=others._replace(data=local.data))

    def unroll_shapes(self, state: State, step: TimeStep) -> Trajectory:
        """Those of what one actor acts; a step of its environments says how many they
        are."""
        parts = self.parts
        given = parts.learner.params(state), step, parts.unroll_length
        one = rollout.shapes(parts.learner.actor, *given)
        version = jax.ShapeDtypeStruct(one.reward.shape, jnp.int32)
        return one._replace(extras=one.extras | {"version": version})

    def _batch_shapes(self, state: State, step: TimeStep) -> Trajectory:
        one = self.unroll_shapes(state, step)
        number = self.parts.config.batch

        def joined(one: Trajectory) -> Trajectory:
            return Trajectory.join([one] * number)

        return jax.eval_shape(joined, one)
