"""Memories of what was acted, on the device: pure functions of pytrees of arrays."""

from jaxrl_par.replay import uniform

__all__ = ["uniform"]
