"""Finite Markov decision processes as arrays, and steps sampled from them.

    transitions[s, a, s']  P(s'|s, a)
    rewards[s, a, s']      R(s, a, s')
    policy[s, a]           pi(a|s)

Axis letters: S states, A actions, W workers that act at the same time. A state that is
`terminal` ends the episode: it is worth 0, and its rows are not read.

Nothing but `finite_mdp` and `checked_policy` looks at numbers, so that the rest can be
traced, and vmapped over problems.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.errors import not_between, refuse_any
from jaxrl_par.types import PRNGKey

Policy = Float[Array, "S A"]
Values = Float[Array, " S"]
ActionValues = Float[Array, "S A"]
_ROUNDING = 1e-5  # of the sum of a row of float32


class MDP(NamedTuple):
    """A problem, and whether and how later rewards count in it."""

    transitions: Float[Array, "S A S"]
    rewards: Float[Array, "S A S"]
    gamma: Float[Array, ""]
    terminal: Bool[Array, " S"]
    start: Float[Array, " S"]
    """The distribution of the state in which an episode starts."""


class Transition(NamedTuple):
    """What tabular methods learn from; each field has the same shape."""

    state: Int[Array, "*W"]
    action: Int[Array, "*W"]
    reward: Float[Array, "*W"]
    discount: Float[Array, "*W"]
    """gamma, or 0 where `next_state` is terminal."""
    next_state: Int[Array, "*W"]


def finite_mdp(
    transitions: Any,
    rewards: Any,
    gamma: float,
    terminal: Any = None,
    start: Any = None,
) -> MDP:
    """The problem that these arrays describe, once they are found to be one.

    Args:
      transitions: [S, A, S]; every row is a distribution, those of terminal states too.
      rewards: [S, A, S].
      terminal: [S] booleans, by default none.
      start: [S], by default uniform over the states that are not terminal.

    Raises:
      ValueError: a shape does not fit; a number is not finite; a row is no
        distribution; `gamma` is outside [0, 1], or 1 where no end can be reached; an
        episode would start in a terminal state.
    """
    transitions = _distributions("transitions", transitions, rank=3)
    num_states = transitions.shape[0]
    if transitions.shape[2] != num_states:
        raise ValueError(f"transitions must be [S, A, S], got {transitions.shape}")
    rewards = np.asarray(rewards, np.float64)
    if rewards.shape != transitions.shape or not np.all(np.isfinite(rewards)):
        raise ValueError(
            f"rewards must be finite, one for each of transitions"
            f" {transitions.shape}, got {rewards.shape}"
        )
    terminal = np.asarray(np.zeros(num_states, bool) if terminal is None else terminal)
    if terminal.shape != (num_states,) or terminal.dtype != bool or terminal.all():
        raise ValueError(
            f"terminal must be {num_states} booleans, not all true, got {terminal}"
        )
    _check_gamma(gamma, transitions, terminal)
    if start is None:
        start = ~terminal / np.sum(~terminal)
    start = _distributions("start", start, rank=1)
    if start.shape != (num_states,) or np.any(start[terminal]):
        raise ValueError(
            f"start must be {num_states} probabilities, 0 where terminal, got {start}"
        )
    return MDP(
        jnp.asarray(transitions, jnp.float32),
        jnp.asarray(rewards, jnp.float32),
        jnp.float32(gamma),
        jnp.asarray(terminal),
        jnp.asarray(start, jnp.float32),
    )


def checked_policy(policy: Any, mdp: MDP) -> Policy:
    """The policy as an array, once its rows are found to be distributions.

    Raises:
      ValueError: it is not a distribution over all actions for each state.
    """
    policy = _distributions("policy", policy, rank=2)
    if policy.shape != mdp.transitions.shape[:2]:
        raise ValueError(
            f"policy must be {mdp.transitions.shape[:2]}, a row for each state, got"
            f" {policy.shape}"
        )
    return jnp.asarray(policy, jnp.float32)


def uniform_policy(mdp: MDP) -> Policy:
    """Every action alike."""
    num_states, num_actions, _ = mdp.transitions.shape
    return jnp.full((num_states, num_actions), 1.0 / num_actions)


def start_states(key: PRNGKey, mdp: MDP, num_workers: int) -> Int[Array, " W"]:
    """States in which episodes start, one for each worker."""
    logits = jnp.log(mdp.start)
    return jax.random.categorical(key, logits, shape=(num_workers,)).astype(jnp.int32)


def sample_actions(
    key: PRNGKey, policy: Policy, states: Int[Array, " W"]
) -> Int[Array, " W"]:
    """An action of the policy in each state."""
    return jax.random.categorical(key, jnp.log(policy[states])).astype(jnp.int32)


def sample_transitions(
    key: PRNGKey, mdp: MDP, states: Int[Array, " W"], actions: Int[Array, " W"]
) -> Transition:
    """What happens to each worker that takes its action in its state."""
    logits = jnp.log(mdp.transitions[states, actions])
    successors = jax.random.categorical(key, logits).astype(jnp.int32)
    rewards = mdp.rewards[states, actions, successors]
    discounts = jnp.where(mdp.terminal[successors], 0.0, mdp.gamma)
    return Transition(states, actions, rewards, discounts, successors)


def go_on(key: PRNGKey, mdp: MDP, transitions: Transition) -> Int[Array, " W"]:
    """Where each worker acts next: in the successor, or in a new episode's start."""
    successors = transitions.next_state
    starts = start_states(key, mdp, successors.shape[0])
    return jnp.where(mdp.terminal[successors], starts, successors)


def _distributions(name: str, rows: Any, rank: int) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != rank or 0 in rows.shape:
        raise ValueError(f"{name} must have {rank} axes, none empty, got {rows.shape}")
    if not np.all(np.isfinite(rows) & (rows >= 0)):
        raise ValueError(f"{name} must be finite and 0 or more")
    wrong = np.argwhere(np.abs(rows.sum(-1) - 1) > _ROUNDING)
    if len(wrong):
        at = tuple(wrong[0].tolist())
        where = list(at) if at else ""
        raise ValueError(f"{name}{where} must sum to 1, got {rows[at].sum():g}")
    return rows


def _check_gamma(gamma: float, transitions: np.ndarray, terminal: np.ndarray) -> None:
    refuse_any(not_between({"gamma": gamma}, gamma=(0, 1)))
    reached, leads = terminal, transitions.max(axis=1) > 0
    for _ in terminal:
        reached = reached | np.any(leads & reached, axis=1)
    if gamma == 1 and not reached.all():
        raise ValueError(
            "gamma must be below 1 where no terminal state can be reached, as from"
            f" states {np.flatnonzero(~reached).tolist()}"
        )
