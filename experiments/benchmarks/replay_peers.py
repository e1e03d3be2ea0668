"""One training of DQN by a peer, timed as `pairs.py` reads it, with the peer's Python.

    uv venv peers
    uv pip install --python peers jax==0.10.2 gymnax==0.0.9 flashbax rejax six pygame
    peers/bin/python experiments/benchmarks/replay_peers.py rejax
    peers/bin/python experiments/benchmarks/replay_peers.py PUREJAXRL/purejaxrl/dqn.py

The peers' programs are compiled before the clock starts, and are not changed: PureJaxRL
is a file of a checkout, with the settings of its own `main`; Rejax has those of its
example for CartPole, double and dueling.
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
REJAX: dict[str, Any] = {
    "env": "CartPole-v1",
    "agent": "DuelingQNetwork",
    "agent_kwargs": {"activation": "swish"},
    "num_envs": 10,
    "buffer_size": 50_000,
    "fill_buffer": 5_000,
    "batch_size": 100,
    "max_grad_norm": 10,
    "learning_rate": 1e-3,
    "num_epochs": 5,
    "polyak": 0.98,
    "exploration_fraction": 0.5,
}
"""Settings of its example, configs/gymnax/cartpole.yaml."""


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


def rejax() -> tuple[Callable, int]:
    """Its `train(key)` without its evaluations, and how many steps that is."""
    from rejax import DQN  # pyright: ignore[reportMissingImports]

    made = DQN.create(**REJAX, total_timesteps=TOTAL_STEPS, eval_freq=TOTAL_STEPS)
    made = made.replace(eval_callback=lambda *_: (), skip_initial_evaluation=True)
    return made.train, TOTAL_STEPS


def main(name: str) -> None:
    """Prints the line."""
    train, env_steps = rejax() if name == "rejax" else purejaxrl(name)
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
