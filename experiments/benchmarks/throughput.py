"""Environment steps per second of A2C and PPO, beside what they could reach at best.

THE LOWER BOUND of the time of a program is that of its environments and of its matrix
products, both measured in the same run:

* environment: the same environments, stepped with random actions in a scan of the same
  length. Their own matrix products, if any, are counted here and nowhere else.
* products: every `dot_general` of one program step at the rate that this machine
  reaches for it alone, in the layout in which it is written; see `products.py`.

There is a second, stricter share, of a bound in which each product has the best of its
layouts.

Not in the bound are activations, random numbers for actions, returns, losses, the
optimizer and everything that moves memory: its share is what they leave. The products
with ones that sum a bias's gradient are products of the program and so are counted; the
JSON lists each product, with its time.

    python experiments/benchmarks/throughput.py --env-name Breakout-MinAtar --only a2c

With `--json-line` it trains PPO once with the settings of PureJaxRL instead and prints
the line that `pairs.py` reads.
"""

import json
import os
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from products import (
    Dot,
    Subject,
    Used,
    cpu_seconds,
    listed,
    medians_of,
    peak_megabytes,
    product_subjects,
    products_of,
    subject,
)
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, envs, random
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Environment
from jaxrl_par.errors import at_least
from jaxrl_par.loops import Program, epochs
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.sharded import data_mesh, sharded, share
from jaxrl_par.types import Discrete, example


@dataclass(frozen=True)
class Args:
    """Measures rates of environments, A2C and PPO."""

    env_name: str = "CartPole-v1"
    """As gymnax registers it."""
    only: Literal["all", "a2c", "ppo"] = "all"
    num_envs: tuple[int, ...] = (16, 64, 256, 1024)
    unroll_length: int = 16
    torso: Literal["auto", "mlp", "conv"] = "auto"
    """Torso of the shared 64 x 64 network; PPO's is separate for policy and value."""
    chunk_steps: int = 131_072
    """Rows of one timed call: num_envs * unroll_length * updates, about."""
    repetitions: int = 7
    xla_threads: int = 1
    """Threads that XLA computes with on CPU, as scripts choose for such networks; 0: as
    many as there are processors, as always for several devices. NPROC, where it is set,
    wins."""
    output: Path = Path("throughput.json")
    json_line: bool = False
    """Trains PPO as PureJaxRL does, and prints one line of JSON."""
    total_steps: int = 500_000
    """Environment steps of the training for that line."""
    num_devices: int = 1
    """Devices that share that training: on CPU, threads that each compute a program."""
    seed: int = 0

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(
            self,
            num_envs=1,
            unroll_length=1,
            chunk_steps=1,
            repetitions=1,
            xla_threads=0,
            total_steps=1,
            num_devices=1,
            seed=0,
        )


class PureJaxRL(NamedTuple):
    """Settings of an example of PureJaxRL, beside those that all share."""

    num_envs: int
    num_minibatches: int
    learning_rate: float
    activation: Literal["tanh", "relu"]


PUREJAXRL = {
    "CartPole-v1": PureJaxRL(4, 4, 2.5e-4, "tanh"),
    "Breakout-MinAtar": PureJaxRL(64, 8, 5e-3, "relu"),
}


def products_beside(env: Environment, program: Program, length: int) -> Counter[Dot]:
    """Products of a step of the program that are not the environments' own."""
    run = jax.eval_shape(program.init, random.key(0))
    action = example(env.action_spec, env.num_envs)
    own = products_of(env.step, run.local.streams.env_state, action, random.key(0))
    found = products_of(program.step, run)
    found.subtract({dot: n * length for dot, n in own.items()})
    return +found


