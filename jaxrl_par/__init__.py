"""Parallel reinforcement learning in JAX, from one small set of pure functions.

The names here are those that a first program needs; all others are in the parts, and
what several parts share is in modules beside them. Importing starts no device.
"""

from typing import TYPE_CHECKING

from jaxrl_par.lazy import lazily

if TYPE_CHECKING:
    from jaxrl_par.agents import trained_by
    from jaxrl_par.algorithms.a2c import a2c
    from jaxrl_par.algorithms.dqn import dqn
    from jaxrl_par.algorithms.impala import impala
    from jaxrl_par.algorithms.ppo import ppo
    from jaxrl_par.algorithms.q_learning import q_learning
    from jaxrl_par.envs import make
    from jaxrl_par.loops import epochs, replayed
    from jaxrl_par.networks import NetworkConfig, actor_critic, q_network
    from jaxrl_par.topologies.compiled import compiled, train
    from jaxrl_par.topologies.population import population
    from jaxrl_par.topologies.sharded import sharded
    from jaxrl_par.topologies.threads import threads

__getattr__, __dir__ = lazily(__name__)
__version__ = "0.1.0"

__all__ = [
    "NetworkConfig",
    "a2c",
    "actor_critic",
    "compiled",
    "dqn",
    "epochs",
    "impala",
    "make",
    "population",
    "ppo",
    "q_learning",
    "q_network",
    "replayed",
    "sharded",
    "threads",
    "train",
    "trained_by",
]
