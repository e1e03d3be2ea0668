"""From what a caller asks for to the parts of a system, refused where it cannot be."""

from typing import Any

import jax

from jaxrl_par import rollout
from jaxrl_par.bridge.parameter_server import stores
from jaxrl_par.bridge.parameter_server.config import WorkersConfig
from jaxrl_par.bridge.parameter_server.system import Parts
from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.envs import Environment
from jaxrl_par.envs.base import refuse_no_maker
from jaxrl_par.errors import RefusedError, lacking, refuse, refuse_any
from jaxrl_par.loops import Learner, halves_of, learner_of, refuse_joint
from jaxrl_par.loops.outliers import rejecting
from jaxrl_par.types import Agent, nothing

STORES = {"lock": stores.Lock, "hogwild": stores.Hogwild, "server": stores.Server}


def asked(
    learner: Agent | Learner,
    env: Environment | MakeEnv,
    unroll_length: int,
    config: WorkersConfig,
    device: Any,
) -> Parts:
    """The parts, as arguments of `topologies.workers`.

    Raises:
      RefusedError: the config is out of range, the agent is for other environments, or
        the learner has no halves, learns without a gradient, or searches for steps.
    """
    refuse_any(lacking("a WorkersConfig", "num_workers", "store", config=config))
    refuse(config, unroll_length=unroll_length)
    if not isinstance(env, Environment):
        refuse_no_maker(env)
    learner = learner_of(learner)
    if isinstance(env, Environment):
        rollout.refuse_other_specs(learner.actor, env)
    refuse_joint(learner, "workers")
    if halves_of(learner, "workers").observe is not nothing:
        raise RefusedError(
            "this agent observes data without a gradient, such as statistics of"
            " observations, and workers send gradients only: leave normalisation out,"
            " or use `topologies.delayed`"
        )
    learner = rejecting(learner, config.outliers, "workers")
    return Parts(learner, env, unroll_length, config, device or jax.devices()[0])
