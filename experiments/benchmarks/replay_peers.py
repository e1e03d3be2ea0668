"""One training by a peer, timed as `pairs.py` reads it, with the peer's own Python.

    uv venv peers
    uv pip install --python peers jax==0.10.2 gymnax==0.0.9 flashbax rejax six pygame
    peers/bin/python experiments/benchmarks/replay_peers.py rejax
    peers/bin/python experiments/benchmarks/replay_peers.py rejax-sac    or rejax-td3
    peers/bin/python experiments/benchmarks/replay_peers.py PUREJAXRL/purejaxrl/dqn.py

The peers' programs are compiled before the clock starts, and are not changed: PureJaxRL
is a file of a checkout, with the settings of its own `main`; Rejax has those of its
examples: for CartPole, double and dueling, and SAC and TD3 for Pendulum.
"""

import json
import resource
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

TOTAL_STEPS = 100_000
"""Environment steps of Rejax. PureJaxRL makes those of its `main`, 500,000."""
PENDULUM_STEPS = 30_000
"""Those of Rejax's SAC and TD3."""
SWISH = {"activation": "swish"}
PENDULUM: dict[str, Any] = {
    "env": "Pendulum-v1",
    "num_envs": 1,
    "buffer_size": 10_000,
    "num_epochs": 1,
    "normalize_observations": True,
}
REJAX: dict[str, dict[str, Any]] = {
    "DQN": {
        "env": "CartPole-v1",
        "agent": "DuelingQNetwork",
        "agent_kwargs": SWISH,
        "num_envs": 10,
        "buffer_size": 50_000,
        "fill_buffer": 5_000,
        "batch_size": 100,
        "max_grad_norm": 10,
        "learning_rate": 1e-3,
        "num_epochs": 5,
        "polyak": 0.98,
        "exploration_fraction": 0.5,
    },
    "SAC": PENDULUM
    | {
        "agent_kwargs": SWISH,
        "fill_buffer": 256,
        "batch_size": 256,
        "learning_rate": 1e-2,
        "polyak": 0.98,
    },
    "TD3": PENDULUM
    | {
        # Not one dict: it is changed where the first is read.
        "actor_kwargs": {**SWISH},
        "critic_kwargs": {**SWISH},
        "fill_buffer": 1_000,
        "batch_size": 100,
        "learning_rate": 1e-3,
        "polyak": 0.95,
        "max_grad_norm": 100,
        "exploration_noise": 0.3,
    },
}
"""Settings of its examples, configs/gymnax/cartpole.yaml and pendulum.yaml."""


def purejaxrl(path: str) -> tuple[Callable, int]:
    """Its `train(key)` with the settings of its example, and how many steps that is."""
    settings: dict[str, Any] = {}
    wandb: Any = types.ModuleType("wandb")  # imported, and told the settings
    wandb.init = lambda config, **_: settings.update(config)
    sys.modules["wandb"] = wandb
    renamed: Any = jax
    renamed.tree_map = jax.tree.map
    names: dict[str, Any] = {"__name__": "peer"}
    exec(compile(Path(path).read_text(), path, "exec"), names)
    make_train = names["make_train"]
    # `main` then trains nothing, and only says the settings.
    names["make_train"] = lambda config: lambda key: key
    names["main"]()
    return make_train(settings), int(settings["TOTAL_TIMESTEPS"])


def rejax(name: str) -> tuple[Callable, int]:
    """Its `train(key)` without its evaluations, and how many steps that is."""
    import rejax  # pyright: ignore[reportMissingImports]

    steps = TOTAL_STEPS if name == "DQN" else PENDULUM_STEPS
    make = getattr(rejax, name).create
    made = make(**REJAX[name], total_timesteps=steps, eval_freq=steps)
    made = made.replace(eval_callback=lambda *_: (), skip_initial_evaluation=True)
    return made.train, steps


def main(name: str) -> None:
    """Prints the line."""
    peers = {"rejax": "DQN", "rejax-sac": "SAC", "rejax-td3": "TD3"}
    known = peers.get(name)
    train, env_steps = purejaxrl(name) if known is None else rejax(known)
    key = jax.random.key(0)
    started = time.perf_counter()
    compiled = jax.jit(train).lower(key).compile()
    compile_seconds = time.perf_counter() - started
    wall, cpu = time.perf_counter(), _cpu_seconds()
    jax.block_until_ready(compiled(key))
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    told = {"env_steps": env_steps, "wall_seconds": wall, "cpu_seconds": cpu}
    print(json.dumps(told | {"compile_seconds": compile_seconds, "name": name}))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(sys.argv[1])
