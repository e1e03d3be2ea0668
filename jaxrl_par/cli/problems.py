"""What is wrong with the settings of an experiment, before anything is made of them.

Each function returns sentences, none if all is well: about the topology that was
chosen, the environments, and sizes that do not fit each other.
"""

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from jaxrl_par import envs
from jaxrl_par.cli.readers import SIMULATED, readers
from jaxrl_par.envs import catalogue, host
from jaxrl_par.envs.suites import table
from jaxrl_par.errors import either, problems
from jaxrl_par.training.comparison import differences, to_json

if TYPE_CHECKING:
    from jaxrl_par.cli.args import Args

_MOST_ROWS = 2**27  # a row has tens of bytes, or thousands
_MOST_TURNS = 10**8


def topology_problems(args: "Args") -> list[str]:
    """A topology that the learner does not run on, and settings of others."""
    if args.topology not in args.topologies:
        allowed = either(args.topologies)
        told = f"topology must be {allowed} here, got {args.topology}"
        return [told + (args.lacks and f": {args.lacks}")]
    changed = differences(to_json(type(args)()), to_json(args))
    # What a part says itself need not be said twice.
    refused = {line.split()[0].rstrip(":") for line in _problems_of_parts(args)}
    ours = {args.topology, args.system}
    refused = {x for x in refused if ours & set(readers(x))}
    found = [
        f"{name} {told}: leave it out, got {value}"
        for name, (_, value) in changed.items()
        if name not in refused and (told := args.unread(name))
    ]
    kept = args.threads.keep_unrolls
    fixed = args.system == "threads" and args.threads.is_deterministic and not kept
    if args.repeat is not None and fixed:
        found.append("repeat is for threads with the free schedule, not lockstep")
    in_processes = args.topology == "fleet" and args.repeat is None
    if in_processes and args.is_pure and args.threads.act_with == "numpy":
        found.append(
            f"threads.act_with must be jax in a fleet with {args.env_name}, got numpy:"
            " pure environments need JAX, simulators do not"
        )
    return found + _hosts_problems(args)


def environment_problems(name: str) -> list[str]:
    """That there is no such pure environment."""
    if envs.is_name(name):
        return []
    return [f"env_name: {catalogue.unknown(name, 'name')}"]


def environments_problems(args: "Args") -> list[str]:
    """Environments that there are not, or that the topology cannot step."""
    if args.owns_environments:
        return _own_problems(args)
    if args.is_pure:
        if names := args.training.info_metrics:
            found = f"info_metrics: {args.env_name} is compiled, and logs all it tells"
            return [f"{found}: leave it out, got {', '.join(names)}"]
        if args.masked:
            return [
                f"masked: {args.env_name} is compiled, and shows its masks by itself if"
                " it has any: leave it out"
            ]
        return _one_sided(args)
    simulated = args.system in SIMULATED
    unknown = host.problems(args.env_name, args.backend or "auto")
    if args.backend is not None:
        found = unknown or _named_endless_problems(args)
        return found if simulated else []
    if unknown:
        found = environment_problems(args.env_name)
        if not simulated or table.is_of_a_suite(args.env_name):
            return found
        (pure,), (simulator,) = found, unknown
        return [f"{pure}. As a simulator: {simulator.removeprefix('env_name: ')}"]
    if simulated:
        return _named_endless_problems(args)
    return [_cannot_compile(args)]


def _one_sided(args: "Args") -> list[str]:
    """A game that the agent plays against itself, and cannot learn from both sides."""
    opposed = table.opposed(args.env_name)
    if args.plays_itself or opposed == args.env_name:
        return []
    return [
        f"env_name: in {args.env_name} each step is the other player's, with a discount"
        " of -1, which a2c, ppo, impala, dqn and what is made of them learn from, and"
        f" this does not: take {opposed}"
    ]


def endless_problems(args: "Args", known_limit: int | None) -> list[str]:
    """That an evaluation of a simulator with this time limit might never end."""
    if known_limit is not None or args.training.evaluation_max_steps is not None:
        return []
    return [
        f"evaluation_max_steps: {args.env_name} has no time limit, so episodes may"
        " never end: give the steps after which one of an evaluation is cut"
    ]


