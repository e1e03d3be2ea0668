"""From what a caller asks for to the parts of a system, refused where it cannot be."""

from dataclasses import replace
from typing import Any, Literal

from jax.sharding import Mesh

from jaxrl_par.axis import Axis
from jaxrl_par.bridge.actor_learner import queue
from jaxrl_par.bridge.actor_learner.config import ThreadsConfig
from jaxrl_par.bridge.actor_learner.system import Parts
from jaxrl_par.bridge.plain import told as plain
from jaxrl_par.envs.base import refuse_no_maker
from jaxrl_par.envs.host.seeded import Seeded
from jaxrl_par.errors import at_least, lacking, problems, refuse_any
from jaxrl_par.loops import Learner, learner_of
from jaxrl_par.types import Agent


def asked(
    learner: Agent | Learner,
    make_env: Any,
    unroll_length: int,
    config: ThreadsConfig,
    mesh: Mesh,
    axis: Axis,
) -> Parts:
    """The parts, as arguments of `topologies.threads`.

    Raises:
      RefusedError: what makes environments, the mesh or the config is none, or the
        config is out of range.
    """
    refuse_no_maker(make_env)
    refuse_any(
        lacking("a ThreadsConfig", "num_actors", "schedule", config=config)
        + lacking("a Mesh, as data_mesh returns it", "axis_names", mesh=mesh)
    )
    parts = Parts(make_env, unroll_length, config, learner_of(learner), mesh, axis)
    refuse_any(_problems(parts))
    return replace(parts, config=replace(config, act_with=_act_with(parts)))


def schedule(parts: Parts, first_update: int) -> queue.Schedule:
    """Who waits for whom, from this update on."""
    config = parts.config
    if config.has_quorum:
        given = config.batch, config.lag, config.max_lag, config.num_actors
        return queue.Quorum(*given, first_update)
    if config.schedule == "lockstep":
        return queue.Lockstep(config.lag, config.num_actors, first_update)
    if parts.learner.in_order:
        max_lag = 1 if config.max_lag is None else config.max_lag
        return queue.InTurn(max_lag, config.num_actors, first_update)
    if config.max_lag is not None:
        return queue.Bounded(config.max_lag, config.batch, first_update)
    return queue.Free(config.queue_size or config.batch)


def _act_with(parts: Parts) -> Literal["jax", "numpy"]:
    """What `auto` comes to. It depends on nothing that differs where a run is repeated:
    so that the bits of a free run are those of its repetition."""
    config, actor = parts.config, parts.learner.actor
    if config.act_with != "auto":
        return config.act_with
    local = config.inference == "local" and config.actor_device == "cpu"
    free = local and not config.is_deterministic
    if not (free and isinstance(parts.make_env, Seeded)) or plain.problems(actor):
        return "jax"
    return "numpy" if plain.is_dense(actor) else "jax"


def _problems(parts: Parts) -> list[str]:
    """What is out of range, or asks for distillers that cannot be had."""
    config, learner = parts.config, parts.learner
    found = problems(config)
    found += at_least({"unroll_length": parts.unroll_length}, unroll_length=1)
    if config.is_decoupled and learner.kept is None:
        found.append(
            "schedule must be free or lockstep here, got decoupled: this learner keeps"
            " nothing that it could learn from while it waits"
        )
    if learner.in_order and config.batch != config.num_actors:
        name = "unrolls_per_update" if config.quorum is None else "quorum"
        found.append(
            f"{name}: this learner goes on from unroll to unroll, and needs one of each"
            f" of the {config.num_actors} actors, got {getattr(config, name)}"
        )
    if config.act_with == "numpy":
        found += plain.problems(learner.actor)
    if not config.num_distillers:
        return found
    if learner.deferred is None:
        found.append(
            "num_distillers: this learner leaves no lessons to them, so it must be 0,"
            f" got {config.num_distillers}"
        )
    if parts.mesh.size > 1:
        found.append(
            "num_distillers: distillers draw from the archive of one device, and"
            f" the learner has {parts.mesh.size}. Use one, or 0 distillers"
        )
    return found
