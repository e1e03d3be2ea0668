"""Evolution strategies: from the fitness of perturbed parameters to a step of them.

Members come in pairs, with the same noise added and subtracted (antithetic), and play
the same episodes. With fitness F and n pairs the direction is

    g = 1 / (2 n sigma) sum over pairs of (F+ - F-) noise

or, with ranks in place of fitness, that without 1 / sigma. `loops.evolution` leaves the
fitness of all members in the extras of a trajectory, and the key of their noise. It is
what devices exchange. Then each sums up the noise of its own pairs, and the sums are
added; or each draws the noise of all pairs again, and nothing else is exchanged. Pairs
enter whole or not at all: ranks and the mean are over those that did.

Source: Salimans et al., arXiv:1703.03864, algorithms 1 and 2; its released code for the
centred ranks and the weight decay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from jaxrl_par.agents import accept, stepped
from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError, at_least, not_chosen, problems
from jaxrl_par.networks import Network
from jaxrl_par.networks.heads import uniform_actions
from jaxrl_par.perturbations import Evolving, NoiseConfig, noise_of
from jaxrl_par.types import (
    ActFn,
    Agent,
    Carry,
    Grads,
    Info,
    Metrics,
    Obs,
    Params,
    PRNGKey,
    Reference,
    State,
    TimeStep,
    Trajectory,
)


@dataclass(frozen=True)
class ESConfig:
    """Hyperparameters of evolution strategies."""

    noise: NoiseConfig = NoiseConfig()
    shaping: Literal["ranks", "raw"] = "ranks"
    """ranks: fitness counts by its rank alone, so that one member that is far ahead
    moves the parameters no further. raw: as it is."""
    weight_decay: float = 0.005
    """Times the parameters, in the gradient: it keeps them small beside the noise."""
    policy: Literal["greedy", "sampled"] = "greedy"
    """Members act by the mode of their policy, or by draws from it."""
    reference_rows: int = 0
    """Observations of random play, seen before the first generation and kept, over
    which each member normalises its layers by its own parameters (virtual batch
    normalisation): for networks that are deaf to noise, such as those of images. 0:
    layers are as they are."""
    exchange: Literal["sums", "fitness"] = "sums"
    """What devices exchange besides fitness. sums: each one's part of the direction.
    fitness: nothing, and each draws the noise of all pairs."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, weight_decay=0, reference_rows=0) + not_chosen(self)
        if self.reference_rows == 1:
            found.append("reference_rows must be 0, or 2 or more: one has no variance")
        return found + [f"noise.{line}" for line in problems(self.noise)]


class ESState(NamedTuple):
    """What is learned."""

    params: Params
    opt_state: optax.OptState
    reference: Obs = ()
    """Leaves [reference_rows, ...], all 0 until random play was shown; () without."""


class Referring(NamedTuple):
    """Parameters that have yet to be normalised, and over what."""

    evolving: Evolving
    reference: Obs


class Differences(NamedTuple):
    """What is learned of a generation, the same on all devices."""

    noise_key: PRNGKey
    pairs: Int[Array, " N"]
    """Those that entered, by which their noise is found again."""
    difference: Float[Array, " N"]
    """By how much the member with the noise added was better, of each."""


