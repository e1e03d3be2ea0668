"""Parallel reinforcement learning in JAX, from one small set of pure functions."""

__version__ = "0.1.0"
