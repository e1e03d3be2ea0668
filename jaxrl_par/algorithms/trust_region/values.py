"""Values that are fitted beside a policy, by an optimizer of their own."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrl_par import losses, returns
from jaxrl_par.agents import stepped
from jaxrl_par.axis import Axis
from jaxrl_par.networks import Network
from jaxrl_par.types import Params, Trajectory


class Estimate(NamedTuple):
    """What GAE makes of values and what was acted."""

    advantages: Float[Array, "T B"]
    targets: Float[Array, "T B"]
    """What values should have been, A + v."""


class Fit(NamedTuple):
    """What is left of a fit."""

    params: Params
    opt_state: optax.OptState
    skipped: Float[Array, ""]
    """Steps whose gradient was not finite, and which were not made."""


def estimated(
    params: Params,
    trajectory: Trajectory,
    critic: Network,
    gamma: float,
    gae_lambda: float,
) -> Estimate:
    """By the critic with these parameters."""
    carry = critics_memory(trajectory)
    (_, values), _ = critic.unroll(params, carry, trajectory.steps)
    advantages = returns.gae(
        rewards=trajectory.reward,
        discounts=gamma * trajectory.discount,
        last=trajectory.rows.last,
        values=values,
        lambda_=gae_lambda,
    )
    return Estimate(advantages, advantages + values[:-1])


def fitted(
    critic: Network,
    optimizer: optax.GradientTransformation,
    params: Params,
    opt_state: optax.OptState,
    trajectory: Trajectory,
    targets: Float[Array, "T B"],
    num_steps: int,
    axis: Axis,
) -> Fit:
    """After so many steps on half the squared error of all rows of all devices."""

    def loss(params: Params) -> Float[Array, ""]:
        rows, carry = trajectory.rows, critics_memory(trajectory)
        (_, values), _ = critic.unroll(params, carry, rows)
        return losses.over_rows(0.5 * jnp.square(targets - values), rows.last)

    def step(now: Fit, _: None) -> tuple[Fit, None]:
        grads = axis.mean(jax.grad(loss)(axis.apart(now.params)))
        finite = jnp.isfinite(optax.tree.norm(grads))
        params, opt_state = stepped(optimizer, now.params, now.opt_state, grads)
        skipped = now.skipped + 1.0 - finite.astype(jnp.float32)
        made, kept = Fit(params, opt_state, skipped), now._replace(skipped=skipped)
        return jax.tree.map(lambda x, y: jnp.where(finite, x, y), made, kept), None

    start = Fit(params, opt_state, jnp.float32(0))
    return jax.lax.scan(step, start, length=num_steps)[0]


def critics_memory(trajectory: Trajectory) -> Any:
    """That of `networks.separate`, before the first row; () without memory."""
    return trajectory.carry[1] if trajectory.carry else ()


def actors_memory(trajectory: Trajectory) -> Any:
    """As `critics_memory`, of the actor."""
    return trajectory.carry[0] if trajectory.carry else ()