def es(
    network: Network,
    optimizer: optax.GradientTransformation,
    config: ESConfig = ESConfig(),
) -> Agent:
    """Evolution strategies for any policy, to be run by `loops.evolution`.

    Args:
      network: maps steps to (distribution of the action, anything).
      optimizer: clips, schedules and scales the direction.
    """
    accept(network, optimizer, config, ESConfig)
    number = config.reference_rows
    wants = _reference(network, number) if number else None

    def init(key: PRNGKey, step: TimeStep) -> ESState:
        params = network.init(key, step)
        unseen = jax.tree.map(
            lambda x: jnp.zeros((number, *x.shape[1:]), x.dtype), step.obs
        )
        return ESState(params, optimizer.init(params), unseen if wants else ())

    def params_of(state: ESState) -> Params:
        evolving = Evolving(state.params)
        return Referring(evolving, state.reference) if wants else evolving

    def settle(params: Params) -> Params:
        if not isinstance(params, Referring):
            return params
        assert network.normalized is not None
        return Evolving(network.normalized(params.evolving.params, params.reference))

    def prepare(state: State, trajectory: Trajectory, axis: Axis) -> Differences:
        played = trajectory.extras
        fitness = axis.gather(played["fitness"])
        pairs = axis.gather(axis.after(played["pairs"], fitness))
        return Differences(played["noise_key"], pairs, _differences(fitness, config))

    def apply(state: ESState, grads: Grads, metrics: Metrics) -> ESState:
        del metrics
        decay = config.weight_decay
        grads = jax.tree.map(lambda g, x: g + decay * x, grads, state.params)
        params, opt_state = stepped(optimizer, state.params, state.opt_state, grads)
        return state._replace(params=params, opt_state=opt_state)

    sampled, greedy = _acting(network, settle)
    act = sampled if config.policy == "sampled" else greedy
    return Agent(
        *(init, network.initial_carry, act),
        grad=lambda state, batch, key, axis: _grad(state, batch, axis, config),
        apply=apply,
        greedy=greedy,
        prepare=prepare,
        params=params_of,
        settle=settle,
        reference=wants,
        reduction="sum" if config.exchange == "sums" else "equal",
        specs=network.specs,
    )


def centred_ranks(fitness: Float[Array, " N"]) -> Float[Array, " N"]:
    """Ranks from -0.5, the lowest, to 0.5; equal ones share the mean of theirs.

    What is not a number is lowest.
    """
    fitness = jnp.where(jnp.isnan(fitness), -jnp.inf, fitness)
    fitness = jnp.where(fitness == 0.0, 0.0, fitness)  # -0 is sorted before 0
    ordered = jnp.sort(fitness)
    below = jnp.searchsorted(ordered, fitness, side="left")
    upto = jnp.searchsorted(ordered, fitness, side="right")
    rank = (below + upto - 1).astype(jnp.float32) / 2.0
    return rank / (fitness.size - 1) - 0.5


def _grad(
    state: ESState, batch: Differences, axis: Axis, config: ESConfig
) -> tuple[Grads, Info]:
    flat, unravel = ravel_pytree(state.params)
    (total,) = batch.difference.shape
    number = total // axis.size if config.exchange == "sums" else total
    begin = axis.index * number if config.exchange == "sums" else 0
    pairs, difference = (
        jax.lax.dynamic_slice_in_dim(x, begin, number)
        for x in (batch.pairs, batch.difference)
    )

    def noise(pair: Int[Array, ""]) -> Float[Array, " D"]:
        return noise_of(config.noise, batch.noise_key, pair, flat.size)

    uphill = difference @ jax.vmap(noise)(pairs)
    return unravel(-0.5 / total * uphill), Info({})


def _differences(fitness: Float[Array, "N 2"], config: ESConfig) -> Float[Array, " N"]:
    if config.shaping == "raw":
        return (fitness[:, 0] - fitness[:, 1]) / config.noise.sigma
    ranks = centred_ranks(fitness.reshape(-1)).reshape(fitness.shape)
    return ranks[:, 0] - ranks[:, 1]


def _reference(network: Network, num_rows: int) -> Reference:
    if network.normalized is None or network.specs is None:
        raise RefusedError(
            f"reference_rows = {num_rows} normalises the layers of a network of"
            " networks.policy_network without memory, over single observations; for"
            " others take reference_rows = 0"
        )
    act = partial(uniform_actions, *network.specs)
    return Reference(num_rows, act, lambda state, obs: state._replace(reference=obs))


def _acting(
    network: Network, settle: Callable[[Params], Params]
) -> tuple[ActFn, ActFn]:
    def act(params: Params, carry: Carry, step: TimeStep, key: PRNGKey):
        (policy, _), carry = network.apply(settle(params).params, carry, step)
        return policy.sample(key), carry, {}

    def greedy(params: Params, carry: Carry, step: TimeStep, key: PRNGKey):
        del key  # the mode needs none
        (policy, _), carry = network.apply(settle(params).params, carry, step)
        return policy.mode(), carry, {}

    return act, greedy
