"""The members of a process, as the bridge makes them, and what they are told to do."""

from contextlib import suppress
from typing import Any

import jax
import numpy as np

from jaxrl_par.bridge.actor import Actor, MakeEnv, acting
from jaxrl_par.bridge.factory import ActorFactory, PooledActor
from jaxrl_par.bridge.supervision import Activity, Stopped
from jaxrl_par.fleet.messages import (
    NoParameters,
    Progress,
    Reply,
    Shown,
    Started,
    failed,
)
from jaxrl_par.fleet.parameters import NoHolderError, Puller
from jaxrl_par.fleet.recipe import Recipe
from jaxrl_par.types import Agent, PRNGKey


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


class Actors(ActorFactory[Actor]):
    """Actors as `ActorLearnerSystem` makes them, without its learner."""

    def __init__(
        self,
        key: PRNGKey,
        make_env: MakeEnv,
        agent: Agent,
        unroll_length: int,
        num_actors: int,
        check_bounds: bool,
        kept: int,
    ):
        """
        Args:
          kept: versions of the parameters that may act at the same time.
        """
        super().__init__(key, agent)
        self._make_env = make_env
        self._length = unroll_length
        self._check_bounds = check_bounds
        self._acting = acting(agent, unroll_length, num_actors)
        self._puller = Puller(kept)

    def actor(self, index: int, **options: Any) -> "PullingActor":
        return PullingActor(
            index, self._make_env, self._acting, self._length, self._root,
            jax.devices("cpu")[0], claim=self.claim, check_bounds=self._check_bounds,
            puller=self._puller, **options,
        )  # fmt: skip


class PullingActor(Actor):
    """An actor that pulls the parameters with which it acts."""

    def __init__(self, *arguments: Any, puller: Puller, **options: Any):
        super().__init__(*arguments, **options)
        self._puller = puller

    def pulled(self, unroll: int, holder: str, at_least: int, exact: bool) -> Any:
        """An unroll with parameters from there, as a message.

        Raises:
          RuntimeError: another unroll is due.
          Exception: as `unroll`.
        """
        if unroll != self.next_unroll:
            # Asked again, or in another order: it would be another unroll.
            raise RuntimeError(f"unroll {unroll} was asked for, not {self.next_unroll}")
        try:
            version, params = self._puller.pull(holder, at_least, exact)
        except NoHolderError as error:
            return NoParameters(str(error))
        item = self.unroll(params, version)
        return item._replace(after=on_host(item.after))


class Members:
    """Those of one process."""

    def __init__(self, recipe: Recipe, where: str):
        self._factory = recipe.make(recipe.key, *recipe.arguments)
        self._where = where
        self._members: dict[int, PooledActor] = {}
        self._activities: dict[int, Watched] = {}
        self._told: dict[int, dict[str, float]] = {}

    def do(self, index: int, method: str, *arguments: Any) -> Reply:
        """What the method gives, or what it raised; rows and seconds in both cases."""
        member = self._members.get(index)
        rows = member.rows if member else 0
        try:
            result = getattr(self, f"_{method}")(index, *arguments)
            problem = None
        except Exception as error:
            result, problem = None, failed(error, self._where)
        member = self._members.get(index)
        rows = member.rows - rows if member else 0
        return Reply(result, problem, max(rows, 0), self._seconds(index))

    def progress(self, index: int) -> Progress:
        activity = self._activities.get(index)
        if activity is None:
            return Progress(0, False, "starting", 0)
        rows = self._members[index].rows_in_progress
        return Progress(activity.calls, activity.inside, activity.doing, rows)

    def cancel(self, index: int) -> None:
        if activity := self._activities.get(index):
            activity.give_up()

    def _start(self, index: int, *where: Any) -> Started:
        member = self._new(index)
        member.start(*where)
        return self._started(member, goes_on=True)

    def _resume(self, index: int, *where: Any) -> Started:
        member = self._new(index)
        goes_on = member.resume(*where)
        return self._started(member, goes_on)

    def _close(self, index: int) -> None:
        if member := self._members.get(index):
            with suppress(Stopped):  # it was cancelled, and is closed
                member.close()

    def _pulled(self, index: int, *arguments: Any) -> Any:
        member: Any = self._members[index]
        return member.pulled(*arguments)

    def _new(self, index: int) -> PooledActor:
        """A member whose predecessor was closed."""
        self._activities[index] = Watched(f"member {index}")
        member = self._factory.actor(index, activity=self._activities[index])
        self._members[index] = member
        self._told[index] = {}
        return member

    def _started(self, member: PooledActor, goes_on: bool) -> Started:
        env = member.env
        shown = Shown(env.name, env.num_envs, env.observation_spec, env.action_spec)
        return Started(shown, on_host(member.state()), goes_on)

    def _seconds(self, index: int) -> dict[str, float]:
        """What was added to the member's times since the last answer."""
        if index not in self._members:
            return {}
        now, before = self._members[index].times.seconds(), self._told[index]
        self._told[index] = now
        return {name: x - before.get(name, 0.0) for name, x in now.items()}


def on_host(tree: Any) -> Any:
    """With leaves in NumPy, memory that is written no more."""
    return jax.tree.map(np.asarray, jax.device_get(tree))
