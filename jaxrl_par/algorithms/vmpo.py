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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxrl_par import losses, returns
from jaxrl_par.axis import Axis
from jaxrl_par.errors import not_between
from jaxrl_par.networks import Network
from jaxrl_par.policies import actors
from jaxrl_par.types import (
    Action,
    Agent,
    Carry,
    Grads,
    Info,
    Metrics,
    Params,
    PRNGKey,
    TimeStep,
    Trajectory,
)

Policy = Any
"""A distribution of actions."""
_SMALLEST_DUAL = 1e-8


@dataclass(frozen=True)
class VMPOConfig:
    """Hyperparameters of V-MPO."""

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
        """What is out of range."""
        found = not_between(self, gamma=(0, 1), vtrace_lambda=(0, 1))
        positive = ("max_rho", "max_c", "initial_eta", "initial_alpha")
        positive += ("epsilon_eta", "epsilon_alpha", "epsilon_covariance")
        found += [
            f"{name} must be above 0, got {value}"
            for name in positive
            if not (value := getattr(self, name)) > 0
        ]
        if self.max_rho < self.max_c:
            found.append(
                f"max_rho must be at least max_c = {self.max_c}, got {self.max_rho}"
            )
        if self.target_period < 1:
            found.append(f"target_period must be at least 1, got {self.target_period}")
        if not self.behaviour_cost >= 0:
            found.append(
                f"behaviour_cost must be at least 0, got {self.behaviour_cost}"
            )
        return found


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
    """Of pi_old."""
    target_age: Int[Array, ""]
    """Updates since the target was copied, below `target_period`."""
    opt_state: optax.OptState
    """For parameters and multipliers together."""


class VMPOBatch(NamedTuple):
    """Sequences [B, T, ...], and what is constant in the loss."""

    steps: TimeStep
    action: Action
    target: Float[Array, "B T"]
    """Of the value: G."""
    weight: Float[Array, "B T"]
    """|D| psi: 1 on average over D, 0 outside D~."""
    divergence: Float[Array, "B T"]
    """On average over D, KL(psi || uniform on D~)."""
    old_policy: Policy
    behaviour: Policy
    """mu, or () without `behaviour_cost`."""
    carry: Carry
    """Memory before each sequence, [B, ...]."""


def vmpo(
    network: Network,
    optimizer: optax.GradientTransformation,
    config: VMPOConfig = VMPOConfig(),
) -> Agent:
    """V-MPO for any actions, with or without memory.

    Made for one update from each trajectory. With minibatches, which are of whole
    sequences, psi and the gradient of eta are those of the eta before the first.

    Args:
      network: maps steps to (distribution of the action, values [...]).
      optimizer: clips, schedules and scales the gradient of parameters and multipliers.
      config: may hold traced numbers, so that a population can be vmapped over them.
    """

    def init(key: PRNGKey, step: TimeStep) -> VMPOState:
        params = network.init(key, step)
        carry = network.initial_carry(step.first.shape[0])
        (policy, _), _ = jax.eval_shape(network.apply, params, carry, step)
        num_parts = 2 if _is_normal(policy) else 1
        duals = Duals(
            eta=jnp.asarray(config.initial_eta, jnp.float32),
            alpha=jnp.full(num_parts, config.initial_alpha, jnp.float32),
        )
        # Copied, because a buffer that is in the state twice cannot be donated.
        target_params = jax.tree.map(jnp.copy, params)
        opt_state = optimizer.init((params, duals))
        return VMPOState(params, duals, target_params, jnp.int32(0), opt_state)

    def prepare(
        state: VMPOState, trajectory: Trajectory, axis: Axis
    ) -> tuple[VMPOState, VMPOBatch]:
        return state, make_batch(state, trajectory, network, config, axis)

    def grad(state: VMPOState, batch: VMPOBatch, key: PRNGKey) -> tuple[Grads, Info]:
        del key  # the loss is deterministic
        loss_grad = jax.grad(loss, has_aux=True)
        grads, metrics = loss_grad((state.params, state.duals), batch, network, config)
        return grads, Info(metrics)

    def apply(state: VMPOState, grads: Grads) -> VMPOState:
        old = (state.params, state.duals)
        updates, opt_state = optimizer.update(grads, state.opt_state, old)
        learned: Any = optax.apply_updates(old, updates)
        params, duals = learned
        duals = jax.tree.map(lambda x: jnp.maximum(x, _SMALLEST_DUAL), duals)
        age = state.target_age + 1
        renew = age >= config.target_period
        target_params = jax.tree.map(
            lambda new, old: jnp.where(renew, new, old), params, state.target_params
        )
        age = jnp.where(renew, 0, age)
        return VMPOState(params, duals, target_params, age, opt_state)

    act, greedy = actors(network, record_log_prob=True)
    return Agent(init, network.initial_carry, act, grad, apply, greedy, prepare)


