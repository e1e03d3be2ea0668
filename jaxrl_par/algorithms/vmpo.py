"""V-MPO: an actor-critic that imitates the better half of what it did.

Of the rows D that are no `last`, those with the larger advantages A, the half D~, teach
the policy, each with the weight psi:

    psi[i]   = exp(A[i] / eta) / sum over D~ of exp(A / eta)
    L_pi     = - sum over D~ of psi log pi(a|o)
    L_eta    = eta eps_eta + eta log(mean over D~ of exp(A / eta))
    L_alpha  = mean over D of alpha (eps_alpha - sg(KL)) + sg(alpha) KL
    L_V      = mean over D of (G - v)**2 / 2

with KL = KL(pi_old || pi), pi_old a copy of pi that is renewed every `target_period`
updates, and sg(x) a constant. eta and alpha are learned with the parameters: eta grows
until psi differs from a uniform one by no more than eps_eta, alpha until pi stays
within eps_alpha of pi_old. The loss is the sum of these, times the share of rows that
are no `last`: a mean over all rows, as everywhere in this package.

The half and the sums in psi are those of the joint batch of all devices: an update on
many equals that of one. Rows that tie with the median belong to D~, so that no choice
among them depends on their order.

The paper acts with pi_old; here the newest parameters act, as for every agent. Where
others acted, A and G are corrected by V-trace for pi / mu; psi never is.

Source: Song et al., arXiv:1909.12238, section 4.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par import losses, returns
from jaxrl_par.agents import accept, acting, gradient, plainly, preferring, stepped
from jaxrl_par.axis import Axis
from jaxrl_par.errors import above, at_least, not_between
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.statistics import SMALLEST_COUNT, reached
from jaxrl_par.targets import renewed
from jaxrl_par.types import (
    Agent,
    Grads,
    Info,
    Metrics,
    Params,
    PRNGKey,
    TimeStep,
    Trajectory,
)

METRICS = {
    "eta": Metric("1", "the temperature of the top half's weights"),
    "psi_kl": Metric("nats", "of those weights from equal ones"),
    "kl": Metric(
        "nats",
        "of the policy from that of the target network; of means, if it is normal",
    ),
    "kl_alpha": Metric("1", "the multiplier that holds `kl`"),
    "kl_covariance": Metric("nats", "the same, of covariances"),
    "kl_covariance_alpha": Metric("1", "the multiplier that holds it"),
    "behaviour_kl": Metric("nats", "of the policy from the one that acted"),
}

_SMALLEST_DUAL = 1e-8


@dataclass(frozen=True)
class VMPOConfig:
    """Hyperparameters of V-MPO."""

    may_be_infinite: ClassVar[tuple[str, ...]] = ("max_rho", "max_c")

    gamma: float = 0.99
    """Discount per environment step."""
    vtrace_lambda: float = 1.0
    """Decay of TD errors in a target: less bias towards 1, less noise towards 0. The
    paper's n-step returns to the end of the unroll are 1."""
    max_rho: float = 1.0
    """Bar of pi/mu in TD errors, where another policy mu acted."""
    max_c: float = 1.0
    """Bar of pi/mu in traces: how far back an error reaches."""
    target_period: int = 10
    """Updates for which pi_old stays the same."""
    initial_eta: float = 1.0
    """Temperature of advantages at the start."""
    epsilon_eta: float = 0.1
    """Divergence, in nats, up to which psi may prefer rows of the better half."""
    initial_alpha: float = 5.0
    """Weight of the divergence from pi_old at the start."""
    epsilon_alpha: float = 0.01
    """Divergence from pi_old, in nats, up to which its weight falls. For normal
    distributions, that of their means."""
    epsilon_covariance: float = 1e-5
    """The same for the covariances of normal distributions, which have a weight of
    their own."""
    value_cost: float = 1.0
    """Weight of half the squared value error, relative to the policy loss."""
    behaviour_cost: float = 0.0
    """Weight of KL(mu || pi), mu the distribution that acted, which must then be in the
    trajectory's `extras["policy"]`: actor-learner distillation."""

    def problems(self) -> list[str]:
        found = not_between(self, gamma=(0, 1), vtrace_lambda=(0, 1))
        positive = ("max_rho", "max_c", "initial_eta", "initial_alpha")
        positive += ("epsilon_eta", "epsilon_alpha", "epsilon_covariance")
        found += above(self, **dict.fromkeys(positive, 0))
        costs = {"value_cost": 0, "behaviour_cost": 0}
        return found + at_least(self, target_period=1, max_rho="max_c", **costs)


