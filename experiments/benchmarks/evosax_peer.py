"""Generations of evosax's OpenES on its CartPole problem, timed as `pairs.py` reads it.

    uv venv peers
    uv pip install --python peers jax==0.10.2 evosax gymnax flax optax six
    peers/bin/python experiments/benchmarks/evosax_peer.py

Members are as many, and networks as wide, as those of `evolution.py --num-members 128
--json-line`; generations before the clock starts teach them to last, there as here.
XLA has one thread, as scripts of ours choose.
"""

import json
import os
import resource
import time
from functools import partial
from typing import Any

NUM_MEMBERS, WIDTH, MAX_STEPS = 128, 32, 500
NUM_WARM, NUM_TIMED = 40, 100


def main() -> None:
    """Prints the line."""
    os.environ.setdefault("NPROC", "1")
    import jax
    import jax.numpy as jnp
    import optax
    from evosax.algorithms import Open_ES  # pyright: ignore[reportMissingImports]
    from evosax.problems.rl import gymnax  # pyright: ignore[reportMissingImports]
    from flax import linen as nn

    class Policy(nn.Module):
        @nn.compact
        def __call__(self, x: Any, key: Any = None) -> Any:
            hidden = nn.tanh(nn.Dense(WIDTH)(x))
            return jnp.argmax(nn.Dense(2)(hidden), axis=-1)

    problem = gymnax.GymnaxProblem(
        "CartPole-v1",
        Policy(),
        episode_length=MAX_STEPS,
        num_rollouts=1,
        use_normalize_obs=False,
    )
    key = jax.random.key(0)
    obs, _ = problem.env.reset(key, problem.env_params)
    params = problem.policy.init(key, obs, key)
    schedule = optax.constant_schedule(0.1)
    method = Open_ES(
        population_size=NUM_MEMBERS,
        solution=params,
        optimizer=optax.adam(5e-2),
        std_schedule=schedule,
    )
    settings = method.default_params

    def generation(states: Any, key: Any) -> Any:
        state, problem_state = states
        ask, play, tell = jax.random.split(key, 3)
        members, state = method.ask(ask, state, settings)
        fitness, problem_state, _ = problem.eval(play, members, problem_state)
        state, _ = method.tell(tell, members, -fitness, state, settings)
        return (state, problem_state), jnp.mean(fitness)

    @partial(jax.jit, static_argnums=2)
    def generations(states: Any, key: Any, number: int) -> Any:
        return jax.lax.scan(generation, states, jax.random.split(key, number))

    states = method.init(key, params, settings), problem.init(key)
    states, _ = generations(states, jax.random.key(1), NUM_WARM)
    jax.block_until_ready(generations(states, jax.random.key(2), NUM_TIMED))
    wall, cpu = time.perf_counter(), _cpu_seconds()
    _, fitness = jax.block_until_ready(
        generations(states, jax.random.key(3), NUM_TIMED)
    )
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    steps = NUM_MEMBERS * MAX_STEPS * NUM_TIMED
    told = {"env_steps": steps, "wall_seconds": wall, "cpu_seconds": cpu}
    print(json.dumps(told | {"fitness": float(fitness[-1]), "name": "evosax OpenES"}))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
