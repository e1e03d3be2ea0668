"""The acting half of actor-learner distillation: it learns from a teacher alone.

It sees no reward. Where it has been, it imitates what the teacher would have done, and
predicts what the teacher expects there:

    L = alpha_pi KL(pi_A || sg pi_L) + alpha_V 1/2 (sg V_L - V_A)^2

The teacher is the other half: any agent that learns from the data of another policy,
such as `impala` or `vmpo` with a `behaviour_cost`. `loops.distillation` joins the two.

Source: Parisotto and Salakhutdinov, arXiv:2104.01655, section 4.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrl_par import losses
from jaxrl_par.agents import accept, trained_by
from jaxrl_par.errors import at_least
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.types import (
    Agent,
    DistillationBatch,
    Metrics,
    Params,
    same_actions,
)

METRICS = {
    "kl": Metric("nats", "of the student from the teacher"),
    "agreement": Metric("share of rows", "in which both prefer the same action"),
}


@dataclass(frozen=True)
class DistilledConfig:
    """What a student learns of its teacher."""

    policy_cost: float = 1.0
    """alpha_pi: weight of KL(pi_A || pi_L), per nat."""
    value_cost: float = 1.0
    """alpha_V: weight of half the squared difference of values. The student's value is
    used for nothing; learning it shapes the features that its policy reads."""

    def problems(self) -> list[str]:
        return at_least(self, policy_cost=0, value_cost=0)


def distilled(
    network: Network,
    optimizer: optax.GradientTransformation,
    config: DistilledConfig = DistilledConfig(),
) -> Agent:
    """An agent whose batches are what a teacher said.

    It leaves its policy and the log-probability of its action in the extras: its
    teacher learns from what it does. Arguments: see `algorithms`.
    """
    accept(network, optimizer, config, DistilledConfig)
    of_batch = partial(loss, network=network, config=config)
    return trained_by(
        network, optimizer, of_batch, record_log_prob=True, record_policy=True
    )


def loss(
    params: Params, batch: DistillationBatch, network: Network, config: DistilledConfig
) -> tuple[Float[Array, ""], Metrics]:
    """Both terms, as means over the T * B rows."""
    batch = jax.lax.stop_gradient(batch)
    (policy, values), _ = network.unroll(params, batch.carry, batch.steps)
    last = batch.steps.last
    divergences = policy.kl(batch.policy)
    value_losses = 0.5 * jnp.square(batch.values - values)
    row_losses = config.policy_cost * divergences + config.value_cost * value_losses
    agree = same_actions(policy.mode(), batch.policy.mode(), last)
    return losses.over_rows(row_losses, last), losses.row_means(
        last,
        kl=divergences,
        value_loss=value_losses,
        entropy=policy.entropy(),
        agreement=agree.astype(jnp.float32),
    )