class Duals(NamedTuple):
    """Multipliers, which are learned like parameters and kept positive."""

    eta: Float[Array, ""]
    alpha: Float[Array, " K"]
    """One for each part of the divergence from pi_old: K is 2 for normal distributions,
    their means and their covariances, else 1."""


class VMPOState(NamedTuple):
    """What V-MPO learns."""

    params: Params
    duals: Duals
    target_params: Params
    """Parameters of pi_old."""
    target_age: Int[Array, ""]
    """Updates since the target was copied, below `target_period`."""
    opt_state: optax.OptState
    """For parameters and multipliers together."""


def vmpo(
    network: Network,
    optimizer: optax.GradientTransformation,
    config: VMPOConfig = VMPOConfig(),
) -> Agent:
    """V-MPO for any actions, with or without memory, by the rules of `algorithms`.

    Made for one update from each trajectory. With minibatches, which are of whole
    sequences, psi and the gradient of eta are those of the eta before the first.

    Args:
      optimizer: clips, schedules and scales the gradient of parameters and multipliers.
    """
    accept(network, optimizer, config, VMPOConfig)

    def init(key: PRNGKey, step: TimeStep) -> VMPOState:
        params = network.init(key, step)
        carry = network.initial_carry(step.first.shape[0])
        (policy, _), _ = jax.eval_shape(network.apply, params, carry, step)
        num_parts = 2 if hasattr(policy, "log_std") else 1
        duals = Duals(
            eta=jnp.asarray(config.initial_eta, jnp.float32),
            alpha=jnp.full(num_parts, config.initial_alpha, jnp.float32),
        )
        # Copied, because a buffer that is in the state twice cannot be donated.
        target_params = jax.tree.map(jnp.copy, params)
        opt_state = optimizer.init((params, duals))
        return VMPOState(params, duals, target_params, jnp.int32(0), opt_state)

    def prepare(state: VMPOState, trajectory: Trajectory, axis: Axis) -> Trajectory:
        return make_batch(state, trajectory, network, config, axis)

    def grad(
        state: VMPOState, batch: Trajectory, key: PRNGKey, axis: Axis
    ) -> tuple[Grads, Info]:
        del key, axis  # the loss is deterministic, and of this batch alone
        return gradient(loss, (state.params, state.duals), batch, network, config)

    def apply(state: VMPOState, grads: Grads, metrics: Metrics) -> VMPOState:
        del metrics  # multipliers have gradients
        old = (state.params, state.duals)
        (params, duals), opt_state = stepped(optimizer, old, state.opt_state, grads)
        duals = jax.tree.map(lambda x: jnp.maximum(x, _SMALLEST_DUAL), duals)
        target_params, age = renewed(
            params, state.target_params, state.target_age, config.target_period
        )
        return VMPOState(params, duals, target_params, age, opt_state)

    act, greedy = acting(network, record_log_prob=True)
    functions = (init, network.initial_carry, act, grad, apply, greedy, prepare)
    told = preferring(network, lambda outputs: outputs[0].logits)
    plain = plainly(network, act, log_prob=True)
    return Agent(*functions, specs=network.specs, preferences=told, plain=plain)


def make_batch(
    state: VMPOState,
    trajectory: Trajectory,
    network: Network,
    config: VMPOConfig,
    axis: Axis,
) -> Trajectory:
    """The trajectory, with what is constant in the loss in its extras, [T, B, ...]:

        target       of the value: G
        weight       |D| psi: 1 on average over D, 0 outside D~
        divergence   on average over D, KL(psi || uniform on D~)
        old_policy   pi_old

    Both networks read the same memory, that of the newest parameters.
    `trajectory.extras["log_prob"]` is log mu(a|o), [T, B], recorded when acting.
    """
    last, carry = trajectory.rows.last, trajectory.carry
    (policy, values), _ = network.unroll(state.params, carry, trajectory.steps)
    policy = jax.tree.map(lambda x: x[:-1], policy)
    (old_policy, _), _ = network.unroll(state.target_params, carry, trajectory.rows)
    log_ratios = policy.log_prob(trajectory.action) - trajectory.extras["log_prob"]
    estimates = returns.vtrace(
        rewards=trajectory.reward,
        discounts=config.gamma * trajectory.discount,
        last=last,
        values=values,
        log_ratios=log_ratios,
        lambda_=config.vtrace_lambda,
        max_rho=config.max_rho,
        max_c=config.max_c,
    )
    # Without a factor pi/mu of its own row: a rank, however often that was chosen.
    weight, divergence = improved(estimates.differences, last, state.duals.eta, axis)
    constants = {
        "target": estimates.targets,
        "weight": weight,
        "divergence": divergence,
        "old_policy": old_policy,
    }
    return trajectory._replace(extras=trajectory.extras | constants)


