"""All that the driver asks of Ray: actors in a cluster, and calls of them.

What was started in a cluster ends when it is closed, also where others use it.
"""

import contextlib
import os
import signal
import uuid
from pathlib import Path
from typing import Any

from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.connection import CONNECTION, first_line, import_ray
from jaxrl_par.lazy import late

ray: Any = late("ray")


class LostError(RuntimeError):
    """A process, its node or what was on its way from there is lost."""


class Call:
    """Something that an actor was asked to do."""

    def __init__(self, reference: Any):
        self._reference = reference
        self._is_done = False
        self._answer: Any = None
        self._error: Exception | None = None

    def ready(self, seconds: float) -> bool:
        """Whether the answer is there, or will not come; waits so long for it."""
        if self._is_done:
            return True
        # Taken at once: to ask whether it is there is a way as long as to get it.
        try:
            self._answer = ray.get(self._reference, timeout=seconds)
        except ray.exceptions.RayTaskError as error:
            self._error = error  # that may be a timeout, too, of there
        except ray.exceptions.GetTimeoutError:
            return False
        except ray.exceptions.RayError as error:
            self._error = error
        self._is_done, self._reference = True, None
        return True

    def result(self) -> Any:
        """The answer, which is there. Its arrays are read-only, and lie in the object
        store as long as they are used.

        Raises:
          LostError: there is none.
        """
        if not self.ready(60.0):
            raise LostError("the answer did not come within 60 s")
        error: Any = self._error
        if isinstance(error, ray.exceptions.RayTaskError):
            # Not of what was asked for, which is part of the answer.
            raise error.as_instanceof_cause() from None
        if error is not None:
            raise LostError(first_line(error)) from error
        return self._answer


class Handle:
    """An actor."""

    def __init__(self, actor: Any):
        self.pid: int | None = None
        """Its process, if that is on this machine."""
        self._actor = actor

    def call(self, method: str, *arguments: Any, group: str | None = None) -> Call:
        """Asks, and does not wait."""
        method = getattr(self._actor, method)
        options = {} if group is None else {"concurrency_group": group}
        return Call(method.options(**options).remote(*arguments))  # pyright: ignore

    def kill(self) -> None:
        """Ends its process at once."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._actor)
        # Ray asks first, and one that stands still would outlive its cluster.
        if self.pid is not None and _is_rays(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Cluster:
    """A connection, and the actors that were made by it."""

    def __init__(self, config: FleetConfig, cpus: float):
        """
        Args:
          cpus: processors that its actors will ask for.

        Raises:
          RefusedError: Ray is not installed, the address does not answer in time, or
            this process is connected to another cluster.
        """
        import_ray(config)
        self.is_local = config.address is None
        self._namespace = f"jaxrl_par-{uuid.uuid4().hex}"
        self._handles: list[Handle] = []
        CONNECTION.enter(config, cpus)

    def make(
        self,
        kind: type,
        *arguments: Any,
        cpus: float = 0.0,
        name: str | None = None,
        groups: dict[str, int] | None = None,
        here: bool = False,
    ) -> Handle:
        """An actor, which may still have to start.

        Args:
          cpus: processors that are kept for it.
          name: others find it by that.
          groups: threads of its calls, by their group.
          here: beside this process, if there is room, and not on any node.
        """
        given = {"concurrency_groups": groups} if groups else {}
        options = {
            "num_cpus": cpus,
            "max_restarts": 0,  # we make it anew, with what it needs, and count it
            "max_task_retries": 0,
            "scheduling_strategy": _beside_us() if here else "SPREAD",
        }
        options |= {"name": self.full_name(name)} if name else {}
        actor = ray.remote(**given)(kind) if given else ray.remote(kind)
        handle = Handle(actor.options(**options).remote(*arguments))
        self._handles.append(handle)
        return handle

    def full_name(self, name: str) -> str:
        """By which it is found from all processes of the cluster."""
        return f"{self._namespace}-{name}"

    def put(self, value: Any) -> Any:
        """Copies the value into the object store, once; a reference to it."""
        return ray.put(value)

    def room(self) -> str:
        """What there is and what is free, for errors."""
        there, free = ray.cluster_resources(), ray.available_resources()
        return f"{free.get('CPU', 0):g} of {there.get('CPU', 0):g} processors are free"

    def close(self) -> None:
        """Ends all actors, and the cluster if it is our own and nobody else's."""
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.kill()
        CONNECTION.leave()


def _beside_us() -> Any:
    """The node of this process, for Ray."""
    strategies = ray.util.scheduling_strategies
    node = ray.get_runtime_context().get_node_id()
    return strategies.NodeAffinitySchedulingStrategy(node, soft=True)


def _is_rays(pid: int) -> bool:
    """Whether an actor of Ray has that number, and no other one by now."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False
