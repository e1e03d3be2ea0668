"""Actors in threads, a learner on the mesh: for simulators on a CPU (Sebulba).

Actor threads step environments of their own and act in batches with the newest
parameters; unrolls go through a bounded queue to one learner, which is sharded like any
other. While the learner updates, actors act: what is learned from is a little old, and
every row says how old. V-trace corrects for it.

Three schedules. `free` is as fast as threads are, and can be recorded. `decoupled` is
for learners from replay: one update after the other from what is there, whatever came
meanwhile; who waits for whom is a ratio with bounds (`loops.pace`). `lockstep` is
deterministic: update n learns from the n-th unroll of every actor, acted with the
parameters of a fixed number of updates before; with lag 0 that is the synchronous
program, bit for bit. With a quorum an update of it takes the first q of n unrolls, and
the slowest hold up nobody; what they act is learned later, or dropped where it is too
old. Slow is seldom random: a report says which share of each actor's rows was learned
from. A recorded run, free, decoupled or with a quorum, can be run again by
`repeat_recorded`; one of simulators, which no key repeats, by `repeat_kept`, where the
record keeps the unrolls too.

Who acts is a choice of its own. `local`: each actor, for its environments. `central`:
one thread for all actors, which hold no network and ask at each step, in batches of up
to `central.max_batch` actors, or of those who came within `central.max_wait_ms`;
recurrent memory stays there. In lockstep it acts with the parameters of the unroll,
else each step with the newest, so that one unroll may have several versions; all are
recorded, and a bound of the lag holds for the oldest. What is promised: who waited with
whom changes no bit, as the compiled batch has one shape, in which each actor has its
place. Hence lockstep is deterministic and a recorded run is repeated bit for bit. With
`central.rows apart`, or a batch of one actor, an actor's rows are computed in the shape
of local inference, and lockstep has its bits; in a joint batch of several, to rounding
only, and where an action depends on the last bits, another run.

Where what acts is taught by what learns, distillers can teach it in threads of their
own while the learner goes on: see `bridge.actor_learner.distillers`. Version n of the
parameters has the lessons of n updates in every schedule. So with one distiller all of
the above holds; several race, and no schedule makes them deterministic. Stages that
read what is taught (`loops.labelling`) read it as it was an update before, so they have
numbers of their own, which are repeated and resumed like all others.

Source: Hessel et al., arXiv:2104.06272, section 3; Espeholt et al., arXiv:1802.01561;
Espeholt et al., arXiv:1910.06591, and Babaeizadeh et al., arXiv:1611.06256 (central);
Horgan et al., arXiv:1803.00933, algorithms 1 and 2 (decoupled); Parisotto and
Salakhutdinov, arXiv:2104.01655, section 4.1.
"""

from functools import partial
from pathlib import Path

from jax.sharding import Mesh

from jaxrl_par.axis import Axis
from jaxrl_par.bridge.actor_learner.asked import asked, schedule
from jaxrl_par.bridge.actor_learner.config import ThreadsConfig
from jaxrl_par.bridge.actor_learner.engine import ActorLearnerEngine
from jaxrl_par.bridge.actor_learner.kept_replay import KeptReplay
from jaxrl_par.bridge.actor_learner.replay import ActorLearnerReplay
from jaxrl_par.bridge.central.config import CentralConfig as CentralConfig
from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import Learner, records
from jaxrl_par.types import Agent, PRNGKey


def threads(
    learner: Agent | Learner,
    make_env: MakeEnv,
    unroll_length: int,
    config: ThreadsConfig,
    mesh: Mesh,
    axis: Axis = Axis("data"),
) -> ActorLearnerEngine:
    """An engine for `training.train`, which starts its threads when it first advances.

    `Engine.record` says where to write the schedule, for `repeat_recorded`.

    Args:
      learner: an agent alone learns from each batch once. One that needs its
        trajectories in order gets an unroll of every actor in each batch, and in the
        free schedule a bound on the lag of 1 unless there is one.
      make_env: the environments of one actor, from a key. All have the same specs.
      mesh: the learner's devices, which share the environments of each batch.

    Raises:
      ValueError: the config is out of range.
    """
    parts = asked(learner, make_env, unroll_length, config, mesh, axis)
    return ActorLearnerEngine(parts, partial(schedule, parts))


def repeat_recorded(
    learner: Agent | Learner,
    make_env: MakeEnv,
    unroll_length: int,
    config: ThreadsConfig,
    mesh: Mesh,
    recorded: Path,
    axis: Axis = Axis("data"),
) -> ActorLearnerReplay:
    """An engine that repeats a run which `threads` recorded, in one thread.

    Arguments are those of the recorded run. On CPU it ends in the same bits.

    Raises:
      ValueError: the run had several distillers, whose races are in no record.
      RecordError: there is no record at `recorded`, or it is damaged.
    """
    parts = asked(learner, make_env, unroll_length, config, mesh, axis)
    _refuse_races(config)
    return ActorLearnerReplay(parts, records.read(recorded))


def repeat_kept(
    learner: Agent | Learner,
    unroll_length: int,
    config: ThreadsConfig,
    mesh: Mesh,
    recorded: Path,
    axis: Axis = Axis("data"),
) -> KeptReplay:
    """An engine that learns once more from the unrolls that a run kept with its record
    (`keep_unrolls`), without environments and actors. On CPU it ends in the same bits.

    Arguments are those of the recorded run.

    Raises:
      RefusedError: as `repeat_recorded`, or the agent does not know its specs.
      RecordError: there is no record at `recorded`, it kept no unrolls, or is damaged.
    """
    parts = asked(learner, _nowhere, unroll_length, config, mesh, axis)
    _refuse_races(config)
    return KeptReplay(parts, recorded)


def _refuse_races(config: ThreadsConfig) -> None:
    if config.num_distillers > 1:
        raise RefusedError(
            "num_distillers: several write at the same time, which no record repeats;"
            f" a run with 0 or 1 can be replayed, got {config.num_distillers}"
        )


def _nowhere(key: PRNGKey) -> HostEnvironment:
    raise RuntimeError("unrolls that were kept need no environments")
