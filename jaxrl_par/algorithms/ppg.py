"""The auxiliary phase of phasic policy gradient (PPG), which `loops.phasic` calls.

A policy and a value that share features disturb each other; apart, the policy learns
nothing of what the value needs. PPG trains them apart, by PPO, and after some rollouts
teaches the policy's features what values those had, while the policy stays:

    L = 1/2 (V_aux - V_targ)**2 + clone_cost KL(pi_old || pi) + 1/2 (V - V_targ)**2

V_aux is a head of the policy's network that nothing else reads, V the critic's. V_targ
is the estimate that the policy phase learned from, by the parameters that acted, and
pi_old the policy right before the phase, of all its rows.

Source: Cobbe et al., arXiv:2009.04416, section 2 and algorithm 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrl_par import losses, returns
from jaxrl_par.agents import TrainState, accept, trained_by
from jaxrl_par.axis import Axis
from jaxrl_par.errors import at_least, not_between, refuse_any
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network, separate
from jaxrl_par.types import Agent, Carry, Metrics, Params, TimeStep, Trajectory

METRICS = {
    "auxiliary_kl": Metric(
        "nats", "of the policy from that before the auxiliary phase"
    ),
    "auxiliary_value_loss": Metric("squared returns", "of the values, in that phase"),
    "auxiliary_head_loss": Metric(
        "squared returns", "of the policy's own head of values"
    ),
    "auxiliary_grad_norm": Metric("1", "of the phase's gradient"),
}


@dataclass(frozen=True)
class PPGConfig:
    """What an auxiliary phase learns."""

    clone_cost: float = 1.0
    """beta_clone: weight of KL(pi_old || pi), per nat. It stands against squared errors
    of values: 1, the paper's, is for returns of scale 1, and `auxiliary_kl` tells how
    far the policy moves."""

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, clone_cost=0)


class PPGBatch(NamedTuple):
    """Rows [N, ...] without memory; with memory, sequences [B, T, ...]."""

    steps: TimeStep
    policy: Any
    """pi_old."""
    target: Float[Array, "*N"]
    """V_targ."""
    carry: Carry
    """Memory before each sequence, [B, ...]; () without."""


def auxiliary(
    actor: Network,
    critic: Network,
    optimizer: optax.GradientTransformation,
    config: PPGConfig = PPGConfig(),
) -> Agent:
    """An agent whose trajectories have V_targ in their extras, as "target".

    It has the parameters of `separate(actor, critic)`.

    Args:
      actor: maps steps to (distribution of the action, V_aux [...]), critic: to
        (anything, V [...]).
      optimizer: clips, schedules and scales the gradient of each minibatch.
      config: may hold traced numbers.

    Raises:
      ValueError: the config is out of range; as `separate`.
    """
    network = separate(actor, critic)
    accept(network, optimizer, config, PPGConfig)

    def prepare(state: TrainState, trajectory: Trajectory, axis: Axis) -> PPGBatch:
        del axis  # nothing is of the joint batch
        return make_batch(state.params, trajectory, network)

    of_batch = partial(loss, actor=actor, critic=critic, config=config)
    return trained_by(network, optimizer, of_batch, prepare=prepare)


def value_targets(
    network: Network, gamma: float, gae_lambda: float
) -> Callable[[Params, Trajectory], Float[Array, "T B"]]:
    """V_targ as PPO has it, advantages and values, of the parameters that acted.

    Args:
      network: maps steps to (anything, V [...]).

    Raises:
      ValueError: a number is not in [0, 1].
    """
    given = {"gamma": gamma, "gae_lambda": gae_lambda}
    refuse_any(not_between(given, gamma=(0, 1), gae_lambda=(0, 1)))

    def targets(params: Params, trajectory: Trajectory) -> Float[Array, "T B"]:
        (_, values), _ = network.unroll(params, trajectory.carry, trajectory.steps)
        advantages = returns.gae(
            rewards=trajectory.reward,
            discounts=gamma * trajectory.discount,
            last=trajectory.rows.last,
            values=values,
            lambda_=gae_lambda,
        )
        return advantages + values[:-1]

    return targets


def make_batch(params: Params, trajectory: Trajectory, network: Network) -> PPGBatch:
    """The rows, with the policy of now."""
    rows, target = trajectory.rows, trajectory.extras["target"]
    if not jax.tree.leaves(trajectory.carry):
        # Row by row in time: all at once would not fit, of many rollouts.
        policy = jax.lax.map(lambda step: network.apply(params, (), step)[0][0], rows)
        batch = PPGBatch(rows, policy, target, ())
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
    (policy, _), _ = network.unroll(params, trajectory.carry, rows)
    batch = PPGBatch(rows, policy, target, ())
    batch = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), batch)
    return batch._replace(carry=trajectory.carry)


def loss(
    params: Params,
    batch: PPGBatch,
    actor: Network,
    critic: Network,
    config: PPGConfig,
) -> tuple[Float[Array, ""], Metrics]:
    """All three terms, averaged over the rows."""
    if jax.tree.leaves(batch.carry):
        carry = batch._replace(carry=())
        rows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), carry)
        act, judge, (actors, critics) = actor.unroll, critic.unroll, batch.carry
    else:
        rows, act, judge, actors, critics = batch, actor.apply, critic.apply, (), ()
    (policy, guesses), _ = act(params["actor"], actors, rows.steps)
    (_, values), _ = judge(params["critic"], critics, rows.steps)
    last = rows.steps.last
    parts = {
        "kl": rows.policy.kl(policy),
        "value_loss": 0.5 * jnp.square(values - rows.target),
        "head_loss": 0.5 * jnp.square(guesses - rows.target),
    }
    of_values = parts["value_loss"] + parts["head_loss"]
    total = losses.over_rows(config.clone_cost * parts["kl"] + of_values, last)
    return total, losses.row_means(last, **parts)
