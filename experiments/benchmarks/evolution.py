"""What a generation of evolution strategies costs, beside what it could cost at best.

    python experiments/benchmarks/evolution.py

THE LOWER BOUND is that of `throughput.py`: the same environments stepped with random
actions, and every matrix product of acting and of the step at the rate that it reaches
alone. A generation is timed where its members last the longest episode, so that all
environments take all steps; those of members that ended before are counted, too, as the
machine takes them.

A second table has the bytes that a device gets from others in a generation, read off
the compiled program, for networks of several sizes.

With `--json-line` it times generations once, after others that teach the members to
last, and prints the line that `pairs.py` reads.
"""

import json
import os
import re
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from products import (
    Dot,
    Subject,
    cpu_seconds,
    listed,
    medians_of,
    product_subjects,
    products_of,
    subject,
    used,
)
from rich.console import Console
from rich.table import Table
from throughput import environment_subject

from jaxrl_par import cli, envs, random, rollout
from jaxrl_par.algorithms.es import ESConfig, es
from jaxrl_par.axis import Axis
from jaxrl_par.errors import at_least
from jaxrl_par.loops import Program, evolution
from jaxrl_par.networks import NetworkConfig, policy_network
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.perturbations import noise_of, num_evolving, shifted
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.types import Agent, PRNGKey


@dataclass(frozen=True)
class Args:
    """Measures evolution strategies on CartPole."""

    num_members: tuple[int, ...] = (128, 512)
    widths: tuple[int, ...] = (32,)
    max_steps: int = 500
    num_warm: int = 40
    """Generations before any is timed: then some member lasts `max_steps`."""
    num_timed: int = 10
    """Generations of one timed call."""
    repetitions: int = 5
    table_size: int | None = None
    xla_threads: int = 1
    """Threads that XLA computes with on CPU, as scripts choose for such networks."""
    output: Path = Path("evolution.json")
    json_line: bool = False

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(
            self,
            num_members=1,
            widths=1,
            max_steps=1,
            num_warm=0,
            num_timed=1,
            repetitions=1,
            table_size=1,
            xla_threads=0,
        )


BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1, "bf16": 2, "f16": 2, "s8": 1, "u8": 1}
COLLECTIVE = re.compile(r"= (.*?) (?:all-gather|all-reduce|collective-permute)\(")
SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


def make_agent(args: Args, exchange: Any = "sums") -> tuple[Agent, ESConfig]:
    """Evolution strategies with the defaults of the script, and their config."""
    base = ESConfig(exchange=exchange)
    noise = replace(base.noise, table_size=args.table_size)
    config = replace(base, noise=noise)
    network = policy_network(
        *envs.make("CartPole-v1", 1).specs, NetworkConfig(widths=args.widths)
    )
    rate = OptimizerConfig(learning_rate=5e-2, anneal=False)
    return es(network, make_optimizer(rate), config), config


def make_program(args: Args, num_members: int, agent: Agent, axis: Axis) -> Program:
    """Generations, whose episodes are cut nowhere but at `max_steps`."""
    noise = make_agent(args)[1].noise
    env = envs.make("CartPole-v1", 1)
    return evolution(agent, env, noise, num_members, args.max_steps, axis=axis)


def generations(args: Args, num_members: int) -> Subject:
    """Timed calls of generations, after those that are not."""
    program = make_program(args, num_members, make_agent(args)[0], Axis())
    run = jax.jit(program.init)(random.key(0))
    run, _ = jax.jit(scanned(program, args.num_warm))(run)
    train = scanned(program, args.num_timed)
    # Those of members that ended before are taken by the machine, too.
    steps = num_members * args.max_steps * args.num_timed
    return subject(lambda run: (train(run)[0], jnp.int32(steps)), run, steps)


