"""CPU-bound simulators as streams. No simulator is imported before one is made."""

from typing import TYPE_CHECKING

from jaxrl_par.lazy import lazily

if TYPE_CHECKING:
    from jaxrl_par.envs.host.base import HostEnvironment, HostRow
    from jaxrl_par.envs.host.envpool import from_envpool
    from jaxrl_par.envs.host.gymnasium import from_vector
    from jaxrl_par.envs.host.pure import from_pure
    from jaxrl_par.envs.host.registry import (
        Backend,
        backends,
        make,
        problems,
        time_limit,
    )
    from jaxrl_par.envs.host.seeded import Seeded
    from jaxrl_par.envs.host.single import from_callable

__getattr__, __dir__ = lazily(__name__)
__all__ = [
    "Backend",
    "HostEnvironment",
    "HostRow",
    "Seeded",
    "backends",
    "from_callable",
    "from_envpool",
    "from_pure",
    "from_vector",
    "make",
    "problems",
    "time_limit",
]
