"""What an environment step costs with each way of beginning episodes.

    python experiments/benchmarks/resets.py
    python experiments/benchmarks/resets.py --names pgx::connect_four --num-envs 256

All ways step the same environments with the same actions, in turn. A ratio is
that of CPU-seconds: above 1, the way is faster than a fresh reset for every environment
in each step.
"""

import json
import os
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
from products import Subject, subject, used

from jaxrl_par import cli, envs
from jaxrl_par.envs import Environment, Resets
from jaxrl_par.errors import at_least
from jaxrl_par.types import Box


@dataclass(frozen=True)
class Args:
    """Times steps with fresh, pooled and optimistic resets."""

    names: tuple[str, ...] = ("CartPole-v1", "Breakout-MinAtar", "MetaFetch-7x7")
    num_envs: int = 1024
    num_steps: int = 256
    """Steps of each environment in one timed call."""
    per_step: tuple[int, ...] = (16, 64)
    """Resets that are computed a step."""
    pool_size: int = 256
    rounds: int = 7
    output: Path = Path("resets.json")

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(
            self, num_envs=1, num_steps=1, per_step=1, pool_size=1, rounds=1
        )


def ways(args: Args) -> dict[str, Resets]:
    """By what they are called."""
    found = {"fresh": Resets()}
    for number in args.per_step:
        pooled = Resets("pooled", per_step=number, pool_size=args.pool_size)
        found[f"pooled, {number}"] = pooled
        found[f"optimistic, {number}"] = Resets("optimistic", per_step=number)
    kept = Resets("pooled", per_step=0, pool_size=args.pool_size)
    return found | {"pooled, kept": kept}


def scattered(spec: Any, num_envs: int, t: Any) -> Any:
    """Actions [B] that look random, and cost next to nothing: drawn ones would."""
    size = max(prod(spec.shape), 1)
    number = jnp.arange(num_envs * size, dtype=jnp.uint32) + jnp.uint32(7919) * t
    bits = (number * jnp.uint32(2654435761)) >> 16
    if isinstance(spec, Box):
        action = bits.astype(jnp.float32) / 2.0**15 - 1.0
    else:
        action = (bits % spec.num_values).astype(spec.dtype)
    return action.reshape(num_envs, *spec.shape)


def timed(env: Environment, num_steps: int) -> Subject:
    """Calls that step from where the last one ended."""

    def advance(now: Any, inputs: Any) -> Any:
        t, key = inputs
        action = scattered(env.action_spec, env.num_envs, t)
        state, step, reward, _ = env.step(now[0], action, key)
        # All that a learner reads: what is not read would not be computed.
        seen = sum(jnp.sum(x, dtype=jnp.float32) for x in jax.tree.leaves(step))
        return (state, now[1] + seen + jnp.sum(reward)), None

    def call(run: Any) -> Any:
        now, key, t = run
        key, use = jax.random.split(key)
        times = t + jnp.arange(num_steps, dtype=jnp.uint32)
        inputs = times, jax.random.split(use, num_steps)
        now, _ = jax.lax.scan(advance, now, inputs)
        return (now, key, t + num_steps), jnp.int32(env.num_envs * num_steps)

    state, _ = jax.jit(env.reset)(jax.random.key(0))
    start = ((state, jnp.float32(0)), jax.random.key(1), jnp.uint32(0))
    return subject(call, start, env.num_envs * num_steps)


def measured(args: Args, name: str) -> dict[str, Any]:
    """CPU-seconds of each way, round by round, and what the medians come to."""
    calls = {
        way: timed(envs.make(name, args.num_envs, resets=resets), args.num_steps)
        for way, resets in ways(args).items()
    }
    for one in calls.values():
        used(one.call)
    rounds = [
        {way: used(one.call).cpu for way, one in calls.items()}
        for _ in range(args.rounds)
    ]
    ratios = {way: median(x["fresh"] / x[way] for x in rounds) for way in calls}
    steps = args.num_envs * args.num_steps
    rates = {way: steps / median(x[way] for x in rounds) for way in calls}
    return {"name": name, "rounds": rounds, "ratios": ratios, "rates": rates}


def main(args: Args) -> None:
    """Measures, prints and writes."""
    report: dict[str, Any] = {"args": asdict(args), "machine": cli.machine()}
    report["rows"] = []
    for name in args.names:
        row = measured(args, name)
        report["rows"].append(row)
        told = ", ".join(f"{way} {x:.2f}" for way, x in row["ratios"].items())
        print(f"{name}: {told}")
        args.output.write_text(json.dumps(report, indent=1, default=str))


if __name__ == "__main__":
    os.environ.setdefault("NPROC", "1")
    cli.configure_jax()
    main(cli.parse(Args))
