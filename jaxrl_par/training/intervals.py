"""What a few seeds say: interquartile means, and how far they can be trusted.

The mean of the middle half of the seeds needs fewer of them than a median, and one seed
that failed, or was lucky, does not move it as it moves a mean. Its interval is that of
a percentile bootstrap: what other draws of as many seeds, from those that there are,
would have given. Whole runs are drawn, so all points of a curve come from the same.

Source: Agarwal et al., arXiv:2108.13264, sections 4.1 and 4.3. Theirs are means over
tasks too, each of which is a stratum; here each task is by itself, so there is one.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_DRAWS = 2000
_SEED = 0


class Interval(NamedTuple):
    """An interquartile mean; one run alone says nothing of others, and has no ends."""

    mean: Float[np.ndarray, " G"]
    low: Float[np.ndarray, " G"] | None = None
    high: Float[np.ndarray, " G"] | None = None


def interquartile_mean(scores: Float[np.ndarray, "N G"]) -> Float[np.ndarray, " G"]:
    """The mean over N runs without the N // 4 lowest and the N // 4 highest."""
    cut = len(scores) // 4
    return np.sort(scores, axis=0)[cut : len(scores) - cut].mean(axis=0)


def interval(scores: Float[np.ndarray, "N G"], confidence: float = 0.95) -> Interval:
    """The interquartile mean over N runs, and its interval.

    The same scores give the same interval: the draws have a seed of their own.
    """
    mean, count = interquartile_mean(scores), len(scores)
    if count == 1:
        return Interval(mean)
    drawn = np.random.default_rng(_SEED).integers(count, size=(count, _DRAWS))
    tail = 50 * (1 - confidence)
    # Point by point: all draws of all points would not fit where there are many runs.
    ends = [
        np.percentile(interquartile_mean(point[drawn]), (tail, 100 - tail))
        for point in scores.T
    ]
    low, high = np.array(ends).reshape(-1, 2).T
    return Interval(mean, low, high)
