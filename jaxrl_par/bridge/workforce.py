"""Workers in threads that share parameters through a store, and a serial replay."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par import loops, rollout
from jaxrl_par.bridge import worker as kinds
from jaxrl_par.bridge.actor import MakeEnv, acting, count_of
from jaxrl_par.bridge.crew import Crew, Limits
from jaxrl_par.bridge.record import Recorder, RecordError, Turn
from jaxrl_par.bridge.report import Tally
from jaxrl_par.bridge.shards import Shards
from jaxrl_par.bridge.store_report import StoreReport
from jaxrl_par.bridge.stores import (
    MakeStore,
    Pulled,
    Push,
    Server,
    Store,
    Update,
    absorbed,
    mean,
)
from jaxrl_par.bridge.supervision import Activity, DeadlineError, Stopped, Supervisor
from jaxrl_par.bridge.system import fresh_key
from jaxrl_par.bridge.worker import Given, HostWorker, PureWorker, Worker
from jaxrl_par.envs import Environment
from jaxrl_par.loops import Run, asynchronous
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.types import (
    Agent,
    Mean,
    Metrics,
    PRNGKey,
    State,
    TimeStep,
    example,
)


class Local(NamedTuple):
    """What workers keep in `Run.local`: each after the last of its pushes."""

    workers: tuple[Any, ...]


@dataclass(frozen=True)
class Parts:
    """What a workforce is built from."""

    agent: Agent
    env: Environment | MakeEnv
    """The environments of one worker; simulators are made from a key."""
    unroll_length: int
    num_workers: int
    num_shards: int
    staleness: StalenessConfig
    device: Any
    """A `jax.Device`, where workers act and the store is."""
    check_bounds: bool


class Workshop:
    """Workers and the functions they share, without anything that decides when they
    run."""

    def __init__(self, parts: Parts, key: PRNGKey):
        """
        Args:
          key: of a new run. Its parts are those that `loops.on_policy` splits it into.
        """
        self.parts = parts
        self.tally = Tally()
        self.compile_seconds = 0.0
        self._agent_key, self._env_key, self._root = jax.random.split(key, 3)
        agent, env, length = parts.agent, parts.env, parts.unroll_length
        self._gradient = kinds.gradients(agent)
        if isinstance(env, Environment):
            self._starts = kinds.pure_starts(agent, env, parts.num_workers)
            self._contribute = kinds.pure_contributions(agent, env, length)
        else:
            self._acting = acting(agent, length, parts.num_workers)

    def actor(self, index: int, **options: Any) -> Worker:
        """A worker, still without environments."""
        parts = self.parts
        env, length = parts.env, parts.unroll_length
        if isinstance(env, Environment):
            return PureWorker(
                index, self._starts, self._contribute, length * env.num_envs,
                self._root, parts.device, **options,
            )  # fmt: skip
        return HostWorker(
            index, env, self._acting, self._gradient, length, self._root,
            parts.device, check_bounds=parts.check_bounds, **options,
        )  # fmt: skip

    def env_key(self, actor: int, generation: int) -> PRNGKey:
        """As `system.System.env_key`."""
        if generation == 0:
            return jax.random.fold_in(self._env_key, actor)
        return fresh_key(self._root, actor, generation)

    def resume(self, actor: Worker, state: Any) -> bool:
        """As `Actor.resume`."""
        generation = int(state.generation)
        return actor.resume(
            state,
            self.env_key(actor.index, generation),
            self.env_key(actor.index, generation + 1),
        )

    def new_run(self, workers: Sequence[Worker]) -> Run:
        """The run at its start, from workers that have environments."""
        env = self.parts.env
        shown: Any = env if isinstance(env, Environment) else workers[0].env
        flags: Any = np.zeros(shown.num_envs, np.bool_)
        step = TimeStep(example(shown.observation_spec, shown.num_envs), flags, flags)

        def init(agent_key: PRNGKey, root: PRNGKey, step: TimeStep) -> Run:
            run = loops.new_run(self.parts.agent.init(agent_key, step), (), root)
            # Strong types, as those that come from a file.
            return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), run)

        with jax.default_device(self.parts.device):
            run = jax.jit(init)(self._agent_key, self._root, step)
        self._batch = rollout.shapes(
            self.parts.agent, run.learner.params, step, self.parts.unroll_length
        )
        self._check_prepare(run.learner)
        return run._replace(local=self._local([x.state() for x in workers]))

    def shards(self, state: State) -> Shards:
        """What divides the learner's state.

        Raises:
          ValueError: it cannot be divided.
        """
        parts = self.parts
        gradient = partial(asynchronous.contribution, parts.agent)
        given = jax.eval_shape(
            gradient, state, self._batch, self._root, count_of(0), np.int32(0)
        )
        self._grads = given.grads
        mean = Mean(0, 0)  # pyright: ignore
        episodes = {"episode_return": mean, "episode_length": mean}
        self._metrics_tree = jax.tree.structure(given.metrics | episodes)
        return Shards(
            parts.agent, state, given.grads, parts.num_shards, parts.staleness
        )

    def compile(self, worker: Worker, shards: Shards, state: State) -> None:
        """Before the first pull, so that nobody is late because of it."""
        started = time.perf_counter()
        zeros = partial(jax.tree.map, lambda x: jnp.zeros(x.shape, x.dtype))
        count, index = count_of(0), np.int32(0)
        if isinstance(worker, PureWorker):
            now = worker.state().workers
            self._contribute.compile(state, now, self._root, count, index)
        else:
            sums, batch = np.zeros(3, np.float32), zeros(self._batch)
            self._gradient.compile(state, batch, sums, self._root, count, index)
        shards.compile(state, jax.device_put(zeros(self._grads), self.parts.device))
        self.compile_seconds += time.perf_counter() - started

    def after(
        self, run: Run, state: State, updates: list[Update]
    ) -> tuple[Run, Metrics]:
        """The run after these updates, and their metrics, [num_updates]."""
        items: list[Given] = [x.push.item for x in updates]
        states = list(run.local.workers)
        for item in items:
            states[item.worker] = item.after
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
        run = run._replace(learner=state, local=self._local(states), progress=progress)
        return run, metrics

    def _local(self, states: Sequence[Any]) -> Local:
        """As arrays of JAX, which is what checkpoints restore."""
        return jax.device_put(Local(tuple(states)), self.parts.device)

    def _check_prepare(self, state: State) -> None:
        """Workers send gradients only: statistics of their data would be lost."""
        changed = asynchronous.parts_prepared(self.parts.agent, state, self._batch)
        if changed:
            raise ValueError(
                "this agent changes its state from the data before the gradient, at"
                f" {', '.join(changed)}: workers send gradients only. Leave"
                " normalisation out, or use `topologies.delayed`"
            )


class Workforce:
    """An engine of `training.train`: `init`, perhaps `resume`, `advance`, `close`."""

    def __init__(self, parts: Parts, make_store: MakeStore, limits: Limits):
        self._parts = parts
        self._make_store = make_store
        self._limits = limits
        self._supervisor = Supervisor(limits.patience)
        self._record: Path | None = None
        self._recorder: Recorder | None = None
        self._store: Store | None = None
        self._state: State = None
        self._target = 0
        self._closed = False

    @property
    def compile_seconds(self) -> float:
        # Asked for before `init` where an engine is recognised by what it has.
        shop = getattr(self, "_shop", None)
        return shop.compile_seconds if shop else 0.0

    def init(self, key: PRNGKey) -> Run:
        """Makes all environments, each in a thread, and a new run.

        Raises:
          ValueError: the agent's statistics of data would be lost, or its state cannot
            be divided.
          HangError: an environment is not made in time.
          Exception: as the environment raised it.
        """
        self._shop = Workshop(self._parts, key)
        self._crew: Crew[Worker] = Crew(
            self._supervisor, self._limits, self._shop, self._parts.num_workers,
            name="worker",
        )  # fmt: skip
        self._crew.make()
        run = self._shop.new_run(list(self._crew))
        self._shards = self._shop.shards(run.learner)
        return run

    def resume(self, run: Run) -> None:
        """As `Threaded.resume`."""
        self._crew.resume(run.local.workers)

    def record(self, path: Path) -> None:
        """Writes the schedule to this file, for `Rerun`."""
        self._record = path

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """So many pushes of workers, applied or refused.

        Between two calls nobody writes; workers go on until they have something to
        push.

        Raises:
          ValueError: the run is not the one that was returned last.
          DeadlineError, HangError: somebody is late.
          Exception: what a worker raised, with its own traceback, and a note that names
            the worker, environment and step.
        """
        if self._store is None:
            self._start(run)
        elif run.learner is not self._state:
            raise ValueError(
                "workers go on with the parameters in their store: advance needs the"
                " run that it returned last"
            )
        assert self._store is not None
        with self._supervisor.working(), self._crew.telling():
            self._target += num_updates
            self._store.open(self._target)
            self._state, updates = self._store.take()
        self._write(updates)
        self._count(updates)
        return self._shop.after(run, self._state, updates)

    def report(self) -> StoreReport | None:
        """Where the time went until now; None before the first update."""
        if self._store is None:
            return None
        tally, crew, store = self._shop.tally, self._crew, self._store
        seconds = max(self._supervisor.clock() - self._began, 1e-9)
        acted = sum(x.rows for x in crew.all_actors)
        in_store = sum(tally.lags.values()) * self._rows
        return StoreReport(
            kind=type(store).__name__.lower(),
            seconds=seconds,
            steps_per_second=tally.env_steps / seconds,
            updates=tally.updates,
            rejected=self._rejected,
            workers=[x.times.shares() for x in crew],
            shards=[x.shares() for x in store.times]
            if isinstance(store, Server)
            else [],
            lags=dict(sorted(tally.lags.items())),
            statistics=store.statistics(),
            compile_seconds=self.compile_seconds,
            restarts=tally.restarts,
            dropped_rows=acted - in_store if self._closed else tally.dropped_rows,
            abandoned=crew.abandoned,
        )

    def close(self) -> None:
        """Ends all threads and frees all environments; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        # Before `init` nothing runs.
        if (crew := getattr(self, "_crew", None)) is None:
            return
        with crew.telling():
            crew.stop()
            if self._recorder:
                self._recorder.close()

    def _start(self, run: Run) -> None:
        worker = next(iter(self._crew))
        state = jax.device_put(run.learner, self._parts.device)
        self._shop.compile(worker, self._shards, state)
        self._first = int(run.progress.updates)
        self._rejected = self._rows = 0
        if self._record is not None:
            self._recorder = Recorder(self._record, self._first)
        self._began = self._supervisor.clock()
        store = self._make_store(self._supervisor, self._shards, state)
        if isinstance(store, Server):
            store.start()
        self._store = store
        self._crew.start(self._live)

    def _live(self, worker: Worker) -> None:
        """The life of a worker's thread."""
        store, times = self._store, worker.times
        assert store is not None
        while True:
            try:
                pulled = times.timed("pulling", store.pull, worker.index)
                given = worker.contribute(pulled.state)
                store.push(worker.index, Push(given.grads, pulled, given), times)
            except (Stopped, DeadlineError):
                raise
            except Exception as error:
                self._crew.restart(worker, error)

    def _write(self, updates: list[Update]) -> None:
        if self._recorder:
            for update in updates:
                given: Given = update.push.item
                read = tuple(self._first + n for n in update.push.pulled.pushes)
                turn = Turn(given.worker, given.unroll, given.generation, read)
                self._recorder.write([turn])

    def _count(self, updates: list[Update]) -> None:
        tally = self._shop.tally
        for update in updates:
            self._rows = update.push.item.rows
            tally.lags[round(float(update.metrics["lag"]))] += 1
            tally.env_steps += int(update.push.item.env_steps)
            tally.updates += 1
            self._rejected += bool(update.metrics["rejected"])


