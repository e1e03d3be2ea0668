"""Small problems whose values are known, for checks and for pictures."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.algorithms.tabular.mdp import MDP, finite_mdp
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.types import PRNGKey

CLIFF_SHAPE = (4, 12)
_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Up, right, down and left, in rows and columns."""


def two_state() -> MDP:
    """Two states, one action, reward 1 for leaving state 0: V = [3.835616, 2.465753].

    It never ends, and gamma is 0.9.

    Source: Elster, Mustafaoglu and Pingali, Parallel reinforcement learning, lecture 3.
    """
    transitions = np.array([[[0.5, 0.5]], [[0.2, 0.8]]])
    rewards = np.array([[[1.0, 1.0]], [[0.0, 0.0]]])
    return finite_mdp(transitions, rewards, gamma=0.9)


def random_walk(length: int = 5) -> MDP:
    """A row of states between two ends, reward 1 at the right end and gamma 1.

    States 1 .. length lie between the ends 0 and length + 1, and episodes start in the
    middle. Action 0 steps to the left, 1 to the right. Under the uniform policy
    V[k] = k / (length + 1), which is the probability of the right end.

    Raises:
      ValueError: `length` is below 1.

    Source: Sutton and Barto, Reinforcement Learning, 2nd edition, example 6.2.
    """
    refuse(length=length)
    states = np.arange(length + 2)
    terminal = (states == 0) | (states == length + 1)
    transitions = np.zeros((length + 2, 2, length + 2))
    for action, step in enumerate((-1, 1)):
        successors = np.where(terminal, states, states + step)
        transitions[states, action, successors] = 1.0
    rewards = np.zeros_like(transitions)
    rewards[1:-1, :, -1] = 1.0
    start = states == (length + 1) // 2
    return finite_mdp(transitions, rewards, 1.0, terminal, start)


def cliff_walking() -> MDP:
    """A grid of 4 x 12 with a cliff along its lower edge, between start and goal.

    Each step costs 1. A step into the cliff costs 100 instead and leads back to the
    start. The state is 12 * row + column, from the upper left; actions are up, right,
    down, left, and a step out of the grid stays. gamma is 1: the shortest path returns
    -13, the one along the upper edge -17.

    Source: Sutton and Barto, Reinforcement Learning, 2nd edition, example 6.6.
    """
    height, width = CLIFF_SHAPE
    start, goal = (height - 1) * width, height * width - 1
    transitions = np.zeros((height * width, 4, height * width))
    rewards = np.full_like(transitions, -1.0)
    for state in range(height * width):
        for action, move in enumerate(_MOVES):
            row, column = np.add(divmod(state, width), move)
            row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
            successor = row * width + column
            if start < successor < goal:
                successor = start
                rewards[state, action, successor] = -100.0
            transitions[state, action, successor] = 1.0
    states = np.arange(height * width)
    return finite_mdp(transitions, rewards, 1.0, states == goal, states == start)


def chain(length: int = 10, gamma: float = 0.9) -> MDP:
    """One action leads from state 0 to 1, 2, .. and out of the last, which pays 1.

    V[k] = gamma^(length - 1 - k). State `length` is the end.

    Raises:
      ValueError: `length` is below 1, or `gamma` not in [0, 1].
    """
    refuse(length=length)
    states = np.arange(length + 1)
    transitions = np.zeros((length + 1, 1, length + 1))
    transitions[states, 0, np.minimum(states + 1, length)] = 1.0
    rewards = np.zeros_like(transitions)
    rewards[length - 1, 0, length] = 1.0
    return finite_mdp(transitions, rewards, gamma, states == length, states == 0)


def maze(layout: Sequence[str], gamma: float = 0.95) -> MDP:
    """A maze of rows of cells: "S" the start, "G" the goal, "#" walls, others free.

    The state is the number of the cell, row by row; actions are up, right, down, left,
    and a step into a wall or out of the grid stays. Coming to the goal pays 1 and ends.

    Raises:
      RefusedError: rows differ in length, there is not one start and one goal, or the
        one cannot be reached.
    """
    cells = np.array([list(row) for row in layout if len(row) == len(layout[0])])
    if len(cells) != len(layout) or [np.sum(cells == x) for x in "SG"] != [1, 1]:
        raise RefusedError(
            f"a maze has rows of one length, one S and one G, got {list(layout)}"
        )
    height, width = cells.shape
    flat = cells.reshape(-1)
    transitions = np.zeros((flat.size, len(_MOVES), flat.size))
    for state in range(flat.size):
        for action, move in enumerate(_MOVES):
            row, column = np.add(divmod(state, width), move)
            inside = 0 <= row < height and 0 <= column < width
            free = inside and cells[row, column] != "#"
            transitions[state, action, row * width + column if free else state] = 1.0
    goal = flat == "G"
    rewards = np.zeros_like(transitions)
    rewards[~goal, :, np.argmax(goal)] = 1.0
    reached, leads = flat == "S", transitions.max(axis=1) > 0
    for _ in flat:
        reached = reached | np.any(leads[reached], axis=0)
    if not np.any(reached & goal):
        raise RefusedError(f"no way leads from S to G in {list(layout)}")
    return finite_mdp(transitions, rewards, gamma, goal, flat == "S")


def random_mdp(
    key: PRNGKey, num_states: int, num_actions: int, gamma: float = 0.9
) -> MDP:
    """Random distributions over all states, and normal rewards; it never ends.

    It can be vmapped over keys and over `gamma`, which must be below 1.
    """
    transitions_key, rewards_key = jax.random.split(key)
    shape = (num_states, num_actions, num_states)
    weights = jax.random.exponential(transitions_key, shape)
    return MDP(
        weights / jnp.sum(weights, axis=-1, keepdims=True),
        jax.random.normal(rewards_key, shape),
        jnp.asarray(gamma, jnp.float32),
        jnp.zeros(num_states, bool),
        jnp.full(num_states, 1.0 / num_states),
    )
