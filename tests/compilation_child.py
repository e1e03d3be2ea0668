"""Compiles one thing after the other, and says when it begins and ends with each.

A process of its own, because a compilation that explodes hears nobody: the parent ends
it. `python compilation_child.py NAME ...`, with names of `SUBJECTS`.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
from learners import LEARNERS

from jaxrl_par import envs, random, returns, statistics
from jaxrl_par.axis import Axis
from jaxrl_par.envs import catalogue
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.types import example

# It downloads its images.
ENVIRONMENTS = [*catalogue.own_names(), *catalogue.gymnax_names()]
ENVIRONMENTS.remove("MNISTBandit-bsuite")
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


def many_users(name: str) -> None:
    """Compiles what is cheap once, with users that each could compute it again."""
    shape = (16, 8)
    last, rows = jnp.zeros(shape, bool), jnp.ones(shape)

    def estimates(key: jax.Array) -> Any:
        values = jax.random.normal(key, (shape[0] + 1, shape[1]))
        return returns.vtrace(
            log_ratios=rows,
            rewards=rows,
            discounts=rows,
            last=last,
            values=values,
            lambda_=0.9,
        )

    function = {
        "users of a permutation": lambda key: random.permutation(key, 512),
        "users of estimates": estimates,
        "users of moments": lambda key: statistics.moments(
            jax.random.normal(key, shape), jnp.ones(shape, bool), Axis()
        ),
    }[name]

    def use(key: jax.Array) -> list[jax.Array]:
        leaves = [x.reshape(-1) for x in jax.tree.leaves(function(key))]
        return [jnp.sin(x[i]) + i * x.sum() for x in leaves for i in range(x.size)][:32]

    jax.jit(use).lower(random.key(0)).compile()


SUBJECTS = {name: reset_and_step for name in ENVIRONMENTS}
SUBJECTS |= {name: init_and_step for name in LEARNERS}
USERS = ("users of a permutation", "users of estimates", "users of moments")
SUBJECTS |= {name: many_users for name in USERS}
SUBJECTS["columns of split keys"] = columns_of_split_keys


if __name__ == "__main__":
    for subject in sys.argv[1:]:
        print("begin", subject, flush=True)
        SUBJECTS[subject](subject)
        print("end", subject, flush=True)
