"""Rates of step, step + act, and step + act + learn, on more and more actor processes:
rows of the table that `scaling.py` makes.

Each process has an actor with simulators of its own, in a fleet on this machine. In the
first stage it acts at random, and in the first two the learner, which takes all unrolls
as it would, changes nothing. Equality is that with as many threads in lockstep.
"""

from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from fleet import rate as rate_of

from jaxrl_par import random
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.bridge.actor_learner.engine import ActorLearnerEngine
from jaxrl_par.envs.host import Seeded, make
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.testing.equality import equality_of
from jaxrl_par.topologies.fleet import fleet
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, threads
from jaxrl_par.types import Agent, Discrete, Info


@dataclass(frozen=True)
class Processes:
    """What to measure on actor processes, and for how long."""

    counts: tuple[int, ...] = (1, 2, 4)
    """Numbers of processes; none leaves them out."""
    env_name: str = "LunarLander-v3"
    """A simulator's, by Gymnasium."""
    num_envs: int = 16
    """Of each process."""
    unroll_length: int = 64
    seconds: float = 5.0
    """Length of what a rate is measured in, after compilation."""
    compared_updates: int = 3
    object_store_mb: int = 500


def rows_of(args: Processes, stages: tuple[str, ...], rounds: int) -> list[Any]:
    """Rows of the table, whose rates are medians over rounds in turn."""
    cases = [(stage, count) for stage in stages for count in args.counts]
    found: dict[Any, list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            found[case].append(rate(args, *case))
    rates = {case: median(x) for case, x in found.items()}
    return [
        {
            "stage": stage,
            "place": f"{count} processes",
            "steps_per_second": rates[stage, count],
            "efficiency": rates[stage, count]
            / (count * rates[stage, args.counts[0]] / args.counts[0]),
            "equality": equality(args, stage, count),
        }
        for stage, count in cases
    ]


def engine_of(args: Processes, stage: str, count: int, place: Any, **more: Any) -> Any:
    """Threads or a fleet that run a stage in lockstep."""
    make_env = Seeded(partial(make, args.env_name, args.num_envs))
    config = ThreadsConfig(num_actors=count, schedule="lockstep", lag=1)
    given = agent_of(make_env, stage), make_env, args.unroll_length, config
    return place(*given, data_mesh(1), **more)


def agent_of(make_env: Seeded, stage: str) -> Agent:
    """IMPALA, which learns nothing before the last stage, and acts at random in the
    first."""
    env = make_env(random.key(0))
    specs = env.specs
    env.close()
    optimizer = make_optimizer(OptimizerConfig(), 10**6)
    agent = impala(actor_critic(*specs, NetworkConfig()), optimizer, ImpalaConfig())
    if stage == "step + act + learn":
        return agent

    def grad(state: Any, batch: Any, key: Any, axis: Any):
        return jnp.zeros(()), Info({})

    agent = agent._replace(grad=grad, apply=lambda state, grads, metrics: state)
    return agent if stage == "step + act" else agent._replace(act=partial(drawn, specs))


def drawn(specs: Any, params: Any, carry: Any, step: Any, key: Any):
    """Actions at random, with what a learner would read of them."""
    spec, shape = specs[1], step.first.shape
    if isinstance(spec, Discrete):
        action = jax.random.randint(key, shape, 0, spec.num_values)
    else:
        action = jax.random.uniform(key, (*shape, *spec.shape), minval=-1.0)
    return action, carry, {"log_prob": jnp.zeros(shape)}


def rate(args: Processes, stage: str, count: int) -> float:
    """Environment steps per second, once all is compiled."""
    where = FleetConfig(object_store_mb=args.object_store_mb)
    return rate_of(engine_of(args, stage, count, fleet, fleet=where), args.seconds)


def equality(args: Processes, stage: str, count: int) -> str:
    """How nearly processes do what threads do."""
    where = FleetConfig(object_store_mb=args.object_store_mb)
    ours = numbers(args, engine_of(args, stage, count, fleet, fleet=where))
    return equality_of(ours, numbers(args, engine_of(args, stage, count, threads)))


def numbers(args: Processes, engine: ActorLearnerEngine) -> list[np.ndarray]:
    """What is learned, and what is said of what was acted."""
    try:
        run = engine.init(random.key(0))
        run, metrics = engine.advance(run, args.compared_updates)
        kept = run.learner, metrics["episode_return"]
        return [np.asarray(x) for x in jax.tree.leaves(kept)]
    finally:
        engine.close()
