"""What learners get that know how tasks are drawn, but not which one was: to be
compared with those that learned to learn. All in NumPy, and none learns.

    bayes_optimum     bandits: what nobody can beat in the mean, exactly
    gittins           bandits: nearly that, for many pulls, by Monte Carlo
    posterior_sampling, known_task    tabular MDPs: without and with the answer

Tasks are those of `envs.tasks.bandits` and `envs.tasks.mdps`.
"""

from functools import cache

import numpy as np
from jaxtyping import Float, Int

Returns = Float[np.ndarray, " N"]
Arm = tuple[int, int]
"""How often it paid, and how often not."""


def bayes_optimum(num_arms: int, num_pulls: int) -> float:
    """The largest expected return of a trial with a Bernoulli bandit whose
    probabilities are uniform: 6.6600 for 5 arms and 10 pulls, 6.0218 for 2.

        V(arms, n) = max over arms of  m (1 + V(arm paid, n - 1))
                                       + (1 - m) V(arm did not pay, n - 1)
        m = (1 + paid) / (2 + paid + not paid)

    The order of the arms does not matter, so arms are sorted. States grow fast: 100
    pulls of more than two arms are out of reach.
    """

    @cache
    def value(arms: tuple[Arm, ...], left: int) -> float:
        return max(after(arms, arm, left) for arm in {*arms}) if left else 0.0

    def after(arms: tuple[Arm, ...], arm: Arm, left: int) -> float:
        others = list(arms)
        others.remove(arm)
        paid, unpaid = arm
        chance = (1 + paid) / (2 + paid + unpaid)
        won, lost = (paid + 1, unpaid), (paid, unpaid + 1)
        gain = 1.0 + value(tuple(sorted([*others, won])), left - 1)
        return chance * gain + (1 - chance) * value(
            tuple(sorted([*others, lost])), left - 1
        )

    return value(((0, 0),) * num_arms, num_pulls)


def gittins(
    num_arms: int, num_pulls: int, num_trials: int, seed: int = 0, grid: int = 1000
) -> Returns:
    """Returns of trials in which the arm with the largest index is pulled."""
    rng, rows = np.random.default_rng(seed), np.arange(num_trials)
    chances = rng.random((num_trials, num_arms))
    indices = gittins_indices(num_pulls, grid)
    counts = np.zeros((2, num_trials, num_arms), int)
    returns = np.zeros(num_trials)
    for left in range(num_pulls, 0, -1):
        arm = np.argmax(indices[left, counts[0], counts[1]], axis=1)
        pays = rng.random(num_trials) < chances[rows, arm]
        counts[np.where(pays, 0, 1), rows, arm] += 1
        returns += pays
    return returns


def gittins_indices(num_pulls: int, grid: int = 1000) -> Float[np.ndarray, "M P P"]:
    """Of an arm, by the pulls that are left and how often it paid and did not.

    It is the certain payment per pull, a multiple of 1 / `grid`, up to which one would
    rather pull the arm for as long as one likes, and then take the payment:

        V(arm, n) = max(n payment, m (1 + V(paid, n - 1)) + (1 - m) V(did not, n - 1))

    Source: Kaufmann, arXiv:1601.06979, section 3, 'finite-horizon Gittins indices'.
    """
    size = num_pulls + 1
    payments = (np.arange(grid, dtype=np.float32) + 0.5) / grid
    indices = np.zeros((size, size, size), np.float32)
    value = np.zeros((size, size, grid), np.float32)
    for left in range(1, size):
        # So often it may have been pulled before.
        paid, unpaid = np.ogrid[: size - left, : size - left]
        chance = ((1 + paid) / (2 + paid + unpaid))[..., None].astype(np.float32)
        won, lost = value[1:, :-1], value[:-1, 1:]
        pulled = chance * (1 + won) + (1 - chance) * lost
        stopped = left * payments
        indices[left, : size - left, : size - left] = np.mean(pulled > stopped, axis=-1)
        value = np.maximum(pulled, stopped)
    return indices


def posterior_sampling(
    num_states: int,
    num_choices: int,
    length: int,
    num_episodes: int,
    num_trials: int,
    seed: int = 0,
) -> Returns:
    """Returns of trials in random tabular MDPs, in each episode of which one acts as is
    best in an MDP drawn from what is left to believe (PSRL). It sees each episode's
    final state, too.

    Source: Osband et al., arXiv:1306.0940, algorithm 1.
    """
    rng, rows = np.random.default_rng(seed), np.arange(num_trials)
    truth = _drawn_mdps(rng, num_states, num_choices, num_trials)
    counts = np.ones((num_trials, num_states, num_choices, num_states))
    # Of rewards, whose mean is normal with mean 1 and variance 1 before there are any.
    seen, paid = (np.ones((num_trials, num_states, num_choices)) for _ in range(2))
    returns = np.zeros(num_trials)
    for _ in range(num_episodes):
        weights = rng.standard_gamma(counts)
        transitions = weights / weights.sum(axis=-1, keepdims=True)
        means = paid / seen + rng.standard_normal(seen.shape) / np.sqrt(seen)
        choices, _ = _solved(transitions, means, length)
        place = np.zeros(num_trials, int)
        for choice in choices:
            done = rows, place, choice[rows, place]
            place, reward = _stepped(rng, *truth, done)
            counts[*done, place] += 1
            seen[done] += 1
            paid[done] += reward
            returns += reward
    return returns


def known_task(
    num_states: int,
    num_choices: int,
    length: int,
    num_episodes: int,
    num_trials: int,
    seed: int = 0,
) -> Returns:
    """Expected returns of who knows the MDP, each of one trial: a bound for others."""
    rng = np.random.default_rng(seed)
    truth = _drawn_mdps(rng, num_states, num_choices, num_trials)
    return num_episodes * _solved(*truth, length)[1][:, 0]


def _drawn_mdps(rng, num_states, num_choices, num_trials):
    """(transitions [N, S, A, S], mean rewards [N, S, A])"""
    table = (num_trials, num_states, num_choices)
    weights = rng.standard_exponential((*table, num_states))
    transitions = weights / weights.sum(axis=-1, keepdims=True)
    return transitions, 1.0 + rng.standard_normal(table)


def _stepped(rng, transitions, means, done) -> tuple[Int[np.ndarray, " N"], Returns]:
    """(next state, reward) of (trial, state, action)."""
    below = transitions[done].cumsum(axis=-1)[:, :-1]
    place = np.sum(rng.random(len(below))[:, None] >= below, axis=-1)
    return place, means[done] + rng.standard_normal(len(below))


def _solved(transitions, means, length):
    """(best action [N, S] of each step, in order; values [N, S] before the first)"""
    value, choices = np.zeros(means.shape[:2]), []
    for _ in range(length):
        action_values = means + np.einsum("nsaz,nz->nsa", transitions, value)
        choices.append(action_values.argmax(axis=-1))
        value = action_values.max(axis=-1)
    return choices[::-1], value
