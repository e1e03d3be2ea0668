"""What workers in threads and their serial replay share: workers, compiled functions,
and the run that they make."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par import rollout
from jaxrl_par.bridge.acting import acting, count_of
from jaxrl_par.bridge.factory import ActorFactory
from jaxrl_par.bridge.parameter_server import worker as kinds
from jaxrl_par.bridge.parameter_server.config import WorkersConfig
from jaxrl_par.bridge.parameter_server.shards import Shards
from jaxrl_par.bridge.parameter_server.stores import Drained
from jaxrl_par.bridge.parameter_server.worker import PushInfo, Worker
from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host import info
from jaxrl_par.loops import Gradient, Learner, Run, asynchronous, halves_of
from jaxrl_par.types import Mean, Metrics, PRNGKey, State, TimeStep


class Local(NamedTuple):
    """What workers keep in `Run.local`: each after the last of its pushes."""

    workers: tuple[Any, ...]


@dataclass(frozen=True)
class Parts:
    """What workers are made from."""

    learner: Learner
    env: Environment | MakeEnv
    """The environments of one worker; simulators are made from a key."""
    unroll_length: int
    config: WorkersConfig
    device: Any
    """A `jax.Device`, where workers act and the store is."""


class WorkerSystem(ActorFactory[Worker]):
    """Workers and the functions they share, without anything that decides when they
    run."""

    def __init__(self, parts: Parts, key: PRNGKey):
        super().__init__(key, parts.learner.actor)
        self.parts = parts
        learner, env, length = parts.learner, parts.env, parts.unroll_length
        self._gradient = kinds.gradients(learner)
        if isinstance(env, Environment):
            workers = parts.config.num_workers
            self._starts = kinds.pure_starts(learner, env, length, workers)
            self._contribute = kinds.pure_gradients(learner, env, length)
        else:
            self._acting = acting(learner.actor, length, parts.config.num_workers)

    def actor(self, index: int, **options: Any) -> Worker:
        """A worker, still without environments."""
        parts = self.parts
        env, length = parts.env, parts.unroll_length
        if isinstance(env, Environment):
            return kinds.PureWorker(
                index, self._starts, self._contribute, length * env.num_envs,
                self._root, parts.device, **options,
            )  # fmt: skip
        return kinds.HostWorker(
            index, env, self._acting, self._gradient, parts.learner.params,
            self._start_data, length, self._root, parts.device,
            claim=self.claim, check_bounds=parts.config.supervision.check_bounds,
            **options,
        )  # fmt: skip

    def new_run(self, workers: Sequence[Worker]) -> Run:
        """The run at its start, from workers that have environments."""
        env = self.parts.env
        shown: Any = env if isinstance(env, Environment) else workers[0].env
        with jax.default_device(self.parts.device):
            run, step = self.first_run(self.parts.learner.init, shown)
        self._batch = self._shapes(run.learner, step)
        return run._replace(local=self._local([x.state() for x in workers]))

    def shards(self, state: State) -> Shards:
        """What divides the learner's state.

        Raises:
          ValueError: it cannot be divided.
        """
        return Shards(*self.of_shards(state))

    def of_shards(self, state: State) -> tuple[Any, ...]:
        """Arguments of `Shards`; the state may be of shapes, too."""
        parts = self.parts

        def gradient(*place: Any) -> tuple[Metrics, Gradient]:
            _, given = asynchronous.gradient(parts.learner, *place)
            mean = Mean(jnp.float32(0), jnp.float32(0))
            metrics = given.metrics | {"episode_return": mean, "episode_length": mean}
            return metrics, kinds.packed(given._replace(metrics=metrics))

        data = jax.eval_shape(parts.learner.start, self._batch)
        metrics, self._given = jax.eval_shape(
            gradient, state, data, self._batch, self._root, count_of(0), np.int32(0)
        )
        self._metrics_tree = jax.tree.structure(metrics)
        halves, config = halves_of(parts.learner, "workers"), parts.config
        apply = partial(kinds.apply_packed, halves.apply, self._metrics_tree)
        given = (apply, state, self._given.grads)
        return (*given, config.num_shards, config.staleness)

    def compile(self, worker: Worker, shards: Shards, state: State) -> None:
        """Compiles before the first pull, so that no worker is late because of it."""
        started = time.perf_counter()
        self._compile_gradient(worker, state)
        shards.compile(state, jax.device_put(_zeros(self._given), self.parts.device))
        self.tally.compile_seconds += time.perf_counter() - started

    def after(self, run: Run, drained: Drained) -> tuple[Run, Metrics]:
        """The run after these updates, and their metrics, [num_updates]."""
        updates = drained.updates
        items: list[PushInfo] = [x.item for x in updates]
        states = dict(enumerate(run.local.workers)) | drained.workers
        skipped = [bool(x.metrics["skipped"]) for x in updates]
        before = run.progress
        in_a_row = len(skipped) + int(before.skipped_in_a_row)
        if not all(skipped):
            in_a_row = skipped[::-1].index(False)
        progress = before._replace(
            updates=before.updates.add(len(updates)),
            env_steps=before.env_steps.add(sum(x.env_steps for x in items)),
            skipped=before.skipped + sum(skipped),
            skipped_in_a_row=jnp.int32(in_a_row),
        )
        columns = np.stack([x.metrics for x in items], axis=1)
        metrics = self._metrics_tree.unflatten(list(columns))
        for name in updates[0].metrics:
            metrics[name] = np.array([x.metrics[name] for x in updates], np.float32)
        told: Any = jax.tree.map(lambda *xs: np.stack(xs), *[x.info for x in items])
        metrics = info.known(metrics | told)
        local = self._local(states.values())
        run = run._replace(learner=drained.state, local=local, progress=progress)
        return run, metrics

    def _compile_gradient(self, worker: Worker, state: State) -> None:
        place = self._root, count_of(0), np.int32(0)
        if isinstance(worker, kinds.PureWorker):
            now = worker.state()
            self._contribute.compile(state, now.streams, now.data, *place)
        else:
            sums, batch = np.zeros(3, np.float32), _zeros(self._batch)
            self._gradient.compile(state, self._start_data(), batch, sums, *place)

    def _shapes(self, state: State, step: TimeStep) -> Any:
        """Those of a batch; the state may be of shapes, too."""
        learner = self.parts.learner
        params = learner.params(state)
        return rollout.shapes(learner.actor, params, step, self.parts.unroll_length)

    def _start_data(self) -> Any:
        """Empty data of the learner, of one worker."""
        with jax.default_device(self.parts.device):
            return self.parts.learner.start(self._batch)

    def _local(self, states: Iterable[Any]) -> Local:
        """The states as arrays of JAX, which is what checkpoints restore."""
        return jax.device_put(Local(tuple(states)), self.parts.device)


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
