"""What a policy is worth in a problem that is known: solved, swept, or backwards.

    Q(s, a) = sum_s' P(s'|s, a) (R(s, a, s') + gamma V(s'))
    V(s)    = sum_a pi(a|s) Q(s, a)

with V = Q = 0 in terminal states.

Sources: Elster, Mustafaoglu and Pingali, Parallel reinforcement learning, lecture 3;
Sutton and Barto, Reinforcement Learning, 2nd edition, section 4.1.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl_par.algorithms.tabular.mdp import MDP, ActionValues, Policy, Values


def action_values(mdp: MDP, values: Values) -> ActionValues:
    """Q of one step that is followed by `values`."""
    following = mdp.gamma * jnp.where(mdp.terminal, 0.0, values)
    gains = mdp.rewards + following[None, None]
    q_values = jnp.sum(mdp.transitions * gains, axis=-1)
    return jnp.where(mdp.terminal[:, None], 0.0, q_values)


def state_values(policy: Policy, q_values: ActionValues) -> Values:
    """V of acting by the policy once, where `q_values` tells what that brings."""
    return jnp.sum(policy * q_values, axis=-1)


def evaluate(mdp: MDP, policy: Policy) -> Values:
    """The values of the policy, as the solution of a linear system.

        (I - gamma P_pi) V = r_pi

    Not finite where gamma is 1 and the policy never ends.
    """
    num_states = mdp.terminal.shape[0]
    rewards = state_values(policy, action_values(mdp, jnp.zeros(num_states)))
    chain = jnp.sum(policy[:, :, None] * mdp.transitions, axis=1)
    chain = jnp.where(mdp.terminal[:, None], 0.0, chain)
    return jnp.linalg.solve(jnp.eye(num_states) - mdp.gamma * chain, rewards)


def sweep(mdp: MDP, policy: Policy, values: Values) -> Values:
    """V_i = r_pi + gamma P_pi V_{i-1}: the error shrinks by gamma, or faster."""
    return state_values(policy, action_values(mdp, values))


def evaluate_by_sweeps(
    mdp: MDP,
    policy: Policy,
    num_sweeps: int | Int[Array, ""],
    values: Values | None = None,
) -> Values:
    """What `num_sweeps` sweeps make of `values`, by default 0."""
    values = jnp.zeros(mdp.terminal.shape) if values is None else values
    return jax.lax.fori_loop(0, num_sweeps, lambda _, v: sweep(mdp, policy, v), values)


class Swept(NamedTuple):
    """Where sweeps ended."""

    values: Float[Array, " S"]
    num_sweeps: Int[Array, ""]
    change: Float[Array, ""]
    """The largest of the last sweep. The error is at most gamma / (1 - gamma) of it."""


def evaluate_until(
    mdp: MDP, policy: Policy, tolerance: float = 1e-6, max_sweeps: int = 10_000
) -> Swept:
    """Sweeps from 0 until none changes a value by more than `tolerance`.

    Values far from 0 are rounded by more than a small tolerance: `max_sweeps` ends
    that, and `change` tells.
    """
    return sweep_until(partial(sweep, mdp, policy), mdp, tolerance, max_sweeps)


def sweep_until(
    backup: Callable[[Values], Values], mdp: MDP, tolerance: float, max_sweeps: int
) -> Swept:
    """Repeats `backup`, from 0, until it changes no value by more than `tolerance`."""

    def unfinished(swept: Swept):
        return (swept.change > tolerance) & (swept.num_sweeps < max_sweeps)

    def once(swept: Swept) -> Swept:
        values = backup(swept.values)
        change = jnp.max(jnp.abs(values - swept.values))
        return Swept(values, swept.num_sweeps + 1, change)

    first = Swept(jnp.zeros(mdp.terminal.shape), jnp.int32(0), jnp.full((), jnp.inf))
    return jax.lax.while_loop(unfinished, once, first)


class Episodic(NamedTuple):
    """Values of T steps, by how many of them are over."""

    values: Float[Array, "T+1 S"]
    """The last row is 0: nothing follows."""
    action_values: Float[Array, "T S A"]


def evaluate_episodic(mdp: MDP, policies: Float[Array, "T S A"]) -> Episodic:
    """The values of an episode of T steps, exact after one pass backwards.

        Q_t(s, a) = sum_s' P(s'|s, a) (R(s, a, s') + gamma V_{t+1}(s')),   V_T = 0
        V_t(s)    = sum_a policies[t, s, a] Q_t(s, a)

    The lecture's episodes have gamma 1. A policy that does not change over time is
    broadcast to [T, S, A]. An episode that reaches a terminal state ends before T.
    """

    def back(values: Values, policy: Policy):
        q_values = action_values(mdp, values)
        new = state_values(policy, q_values)
        return new, (new, q_values)

    final = jnp.zeros(mdp.terminal.shape)
    _, (values, q_values) = jax.lax.scan(back, final, policies, reverse=True)
    return Episodic(jnp.concatenate([values, final[None]]), q_values)