def environment_subject(env: Environment, length: int) -> Subject:
    """All environments stepped `length` times with uniform actions."""
    spec = env.action_spec
    shape = (env.num_envs, *spec.shape)

    def turn(carry, key):
        env_state, _, reward, num_steps = carry
        act_key, env_key = jax.random.split(key)
        if isinstance(spec, Discrete):
            action = jax.random.randint(act_key, shape, 0, spec.num_values)
        else:
            action = jax.random.uniform(
                act_key, shape, minval=spec.low, maxval=spec.high
            )
        env_state, step, more, _ = env.step(env_state, action, env_key)
        num_steps += jnp.sum(~step.first, dtype=jnp.int32)
        return (env_state, step, reward + more, num_steps), None

    def step(state):
        carry, key = state
        key, steps_key = jax.random.split(key)
        after, _ = jax.lax.scan(turn, carry, jax.random.split(steps_key, length))
        return (after, key), after[-1] - carry[-1]

    key, reset_key = jax.random.split(random.key(0))
    start = (*jax.jit(env.reset)(reset_key), jnp.zeros(env.num_envs), jnp.int32(0))
    return subject(step, (start, key), length * env.num_envs)


def program_subject(
    program: Program, num_updates: int, rows: int, seed: int
) -> Subject:
    """`num_updates` steps of a program of so many rows each."""
    train = scanned(program, num_updates)

    def step(run):
        after, _ = train(run)
        done, before = after.progress.env_steps, run.progress.env_steps
        millions = done.millions - before.millions
        return after, done.units - before.units + 1_000_000 * millions

    run = jax.jit(program.init)(random.key(seed))
    return subject(step, run, num_updates * rows)


def make_program(args: Args, name: str, env: Environment) -> Program:
    """A2C or PPO as usual, with a network of two layers of 64 units."""
    rate = 3e-3 if name == "a2c" else 2.5e-4
    optimizer = make_optimizer(OptimizerConfig(learning_rate=rate, anneal=False))
    config = NetworkConfig(torso=args.torso, shared=name == "a2c")
    network = actor_critic(env.observation_spec, env.action_spec, config)
    if name == "a2c":
        return compiled(a2c(network, optimizer), env, args.unroll_length)
    return compiled(epochs(ppo(network, optimizer), 4, 4), env, args.unroll_length)


