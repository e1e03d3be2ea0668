"""From a config to what trains: the learner, and where it runs.

Engines are imported where one is made: all that asks for help would wait for them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from jaxrl_par.axis import Axis
from jaxrl_par.cli.args import Args
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.loops import Engine, Learner, Program
from jaxrl_par.loops.records import RecordError
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.topologies.gossip import gossip
from jaxrl_par.topologies.quorum import quorum
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.types import Agent, Box, Specs

MakeAgent = Callable[
    [Any, tuple[Specs, Specs], optax.GradientTransformation], Agent | Learner
]
"""(args, specs of observations and actions, optimizer) -> the experiment's agent, or
its learner if `Args.make_learner` makes none that would do"""


def compose(args: Args, make_agent: MakeAgent) -> Learner:
    """The experiment's learner, for its environments and as long as it trains.

    Raises:
      TrainingError: observations are to be normalised, but no agent was made; there
        is a policy for continuous actions, but no such action; or a network is refused
        for these environments.
    """
    specs, policy = args.specs(), args.network.policy
    has_reals = any(isinstance(x, Box) for x in jax.tree.leaves(specs[1]))
    if not has_reals and policy != type(args)().network.policy:
        raise TrainingError(
            f"network.policy is for continuous actions, and those of {args.env_name}"
            f" are discrete: leave it out, got {policy}"
        )
    try:
        made = make_agent(args, specs, args.make_optimizer())
    except RefusedError as error:
        raise TrainingError(str(error)) from error
    if isinstance(made, Agent):
        return args.make_learner(made)
    if args.normalize:
        raise TrainingError("normalize is for a single agent, which is not all here")
    return made


def place(args: Args, learner: Learner) -> Program | Engine:
    """The learner on the topology that was chosen.

    Raises:
      TrainingError: the config is out of range or asks for more devices, the topology
        refuses the learner, or the record is missing, damaged, or does not fit.
    """
    placed = {
        "compiled": _compiled,
        "delayed": _delayed,
        "gossip": _gossip,
        "threads": _threads,
        "workers": _workers,
        "fleet": _fleet,
    }
    try:
        refuse(args)
        return placed[args.topology](args, learner)
    except RecordError as error:
        option = "delays.record" if args.repeat is None else "repeat"
        raise TrainingError(f"{option}: {error}") from error
    except RefusedError as error:
        raise TrainingError(str(error)) from error


def _compiled(args: Args, learner: Learner) -> Program:
    env = args.training_env(args.envs_each)
    if args.num_devices == 1:
        return args.make_program(learner, env, Axis())
    return sharded(args.make_program(learner, env, Axis("data")), _mesh(args))


def _delayed(args: Args, learner: Learner) -> Program:
    if program := args.make_delayed(learner):
        return program
    num_workers = args.workers.num_workers
    if args.delays.quorum is not None:
        staleness = args.workers.staleness
        oldest = staleness.max_staleness if staleness.rule == "reject" else None
        size = num_workers, args.max_updates, args.seed
        parts = learner, args.training_env(args.envs_each), args.unroll_length
        found = args.delays.rounds(*size, oldest)
        return quorum(*parts, found, num_workers=num_workers)
    return delayed(
        learner,
        args.training_env(args.envs_each),
        args.unroll_length,
        args.delays.schedule(num_workers, args.max_updates, args.seed),
        num_workers=num_workers,
        storage=args.delays.storage,
        staleness=args.workers.staleness,
        outliers=args.workers.outliers,
        share_data=args.shares_data,
    )


def _gossip(args: Args, learner: Learner) -> Program | Engine:
    number, schedule = args.gossip.num_learners, None
    if args.in_turns:
        schedule = args.delays.schedule(number, args.max_updates, args.seed)
    parts = learner, args.training_env(args.envs_each), args.unroll_length, args.gossip
    if args.repeat is not None:
        from jaxrl_par.topologies.gossip.fleet import repeat_recorded

        return repeat_recorded(*parts, Path(args.repeat))
    if args.in_processes:
        from jaxrl_par.topologies.gossip.fleet import fleet_of_learners

        return fleet_of_learners(*parts, args.fleet)
    mesh = None if args.num_devices == 1 else _mesh(args)
    return gossip(*parts, mesh=mesh, schedule=schedule)


def _threads(args: Args, learner: Learner) -> Engine:
    from jaxrl_par.topologies.threads import repeat_kept, repeat_recorded, threads

    # The same as in a fleet whose record is repeated: it says what acts.
    in_fleet = args.topology == "fleet" and not args.is_pure
    make = args.seeded() if in_fleet else args.make_host_env
    parts = learner, make, args.unroll_length, args.threads, _mesh(args)
    if args.repeat is None:
        return threads(*parts)
    if args.threads.keep_unrolls:
        return repeat_kept(learner, *parts[2:], Path(args.repeat))
    return repeat_recorded(*parts, Path(args.repeat))


def _workers(args: Args, learner: Learner) -> Engine:
    from jaxrl_par.topologies.workers import repeat_recorded, workers

    if engine := args.make_engine(learner):
        return engine
    env = args.make_env(args.envs_each) if args.is_pure else args.make_host_env
    parts = learner, env, args.unroll_length, args.workers
    if args.repeat is None:
        return workers(*parts)
    return repeat_recorded(*parts, Path(args.repeat))


def _fleet(args: Args, learner: Learner) -> Engine:
    from jaxrl_par.topologies.fleet import fleet, fleet_of_workers

    if engine := args.make_engine(learner):
        return engine
    if args.repeat is not None:  # in one process
        return {"threads": _threads, "workers": _workers}[args.system](args, learner)
    length = args.unroll_length
    if args.system == "workers":
        env = args.make_env(args.envs_each) if args.is_pure else args.make_host_env
        parts = learner, env, length, args.workers
        return fleet_of_workers(*parts, fleet=args.fleet)
    make = args.make_host_env if args.is_pure else args.seeded()
    parts = learner, make, length, args.threads, _mesh(args)
    return fleet(*parts, fleet=args.fleet)


def _mesh(args: Args) -> Mesh:
    try:
        return data_mesh(args.num_devices)
    except RefusedError as error:
        raise TrainingError(f"num_devices: {error}") from error
