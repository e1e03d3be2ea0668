"""Actors or workers in other processes, here or on any node of a Ray cluster.

`topologies.threads` with a process for each actor, or for a few of them: for simulators
that hold the interpreter, and for more processors than one machine has. The learner is
here, on its mesh. An actor is let in to an unroll as a thread is, which is its credit;
it pulls the newest parameters when it begins, or in lockstep the version that is due,
and what it acted comes through Ray's object store. Every row says which version acted.

Lockstep ends in the bits of threads in lockstep, on processors of one kind. A free run
that was recorded is repeated by `threads.repeat_recorded`, in one process.

A process that dies, or a node, costs the unrolls that were in progress in it: an error
as any other of an environment, which ends the run or (`supervision.on_error`) makes
the environments anew in a new process. So does an environment that does not come back
from a call in `supervision.env_timeout`; its process is ended. What is lost unseen
counts as a whole unroll. The holder of the parameters is replaced in the same way.

Actors of exportable actor-critics can do without JAX (`act_with = numpy`): their
processes import none, start sooner and are smaller. They draw the numbers that actors
by JAX draw, from the same keys, and act otherwise only by rounding; lockstep ends in
the bits of threads that act with NumPy too, and a record is repeated in that way. That
is the default (`auto`) for dense networks and simulators from a seed, but in lockstep:
its bits are those of threads, of which most act by JAX. Who repeats a record decides by
the same, and so alike.

With `inference = central` processes hold environments alone, without network, memory
or, for simulators that are made from a seed, JAX. Who acts is beside the learner, as
`threads` describes it, and each step is one call of a process: so it pays where steps,
or the network, take much longer than that. All that `threads` promises of it holds,
and lockstep has its bits. Environments that die begin with fresh memory, and the rows
of their unroll in progress are dropped, and counted.

`fleet_of_workers` is `topologies.workers` in the same way: gradients are computed in
processes, and the store is here with `lock`. With `server` each shard has a process of
its own, between which and the workers parameters and gradients go; here is who pushed,
and in which order. Processes share no memory for `hogwild`. A process that dies takes
with it what its workers kept, such as a replay, which new ones begin anew; one of a
shard ends the run.

`fleet_of_evaluators` is `topologies.generations` in the same way: members of evolution
strategies play in processes, which pull the parameters of a generation. A part of one
that died is played again, and nothing is lost with it.

What makes environments and the agent are sent to processes as Ray sends functions:
those of a notebook or a script as a whole, those of a module by name, so that a module
has to be there on each node. JAX, NumPy and this package must be the same.
"""

from functools import partial
from typing import Any

from jax.sharding import Mesh

from jaxrl_par.axis import Axis
from jaxrl_par.bridge.actor_learner import asked as actor_learner
from jaxrl_par.bridge.actor_learner.config import ThreadsConfig
from jaxrl_par.bridge.generations import system as generations
from jaxrl_par.bridge.generations.config import GenerationsConfig
from jaxrl_par.bridge.parameter_server import asked as parameter_server
from jaxrl_par.bridge.parameter_server.config import WorkersConfig
from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host.seeded import Seeded
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.connection import import_ray
from jaxrl_par.fleet.engine import (
    ActorFleetEngine,
    EvaluatorFleetEngine,
    WorkerFleetEngine,
)
from jaxrl_par.loops import Learner
from jaxrl_par.perturbations import NoiseConfig
from jaxrl_par.types import Agent


def fleet(
    learner: Agent | Learner,
    make_env: MakeEnv,
    unroll_length: int,
    config: ThreadsConfig,
    mesh: Mesh,
    axis: Axis = Axis("data"),
    fleet: FleetConfig = FleetConfig(),
) -> ActorFleetEngine:
    """An engine for `training.train`, which starts its processes in `init`.

    Arguments are those of `topologies.threads`.

    Raises:
      RefusedError: a config is out of range, actors are to act on the learner's device,
        or Ray is not installed.
    """
    refuse(fleet)
    import_ray(fleet)
    parts = actor_learner.asked(learner, make_env, unroll_length, config, mesh, axis)
    if config.actor_device != "cpu" and config.inference == "local":
        raise RefusedError(
            "actor_device: actors in other processes act on the CPU, so it must be cpu,"
            f" or inference central, got {config.actor_device}"
        )
    if config.act_with == "numpy" and not isinstance(make_env, Seeded):
        raise RefusedError(
            "act_with: processes without JAX make simulators from a seed, so make_env"
            f" must be an envs.host.Seeded, not {make_env!r:.60}, or act_with jax"
        )
    return ActorFleetEngine(parts, partial(actor_learner.schedule, parts), fleet)


def fleet_of_workers(
    learner: Agent | Learner,
    env: Environment | MakeEnv,
    unroll_length: int,
    config: WorkersConfig,
    device: Any = None,
    fleet: FleetConfig = FleetConfig(),
) -> WorkerFleetEngine:
    """An engine for `training.train`, which starts its processes in `init`.

    Arguments are those of `topologies.workers`.

    Raises:
      RefusedError: a config is out of range, the learner has no halves, the store is
        hogwild, or Ray is not installed.
    """
    refuse(fleet)
    import_ray(fleet)
    if config.store == "hogwild":
        raise RefusedError(
            "store: processes share no memory that all could write into, so it must be"
            " lock or server in a fleet, got hogwild"
        )
    parts = parameter_server.asked(learner, env, unroll_length, config, device)
    return WorkerFleetEngine(parts, parameter_server.STORES[config.store], fleet)


def fleet_of_evaluators(
    agent: Agent,
    env: Environment | MakeEnv,
    noise: NoiseConfig,
    num_members: int,
    max_steps: int,
    config: GenerationsConfig = GenerationsConfig(),
    *,
    cap_factor: float | None = None,
    device: Any = None,
    fleet: FleetConfig = FleetConfig(),
) -> EvaluatorFleetEngine:
    """An engine for `training.train`, which starts its processes in `init`.

    Arguments are those of `topologies.generations`.

    Raises:
      RefusedError: something is out of range, or Ray is not installed.
    """
    refuse(fleet)
    import_ray(fleet)
    given = noise, num_members, max_steps, cap_factor, config, device
    return EvaluatorFleetEngine(generations.asked(agent, env, *given), fleet)
