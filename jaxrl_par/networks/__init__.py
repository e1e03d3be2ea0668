"""Networks as pure functions of their parameters. Only this part knows flax."""

from jaxrl_par.networks.actor_critic import (
    NetworkConfig,
    actor_critic,
    policy_network,
)
from jaxrl_par.networks.asymmetric import asymmetric
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.candidates import candidate_values
from jaxrl_par.networks.continuous import (
    action_value,
    deterministic_policy,
    gaussian_policy,
)
from jaxrl_par.networks.gtrxl import TransformerConfig
from jaxrl_par.networks.keys import key_network
from jaxrl_par.networks.normalised_advantage import normalised_advantage
from jaxrl_par.networks.q_values import q_network
from jaxrl_par.networks.separate import separate
from jaxrl_par.networks.tasks import of_tasks
from jaxrl_par.networks.twice import twice_differentiable
from jaxrl_par.networks.world import world_network

__all__ = [
    "Network",
    "NetworkConfig",
    "TransformerConfig",
    "action_value",
    "actor_critic",
    "asymmetric",
    "candidate_values",
    "deterministic_policy",
    "gaussian_policy",
    "key_network",
    "normalised_advantage",
    "of_tasks",
    "policy_network",
    "q_network",
    "separate",
    "twice_differentiable",
    "world_network",
]
