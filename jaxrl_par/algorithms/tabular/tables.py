"""Tables of values, and the one rule by which all methods here change them.

    x <- x + alpha (target - x),   alpha = rate (n + 1)**-power,   n <- n + 1

where n counts the earlier visits of the entry. Three rules for alpha are of interest:

    harmonic    1 / (n + 1)       the running mean; the first target replaces x
    constant    rate              for problems that change: older targets fade away
    polynomial  (n + 1)**-0.7     for targets that contain values still wrong

The harmonic rule remembers wrong first targets for very long if they bootstrap: their
weight falls like n**-(1 - gamma). All three converge but the constant one, which keeps
the noise of the last 1/rate targets.

Source: Elster, Mustafaoglu and Pingali, Parallel reinforcement learning, lecture 3.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl_par.errors import not_between

Index = tuple[Int[Array, " W"], ...]
"""Entries of a table: (states,) of V, (states, actions) of Q."""


@dataclass(frozen=True)
class StepSize:
    """How far a value moves towards its target. Both numbers may be traced."""

    rate: float = 1.0
    """Step size of the first visit."""
    power: float = 0.7
    """Exponent of the decay: 1 is harmonic, 0 constant."""

    def problems(self) -> list[str]:
        return not_between(self, rate=(0, 1), power=(0, 1))


HARMONIC = StepSize(1.0, 1.0)
POLYNOMIAL = StepSize(1.0, 0.7)


def constant(rate: float) -> StepSize:
    """The same step at every visit."""
    return StepSize(rate, 0.0)


def step_sizes(rule: StepSize, visits: Int[Array, "*W"]) -> Float[Array, "*W"]:
    """alpha of entries that were visited so often before."""
    return rule.rate * (visits + 1.0) ** -rule.power


class Table(NamedTuple):
    """Values, [S] or [S, A], and how often each was updated."""

    values: Float[Array, "*E"]
    visits: Int[Array, "*E"]


def new_table(shape: tuple[int, ...], value: float = 0.0) -> Table:
    """Every entry `value`, none visited."""
    return Table(jnp.full(shape, value, jnp.float32), jnp.zeros(shape, jnp.int32))


def updated(
    table: Table, index: Index, targets: Float[Array, " W"], rule: StepSize
) -> Table:
    """The table after W workers at once moved the entries `index` to their targets.

        x <- x + alpha(n) (mean of the k targets - x),   n <- n + k

    for an entry that k of the workers name. All k read the same x, so that moving it
    once for each of them would multiply alpha by k, and overshoot where that is above
    1. For one worker this is the rule above.
    """
    counts = jnp.zeros_like(table.visits).at[index].add(1)
    shares = step_sizes(rule, table.visits[index]) / counts[index]
    errors = targets - table.values[index]
    return Table(table.values.at[index].add(shares * errors), table.visits + counts)


def moved(
    table: Table, index: tuple[Int[Array, ""], ...], target: Array, rule: StepSize
) -> Table:
    """`updated` by one worker. It passes over the whole table, which on CPU is faster
    than to write one entry in each of many learners."""
    shape = table.values.shape
    here = jnp.ones(shape, bool)
    for axis, place in enumerate(index):
        here &= (
            jnp.arange(shape[axis]).reshape(-1, *[1] * (len(shape) - axis - 1)) == place
        )
    steps = step_sizes(rule, table.visits)
    values = jnp.where(
        here, table.values + steps * (target - table.values), table.values
    )
    return Table(values, table.visits + here.astype(jnp.int32))