def products(args: Args, num_members: int) -> Counter[Dot]:
    """Products of one generation: of all members' steps, and of the step that follows
    from them."""
    agent, config = make_agent(args)
    env, key = envs.make("CartPole-v1", 1), random.key(0)
    state = jax.eval_shape(lambda: agent.init(key, env.reset(key)[1]))
    size = num_evolving(jax.eval_shape(agent.params, state))

    def act(state: Any, key: PRNGKey) -> Any:
        def one(key: PRNGKey) -> Any:
            offset = noise_of(config.noise, key, jnp.int32(0), size)
            start = rollout.start(agent, env, key)
            params = shifted(agent.params(state), offset)
            return agent.act(params, start.carry, start.step, key)[0]

        return jax.vmap(one)(jax.random.split(key, num_members + 1))

    def step(state: Any, fitness: Any, key: PRNGKey) -> Any:
        batch = jax.tree.map(lambda x: x, fitness)
        trajectory = rollout.shapes(agent, agent.params(state), env.reset(key)[1], 1)
        pairs = jnp.arange(num_members // 2)
        extras = {"fitness": batch, "noise_key": key, "pairs": pairs}
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), trajectory)
        given = agent.prepare(state, zeros._replace(extras=extras), Axis())
        return agent.grad(state, given, key, Axis())[0]

    fitness = jax.ShapeDtypeStruct((num_members // 2, 2), jnp.float32)
    found = Counter(
        {dot: n * args.max_steps for dot, n in products_of(act, state, key).items()}
    )
    found.update(products_of(step, state, fitness, key))
    return found


def rates(args: Args) -> list[dict[str, Any]]:
    """A record for each number of members: its rate, and its share of the bound."""
    subjects: dict[Any, Subject] = {}
    for n in args.num_members:
        env = envs.make("CartPole-v1", n + 1)
        subjects["environment", n] = environment_subject(env, args.max_steps)
        one = generations(args, n)
        subjects["generation", n] = one._replace(products=products(args, n))
    found = [one.products for one in subjects.values() if one.products]
    subjects |= product_subjects(found)
    medians = medians_of(subjects, args.repetitions)
    return [_record(args, n, subjects, medians) for n in args.num_members]


def _record(args: Args, n: int, subjects: Any, medians: Any) -> dict[str, Any]:
    def each(name: Any) -> float:
        return medians[name].cpu / subjects[name].amount

    counted = subjects["generation", n].products
    rows = n * args.max_steps
    costs = sum(times * each(dot) for dot, times in counted.items()) / rows
    environment, whole = each(("environment", n)), each(("generation", n))
    return {
        "members": n,
        "steps/CPU-s": 1 / whole,
        "ns/step": 1e9 * whole,
        "environment": 1e9 * environment,
        "products": 1e9 * costs,
        "of_bound": (environment + costs) / whole,
        "dots": listed(counted, each, "ns/step", 1e9 / rows),
    }


def exchanged(args: Args, num_devices: int = 2) -> list[dict[str, Any]]:
    """Bytes of all collectives of a generation, as the compiled program has them."""
    found, n = [], args.num_members[0]
    for exchange in ("sums", "fitness"):
        for widths in ((32,), (256, 256)):
            sized = replace(args, widths=widths)
            agent = make_agent(sized, exchange)[0]
            axis = Axis("data")
            program = make_program(sized, n // num_devices, agent, axis)
            program = sharded(program, data_mesh(num_devices), axis)
            run = jax.eval_shape(program.init, random.key(0))
            text = jax.jit(program.step).lower(run).compile().as_text() or ""
            found.append(
                {"exchange": exchange, "widths": widths, "bytes": bytes_of(text)}
            )
    return found


def bytes_of(text: str) -> int:
    """What the results of all collectives of a compiled program have."""
    total = 0
    for result in COLLECTIVE.findall(text):
        for kind, shape in SHAPE.findall(result):
            size = BYTES[kind]
            for length in filter(None, shape.split(",")):
                size *= int(length)
            total += size
    return total


def line(args: Args) -> dict[str, Any]:
    """Generations once, as `pairs.py` reads them."""
    one = generations(args, args.num_members[0])
    found = used(one.call)
    return {
        "env_steps": int(found.steps),
        "wall_seconds": found.wall,
        "cpu_seconds": found.cpu,
        "name": "jaxrl_par es CartPole-v1",
    }


def show(found: list[dict[str, Any]]) -> None:
    """Prints a table of the records."""
    names = [name for name in found[0] if name != "dots"]
    table = Table(*names)
    for one in found:
        values = [one[name] for name in names]
        table.add_row(
            *(f"{x:,.3g}" if isinstance(x, float) else str(x) for x in values)
        )
    Console(width=100).print(table)


def main(args: Args) -> None:
    """Measures, prints and writes."""
    if args.xla_threads:
        os.environ.setdefault("NPROC", str(args.xla_threads))
    if args.json_line:
        print(json.dumps(line(args)), flush=True)
        return
    before, measured, sent = cpu_seconds(), rates(args), exchanged(args)
    show(measured)
    show(sent)
    report = {
        "args": asdict(args), "machine": cli.machine(), "records": measured,
        "exchanged": sent, "cpu_seconds": cpu_seconds() - before,
    }  # fmt: skip
    args.output.write_text(json.dumps(report, indent=1, default=str))
    print(f"written to {args.output}")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    cli.configure_jax()
    jax.config.update("jax_enable_compilation_cache", False)
    main(cli.parse(Args))
