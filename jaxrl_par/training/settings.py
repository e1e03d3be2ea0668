"""How a run is kept and watched; nothing here changes what is learned."""

from dataclasses import dataclass
from importlib.util import find_spec

from jaxrl_par.errors import at_least


@dataclass(frozen=True)
class TrainingConfig:
    """Folder, metrics, checkpoints and evaluation of a run."""

    name: str | None = None
    """Folder of the run. By default from the script and environment, numbered when
    taken."""
    runs_dir: str = "runs"
    """Where the folders of runs are."""
    resume: bool = False
    """Continue the run bit for bit from its newest checkpoint; without a name, the
    newest run of this script and environment."""
    log_interval: int = 20
    """Updates between two rows of metrics. They are one compiled call, so Ctrl-C waits
    for as many."""
    checkpoint_interval: int = 0
    """Updates between two checkpoints, a multiple of log_interval. 0 saves only when
    training ends or is stopped."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept; a damaged one falls back to the one before."""
    max_skipped_in_a_row: int = 10
    """Updates in a row without a finite gradient after which training stops."""
    evaluation_interval: int = 0
    """Updates between two evaluations, a multiple of log_interval. 0 evaluates only at
    the end."""
    evaluation_envs: int = 20
    """Environments of an evaluation."""
    evaluation_episodes: int = 5
    """Episodes of each of them."""
    evaluation_max_steps: int | None = None
    """Steps after which such an episode is cut, and counted as one that was. By default
    the time limit of the environment, which has to be given where it has none."""
    tensorboard: bool = True
    """Write TensorBoard events."""
    wandb: bool = False
    """Log to Weights & Biases."""
    gif: bool = True
    """Draw an episode at the end, where the environment can be drawn."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(
            self,
            log_interval=1,
            checkpoint_interval=0,
            keep_checkpoints=2,
            max_skipped_in_a_row=1,
            evaluation_interval=0,
            evaluation_envs=1,
            evaluation_episodes=1,
            evaluation_max_steps=1,
        )
        for name in ("checkpoint_interval", "evaluation_interval"):
            interval = getattr(self, name)
            if self.log_interval > 0 and interval % self.log_interval:
                found.append(
                    f"{name} must be a multiple of log_interval ="
                    f" {self.log_interval}, got {interval}"
                )
        if self.name is not None and (not self.name or self.name.startswith(".")):
            found.append(f"name must be that of a folder, got {self.name!r}")
        if self.wandb and find_spec("wandb") is None:
            found.append(
                "wandb is not installed: pip install 'jaxrl-par[logging]', or leave"
                " --wandb out"
            )
        return found


CHANGES_RESULTS = frozenset({"log_interval"})
"""Fields that must be the same when a run is resumed. The interval is the length of a
compiled loop, and the compiler may treat loops of another length differently."""
