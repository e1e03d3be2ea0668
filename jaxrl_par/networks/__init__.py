"""Networks as pure functions of their parameters. Only this part knows flax."""

from jaxrl_par.networks.actor_critic import NetworkConfig, actor_critic
from jaxrl_par.networks.base import Network

__all__ = ["Network", "NetworkConfig", "actor_critic"]
