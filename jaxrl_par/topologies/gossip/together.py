"""All learners update, then average: on one device side by side, or one on each."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from jaxrl_par import loops, rollout
from jaxrl_par.elapsed import passed
from jaxrl_par.loops import Program, Run
from jaxrl_par.loops.learner import Data
from jaxrl_par.loops.matchings import is_due, matching_of, matchings
from jaxrl_par.loops.peers import Parts, act_and_learn, distance, moved
from jaxrl_par.measured import Metric
from jaxrl_par.topologies.gossip.config import GossipConfig
from jaxrl_par.topologies.gossip.system import System
from jaxrl_par.types import Count, Mean, Metrics, PRNGKey

METRICS = {
    "distance": Metric("1", "of the learners' parameters from their mean, as a norm"),
}


class Local(NamedTuple):
    """What a learner has for itself."""

    streams: rollout.Streams
    data: Data


class Links(NamedTuple):
    """How learners read from each other."""

    shift: Callable[[Parts, int], Parts]
    """Of the one so many places before, around a ring."""
    swap: Callable[[Parts, Int[Array, ""]], Parts]
    """Of the partner in the matching of this number."""


def here(system: System) -> Program:
    """All learners on one device; leaves of a run are [N, ...]."""
    places, table = jnp.arange(system.size), matchings(system.size)

    def shift(parts: Parts, steps: int) -> Parts:
        return jax.tree.map(lambda x: jnp.roll(x, steps, axis=0), parts)

    def swap(parts: Parts, number: Int[Array, ""]) -> Parts:
        partner = jnp.asarray(table)[number]
        return jax.tree.map(lambda x: x[partner], parts)

    def init(key: PRNGKey) -> Run:
        return jax.vmap(partial(start, system), (None, 0))(key, places)

    def step(run: Run) -> tuple[Run, Metrics]:
        root, number = jax.tree.map(lambda x: x[0], (run.key, run.progress.updates))
        run, metrics = jax.vmap(partial(updated, system))(run, places)
        own = system.shared(run.learner)
        given = system.config, Links(shift, swap), root, number.add(1), own
        own, apart = _met(*given, jax.vmap)
        learner = system.with_shared(run.learner, own)
        return run._replace(learner=learner), metrics | {"distance": apart}

    return Program(init, step)


def on_mesh(system: System, mesh: Mesh) -> Program:
    """A learner on each device; what they read of each other is permuted between them.

    There is no other communication: nothing is summed over all.
    """
    (name,), size = mesh.axis_names, system.size

    def permuted(parts: Parts, source: Any) -> Parts:
        pairs = [(int(x), place) for place, x in enumerate(source)]
        return jax.lax.ppermute(parts, name, pairs)

    def shift(parts: Parts, steps: int) -> Parts:
        return permuted(parts, [(place - steps) % size for place in range(size)])

    def swap(parts: Parts, number: Int[Array, ""]) -> Parts:
        ways = [partial(permuted, source=row) for row in matchings(size)]
        return jax.lax.switch(number, ways, parts)

    def init(key: PRNGKey) -> Run:
        return _lead(start(system, key, jax.lax.axis_index(name)))

    def step(run: Run) -> tuple[Run, Metrics]:
        run = jax.tree.map(lambda x: x[0], run)
        root, number = run.key, run.progress.updates
        run, metrics = updated(system, run, jax.lax.axis_index(name))
        own = system.shared(run.learner)
        given = system.config, Links(shift, swap), root, number.add(1), own
        own, apart = _met(*given, lambda function: function)
        learner = system.with_shared(run.learner, own)
        metrics = metrics | {"distance": apart}
        return _lead(run._replace(learner=learner)), _lead(metrics)

    # As in `topologies.sharded`.
    spread = partial(jax.shard_map, mesh=mesh, check_vma=False)
    return Program(
        init=spread(init, in_specs=P(), out_specs=P(name)),
        step=spread(step, in_specs=P(name), out_specs=P(name)),
    )


def start(system: System, key: PRNGKey, place: Int[Array, ""]) -> Run:
    run, streams, data = system.start(key, place)
    return run._replace(local=Local(streams, data))


def updated(system: System, run: Run, place: Int[Array, ""]) -> tuple[Run, Metrics]:
    """One learner after an update, alone."""
    local: Local = run.local
    made = act_and_learn(
        system.learner, system.env, system.unroll_length, run.learner, local.streams,
        local.data, run.key, run.progress.updates, place,
    )  # fmt: skip
    state = passed(made.state, made.env_steps * system.size)
    progress = loops.count_skipped(run.progress.counted(made.env_steps), made.metrics)
    local = Local(made.streams, made.data)
    return run._replace(learner=state, local=local, progress=progress), made.metrics


def _met(
    config: GossipConfig,
    links: Links,
    root: PRNGKey,
    round_: Count,
    own: Parts,
    each: Callable[[Callable], Callable],
) -> tuple[Parts, Mean]:
    """What learners have after a round, and how far apart they were.

    Args:
      own: of one learner, or of all, which `each` then maps over.
    """

    def meet() -> tuple[Parts, Mean]:
        read = _read(config, links, root, round_, own)
        weights = [weight for weight, _ in read]

        def one(own: Parts, *theirs: Parts) -> tuple[Parts, Mean]:
            moves = [(w, x, own) for w, x in zip(weights, theirs, strict=True)]
            apart = sum((distance(own, x) for x in theirs), jnp.float32(0))
            return moved(own, *moves), Mean(apart, jnp.float32(len(theirs)))

        return each(one)(own, *[x for _, x in read])

    if config.interval == 1:
        return meet()
    _, nothing = jax.eval_shape(meet)
    rest = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), nothing)
    return jax.lax.cond(is_due(round_, config.interval), meet, lambda: (own, rest))


def _read(
    config: GossipConfig, links: Links, root: PRNGKey, round_: Count, own: Parts
) -> list[tuple[float, Parts]]:
    """What is read of others, and its weight. A ring of two has one neighbour twice,
    and one learner itself: weights add up to 1 with its own."""
    size = config.num_learners
    if config.kind == "ring":
        return [(1.0 / 3.0, links.shift(own, steps)) for steps in (1, -1)]
    if config.kind == "full":
        return [(1.0 / size, links.shift(own, steps)) for steps in range(1, size)]
    return [(0.5, links.swap(own, matching_of(root, round_, size)))]


def _lead(tree: Any) -> Any:
    """With the axis that joins what each device has."""
    return jax.tree.map(lambda x: x[None], tree)
