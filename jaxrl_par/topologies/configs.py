"""What topologies are asked for, without what runs them: for a command line, which need
not import a fleet to say what its options are."""

from jaxrl_par.bridge.actor_learner.config import ThreadsConfig
from jaxrl_par.bridge.central.config import CentralConfig
from jaxrl_par.bridge.parameter_server.config import WorkersConfig
from jaxrl_par.fleet.config import FleetConfig

__all__ = ["CentralConfig", "FleetConfig", "ThreadsConfig", "WorkersConfig"]
