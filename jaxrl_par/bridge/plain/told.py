"""From plain numbers to what learners have, in the process that learns."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrl_par import draws
from jaxrl_par.bridge.plain.actor import Form
from jaxrl_par.bridge.plain.drawn import MOST_ACTIONS, Drawing
from jaxrl_par.errors import RefusedError
from jaxrl_par.types import Agent, Params, PlainPolicy, PRNGKey, Trajectory


def problems(agent: Agent) -> list[str]:
    """Why an agent cannot act without JAX, if it cannot."""
    if agent.acts_plainly is None:
        return [
            "act_with: numpy knows actor-critics in float32, without memory or with one"
            " that policy and value share, so for this learner it must be jax"
        ]
    most = Drawing(agent.acts_plainly.described()).most_actions
    if most > MOST_ACTIONS:
        return [
            f"act_with: numpy draws from up to {MOST_ACTIONS} actions, so it must be"
            f" jax, got {most} actions"
        ]
    return []


def is_dense(agent: Agent) -> bool:
    """Whether what acts has dense layers alone: a convolution takes NumPy longer."""
    policy = agent.acts_plainly
    return policy is not None and policy.described()["network"]["torso"] == "mlp"


def form(policy: PlainPolicy) -> Form:
    """What is sent of it."""
    return Form(policy.described(), policy.log_prob, policy.policy)


def arrays(policy: PlainPolicy, params: Params) -> dict[str, np.ndarray]:
    """Parameters as they are acted with, in memory of their own."""
    return {name: np.array(x) for name, x in policy.arrays(params).items()}


def words(key: PRNGKey) -> np.ndarray:
    """The two words of a key.

    Raises:
      RefusedError: numbers are not drawn from it by Threefry, each by itself.
    """
    found = np.asarray(jax.random.key_data(key))
    theirs = jax.random.key_data(jax.random.split(key, 3))
    if found.shape != (2,) or not np.array_equal(draws.split(found, 3), theirs):
        raise RefusedError(
            "act_with: numpy draws as jaxrl_par.random.key does, so it must be jax with"
            f" keys of {jax.random.key_impl(key)}"
        )
    return found


def teller(agent: Agent) -> Callable[[Trajectory], Trajectory]:
    """From an unroll in plain numbers to one with what the agent leaves in it."""
    policy = agent.acts_plainly
    assert policy is not None
    memory = jax.tree.structure(jax.eval_shape(lambda: agent.initial_carry(1)))

    def told(trajectory: Trajectory) -> Trajectory:
        extras: dict[str, Any] = dict(trajectory.extras)
        if policy.policy:
            extras["policy"] = policy.distribution(**extras["policy"])
        carry = memory.unflatten(trajectory.carry)
        return trajectory._replace(extras=extras, carry=carry)

    return told
