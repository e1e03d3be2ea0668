"""Updates of actor-learner distillation, beside what their matrix products take alone.

Three programs learn from the same trajectory of I-Maze, at two sizes:

* learner: what the learner does in a round. Its runner reads the trajectory, and one
  update of IMPALA follows.
* distil: one update of the LSTM actor, from sequences of batches.
* round: all of a round without acting: runner, archive, learner, and updates of the
  actor from batches of the replay.

OF_PRODUCTS is the time of all matrix products of the program, each measured alone in
the same run in the layout in which it is written, divided by the time of the program:
see `products.py`. OF_BEST_LAYOUTS is the stricter share, of products in the best of
their layouts; those of attention, which have a batch, keep their own. What is missing
to 1 are gates, norms, softmax, losses, optimizer and everything that moves memory.

    taskset -c 0 python experiments/benchmarks/distillation.py
    python experiments/benchmarks/distillation.py --only default
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from products import (
    Dot,
    Subject,
    Used,
    listed,
    medians_of,
    peak_megabytes,
    product_subjects,
    products_of,
    subject,
)
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, envs, loops, random, rollout
from jaxrl_par.algorithms.distilled import distilled
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Environment
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.errors import at_least
from jaxrl_par.loops import DistillationConfig, Teacher
from jaxrl_par.networks import (
    Network,
    NetworkConfig,
    TransformerConfig,
    actor_critic,
)
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.types import DistillationBatch


class Size(NamedTuple):
    """Shapes of a learner and of what it learns from."""

    num_envs: int
    unroll_length: int
    width: int
    transformer: TransformerConfig
    num_turns: int
    """Updates, or rounds, of one timed call."""


SIZES = {
    "default": Size(64, 32, 64, TransformerConfig(2, 4, memory_length=32), 8),
    "large": Size(16, 64, 256, TransformerConfig(4, 8, memory_length=128), 2),
}
"""The default of `actor_learner_distillation.py`, and one nearer to the paper's."""


@dataclass(frozen=True)
class Args:
    """Measures updates of actor-learner distillation."""

    only: Literal["all", "default", "large"] = "all"
    """One of the two sizes."""
    repetitions: int = 7
    updates_per_step: int = 4
    """DpRL: updates of the actor in a round."""
    batch_size: int = 32
    """Sequences in one of them."""
    output: Path = Path("distillation_throughput.json")

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, repetitions=1, updates_per_step=1, batch_size=1)


class Part(NamedTuple):
    """A program: a step, from what state, with what data."""

    step: Callable
    state: Any
    data: Any


def task(size: Size) -> tuple[Environment, Network, Network]:
    """The maze, and the networks that act and teach in it."""
    env = previous_action_and_reward(envs.make("IMaze-9x9", size.num_envs))
    shapes: list[tuple[Literal["lstm", "gtrxl"], int]]
    shapes = [("lstm", 128), ("gtrxl", size.width)]
    small, large = (
        actor_critic(
            env.observation_spec,
            env.action_spec,
            NetworkConfig(
                widths=(64,),
                activation="relu",
                memory=memory,
                memory_width=width,
                transformer=size.transformer,
            ),
        )
        for memory, width in shapes
    )
    return env, small, large


