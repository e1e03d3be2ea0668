"""What the stream costs beside a suite's own step, with and without its own resets.

    python experiments/benchmarks/suites.py
    python experiments/benchmarks/suites.py --only gymnax pgx --rounds 3

For each task in turn: our stream; the bare transition of all environments under `vmap`,
without resets, two steps at a time from states that the stream meets; and the suite's
own automatic reset. All get random legal actions. No state is a constant of what is
compiled: XLA would compute beforehand what follows from it. Rates are environment steps
for a CPU-second. `stream / bare` should be 0.9 at least, with the resets that `--kind`
names, and `stream / own` above 1.
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
from own_resets import legal
from products import Subject as Timed
from products import subject, used
from wrapped import Subject, chosen, raw

from jaxrl_par import cli
from jaxrl_par.envs import Raw, Resets, from_raw
from jaxrl_par.envs.raw import as_written, constants_of
from jaxrl_par.envs.suites import table
from jaxrl_par.errors import at_least

FEW = 2
"""So many steps the bare transition goes on from a moment of the stream."""
MOMENTS = 4
"""Of these in turn: few, as the caches hold them."""


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
    per_step: int = 4
    """Resets that the stream computes a step, where they are not fresh."""
    limit: int = 200
    """Time limit of episodes, where the task takes one."""
    rounds: int = 5
    output: Path = Path("suites.json")

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, num_envs=1, num_steps=1, per_step=1, limit=1, rounds=1)


def resets(args: Args) -> Resets:
    if args.kind == "fresh":
        return Resets()
    return Resets(args.kind, args.per_step)


def scanned(
    args: Args,
    start: Any,
    advance: Callable,
    moments: Any = None,
) -> Timed:
    """Calls of many steps, a few at a time.

    Args:
      advance: (state, key) -> (state, what is read).
      moments: states [N, ...] in which each few begin in turn; by default where those
        before ended.
    """
    # Among the arguments of the call: of a constant XLA computes much beforehand.
    number = 0 if moments is None else len(jax.tree.leaves(moments)[0])

    def turn(now: Any, key: Any) -> Any:
        state, read = advance(now[0], key)
        seen = sum(jnp.sum(x, dtype=jnp.float32) for x in jax.tree.leaves(read))
        return (state, now[1] + seen), None

    def call(run: Any) -> Any:
        now, key, moments = run

        def few(now: Any, drawn: Any) -> Any:
            keys, i = drawn
            state = jax.tree.map(lambda x: x[i % number], moments) if number else now[0]
            return jax.lax.scan(turn, (state, now[1]), keys)

        key, use = jax.random.split(key)
        turns = args.num_steps // FEW
        keys = jax.random.split(use, (turns, FEW))
        now, _ = jax.lax.scan(few, now, (keys, jnp.arange(turns)))
        return (now, key, moments), jnp.int32(args.num_envs * turns * FEW)

    run = ((start, jnp.float32(0)), jax.random.key(1), moments)
    return subject(call, run, args.num_envs * (args.num_steps // FEW) * FEW)


def of_stream(args: Args, made: Raw) -> Timed:
    """Our stream."""
    env = from_raw(made, args.num_envs, "stream", resets(args))
    act = jax.vmap(legal(made, lambda obs: obs))

    def advance(now: Any, key: Any) -> Any:
        act_key, env_key = jax.random.split(key)
        action = act(now[1].obs, jax.random.split(act_key, args.num_envs))
        state, step, reward, discount = env.step(now[0], action, env_key)
        return (state, step), (step, reward, discount)

    return scanned(args, jax.jit(env.reset)(jax.random.key(0)), advance)


def of_bare(args: Args, made: Raw) -> Timed:
    """The transition of all environments, from states in which the stream was.

    Where it went on behind its own ends it would leave them: games that are over stand
    still, which costs less.
    """
    env = from_raw(made, args.num_envs, "stream", resets(args))
    chosen = jax.vmap(legal(made, lambda obs: obs))
    whole = jax.vmap(constants_of(made).put_back)

    def turn(now: Any, key: Any) -> Any:
        act_key, env_key = jax.random.split(key)
        action = chosen(now[1].obs, jax.random.split(act_key, args.num_envs))
        state, step, *_ = env.step(now[0], action, env_key)
        return (state, step), (whole(now[0].inner.streams.state), now[1].obs)

    def met(key: Any) -> Any:
        keys = jax.random.split(key, args.num_steps)
        _, before = jax.lax.scan(turn, env.reset(key), keys)
        every = -(-args.num_steps // MOMENTS)
        return jax.tree.map(lambda x: x[::every], before)

    moments = jax.jit(met)(jax.random.key(0))
    act = legal(made, lambda obs: obs)

    def one(now: Any, key: Any) -> Any:
        act_key, env_key = jax.random.split(key)
        state, obs, *told = made.step(now[0], act(now[1], act_key), env_key)
        return (state, obs), (obs, told)

    start = jax.tree.map(lambda x: x[0], moments)
    return scanned(args, start, _mapped(args, one), moments)


def of_own(args: Args, subject: Subject, made: Raw) -> Timed:
    """The suite's own automatic reset."""
    assert subject.wrapped is not None
    own = subject.wrapped(subject.task, made, args.limit)

    def one(state: Any, key: Any) -> Any:
        act_key, env_key = jax.random.split(key)
        return own.step(state, own.act(state, act_key), env_key)

    keys = jax.random.split(jax.random.key(0), args.num_envs)
    start = jax.jit(jax.vmap(lambda key: own.reset(key)[0]))(keys)
    after = jax.eval_shape(jax.vmap(one), start, keys)[0]
    start = jax.tree.map(_cast, start, after)
    return scanned(args, start, _mapped(args, one))


def _mapped(args: Args, one: Callable) -> Callable:
    """`advance` of all environments from that of one; dtypes stay as they are."""

    def advance(state: Any, key: Any) -> Any:
        after, read = jax.vmap(one)(state, jax.random.split(key, args.num_envs))
        return jax.tree.map(_cast, after, state), read

    return advance


def _cast(x: Any, like: Any) -> Any:
    return x if x.dtype == like.dtype else x.astype(like.dtype)


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
    main(cli.parse(Args))
