"""Steps within a trust region from which all tasks begin: MAML's, as published.

In each task parameters adapt from the same theta, by data that are then kept, and what
they become acts once more. With theta'(theta) the parameters after the same steps from
the same data, had they begun at theta,

    gain    mean over tasks of sum of pi' / pi'_old A,  in those last data
    bound   mean over tasks of the mean of KL(pi'_old || pi')

pi' being the policy of theta', and the sum being over the rows of an episode. To begin
with the slope of the gain is the gradient of `inner_steps`, without its sign. A trial
of the search adapts again: what is bounded is what adapted policies do.

The search holds constant what was drawn, and so must the slopes do: the agent's network
is not to be `networks.twice_differentiable`, whose second derivative also knows that
other parameters would have drawn other actions. That is the published gradient, which
is biased by what it leaves out.

For fomaml the slopes are taken as if the steps had been constant, and the search looks
at what they are.

Source: Finn et al., arXiv:1703.03400, section 5.3 and the released code.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.loops.inner_steps import (
    AdaptationConfig,
    Draw,
    acting_with,
    adapt,
    adapt_again,
    params_of,
)
from jaxrl_par.trust_region import Found, Region, TrustRegionConfig, step_within
from jaxrl_par.types import Agent, Params, PRNGKey, State, Trajectory


class Outer(NamedTuple):
    """How a step within a trust region knows what the agent does."""

    policies: Callable[[Params, Trajectory], Any]
    """Distributions of the action in the rows, [T, E, ...]."""
    advantages: Callable[[Trajectory], Float[Array, "T E"]]
    """A, by what was acted alone; 0 where `last`."""
    config: TrustRegionConfig = TrustRegionConfig()


class Known(NamedTuple):
    """What was drawn of one task, or of several, leaves [N, ...]."""

    key: PRNGKey
    """With which it adapts again."""
    steps: Any
    """Data of its steps, leaves [K, ...]."""
    last: Trajectory
    """What adapted parameters acted."""
    told: Any
    """As of `inner_steps.meta_gradient`."""


def refuse_outer(outer: Outer, config: AdaptationConfig) -> None:
    """Accepts a step that fits what is learned of an adaptation.

    Raises:
      RefusedError: it does not, or is out of range.
    """
    refuse(outer.config)
    if config.method == "reptile":
        raise RefusedError(
            "reptile goes to where tasks led, and has no gain to be searched for: a"
            " trust region is for method = maml or fomaml"
        )


def known_of(
    agent: Agent, draw: Draw, state: State, key: PRNGKey, config: AdaptationConfig
) -> Known:
    """Adapts in one task, by the keys of `inner_steps.meta_gradient`."""
    adapt_key, last_key = jax.random.split(key)
    last_key, _ = jax.random.split(last_key)

    def keeping(params: Params, key: PRNGKey) -> tuple[Any, Any]:
        data, told = draw(params, key)
        return data, (data, told)

    made = adapt(agent, keeping, state, params_of(state), adapt_key, config)
    last, after = draw(acting_with(agent, state, made.params), last_key)
    steps, before = made.told
    told = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), before, after)
    return Known(adapt_key, steps, last, told)


def outer_step(
    agent: Agent,
    state: State,
    known: Known,
    config: AdaptationConfig,
    outer: Outer,
    axis: Axis,
) -> Found:
    """The step of the state's parameters, of all tasks along the axis."""
    region = region_of(agent, state, known, config, outer)
    return step_within(region, params_of(state), outer.config, axis)


def region_of(
    agent: Agent, state: State, known: Known, config: AdaptationConfig, outer: Outer
) -> Region:
    """The region around the state's parameters, of these tasks."""

    def in_task(params: Params, known: Known) -> Any:
        given = known.steps, state, params, known.key, config
        adapted = adapt_again(agent, *given)
        if config.method == "fomaml":
            adapted = jax.tree.map(_as_if_constant, adapted, params)
        return outer.policies(adapted, known.last)

    def policies(params: Params) -> Any:
        return jax.vmap(in_task, (None, 0))(params, known._replace(told=()))

    last, action = known.last.steps.last[:, :-1], known.last.action
    advantages = jax.vmap(outer.advantages)(known.last)
    acted = jax.lax.stop_gradient(policies(params_of(state))).log_prob(action)
    number, _, episodes = last.shape
    counts = jnp.sum(~last, axis=(1, 2), keepdims=True)
    weight = jnp.where(last, 0.0, 1.0 / (number * counts))

    def gain(policy: Any) -> Float[Array, ""]:
        # A `last` row's ratio is one of an action that was ignored, and may overflow.
        log_ratios = jnp.where(last, 0.0, policy.log_prob(action) - acted)
        gains = jnp.where(last, 0.0, jnp.exp(log_ratios) * advantages)
        return jnp.sum(gains) / (number * episodes)

    def divergence(old: Any, new: Any) -> Float[Array, ""]:
        return jnp.sum(weight * jnp.where(last, 0.0, old.kl(new)))

    return Region(policies, gain, divergence)


def _as_if_constant(adapted: Array, params: Array) -> Array:
    """Adapted parameters, whose slope in the first ones is 1."""
    return jax.lax.stop_gradient(adapted - params) + params