def make_batch(
    state: VMPOState,
    trajectory: Trajectory,
    network: Network,
    config: VMPOConfig,
    axis: Axis,
) -> VMPOBatch:
    """All that does not depend on the parameters that the loss is differentiated by.

    Both networks read the same memory, that of the newest parameters.
    `trajectory.extras["log_prob"]` is log mu(a|o), [T, B], recorded when acting.

    Raises:
      ValueError: `behaviour_cost` is set, but the policy that acted was not recorded.
    """
    behaviour = ()
    if losses.in_use(config.behaviour_cost):
        behaviour = losses.acting_policy(trajectory.extras)
    steps, carry = trajectory.steps, trajectory.carry
    (policy, values), _ = network.unroll(state.params, carry, steps)
    steps, policy = jax.tree.map(lambda x: x[:-1], (steps, policy))
    (old_policy, _), _ = network.unroll(state.target_params, carry, steps)
    log_ratios = policy.log_prob(trajectory.action) - trajectory.extras["log_prob"]
    # A `last` row's action is ignored, and its ratio could overflow.
    log_ratios = jnp.where(steps.last, 0.0, log_ratios)
    targets, advantages = estimates(trajectory, log_ratios, values, config)
    weight, divergence = improved(advantages, steps.last, state.duals.eta, axis)
    rows = VMPOBatch(
        steps, trajectory.action, targets, weight, divergence, old_policy, behaviour, ()
    )
    return _swapped(rows)._replace(carry=carry)


def estimates(
    trajectory: Trajectory,
    log_ratios: Float[Array, "T B"],
    values: Float[Array, "T+1 B"],
    config: VMPOConfig,
) -> tuple[Float[Array, "T B"], Float[Array, "T B"]]:
    """Targets G of the value, and advantages A of the actions taken.

        A[t] = r[t] + d[t] ((1 - lambda) v[t+1] + lambda G[t+1]) - v[t]

    G is V-trace's. On policy this is `returns.gae`, G - v. Off policy A has no factor
    pi/mu of its own row: it ranks the action, however often that was chosen.
    """
    discounts, last = config.gamma * trajectory.discount, trajectory.steps.last[:-1]
    targets = returns.vtrace(
        rewards=trajectory.reward,
        discounts=discounts,
        last=last,
        values=values,
        log_ratios=log_ratios,
        lambda_=config.vtrace_lambda,
        max_rho=config.max_rho,
        max_c=config.max_c,
    ).targets
    next_targets = jnp.concatenate([targets[1:], values[-1:]])
    following = values[1:] + config.vtrace_lambda * (next_targets - values[1:])
    advantages = trajectory.reward + discounts * following - values[:-1]
    return targets, jnp.where(last, 0.0, advantages)


def improved(
    advantages: Float[Array, "T B"],
    last: Bool[Array, "T B"],
    eta: Float[Array, ""],
    axis: Axis,
) -> tuple[Float[Array, "T B"], Float[Array, "T B"]]:
    """|D| psi, and |D| psi log(|D~| psi), whose mean over D is KL(psi || uniform).

    That divergence is what dL_eta / deta lacks to eps_eta.
    """

    def total(x):
        return axis.mean(jnp.sum(x, dtype=jnp.float32))

    count = total(~last)
    # The smallest count above 0 is 1 on one of the devices, however many these are.
    median, largest = reached(advantages, ~last, jnp.stack([count / 2, 1e-9]), axis)
    top = ~last & (advantages >= median)
    log_weights = (advantages - largest) / eta
    weights = jnp.where(top, jnp.exp(log_weights), 0.0)
    # At least 1, from the largest, unless all rows of all devices are `last`.
    normalizer = jnp.maximum(total(weights), 1e-9)
    log_ratios = log_weights + jnp.log(total(top)) - jnp.log(normalizer)
    weights = weights * count / normalizer
    return weights, jnp.where(top, weights * log_ratios, 0.0)


