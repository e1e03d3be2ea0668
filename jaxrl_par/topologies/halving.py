"""A population whose members that do badly are frozen: successive halving.

All members start; at each rung the best of them go on, and the others stay as they
are. A step of training costs what the members that are left cost: there is a program
for each number of them. All that decides what comes next is in the run, so one that is
resumed goes on with the same bits.

Source: Jamieson and Talwalkar, arXiv:1502.07943, algorithm 1.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxrl_par.errors import RefusedError, at_least, lacking, refuse_any, unknown_name
from jaxrl_par.loops import Program, Run
from jaxrl_par.loops.members import among_all, put_back, step_of, taken
from jaxrl_par.loops.rungs import Rung
from jaxrl_par.loops.selection import Record
from jaxrl_par.measured import Metric
from jaxrl_par.types import Count, Metrics, PRNGKey

METRICS = {
    "num_trained": Metric("members", "that are trained in this rung"),
}


class Halved(NamedTuple):
    """What members have for themselves, and what is known of them."""

    local: Any
    record: Record
    order: Int[Array, " P"]
    """All members by number, those that go on in front."""


def halving(
    program: Program,
    rungs: Sequence[Rung],
    *,
    score: str = "episode_return",
    window: int = 10,
) -> Program:
    """The program of a population, of which fewer and fewer members are trained.

    Metrics are means [P], those of frozen members of nothing; `num_trained` is [P].

    Args:
      program: that of `population`, on one device.
      rungs: as `loops.rungs.rungs` makes them, the first with all members.
      score: the metric, higher is better; the mean of its latest values counts. What is
        no number is worst, and next a member without any value.
      window: how many of them that are.

    Raises:
      RefusedError: a number is out of range, or something else is given.
    """
    made = "a Program, as population makes"
    found = lacking(made, "init", "step", program=program)
    refuse_any(found + at_least({"window": window}, window=1) + _problems(rungs))
    sizes = [rung.members for rung in rungs]

    def init(key: PRNGKey) -> Run:
        run = program.init(key)
        leaves = jax.tree.leaves(run.settings)
        if not leaves or leaves[0].shape[0] != sizes[0]:
            raise RefusedError(
                f"rungs: the first must have all members of the population, got"
                f" {sizes[0]}"
            )
        order = jnp.arange(sizes[0], dtype=jnp.int32)
        record = Record.empty(sizes[0], window)
        return run._replace(local=Halved(run.local, record, order))

    def step(run: Run) -> tuple[Run, Metrics]:
        begins = jnp.array([rung.begin for rung in rungs], jnp.int32)
        done = jnp.max(_number(run.progress.updates))
        rung = jnp.sum(done >= begins) - 1
        turns = [partial(_trained, program, score, size) for size in sizes]
        run, metrics = jax.lax.switch(rung, turns, run)
        due = jnp.any((done + 1 == begins)[1:])
        return jax.lax.cond(due, _turned, lambda now: now, run), metrics

    return Program(init, step)


def members_of(run: Run) -> Run:
    """The population's own run, as `population` takes it apart."""
    return run._replace(local=run.local.local)


def _trained(program: Program, score: str, size: int, run: Run) -> tuple[Run, Metrics]:
    """After a step of the first `size` members of the order."""
    halved: Halved = run.local
    who = halved.order[:size]
    run, metrics = step_of(program, members_of(run), who)
    if score not in metrics:
        raise unknown_name("score", score, list(metrics))
    measured: Any = metrics[score]
    record = taken(halved.record, who).add(measured)
    record = put_back(halved.record, who, record)
    # A run ends if all members are skipped: those that are frozen do not keep it up.
    skipped = run.progress.skipped_in_a_row
    fewest = jnp.full(skipped.shape, jnp.min(skipped[who]))
    skipped = fewest.at[who].set(skipped[who])
    run = run._replace(
        local=Halved(run.local, record, halved.order),
        progress=run.progress._replace(skipped_in_a_row=skipped),
    )
    number = jnp.full(halved.order.shape, size, jnp.float32)
    return run, among_all(metrics, who, number.size) | {"num_trained": number}


def _turned(run: Run) -> Run:
    """With the best members in front, equal ones in their own order."""
    halved: Halved = run.local
    ready, score = halved.record.judged()
    # What is no number is -inf: worse than no score at all.
    score = jnp.where(ready, score, jnp.finfo(score.dtype).min)
    updates = _number(run.progress.updates)
    frozen = updates < jnp.max(updates)
    order = jnp.lexsort((-score, frozen)).astype(jnp.int32)
    return run._replace(local=halved._replace(order=order))


def _number(count: Count) -> Int[Array, "..."]:
    return count.millions * 1_000_000 + count.units


def _problems(rungs: Sequence[Rung]) -> list[str]:
    if not rungs or rungs[0].begin != 0:
        return ["rungs must begin at 0, as loops.rungs makes them"]
    found = []
    for before, rung in pairwise(rungs):
        if not (rung.begin > before.begin and 1 <= rung.members <= before.members):
            found.append(
                f"rungs must begin later with no more members, got {before}, {rung}"
            )
    return found