def parts(args: Args, size: Size) -> dict[str, Part]:
    """The three programs."""
    env, small, large = task(size)
    optimizer = make_optimizer(OptimizerConfig(anneal=False))
    actor = distilled(small, optimizer)
    teacher = impala(large, optimizer, ImpalaConfig(behaviour_cost=0.1))
    net = Teacher(large.initial_carry, large.unroll)
    learner = loops.distillation(
        actor, teacher, net,
        DistillationConfig(args.updates_per_step, args.batch_size),
    )  # fmt: skip

    def start(key):
        streams = rollout.start(actor, env, key)
        state = learner.init(key, streams.step)
        _, trajectory, _ = rollout.unroll(
            actor, env, state.student.params, streams, key, size.unroll_length
        )
        data = learner.start(trajectory)
        steps = trajectory.rows
        said, _ = large.unroll(state.teacher.params, data.teacher.memory, steps)
        return state, data, trajectory, said

    def batch_of(trajectory, said) -> DistillationBatch:
        lanes = jnp.arange(args.batch_size) % size.num_envs
        steps = trajectory.rows
        steps, said = jax.tree.map(lambda x: x[:, lanes], (steps, said))
        carry = jax.tree.map(lambda x: x[lanes], trajectory.carry)
        return DistillationBatch(steps, carry, *said)

    def done_by(metrics: Any) -> Any:
        return 1 - metrics["skipped"]

    # From a state and a trajectory to the next state, and how many updates there were.
    def learn(inputs, trajectory):
        state, memory, _ = inputs
        steps = trajectory.rows
        said, after = large.unroll(state.params, memory, steps)
        batch = trajectory._replace(carry=memory)
        state, metrics = loops.learn(teacher, state, batch, random.key(0))
        return (state, after, said), done_by(metrics)

    def distil(state, batch):
        state, info = loops.update(actor, state, batch, random.key(0))
        return state, done_by(info.metrics)

    def whole(inputs, trajectory):
        state, data, key = inputs
        key, learn_key = jax.random.split(key)
        state, data, metrics = learner.learn(state, data, trajectory, learn_key, Axis())
        done = args.updates_per_step + done_by(metrics)
        return (state, data, key), done

    state, data, trajectory, said = jax.jit(start)(random.key(0))
    batch = batch_of(trajectory, said)
    return {
        "learner": Part(learn, (state.teacher, data.teacher.memory, said), trajectory),
        "distil": Part(distil, state.student, batch),
        "round": Part(whole, (state, data, random.key(1)), trajectory),
    }


def part_subject(part: Part, num_turns: int) -> Subject:
    """So many steps in one call, as a training program takes them: what they need is
    then allocated once. Each has a copy of the data, from which nothing is hoisted."""

    def repeated(x):
        return jnp.repeat(x[None], num_turns, axis=0)

    def step(inputs):
        state, data = inputs
        state, done = jax.lax.scan(part.step, state, data)
        return (state, data), jnp.sum(done)

    data = jax.tree.map(repeated, part.data)
    one = subject(step, (part.state, data), num_turns)
    return one._replace(products=products_of(part.step, part.state, part.data))


def measure(args: Args) -> list[dict[str, Any]]:
    """A record for each program of each size."""
    subjects: dict[Any, Subject] = {}
    for name in SIZES if args.only == "all" else (args.only,):
        size = SIZES[name]
        for program, part in parts(args, size).items():
            subjects[name, program] = part_subject(part, size.num_turns)
    keys = list(subjects)
    subjects |= product_subjects(subjects[key].products or {} for key in keys)
    medians = medians_of(subjects, args.repetitions)
    return [record(key, subjects, medians) for key in keys]


def record(
    key: tuple[str, str], subjects: dict[Any, Subject], medians: dict[Any, Used]
) -> dict[str, Any]:
    """What a program takes, and the share of its products."""

    def seconds(dot: Dot) -> float:
        return medians[dot].cpu / subjects[dot].amount

    products, size = subjects[key].products or {}, SIZES[key[0]]
    wall, cpu = (x / size.num_turns for x in (medians[key].wall, medians[key].cpu))
    written = sum(n * seconds(dot) for dot, n in products.items())
    best = sum(n * min(map(seconds, dot.layouts())) for dot, n in products.items())
    return {
        "size": key[0],
        "program": key[1],
        "ms": 1e3 * wall,
        "CPU-ms": 1e3 * cpu,
        "steps/CPU-s": size.num_envs * size.unroll_length / cpu,
        "gigaflop": sum(n * dot.flops for dot, n in products.items()) / 1e9,
        "products": 1e3 * written,
        "of_products": written / cpu,
        "of_best_layouts": best / cpu,
        "MB": subjects[key].megabytes,
        "dots": listed(products, seconds, "CPU-ms", 1e3),
    }


def show(found: list[dict[str, Any]]) -> None:
    """Prints the table."""
    names = [name for name in found[0] if name != "dots"]
    table = Table(*names, title="medians; products: CPU-ms")
    for one in found:
        cells = (one[name] for name in names)
        table.add_row(*(f"{x:,.4g}" if isinstance(x, float) else str(x) for x in cells))
    Console(width=130).print(table)


def main(args: Args) -> None:
    """Measures, prints and writes."""
    found = measure(args)
    show(found)
    report = {
        "args": asdict(args),
        "machine": cli.machine(),
        "peak_megabytes": peak_megabytes(),
        "sizes": {name: size._asdict() for name, size in SIZES.items()},
        "records": found,
    }
    args.output.write_text(json.dumps(report, indent=1, default=str))
    print(f"written to {args.output}")


if __name__ == "__main__":
    cli.configure_jax()
    main(cli.parse(Args))
