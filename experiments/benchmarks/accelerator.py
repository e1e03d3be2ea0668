"""What an accelerator reaches, in one run of less than ten minutes.

    python experiments/benchmarks/accelerator.py                      # on a GPU or TPU
    python experiments/benchmarks/accelerator.py --purejaxrl PATH     # its checkout too
    python experiments/benchmarks/accelerator.py --small              # tried on CPU

Sections, each in a process of its own, so that none disturbs another and what fails is
named and costs no other:

    rates       A2C, PPO, IMPALA, DQN and distillation, at growing numbers of
                environments: steps per second of step, step + act, step + act + learn,
                the share of the acting-only rate, time to compile, memory
    dtypes      the deep image network in float32 and bfloat16
    threads     actor threads step simulators on the CPU, the learner is on the device
    repeat      whether a run has its bits again, without and with deterministic
                operations, and what these cost
    purejaxrl   its PPO at the same numbers of environments

It writes one JSON and prints one table for each section.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxrl_par.errors import above, at_least

SECTIONS = {"rates": 6, "dtypes": 1, "threads": 2, "repeat": 1, "purejaxrl": 2}
"""Each with its share of the time; what a section leaves, the next ones have."""
ALGORITHMS = ("a2c", "ppo", "impala", "dqn", "actor_learner_distillation")
MARK = "RECORD "
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


@dataclass(frozen=True)
class Args:
    """What to measure, and how long at most."""

    algorithms: tuple[str, ...] = ALGORITHMS
    sections: tuple[str, ...] = tuple(SECTIONS)
    num_envs: tuple[int, ...] = (256, 1024, 4096, 16384)
    rows: int = 4_000_000
    """Environment steps of a timed call, about."""
    repetitions: int = 3
    seconds: float = 540.0
    """After these no other case is begun; what is left out is named."""
    purejaxrl: Path | None = None
    small: bool = False
    """A few environments and rows, to see that all of it runs."""
    output: Path = Path("accelerator.json")
    section: str | None = field(default=None)
    """Of the process that is started for one; ends is when it has to be done."""
    ends: float = 0.0

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_envs=1, rows=1, repetitions=1)
        return found + above(self, seconds=0)


def rates(args: Args) -> None:
    """Fewest environments of all algorithms first: what is left out is the largest."""
    for num_envs in args.num_envs:
        for name in args.algorithms:
            if left(args, f"{name}, {num_envs} environments"):
                case(partial(rate_of, args, name, num_envs), name, num_envs)


def rate_of(args: Args, name: str, num_envs: int) -> dict[str, Any]:
    """The three rates of an algorithm with its script's settings."""
    import jax
    from throughput import environment_subject, program_subject

    from jaxrl_par import cli, presets
    from jaxrl_par.loops import learner_of

    experiment = presets.get(name)
    given: Any = experiment.config(env_name="CartPole-v1", num_envs=num_envs)
    if name == "dqn":
        size = 64 * num_envs * given.unroll_length
        given = replace(given, replay=replace(given.replay, capacity=size))
    learner = learner_of(cli.compose(given, experiment.make_agent))
    rows = num_envs * given.unroll_length
    updates = max(args.rows // rows, 1)
    env = given.make_env(num_envs)
    whole: Any = cli.place(given, learner)
    subjects = {
        "step": environment_subject(env, given.unroll_length),
        "act": program_subject(acting(learner, env, given, whole), updates, rows, 0),
        "learn": program_subject(whole, updates, rows, 0),
    }
    found = {stage: seconds_a_row(args, x) for stage, x in subjects.items()}
    stats = jax.local_devices()[0].memory_stats() or {}
    return {
        "unroll_length": given.unroll_length,
        **{f"{stage}_per_second": 1 / x for stage, x in found.items()},
        "share_of_acting": found["act"] / found["learn"],
        "compile_seconds": subjects["learn"].compile_seconds,
        "program_megabytes": subjects["learn"].megabytes,
        "peak_gigabytes": stats.get("peak_bytes_in_use", 0) / 1e9 or None,
    }


def acting(learner: Any, env: Any, given: Any, whole: Any) -> Any:
    """A program that acts as the learner's does, and learns nothing."""
    import jax
    import jax.numpy as jnp

    from jaxrl_par import rollout
    from jaxrl_par.axis import Axis
    from jaxrl_par.loops import Program
    from jaxrl_par.loops.run import step_keys

    def step(run: Any) -> Any:
        key, _ = step_keys(run, Axis())
        streams, trajectory, _ = rollout.unroll(
            learner.actor, env, learner.params(run.learner), run.local.streams, key,
            given.unroll_length,
        )  # fmt: skip
        # All that was acted is needed, as it is where that is learned from.
        parts = jax.tree.leaves((trajectory.steps.obs, trajectory.extras))
        seen = sum(jnp.sum(x, dtype=jnp.float32) for x in parts)
        local = run.local._replace(streams=streams)
        progress = run.progress.counted(trajectory.env_steps)
        return run._replace(local=local, progress=progress), {"seen": seen}

    return Program(whole.init, step)


def seconds_a_row(args: Args, subject: Any) -> float:
    """The median over calls, after one that is not counted."""
    from products import used

    subject.call()
    found = sorted(
        seen.wall / float(seen.steps)
        for seen in (used(subject.call) for _ in range(args.repetitions))
    )
    return found[len(found) // 2]


def dtypes(args: Args) -> None:
    """IMPALA's deep network on pictures, in both."""
    for dtype in ("float32", "bfloat16"):
        if left(args, dtype):
            case(partial(picture_rate, args, dtype), "impala, deep network", dtype)


def picture_rate(args: Args, dtype: str) -> dict[str, Any]:
    from throughput import program_subject

    from jaxrl_par import cli, presets
    from jaxrl_par.loops import learner_of

    experiment = presets.get("impala")
    num_envs = args.num_envs[0]
    base = experiment.config(num_envs=num_envs)
    torso = "conv" if args.small else "impala_deep"
    network = replace(base.network, torso=torso, compute_dtype=dtype)
    given = replace(base, network=network)
    whole: Any = cli.place(given, learner_of(cli.compose(given, experiment.make_agent)))
    rows = num_envs * given.unroll_length
    updates = max(args.rows // 40 // rows, 1)
    subject = program_subject(whole, updates, rows, 0)
    return {
        "learn_per_second": 1 / seconds_a_row(args, subject),
        "compile_seconds": subject.compile_seconds,
        "program_megabytes": subject.megabytes,
    }


def threads(args: Args) -> None:
    """Actors act on the CPU, and the learner updates on the device."""
    for num_actors in (2, 8):
        if left(args, f"{num_actors} actors"):
            case(partial(thread_rate, args, num_actors), "ppo_threads", num_actors)


def thread_rate(args: Args, num_actors: int) -> dict[str, Any]:
    from jaxrl_par import presets
    from jaxrl_par.topologies.threads import ThreadsConfig
    from jaxrl_par.training import TrainingConfig

    experiment = presets.get("ppo_threads")
    steps = 20_000 if args.small else 400_000
    settings = TrainingConfig(
        name=f"accelerator-{num_actors}-{os.getpid()}", gif=False, tensorboard=False
    )
    given = experiment.config(
        env_name="CartPole-v1", num_envs=8 * num_actors, total_steps=steps,
        threads=ThreadsConfig(num_actors=num_actors), training=settings,
    )  # fmt: skip
    summary = experiment.run(given).summary
    return {
        "steps_per_second": summary.steps_per_second,
        "episode_return": summary.episode_return,
        "compile_seconds": summary.compile_seconds,
    }


def repeat(args: Args) -> None:
    """A2C and PPO twice in this process."""
    for name in ("a2c", "ppo"):
        if left(args, name):
            case(partial(repeated, args, name), name, os.environ.get("XLA_FLAGS", ""))


def repeated(args: Args, name: str) -> dict[str, Any]:
    import jax

    from jaxrl_par import cli, presets, random
    from jaxrl_par.loops import learner_of
    from jaxrl_par.topologies.compiled import scanned
    from jaxrl_par.training.checkpoints import state_hash

    experiment = presets.get(name)
    given = experiment.config(env_name="CartPole-v1", num_envs=args.num_envs[0])
    whole: Any = cli.place(given, learner_of(cli.compose(given, experiment.make_agent)))
    updates = max(args.rows // (given.num_envs * given.unroll_length), 1)
    init, train = jax.jit(whole.init), jax.jit(scanned(whole, updates))
    hashes, seconds = [], []
    for _ in range(3):
        run, began = init(random.key(0)), time.perf_counter()
        hashes.append(state_hash(jax.block_until_ready(train(run))[0]))
        seconds.append(time.perf_counter() - began)
    rows = updates * given.num_envs * given.unroll_length
    return {
        "same_bits": len(set(hashes)) == 1,
        "learn_per_second": rows / min(seconds[1:]),  # the first compiles
    }


def purejaxrl(args: Args) -> None:
    """Their PPO, with the settings of its `main` but for the environments."""
    if args.purejaxrl is None:
        print("purejaxrl: left out, no --purejaxrl was given", flush=True)
        return
    for num_envs in args.num_envs:
        if left(args, f"purejaxrl, {num_envs} environments"):
            case(partial(purejaxrl_rate, args, num_envs), "purejaxrl ppo", num_envs)


def purejaxrl_rate(args: Args, num_envs: int) -> dict[str, Any]:
    import runpy

    import jax

    assert args.purejaxrl is not None
    sys.path.insert(0, str(args.purejaxrl / "purejaxrl"))
    theirs = runpy.run_path(str(args.purejaxrl / "purejaxrl" / "ppo.py"))
    total = max(args.rows // (128 * num_envs), 1) * 128 * num_envs
    config = {
        "LR": 2.5e-4, "NUM_ENVS": num_envs, "NUM_STEPS": 128, "TOTAL_TIMESTEPS": total,
        "UPDATE_EPOCHS": 4, "NUM_MINIBATCHES": 4, "GAMMA": 0.99, "GAE_LAMBDA": 0.95,
        "CLIP_EPS": 0.2, "ENT_COEF": 0.01, "VF_COEF": 0.5, "MAX_GRAD_NORM": 0.5,
        "ACTIVATION": "tanh", "ENV_NAME": "CartPole-v1", "ANNEAL_LR": True,
        "DEBUG": False,
    }  # fmt: skip
    began = time.perf_counter()
    train = jax.jit(theirs["make_train"](config)).lower(jax.random.key(0)).compile()
    compile_seconds, seconds = time.perf_counter() - began, []
    for seed in range(args.repetitions + 1):
        began = time.perf_counter()
        jax.block_until_ready(train(jax.random.key(seed)))
        seconds.append(time.perf_counter() - began)
    rate = total / sorted(seconds[1:])[args.repetitions // 2]
    return {"learn_per_second": rate, "compile_seconds": compile_seconds}


def left(args: Args, what: str) -> bool:
    """Whether there is time to begin it."""
    if time.time() < args.ends:
        return True
    print(f"{args.section}: {what}: left out, the time was up", flush=True)
    return False


def case(measure: Callable[[], dict[str, Any]], name: str, what: Any) -> None:
    """Prints a record for the process that started this one; or what failed."""
    try:
        told = measure()
    # Whatever one case dies of, such as memory, the others are measured.
    except Exception as error:
        told = {"failed": f"{type(error).__name__}: {error}"[:300]}
    print(MARK + json.dumps({"case": name, "with": what} | told), flush=True)


def started(args: Args, section: str, ends: float, flags: str) -> list[dict[str, Any]]:
    """The records of a section in a process of its own."""
    given = asdict(args) | {"section": section, "ends": ends}
    child = [sys.executable, __file__, "--json-args", json.dumps(given, default=str)]
    env = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}
    process = subprocess.Popen(child, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    found = []
    for line in process.stdout:
        if line.startswith(MARK):
            found.append(json.loads(line.removeprefix(MARK)))
        else:
            print(line, end="", flush=True)
    if code := process.wait():
        found.append({"case": section, "failed": f"the process ended with {code}"})
    return found


def show(section: str, records: list[dict[str, Any]]) -> None:
    """A table; a column for each field that any record has."""
    names = list(dict.fromkeys(name for record in records for name in record))
    table = Table(*(name.replace("_", " ") for name in names), title=section)
    for record in records:
        values = (record.get(name, "") for name in names)
        table.add_row(
            *(f"{x:,.3g}" if isinstance(x, float) else str(x) for x in values)
        )
    Console(width=160).print(table)


def main(args: Args) -> None:
    """Measures section by section; what was measured is written after each."""
    if args.small:
        args = replace(args, num_envs=(16,), rows=4_096, repetitions=2)
    if unknown := set(args.sections) - SECTIONS.keys():
        known = ", ".join(SECTIONS)
        raise SystemExit(f"sections are {known}, not {', '.join(sorted(unknown))}")
    stop, report = time.time() + args.seconds, {}
    for place, section in enumerate(args.sections):
        weights = [SECTIONS[x] for x in args.sections[place:]]
        now = time.time()
        ends = now + (stop - now) * weights[0] / sum(weights)
        records = started(args, section, ends, "")
        if section == "repeat":
            records += started(args, section, ends, DETERMINISTIC)
        machines = [x.pop("machine") for x in records if "machine" in x]
        cases = [x for x in records if x]
        report[section] = {"machine": machines[-1:], "cases": cases}
        if cases:
            show(section, cases)
        args.output.write_text(json.dumps(report, indent=1))
    print(f"written to {args.output}")


def of_section(given: dict[str, Any]) -> None:
    """What the process of a section does."""
    import jax

    from jaxrl_par import cli

    cli.configure_jax()
    # Times to compile are those of the first run on a machine.
    jax.config.update("jax_enable_compilation_cache", False)
    path, sizes = given.pop("purejaxrl"), tuple(given.pop("num_envs"))
    args = replace(Args(), **given, num_envs=sizes, purejaxrl=path and Path(path))
    globals()[str(args.section)](args)
    print(MARK + json.dumps({"machine": cli.machine()}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--json-args"]:
        of_section(json.loads(sys.argv[2]))
    else:
        from jaxrl_par import cli

        main(cli.parse(Args))
