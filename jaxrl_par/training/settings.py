"""How a run is kept and watched; nothing here changes what is learned."""

from dataclasses import dataclass
from importlib.util import find_spec

from jaxrl_par.errors import at_least, at_most
from jaxrl_par.training.words import option

_MOST_EPISODES = 10**8
_LONGEST_NAME = 200
"""Bytes; file systems have 255, and files are named after folders."""


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
    auto_resume: bool = False
    """Continue as resume does if there is such a run, else start it: for scripts of a
    scheduler, which begin and go on with the same command."""
    log_interval: int = 20
    """Updates between two rows of metrics. They are one compiled call, so Ctrl-C waits
    for as many."""
    checkpoint_minutes: float = 5.0
    """Minutes after which a checkpoint is saved, at the end of a chunk of log_interval
    updates. Results do not depend on it. 0 saves only when training ends or is stopped,
    and at checkpoint_interval."""
    checkpoint_interval: int = 0
    """Updates between two checkpoints, a multiple of log_interval, besides. 0: none."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept; a damaged one falls back to the one before."""
    keep_best: bool = False
    """Keep also the checkpoint of the best evaluation, in checkpoints/best: by
    evaluation_return, or the first result that the evaluation has."""
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
    info_metrics: tuple[str, ...] = ()
    """Entries of a simulator's `info` to log: means over episodes of what the last step
    of each says. `is_success` or `success` is logged by itself, as success_rate, and so
    is all that compiled environments tell."""
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
            checkpoint_minutes=0,
            keep_checkpoints=2,
            max_skipped_in_a_row=1,
            evaluation_interval=0,
            evaluation_envs=1,
            evaluation_episodes=1,
            evaluation_max_steps=1,
        )
        found += at_most(
            self,
            log_interval=10**6,
            checkpoint_minutes=10**6,
            evaluation_envs=2**20,
            evaluation_episodes=10**6,
        )
        if not found and (got := self.evaluation_envs * self.evaluation_episodes) > (
            _MOST_EPISODES
        ):
            found.append(
                "evaluation_episodes * evaluation_envs must be at most"
                f" {_MOST_EPISODES}, got {got}"
            )
        for name in ("checkpoint_interval", "evaluation_interval"):
            interval = getattr(self, name)
            if self.log_interval > 0 and interval % self.log_interval:
                found.append(
                    f"{name} must be a multiple of log_interval ="
                    f" {self.log_interval}, got {interval}"
                )
        if self.resume and self.auto_resume:
            found.append("resume and auto_resume: choose one of them")
        if self.keep_best and not self.evaluation_interval:
            found.append("keep_best needs an evaluation_interval above 0, got 0")
        if not _is_path(self.runs_dir) or not self.runs_dir.strip():
            found.append(f"runs_dir must be that of a folder, got {self.runs_dir!r}")
        if self.name is not None:
            found += name_problems(self.name)
        if self.wandb and find_spec("wandb") is None:
            found.append(
                "wandb is not installed: pip install 'jaxrl-par[logging]', or leave"
                f" {option('wandb')} out"
            )
        return found


def name_problems(name: str, label: str = "name") -> list[str]:
    """Why no system, or not every one, has a folder of that name."""
    wrong = not _is_path(name) or not name.isprintable()
    # Windows takes no trailing dots, and nobody sees a space there.
    wrong = wrong or name != name.strip() or name.startswith(".") or name.endswith(".")
    if wrong or not name or {"/", "\\"} & set(name):
        shown = repr(name if len(name) < 60 else f"{name[:57]}...")
        return [f"{label} must be that of a folder, without / and \\, got {shown}"]
    if (size := len(name.encode())) > _LONGEST_NAME:
        told = f"{size} bytes: {name[:20]}..."
        return [f"{label} must have at most {_LONGEST_NAME} bytes, got {told}"]
    return []


def _is_path(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8
        return False


CHANGES_RESULTS = frozenset({"log_interval"})
"""Fields that must be the same when a run is resumed. The interval is the length of a
compiled loop, and the compiler may treat loops of another length differently."""
