"""Neural episodic control: values in a table whose keys a network learns.

    Q(o, a) = sum_i w[i] Q_a[i]   over the p entries of a nearest to h = network(o)
    y[t] = r[t] + gamma r[t+1] + ... + gamma^N max_b Q(o[t+N], b)
    Q_a[i] <- Q_a[i] + alpha (y - Q_a[i])  if h is there, else a new entry (h, y)

What is acted is written by `Agent.observe`, once for each row of an unroll, with as
many of the N rewards as the unroll still has. From replay, `grad` is that of (y - Q(o,
a))^2 with respect to the network, the keys and the values. There y is computed anew,
without a target network: the table, which changes slowly, is one.

A gradient that comes late would move entries that were overwritten meanwhile, so there
are no halves for topologies that put time between a gradient and its use.

Source: Pritzel et al., arXiv:1703.01988.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxrl_par import losses, returns
from jaxrl_par.agents import accept, stepped
from jaxrl_par.algorithms.episodic.acting import (
    acting,
    annealed,
    largest,
    num_actions,
    possible,
)
from jaxrl_par.algorithms.episodic.config import NECConfig
from jaxrl_par.algorithms.episodic.reading import weighted
from jaxrl_par.algorithms.episodic.table import Found, Table, empty, nearest, touched
from jaxrl_par.algorithms.episodic.writing import Entries, towards, written
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import Elapsed
from jaxrl_par.errors import RefusedError
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
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
    "filled": Metric("share of the table", "that has entries"),
    "lost_rows": Metric("rows", "that found no place in the table"),
    "q_value": Metric("returns", "of the action that was done"),
    "target": Metric("returns", "what it is moved to"),
    "td_error": Metric("returns", "their difference, absolute"),
    "epsilon": Metric("probability", "of an action at random"),
}


class Acting(NamedTuple):
    """What acts."""

    network: Params
    table: Table
    elapsed: Elapsed


class NECState(NamedTuple):
    """What NEC learns."""

    network: Params
    table: Table
    opt_state: optax.OptState
    elapsed: Elapsed


class Learned(NamedTuple):
    """What follows the gradient."""

    network: Params
    keys: Float[Array, "A N D"]
    values: Float[Array, "A N"]


def nec(
    network: Network,
    optimizer: optax.GradientTransformation,
    config: NECConfig = NECConfig(),
) -> Agent:
    """NEC for discrete actions, to be learned with `loops.replayed`: see the module.

    `greedy` takes the action of the largest value, the first of equals.

    Args:
      network: maps steps to keys [..., D], as `networks.key_network` does. It knows its
        specs, and has no memory.
      optimizer: of the network's gradient alone.

    Raises:
      RefusedError: the config is out of range, actions are not discrete, or the network
        has a memory.
    """
    accept(network, optimizer, config, NECConfig)
    if network.specs is None or jax.tree.leaves(network.initial_carry(1)):
        raise RefusedError("nec needs a network that knows its specs and has no memory")
    number = num_actions(network.specs)

    def init(key: PRNGKey, step: TimeStep) -> NECState:
        params = network.init(key, step)
        keys, _ = jax.eval_shape(network.apply, params, (), step)
        table = empty(number, config.capacity, keys.shape[-1])
        return NECState(params, table, optimizer.init(params), Elapsed.zero())

    def grad(
        state: NECState, batch: Trajectory, key: PRNGKey, axis: Axis
    ) -> tuple[Grads, Info]:
        del key, axis  # the loss is deterministic, and of this batch alone
        learned = Learned(state.network, state.table.keys, state.table.values)
        given = (state.table, batch, network, config)
        grads, info = jax.grad(loss, has_aux=True)(learned, *given)
        filled = jnp.mean(state.table.there, dtype=jnp.float32)
        info.metrics.update(epsilon=annealed(state.elapsed, config), filled=filled)
        return grads, info

    def apply(state: NECState, grads: Learned, metrics: Metrics) -> NECState:
        del metrics
        params, opt_state = stepped(
            optimizer, state.network, state.opt_state, grads.network
        )
        table = _moved(state.table, grads, config)
        return NECState(params, table, opt_state, state.elapsed)

    def observe(state: NECState, trajectory: Trajectory, axis: Axis) -> NECState:
        return state._replace(table=_observed(state, trajectory, axis, network, config))

    act, greedy = acting(partial(_read, network, config), config)
    functions = (init, network.initial_carry, act, grad, apply, greedy)
    return Agent(
        *functions,
        observe=observe,
        params=lambda state: Acting(state.network, state.table, state.elapsed),
        specs=network.specs,
    )


def loss(
    learned: Learned,
    table: Table,
    batch: Trajectory,
    network: Network,
    config: NECConfig,
) -> tuple[Float[Array, ""], Info]:
    """The mean of (y - Q(o, a))^2 over the trained rows of windows, all but the last
    N - 1. Weights are `batch.extras["weight"]`, 1 without it.

    Raises:
      RefusedError: windows have no row before N - 1 others.
    """
    rows = len(batch.reward) - (config.n_step - 1)
    if rows < 1:
        raise RefusedError(
            f"windows of {len(batch.reward)} rows have none to train with n_step ="
            f" {config.n_step}: replay.Windows takes lookahead = {config.n_step - 1}"
        )
    last = batch.steps.last[:-1]
    ahead = returns.reached(
        rewards=batch.reward,
        discounts=config.gamma * batch.discount,
        last=last,
        n=config.n_step,
    )
    ahead, last = jax.tree.map(lambda x: x[:rows], (ahead, last))
    lanes = jnp.arange(last.shape[1])[None]
    reached = jax.tree.map(lambda x: x[ahead.index, lanes], batch.steps)
    trained = jax.tree.map(lambda x: x[:rows], batch.steps)
    keys, _ = network.unroll(learned.network, (), trained)
    keys_ahead, _ = network.unroll(jax.lax.stop_gradient(learned.network), (), reached)
    following = _values(table, keys_ahead.reshape(-1, keys.shape[-1]), config)
    following = following.reshape(*last.shape, -1)
    following = largest(following, reached.obs)
    target = ahead.rewards + ahead.discounts * following
    flat, action = keys.reshape(-1, keys.shape[-1]), batch.action[:rows].reshape(-1)
    found = _nearest(table, flat, config, action)
    values = weighted(learned.keys, learned.values, flat, found, config.delta)
    values = values[:, 0].reshape(last.shape)
    error = jax.lax.stop_gradient(target) - values
    weight = batch.extras.get("weight", jnp.ones_like(batch.reward))[:rows]
    told = {"value_loss": error**2, "q_value": values, "target": target}
    told = losses.row_means(last, **told, td_error=jnp.abs(error))
    priorities = losses.of_sequences(jax.lax.stop_gradient(error), last, 1.0)
    return losses.over_rows(weight * error**2, last), Info(told, priorities)


def _read(
    network: Network, config: NECConfig, acting: Acting, step: TimeStep
) -> Float[Array, "B A"]:
    keys, _ = network.apply(acting.network, (), step)
    return possible(_values(acting.table, keys, config), step.obs)


def _moved(table: Table, grads: Learned, config: NECConfig) -> Table:
    """After a step against the gradient; of a key, one of sqrt(delta) at most."""
    move = config.key_rate * grads.keys
    size = jnp.sum(move**2, axis=-1, keepdims=True)
    move *= jnp.sqrt(config.delta / jnp.maximum(size, config.delta))
    values = table.values - config.value_rate * grads.values
    return table._replace(keys=table.keys - move, values=values)


def _nearest(
    table: Table,
    keys: Float[Array, "Q D"],
    config: NECConfig,
    action: Int[Array, " Q"] | None = None,
) -> Found:
    """A table has many keys of one observation, as the network learned: what the kernel
    does not tell apart needs no order."""
    within = config.delta / 16.0
    return nearest(table, keys, config.num_neighbours, action, within)


def _values(
    table: Table, keys: Float[Array, "Q D"], config: NECConfig
) -> Float[Array, "Q A"]:
    found = _nearest(table, keys, config)
    return weighted(table.keys, table.values, keys, found, config.delta)


def _observed(
    state: NECState,
    trajectory: Trajectory,
    axis: Axis,
    network: Network,
    config: NECConfig,
) -> Table:
    keys, _ = network.unroll(state.network, (), trajectory.steps)
    shape, flat = keys.shape[:2], keys.reshape(-1, keys.shape[-1])
    found = _nearest(state.table, flat, config)
    table = state.table
    values = weighted(table.keys, table.values, flat, found, config.delta)
    last = trajectory.rows.last
    targets = returns.n_step(
        rewards=trajectory.reward,
        discounts=config.gamma * trajectory.discount,
        last=last,
        values=largest(values.reshape(*shape, -1), trajectory.steps.obs),
        n=config.n_step,
    )
    # The row that the next unroll starts with is left to it.
    read = found._replace(slot=found.slot[: last.size], there=found.there[: last.size])
    entries = Entries(keys[:-1], trajectory.action, targets, ~last)
    # Lanes first, so that those of several devices, joined, are in the order of one.
    entries = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), entries)
    entries = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), entries)
    table = touched(table, read.joined(axis))
    return written(table, axis.gather(entries), towards(config.alpha))
