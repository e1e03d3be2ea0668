"""Rates of step, step + act, and step + act + learn, on more and more devices.

    python experiments/benchmarks/scaling.py

Each device has as many environments, so that n of them do n times as much in a step of
the program. Efficiency is the rate on n, over n times that on one. On CPU devices are
forced, and share the cores of this machine: beyond their number nothing can be gained,
and what is lost is what sharding costs. All rows are measured in turn, so that each
meets the same machine; rates are medians over rounds. `cores` is the processor time
that a second took: one device of many environments may take part of a second core, and
leaves less to be gained by another.

Equality is that with the same program side by side on one device (for one device: with
the program alone), after some updates: bits, rounding or statistics, as
`testing.check_equal` says. Rounding may choose another action somewhere, and what comes
of that is no rounding any more: so it is compared after few.

More rows have processes of actors with simulators in place of devices: see
`actor_processes`.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from actor_processes import Processes, rows_of
from products import cpu_seconds
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, envs, random, rollout
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.axis import Axis
from jaxrl_par.errors import at_least
from jaxrl_par.loops import Program, Run
from jaxrl_par.loops.run import step_keys
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.testing.equality import Equality, equality_of
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.training.rows import total
from jaxrl_par.types import Agent, Discrete, Metrics

Stage = Literal["step", "step + act", "step + act + learn"]
STAGES: tuple[Stage, ...] = ("step", "step + act", "step + act + learn")
AXIS = Axis("data")


@dataclass(frozen=True)
class Args:
    """What to measure, and for how long."""

    env_name: str = "CartPole-v1"
    """As gymnax registers it, or one of ours, such as IMaze-9x9 or MetaFetch-7x7."""
    num_devices: tuple[int, ...] = (1, 2, 4)
    num_envs: int = 64
    """Environments of each device."""
    unroll_length: int = 32
    num_updates: int = 100
    """Steps of the program in a timed call."""
    compared_updates: int = 3
    """Those after which two programs are compared."""
    rounds: int = 5
    network: NetworkConfig = NetworkConfig()
    processes: Processes = Processes()
    output: Path = Path("scaling.json")

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = ("num_envs", "unroll_length", "num_updates", "rounds")
        found = at_least(self, num_devices=1, compared_updates=1)
        found += at_least(self, **dict.fromkeys(counts, 1))
        if not self.num_devices or self.num_devices[0] != 1:
            given = self.num_devices
            found.append(
                f"num_devices must begin with 1, of which shares are, got {given}"
            )
        return found + cli.environment_problems(self.env_name)


class Subject(NamedTuple):
    """A program that is measured."""

    stage: Stage
    count: int
    call: Callable[[Run], tuple[Run, Metrics]]
    equality: Equality


def agent_of(args: Args, stage: Stage) -> Agent:
    """A2C; where nothing but the environments is measured it acts at random."""
    specs = envs.make(args.env_name, 1).specs
    rate = make_optimizer(OptimizerConfig("sgd", anneal=False))
    agent = a2c(actor_critic(*specs, args.network), rate)
    if stage != "step":
        return agent
    spec = specs[1]

    def act(params: Any, carry: Any, step: Any, key: Any):
        shape = (step.first.shape[0], *spec.shape)
        if isinstance(spec, Discrete):
            return jax.random.randint(key, shape, 0, spec.num_values), carry, {}
        draw = jax.random.uniform(key, shape, minval=spec.low, maxval=spec.high)
        return draw, carry, {}

    return agent._replace(act=act)


def program_of(args: Args, stage: Stage, axis: Axis) -> Program:
    """One device's view of a stage."""
    agent, env = agent_of(args, stage), envs.make(args.env_name, args.num_envs)
    whole = compiled(agent, env, args.unroll_length, axis)
    if stage == "step + act + learn":
        return whole

    def step(run: Run) -> tuple[Run, Metrics]:
        key, _ = step_keys(run, axis)
        given = run.local.streams, key, args.unroll_length
        streams, trajectory, _ = rollout.unroll(
            agent, env, agent.params(run.learner), *given
        )
        # Of what was acted all is needed, as it is where that is learned from.
        seen = sum(
            jnp.sum(x, dtype=jnp.float32) for x in jax.tree.leaves(trajectory.steps.obs)
        )
        progress = run.progress.counted(axis.sum(trajectory.env_steps))
        local = run.local._replace(streams=streams)
        return run._replace(local=local, progress=progress), {"seen": axis.mean(seen)}

    return Program(whole.init, step)


def on_devices(args: Args, stage: Stage, count: int) -> Program:
    """Sharded over so many devices."""
    return sharded(program_of(args, stage, AXIS), data_mesh(count))


