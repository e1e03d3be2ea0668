"""What one step of an actor takes, numpy in and out: LSTM actors beside a GTrXL.

    python experiments/benchmarks/latency.py
    taskset -c 0 python experiments/benchmarks/latency.py --batch-sizes 1

Each actor runs as `greedy` does under `jax.jit`, as exported StableHLO, in NumPy alone
and, where onnx and onnxruntime are installed, as ONNX. Observations are 54 numbers, the
last action (of 3) and the last reward; the torso is two layers of 64 units. The GTrXL
reads keys and values of 128 steps from its cache, which is full, and its carry is
donated to JAX's forms, where it would else be copied in each step; the others copy it.

All are compiled first, then called in turn for a moment, again and again, so that a
change of the machine's speed meets all of them. Reported are medians over all calls but
those of the first round. Where others work on the machine, a long step is interrupted
and a short one is not: then CPU time, that of all threads of this process, compares
them better.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, export, random
from jaxrl_par.agents import acting
from jaxrl_par.envs.wrappers import WithPrevious
from jaxrl_par.errors import above, at_least
from jaxrl_par.lazy import late
from jaxrl_par.networks import NetworkConfig, TransformerConfig, actor_critic
from jaxrl_par.numpy_actor import Actor
from jaxrl_par.types import Box, Discrete, TimeStep, example

ACTION = Discrete(3)
OBSERVATION = WithPrevious(Box((54,)), ACTION, Box(()))
GTRXL, LSTM = "GTrXL 4 x 256, memory 128", "LSTM 256"
CONFIGS = {
    "LSTM 128": NetworkConfig(memory="lstm", memory_width=128),
    LSTM: NetworkConfig(memory="lstm", memory_width=256),
    GTRXL: NetworkConfig(
        memory="gtrxl",
        memory_width=256,
        transformer=TransformerConfig(num_layers=4, num_heads=8, memory_length=128),
    ),
}

runtime: Any = late("onnxruntime")

Call = Callable[[], np.ndarray]
"""One step; it keeps the carry for the next."""


class Used(NamedTuple):
    """Seconds that passed, and that all threads worked."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Args:
    """Measures the latency of actors."""

    batch_sizes: tuple[int, ...] = (1, 16, 64)
    rounds: int = 20
    seconds: float = 0.05
    """Time for each actor in each round."""
    output: Path = Path("latency.json")

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, rounds=2) + above(self, seconds=0)
        return found + [
            f"batch_sizes must be at least 1, got {size}"
            for size in self.batch_sizes
            if size < 1
        ]


def jitted(config: NetworkConfig, params: Any, step: TimeStep) -> Call:
    """The agent's own `greedy`."""
    network = actor_critic(OBSERVATION, ACTION, config)
    _, greedy = acting(network)

    def act(params, carry, step):
        return greedy(params, carry, step, random.key(0))[:2]

    compiled = jax.jit(act, donate_argnums=1)
    batch = len(step.first)
    latest = [jax.tree.map(jnp.array, network.initial_carry(batch))]

    def call() -> np.ndarray:
        action, latest[0] = compiled(params, latest[0], step)
        return np.asarray(action)

    return call


def exported(folder: Path, step: TimeStep) -> Call:
    """The StableHLO of the folder."""
    actor = export.load(folder, donate_carry=True)
    latest = [actor.initial_carry(len(step.first))]

    def call() -> np.ndarray:
        action, _, latest[0] = actor.step(step.obs, step.first, latest[0])
        return np.asarray(action)

    return call


def in_numpy(folder: Path, step: TimeStep) -> Call:
    """The runtime without JAX."""
    actor = Actor.load(folder)
    first: Any = step.first
    latest = [actor.initial_carry(len(step.first))]

    def call() -> np.ndarray:
        action, latest[0] = actor.step(step.obs, first, latest[0])
        return action

    return call


def in_onnx(folder: Path, step: TimeStep) -> Call:
    """The program of the folder in onnxruntime, which copies the memory."""
    session = runtime.InferenceSession(folder / "step.onnx")
    names = Actor.load(folder).config["onnx"]
    inputs, outputs = ([x["name"] for x in names[s]] for s in ("inputs", "outputs"))
    after = [name for name in outputs if name.startswith("next_")]
    given = [*jax.tree.leaves(step.obs), step.first]
    seen: Any = dict(zip(inputs, given, strict=False))
    latest = [Actor.load(folder).initial_carry(len(given[-1]))]

    def call() -> np.ndarray:
        memory = dict(zip(inputs[len(given) :], latest[0], strict=True))
        action, *kept = session.run(["action", *after], seen | memory)
        latest[0] = tuple(kept)
        return action

    return call


