"""One training by PureJaxRL's PPO, timed as `pairs.py` reads it, with its own Python.

    uv venv peers
    uv pip install --python peers jax==0.10.2 gymnax==0.0.9 distrax brax navix
    uv pip install --python peers six pygame
    peers/bin/python experiments/benchmarks/ppo_peer.py PUREJAXRL CartPole-v1 500000

PUREJAXRL is a checkout, whose files are not changed. The program is compiled before the
clock starts. Settings are those of its example for CartPole and of its table for
MinAtar, as `throughput.py` has them for ours.
"""

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import jax

SHARED: dict[str, Any] = {
    "NUM_STEPS": 128,
    "UPDATE_EPOCHS": 4,
    "GAMMA": 0.99,
    "GAE_LAMBDA": 0.95,
    "CLIP_EPS": 0.2,
    "ENT_COEF": 0.01,
    "VF_COEF": 0.5,
    "MAX_GRAD_NORM": 0.5,
    "ANNEAL_LR": True,
    "DEBUG": False,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {
        "NUM_ENVS": 4,
        "NUM_MINIBATCHES": 4,
        "LR": 2.5e-4,
        "ACTIVATION": "tanh",
    },
    "Breakout-MinAtar": {
        "NUM_ENVS": 64,
        "NUM_MINIBATCHES": 8,
        "LR": 5e-3,
        "ACTIVATION": "relu",
    },
}


def main(checkout: str, env_name: str, total_steps: int) -> None:
    """Prints the line."""
    folder = Path(checkout) / "purejaxrl"
    sys.path.insert(0, str(folder))
    renamed: Any = jax
    renamed.tree_map = jax.tree.map  # which this JAX has under its new name only
    names = runpy.run_path(str(folder / "ppo.py"), run_name="peer")
    config = SHARED | SETTINGS[env_name]
    config |= {"ENV_NAME": env_name, "TOTAL_TIMESTEPS": total_steps}
    train, key = names["make_train"](config), jax.random.key(0)
    started = time.perf_counter()
    compiled = jax.jit(train).lower(key).compile()
    compile_seconds = time.perf_counter() - started
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(compiled(key))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rows = config["NUM_ENVS"] * config["NUM_STEPS"]
    told = {"env_steps": total_steps // rows * rows, "wall_seconds": wall}
    told |= {"cpu_seconds": cpu, "compile_seconds": compile_seconds, "name": env_name}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
