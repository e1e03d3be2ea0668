"""What members of a process may step, without JAX."""

from typing import Any

from jaxrl_par import compatible
from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.envs.host.sharing import Owners
from jaxrl_par.errors import RefusedError


class Claims:
    """As `ActorFactory.claim`, where no agent is."""

    def __init__(self, specs: compatible.Both | None):
        """`specs`: those that the agent was made for."""
        self._specs = specs
        self._owners = Owners("actor", "each must be given environments of its own")

    def claim(self, member: int, env: Any) -> None:
        """Notes what a member steps from now on.

        Raises:
          RefusedError: it is no `HostEnvironment`, or has other specs than those that
            the agent was made for, or some of it was made before, for any member.
        """
        if not isinstance(env, HostEnvironment):
            raise RefusedError(
                "what makes the environments of an actor must give a HostEnvironment,"
                f" as envs.host.make does, not {env!r:.60}"
            )
        whom = f"{env.name} has"
        remedy = "Make its network from the specs of this environment"
        compatible.refuse_others(self._specs, env.specs, "the agent", whom, remedy)
        self._owners.claim(member, env)
