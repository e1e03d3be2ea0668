"""Agents from a network and a loss: what most algorithms have in common."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Float

from jaxrl_par.axis import Axis
from jaxrl_par.errors import lacking, refuse, refuse_any, told
from jaxrl_par.networks import Network
from jaxrl_par.types import (
    ActFn,
    Agent,
    Batch,
    Carry,
    Discrete,
    Grads,
    Info,
    Metrics,
    Params,
    PlainPolicy,
    Preferences,
    PRNGKey,
    TimeStep,
)

LossFn = Callable[[Params, Batch], tuple[Float[Array, ""], Metrics]]


class TrainState(NamedTuple):
    """What a network and an optimizer learn."""

    params: Params
    opt_state: optax.OptState


def accept(network: Any, optimizer: Any, config: Any, kind: type) -> None:
    """Refuses what an algorithm cannot be made of.

    Args:
      kind: the algorithm's config.

    Raises:
      RefusedError: it says which argument is wrong, and what is right.
    """
    parts = ("init", "initial_carry", "apply", "unroll")
    makes = "a Network, as networks.actor_critic makes"
    found = lacking(makes, *parts, network=network)
    makes = "an optax.GradientTransformation, as optimizers.make_optimizer makes"
    found += lacking(makes, "init", "update", optimizer=optimizer)
    if not isinstance(config, kind):
        found.append(f"config must be a {kind.__name__}, got {told(config)}")
    refuse_any(found)
    refuse(config)


def trained_by(
    network: Network,
    optimizer: optax.GradientTransformation,
    loss: LossFn,
    *,
    record_log_prob: bool = False,
    record_policy: bool = False,
    **fields: Any,
) -> Agent:
    """An agent that follows the gradient of `loss(params, batch)`.

    Args:
      network: maps steps to (distribution of the action, values [...]).
      optimizer: clips, schedules and scales the gradient.
      record_log_prob, record_policy: as for `acting`.
      fields: further ones of `Agent`.
    """

    def init(key: PRNGKey, step: TimeStep) -> TrainState:
        params = network.init(key, step)
        return TrainState(params, optimizer.init(params))

    def grad(
        state: TrainState, batch: Batch, key: PRNGKey, axis: Axis
    ) -> tuple[Grads, Info]:
        del key, axis  # the loss is deterministic, and of this batch alone
        return gradient(loss, state.params, batch)

    def apply(state: TrainState, grads: Grads, metrics: Metrics) -> TrainState:
        del metrics  # the optimizer needs none
        return TrainState(*stepped(optimizer, state.params, state.opt_state, grads))

    act, greedy = acting(network, record_log_prob, record_policy)
    functions = (init, network.initial_carry, act, grad, apply, greedy)
    told = preferring(network, lambda outputs: outputs[0].logits)
    plain = plainly(network, act, log_prob=record_log_prob, policy=record_policy)
    more = {"specs": network.specs, "preferences": told, "plain": plain}
    return Agent(*functions, **more | fields)


def plainly(
    network: Network, act: ActFn, *, log_prob: bool = False, policy: bool = False
) -> PlainPolicy | None:
    """`Agent.plain` of an agent whose `act` is that of `acting`.

    Args:
      log_prob, policy: what that records.
    """
    plain = network.plain
    if plain is None:
        return None
    return plain._replace(act=act, log_prob=log_prob, policy=policy)


def preferring(
    network: Network, of_actions: Callable[[Any], Float[Array, "T B A"]]
) -> Callable[[Params, Carry, TimeStep], tuple[Preferences, Carry]] | None:
    """`Agent.preferences` where the network's parameters and memory are what acts; None
    if its actions are not known to be discrete.

    Args:
      of_actions: from its outputs to logits or values.
    """
    read = network.with_features
    if read is None or network.specs is None:
        return None
    if not isinstance(network.specs[1], Discrete):
        return None

    def preferences(params: Params, carry: Carry, step: TimeStep):
        steps = jax.tree.map(lambda x: x[None], step)
        (outputs, features), carry = read(params, carry, steps)
        return Preferences(of_actions(outputs)[0], features[0]), carry

    return preferences


def valuing(
    network: Network, of_actions: Callable[[Any], Float[Array, "T B A"]]
) -> Callable[[Params, Carry, TimeStep], tuple[Preferences, Carry]] | None:
    """As `preferring`, of an agent with `online` parameters and a `memory`."""
    of_network = preferring(network, of_actions)
    if of_network is None:
        return None

    def preferences(params: Params, carry: Carry, step: TimeStep):
        told, memory = of_network(params.online, carry.memory, step)
        return told, carry._replace(memory=memory)

    return preferences


def gradient(loss: Callable, params: Params, *given: Any) -> tuple[Grads, Info]:
    """The gradient of `loss(params, *given)`, with its metrics."""
    grads, metrics = jax.grad(loss, has_aux=True)(params, *given)
    return grads, Info(metrics)


def stepped(
    optimizer: optax.GradientTransformation,
    params: Params,
    opt_state: optax.OptState,
    grads: Grads,
) -> tuple[Params, optax.OptState]:
    """Parameters and the optimizer's state after a gradient."""
    # optax's own code promotes dtypes, also where a user forbids it to everyone.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optimizer.update(grads, opt_state, params)
    # Else a product and the sum below may be rounded once, in one program and not in
    # another.
    updates = jax.lax.optimization_barrier(updates)
    return optax.apply_updates(params, updates), opt_state


def acting(
    network: Network, record_log_prob: bool = False, record_policy: bool = False
) -> tuple[ActFn, ActFn]:
    """(act, greedy) of a network whose outputs are (distribution, values).

    Args:
      record_log_prob: leave log mu(a|o) of the action taken in the extras, [B]. It has
        to be recorded when acting: later the parameters are others.
      record_policy: leave the whole distribution mu(.|o) in the extras too.
    """

    def act(params: Params, carry: Carry, step: TimeStep, key: PRNGKey):
        (policy, _), carry = network.apply(params, carry, step)
        action = policy.sample(key)
        extras = {"log_prob": policy.log_prob(action)} if record_log_prob else {}
        if record_policy:
            extras["policy"] = policy
        return action, carry, extras

    def greedy(params: Params, carry: Carry, step: TimeStep, key: PRNGKey):
        del key  # the mode needs none
        (policy, _), carry = network.apply(params, carry, step)
        return policy.mode(), carry, {}

    return act, greedy
