"""SEED RL: IMPALA with an LSTM whose actors hold no network: one thread acts for all.

It acts at each step with the newest parameters, for up to `--threads.central.max-batch`
actors at once, and keeps their memory. `--threads.inference local` is the same with a
copy of the parameters in each actor. With `--topology fleet` environments are in
processes, on any node of a Ray cluster, and who acts stays beside the learner. R2D2,
the paper's other learner, is `r2d2.py` with `--threads.inference central` on either.

Source: Espeholt et al., arXiv:1910.06591.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxrl_par import cli
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.presets.impala import make_agent
from jaxrl_par.presets.impala_threads import Args as ImpalaArgs
from jaxrl_par.topologies.configs import CentralConfig, ThreadsConfig


@dataclass(frozen=True)
class Args(ImpalaArgs):
    """IMPALA with memory, and inference beside the learner."""

    topologies: ClassVar[tuple[str, ...]] = ("compiled", "gossip", "threads", "fleet")
    lacks: ClassVar[str] = "one thread beside the learner acts for all actors"

    num_envs: int = 32
    num_epochs: int = 2
    threads: ThreadsConfig = ThreadsConfig(
        num_actors=4,
        max_lag=1,
        inference="central",
        central=CentralConfig(max_wait_ms=0.5),
    )
    network: NetworkConfig = NetworkConfig(memory="lstm", memory_width=64)


EXPERIMENT = cli.Experiment(Args, make_agent)
