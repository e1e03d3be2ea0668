"""What the stream costs beside a suite's own step, with and without its own resets.

    python experiments/benchmarks/suites.py
    python experiments/benchmarks/suites.py --only gymnax pgx --rounds 3

For each task in turn: our stream; the bare transition of all environments under `vmap`,
which never resets; and the suite's own automatic reset. All get the same random legal
actions. Rates are environment steps for a CPU-second. `stream / bare` should be 0.9 at
least, with the resets that `--kind` names, and `stream / own` above 1.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from own_resets import legal
from products import Subject as Timed
from products import subject, used
from wrapped import Subject, chosen, raw

from jaxrl_par import cli
from jaxrl_par.envs import Raw, Resets, from_raw
from jaxrl_par.envs.raw import as_written
from jaxrl_par.envs.suites import table


@dataclass(frozen=True)
class Args:
    """Times steps of each suite that is installed."""

    only: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    """Those of them; all by default."""
    heavy: bool = False
    """Also tasks that compile for minutes."""
    num_envs: int = 256
    num_steps: int = 64
    """Steps of each environment in one timed call."""
    kind: Literal["fresh", "pooled", "optimistic"] = "pooled"
    """Where episodes of the stream begin."""
    limit: int = 200
    """Time limit of episodes, where the task takes one."""
    rounds: int = 5
    output: Path = Path("suites.json")


def scanned(args: Args, start: Any, advance: Callable) -> Timed:
    """Calls of many steps. `advance` is (state, key) -> (state, what is read)."""

    def turn(now: Any, key: Any) -> Any:
        state, read = advance(now[0], key)
        seen = sum(jnp.sum(x, dtype=jnp.float32) for x in jax.tree.leaves(read))
        return (state, now[1] + seen), None

    def call(run: Any) -> Any:
        now, key = run
        key, use = jax.random.split(key)
        now, _ = jax.lax.scan(turn, now, jax.random.split(use, args.num_steps))
        return (now, key), jnp.int32(args.num_envs * args.num_steps)

    run = ((start, jnp.float32(0)), jax.random.key(1))
    return subject(call, run, args.num_envs * args.num_steps)


def of_stream(args: Args, made: Raw) -> Timed:
    """Our stream."""
    env = from_raw(made, args.num_envs, "stream", Resets(args.kind))
    act = jax.vmap(legal(made, lambda obs: obs))

    def advance(now: Any, key: Any) -> Any:
        act_key, env_key = jax.random.split(key)
        action = act(now[1].obs, jax.random.split(act_key, args.num_envs))
        state, step, reward, discount = env.step(now[0], action, env_key)
        return (state, step), (step, reward, discount)

    return scanned(args, jax.jit(env.reset)(jax.random.key(0)), advance)


def of_bare(args: Args, made: Raw) -> Timed:
    """The transition of all environments, which goes on behind an end."""
    act = legal(made, lambda obs: obs)

    def one(now: Any, key: Any) -> Any:
        act_key, env_key = jax.random.split(key)
        state, obs, *told = made.step(now[0], act(now[1], act_key), env_key)
        return (state, obs), (obs, told)

    return _mapped(args, made.reset, one)


def of_own(args: Args, subject: Subject, made: Raw) -> Timed:
    """The suite's own automatic reset."""
    assert subject.wrapped is not None
    own = subject.wrapped(subject.task, made, args.limit)

    def one(state: Any, key: Any) -> Any:
        act_key, env_key = jax.random.split(key)
        return own.step(state, own.act(state, act_key), env_key)

    return _mapped(args, lambda key: own.reset(key)[0], one)


def _mapped(args: Args, reset: Callable, one: Callable) -> Timed:
    """Of functions of one environment, all of them; dtypes stay those of a step."""

    def cast(x: Any, like: Any) -> Any:
        return x if x.dtype == like.dtype else x.astype(like.dtype)

    def advance(state: Any, key: Any) -> Any:
        after, read = jax.vmap(one)(state, jax.random.split(key, args.num_envs))
        return jax.tree.map(cast, after, state), read

    keys = jax.random.split(jax.random.key(0), args.num_envs)
    start = jax.jit(jax.vmap(reset))(keys)
    after = jax.eval_shape(lambda x, k: jax.vmap(one)(x, k)[0], start, keys)
    start = jax.tree.map(cast, start, after)
    return scanned(args, start, advance)


def measured(args: Args, suite: str, one: Subject) -> dict[str, Any]:
    """CPU-seconds of all ways, round by round, and the medians of their ratios."""
    made = raw(suite, one, args.limit)
    calls = {"stream": of_stream(args, made), "bare": of_bare(args, made)}
    if one.wrapped is not None:
        calls["own"] = of_own(args, one, made)
    for timed in calls.values():
        used(timed.call)
    rounds = [
        {way: used(timed.call).cpu for way, timed in calls.items()}
        for _ in range(args.rounds)
    ]
    ratios = {
        way: median(x[way] / x["stream"] for x in rounds) for way in list(calls)[1:]
    }
    steps = args.num_envs * args.num_steps
    rates = {way: steps / median(x[way] for x in rounds) for way in calls}
    told = {"suite": suite, "task": one.task, "rounds": rounds}
    return told | {"ratios": ratios, "rates": rates}


def main(args: Args) -> None:
    """Measures, prints and writes after each task."""
    report: dict[str, Any] = {"args": asdict(args), "machine": cli.machine()}
    report["rows"] = []
    for suite, one in chosen(args):
        if suite in table.SUITES and table.problem(suite):
            continue
        row = as_written(measured)(args, suite, one)
        report["rows"].append(row)
        told = ", ".join(f"{x:.2f} of {way}" for way, x in row["ratios"].items())
        print(f"{suite}::{one.task}: {told}")
        args.output.write_text(json.dumps(report, indent=1, default=str))


if __name__ == "__main__":
    os.environ.setdefault("NPROC", "1")
    cli.configure_jax()
    main(tyro.cli(Args))
