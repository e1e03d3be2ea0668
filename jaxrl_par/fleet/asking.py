"""Actors here, whose environments are in other processes: for central inference.

An actor asks who acts, in this process, and sends the action to its environments: one
call for each step, which brings back the next one. What those processes have is no
network, no memory and, for simulators that are made from a seed, no JAX.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrl_par.bridge.central.actor import AskingActor
from jaxrl_par.bridge.reports import Times
from jaxrl_par.envs.host.base import HostEnvironment, HostRow
from jaxrl_par.fleet.arrays import on_host, own
from jaxrl_par.fleet.proxy import Proxy
from jaxrl_par.fleet.stepping_roles import After, Row
from jaxrl_par.stream import Metrics, TimeStep
from jaxrl_par.types import PRNGKey, Trajectory


class Seat(Proxy):
    """A place in a process, for the environments of an actor."""

    kind = "actor"

    def __init__(
        self, *arguments: Any, keys_sent: Callable[[Any], Any] = on_host, **options: Any
    ):
        """`keys_sent`: from keys [T] of steps to what environments need of them."""
        super().__init__(*arguments, **options)
        self.length = options["unroll_length"]
        self.keys_sent = keys_sent

    def environment(self, key: PRNGKey) -> "FarEnvironment":
        """New environments there, in place of those before."""
        self.start(key)
        return FarEnvironment(self)

    def asked(self, method: str, *arguments: Any) -> Row:
        """What environments show after the call: see `stepping_roles.Stepped`.

        Raises:
          Stopped: it was cancelled, or is late.
          Exception: what they raised, or `LostError`.
        """
        row = self._asked("work", self.next_unroll, method, *arguments)
        self.next_unroll += 1
        return row

    def where(self, row: int | None = None) -> str:
        place = self._lease.where if self._lease else "no process"
        return f"call {self.next_unroll} of the environments in {place}"


class FarEnvironment(HostEnvironment):
    """Those of a seat. Arrays that are returned lie where they arrived, read-only."""

    max_episode_steps = None

    def __init__(self, seat: Seat):
        shown = seat.env
        self.name, self.num_envs = shown.name, shown.num_envs
        self.observation_spec = shown.observation_spec
        self.action_spec = shown.action_spec
        self._seat = seat
        self._keys: Any = None
        self._left = 0
        self._after: After | None = None

    def plan(self, keys: Any) -> None:
        """Keys go with the next step: a call for them alone would take as long."""
        self._keys, self._left = self._seat.keys_sent(keys), len(keys)

    def reset(self) -> TimeStep:
        return self._taken(self._seat.asked("reset")).step

    def restore(self, snapshot: Any) -> TimeStep:
        return self._taken(self._seat.asked("restore", on_host(snapshot))).step

    def step(self, action: Any) -> HostRow:
        keys, self._keys = self._keys, None
        self._left -= 1
        row = self._seat.asked("step", action, keys, self._left == 0)
        self._taken(row)
        return row.step, row.reward, row.discount

    def take_info(self, lanes: np.ndarray | None = None) -> Metrics:
        """That of the unroll which ended."""
        assert self._after is not None and lanes is None
        return self._after.info

    def snapshot(self) -> Any:
        assert self._after is not None
        return self._after.snapshot

    def close(self) -> None:
        self._seat.close()

    def _taken(self, row: Row) -> Row:
        self._after = None if row.after is None else own(row.after)
        return row


class FarActor(AskingActor):
    """Its environments are at a seat."""

    def __init__(self, index: int, seat: Seat, *arguments: Any, **options: Any):
        super().__init__(index, seat.environment, *arguments, **options)
        self._seat = seat

    def _begin(self, *arguments: Any) -> None:
        self._seat.times = Times(self.times.clock)
        super()._begin(*arguments)

    def _end(self, trajectory: Trajectory) -> Trajectory:
        way = self._seat.times.seconds().get("transport", 0.0)
        self.times.add("environment", -way)
        self.times.add("transport", way)
        return super()._end(trajectory)
