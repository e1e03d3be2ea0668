"""Who averages with whom: pairs of learners, drawn so that all draw the same.

A round needs one matching, in which each learner has at most one partner and is its
partner's partner. Drawn by each for itself, two may choose the same third one, and what
they average is not kept: so it comes from a key that all share, and the round.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxrl_par.types import Count, PRNGKey

# A fold of the root that no update comes to: see `loops.unroll_keys`.
_MEETINGS = np.uint32(0xFFFFFFFD)


def matchings(num_learners: int) -> Int[np.ndarray, "M N"]:
    """The partner of each learner in M matchings, in one of which each pair meets.

    M is N - 1, or N where N is odd: there one learner rests in each of them, and is its
    own partner. Drawn evenly, each pair is as likely as any other.

    Source: the circle method of tournaments (Kirkman, 1847).
    """
    even = num_learners + num_learners % 2
    around = even - 1
    partner = np.tile(np.arange(even), (around, 1))
    for round_ in range(around):
        # One stands still, the others go around: i places after and before meet.
        for i in range(even // 2):
            first, second = (round_ + i) % around, (round_ - i) % around
            second = second if i else around
            partner[round_, [first, second]] = second, first
    # Who would meet the one that is too many rests.
    partner = np.where(partner < num_learners, partner, np.arange(even))
    return partner[:, :num_learners].astype(np.int32)


def meeting_key(root: PRNGKey, number: Count) -> PRNGKey:
    """The key of a round, or of a turn, the same for all who share the run's root."""
    for value in (_MEETINGS, number.millions, number.units):
        root = jax.random.fold_in(root, value)
    return root


def matching_of(root: PRNGKey, round_: Count, num_learners: int) -> Int[Array, ""]:
    """Which of `matchings` a round has, the same for all who share the run's root."""
    number = len(matchings(num_learners))
    return jax.random.randint(meeting_key(root, round_), (), 0, number)


def partner_of(
    key: PRNGKey, learner: Int[Array, ""], num_learners: int, ring: bool
) -> Int[Array, ""]:
    """Another learner, evenly drawn of all or, in a ring, of its two neighbours; itself
    if it is alone."""
    others = num_learners - 1
    if not others:
        return learner
    if ring:
        steps = jnp.where(jax.random.bernoulli(key), 1, others)
    else:
        steps = jax.random.randint(key, (), 1, num_learners)
    return (learner + steps) % num_learners


def is_due(number: Count, interval: int) -> Bool[Array, "..."]:
    """Whether it is a multiple of the interval, which is at most 1000."""
    millions = number.millions % interval * (10**6 % interval)
    return (millions + number.units) % interval == 0
