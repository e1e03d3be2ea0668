"""A population whose members copy each other: population-based training.

Every so many steps, members that do badly take over what others have learned, with
their optimizers' states and hyperparameters, of which some are then changed a little.
Environments, keys and what a member keeps of its data stay its own. All that decides
what comes next is in the run, so one that is resumed goes on with the same bits.

Without an exploit it is the population, bit for bit.

By a schedule members go at their own pace: in each of its turns one takes a step, and
when it has taken enough of them looks at what the others have by then. So nobody waits
for the slowest, as in the paper; with the same schedule the numbers are the same.

Source: Jaderberg et al., arXiv:1711.09846, algorithm 1.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxrl_par.errors import (
    RefusedError,
    at_least,
    at_most,
    lacking,
    problems,
    refuse_any,
    unknown_name,
)
from jaxrl_par.loops import Program, Progress, Run
from jaxrl_par.loops.members import among_all, put_back, step_of, taken
from jaxrl_par.loops.run import unroll_keys
from jaxrl_par.loops.schedules import Schedule
from jaxrl_par.loops.schedules import problems as schedule_problems
from jaxrl_par.loops.selection import Exploit, Explore, Record, truncation
from jaxrl_par.measured import Metric
from jaxrl_par.types import Count, Metrics, PRNGKey

METRICS = {
    "copied": Metric(
        "share of members", "that took the place of another in this update"
    ),
    "ancestor": Metric(
        "number of a member", "of the first generation, from which a member descends"
    ),
    "num_ancestors": Metric("members", "of the first generation, of whom any descend"),
    "setting_*": Metric(
        "as the option", "a hyperparameter that is explored, of each member"
    ),
}

# A fold of the key that no step of a member comes to: see `loops.unroll_keys`.
_SELECTION = np.uint32(0xFFFFFFFC)


class Alone(NamedTuple):
    """Where members are that go at their own pace; the run's progress counts turns."""

    progress: Progress
    """Each member's own."""
    turn: Int[Array, ""]
    """The next one of the schedule."""


class Evolved(NamedTuple):
    """What members have for themselves, and what is known of them."""

    local: Any
    record: Record
    ancestor: Int[Array, " P"]
    """Whose descendant each is: the member at the start that it goes back to."""
    source: Int[Array, " P"]
    """Whom each copied when members last could; itself if nobody."""
    alone: Alone | None = None
    """If members go at their own pace."""


def evolving(
    program: Program,
    explore: Mapping[str, Explore],
    *,
    interval: int,
    exploit: Exploit = truncation(),
    score: str = "episode_return",
    window: int = 10,
    schedule: Schedule | None = None,
) -> Program:
    """The program of a population, whose members copy each other.

    Metrics besides, all [P]: `copied`, 1 for who copies another at the end of the step;
    and of the members that took it, `ancestor`, `num_ancestors` in the population, and
    the value of each of `explore`, as `setting_NAME`.

    Args:
      program: that of `population`. Its run's settings are the hyperparameters.
      explore: how hyperparameters are changed, by name; others are copied as they are,
        but for `seed`, which stays the member's own.
      interval: steps of a member between two exploits.
      score: the metric, higher is better; the mean of its latest values is compared.
      window: how many of them that are.
      schedule: a step of the program is then one of its turns, in which one member
        takes a step. It begins again after its end. Metrics are means, those of the
        other members of nothing.

    Raises:
      RefusedError: a number is out of range, or something else is given.
    """
    made = "a Program, as population makes"
    sizes = {"interval": interval, "window": window}
    found = lacking(made, "init", "step", program=program)
    found += at_least(sizes, interval=1, window=1) + at_most(sizes, interval=40_000)
    for name, change in explore.items():
        found += [f"explore[{name!r}]: {line}" for line in problems(change)]
    refuse_any(found)

    rules = _Rules(program, explore, exploit, interval, score)

    def init(key: PRNGKey) -> Run:
        run = program.init(key)
        _refuse_names(explore, run)
        size = jax.tree.leaves(run.settings)[0].shape[0]
        own = jnp.arange(size, dtype=jnp.int32)
        alone = None
        if schedule is not None:
            refuse_any(schedule_problems(schedule, size, len(schedule.worker)))
            alone = Alone(jax.tree.map(jnp.copy, run.progress), jnp.int32(0))
        record = Record.empty(size, window)
        return run._replace(local=Evolved(run.local, record, own, own.copy(), alone))

    if schedule is None:
        return Program(init, partial(_step, rules))
    return Program(init, partial(_turn, rules, jnp.asarray(schedule.worker)))


class _Rules(NamedTuple):
    """Arguments of `evolving`."""

    program: Program
    explore: Mapping[str, Explore]
    exploit: Exploit
    interval: int
    score: str


