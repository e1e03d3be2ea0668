"""Which topologies give the same numbers for a learner, and how nearly.

In each of them there is one instance: one device, one actor, one worker, no delay. That
is where they all promise what the compiled program computes.
"""

from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from itertools import combinations
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import prng_key

from jaxrl_par import random
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host import from_pure
from jaxrl_par.errors import unknown_name
from jaxrl_par.loops import Learner, Program, Run, learner_of, schedules
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.topologies.gossip import GossipConfig, gossip
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.topologies.threads import ThreadsConfig, threads
from jaxrl_par.topologies.workers import WorkersConfig, workers
from jaxrl_par.types import Agent, Metrics, nothing

Equality = Literal["bits", "rounding", "statistics"]
"""bits: all are equal. rounding: no leaf differs by more than a stated share of its
norm. statistics: by more than that; no more than their statistics may agree."""


def _sharded(learner: Learner, env: Environment, length: int) -> Program:
    return sharded(compiled(learner, env, length, Axis("data")), data_mesh(1))


def _delayed(learner: Learner, env: Environment, length: int) -> Program:
    return delayed(learner, env, length, schedules.in_turn(1, 1), num_workers=1)


def _gossip(learner: Learner, env: Environment, length: int) -> Program:
    return _alone(gossip(learner, env, length, GossipConfig(1), mesh=data_mesh(1)))


def _own_pace(learner: Learner, env: Environment, length: int) -> Program:
    config, schedule = GossipConfig(1, pace="own"), schedules.in_turn(1, 1)
    return _alone(gossip(learner, env, length, config, schedule=schedule))


def _alone(program: Program) -> Program:
    """The program, and its only learner's state as that of others is."""

    def one(run: Run) -> Run:
        return run._replace(learner=jax.tree.map(lambda x: x[0], run.learner))

    def step(run: Run) -> tuple[Run, Metrics]:
        state = jax.tree.map(lambda x: x[None], run.learner)
        run, metrics = program.step(run._replace(learner=state))
        return one(run), metrics

    return Program(lambda key: one(program.init(key)), step)


def _threads(
    inference: Literal["local", "central"],
    learner: Learner,
    env: Environment,
    length: int,
) -> Any:
    config = ThreadsConfig(1, "lockstep", lag=0, inference=inference)
    return threads(learner, partial(from_pure, env), length, config, data_mesh(1))


def _workers(learner: Learner, env: Environment, length: int) -> Any:
    return workers(learner, env, length, WorkersConfig(num_workers=1))


def _host_workers(learner: Learner, env: Environment, length: int) -> Any:
    return workers(learner, partial(from_pure, env), length, WorkersConfig(1, "server"))


TOPOLOGIES: dict[str, Callable[[Learner, Environment, int], Any]] = {
    "compiled": compiled,
    "sharded": _sharded,
    "delayed": _delayed,
    "gossip": _gossip,
    "gossip, own pace": _own_pace,
    "threads": partial(_threads, "local"),
    "threads, central": partial(_threads, "central"),
    "workers": _workers,
    "workers, simulators": _host_workers,
}
"""(learner, env, unroll_length) -> a program, or an engine of threads"""


def taken_by(learner: Agent | Learner) -> tuple[str, ...]:
    """Names of the topologies that take a learner."""
    halves = learner_of(learner).halves
    refused = [] if halves else ["delayed", "workers"]
    refused += ["workers"] if halves and halves.observe is not nothing else []
    return tuple(x for x in TOPOLOGIES if x.split(",")[0] not in refused)


def check_equal(
    learner: Agent | Learner,
    env: Environment,
    topologies: Iterable[str] | None = None,
    *,
    unroll_length: int = 5,
    num_updates: int = 3,
    bound: float = 1e-5,
) -> dict[tuple[str, str], Equality]:
    """Trains on several topologies, and says for each pair how nearly both agree.

    Args:
      topologies: names in `TOPOLOGIES`; by default all that take the learner.
      bound: most that a leaf of the learner's state may differ by, as a share of its
        norm, for two runs to be equal but for rounding.

    Raises:
      ValueError: there is no such topology, or it does not take the learner.
    """
    learner = learner_of(learner)
    names = taken_by(learner) if topologies is None else tuple(topologies)
    for unknown in [x for x in names if x not in TOPOLOGIES]:
        raise unknown_name("topology", unknown, TOPOLOGIES)
    learned = {
        name: _learned(TOPOLOGIES[name](learner, env, unroll_length), num_updates)
        for name in names
    }
    return {
        (x, y): equality_of(learned[x], learned[y], bound)
        for x, y in combinations(names, 2)
    }


def _learned(made: Any, num_updates: int) -> list[np.ndarray]:
    """Leaves of the learner's state after so many updates."""
    key = random.key(0)
    if isinstance(made, Program):
        train = jax.jit(lambda key: scanned(made, num_updates)(made.init(key))[0])
        run = train(key)
    else:
        with closing(made):
            run, _ = made.advance(made.init(key), num_updates)
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, prng_key) else x)
        for x in jax.tree.leaves(run.learner)
    ]


def equality_of(
    first: list[np.ndarray], second: list[np.ndarray], bound: float = 1e-5
) -> Equality:
    """The strongest class that holds for two lists of leaves, as for `check_equal`."""
    pairs = list(zip(first, second, strict=True))
    if all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in pairs):
        return "bits"
    # Not element by element: those near zero differ between processors.
    near = all(
        np.linalg.norm(np.float64(x) - np.float64(y))
        <= bound * max(np.linalg.norm(np.float64(x)), np.linalg.norm(np.float64(y)))
        for x, y in pairs
    )
    return "rounding" if near else "statistics"
