"""Compiles one thing after the other, and says when it begins and ends with each.

A process of its own, because a compilation that explodes hears nobody: the parent ends
it. `python compilation_child.py NAME ...`, with names of `SUBJECTS`.
"""

import sys

import jax
from learners import LEARNERS

from jaxrl_par import envs, random
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.types import example

# It downloads its images.
ENVIRONMENTS = [x for x in envs.names() if x != "MNISTBandit-bsuite"]
NUM_ENVS = 16


def reset_and_step(name: str) -> None:
    """Compiles both functions of an environment."""
    env = envs.make(name, num_envs=NUM_ENVS)
    key = random.key(0)
    env_state, _ = jax.eval_shape(env.reset, key)
    jax.jit(env.reset).lower(key).compile()
    action = example(env.action_spec, NUM_ENVS)
    jax.jit(env.step).lower(env_state, action, key).compile()


def init_and_step(name: str) -> None:
    """Compiles both functions of a learner's program, acting included."""
    env = envs.make("CartPole-v1", num_envs=2)
    program = compiled(LEARNERS[name](env), env, 8)
    key = random.key(0)
    run = jax.eval_shape(program.init, key)
    jax.jit(program.init).lower(key).compile()
    jax.jit(program.step).lower(run).compile()


def columns_of_split_keys(name: str) -> None:
    """Compiles the smallest program that jaxlib 0.11 once did not come to an end with:
    numbers of split keys, each with a user of its own."""
    del name

    def draw(key: jax.Array) -> tuple[jax.Array, ...]:
        keys = jax.random.split(key, NUM_ENVS)
        numbers = jax.vmap(lambda key: jax.random.uniform(key, (4,)))(keys)
        return tuple(numbers.T)

    jax.jit(draw).lower(random.key(0)).compile()


SUBJECTS = {name: reset_and_step for name in ENVIRONMENTS}
SUBJECTS |= {name: init_and_step for name in LEARNERS}
SUBJECTS["columns of split keys"] = columns_of_split_keys


if __name__ == "__main__":
    for subject in sys.argv[1:]:
        print("begin", subject, flush=True)
        SUBJECTS[subject](subject)
        print("end", subject, flush=True)