def _step(rules: _Rules, run: Run) -> tuple[Run, Metrics]:
    """A step of all members; then they may copy each other."""
    evolved: Evolved = run.local
    run, metrics = rules.program.step(members_of(run))
    record = evolved.record.add(_measured(metrics, rules.score))
    now = run._replace(local=evolved._replace(local=run.local, record=record))
    is_due = _is_due(_first(run.progress.updates), rules.interval)
    now, told = _selected(rules, now, is_due)
    return now, metrics | told


def _turn(rules: _Rules, workers: Int[Array, " N"], run: Run) -> tuple[Run, Metrics]:
    """A step of the member whose turn it is; then it may copy another."""
    evolved: Evolved = run.local
    alone: Any = evolved.alone
    who = workers[alone.turn][None]
    members, metrics = step_of(rules.program, members_of(run), who)
    record = taken(evolved.record, who).add(_measured(metrics, rules.score))
    record = put_back(evolved.record, who, record)
    # The run counts turns, and a member its own steps, of which its keys are made.
    counted = members.progress._replace(updates=run.progress.updates.add(1))
    alone = Alone(members.progress, (alone.turn + 1) % len(workers))
    evolved = evolved._replace(local=members.local, record=record, alone=alone)
    now = members._replace(local=evolved, progress=counted)
    own = jax.tree.map(lambda x: x[who[0]], members.progress.updates)
    now, told = _selected(rules, now, _is_due(own, rules.interval), who[0])
    return now, among_all(metrics, who, evolved.ancestor.size) | told


def _selected(
    rules: _Rules, run: Run, is_due: Bool[Array, ""], who: Int[Array, ""] | None = None
) -> tuple[Run, Metrics]:
    """After the members, or one alone, may have copied others, and what is told."""
    evolved: Evolved = run.local
    told = _told(run, rules.explore)
    own = jnp.arange(evolved.ancestor.size, dtype=jnp.int32)
    run, source = jax.lax.cond(
        is_due,
        lambda run: _turned(run, rules.exploit, rules.explore, who),
        lambda run: (run, own),
        run,
    )
    return run, told | {"copied": (source != own).astype(jnp.float32)}


def members_of(run: Run) -> Run:
    """The population's own run, as `population` takes it apart."""
    evolved: Evolved = run.local
    progress = run.progress if evolved.alone is None else evolved.alone.progress
    return run._replace(local=evolved.local, progress=progress)


def _turned(
    run: Run,
    exploit: Exploit,
    explore: Mapping[str, Explore],
    who: Int[Array, ""] | None = None,
) -> tuple[Run, Int[Array, " P"]]:
    """After the members, or one alone, have copied each other, and whom."""
    evolved: Evolved = run.local
    root = jax.random.fold_in(run.key[0], _SELECTION)
    exploit_key, explore_key = unroll_keys(root, _first(run.progress.updates), 0)
    source = exploit(exploit_key, evolved.record)
    own = jnp.arange(source.size, dtype=jnp.int32)
    if who is not None:
        source = jnp.where(own == who, source, own)
    copied = source != own
    settings = {}
    keys = jax.random.split(explore_key, max(len(run.settings), 1))
    for name, key in zip(sorted(run.settings), keys, strict=True):
        values = run.settings[name]
        if name != "seed":
            theirs = values[source]
            if name in explore:
                theirs = explore[name].changed(key, theirs)
            values = jnp.where(copied, theirs, values)
        settings[name] = values
    record = evolved.record.cleared(copied)
    local = evolved._replace(
        record=record, ancestor=evolved.ancestor[source], source=source
    )
    learner = jax.tree.map(lambda x: x[source], run.learner)
    return run._replace(learner=learner, local=local, settings=settings), source


def _first(count: Count) -> Count:
    return jax.tree.map(lambda x: x[0], count)


def _measured(metrics: Metrics, score: str) -> Any:
    if score not in metrics:
        raise unknown_name("score", score, list(metrics))
    return metrics[score]


def _is_due(updates: Count, interval: int) -> Bool[Array, ""]:
    # A count is larger than an int32 may be.
    millions = updates.millions % interval * (1_000_000 % interval)
    return (millions + updates.units) % interval == 0


def _told(run: Run, explore: Mapping[str, Explore]) -> dict[str, Array]:
    ancestor: Int[Array, " P"] = run.local.ancestor
    alive = jnp.zeros(ancestor.shape).at[ancestor].set(1.0)
    told = {
        "ancestor": ancestor.astype(jnp.float32),
        "num_ancestors": jnp.broadcast_to(jnp.sum(alive), ancestor.shape),
    }
    return told | {f"setting_{name}": run.settings[name] for name in explore}


def _refuse_names(explore: Mapping[str, Explore], run: Run) -> None:
    if not isinstance(run.settings, dict) or not run.settings:
        raise RefusedError(
            "program must be that of a population, whose run has hyperparameters in its"
            " settings"
        )
    for name in explore:
        if name not in run.settings:
            raise unknown_name("hyperparameter", name, list(run.settings))
