"""SAC as an agent: a squashed Gaussian policy, whose entropy has a price."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrl_par.algorithms.actor_critic.config import SACConfig
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
from jaxrl_par.algorithms.actor_critic.parts import (
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
from jaxrl_par.losses import row_means
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.returns import at_rows
from jaxrl_par.types import (
    Agent,
    Carry,
    Info,
    Params,
    PRNGKey,
    Spec,
    TimeStep,
    Trajectory,
)

METRICS = {
    "temperature": Metric("returns for a nat", "the price of entropy"),
}

Temperature = Float[Array, ""] | float


def sac(
    policy: Network,
    critic: Network,
    action_spec: Spec,
    optimizer: optax.GradientTransformation,
    config: SACConfig = SACConfig(),
) -> Agent:
    """SAC, to be learned with `loops.replayed`: see the package.

    `greedy` takes the image of the Gaussian's mean.

    Args:
      policy, critic: as `networks.gaussian_policy` and `networks.action_value` make.
      optimizer: clips, schedules and scales each of the three gradients by itself.

    Raises:
      RefusedError: an argument is something else, or actions are not bounded.
    """
    kind = SACConfig
    nets = networks_of(policy, critic, action_spec, optimizer, config, kind)

    def init(key: PRNGKey, step: TimeStep) -> OffPolicyState:
        log_temperature: Any = ()
        if config.learn_temperature:
            log_temperature = jnp.log(jnp.float32(config.temperature))
        given = nets, optimizer, config, key, step, log_temperature
        return begun(*given, copies_policy=False)

    def act(params: Acting, carry: Carry, step: TimeStep, key: PRNGKey):
        key, uniform_key = jax.random.split(key)
        made, carry = policy.apply(params.policy, carry, step)
        unit = warmed_up(config, params.elapsed, uniform_key, made.sample(key))
        return nets.units.action(unit), carry, {}

    def greedy(params: Acting, carry: Carry, step: TimeStep, key: PRNGKey):
        del key  # the mean needs none
        made, carry = policy.apply(params.policy, carry, step)
        return nets.units.action(made.mode()), carry, {}

    def params(state: OffPolicyState) -> Acting:
        online = state.online
        judge = (online.critics, _temperature(online, config))
        recorded = judge if config.record_priority else ()
        return Acting(online.policy, state.elapsed, recorded)

    errors = partial(_first_priorities, nets=nets, config=config)
    return Agent(
        init=init,
        initial_carry=policy.initial_carry,
        act=act,
        greedy=greedy,
        grad=partial(_grad, nets=nets, config=config),
        apply=partial(applied, optimizer, config),
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
    config: SACConfig,
) -> tuple[Trained, Info]:
    online, rows = state.online, trainable(batch, nets, config)
    alpha = _temperature(online, config)
    length, lanes, size = rows.unit.shape
    # What targets draw and what the policy's loss draws are rows of their own.
    total = batch.reward.shape[0] + length
    noise = joint_normal(key, (total, lanes, size), axis, batch.reward)
    given = online.policy, state.targets.critics, alpha, batch, noise[length:]
    y = soft_targets(*given, nets, config, length)
    critics, q_values = jax.grad(critic_loss, has_aux=True)(
        online.critics, nets.critic, rows, y
    )
    policy, log_prob = jax.grad(policy_loss, has_aux=True)(
        online.policy, online.critics, alpha, rows, noise[:length], nets
    )
    log_temperature: Any = ()
    if config.learn_temperature:
        target = target_entropy(config, size)
        log_temperature = jax.grad(temperature_loss)(
            online.log_temperature, log_prob, rows, target
        )
    metrics, priorities = told(rows, q_values, y, config.eta)
    metrics |= row_means(rows.last, entropy=-log_prob)
    metrics["temperature"] = jnp.asarray(alpha, jnp.float32)
    return Trained(policy, critics, log_temperature), Info(metrics, priorities)


def soft_targets(
    policy: Params,
    critics: Params,
    alpha: Temperature,
    batch: Trajectory,
    noise: Float[Array, "T K A"],
    nets: Networks,
    config: SACConfig,
    rows: int,
) -> Rows:
    """Targets of the first rows of a batch.

    Args:
      noise: standard normal, for an action in the observation after each row.
    """
    after = jax.tree.map(lambda x: x[1:], batch.steps)
    unit, log_prob = sampled(nets.policy, policy, after, noise)
    ahead = reached(batch, config, rows, bonus=-alpha * log_prob)
    # Rows of `after`; those that are `last` lead nowhere, and have no weight.
    index = jnp.maximum(ahead.index - 1, 0)
    steps, unit = at_rows((after, unit), index)
    return bootstrapped(ahead, nets, critics, steps, unit)


def sampled(
    policy: Network, params: Params, steps: TimeStep, noise: Float[Array, "T K A"]
) -> tuple[Float[Array, "T K A"], Float[Array, "T K"]]:
    """Unit actions and their log-probabilities, from x itself: nothing is inverted."""
    made, _ = policy.unroll(params, (), steps)
    return made.squashed(made.mean + jnp.exp(made.log_std) * noise)


def policy_loss(
    policy: Params,
    critics: Params,
    alpha: Temperature,
    rows: Trainable,
    noise: Float[Array, "L K A"],
    nets: Networks,
) -> tuple[Float[Array, ""], Rows]:
    """What entropy costs less than it is worth by the lowest critic; and log pi."""
    unit, log_prob = sampled(nets.policy, policy, rows.steps, noise)
    lowest = jnp.min(values(nets.critic, critics, rows.steps, unit), axis=0)
    same_shape(lowest, log_prob)
    return rows.mean(alpha * log_prob - lowest), log_prob


def temperature_loss(
    log_temperature: Float[Array, ""], log_prob: Rows, rows: Trainable, target: float
) -> Float[Array, ""]:
    """Its slope is the entropy that the policy has above the target."""
    return rows.mean(-log_temperature * (log_prob + target))


def target_entropy(config: SACConfig, num_actions: int) -> float:
    """That of actions in units of their bounds, so no width enters it."""
    given = config.target_entropy
    return -float(num_actions) if given is None else given


def _temperature(online: Trained, config: SACConfig) -> Temperature:
    if not config.learn_temperature:
        return config.temperature
    return jnp.exp(online.log_temperature)


def _first_priorities(
    params: Acting, trajectory: Trajectory, nets: Networks, config: SACConfig
) -> Rows:
    """Errors by whoever acted, at its parameters: no slow copy, and the mean's action
    in place of one that is drawn."""
    critics, alpha = params.judge
    length = trajectory.reward.shape[0]
    rows = trainable(trajectory, nets, config, length)
    noise = jnp.zeros_like(rows.unit)
    given = params.policy, critics, alpha, trajectory, noise, nets, config, length
    q_values = values(nets.critic, critics, rows.steps, rows.unit)
    errors = jnp.mean(jnp.abs(q_values - soft_targets(*given)[None]), axis=0)
    return jnp.where(rows.last, 0.0, errors)
