"""An actor that holds no network: it asks what to do, step by step."""

from typing import Any, Protocol, runtime_checkable

import jax

from jaxrl_par.bridge.actor import Actor
from jaxrl_par.bridge.central.place import Answer, Ended, Request, Rest
from jaxrl_par.types import Carry, Params, PRNGKey, TimeStep, Trajectory


@runtime_checkable
class Desk(Protocol):
    """Where actors ask; it answers in any thread."""

    def restore(self, actor: int, incarnation: int, memory: Carry) -> None:
        """As `Place.restore`."""

    def ask(self, request: Request) -> Answer:
        """Waits for the answer."""
        ...

    def end(self, ended: Ended) -> Rest:
        """Waits for what an unroll has of the place that acted."""
        ...


class AskingActor(Actor):
    """Steps its environments as a desk says, and has a copy of its memory only between
    two unrolls, to be saved."""

    acts = "waiting for inference"

    def __init__(self, *arguments: Any, desk: Desk, newest: bool, **options: Any):
        """
        Args:
          desk: acts.
          newest: with the newest parameters at each step, not with those that are new
            when an unroll begins.
        """
        super().__init__(*arguments, **options)
        self._desk = desk
        self._newest = newest
        self._version: int | None = None

    def resume(self, state: Any, key: PRNGKey, fresh_key: PRNGKey) -> bool:
        exactly = super().resume(state, key, fresh_key)
        if exactly:
            self._desk.restore(self.index, self.generation, self._carry)
        return exactly

    def _begin(self, params: Params, version: int, keys: Any, step: TimeStep) -> None:
        del params, keys, step  # the desk has them
        self._version = None if self._newest else version

    def _act(self, t: int, step: TimeStep) -> Any:
        place = self.index, self.generation, self.next_unroll, t
        return self._desk.ask(Request(*place, step, self._version)).action

    def _end(self, trajectory: Trajectory) -> Trajectory:
        place = self.index, self.generation, self.next_unroll
        rest = self._desk.end(Ended(*place, trajectory))
        self._carry = jax.block_until_ready(rest.after)
        return trajectory._replace(extras=rest.extras, carry=rest.before)
