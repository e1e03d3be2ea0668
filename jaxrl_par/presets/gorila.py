"""Gorila, on CartPole by default: DQN on bundles that share parameters.

A bundle is an actor, its replay and a learner: a worker, which acts for an unroll,
keeps it, and pushes one gradient of a batch from its replay. A sharded server applies
them by AdaGrad, but for those that are too old (`--workers.staleness`) and those whose
loss is an outlier (`--workers.outliers`), which each bundle tells from its own losses.

    --workers.store hogwild --workers.num-shards 1    parallel DQN without locks
    --workers.store lock --workers.num-shards 1       the same under a lock
    --topology delayed            as data, in one compiled program
    --topology delayed --memory global    one replay, which all fill and draw from

With one gradient for each unroll, a row that is kept is learned from `batch_size /
(unroll_length * num_envs / num_workers)` times in the mean: 16 by default. A longer
unroll acts more and synchronises less for each gradient. Targets of three steps, and a
target network that follows in every update, are not the paper's: without the first the
defaults do not solve CartPole, and its copies are `--dqn.polyak-rate None`.

Sources: Nair et al., arXiv:1507.04296; Niu et al., arXiv:1106.5730.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxrl_par import cli
from jaxrl_par.algorithms.dqn import DQNConfig
from jaxrl_par.cli import Flat, Topology
from jaxrl_par.cli.replay import ReplayConfig
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.loops.outliers import OutlierConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.dqn import Args as DQNArgs
from jaxrl_par.presets.dqn import make_agent
from jaxrl_par.topologies.configs import WorkersConfig
from jaxrl_par.training import TrainingConfig


@dataclass(frozen=True)
class Args(DQNArgs):
    """DQN on bundles of actor, replay and learner."""

    fleet_of: ClassVar[str] = "workers"

    topology: Topology = "workers"
    memory: Literal["local", "global"] = "local"
    """local: each bundle has a replay of its own. global: all share one, as data: for
    topology = delayed."""
    total_steps: int = 200_000
    num_envs: int = 8
    unroll_length: int = 4
    optimizer: OptimizerConfig = OptimizerConfig(
        name="adagrad", learning_rate=0.1, max_grad_norm=10.0
    )
    dqn: DQNConfig = DQNConfig(n_step=3, polyak_rate=0.01, anneal_steps=25_000)
    replay: ReplayConfig = ReplayConfig(capacity=10_240, min_size=1_280)
    workers: WorkersConfig = WorkersConfig(
        num_workers=4,
        store="server",
        num_shards=4,
        staleness=StalenessConfig("reject"),
        outliers=OutlierConfig("reject"),
    )
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=250)

    @property
    def shares_data(self) -> bool:
        return self.memory == "global"

    @property
    def shares(self) -> int:
        return 1 if self.shares_data else super().shares

    def unread(self, name: str) -> str:
        # The default is several, and other stores have one: to say so is no mistake.
        if name == "workers.num_shards" and self.workers.num_shards == 1:
            return "" if self.system == "workers" else super().unread(name)
        return super().unread(name)

    def problems(self) -> list[str]:
        """What is out of range, or asked of threads that only data can do."""
        if self.shares_data and self.topology != "delayed":
            why = (
                ": a record of threads says which parameters a worker had read, and not"
                " what others had put into a replay by then"
            )
            told = f"memory = global is for topology = delayed, not {self.topology}"
            return [told + (why if self.system == "workers" else "")]
        return super().problems()


EXPERIMENT = cli.Experiment(Args, make_agent)
