"""Topologies by name, and who of them reads which setting."""

from typing import Literal, get_args

Topology = Literal["compiled", "delayed", "gossip", "threads", "workers", "fleet"]

SIMULATED = ("threads", "workers")
"""Systems that can step simulators, also in a fleet."""

READ_BY: dict[str, tuple[str, ...]] = {
    "backend": SIMULATED,
    "num_devices": ("compiled", "gossip", "threads"),
    # Workers send gradients, and statistics of observations have none.
    # Others count episodes by rows, which do not tell a staggered one.
    "resets": ("compiled", "delayed", "gossip"),
    "normalize": ("compiled", "delayed", "gossip", "threads"),
    "repeat": (*SIMULATED, "gossip"),
    "threads": ("threads",),
    "workers": ("workers",),
    "workers.num_workers": ("delayed", "workers"),
    "workers.staleness": ("delayed", "workers"),
    "workers.outliers": ("delayed", "workers"),
    "delays": ("delayed", "gossip"),
    "delays.delay": ("delayed",),
    "delays.storage": ("delayed",),
    "delays.quorum": ("delayed",),
    "delays.lag": ("delayed",),
    "gossip": ("gossip",),
    "hosts": ("compiled",),
    "in_processes": ("gossip",),
    "fleet": ("fleet", "gossip"),
    "fleet.threads_per_process": ("fleet",),
}
"""Who reads a field or a part, if not all topologies do; the longest name decides. A
fleet reads what the system reads that it runs: see `Args.fleet_of`."""


def readers(name: str) -> tuple[str, ...]:
    """Topologies that read the field of that dotted name."""
    if not name:
        return get_args(Topology)
    return READ_BY.get(name) or readers(name.rpartition(".")[0])
