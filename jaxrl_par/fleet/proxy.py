"""A member of a pool whose work is done in another process."""

import time
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from jaxrl_par.bridge.pooled import PooledActor
from jaxrl_par.bridge.supervision import Activity
from jaxrl_par.bridge.unrolled import ActorState, AnyActor, Unrolled
from jaxrl_par.fleet.arrays import on_host, own
from jaxrl_par.fleet.cluster import Call, LostError
from jaxrl_par.fleet.messages import NoParameters, Progress, Reply, Started
from jaxrl_par.fleet.processes import TICK, Lease, Slot
from jaxrl_par.fleet.published import Published
from jaxrl_par.types import Params, PRNGKey, Trajectory

_CLOSE_SECONDS = 1.0
"""For a simulator to end in peace, before its process is killed."""


class Proxy(PooledActor):
    """Asks a process, and waits as long as it gets on with the work.

    One call of an environment may take as long as in a thread: how often one began is
    asked of the process, which also shows whether it hangs as a whole.
    """

    kind: str

    def __init__(
        self, index: int, root: PRNGKey, device: Any, activity: Activity,
        *, slot: Slot, thread: int, unroll_length: int,
        key_sent: Callable[[PRNGKey], Any] = lambda key: key,
    ):  # fmt: skip
        """
        Args:
          thread: its place among the members of its process.
          key_sent: from a key to what makes environments there.
        """
        super().__init__(index, root, device, activity)
        self._slot = slot
        self._thread = thread
        self._length = unroll_length
        self._key_sent = key_sent
        self._lease: Lease | None = None
        self._in_progress = 0
        self._look_seconds = min(2.0, activity.limit / 4)
        self._state: Any = None
        self._call: Call | None = None

    @property
    def rows_in_progress(self) -> int:
        return self._in_progress

    @property
    def rows_per_unroll(self) -> int:
        """Over all environments."""
        return self._length * (self.env.num_envs if self.env else 0)

    def where(self, row: int | None = None) -> str:
        name = self.env.name if self.env else "no environment"
        place = f", {self._lease.where}" if self._lease else ""
        return (
            f"{self.kind} {self.index}, {name}, unroll {self.next_unroll}, generation"
            f" {self.generation}{place}"
        )

    def start(self, key: PRNGKey, generation: int = 0, unroll: int = 0) -> None:
        self.generation, self.next_unroll = generation, unroll
        self._started("start", self._key_sent(key), generation, unroll)

    def resume(self, state: Any, key: PRNGKey, fresh_key: PRNGKey) -> bool:
        keys = self._key_sent(key), self._key_sent(fresh_key)
        return self._started("resume", on_host(state), *keys)

    def state(self) -> Any:
        return self._state

    def succeeded(self) -> None:
        """Another takes its place. If it was late, its process hangs, and the other one
        gets a new one."""
        if self._lease and self._activity.given_up:
            self._slot.condemn(self._lease)

    def close(self) -> None:
        lease, self._lease = self._lease, None
        if lease is None or not self._slot.is_current(lease):
            return
        if self._activity.given_up:
            lease.look("cancel", self.index)
        closed = lease.call(self.index, self._thread, "close")
        if not closed.ready(_CLOSE_SECONDS):
            self._slot.condemn(lease)
            return
        try:
            if self._call:
                self._told(self._call.result())  # what it was doing
            reply: Reply = closed.result()
        except LostError:
            self._slot.condemn(lease)
            return
        if reply.failed:
            raise reply.failed.as_error()

    def _accept(self, *got: int) -> None:
        """Accepts (member, generation, unroll) if it is due.

        Raises:
          RuntimeError: it came before, or is another's.
        """
        due = self.index, self.generation, self.next_unroll
        if got != due:
            raise RuntimeError(
                f"an unroll of ({self.kind}, generation, number) = {got} came, and"
                f" {due} is due: it is not learned from"
            )
        self.next_unroll += 1

    def _started(self, method: str, *arguments: Any) -> bool:
        self._in_progress = 0
        self._lease = self._slot.acquire(self._activity.end)
        started: Started = self._asked(method, *arguments)
        self.env, self._state = started.env, own(started.state)
        self.generation = int(self._state.generation)
        self.next_unroll = int(self._state.unroll)
        return started.goes_on

    def _asked(self, method: str, *arguments: Any) -> Any:
        """What the member gives.

        Raises:
          Stopped: it was cancelled, or is late.
          Exception: what it raised there, with a note that says where, or `LostError`.
        """
        lease = self._lease
        assert lease is not None
        before = self.times.clock()
        self._call = lease.call(self.index, self._thread, method, *arguments)
        self._activity.begin(method)
        try:
            self._waited(self._call, lease)
            reply: Reply = self._call.result()
        except LostError as error:
            self._call = None
            self._lost(lease, error)
        self._activity.end()
        self._call = None
        self._told(reply, self.times.clock() - before)
        if reply.failed:
            error = reply.failed.as_error()
            error.add_note(f"in {self.where()}")
            raise error
        return reply.result

    def _waited(self, call: Call, lease: Lease) -> None:
        """Until the answer is there; looks how far it is now and then."""
        calls, look = -1, None
        looked = time.monotonic()
        while not call.ready(TICK):
            if self._activity.given_up:
                self._activity.end()  # raises
            if look is None and time.monotonic() - looked > self._look_seconds:
                look, looked = lease.look("progress", self.index), time.monotonic()
            if look is None or not look.ready(0.0):
                continue
            progress: Progress = look.result()
            look = None
            # Compiling, waiting for parameters: only calls of environments are timed.
            if progress.calls != calls or not progress.inside:
                self._activity.begin(progress.doing)
            else:
                self._activity.doing = progress.doing
            calls = progress.calls
            self._count(progress.rows)

    def _told(self, reply: Reply, elapsed: float = 0.0) -> None:
        """Counts what a member did meanwhile; `elapsed` is on the clock here, which
        stands still while the owner compiles."""
        self._count(0)
        self.rows += reply.rows
        # Of one that failed they are lost, and still counted as in progress.
        self._in_progress = reply.rows if reply.failed else 0
        there = sum(reply.seconds.values())
        share = min(1.0, elapsed / there) if there else 0.0
        for doing, seconds in reply.seconds.items():
            self.times.add(doing, share * seconds)
        self.times.add("transport", max(0.0, elapsed - there))

    def _count(self, in_progress: int) -> None:
        self.rows += in_progress - self._in_progress
        self._in_progress = in_progress

    def _lost(self, lease: Lease, error: LostError) -> NoReturn:
        self._slot.condemn(lease)
        self._activity.end()
        # How far it was nobody knows: at most an unroll is lost.
        self._count(self.rows_per_unroll)
        told = LostError(f"{lease.where} is lost: {error}")
        told.add_note(f"in {self.where()}")
        raise told from error


