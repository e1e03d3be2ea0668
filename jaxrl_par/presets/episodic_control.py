"""Episodic control in Catch: MFEC, or with `--method nec` neural episodic control.

Both act by the returns of what is most like the present. MFEC writes the best return
that an action ever had, NEC learns what is alike, and bootstraps.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import optax

from jaxrl_par import cli, loops
from jaxrl_par.algorithms.episodic import MFECConfig, NECConfig, mfec, nec
from jaxrl_par.algorithms.episodic.acting import num_actions
from jaxrl_par.algorithms.episodic.mfec import episodes_kept
from jaxrl_par.algorithms.episodic.projection import key_width
from jaxrl_par.cli.replay import ReplayArgs, ReplayConfig
from jaxrl_par.errors import ReadIf, RefusedError
from jaxrl_par.loops import Learner
from jaxrl_par.networks import NetworkConfig, key_network
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.replay import Windows, memory
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(ReplayArgs):
    """Model-free and neural episodic control."""

    topologies: ClassVar[tuple[str, ...]] = ("compiled", "threads")
    lacks: ClassVar[str] = (
        "a gradient that comes late would move entries that were overwritten since,"
        " there is no mean of tables with other keys, and a fleet would send the whole"
        " table to each actor"
    )
    read_if: ClassVar[ReadIf] = {
        "mfec": ("method", ("mfec",)),
        "nec": ("method", ("nec",)),
        "replay": ("method", ("nec",)),
        "network": ("method", ("nec",)),
        "optimizer": ("method", ("nec",)),
    }

    method: Literal["mfec", "nec"] = "mfec"
    """mfec: keys are random projections, values the best returns of whole episodes.
    nec: a network's keys, and values that bootstrap and follow gradients."""
    env_name: str = "Catch-bsuite"
    num_envs: int = 8
    unroll_length: int = 8
    total_steps: int = 50_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-4, anneal=False)
    """Of the network; the table has a rate of its own."""
    network: NetworkConfig = NetworkConfig(widths=(64,), activation="relu")
    """What keys are made by, before a layer of `nec.key_width`."""
    mfec: MFECConfig = MFECConfig()
    nec: NECConfig = NECConfig()
    replay: ReplayConfig = ReplayConfig(
        capacity=10_240, min_size=640, batch_size=32, updates_per_step=2
    )

    @property
    def windows(self) -> Windows:
        return Windows(1, lookahead=self.nec.n_step - 1)

    @property
    def table(self) -> MFECConfig | NECConfig:
        """The method's config."""
        return self.mfec if self.method == "mfec" else self.nec

    def largest_product(self) -> int:
        rows = 2 * self.rows_per_update * self.table.capacity * self.table.key_width
        return rows if self.method == "mfec" else max(rows, super().largest_product())

    def memory_needed(self, learner: Learner) -> str:
        """Of the tables, and of NEC's replay."""
        found = [self._table_needed()]
        if self.method == "nec":
            found.append(super().memory_needed(learner))
        return "\n".join(found)

    def _table_needed(self) -> str:
        specs = self.specs()
        width = key_width(specs[0], self.mfec.key_width)
        width = width if self.method == "mfec" else self.nec.key_width
        entry = num_actions(specs) * (4 * width + 8)
        size, device = self.table.capacity * entry, jax.local_devices()[0]
        together = self.num_devices if device.platform == "cpu" else 1
        free = memory.free_bytes(device)
        told = f"{self.table.capacity:,} entries of each action, {memory.spelled(size)}"
        told += f" on each of {self.num_devices} devices" * (self.num_devices > 1)
        if free is None or size * together <= free:
            return f"table: {told}"
        raise RefusedError(
            f"{self.method}.capacity: {told}, and {memory.spelled(free)} are free: at"
            f" most {free // (entry * together):,} would fit"
        )

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems()
        written = self.rows_per_update * (2 if self.method == "mfec" else 1)
        if not found and self.table.capacity < written:
            found.append(
                f"{self.method}.capacity must be at least the {written} rows that are"
                f" written at a time, got {self.table.capacity}"
            )
        return found

    def make_learner(self, agent: Agent) -> Learner:
        """NEC's, without halves: a late gradient moves entries overwritten since."""
        return super().make_learner(agent)._replace(halves=None)

    def _buffer_problems(self) -> list[str]:
        return [] if self.method == "mfec" else super()._buffer_problems()


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent | Learner:
    """The method's agent, or MFEC's learner, for these observations and actions."""
    if args.method == "nec":
        network = key_network(*specs, args.network, width=args.nec.key_width)
        return nec(network, optimizer, args.nec)
    longest = args.mfec.longest or _time_limit(args)
    if longest is None:
        raise RefusedError(
            f"mfec.longest: {args.env_name} has no time limit, so give the steps of the"
            " longest episode"
        )
    kept = episodes_kept(specs[0], args.mfec, longest, args.unroll_length)
    return loops.remembering(mfec(*specs, args.mfec), loops.Remember(*kept))


def _time_limit(args: Args) -> int | None:
    if args.is_pure:
        return args.make_env(1).max_episode_steps
    env = args.make_host_env(jax.random.key(args.seed), 1)
    env.close()
    return env.max_episode_steps


EXPERIMENT = cli.Experiment(Args, make_agent)
