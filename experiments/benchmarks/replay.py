"""Speed and memory of experience replay, and DQN's rate as a peer's settings have it.

    uv run --with flashbax experiments/benchmarks/replay.py
    uv run experiments/benchmarks/replay.py --only memory

Three parts, each in CPU-microseconds or bytes:

* draws: a prioritised sample of 512 transitions and an update of their priorities, in a
  loop on the device, beside flashbax's prioritised flat buffer, which has the same
  observations of 8 numbers, and as many transitions.
* adds: an unroll of 16 rows of 32 lanes into buffers of all capacities. What XLA says
  of the compiled call tells whether the buffer is copied: then it has temporary arrays
  of that size.
* memory: DQN on Breakout-MinAtar fills a replay of a million rows in this process, and
  what the process grew by is compared with the arrays' own size.

All calls of a part take turns. A ratio is that of a turn; medians are over turns. With
`--json-line purejaxrl` or `rejax` it trains DQN with their settings instead, and prints
the line that `pairs.py` reads; `replay_peers.py` prints theirs.
"""

import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from products import Subject, cpu_seconds, subject, used

from jaxrl_par import cli, envs, random
from jaxrl_par.algorithms.dqn import DQNConfig, dqn
from jaxrl_par.axis import Axis
from jaxrl_par.errors import at_least
from jaxrl_par.loops import Program, data_shapes, replayed
from jaxrl_par.networks import NetworkConfig, q_network
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.replay import Buffer, Windows, memory, prioritised, uniform
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.types import Info, TimeStep, Trajectory

ROWS, LANES, WIDTH, BATCH = 16, 32, 8, 512
SINGLE = Windows(1, constant_carry=True)


@dataclass(frozen=True)
class Args:
    """Measures draws, adds and memory of replay, or trains DQN as a peer does."""

    only: Literal["all", "draws", "adds", "memory"] = "all"
    capacities: tuple[int, ...] = (102_400, 1_024_000)
    """Rows, multiples of 512."""
    rows_kept: int = 1_015_808
    """Rows of Breakout-MinAtar, a multiple of 8,192."""
    iterations: int = 200
    """Draws, or adds, in a call."""
    repetitions: int = 7
    output: Path = Path("replay.json")
    json_line: Literal["purejaxrl", "rejax"] | None = None
    """Trains DQN with the settings of that peer, and prints one line of JSON."""
    seed: int = 0

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(
            self, capacities=1, rows_kept=1, iterations=1, repetitions=1, seed=0
        )


def unroll(number: jax.Array) -> Trajectory:
    """As of an agent without memory: its rows say when they were made."""
    obs = jnp.full((ROWS + 1, LANES, WIDTH), number, jnp.float32)
    no, row = jnp.zeros((ROWS + 1, LANES), bool), obs[:-1, :, 0]
    action = jnp.zeros((ROWS, LANES), jnp.int32)
    return Trajectory(TimeStep(obs, no, no), action, row, jnp.ones_like(row), {}, ())