def size_problems(args: "Args") -> list[str]:
    """Numbers, each right by itself, that do not fit each other."""
    name, count = args.shared_by
    if args.num_envs % count:
        wrong = f"num_envs must be a multiple of {name} = {count}"
        return [f"{wrong}, got {args.num_envs}"]
    if args.num_envs * args.unroll_length > _MOST_ROWS:
        wrong = f"num_envs * unroll_length must be at most {_MOST_ROWS}"
        return [f"{wrong}, got {args.num_envs} * {args.unroll_length}"]
    if args.in_turns and args.max_updates > _MOST_TURNS:
        most = (_MOST_TURNS - 1) // 2 * args.rows_per_update
        where = f"topology = {args.topology}"
        wrong = f"total_steps must be at most {most} for {where} here"
        told = "whose schedule is made before the run"
        return [f"{wrong}, {told}, got {args.total_steps}"]
    if args.topology == "gossip":
        return _gossip_problems(args)
    if args.topology == "delayed" and args.delays.quorum is not None:
        return _quorum_problems(args)
    if args.system == "threads" and args.lanes % args.num_devices:
        wrong = f"num_devices must divide the {args.lanes} environments of a batch"
        return [f"{wrong}, got {args.num_devices}"]
    return []


def _quorum_problems(args: "Args") -> list[str]:
    number, workers = args.delays.quorum, args.workers
    if number is not None and number > workers.num_workers:
        most = f"workers.num_workers = {workers.num_workers}"
        return [f"delays.quorum must be at most {most}, got {number}"]
    usual = type(workers)()
    found = []
    if workers.outliers != usual.outliers:
        found.append("workers.outliers: with delays.quorum no gradient is judged alone")
    if workers.staleness.rule == "scale":
        found.append(
            "workers.staleness.rule must be accept or reject with delays.quorum, whose"
            " unrolls are learned from together, got scale"
        )
    return found


def _problems_of_parts(args: "Args") -> list[str]:
    parts = {field.name: getattr(args, field.name) for field in fields(args)}
    found = {n: problems(part) for n, part in parts.items() if is_dataclass(part)}
    return [f"{name}.{line}" for name, lines in found.items() for line in lines]


def _hosts_problems(args: "Args") -> list[str]:
    processes = args.hosts.num_processes or 1
    if args.topology != "compiled" or args.num_devices >= processes:
        return []
    told = f"each of hosts.num_processes = {processes} needs one"
    return [f"num_devices must be at least {processes}: {told}"]


def _own_problems(args: "Args") -> list[str]:
    """What is given for environments that are made by name."""
    asked = {"env_name": args.env_name, "backend": args.backend}
    asked |= {"info_metrics": args.training.info_metrics, "masked": args.masked}
    usual = {"env_name": type(args).env_name, "backend": None, "info_metrics": ()}
    usual |= {"masked": False}
    found = [
        f"{name} is for environments by name, and this script has its own: leave it"
        f" out, got {value}"
        for name, value in asked.items()
        if value != usual[name]
    ]
    if args.simulators is not None and args.system not in SIMULATED:
        found.append(_cannot_compile(args))
    return found


def _named_endless_problems(args: "Args") -> list[str]:
    """`endless_problems` of a simulator that there is."""
    limit = host.time_limit(args.env_name, args.backend or "auto")
    return endless_problems(args, limit)


def _cannot_compile(args: "Args") -> str:
    others = [x for x in SIMULATED if x in args.topologies]
    instead = f": take {either(others)}" if others else ""
    return (
        f"env_name: {args.env_name} is a simulator's, which topology ="
        f" {args.topology} cannot compile{instead}"
    )


def _gossip_problems(args: "Args") -> list[str]:
    number, devices = args.gossip.num_learners, args.num_devices
    if args.in_processes and devices != 1:
        return [f"num_devices must be 1 with in_processes, got {devices}"]
    if args.in_turns and args.delays.model == "constant":
        return ["delays.model: a constant delay is for topology = delayed"]
    if devices != 1 and args.in_turns:
        wrong = "num_devices must be 1 for gossip.pace = own, which is data"
        return [f"{wrong}, got {devices}"]
    if devices not in (1, number):
        wrong = f"num_devices must be 1 or gossip.num_learners = {number}"
        return [f"{wrong}, got {devices}"]
    return []
