"""R2D3 in an I-Maze of 21 x 21 cells: R2D2 that learns from demonstrations as well.

Who explores at random finds the right goal about once in 30,000 steps. An expert shows
it a few times, before the run; `--replay.demonstrations FOLDER` takes those of anybody,
as `jaxrl-par record-demonstrations` writes them, and with None it is R2D2.

Source: Paine et al., arXiv:1909.01387.
"""

from dataclasses import dataclass, replace

from jaxrl_par import cli
from jaxrl_par.algorithms.dqn import DQNConfig
from jaxrl_par.cli.experts import EXPERT
from jaxrl_par.cli.replay import ReplayConfig
from jaxrl_par.presets.r2d2 import Args as R2D2Args
from jaxrl_par.presets.r2d2 import make_agent


@dataclass(frozen=True)
class Args(R2D2Args):
    """R2D3: R2D2 with a share of demonstrations in each batch."""

    env_name: str = "IMaze-21x21"
    total_steps: int = 500_000
    # A whole unroll: both the colour and the goal are in a sequence that is trained.
    sequence: int | None = None
    dqn: DQNConfig = replace(R2D2Args.dqn, burn_in=0)
    replay: ReplayConfig = replace(
        R2D2Args.replay,
        updates_per_step=32,
        demonstrations=EXPERT,
        demonstration_ratio=1 / 4,
    )


EXPERIMENT = cli.Experiment(Args, make_agent)
