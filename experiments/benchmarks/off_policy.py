"""SAC or TD3 with the settings of Rejax's example, timed as `pairs.py` reads it.

    python experiments/benchmarks/pairs.py \\
        --ours "python experiments/benchmarks/off_policy.py --algorithm sac" \\
        --theirs "peers/bin/python experiments/benchmarks/replay_peers.py rejax-sac"

Both train on Pendulum-v1 from normalised observations, with one environment and one
update in each of its steps, and without evaluations.
"""

import json
import os
import time
from dataclasses import dataclass
from typing import Any, Literal

import jax
from products import cpu_seconds

from jaxrl_par import cli, envs, random
from jaxrl_par.algorithms.actor_critic import SACConfig, TD3Config, sac, td3
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.errors import at_least
from jaxrl_par.loops import Program, replayed
from jaxrl_par.networks import (
    NetworkConfig,
    action_value,
    deterministic_policy,
    gaussian_policy,
)
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.replay import Windows, uniform
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.types import Agent

CAPACITY = 10_000


@dataclass(frozen=True)
class Args:
    """Trains once, and prints a line of JSON."""

    algorithm: Literal["sac", "td3"] = "sac"
    total_steps: int = 30_000
    seed: int = 0

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, total_steps=1, seed=0)


def agent_of(args: Args, env: envs.Environment) -> tuple[Agent, int, int]:
    """(agent, size of its batches, environment steps before it learns)"""
    network = NetworkConfig(widths=(64, 64), activation="swish")
    critic = action_value(*env.specs, network)
    if args.algorithm == "sac":
        rates = OptimizerConfig(learning_rate=1e-2, anneal=False, max_grad_norm=1e9)
        policy = gaussian_policy(*env.specs, network)
        config = SACConfig(target_rate=0.02, warm_up=0)
        agent = sac(policy, critic, env.action_spec, make_optimizer(rates), config)
        return agent, 256, 256
    rates = OptimizerConfig(learning_rate=1e-3, anneal=False, max_grad_norm=100.0)
    policy = deterministic_policy(*env.specs, network)
    # Theirs move a twentieth of the way in every second update, and explore by 0.3 of
    # an action between -2 and 2.
    config = TD3Config(target_rate=0.0253, noise=0.15, warm_up=1_000)
    agent = td3(policy, critic, env.action_spec, make_optimizer(rates), config)
    return agent, 100, 1_000


def program_of(args: Args) -> Program:
    """One environment step and one update in each of its steps."""
    env = envs.make("Pendulum-v1", 1)
    agent, batch_size, min_size = agent_of(args, env)
    windows = Windows(1, constant_carry=True)
    buffer = uniform(CAPACITY, batch_size, windows, min_size=min_size)
    return compiled(replayed(normalize_observations(agent), buffer), env, 1)


def train(args: Args) -> dict[str, Any]:
    """The line, timed after compilation."""
    program = program_of(args)
    run = jax.jit(program.init)(random.key(args.seed))
    started = time.perf_counter()
    call = jax.jit(scanned(program, args.total_steps), donate_argnums=0)
    call = call.lower(run).compile()
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
        "name": f"jaxrl_par {args.algorithm} as rejax",
    }


if __name__ == "__main__":
    cli.configure_jax()
    os.environ.setdefault("NPROC", "1")
    print(json.dumps(train(cli.parse(Args))), flush=True)