def side_by_side(args: Args, stage: Stage, count: int) -> Program:
    """As many instances on one device; one is the program alone."""
    if count == 1:
        program = program_of(args, stage, Axis())
        return Program(
            lambda key: _lead(program.init(key)),
            lambda run: (_lead(program.step(_first(run))[0]), {}),
        )
    program = program_of(args, stage, AXIS)

    def init(key: Any) -> Run:
        made = jax.vmap(lambda _: program.init(key), axis_name=AXIS.name)
        return made(jnp.arange(count))

    return Program(init, jax.vmap(program.step, axis_name=AXIS.name))


def subjects_of(args: Args) -> list[Subject]:
    """All that is measured, compiled and compared."""
    return [
        Subject(
            stage,
            count,
            jax.jit(scanned(on_devices(args, stage, count), args.num_updates)),
            compared(args, stage, count),
        )
        for stage in STAGES
        for count in args.num_devices
    ]


def compared(args: Args, stage: Stage, count: int) -> Equality:
    """How nearly the program does what it does side by side on one device."""
    ours, theirs = (
        jax.jit(
            lambda key, made=make(args, stage, count): scanned(
                made, args.compared_updates
            )(made.init(key))[0]
        )(random.key(0))
        for make in (on_devices, side_by_side)
    )
    theirs = theirs._replace(learner=_first(theirs.learner))
    return equality_of(_numbers(ours), _numbers(theirs))


def _numbers(run: Run) -> list[np.ndarray]:
    """What is learned, and what the environments show."""
    shown = run.learner, run.local.streams.step
    return [np.asarray(x) for x in jax.tree.leaves(shown)]


def rates_of(args: Args, subjects: list[Subject]) -> list[tuple[float, float]]:
    """Environment steps and processor seconds in a second of each, medians over rounds
    in turn."""
    programs = [on_devices(args, x.stage, x.count) for x in subjects]
    runs: list[Run] = [jax.jit(x.init)(random.key(0)) for x in programs]
    found: list[list[tuple[float, float]]] = [[] for _ in subjects]
    for round_ in range(args.rounds + 1):
        for i, subject in enumerate(subjects):
            before = total(runs[i].progress.env_steps)
            used, began = cpu_seconds(), time.perf_counter()
            runs[i], _ = jax.block_until_ready(subject.call(runs[i]))
            seconds = time.perf_counter() - began
            if round_:  # the first compiles
                steps = total(runs[i].progress.env_steps) - before
                cores = (cpu_seconds() - used) / seconds
                found[i].append((steps / seconds, cores))
    medians = [[median(x) for x in zip(*each, strict=True)] for each in found]
    return [(rate, cores) for rate, cores in medians]


def run(args: Args) -> None:
    """Measures, prints and writes."""
    force_devices(max(args.num_devices))
    subjects = subjects_of(args)
    rates = rates_of(args, subjects)
    alone = {
        x.stage: rate
        for x, (rate, _) in zip(subjects, rates, strict=True)
        if x.count == 1
    }
    rows = [
        {
            "stage": x.stage,
            "place": f"{x.count} devices",
            "steps_per_second": rate,
            "cores": cores,
            "efficiency": rate / (x.count * alone[x.stage]),
            "equality": x.equality,
        }
        for x, (rate, cores) in zip(subjects, rates, strict=True)
    ]
    rows += rows_of(args.processes, STAGES, args.rounds)
    show(args, rows)
    report = {"env_name": args.env_name, "num_envs": args.num_envs, "rows": rows}
    report |= {"unroll_length": args.unroll_length, "machine": cli.machine()}
    args.output.write_text(json.dumps(report, indent=1))


def force_devices(count: int) -> None:
    """So many devices on CPU, where the user has not said how many."""
    flags, name = (
        os.environ.get("XLA_FLAGS", ""),
        "xla_force_host_platform_device_count",
    )
    if name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{name}={count}".strip()


def show(args: Args, rows: list[dict[str, Any]]) -> None:
    """Prints the table."""
    title = (
        f"{args.env_name}, {args.num_envs} environments each, {os.cpu_count()} cores"
    )
    head = "on", "steps/s", "cores", "efficiency", "equality"
    table = Table("", *head, title=title)
    for row in rows:
        cores = f"{row['cores']:.2f}" if "cores" in row else "-"
        table.add_row(
            row["stage"], row["place"], f"{row['steps_per_second']:,.0f}", cores,
            f"{row['efficiency']:.2f}", row["equality"],
        )  # fmt: skip
    Console(width=100).print(table)


def _lead(run: Run) -> Run:
    return jax.tree.map(lambda x: x[None], run)


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[0], tree)


if __name__ == "__main__":
    cli.main(run, Args)
