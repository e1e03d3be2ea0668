"""The cross-entropy method: the best of many actions, found by asking for values.

    u[1] .. u[C] ~ clip(Normal(mean, std), -1, 1)
    mean, std    = those of the M candidates of largest value, std at least `least_std`

`num_iterations` times, from mean 0 and `first_std`. Candidates are clipped before they
are evaluated, so that what is refitted is what was evaluated: else the mean runs away
beyond the bounds, where values are those of the bounds. The std is that of the elites
alone, divided by M: for a single one it is 0 and not NaN, and `least_std` acts.

Actions are in units of their bounds. Parts that are decisions, such as to close a
gripper, are numbers here too, and the environment tells at which one it does so.

Source: Kalashnikov et al., arXiv:1806.10293, section 4.2 and appendix E; Rubinstein and
Kroese, The Cross-Entropy Method (2004).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxrl_par.errors import above, at_least, not_chosen, refuse
from jaxrl_par.types import PRNGKey

Values = Callable[[Float[Array, "N C A"]], Float[Array, "N C"]]
"""Values of C candidates in each of N states."""


@dataclass(frozen=True)
class CEMConfig:
    """How long an action is searched for."""

    num_candidates: int = 64
    """Actions that are evaluated in an iteration."""
    num_elites: int = 6
    """The best of them, which the next iteration is drawn around."""
    num_iterations: int = 2
    first_std: float = 1.0
    """Standard deviation of the first candidates, in units of the bounds."""
    least_std: float = 0.05
    """The smallest of later ones."""
    answer: Literal["best", "mean"] = "best"
    """The best candidate of the last iteration, or the mean of its elites."""

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = {"num_candidates": 1, "num_elites": 1, "num_iterations": 1}
        found = at_least(self, least_std=0, **counts) + above(self, first_std=0)
        if not found and self.num_elites > self.num_candidates:
            told = f"num_elites must be at most num_candidates = {self.num_candidates}"
            found.append(f"{told}, got {self.num_elites}")
        return found + not_chosen(self)


class Found(NamedTuple):
    """An action for each state."""

    unit: Float[Array, "N A"]
    """In units of the bounds, and within them."""
    value: Float[Array, " N"]
    """What it was evaluated with."""


class _Search(NamedTuple):
    """Where an iteration begins; what the one before found."""

    mean: Float[Array, "N A"]
    std: Float[Array, "N A"]
    best: Found


def cross_entropy(
    keys: Key[Array, " N"], values: Values, size: int, config: CEMConfig = CEMConfig()
) -> Found:
    """The best actions of `size` numbers, in N states at once.

    Each state has a key, so what is found in it does not depend on the others.

    Raises:
      RefusedError: the config is out of range, or `size` below 1.
    """
    refuse(config, size=size)
    shape = (config.num_iterations, config.num_candidates, size)

    def drawn(key: PRNGKey) -> Float[Array, "I C A"]:
        return jax.random.normal(key, shape, jnp.float32)

    noise = jax.vmap(drawn, out_axes=1)(keys)
    zeros = jnp.zeros((keys.shape[0], size), jnp.float32)
    nothing = Found(zeros, zeros[:, 0])
    search = _Search(zeros, zeros + config.first_std, nothing)

    def iterated(search: _Search, noise: Float[Array, "N C A"]):
        unit = candidates(search.mean, search.std, noise)
        value, index = jax.lax.top_k(values(unit), config.num_elites)
        elites = jnp.take_along_axis(unit, index[..., None], axis=1)
        mean, std = refitted(elites, config.least_std)
        return _Search(mean, std, Found(elites[:, 0], value[:, 0])), None

    search, _ = jax.lax.scan(iterated, search, noise)
    if config.answer == "best":
        return search.best
    return Found(search.mean, values(search.mean[:, None])[:, 0])


def candidates(
    mean: Float[Array, "N A"], std: Float[Array, "N A"], noise: Float[Array, "N C A"]
) -> Float[Array, "N C A"]:
    """What is evaluated and refitted, from standard normal noise."""
    return jnp.clip(mean[:, None] + std[:, None] * noise, -1.0, 1.0)


def refitted(
    elites: Float[Array, "N M A"], least_std: Float[Array, ""] | float
) -> tuple[Float[Array, "N A"], Float[Array, "N A"]]:
    """Mean and standard deviation of each dimension, over M elites."""
    std = jnp.std(elites, axis=1)
    return jnp.mean(elites, axis=1), jnp.maximum(std, least_std)
