"""The loss of windows from replay, and their priorities."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par import losses, returns
from jaxrl_par.algorithms.dqn import sequences
from jaxrl_par.algorithms.dqn.config import DQNConfig
from jaxrl_par.algorithms.dqn.targets import best, of_action, reached, targets, where
from jaxrl_par.errors import RefusedError
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.types import Carry, Info, Metrics, Params, TimeStep, Trajectory

METRICS = {
    "q_value": Metric("returns", "of the action that was done"),
    "target": Metric("returns", "what it is moved to"),
    "td_error": Metric("returns", "their difference, absolute"),
    "importance_weight": Metric(
        "1", "of the rows drawn by priority; 1 where they are drawn alike"
    ),
}


def loss(
    online: Params,
    target: Params,
    batch: Trajectory,
    network: Network,
    config: DQNConfig,
) -> tuple[Float[Array, ""], Info]:
    """The mean of weighted losses over the trained rows, and the windows' priorities.

    Weights are `batch.extras["weight"]`, 1 without it. The mean is over all rows, those
    that are `last` as 0, and is not divided by the sum of weights.

    Raises:
      RefusedError: windows have no row behind the burn-in and before n - 1 others.
    """
    kind, b = config.kind(), config.burn_in
    rows = batch.reward.shape[0] - b - (config.n_step - 1)
    if rows < 1:
        raise RefusedError(
            f"windows of {batch.reward.shape[0]} rows have none to train with burn_in ="
            f" {b} and n_step = {config.n_step}: replay.Windows takes the same burn_in,"
            f" and lookahead = {config.n_step - 1}"
        )
    after = jax.tree.map(lambda x: x[b:], batch._replace(carry=()))
    last = after.steps.last[:-1]
    ahead = returns.Reached(*(x[:rows] for x in reached(after, config)))
    windows = _windows(batch, network, config)
    given = network, online, target, windows, ahead.index
    outputs = sequences.of_both(*given, config.double)
    last = last[:rows]
    # A `last` row's action may be one that is impossible there, of -inf.
    chosen = where(last, 0.0, of_action(after.action[:rows], outputs.online))
    bootstrap = best(outputs.target_ahead, outputs.choosing_ahead, kind)
    made = targets(ahead, bootstrap, kind, config)
    learned = kind.compared(chosen, *jax.lax.stop_gradient(made))
    q_values, target_values = kind.expected(chosen), kind.mean(*made)
    weight = after.extras.get("weight", jnp.ones_like(after.reward))[:rows]
    told = {"value_loss": learned.loss, "q_value": q_values, "target": target_values}
    told |= {"td_error": jnp.abs(target_values - q_values)}
    metrics = losses.row_means(last, importance_weight=weight, **told)
    if config.measure_staleness:
        values = jax.lax.stop_gradient(kind.expected(outputs.online))
        metrics |= _staleness(online, values, after, network, config)
    # Those of errors: not weighted, not squared, not cut at Huber's bound.
    priorities = losses.of_sequences(learned.priority, last, config.eta)
    return losses.over_rows(weight * learned.loss, last), Info(metrics, priorities)


def _windows(
    batch: Trajectory, network: Network, config: DQNConfig
) -> sequences.Windows:
    memory, padded = batch.carry.memory, None
    if config.start == "zero":
        memory = network.initial_carry(batch.num_lanes)
    if config.burn_in and jax.tree.leaves(memory):
        padded = batch.extras["padded"][0]
    return sequences.Windows(batch.steps, memory, config.burn_in, padded)


def _staleness(
    online: Params,
    values: Float[Array, "L K A"],
    after: Trajectory,
    network: Network,
    config: DQNConfig,
) -> Metrics:
    params, expected = jax.lax.stop_gradient(online), config.kind().expected
    acted, steps = jax.tree.map(
        lambda x: x[: len(values)], (after.extras["memory"], after.steps)
    )

    def apply(memory: Carry, step: TimeStep) -> Float[Array, "K A"]:
        outputs, _ = network.apply(params, memory, step)
        return expected(outputs)

    return {**sequences.staleness(apply, values, acted, steps)}
