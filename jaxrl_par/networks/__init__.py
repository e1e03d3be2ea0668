"""Networks as pure functions of their parameters. Only this part knows flax."""

from jaxrl_par.networks.actor_critic import (
    NetworkConfig,
    actor_critic,
    policy_network,
)
from jaxrl_par.networks.asymmetric import asymmetric
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.gtrxl import TransformerConfig
from jaxrl_par.networks.q_values import q_network
from jaxrl_par.networks.separate import separate
from jaxrl_par.networks.tasks import of_tasks

__all__ = [
    "Network",
    "NetworkConfig",
    "TransformerConfig",
    "actor_critic",
    "asymmetric",
    "of_tasks",
    "policy_network",
    "q_network",
    "separate",
]