def measure(args: Args) -> list[dict[str, Any]]:
    """A record for the environments and each program, at each number of them."""
    subjects: dict[Any, Subject] = {}
    for num_envs in args.num_envs:
        env, rows = envs.make(args.env_name, num_envs), num_envs * args.unroll_length
        num_updates = max(args.chunk_steps // rows, 1)
        length = num_updates * args.unroll_length
        subjects["environment", num_envs] = environment_subject(env, length)
        for name in ("a2c", "ppo") if args.only == "all" else (args.only,):
            program = make_program(args, name, env)
            one = program_subject(program, num_updates, rows, args.seed)
            found = products_beside(env, program, args.unroll_length)
            subjects[name, num_envs] = one._replace(products=found)
    found = [one.products for one in subjects.values() if one.products]
    keys = list(subjects)
    subjects |= product_subjects(found)
    medians = medians_of(subjects, args.repetitions)
    return [record(args, name, n, subjects, medians) for name, n in keys]


def record(
    args: Args,
    name: str,
    num_envs: int,
    subjects: dict[Any, Subject],
    medians: dict[Any, Used],
) -> dict[str, Any]:
    """Rates, and for a program its share of the lower bound."""

    def per_row(key) -> float:
        return medians[key].cpu / subjects[key].amount

    one, median = subjects[name, num_envs], medians[name, num_envs]
    found = {
        "name": name,
        "num_envs": num_envs,
        "steps/s": median.steps / median.wall,
        "steps/CPU-s": median.steps / median.cpu,
        "compile_s": one.compile_seconds,
        "MB": one.megabytes,
        "ns/row": 1e9 * per_row((name, num_envs)),
    }
    if one.products is None:
        return found
    rows = num_envs * args.unroll_length
    dots = listed(one.products, per_row, "ns/row", 1e9 / rows)
    costs = sum(n * per_row(dot) for dot, n in one.products.items())
    best = sum(n * min(map(per_row, d.layouts())) for d, n in one.products.items())
    environment = per_row(("environment", num_envs))
    share, strict_share = (
        (environment + products) / per_row((name, num_envs))
        for products in (costs / rows, best / rows)
    )
    return found | {
        "products": 1e9 * costs / rows,
        "of_bound": share,
        "of_best_layouts": strict_share,
        "dots": dots,
    }


def show(title: str, found: list[dict[str, Any]]) -> None:
    """Prints the table."""
    names = [name for name in found[-1] if name != "dots"]
    table = Table(*names, title=title)
    for one in found:
        values = [one.get(name, "") for name in names]
        cells = [f"{x:,.3g}" if isinstance(x, float) and x < 100 else x for x in values]
        table.add_row(*(f"{x:,.0f}" if isinstance(x, float) else str(x) for x in cells))
    Console(width=130).print(table)


def train_as_purejaxrl(args: Args) -> dict[str, Any]:
    """PPO with the settings of PureJaxRL's examples, timed after compilation."""
    if args.env_name not in PUREJAXRL:
        raise SystemExit(
            f"--json-line knows {', '.join(PUREJAXRL)}, not {args.env_name}"
        )
    num_envs, num_minibatches, learning_rate, activation = PUREJAXRL[args.env_name]
    length, num_epochs = 128, 4
    num_updates = args.total_steps // (num_envs * length)
    axis = Axis() if args.num_devices == 1 else Axis("data")
    env = envs.make(args.env_name, share(num_envs, args.num_devices))
    config = NetworkConfig(torso="mlp", activation=activation, shared=False)
    network = actor_critic(env.observation_spec, env.action_spec, config)
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=learning_rate), args.total_steps
    )
    learner = epochs(ppo(network, optimizer), num_epochs, num_minibatches)
    program = compiled(learner, env, length, axis)
    if args.num_devices > 1:
        program = sharded(program, data_mesh(args.num_devices), axis)
    started = time.perf_counter()
    run = jax.jit(program.init)(random.key(args.seed))
    train = jax.jit(scanned(program, num_updates)).lower(run).compile()
    compile_seconds = time.perf_counter() - started
    wall, cpu = time.perf_counter(), cpu_seconds()
    run, metrics = jax.block_until_ready(train(run))
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    episodes = metrics["episode_return"]
    # As few of the latest updates as hold a hundred episodes.
    counts = episodes.count[::-1].cumsum()
    latest = slice(-1 - int((counts < 100).sum()), None)
    return {
        "env_steps": int(run.progress.env_steps),
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "compile_seconds": compile_seconds,
        "returns": float(episodes.total[latest].sum() / episodes.count[latest].sum()),
        "name": f"jaxrl_par ppo {args.env_name}",
    }


def main(args: Args) -> None:
    """Measures, prints and writes."""
    if args.num_devices > 1:
        force = f"--xla_force_host_platform_device_count={args.num_devices}"
        os.environ["XLA_FLAGS"] = f"{os.environ['XLA_FLAGS']} {force}"
    elif args.xla_threads:
        os.environ.setdefault("NPROC", str(args.xla_threads))
    if args.json_line:
        print(json.dumps(train_as_purejaxrl(args)), flush=True)
        return
    found = measure(args)
    show(f"{args.env_name}, unroll {args.unroll_length}, medians", found)
    report = {
        "args": asdict(args), "machine": cli.machine(),
        "peak_megabytes": peak_megabytes(), "records": found,
    }  # fmt: skip
    args.output.write_text(json.dumps(report, indent=1, default=str))
    print(f"written to {args.output}")


if __name__ == "__main__":
    cli.configure_jax()
    # Compile times are those of the first run on a machine.
    jax.config.update("jax_enable_compilation_cache", False)
    main(cli.parse(Args))