def filled(capacity: int) -> tuple[Buffer, Any]:
    """A prioritised buffer with so many rows in it, whose priorities differ."""
    buffer = prioritised(capacity // ROWS, BATCH, SINGLE)
    data = buffer.init(jax.eval_shape(unroll, jnp.float32(0)))

    def add(data, number):
        data = buffer.add(data, (), unroll(number))
        return learned(buffer, data, jax.random.fold_in(random.key(0), number)), None

    numbers = jnp.arange(capacity // (ROWS * LANES), dtype=jnp.int32)
    return buffer, jax.jit(lambda data: jax.lax.scan(add, data, numbers)[0])(data)


def learned(buffer: Buffer, data: Any, key: jax.Array) -> Any:
    """After a sample and an update, with priorities of the rows drawn."""
    draw_key, error_key = jax.random.split(key)
    batch, drawn = buffer.sample(data, unroll(jnp.int32(0)), draw_key, Axis())
    errors = jax.random.uniform(error_key, (BATCH,)) + 1e-9 * batch.reward[0]
    return buffer.update(data, drawn, Info({}, errors), Axis())


def repeated(
    one: Callable[[Any, jax.Array], Any], data: Any, iterations: int
) -> Subject:
    """A call that does it so often, each time with another number."""

    def step(state):
        data, done = state
        numbers = done + jnp.arange(iterations, dtype=jnp.int32)
        data, _ = jax.lax.scan(lambda data, x: (one(data, x), None), data, numbers)
        return (data, done + iterations), iterations

    return subject(step, (data, jnp.int32(0)), iterations)


def our_draws(capacity: int, iterations: int) -> Subject:
    buffer, data = filled(capacity)
    key = random.key(1)

    def one(data, number):
        return learned(buffer, data, jax.random.fold_in(key, number))

    return repeated(one, data, iterations)


def flashbax_draws(capacity: int, iterations: int) -> Subject:
    """The same of flashbax: pairs of steps, added by 32 lanes one step at a time."""
    import flashbax  # pyright: ignore[reportMissingImports]

    buffer = flashbax.make_prioritised_flat_buffer(
        capacity, BATCH, BATCH, add_batch_size=LANES
    )
    step = {"obs": jnp.zeros(WIDTH), "action": jnp.int32(0), "reward": jnp.float32(0)}
    step["done"] = jnp.bool_(False)

    def one(data, key):
        draw_key, error_key = jax.random.split(key)
        sample = buffer.sample(data, draw_key)
        reward = sample.experience.first["reward"]
        errors = jax.random.uniform(error_key, (BATCH,)) + 1e-9 * reward
        return buffer.set_priorities(data, sample.indices, errors)

    def add(data, number):
        steps = jax.tree.map(lambda x: jnp.broadcast_to(x, (LANES, *x.shape)), step)
        steps["obs"] = steps["obs"] + number
        data = buffer.add(data, steps)
        return data, None

    numbers = jnp.arange(capacity // LANES, dtype=jnp.int32)
    fill = jax.jit(lambda data: jax.lax.scan(add, data, numbers)[0], donate_argnums=0)
    key = jax.random.key(1)
    return repeated(
        lambda data, x: one(data, jax.random.fold_in(key, x)),
        fill(buffer.init(step)),
        iterations,
    )


def turns(subjects: dict[Any, Subject], repetitions: int) -> dict[Any, list[float]]:
    """CPU-microseconds of each turn; the first, which warms up, does not count."""
    found: dict[Any, list[float]] = {name: [] for name in subjects}
    for number in range(1 + repetitions):
        for name, one in subjects.items():
            micros = 1e6 * used(one.call).cpu / one.amount
            if number:
                found[name].append(micros)
    return found


def draws(args: Args) -> list[dict[str, Any]]:
    records = []
    for capacity in args.capacities:
        ours = our_draws(capacity, args.iterations)
        theirs = flashbax_draws(capacity, args.iterations)
        found = turns({"ours": ours, "theirs": theirs}, args.repetitions)
        pairs = zip(found["theirs"], found["ours"], strict=True)
        ratios = [theirs / ours for theirs, ours in pairs]
        records.append(
            {
                "capacity": capacity,
                "ours_us": statistics.median(found["ours"]),
                "flashbax_us": statistics.median(found["theirs"]),
                "ratio": statistics.median(ratios),
                "ratios": [round(x, 2) for x in ratios],
            }
        )
    return records


def adds(args: Args) -> list[dict[str, Any]]:
    """What an add costs, and what XLA allocates for it besides its arguments."""
    made, subjects = {}, {}
    for kind in ("uniform", "prioritised"):
        for capacity in (10_240, *args.capacities):
            make = uniform if kind == "uniform" else prioritised
            buffer = make(capacity // ROWS, BATCH, SINGLE)
            data = buffer.init(jax.eval_shape(unroll, jnp.float32(0)))

            def one(data, number, buffer=buffer):
                return buffer.add(data, (), unroll(number))

            subjects[kind, capacity] = repeated(one, data, args.iterations)
            call = jax.jit(one, donate_argnums=0).lower(data, jnp.int32(0)).compile()
            made[kind, capacity] = memory.num_bytes(data), call.memory_analysis()
    found = turns(subjects, args.repetitions)
    return [
        {
            "kind": kind,
            "capacity": capacity,
            "us": statistics.median(times),
            "buffer_bytes": made[kind, capacity][0],
            "temporary_bytes": made[kind, capacity][1].temp_size_in_bytes,
            "in_place_bytes": made[kind, capacity][1].alias_size_in_bytes,
        }
        for (kind, capacity), times in found.items()
    ]


def measured_memory(args: Args) -> dict[str, Any]:
    """What a process grows by that fills a replay of pictures."""
    lanes, length = 64, 128
    env = envs.make("Breakout-MinAtar", lanes)
    network = q_network(*env.specs, NetworkConfig(widths=(16,), channels=2))
    agent = dqn(network, make_optimizer(OptimizerConfig(anneal=False)))
    buffer = uniform(args.rows_kept // length, 32, SINGLE)
    learner = replayed(agent, buffer)
    size = memory.num_bytes(data_shapes(learner, lanes, length))
    before, peak_before = resident_bytes(), peak_bytes()
    # What compiling takes is in both: a replay of one step is compiled first.
    small = replayed(agent, uniform(lanes, 32, SINGLE))
    advance(compiled(small, env, length), 1, args.seed)
    compiled_peak, start = peak_bytes(), resident_bytes()
    steps = args.rows_kept // (lanes * length)
    run = advance(compiled(learner, env, length), steps, args.seed)
    grown, peak = resident_bytes() - start, peak_bytes()
    assert int(run.local.data.size) == args.rows_kept // length
    obs = run.local.data.items.steps.obs
    return {
        "rows": args.rows_kept,
        "observation": f"{obs.dtype}{list(obs.shape[2:])}",
        "arrays_bytes": size,
        "grown_bytes": grown,
        "grown_over_arrays": grown / size,
        "peak_grown_bytes": peak - start,
        "peak_over_arrays": (peak - start) / size,
        "before_bytes": before,
        "peaks_before": [peak_before, compiled_peak],
    }


def advance(program: Program, num_steps: int, seed: int) -> Any:
    """The run after so many steps of the program, each in a call of its own."""
    run = jax.jit(program.init)(random.key(seed))
    step = jax.jit(program.step, donate_argnums=0)
    for _ in range(num_steps):
        run, _ = jax.block_until_ready(step(run))
    return run


def resident_bytes() -> int:
    """What this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """The most that it has had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Peer(NamedTuple):
    """Settings of a peer's example of DQN for CartPole-v1, with 10 environments."""

    network: NetworkConfig
    dueling: bool
    optimizer: OptimizerConfig
    dqn: DQNConfig
    capacity: int
    min_size: int
    batch_size: int
    updates: int
    """For each step of all environments."""
    total_steps: int


def peer(name: str) -> Peer:
    if name == "purejaxrl":
        return Peer(
            NetworkConfig(widths=(120, 84), activation="relu"),
            False,
            OptimizerConfig(learning_rate=2.5e-4, anneal=False, max_grad_norm=1e9),
            DQNConfig(
                double=False, huber_delta=None, target_period=50, anneal_steps=250_000
            ),
            *(10_000, 10_000, 128, 1, 500_000),
        )
    return Peer(
        NetworkConfig(widths=(64, 64), activation="relu"),
        True,
        OptimizerConfig(learning_rate=1e-3, anneal=False, max_grad_norm=10.0),
        DQNConfig(huber_delta=None, polyak_rate=0.02, anneal_steps=50_000),
        *(50_000, 5_000, 100, 5, 100_000),
    )


def train_as(name: str, seed: int) -> dict[str, Any]:
    """DQN with the settings of a peer, timed after compilation."""
    given, env = peer(name), envs.make("CartPole-v1", 10)
    network = q_network(*env.specs, given.network, dueling=given.dueling)
    agent = dqn(network, make_optimizer(given.optimizer), given.dqn)
    buffer = uniform(given.capacity, given.batch_size, SINGLE, min_size=given.min_size)
    program = compiled(replayed(agent, buffer, updates_per_step=given.updates), env, 1)
    train = scanned(program, given.total_steps // env.num_envs)
    run = jax.jit(program.init)(random.key(seed))
    started = time.perf_counter()
    call = jax.jit(train, donate_argnums=0).lower(run).compile()
    compile_seconds = time.perf_counter() - started
    wall, cpu = time.perf_counter(), cpu_seconds()
    run, metrics = jax.block_until_ready(call(run))
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    latest = jax.tree.map(lambda x: x[-len(x) // 10 :].sum(), metrics["episode_return"])
    return {
        "env_steps": int(run.progress.env_steps),
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "compile_seconds": compile_seconds,
        "returns": float(latest.total / latest.count),
        "name": f"jaxrl_par dqn as {name}",
    }


def main(args: Args) -> None:
    """Measures, prints and writes."""
    os.environ.setdefault("NPROC", "1")
    if args.json_line:
        print(json.dumps(train_as(args.json_line, args.seed)), flush=True)
        return
    parts = {"memory": measured_memory, "draws": draws, "adds": adds}
    found = {
        name: measure(args)
        for name, measure in parts.items()
        if args.only in ("all", name)
    }
    report = {"args": asdict(args), "machine": cli.machine(), **found}
    args.output.write_text(json.dumps(report, indent=1, default=str))
    print(json.dumps(found, indent=1))
    print(f"written to {args.output}")


if __name__ == "__main__":
    cli.configure_jax()
    main(cli.parse(Args))