class Rerun:
    """An engine that follows a record of a `Workforce`, in one thread.

    A gradient depends on its worker's environments and keys and on the parameters that
    it read, and a shard's updates on their order alone. So the runs of `Lock` and
    `Server` come out in the same bits. Those of `Hogwild` come out as they would have,
    had each update been done at once.
    """

    def __init__(self, parts: Parts, turns: Sequence[Turn]):
        self._parts = parts
        self._turns = turns
        self._turn = 0

    @property
    def compile_seconds(self) -> float:
        # Asked for before `init` where an engine is recognised by what it has.
        shop = getattr(self, "_shop", None)
        return shop.compile_seconds if shop else 0.0

    def init(self, key: PRNGKey) -> Run:
        self._shop = Workshop(self._parts, key)
        self._workers = [
            self._shop.actor(i, activity=Activity(f"worker {i}", float("inf")))
            for i in range(self._parts.num_workers)
        ]
        for worker in self._workers:
            worker.start(self._shop.env_key(worker.index, 0))
        run = self._shop.new_run(self._workers)
        self._shards = self._shop.shards(run.learner)
        state = jax.device_put(run.learner, self._parts.device)
        self._shop.compile(self._workers[0], self._shards, state)
        num_shards = self._parts.num_shards
        if self._turns and len(self._turns[0].read) != num_shards:
            raise RecordError(
                f"the record is of {len(self._turns[0].read)} shards, asked for"
                f" {num_shards}"
            )
        shards = range(num_shards)
        self._uses = [Counter(x.read[j] for x in self._turns) for j in shards]
        self._past: list[dict[int, tuple[State, int]]] = [{} for _ in shards]
        self._current = [(x, 0) for x in self._shards.split(state)]
        self._keep(0)
        return run

    def resume(self, run: Run) -> None:
        """
        Raises:
          RecordError: parameters of the past, which the record asks for, are not kept.
        """
        raise RecordError("a replay starts at the beginning: it cannot be resumed")

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """
        Raises:
          RecordError: the record ends earlier, or does not fit the run.
        """
        if self._turn + num_updates > len(self._turns):
            raise RecordError(
                f"the record has {len(self._turns)} updates, asked for"
                f" {self._turn + num_updates}"
            )
        updates = [self._update() for _ in range(num_updates)]
        state = self._shards.join([x for x, _ in self._current])
        return self._shop.after(run, state, updates)

    def record(self, path: Path) -> None:
        """The schedule is known."""

    def report(self) -> None:
        """Nothing runs in parallel here."""

    def close(self) -> None:
        # Before `init` there are none.
        for worker in getattr(self, "_workers", ()):
            worker.close()

    def _update(self) -> Update:
        turn = self._turns[self._turn]
        if not 0 <= turn.worker < len(self._workers):
            raise RecordError(
                f"update {self._turn} of the record is of worker {turn.worker}, and"
                f" there are {len(self._workers)}"
            )
        worker = self._workers[turn.worker]
        if turn.generation != worker.generation:
            worker.close()
            key = self._shop.env_key(turn.worker, turn.generation)
            worker.start(key, turn.generation, turn.unroll)
        there = all(n in past for n, past in zip(turn.read, self._past, strict=True))
        if worker.next_unroll != turn.unroll or not there:
            raise RecordError(
                f"update {self._turn} of the record wants unroll {turn.unroll} of"
                f" worker {turn.worker} with parameters after {turn.read} updates; the"
                f" worker is at {worker.next_unroll}"
            )
        read = [past[n] for n, past in zip(turn.read, self._past, strict=True)]
        state = self._shards.join([x for x, _ in read])
        given = worker.contribute(state)
        metrics = []
        for j, grads in enumerate(self._shards.divide(given.grads)):
            part, version = self._current[j]
            update = absorbed(self._shards, part, grads, version - read[j][1])
            self._current[j] = (update.state, version + update.applied)
            metrics.append(update.metrics)
            self._uses[j][turn.read[j]] -= 1
            if not self._uses[j][turn.read[j]]:
                del self._past[j][turn.read[j]]
        self._turn += 1
        self._keep(self._turn)
        return Update(Push(given.grads, Pulled((), (), ()), given), mean(metrics))

    def _keep(self, turn: int) -> None:
        for uses, past, current in zip(
            self._uses, self._past, self._current, strict=True
        ):
            if uses[turn]:
                past[turn] = current