class FleetActor(Proxy, AnyActor):
    """Acts in another process, with parameters that are pulled there."""

    def __init__(
        self, *arguments: Any, published: Published, exact: bool,
        told: Callable[[Trajectory], Trajectory] = lambda trajectory: trajectory,
        **options: Any,
    ):  # fmt: skip
        """
        Args:
          exact: act with the version that was asked for, and with none newer.
          told: from an unroll as it comes to that which is learned from.
        """
        super().__init__(*arguments, **options)
        self._published = published
        self._exact = exact
        self._told_by = told

    def unroll(self, params: Params, version: int) -> Unrolled:
        """As `Actor.unroll`, with that version or a newer one, which it pulls."""
        while True:
            holder = self._published.holder
            item = self._asked("work", self.next_unroll, holder, version, self._exact)
            if not isinstance(item, NoParameters):
                self._accept(item.actor, item.generation, item.unroll)
                return self._own(item)
            # It has not begun: the same unroll, from another holder.
            self._published.replace(holder, item.told)

    def _own(self, item: Unrolled) -> Unrolled:
        after: ActorState = own(item.after)
        self._state = after
        last = np.asarray(item.trajectory.steps.last)
        self.env_steps += int(np.sum(~last[:-1]))
        trajectory = self._told_by(item.trajectory)
        return item._replace(after=after, trajectory=trajectory)
