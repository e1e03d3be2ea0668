"""What SAC, TD3 and DDPG share: their state, how they begin, step and explore."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxrl_par.agents import accept, stepped
from jaxrl_par.algorithms.actor_critic.config import (
    ActorCriticConfig,
    CriticConfig,
    OffPolicyConfig,
)
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import Elapsed
from jaxrl_par.errors import lacking, refuse_any
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.networks.continuous import Units, shown, units_of
from jaxrl_par.targets import followed
from jaxrl_par.types import (
    Carry,
    Extras,
    Metrics,
    Params,
    PRNGKey,
    Spec,
    TimeStep,
    Trajectory,
    as_acted,
)

METRICS = {
    "policy_updates": Metric("updates", "of the policy, for each of the critics'"),
}

POLICY_UPDATES = "policy_updates"
"""The metric that says whether a gradient has one of the policy, 1 or 0: who applies
it may be at another update than who computed it."""


class Trained(NamedTuple):
    """What follows a gradient, and likewise the gradients of it."""

    policy: Params
    critics: Params
    """Leaves [C, ...], C critics that began with keys of their own."""
    log_temperature: Any = ()
    """A number of SAC's, where it is learned."""


class OffPolicyState(NamedTuple):
    """What is learned."""

    online: Trained
    opt_state: Trained
    """An optimizer's state for each part: none sees the gradient of another."""
    targets: Trained
    """Slow copies of the critics, and of TD3's policy."""
    elapsed: Elapsed
    target_phase: Int[Array, ""]
    """Updates since the copies moved, below `target_period`."""
    policy_phase: Int[Array, ""]
    """Updates since the policy's last one, below `policy_delay`."""


class Acting(NamedTuple):
    """What acts: a policy, and how long it has been learning."""

    policy: Params
    elapsed: Elapsed
    judge: Any = ()
    """What first priorities are computed with, where those are recorded."""


class Networks(NamedTuple):
    """What an agent is made of."""

    policy: Network
    critic: Network
    units: Units


def networks_of(
    policy: Network,
    critic: Network,
    action_spec: Spec,
    optimizer: optax.GradientTransformation,
    config: CriticConfig,
    kind: type,
) -> Networks:
    """The networks, with the units of actions.

    Raises:
      RefusedError: an argument is something else, or actions are not bounded.
    """
    accept(policy, optimizer, config, kind)
    makes = "a Network, as networks.action_value makes"
    refuse_any(lacking(makes, "init", "apply", "unroll", critic=critic))
    return Networks(policy, critic, units_of(action_spec))


def begun(
    nets: Networks,
    optimizer: optax.GradientTransformation,
    config: ActorCriticConfig,
    key: PRNGKey,
    step: TimeStep,
    log_temperature: Any = (),
    *,
    copies_policy: bool,
) -> OffPolicyState:
    """What is learned before the first update."""
    policy_key, critics_key = jax.random.split(key)
    policy = nets.policy.init(policy_key, step)
    critics = critics_of(nets, config, critics_key, step)
    online = Trained(policy, critics, log_temperature)
    # Copied, because a buffer that is in the state twice cannot be donated.
    copies = Trained(policy if copies_policy else (), critics)
    copies = jax.tree.map(jnp.copy, copies)
    opt_state = Trained(
        *(optimizer.init(x) if jax.tree.leaves(x) else () for x in online)
    )
    zero = jnp.int32(0)
    return OffPolicyState(online, opt_state, copies, Elapsed.zero(), zero, zero)


def critics_of(
    nets: Networks, config: CriticConfig, key: PRNGKey, step: TimeStep
) -> Params:
    """Critics that begin with keys of their own, leaves [C, ...]."""
    unit = jnp.zeros((step.first.shape[0], len(nets.units.low)), jnp.float32)
    keys = jax.random.split(key, config.num_critics)
    return jax.vmap(nets.critic.init, (0, None))(keys, shown(step, unit))


def applied(
    optimizer: optax.GradientTransformation,
    config: OffPolicyConfig,
    state: OffPolicyState,
    grads: Trained,
    metrics: Metrics,
    policy_delay: Int[Array, ""] | int = 1,
) -> OffPolicyState:
    """After a gradient, with one of the policy unless `POLICY_UPDATES` says no. The
    copies move after it."""
    parts = zip(state.online, state.opt_state, grads, strict=True)
    both = [
        stepped(optimizer, *part) if jax.tree.leaves(part[0]) else ((), ())
        for part in parts
    ]
    online, opt_state = (Trained(*x) for x in zip(*both, strict=True))
    if POLICY_UPDATES in metrics:
        due = jnp.asarray(metrics[POLICY_UPDATES]) > 0.0
        kept = state.online.policy, state.opt_state.policy
        policy, policy_opt = jax.tree.map(
            lambda new, old: jnp.where(due, new, old),
            (online.policy, opt_state.policy),
            kept,
        )
        online = online._replace(policy=policy)
        opt_state = opt_state._replace(policy=policy_opt)
    pairs = zip(online, state.targets, strict=True)
    new = Trained(*(x if jax.tree.leaves(copy) else () for x, copy in pairs))
    targets, phase = followed(
        new, state.targets, state.target_phase, config.target_period, config.target_rate
    )
    policy_phase = (state.policy_phase + 1) % policy_delay
    return OffPolicyState(
        online, opt_state, targets, state.elapsed, phase, policy_phase
    )


def warmed_up(
    config: OffPolicyConfig, elapsed: Elapsed, key: PRNGKey, unit: Float[Array, "B A"]
) -> Float[Array, "B A"]:
    """The unit action, or in the first steps a uniform one."""
    if isinstance(config.warm_up, int) and not config.warm_up:
        return unit
    uniform = jax.random.uniform(key, unit.shape, unit.dtype, -1.0, 1.0)
    return jnp.where(elapsed.fraction(config.warm_up) < 1.0, uniform, unit)


def joint_normal(
    key: PRNGKey, shape: tuple[int, ...], axis: Axis, done: Any
) -> Float[Array, "L K A"]:
    """Standard normal noise for this instance's rows of the joint batch along the axis:
    those that one device would draw for it.

    Args:
      shape: [L, K, A] of this instance.
      done: as for `Axis.after`.
    """
    if axis.name is None:
        return jax.random.normal(key, shape)
    rows, lanes, size = shape
    key = axis.common(key, done)
    whole = jax.random.normal(key, (rows, lanes * axis.size, size))
    return jax.lax.dynamic_slice_in_dim(whole, axis.index * lanes, lanes, axis=1)


def completed(
    config: OffPolicyConfig, errors: Callable[[Acting, Trajectory], Array]
) -> Callable[[Acting, Carry, Trajectory], Extras]:
    """`complete` of an agent that acts by `Acting`: where priorities are recorded, the
    first ones of an unroll are these errors."""
    if not config.record_priority:
        return as_acted

    def complete(params: Acting, carry: Carry, trajectory: Trajectory) -> Extras:
        del carry  # nothing is learned from it
        return trajectory.extras | {"priority": errors(params, trajectory)}

    return complete
