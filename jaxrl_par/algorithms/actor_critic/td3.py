"""TD3 and DDPG as agents: a deterministic policy, which explores by noise."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrl_par.algorithms.actor_critic.config import DDPGConfig, TD3Config
from jaxrl_par.algorithms.actor_critic.losses import (
    Rows,
    Trainable,
    bootstrapped,
    critic_loss,
    reached,
    same_shape,
    told,
    trainable,
    values,
)
from jaxrl_par.algorithms.actor_critic.noise import NoiseCarry, drawn, quiet
from jaxrl_par.algorithms.actor_critic.parts import (
    POLICY_UPDATES,
    Acting,
    Networks,
    OffPolicyState,
    Trained,
    applied,
    begun,
    completed,
    joint_normal,
    networks_of,
    warmed_up,
)
from jaxrl_par.axis import Axis
from jaxrl_par.networks import Network
from jaxrl_par.returns import at_rows
from jaxrl_par.types import (
    Agent,
    Info,
    Params,
    PRNGKey,
    Spec,
    TimeStep,
    Trajectory,
)


def ddpg(
    policy: Network,
    critic: Network,
    action_spec: Spec,
    optimizer: optax.GradientTransformation,
    config: DDPGConfig = DDPGConfig(),
) -> Agent:
    """DDPG: `td3` with other settings."""
    return td3(policy, critic, action_spec, optimizer, config)


def td3(
    policy: Network,
    critic: Network,
    action_spec: Spec,
    optimizer: optax.GradientTransformation,
    config: TD3Config = TD3Config(),
) -> Agent:
    """TD3, to be learned with `loops.replayed`: see the package.

    `greedy` acts without noise.

    Args:
      policy: as `networks.deterministic_policy` makes.
      critic: as `networks.action_value` makes.
      optimizer: clips, schedules and scales both gradients, each by itself.

    Raises:
      RefusedError: an argument is something else, or actions are not bounded.
    """
    kind = TD3Config
    nets = networks_of(policy, critic, action_spec, optimizer, config, kind)

    def init(key: PRNGKey, step: TimeStep) -> OffPolicyState:
        return begun(nets, optimizer, config, key, step, copies_policy=True)

    def initial_carry(num_envs: int) -> NoiseCarry:
        return quiet(config, num_envs, len(nets.units.low))

    def act(params: Acting, carry: NoiseCarry, step: TimeStep, key: PRNGKey):
        noise_key, uniform_key = jax.random.split(key)
        unit, _ = policy.apply(params.policy, (), step)
        noise, carry = drawn(config, carry, step.first, noise_key, unit.shape)
        unit = jnp.clip(unit + noise, -1.0, 1.0)
        unit = warmed_up(config, params.elapsed, uniform_key, unit)
        return nets.units.action(unit), carry, {}

    def greedy(params: Acting, carry: NoiseCarry, step: TimeStep, key: PRNGKey):
        del key  # the policy needs none
        unit, _ = policy.apply(params.policy, (), step)
        return nets.units.action(unit), carry, {}

    def params(state: OffPolicyState) -> Acting:
        judge = state.online.critics if config.record_priority else ()
        return Acting(state.online.policy, state.elapsed, judge)

    errors = partial(_first_priorities, nets=nets, config=config)
    return Agent(
        init=init,
        initial_carry=initial_carry,
        act=act,
        greedy=greedy,
        grad=partial(_grad, nets=nets, config=config),
        apply=partial(applied, optimizer, config, policy_delay=config.policy_delay),
        params=params,
        complete=completed(config, errors),
        specs=policy.specs,
    )


def _grad(
    state: OffPolicyState,
    batch: Trajectory,
    key: PRNGKey,
    axis: Axis,
    nets: Networks,
    config: TD3Config,
) -> tuple[Trained, Info]:
    online, copies = state.online, state.targets
    rows = trainable(batch, nets, config)
    noise = jnp.zeros_like(rows.unit)
    if not isinstance(config.smoothing, int | float) or config.smoothing:
        noise = joint_normal(key, noise.shape, axis, batch.reward)
        noise = smoothing_noise(noise, config)
    y = smoothed_targets(copies.policy, copies.critics, batch, noise, nets, config)
    critics, q_values = jax.grad(critic_loss, has_aux=True)(
        online.critics, nets.critic, rows, y
    )
    due = state.policy_phase + 1 >= config.policy_delay

    def improved(policy: Params) -> Params:
        return jax.grad(policy_loss)(policy, online.critics, rows, nets)

    nothing = jax.tree.map(jnp.zeros_like, online.policy)
    policy = jax.lax.cond(due, improved, lambda _: nothing, online.policy)
    metrics, priorities = told(rows, q_values, y, config.eta)
    metrics[POLICY_UPDATES] = due.astype(jnp.float32)
    return Trained(policy, critics), Info(metrics, priorities)


def smoothed_targets(
    policy: Params,
    critics: Params,
    batch: Trajectory,
    noise: Float[Array, "L K A"],
    nets: Networks,
    config: TD3Config,
) -> Rows:
    """Targets of the first L rows of a batch.

    Args:
      noise: on the actions that they bootstrap with, in units of the bounds.
    """
    ahead = reached(batch, config, len(noise))
    after = jax.tree.map(lambda x: x[1:], batch.steps)
    # Rows of `after`; those that are `last` lead nowhere, and have no weight.
    steps = at_rows(after, jnp.maximum(ahead.index - 1, 0))
    unit, _ = nets.policy.unroll(policy, (), steps)
    unit = jnp.clip(unit + noise, -1.0, 1.0)
    return bootstrapped(ahead, nets, critics, steps, unit)


def smoothing_noise(
    normal: Float[Array, "L K A"], config: TD3Config
) -> Float[Array, "L K A"]:
    """Clipped noise, of each row and dimension by itself."""
    largest = config.smoothing_clip
    return jnp.clip(config.smoothing * normal, -largest, largest)


def policy_loss(
    policy: Params, critics: Params, rows: Trainable, nets: Networks
) -> Float[Array, ""]:
    """The first critic's value of the policy's actions, which is to grow."""
    unit, _ = nets.policy.unroll(policy, (), rows.steps)
    first = jax.tree.map(lambda x: x[:1], critics)
    value = values(nets.critic, first, rows.steps, unit)[0]
    same_shape(value, rows.weight)
    return rows.mean(-value)


def _first_priorities(
    params: Acting, trajectory: Trajectory, nets: Networks, config: TD3Config
) -> Rows:
    """Errors by whoever acted, at its parameters: no slow copies, and no noise."""
    rows = trainable(trajectory, nets, config, trajectory.reward.shape[0])
    noise = jnp.zeros_like(rows.unit)
    given = params.policy, params.judge, trajectory, noise, nets, config
    q_values = values(nets.critic, params.judge, rows.steps, rows.unit)
    errors = jnp.mean(jnp.abs(q_values - smoothed_targets(*given)[None]), axis=0)
    return jnp.where(rows.last, 0.0, errors)
