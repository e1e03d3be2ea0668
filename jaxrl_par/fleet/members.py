"""The members of a process, and what they are told to do."""

from contextlib import suppress
from typing import Any, Protocol

from jaxrl_par.bridge.pooled import PooledActor
from jaxrl_par.bridge.supervision import Activity, Stopped
from jaxrl_par.fleet.messages import Progress, Reply, Shown, Started, failed
from jaxrl_par.fleet.recipe import Recipe


class Roles(Protocol):
    """Makes members of one kind, and has them work."""

    def actor(self, index: int, **options: Any) -> PooledActor:
        """A member, still without environments."""
        ...

    def shown(self, member: Any) -> Any:
        """The environments of a member, or what has their specs."""
        ...

    def work(self, member: Any, unroll: int, *arguments: Any) -> Any:
        """What a member makes of its next unroll, to be sent.

        Raises:
          RuntimeError: another one is due.
          Exception: what the environments raise.
        """
        ...

    def data(self, index: int, unroll: int) -> Any:
        """What a member kept after an unroll, one of its last two."""
        ...

    def sent(self, tree: Any) -> Any:
        """Of a state or data, leaves in NumPy."""
        ...


class Watched(Activity):
    """Counts calls of environments. They are timed by the driver, which also sees when
    the whole process hangs."""

    def __init__(self, name: str):
        super().__init__(name, float("inf"))
        self.calls = 0

    @property
    def inside(self) -> bool:
        """Whether it is in a call."""
        return self._since is not None

    def begin(self, doing: str) -> None:
        self.calls += 1
        super().begin(doing)


class Members:
    """Those of one process."""

    def __init__(self, recipe: Recipe, where: str):
        self._roles: Roles = recipe.make(recipe.key, *recipe.arguments)
        self._where = where
        self._members: dict[int, PooledActor] = {}
        self._activities: dict[int, Watched] = {}
        self._told: dict[int, dict[str, float]] = {}

    def do(self, index: int, method: str, *arguments: Any) -> Reply:
        """What the method gives, or what it raised; rows and seconds in both cases."""
        member = self._of(index)
        rows = member.rows
        try:
            result = getattr(self, f"_{method}")(member, *arguments)
            problem = None
        except Exception as error:
            result, problem = None, failed(error, self._where)
        return Reply(result, problem, member.rows - rows, self._seconds(member))

    def progress(self, index: int) -> Progress:
        activity = self._activities.get(index)
        if activity is None:
            return Progress(0, False, "starting", 0)
        rows = self._members[index].rows_in_progress
        return Progress(activity.calls, activity.inside, activity.doing, rows)

    def data(self, index: int, unroll: int) -> Any:
        return self._roles.sent(self._roles.data(index, unroll))

    def cancel(self, index: int) -> None:
        if activity := self._activities.get(index):
            activity.give_up()

    def _start(self, member: PooledActor, *where: Any) -> Started:
        member.start(*where)
        return self._started(member, goes_on=True)

    def _resume(self, member: PooledActor, *where: Any) -> Started:
        return self._started(member, goes_on=member.resume(*where))

    def _work(self, member: PooledActor, unroll: int, *arguments: Any) -> Any:
        if unroll != member.next_unroll:
            # Asked again, or in another order: it would be another unroll.
            due = member.next_unroll
            raise RuntimeError(f"unroll {unroll} was asked for, and {due} is due")
        return self._roles.work(member, unroll, *arguments)

    def _close(self, member: PooledActor) -> None:
        with suppress(Stopped):  # it was cancelled, and is closed
            member.close()

    def _of(self, index: int) -> PooledActor:
        """A member. It goes on when its environments are made anew, as in a thread: a
        worker keeps its data."""
        if index not in self._members:
            self._activities[index] = Watched(f"member {index}")
            options = {"activity": self._activities[index]}
            self._members[index] = self._roles.actor(index, **options)
            self._told[index] = {}
        return self._members[index]

    def _started(self, member: PooledActor, goes_on: bool) -> Started:
        env = self._roles.shown(member)
        shown = Shown(env.name, env.num_envs, env.observation_spec, env.action_spec)
        return Started(shown, self._roles.sent(member.state()), goes_on)

    def _seconds(self, member: PooledActor) -> dict[str, float]:
        """What was added to the member's times since the last answer."""
        now, before = member.times.seconds(), self._told[member.index]
        self._told[member.index] = now
        return {name: x - before.get(name, 0.0) for name, x in now.items()}