def reached(
    x: Float[Array, "*N"],
    keep: Bool[Array, "*N"],
    counts: Float[Array, " K"],
    axis: Axis,
) -> Float[Array, " K"]:
    """For each of `counts`, the largest number that so many of x, where `keep`, reach.

    x are those of all devices, and counts are per device. A search for the four highest
    bits of the answer, then the next four, needs no more than means over the devices,
    and is exact.
    """
    bits = jax.lax.bitcast_convert_type(x.ravel(), jnp.uint32)
    # In the order of x, which that of its bits is not for negative numbers.
    sign = jnp.uint32(1 << 31)
    ordered = jnp.where(bits >= sign, ~bits, bits | sign)
    digits = jnp.arange(1, 16, dtype=jnp.uint32)

    def refine(i: Int[Array, ""], found: UInt32[Array, " K"]) -> UInt32[Array, " K"]:
        shift = jnp.uint32(28 - 4 * i)
        candidates = found[:, None] | (digits << shift)
        reach = keep.ravel() & (ordered >= candidates[..., None])
        enough = (
            axis.mean(jnp.sum(reach, axis=-1, dtype=jnp.float32)) >= counts[:, None]
        )
        return found | (jnp.sum(enough, axis=1, dtype=jnp.uint32) << shift)

    found = jax.lax.fori_loop(0, 8, refine, jnp.zeros(counts.shape, jnp.uint32))
    bits = jnp.where(found >= sign, found ^ sign, ~found)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def loss(
    learned: tuple[Params, Duals],
    batch: VMPOBatch,
    network: Network,
    config: VMPOConfig,
) -> tuple[Float[Array, ""], Metrics]:
    """The sum of all losses, averaged over the rows.

    L_eta appears as a line through eta with its slope, eps_eta - KL(psi || uniform).
    """
    params, duals = learned
    rows = _swapped(batch._replace(carry=()))
    last = rows.steps.last
    (policy, values), _ = network.unroll(params, batch.carry, rows.steps)
    policy_losses = -rows.weight * policy.log_prob(rows.action)
    value_losses = 0.5 * jnp.square(rows.target - values)
    eta_losses = duals.eta * (config.epsilon_eta - rows.divergence)
    parts = kl_parts(rows.old_policy, policy)
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
        "psi_kl": losses.row_mean(rows.divergence, last),
    }
    for name, alpha, part in zip(("", "_covariance"), duals.alpha, parts, strict=False):
        kl = losses.row_mean(part, last)
        metrics |= {f"kl{name}": kl, f"kl{name}_alpha": alpha}
    if losses.in_use(config.behaviour_cost):
        behaviour_kl = rows.behaviour.kl(policy)
        row_losses += config.behaviour_cost * behaviour_kl
        metrics["behaviour_kl"] = losses.row_mean(behaviour_kl, last)
    return losses.over_rows(row_losses, last), metrics


def kl_parts(old: Policy, new: Policy) -> tuple[Float[Array, "*B"], ...]:
    """KL(old || new); for normal distributions that of a new mean, of new covariances.

    Apart, so that exploration does not vanish as fast as means may move.
    """
    if not _is_normal(new):
        return (old.kl(new),)
    moved, reshaped = new._replace(log_std=old.log_std), new._replace(mean=old.mean)
    return old.kl(moved), old.kl(reshaped)


def _is_normal(policy: Policy) -> bool:
    return hasattr(policy, "log_std")


def _swapped(rows: VMPOBatch) -> VMPOBatch:
    """From [T, B, ...] to [B, T, ...], or back."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), rows)
