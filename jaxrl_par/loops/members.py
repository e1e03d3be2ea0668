"""A step of some members of a population alone, whose leaves are [P, ...]."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxrl_par.loops.run import Program, Run
from jaxrl_par.types import Mean, Metrics


def step_of(program: Program, run: Run, who: Int[Array, " n"]) -> tuple[Run, Metrics]:
    """A step of these members alone, and metrics [n] of them."""
    after, metrics = program.step(taken(run, who))
    return put_back(run, who, after), metrics


def taken(tree: Any, who: Int[Array, " n"]) -> Any:
    """What these members have: leaves [n, ...] of [P, ...]."""
    return jax.tree.map(lambda x: x[who], tree)


def put_back(tree: Any, who: Int[Array, " n"], new: Any) -> Any:
    """With `new` [n, ...] for these members."""
    return jax.tree.map(lambda x, new: x.at[who].set(new), tree, new)


def among_all(metrics: Metrics, who: Int[Array, " n"], size: int) -> Metrics:
    """Means [P] over all, of metrics that these members alone have: numbers are means
    of one, and what others have is a mean of nothing."""

    def placed(x: Array) -> Array:
        return jnp.zeros(size).at[who].set(x.astype(jnp.float32))

    def told(value: Any) -> Mean:
        if not isinstance(value, Mean):
            value = Mean(value, jnp.ones_like(value))
        return Mean(*map(placed, value))

    return {name: told(value) for name, value in metrics.items()}
