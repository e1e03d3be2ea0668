"""A run: everything that training carries from one step to the next."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jaxrl_par import rollout
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.measured import Metric
from jaxrl_par.types import Count, Mean, Metrics, PRNGKey, Trajectory

METRICS = {
    "updates": Metric("updates", "since the run began; not a mean"),
    "env_steps": Metric("environment steps", "since the run began; not a mean"),
    "episode_return": Metric(
        "rewards",
        "undiscounted, as the environment pays them, mean over episodes that ended",
    ),
    "episode_length": Metric("environment steps", "of those episodes"),
    "no_action": Metric(
        "share of rows",
        "with a mask that allows nothing, though they are no `last`: 0 where the"
        " environment is right",
    ),
}


class Progress(NamedTuple):
    """How far a run is."""

    updates: Count
    """Steps of the program."""
    env_steps: Count
    """Rows that are no `last`, of all environments on all devices."""
    skipped: Int[Array, ""]
    """Gradients that were not finite and therefore not applied."""
    skipped_in_a_row: Int[Array, ""]
    """Latest steps of the program in each of which one or more were skipped."""

    def counted(self, env_steps: Int[Array, ""]) -> "Progress":
        """After one more step, but for what was skipped in it."""
        steps = self.env_steps.add(env_steps)
        return self._replace(updates=self.updates.add(1), env_steps=steps)


class Run(NamedTuple):
    """All that training carries from one step to the next, and so all that is saved."""

    learner: Any
    """The learner's state, the same on every device."""
    local: PyTree
    """What each device has for itself: streams of environments, and data."""
    key: PRNGKey
    """Root of all randomness. It never changes: step n draws from its fold by n."""
    progress: Progress
    settings: PyTree = ()
    """Hyperparameters that may change while it runs, as in a population: so they are
    saved and resumed with the rest."""


class Program(NamedTuple):
    """Training as two pure functions, to be jitted, scanned, sharded or vmapped."""

    init: Callable[[PRNGKey], Run]
    step: Callable[[Run], tuple[Run, Metrics]]


def new_run(learner: Any, local: PyTree, key: PRNGKey) -> Run:
    """A run at its start. `key` is its root, from which every step's is folded."""
    zero = jnp.int32(0)
    return Run(learner, local, key, Progress(Count.zero(), Count.zero(), zero, zero))


def unroll_keys(
    root: PRNGKey, unroll: Count, index: Int[Array, ""] | int
) -> tuple[PRNGKey, PRNGKey]:
    """To act and to learn with, of instance `index` along the axis in an unroll.

    With them a thread, no instance of a program, draws what the instance would.
    """
    for number in (unroll.millions, unroll.units, index):
        root = jax.random.fold_in(root, number)
    act_key, learn_key = jax.random.split(root)
    return act_key, learn_key


def step_keys(run: Run, axis: Axis) -> tuple[PRNGKey, PRNGKey]:
    """To act and to learn with, in the next step of this instance along the axis."""
    return unroll_keys(run.key, run.progress.updates, axis.index)


def advance(run: Run, trajectory: Trajectory, metrics: Metrics, axis: Axis) -> Run:
    """Counts what was learned from, but not yet what was skipped of it."""
    env_steps = axis.sum(axis.after(trajectory.env_steps, metrics))
    progress = run.progress.counted(env_steps)
    return run._replace(learner=passed(run.learner, env_steps), progress=progress)


def count_skipped(progress: Progress, metrics: Metrics) -> Progress:
    """Counts what was skipped in one more step, once all of the step is done."""
    skipped = jnp.asarray(metrics["skipped"], jnp.int32)
    in_a_row = jnp.where(skipped > 0, progress.skipped_in_a_row + 1, 0)
    return progress._replace(
        skipped=progress.skipped + skipped, skipped_in_a_row=in_a_row
    )


def episode_metrics(episodes: rollout.Episodes, axis: Axis) -> Metrics:
    """Means over the episodes that ended on all devices, and rows without an action
    where environments have masks."""
    episodes = axis.sum(episodes)
    told = {"episode_return": episodes.return_, "episode_length": episodes.length}
    if isinstance(episodes.stuck, Mean):
        told["no_action"] = episodes.stuck
    return told | episodes.told
