"""What no reset and no step of an environment changes, kept out of its state.

Suites hold it beside what changes: goals and rules of a task, walls, masses. In the
state of a stream it would be there for each environment, be put back at each end of an
episode, and XLA would not know it: who does computes much of a step beforehand. Of
MiniGrid's, whose rules are none, that is the larger part.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr

from jaxrl_par.types import Action, EnvState, PRNGKey


class Constants(NamedTuple):
    """Of a state, two ways to write it."""

    left_out: Callable[[EnvState], EnvState]
    """A whole state with None in place of each constant."""
    put_back: Callable[[EnvState], EnvState]
    """The inverse."""


def constants(
    reset: Callable[[PRNGKey], tuple[EnvState, Any]],
    step: Callable[[EnvState, Action, PRNGKey], tuple],
    action: Action,
) -> Constants:
    """The leaves of a state that `step` returns as it gets them, and into which the key
    of `reset` does not enter.

    Args:
      action: any, for its shapes.
    """
    key = jax.random.key(0)
    begun, (state, _) = jax.make_jaxpr(reset, return_shape=True)(key)
    stepped = jax.make_jaxpr(step)(state, action, key).jaxpr
    leaves, tree = jax.tree.flatten(state)
    through = [x is y for x, y in zip(stepped.invars, stepped.outvars, strict=False)]
    without_key = _independent(begun.jaxpr)
    # What is traced is none: its values are known where it is used only.
    traced = any(isinstance(x, Tracer) for x in begun.consts)
    fixed = [
        through[i] and without_key[i] and not traced and not _is_key(leaf)
        for i, leaf in enumerate(leaves)
    ]
    values = _values(begun, fixed)

    def left_out(state: EnvState) -> EnvState:
        leaves = tree.flatten_up_to(state)
        kept = [None if x else y for x, y in zip(fixed, leaves, strict=True)]
        return jax.tree.unflatten(tree, kept)

    def put_back(state: EnvState) -> EnvState:
        kept, known = iter(jax.tree.leaves(state)), iter(values)
        return jax.tree.unflatten(tree, [next(known if x else kept) for x in fixed])

    return Constants(left_out, put_back)


def _is_key(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _independent(jaxpr: Jaxpr) -> list[bool]:
    """Of each result, whether no argument enters into it, nor what is outside JAX."""
    reached: set[Any] = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        given = [x for x in equation.invars if not isinstance(x, Literal)]
        if equation.effects or any(x in reached for x in given):
            reached.update(equation.outvars)
    return [isinstance(x, Literal) or x not in reached for x in jaxpr.outvars]


def _values(begun: ClosedJaxpr, fixed: list[bool]) -> list[np.ndarray]:
    """Those results."""
    if not any(fixed):
        return []
    others = len(begun.jaxpr.outvars) - len(fixed)
    alone, _ = dce_jaxpr(begun.jaxpr, fixed + [False] * others)
    found = jaxpr_as_fun(ClosedJaxpr(alone, begun.consts))
    with jax.ensure_compile_time_eval():
        return jax.device_get(jax.jit(found)())
