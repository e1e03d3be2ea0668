"""Simulators that are made from a seed, so that no JAX is needed where they are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.lazy import late

jax: Any = late("jax")


@dataclass(frozen=True)
class Seeded:
    """Makes simulators from a key, as all that takes environments calls it, by a seed
    from it. Actors in processes without JAX are sent `make` and the seed."""

    make: Callable[[int], HostEnvironment]
    """From a seed in [0, 2**31)."""

    def __call__(self, key: Any) -> HostEnvironment:
        return self.make(seed_of(key))


def seed_of(key: Any) -> int:
    """A seed in [0, 2**31) from a `PRNGKey`."""
    return int(jax.random.bits(key)) >> 1
