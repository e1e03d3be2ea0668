"""Environments of a process that holds no network: each step is asked for.

Nothing here imports JAX. Simulators that are made from a seed need none.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxrl_par import compatible
from jaxrl_par.bridge.pooled import PooledActor
from jaxrl_par.bridge.supervision import Activity
from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.fleet.claims import Claims
from jaxrl_par.stream import Metrics, TimeStep


class Counted(NamedTuple):
    """Of environments that were made: what is the state of other members."""

    unroll: int
    """Calls of them until now."""
    generation: int


class After(NamedTuple):
    """What is asked for between two unrolls, sent with the row before."""

    info: Metrics
    snapshot: Any
    """As `HostEnvironment.snapshot`."""


class Row(NamedTuple):
    """The next row of a stream; of the first one, only the step."""

    step: TimeStep
    reward: Any
    discount: Any
    after: After | None
    """None in the middle of an unroll."""


class Stepped(PooledActor):
    """Environments that do what they are told, a call at a time."""

    kind = "actor"

    def __init__(
        self, index: int, make_env: Callable[[Any], HostEnvironment],
        claim: Callable[[int, Any], None], *, activity: Activity,
    ):  # fmt: skip
        super().__init__(index, None, None, activity)
        self._make_env = make_env
        self._claim = claim

    def start(self, key: Any, generation: int = 0, unroll: int = 0) -> None:
        """Makes them; `reset` or `restore` comes next."""
        self.generation, self.next_unroll = generation, unroll
        # Kept before it can be refused, so that it is closed.
        self.env = self._timed("make", self._make_env, key)
        self._claim(self.index, self.env)

    def resume(self, state: Any, key: Any, fresh_key: Any) -> bool:
        """Not asked for: who steps them tells them where to go."""
        raise NotImplementedError

    def reset(self) -> Row:
        return self._shown(self._timed("reset", self.env.reset))

    def restore(self, snapshot: Any) -> Row:
        return self._shown(self._timed("restore", self.env.restore, snapshot))

    def step(self, action: Any, keys: Any, ends: bool) -> Row:
        """
        Args:
          keys: for `HostEnvironment.plan`; None if there are some, or none are needed.
          ends: whether the unroll ends with this row.
        """
        if keys is not None:
            self.env.plan(keys)
        step, reward, discount = self._timed("step", self.env.step, action)
        return Row(step, reward, discount, self._after() if ends else None)

    def state(self) -> Counted:
        return Counted(self.next_unroll, self.generation)

    def where(self, row: int | None = None) -> str:
        return f"environments of actor {self.index}"

    def close(self) -> None:
        env, self.env = self.env, None
        if env is not None:
            self._timed("close", env.close)

    def _shown(self, step: TimeStep) -> Row:
        return Row(step, None, None, self._after())

    def _after(self) -> After:
        return After(self.env.take_info(), self.env.snapshot())

    def _timed(self, doing: str, call: Callable[..., Any], *arguments: Any) -> Any:
        self._activity.begin(doing)
        try:
            return self.times.timed("environment", call, *arguments)
        finally:
            self._activity.end()


class Stepping:
    """As `roles.Acting`, for actors that act elsewhere."""

    def __init__(
        self,
        key: None,
        make_env: Callable[[Any], HostEnvironment],
        specs: compatible.Both | None,
        sent: Callable[[Any], Any],
    ):
        """
        Args:
          key: None: nothing is drawn here.
          make_env: from a seed, or from a key.
          specs: those that the agent was made for.
          sent: of what environments show, leaves in NumPy.
        """
        self._make_env = make_env
        self._claims = Claims(specs)
        self.sent = sent

    def actor(self, index: int, **options: Any) -> Stepped:
        return Stepped(index, self._make_env, self._claims.claim, **options)

    def shown(self, member: Stepped) -> Any:
        return member.env

    def work(self, member: Stepped, unroll: int, method: str, *arguments: Any) -> Row:
        """What environments show after one call."""
        row: Row = getattr(member, method)(*arguments)
        member.next_unroll += 1
        return self.sent(row)

    def data(self, index: int, unroll: int) -> Any:
        """None: what is kept is sent at the end of each unroll."""


def as_it_is(tree: Any) -> Any:
    """Where all of it is NumPy."""
    return tree
