"""Asynchronous workers in threads that share parameters: A3C and its relatives.

Each worker has environments of its own. Again and again it reads the shared parameters,
acts with them for an unroll, computes the gradient at them, and gives it to the store,
which applies it to whatever the parameters are by then. Workers wait for each other at
the store only, of which there are three kinds, in `bridge.parameter_server.stores`. The
optimizer's state is shared too, so RMSProp is A3C's Shared RMSProp.

One worker computes what the synchronous program does, bit for bit. A run of several
depends on which thread was faster, which is recorded; `repeat_recorded` repeats it in
one thread. With `lock` and `server` that ends in the same bits.

A step of training is a push of one worker, and learns from its environments alone:
gradients are as large as one worker's, and their number is what grows with workers.
A learner's data, such as a replay, are a worker's own. The store refuses gradients that
are too stale, and a worker those whose loss is an outlier among its own.

Sources: Mnih et al., arXiv:1602.01783; Niu et al., arXiv:1106.5730; Nair et al.,
arXiv:1507.04296.
"""

from pathlib import Path
from typing import Any

from jaxrl_par.bridge.parameter_server.asked import STORES, asked
from jaxrl_par.bridge.parameter_server.config import WorkersConfig
from jaxrl_par.bridge.parameter_server.engine import ParameterServerEngine
from jaxrl_par.bridge.parameter_server.replay import WorkerReplay
from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.envs import Environment
from jaxrl_par.loops import Learner, records
from jaxrl_par.types import Agent


def workers(
    learner: Agent | Learner,
    env: Environment | MakeEnv,
    unroll_length: int,
    config: WorkersConfig,
    device: Any = None,
) -> ParameterServerEngine:
    """An engine for `training.train`, which starts its threads when it first advances.

    `Engine.record` says where to write the schedule, for `repeat_recorded`.

    Args:
      learner: has halves; an agent alone learns from each trajectory once.
      env: the environments of one worker: pure ones, or what makes simulators from a
        key. All workers have the same specs.
      device: a `jax.Device`, by default the first.

    Raises:
      ValueError: the config is out of range, or the learner has no halves.
    """
    parts = asked(learner, env, unroll_length, config, device)
    return ParameterServerEngine(parts, STORES[config.store])


def repeat_recorded(
    learner: Agent | Learner,
    env: Environment | MakeEnv,
    unroll_length: int,
    config: WorkersConfig,
    recorded: Path,
    device: Any = None,
) -> WorkerReplay:
    """An engine that repeats a run which `workers` recorded, in one thread.

    Arguments are those of the recorded run. On CPU it ends in the same bits, but for
    hogwild: there it ends where the run would have without races, and the distance
    between the two is what races did.

    Raises:
      ValueError: the config is out of range.
      RecordError: there is no record at `recorded`, or it is damaged.
    """
    parts = asked(learner, env, unroll_length, config, device)
    return WorkerReplay(parts, records.read_turns(recorded))
