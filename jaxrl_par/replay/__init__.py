"""What is kept of what was acted: pure functions of pytrees of arrays."""

from jaxrl_par.replay.buffers import Buffer, fresh, uniform, unsaved, without_carry
from jaxrl_par.replay.mixed import mixed
from jaxrl_par.replay.priorities import PriorityConfig
from jaxrl_par.replay.prioritised import prioritised
from jaxrl_par.replay.recorded import recorded
from jaxrl_par.replay.ring import Ring
from jaxrl_par.replay.windows import Windows

__all__ = [
    "Buffer",
    "PriorityConfig",
    "Ring",
    "Windows",
    "fresh",
    "mixed",
    "prioritised",
    "recorded",
    "uniform",
    "unsaved",
    "without_carry",
]
