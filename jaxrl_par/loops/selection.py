"""Who copies whom in a population, and how what was copied is changed.

A member is judged by its latest scores since it was copied: older ones belong to other
parameters. One that has none is neither copied nor replaced. A score that is not a
number is worse than every other.

Source: Jaderberg et al., arXiv:1711.09846, sections 3 and 4.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.errors import (
    ReadIf,
    above,
    at_least,
    at_most,
    below,
    not_between,
    not_chosen,
    refuse_any,
)
from jaxrl_par.loops.schedules import Schedule, simulated, steady
from jaxrl_par.types import Mean, PRNGKey


class Record(NamedTuple):
    """The latest scores of P members."""

    scores: Float[Array, "P N"]
    """A ring, in which the newest one replaces the oldest."""
    number: Int[Array, " P"]
    """Scores since the member was copied, those that were replaced among them."""

    @staticmethod
    def empty(num_members: int, window: int) -> "Record":
        """Of members that have no score yet; `window` are kept of each."""
        shape = (num_members, window)
        return Record(jnp.zeros(shape), jnp.zeros(num_members, jnp.int32))

    def add(self, score: Mean | Float[Array, " P"]) -> "Record":
        """With one more score of each member; none of one whose mean is of nothing."""
        there = jnp.ones(self.number.shape, jnp.bool_)
        if isinstance(score, Mean):
            there = score.count > 0.0
            score = score.total / jnp.maximum(score.count, 1e-9)
        place = jax.nn.one_hot(self.number % self.scores.shape[1], self.scores.shape[1])
        where = (place > 0.0) & there[:, None]
        scores = jnp.where(where, score[:, None], self.scores)
        return Record(scores, self.number + there)

    def cleared(self, where: Bool[Array, " P"]) -> "Record":
        """Without the scores of these members."""
        return self._replace(number=jnp.where(where, 0, self.number))

    def moments(self) -> tuple[Float[Array, " P"], ...]:
        """Number, mean and unbiased variance of the scores that are kept."""
        window = self.scores.shape[1]
        kept = jnp.minimum(self.number, window)
        there = jnp.arange(window) < kept[:, None]
        count = kept.astype(jnp.float32)
        total = jnp.sum(jnp.where(there, self.scores, 0.0), axis=1)
        mean = total / jnp.maximum(count, 1.0)
        squares = jnp.square(self.scores - mean[:, None])
        squares = jnp.sum(jnp.where(there, squares, 0.0), axis=1)
        return count, mean, squares / jnp.maximum(count - 1.0, 1.0)

    def judged(self) -> tuple[Bool[Array, " P"], Float[Array, " P"]]:
        """Whether there is a score, and their mean; what is no number is lowest."""
        count, mean, _ = self.moments()
        return count > 0.0, jnp.where(jnp.isnan(mean), -jnp.inf, mean)


@dataclass(frozen=True)
class SelectionConfig:
    """How members of a population are selected, and when."""

    read_if: ClassVar[ReadIf] = {
        "fraction": ("exploit", ("truncation",)),
        "level": ("exploit", ("t_test",)),
        "slowest": ("pace", ("own",)),
    }
    """What each of these fields is for: another one, and its values."""

    interval: int = 0
    """Steps of training after which members may copy each other. 0: never."""
    pace: Literal["together", "own"] = "together"
    """own: nobody waits for others. In a step of training one member takes a step, in
    the order of a schedule, and looks at what the others have by then."""
    slowest: float = 4.0
    """How many times as long as the fastest the slowest member takes for a step. The
    others are between them, in equal ratios."""
    exploit: Literal["truncation", "tournament", "t_test"] = "truncation"
    """truncation: the worst copy the best. tournament: each copies another, drawn at
    random, if that is better; t_test: if it is significantly better."""
    fraction: float = 0.2
    """Of the members, how many are the worst, and the best."""
    level: float = 0.05
    """Of Welch's test, one-sided."""
    window: int = 10
    """Latest scores of a member, one for each step of training, that are compared."""
    factor: float = 1.2
    """What was copied is multiplied or divided by this."""
    resample: float = 0.0
    """The probability that it is drawn anew instead."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_chosen(self) + at_least(self, interval=0, window=1, slowest=1)
        found += below(self, slowest=float("inf"))
        found += above(self, factor=1) + at_most(self, interval=40_000)
        return found + not_between(self, fraction=(0, 1), level=(0, 1), resample=(0, 1))

    def chosen(self) -> "Exploit":
        """The way to select."""
        if self.exploit == "truncation":
            return truncation(self.fraction)
        return tournament() if self.exploit == "tournament" else t_test(self.level)

    def schedule(self, num_members: int, num_turns: int) -> Schedule | None:
        """Who takes a step in each turn; None if all do together."""
        if self.pace == "together":
            return None
        speeds = np.geomspace(1.0, 1.0 / self.slowest, num_members)
        return simulated(steady(num_turns, speeds))

    def explore(
        self, low: float, high: float, scale: Literal["log", "discount"] = "log"
    ) -> "Explore":
        """How a hyperparameter is changed within these bounds."""
        return Explore(low, high, self.factor, self.resample, scale)


Exploit = Callable[[PRNGKey, Record], Int[Array, " P"]]
"""Whom each member copies; itself if nobody."""


def truncation(fraction: float = 0.2) -> Exploit:
    """The worst members copy the best, each a random one of as many.

    Args:
      fraction: of the population; at least one member unless it is 0, and at most half.
    """
    _refuse_fraction("fraction", fraction)

    def exploit(key: PRNGKey, record: Record) -> Int[Array, " P"]:
        ready, score = record.judged()
        (size,) = score.shape
        count = min(number_of(fraction, size), size // 2)
        if not count:
            return jnp.arange(size, dtype=jnp.int32)
        # Best first, equal ones in their order, and last those that are not ready.
        order = jnp.lexsort((jnp.where(ready, -score, jnp.inf), ~ready))
        rank = jnp.argsort(order)
        there = jnp.sum(ready, dtype=jnp.int32)
        fewer = jnp.minimum(count, there // 2)
        drawn = jax.random.randint(key, (size,), 0, jnp.maximum(fewer, 1))
        worst = ready & (rank >= there - fewer)
        return _better(worst, order[drawn], score)

    return exploit


def tournament() -> Exploit:
    """Each member copies another, drawn at random, if that is better."""

    def exploit(key: PRNGKey, record: Record) -> Int[Array, " P"]:
        ready, score = record.judged()
        other = _others(key, score.shape[0])
        return _better(ready & ready[other], other, score)

    return exploit


def t_test(level: float = 0.05) -> Exploit:
    """Each member copies another, drawn at random, whose mean is significantly higher.

    Welch's test of two samples with unequal variances, one-sided. Both need two scores.

    Args:
      level: the probability of such a difference, below which it is significant.
    """
    _refuse_fraction("level", level)

    def exploit(key: PRNGKey, record: Record) -> Int[Array, " P"]:
        count, mean, variance = record.moments()
        other = _others(key, mean.shape[0])
        enough = jnp.minimum(count, count[other]) >= 2.0
        mine = mean, variance, count
        theirs = tuple(x[other] for x in mine)
        lost = jnp.isnan(mean) & ~jnp.isnan(mean[other])
        copies = (p_value(theirs, mine) < level) | lost
        return _better(enough & copies, other, record.judged()[1])

    return exploit


def p_value(
    first: tuple[Float[Array, " P"], ...], second: tuple[Float[Array, " P"], ...]
) -> Float[Array, " P"]:
    """The probability that the first's mean is so much higher by chance, one-sided.

    Args:
      first, second: mean, unbiased variance and number of each sample.

    Returns:
      Not a number where neither the means nor the samples differ.
    """
    (mean, variance, count), (mean_2, variance_2, count_2) = first, second
    a, b = variance / count, variance_2 / count_2
    t = (mean - mean_2) / jnp.sqrt(a + b)
    # Of variances that are 0 any number of degrees gives the same.
    both = jnp.maximum(jnp.square(a + b), 1e-30)
    parts = jnp.square(a) / (count - 1.0) + jnp.square(b) / (count_2 - 1.0)
    degrees = both / jnp.maximum(parts, 1e-30)
    tail = 0.5 * betainc(degrees / 2.0, 0.5, degrees / (degrees + jnp.square(t)))
    return jnp.where(t > 0.0, tail, jnp.where(jnp.isnan(t), t, 1.0 - tail))


@dataclass(frozen=True)
class Explore:
    """How a hyperparameter that was copied is changed."""

    low: float
    high: float
    """Bounds of what comes of it."""
    factor: float = 1.2
    """It is multiplied or divided by this, either as likely: in the logarithm that has
    no bias."""
    resample: float = 0.0
    """The probability that it is drawn anew within the bounds instead."""
    scale: Literal["log", "discount"] = "log"
    """discount: all of this is of 1 minus it. So one near 1 stays below it."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_chosen(self) + above(self, factor=1)
        found += not_between(self, resample=(0, 1))
        if not self.low < self.high:
            found.append(f"low must be below high, got {self.low} and {self.high}")
        if self.scale == "discount":
            return found + at_least(self, low=0) + _below_one(self)
        return found + above(self, low=0)

    def changed(self, key: PRNGKey, values: Float[Array, " P"]) -> Float[Array, " P"]:
        """The values after the change."""
        way_key, draw_key, which_key = jax.random.split(key, 3)
        discount = self.scale == "discount"
        x = 1.0 - values if discount else values
        ends = (1.0 - self.high, 1.0 - self.low) if discount else (self.low, self.high)
        way = jax.random.bernoulli(way_key, shape=x.shape)
        moved = jnp.where(way, x * self.factor, x / self.factor)
        low, high = jnp.log(jnp.array(ends))
        drawn = jnp.exp(jax.random.uniform(draw_key, x.shape, minval=low, maxval=high))
        anew = jax.random.bernoulli(which_key, self.resample, x.shape)
        x = jnp.clip(jnp.where(anew, drawn, moved), *ends)
        return 1.0 - x if discount else x


def number_of(fraction: float, size: int) -> int:
    """So many of `size`: the nearest whole number, but none for 0 alone."""
    return max(round(fraction * size), 1) if fraction else 0


def _refuse_fraction(name: str, share: float) -> None:
    refuse_any(not_between({name: share}, **{name: (0, 1)}))


def _below_one(explore: Explore) -> list[str]:
    return [] if explore.high < 1 else [f"high must be below 1, got {explore.high}"]


def _others(key: PRNGKey, size: int) -> Int[Array, " P"]:
    """Another member for each, all others as likely."""
    if size < 2:
        return jnp.zeros(size, jnp.int32)
    away = jax.random.randint(key, (size,), 1, size)
    return (jnp.arange(size, dtype=jnp.int32) + away) % size


def _better(
    allowed: Bool[Array, " P"], source: Int[Array, " P"], score: Float[Array, " P"]
) -> Int[Array, " P"]:
    """The source where it is allowed and better; else the member itself."""
    own = jnp.arange(score.shape[0], dtype=jnp.int32)
    return jnp.where(allowed & (score[source] > score), source, own).astype(jnp.int32)
