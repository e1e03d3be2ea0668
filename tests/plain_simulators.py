"""Simulators for processes without JAX, which this module must not import."""

import sys

import gymnasium

from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.envs.host.single import from_callable

FORBIDDEN = ("jax", "jaxlib", "flax", "optax")


class Watched(gymnasium.Wrapper):
    """Fails where somebody has imported JAX."""

    def step(self, action):
        found = [name for name in FORBIDDEN if name in sys.modules]
        assert not found, f"{', '.join(found)} were imported"
        return self.env.step(action)


def cartpole(seed: int) -> HostEnvironment:
    """Two, which may be stepped anywhere."""
    return from_callable(lambda: gymnasium.make("CartPole-v1"), 2, seed)


def watched(seed: int) -> HostEnvironment:
    """Two, which only a process without JAX can step."""
    return from_callable(lambda: Watched(gymnasium.make("CartPole-v1")), 2, seed)