def calls(name: str, batch: int, folder: Path) -> dict[str, Call]:
    """An actor in all of its forms, for so many environments."""
    config = CONFIGS[name]
    network = actor_critic(OBSERVATION, ACTION, config)
    rng = np.random.default_rng(0)
    obs = WithPrevious(
        rng.normal(size=(batch, 54)).astype(np.float32),
        rng.integers(ACTION.num_values, size=batch).astype(np.int32),
        rng.normal(size=batch).astype(np.float32),
    )
    no: Any = np.zeros(batch, bool)
    step = TimeStep(obs, first=no, last=no)
    like = TimeStep(example(OBSERVATION, 1), jnp.zeros(1, bool), jnp.zeros(1, bool))
    params = jax.jit(network.init)(random.key(0), like)
    has_onnx = all(map(find_spec, ("onnx", "onnxruntime")))
    export.write(
        folder,
        network=config,
        observation_spec=OBSERVATION,
        action_spec=ACTION,
        params=params,
        batch_sizes=(batch,),
        onnx=has_onnx,
    )
    forms = {
        "jit": jitted(config, params, step),
        "StableHLO": exported(folder, step),
        "NumPy": in_numpy(folder, step),
    }
    if has_onnx:
        forms["ONNX"] = in_onnx(folder, step)
    return forms


def measure(args: Args) -> dict[str, dict[int, dict[str, dict[str, float]]]]:
    """Microseconds of a step: by actor, batch size and form."""
    with TemporaryDirectory() as folder:
        found = {
            (name, batch, form): call
            for name in CONFIGS
            for batch in args.batch_sizes
            for form, call in calls(name, batch, Path(folder)).items()
        }
    times: dict[Any, list[Used]] = {key: [] for key in found}
    for number in range(args.rounds):
        for key, call in found.items():
            taken = timed(call, args.seconds)
            times[key] += taken if number else []
    results: dict[str, Any] = {name: {} for name in CONFIGS}
    for (name, batch, form), taken in times.items():
        medians = {
            "wall": 1e6 * median(used.wall for used in taken),
            "cpu": 1e6 * median(used.cpu for used in taken),
        }
        forms = results[name].setdefault(batch, {})
        forms[form] = medians | {"calls": len(taken)}
    return results


def timed(call: Call, seconds: float) -> list[Used]:
    """What each of the calls takes that fit, at least one."""
    taken, started = [], time.perf_counter()
    while not taken or time.perf_counter() - started < seconds:
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        taken.append(Used(wall, cpu))
    return taken


def ratios(results: dict[str, Any], batch: int, kind: str) -> dict[str, float]:
    """How many times as long a step of the GTrXL takes as one of the LSTM."""
    gtrxl, lstm = (
        {form: x[kind] for form, x in results[name][batch].items()}
        for name in (GTRXL, LSTM)
    )
    found = {form: gtrxl[form] / lstm[form] for form in gtrxl}
    return found | {"best of each": min(gtrxl.values()) / min(lstm.values())}


def show(results: dict[str, Any], batch_sizes: tuple[int, ...]) -> None:
    """Prints medians and ratios."""
    title = "microseconds of a step, and of CPU time"
    kinds = ("jit", "StableHLO", "NumPy", "ONNX")
    table = Table("actor", "batch", *kinds, title=title)
    for name, batches in results.items():
        for batch, forms in batches.items():
            cells = (
                f"{forms[x]['wall']:,.1f}  {forms[x]['cpu']:,.1f}" if x in forms else ""
                for x in kinds
            )
            table.add_row(name, str(batch), *cells)
    Console(width=110).print(table)
    for batch in batch_sizes:
        for kind in ("wall", "cpu"):
            found = ratios(results, batch, kind).items()
            text = ", ".join(f"{form} {ratio:.1f}" for form, ratio in found)
            print(f"GTrXL / LSTM 256, batch {batch}, {kind} time: {text}")


def main(args: Args) -> None:
    """Measures, prints and writes."""
    results = measure(args)
    show(results, args.batch_sizes)
    report = {
        "args": asdict(args),
        "machine": cli.machine(),
        "networks": {name: asdict(config) for name, config in CONFIGS.items()},
        "us": results,
        "gtrxl_per_lstm": {
            kind: {batch: ratios(results, batch, kind) for batch in args.batch_sizes}
            for kind in ("wall", "cpu")
        },
    }
    args.output.write_text(json.dumps(report, indent=1, default=str) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    cli.configure_jax()
    main(cli.parse(Args))
