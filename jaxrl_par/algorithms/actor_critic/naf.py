"""NAF as an agent: Q-learning for real numbers, whose best action is an output."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxrl_par.agents import accept, stepped
from jaxrl_par.algorithms.actor_critic.config import NAFConfig
from jaxrl_par.algorithms.actor_critic.losses import (
    Rows,
    Trainable,
    reached,
    same_shape,
    told,
    trainable,
)
from jaxrl_par.algorithms.actor_critic.noise import NoiseCarry, drawn, quiet
from jaxrl_par.algorithms.actor_critic.parts import (
    Acting,
    Networks,
    completed,
    warmed_up,
)
from jaxrl_par.elapsed import Elapsed
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import Network
from jaxrl_par.networks.continuous import Units, units_of
from jaxrl_par.returns import at_rows
from jaxrl_par.targets import followed
from jaxrl_par.types import (
    Agent,
    Info,
    Params,
    PRNGKey,
    Spec,
    TimeStep,
    Trajectory,
)


class NAFState(NamedTuple):
    """What NAF learns."""

    online: Params
    opt_state: optax.OptState
    target: Params
    """A slow copy of `online`."""
    elapsed: Elapsed
    target_phase: Int[Array, ""]
    """Updates since the copy moved, below `target_period`."""


def naf(
    network: Network,
    action_spec: Spec,
    optimizer: optax.GradientTransformation,
    config: NAFConfig = NAFConfig(),
) -> Agent:
    """NAF, to be learned with `loops.replayed`: see the package.

    `greedy` takes the best action, and moves no process of noise.

    Args:
      network: as `networks.normalised_advantage` makes.
      optimizer: clips, schedules and scales the gradient.

    Raises:
      RefusedError: an argument is something else, actions are no real numbers, or have
        no bounds from which those of `warm_up` could be drawn.
    """
    accept(network, optimizer, config, NAFConfig)
    units = _units(action_spec, config)
    nets, size = Networks(network, network, units), len(units.low)

    def init(key: PRNGKey, step: TimeStep) -> NAFState:
        online = network.init(key, step)
        # Copied, because a buffer that is in the state twice cannot be donated.
        target, zero = jax.tree.map(jnp.copy, online), jnp.int32(0)
        return NAFState(online, optimizer.init(online), target, Elapsed.zero(), zero)

    def act(params: Acting, carry: NoiseCarry, step: TimeStep, key: PRNGKey):
        noise_key, uniform_key = jax.random.split(key)
        made, _ = network.apply(params.policy, (), step)
        noise, carry = drawn(config, carry, step.first, noise_key, made.mean.shape)
        if config.exploration == "covariance":
            # P is of scaled rewards: that of the rewards is P / reward_scale.
            noise = made.shaped(noise * jnp.sqrt(jnp.float32(config.reward_scale)))
        unit = made.mean + noise
        if units.bounded:
            unit = jnp.clip(unit, -1.0, 1.0)
        unit = warmed_up(config, params.elapsed, uniform_key, unit)
        return units.action(unit), carry, {}

    def greedy(params: Acting, carry: NoiseCarry, step: TimeStep, key: PRNGKey):
        del key  # the best action needs none
        made, _ = network.apply(params.policy, (), step)
        return units.action(made.mean), carry, {}

    errors = partial(_first_priorities, nets=nets, config=config)
    return Agent(
        init=init,
        initial_carry=lambda num_envs: quiet(config, num_envs, size),
        act=act,
        greedy=greedy,
        grad=lambda state, batch, key, axis: _grad(state, batch, nets, config),
        apply=lambda state, grads, metrics: _applied(optimizer, config, state, grads),
        params=lambda state: Acting(state.online, state.elapsed),
        complete=completed(config, errors),
        specs=network.specs,
    )


def _units(action_spec: Spec, config: NAFConfig) -> Units:
    """Those of the actions, from whose bounds the first ones are drawn, if any are."""
    units = units_of(action_spec, unbounded=True)
    warms_up = not isinstance(config.warm_up, int) or config.warm_up > 0
    if warms_up and not units.bounded:
        raise RefusedError(
            f"warm_up must be 0 where actions have no bounds, got {config.warm_up}:"
            " they would be drawn uniformly from all real numbers"
        )
    return units


def _applied(
    optimizer: optax.GradientTransformation,
    config: NAFConfig,
    state: NAFState,
    grads: Params,
) -> NAFState:
    online, opt_state = stepped(optimizer, state.online, state.opt_state, grads)
    followers = state.target, state.target_phase
    target, phase = followed(
        online, *followers, config.target_period, config.target_rate
    )
    return NAFState(online, opt_state, target, state.elapsed, phase)


def _grad(
    state: NAFState, batch: Trajectory, nets: Networks, config: NAFConfig
) -> tuple[Params, Info]:
    rows = trainable(batch, nets, config)
    y = value_targets(state.target, batch, nets, config, len(rows.weight))
    grads, q_values = jax.grad(loss, has_aux=True)(state.online, rows, y, nets)
    metrics, priorities = told(rows, q_values[None], y, config.eta)
    return grads, Info(metrics, priorities)


def value_targets(
    target: Params, batch: Trajectory, nets: Networks, config: NAFConfig, rows: int
) -> Rows:
    """y of the first rows of a batch: scaled rewards, and V' of the observation after
    them."""
    scaled = batch._replace(reward=config.reward_scale * batch.reward)
    ahead = reached(scaled, config, rows)
    after = jax.tree.map(lambda x: x[1:], batch.steps)
    # Rows of `after`; those that are `last` lead nowhere, and have no weight.
    steps = at_rows(after, jnp.maximum(ahead.index - 1, 0))
    value = nets.critic.unroll(target, (), steps)[0].value
    same_shape(value, ahead.rewards)
    return ahead.rewards + ahead.discounts * value


def loss(
    online: Params, rows: Trainable, targets: Rows, nets: Networks
) -> tuple[Float[Array, ""], Rows]:
    """Half the squared error of Q; and Q."""
    q_values = nets.critic.unroll(online, (), rows.steps)[0].q_value(rows.unit)
    same_shape(q_values, targets)
    return rows.mean(jnp.square(q_values - targets) / 2), q_values


def _first_priorities(
    params: Acting, trajectory: Trajectory, nets: Networks, config: NAFConfig
) -> Rows:
    """Errors by whoever acted, at its parameters: no slow copy."""
    length = trajectory.reward.shape[0]
    rows = trainable(trajectory, nets, config, length)
    y = value_targets(params.policy, trajectory, nets, config, length)
    _, q_values = loss(params.policy, rows, y, nets)
    return jnp.where(rows.last, 0.0, jnp.abs(q_values - y))