def improved(
    advantages: Float[Array, "T B"],
    last: Bool[Array, "T B"],
    eta: Float[Array, ""],
    axis: Axis,
) -> tuple[Float[Array, "T B"], Float[Array, "T B"]]:
    """|D| psi, and |D| psi log(|D~| psi), whose mean over D is KL(psi || uniform).

    dL_eta / deta = eps_eta - KL(psi || uniform).
    """

    def total(x):
        return axis.mean(jnp.sum(x, dtype=jnp.float32))

    count = total(~last)
    half_and_one = jnp.stack([count / 2, SMALLEST_COUNT])
    median, largest = reached(advantages, ~last, half_and_one, axis)
    top = ~last & (advantages >= median)
    log_weights = (advantages - largest) / eta
    weights = jnp.where(top, jnp.exp(log_weights), 0.0)
    # At least 1, from the largest, unless all rows of all devices are `last`.
    normalizer = jnp.maximum(total(weights), SMALLEST_COUNT)
    log_ratios = log_weights + jnp.log(total(top)) - jnp.log(normalizer)
    weights = weights * count / normalizer
    return weights, jnp.where(top, weights * log_ratios, 0.0)


def loss(
    learned: tuple[Params, Duals],
    batch: Trajectory,
    network: Network,
    config: VMPOConfig,
) -> tuple[Float[Array, ""], Metrics]:
    """The sum of all losses, averaged over the rows.

    L_eta appears as a line through eta with its slope, eps_eta - KL(psi || uniform).

    Raises:
      ValueError: `behaviour_cost` is set, but the policy that acted was not recorded.
    """
    params, duals = learned
    last, constants = batch.rows.last, batch.extras
    (policy, values), _ = network.unroll(params, batch.carry, batch.rows)
    policy_losses = -constants["weight"] * policy.log_prob(batch.action)
    value_losses = 0.5 * jnp.square(constants["target"] - values)
    eta_losses = duals.eta * (config.epsilon_eta - constants["divergence"])
    parts = kl_parts(constants["old_policy"], policy)
    limits = (config.epsilon_alpha, config.epsilon_covariance)[: len(parts)]
    stop = jax.lax.stop_gradient
    alpha_losses = sum(
        alpha * (limit - stop(part)) + stop(alpha) * part
        for alpha, limit, part in zip(duals.alpha, limits, parts, strict=True)
    )
    row_losses = policy_losses + config.value_cost * value_losses
    row_losses += eta_losses + alpha_losses
    metrics: Metrics = {
        "policy_loss": losses.row_mean(policy_losses, last),
        "value_loss": losses.row_mean(value_losses, last),
        "entropy": losses.row_mean(policy.entropy(), last),
        "eta": duals.eta,
        "psi_kl": losses.row_mean(constants["divergence"], last),
    }
    for name, alpha, part in zip(("", "_covariance"), duals.alpha, parts, strict=False):
        kl = losses.row_mean(part, last)
        metrics |= {f"kl{name}": kl, f"kl{name}_alpha": alpha}
    if losses.in_use(config.behaviour_cost):
        behaviour_kl = losses.acting_policy(batch.extras).kl(policy)
        row_losses += config.behaviour_cost * behaviour_kl
        metrics["behaviour_kl"] = losses.row_mean(behaviour_kl, last)
    return losses.over_rows(row_losses, last), metrics


def kl_parts(old: Any, new: Any) -> tuple[Float[Array, "*B"], ...]:
    """KL(old || new); for normal distributions that of a new mean, of new covariances.

    Apart, so that exploration does not vanish as fast as means may move.
    """
    if not hasattr(new, "log_std"):
        return (old.kl(new),)
    moved, reshaped = new._replace(log_std=old.log_std), new._replace(mean=old.mean)
    return old.kl(moved), old.kl(reshaped)
