"""Tests for your own agents, environments and networks: probes and checks."""

from jaxrl_par.testing import choices, probes
from jaxrl_par.testing.checks import (
    check_agent,
    check_environment,
    check_learns,
    check_network,
)
from jaxrl_par.testing.equality import check_equal
from jaxrl_par.testing.hosts import check_host_environment

__all__ = [
    "check_agent",
    "check_environment",
    "check_equal",
    "check_host_environment",
    "check_learns",
    "check_network",
    "choices",
    "probes",
]
