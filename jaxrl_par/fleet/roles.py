"""What members of a process do: act, compute gradients, or play parts of generations.
All as in threads."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_par.bridge.acting import acting
from jaxrl_par.bridge.actor import Actor
from jaxrl_par.bridge.factory import ActorFactory
from jaxrl_par.bridge.generations import system as generations
from jaxrl_par.bridge.generations.evaluator import Evaluator, Task
from jaxrl_par.bridge.parameter_server.config import WorkersConfig
from jaxrl_par.bridge.parameter_server.system import Parts, WorkerSystem
from jaxrl_par.bridge.parameter_server.worker import Worker
from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.envs import Environment
from jaxrl_par.fleet.arrays import on_host, own_on
from jaxrl_par.fleet.messages import NoParameters
from jaxrl_par.fleet.parameters import NoHolderError, Puller
from jaxrl_par.fleet.shards import Far
from jaxrl_par.loops import Learner
from jaxrl_par.types import Agent, PRNGKey, State, TimeStep, example


class Acting(ActorFactory[Actor]):
    """Actors as `ActorLearnerSystem` makes them, without its learner."""

    sent = staticmethod(on_host)

    def __init__(
        self,
        key: PRNGKey,
        make_env: MakeEnv,
        agent: Agent,
        unroll_length: int,
        num_actors: int,
        check_bounds: bool,
        kept: int,
    ):
        """
        Args:
          kept: versions of the parameters that may act at the same time.
        """
        super().__init__(key, agent)
        self._make_env = make_env
        self._length = unroll_length
        self._check_bounds = check_bounds
        self._acting = acting(agent, unroll_length, num_actors)
        self._puller = Puller(kept, partial(own_on, _device()))

    def actor(self, index: int, **options: Any) -> Actor:
        return Actor(
            index, self._make_env, self._acting, self._length, self._root, _device(),
            claim=self.claim, check_bounds=self._check_bounds, **options,
        )  # fmt: skip

    def shown(self, member: Actor) -> Any:
        return member.env

    def work(
        self, member: Actor, unroll: int, holder: str, at_least: int, exact: bool
    ) -> Any:
        """An unroll, with parameters that are pulled first."""
        try:
            version, params = self._puller.pull(holder, at_least, exact)
        except NoHolderError as error:
            return NoParameters(str(error))
        item = member.unroll(params, version)
        return item._replace(after=on_host(item.after))

    def data(self, index: int, unroll: int) -> Any:
        """None: what an actor keeps is part of each answer."""


class Contributing(WorkerSystem):
    """Workers, without the parameters that they share."""

    sent = staticmethod(on_host)

    def __init__(
        self,
        key: PRNGKey,
        learner: Learner,
        env: Environment | MakeEnv,
        unroll_length: int,
        config: WorkersConfig,
    ):
        super().__init__(Parts(learner, env, unroll_length, config, _device()), key)
        self._kept: dict[int, tuple[tuple[int, Any], ...]] = {}
        self._far: Far | None = None

    def claim(self, member: int, env: Any) -> None:
        super().claim(member, env)
        self._know(env)

    def _know(self, env: Any) -> State:
        """Shapes of the learner's state, and of a worker's data, the same for all."""
        flags: Any = np.zeros(env.num_envs, np.bool_)
        step = TimeStep(example(env.observation_spec, env.num_envs), flags, flags)
        state = jax.eval_shape(self.parts.learner.init, self._root, step)
        self._batch = self._shapes(state, step)
        return state

    def shown(self, member: Worker) -> Any:
        env = self.parts.env
        return env if isinstance(env, Environment) else member.env

    def work(
        self, member: Any, unroll: int, state: Any, shards: tuple[str, ...]
    ) -> Any:
        """The gradient at a state of the learner, and what comes with it.

        Args:
          shards: names of those that have the state, and are left the gradient.
        """
        if shards:
            far = self._shards_of(member, shards)
            state, read = far.read()
            done = member.contribute(state)
            far.leave(member.index, unroll, done.given)
            done = done._replace(given=done.given._replace(grads=()), read=read)
        else:
            done = member.contribute(own_on(_device(), state))
        # Replaced, not changed: another thread reads it.
        before = self._kept.get(member.index, ())
        self._kept[member.index] = (*before[-1:], (unroll, done.after.data))
        # A replay may be large, and is asked for where it is needed.
        after: Any = done.after
        sent = on_host((done.given, after._replace(data=())))
        return done._replace(given=sent[0], after=sent[1])

    def data(self, index: int, unroll: int) -> Any:
        return dict(self._kept[index])[unroll]

    def _shards_of(self, member: Any, names: tuple[str, ...]) -> Far:
        if self._far is None:
            shards = self.shards(self._know(self.shown(member)))
            self._far = Far(names, shards)
        return self._far


class Evaluating(generations.EvaluatorSystem):
    """Evaluators, without what is learned."""

    sent = staticmethod(on_host)

    def __init__(self, key: PRNGKey, parts: generations.Parts, looked_at: bool):
        super().__init__(replace(parts, device=_device()), key, looked_at)
        # Of a part that is late, and of the newest.
        self._puller = Puller(2, partial(own_on, _device()))

    def shown(self, member: Evaluator) -> Any:
        return member.env

    def work(
        self, member: Evaluator, unroll: int, holder: str, generation: int, part: int,
        cap: Any,
    ) -> Any:  # fmt: skip
        """What came of a part, with parameters that are pulled first; None if there
        are newer ones, and its generation is over."""
        try:
            version, params = self._puller.pull(holder, generation, exact=False)
        except NoHolderError as error:
            return NoParameters(str(error))
        if version != generation:
            member.next_unroll += 1
            return None
        return member.evaluate(Task(generation, part, cap, params))

    def data(self, index: int, unroll: int) -> Any:
        """None: an evaluator keeps nothing."""


def _device() -> Any:
    return jax.devices("cpu")[0]
