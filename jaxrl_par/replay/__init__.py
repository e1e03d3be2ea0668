"""What is kept of what was acted: pure functions of pytrees of arrays."""

from jaxrl_par.replay.buffers import Buffer, fresh, uniform
from jaxrl_par.replay.ring import Ring

__all__ = ["Buffer", "Ring", "fresh", "uniform"]
