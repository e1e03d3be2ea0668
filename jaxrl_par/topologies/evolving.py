"""A population whose members copy each other: population-based training.

Every so many steps, members that do badly take over what others have learned, with
their optimizers' states and hyperparameters, of which some are then changed a little.
Environments, keys and what a member keeps of its data stay its own. All that decides
what comes next is in the run, so one that is resumed goes on with the same bits.

Without an exploit it is the population, bit for bit.

Source: Jaderberg et al., arXiv:1711.09846, algorithm 1, in its synchronous form.
"""

from collections.abc import Mapping
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
from jaxrl_par.loops import Program, Run
from jaxrl_par.loops.run import unroll_keys
from jaxrl_par.loops.selection import Exploit, Explore, Record, truncation
from jaxrl_par.types import Count, Metrics, PRNGKey

# A fold of the key that no step of a member comes to: see `loops.unroll_keys`.
_SELECTION = np.uint32(0xFFFFFFFC)


class Evolved(NamedTuple):
    """What members have for themselves, and what is known of them."""

    local: Any
    record: Record
    ancestor: Int[Array, " P"]
    """Whose descendant each is: the member at the start that it goes back to."""
    source: Int[Array, " P"]
    """Whom each copied when members last could; itself if nobody."""


def evolving(
    program: Program,
    explore: Mapping[str, Explore],
    *,
    interval: int,
    exploit: Exploit = truncation(),
    score: str = "episode_return",
    window: int = 10,
) -> Program:
    """The program of a population, whose members copy each other.

    Metrics besides, all [P]: `copied`, 1 for who copies another at the end of the step;
    and of the members that took it, `ancestor`, `num_ancestors` in the population, and
    the value of each of `explore`, as `setting_NAME`.

    Args:
      program: that of `population`. Its run's settings are the hyperparameters.
      explore: how hyperparameters are changed, by name; others are copied as they are,
        but for `seed`, which stays the member's own.
      interval: steps between two exploits.
      score: the metric, higher is better; the mean of its latest values is compared.
      window: how many of them that are.

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

    def init(key: PRNGKey) -> Run:
        run = program.init(key)
        _refuse_names(explore, run)
        size = jax.tree.leaves(run.settings)[0].shape[0]
        own = jnp.arange(size, dtype=jnp.int32)
        record = Record.empty(size, window)
        return run._replace(local=Evolved(run.local, record, own, own.copy()))

    def step(run: Run) -> tuple[Run, Metrics]:
        evolved: Evolved = run.local
        run, metrics = program.step(run._replace(local=evolved.local))
        if score not in metrics:
            raise unknown_name("score", score, list(metrics))
        measured: Any = metrics[score]
        record = evolved.record.add(measured)
        evolved = evolved._replace(local=run.local, record=record)
        now = run._replace(local=evolved)
        told = _told(now, explore)
        own = jnp.arange(evolved.ancestor.size, dtype=jnp.int32)
        now, source = jax.lax.cond(
            _is_due(jax.tree.map(lambda x: x[0], run.progress.updates), interval),
            lambda run: _turned(run, exploit, explore),
            lambda run: (run, own),
            now,
        )
        copied = (source != own).astype(jnp.float32)
        return now, metrics | told | {"copied": copied}

    return Program(init, step)


def members_of(run: Run) -> Run:
    """The population's own run, as `population` takes it apart."""
    return run._replace(local=run.local.local)


def _turned(
    run: Run, exploit: Exploit, explore: Mapping[str, Explore]
) -> tuple[Run, Int[Array, " P"]]:
    """After the members have copied each other, and whom."""
    evolved: Evolved = run.local
    root = jax.random.fold_in(run.key[0], _SELECTION)
    updates = jax.tree.map(lambda x: x[0], run.progress.updates)
    exploit_key, explore_key = unroll_keys(root, updates, 0)
    source = exploit(exploit_key, evolved.record)
    copied = source != jnp.arange(source.size, dtype=jnp.int32)
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
    local = Evolved(evolved.local, record, evolved.ancestor[source], source)
    learner = jax.tree.map(lambda x: x[source], run.learner)
    return run._replace(learner=learner, local=local, settings=settings), source


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
