"""Critics from replay, of a policy that somebody else improves: those of Q-Prop.

    y[t] = r[t] + d[t] min_i Q'_i(o[t+1], mu(o[t+1]))

as for DDPG, with the mode mu of the policy of now. Values are of what the environment
makes of an action: one beyond a bound is that of the bound, and has no slope there.

Source: Gu et al., arXiv:1611.02247, section 2.3 and algorithm 1.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxrl_par.agents import acting, stepped
from jaxrl_par.algorithms.actor_critic.config import CriticConfig
from jaxrl_par.algorithms.actor_critic.losses import (
    bootstrapped,
    critic_loss,
    reached,
    told,
    trainable,
    values,
)
from jaxrl_par.algorithms.actor_critic.parts import Networks, critics_of, networks_of
from jaxrl_par.networks import Network
from jaxrl_par.networks.continuous import Units
from jaxrl_par.returns import at_rows
from jaxrl_par.targets import followed
from jaxrl_par.types import (
    Agent,
    Grads,
    Info,
    Metrics,
    Params,
    PRNGKey,
    Spec,
    TimeStep,
    Trajectory,
)


class CriticState(NamedTuple):
    """What is learned."""

    critics: Params
    """Leaves [C, ...]."""
    opt_state: optax.OptState
    targets: Params
    """Slow copies."""
    target_phase: Int[Array, ""]
    """Updates since the copies moved, below `target_period`."""
    policy: Any = ()
    """Parameters of the policy that is judged, where it is known."""


class Judge(NamedTuple):
    """An agent that learns a critic, and what it says of actions."""

    agent: Agent
    slope: Callable[[Params, TimeStep, Array], Array]
    """(critics, steps [T, B], actions [T, B, A]) -> dQ/da [T, B, A] of the lowest
    critic, in units of the environment"""


def critic_of(
    policy: Network,
    critic: Network,
    action_spec: Spec,
    optimizer: optax.GradientTransformation,
    config: CriticConfig = CriticConfig(),
) -> Judge:
    """Critics of another agent's policy, to be learned with `loops.judged`.

    Args:
      policy: maps steps to (distribution of the action, anything), without memory. Its
        parameters are to be in the state when a gradient is asked for.
      critic: as `networks.action_value` makes.
      optimizer: clips, schedules and scales the gradient.

    Raises:
      RefusedError: an argument is something else, or actions are not bounded.
    """
    kind = CriticConfig
    nets = networks_of(policy, critic, action_spec, optimizer, config, kind)

    def init(key: PRNGKey, step: TimeStep) -> CriticState:
        critics = critics_of(nets, config, key, step)
        # Copied, because a buffer that is in the state twice cannot be donated.
        copies = jax.tree.map(jnp.copy, critics)
        return CriticState(critics, optimizer.init(critics), copies, jnp.int32(0))

    def apply(state: CriticState, grads: Grads, metrics: Metrics) -> CriticState:
        del metrics  # the optimizer needs none
        given = optimizer, state.critics, state.opt_state, grads
        critics, opt_state = stepped(*given)
        pace = config.target_period, config.target_rate
        copies, phase = followed(critics, state.targets, state.target_phase, *pace)
        return CriticState(critics, opt_state, copies, phase, state.policy)

    act, greedy = acting(policy)
    agent = Agent(
        init=init,
        initial_carry=policy.initial_carry,
        act=act,
        greedy=greedy,
        grad=lambda state, batch, key, axis: _grad(state, batch, nets, config),
        apply=apply,
        params=lambda state: state.policy,
        specs=policy.specs,
    )
    return Judge(agent, partial(_slope, nets))


def _grad(
    state: CriticState, batch: Trajectory, nets: Networks, config: CriticConfig
) -> tuple[Grads, Info]:
    within = partial(_within, nets.units)
    rows = trainable(batch._replace(action=within(batch.action)), nets, config)
    ahead = reached(batch, config, rows.weight.shape[0])
    after = jax.tree.map(lambda x: x[1:], batch.steps)
    # Rows of `after`; those that are `last` lead nowhere, and have no weight.
    steps = at_rows(after, jnp.maximum(ahead.index - 1, 0))
    (policy, _), _ = nets.policy.unroll(state.policy, (), steps)
    unit = nets.units.unit(within(policy.mode()))
    y = bootstrapped(ahead, nets, state.targets, steps, unit)
    grads, q_values = jax.grad(critic_loss, has_aux=True)(
        state.critics, nets.critic, rows, y
    )
    metrics, priorities = told(rows, q_values, y, eta=1.0)
    return grads, Info(metrics, priorities)


def _slope(
    nets: Networks, critics: Params, steps: TimeStep, action: Float[Array, "T B A"]
) -> Float[Array, "T B A"]:
    def total(action: Float[Array, "T B A"]) -> Float[Array, ""]:
        unit = nets.units.unit(_within(nets.units, action))
        return jnp.sum(jnp.min(values(nets.critic, critics, steps, unit), axis=0))

    return jax.grad(total)(action)


def _within(units: Units, action: Float[Array, "*B A"]) -> Float[Array, "*B A"]:
    return jnp.clip(action, units.low, units.high)
