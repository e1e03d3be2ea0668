"""Learners in processes of their own, each at its own pace.

A learner acts and learns in one thread, and is met in another one: whoever meets it
waits for that alone, and not for what it computes.
"""

import threading
from typing import Any, NamedTuple, Protocol

from jaxrl_par.bridge.reports import Shares, Times
from jaxrl_par.fleet.arrays import on_host, own_on
from jaxrl_par.fleet.peers import Begun
from jaxrl_par.fleet.process import Process
from jaxrl_par.fleet.recipe import Recipe
from jaxrl_par.fleet.turns import Asked, Grant, Place
from jaxrl_par.lazy import late
from jaxrl_par.loops import Run
from jaxrl_par.types import Metrics

ray: Any = late("ray")


class Joined(NamedTuple):
    """What a learner has to know to take turns."""

    turns: str
    """By which Ray finds whoever gives them."""
    place: int
    generation: int
    """How often the learner was made anew."""
    env_steps: int
    """Of all, counted there until now."""
    patience: float
    """Seconds without an answer after which another learner is taken for lost."""


class Standing(NamedTuple):
    """How far a learner is, between two of its turns."""

    run: Run
    """Leaves in NumPy."""
    metrics: list[tuple[int, Metrics]]
    """By number, of its turns since this was asked last."""
    shares: Shares
    """Of its time until now."""


class Paced(Protocol):
    """A learner, as a recipe makes it."""

    def begin(self, place: int) -> Begun:
        """A new run, and all that is compiled."""
        ...

    def resume(self, run: Run) -> None: ...

    def replace(self, run: Run, number: int, unrolls: int | None) -> None:
        """Takes the place of one that is lost, after so many turns of all and unrolls
        of that one, if these are other than those of the run."""
        ...

    def join(self, env_steps: int) -> None:
        """`env_steps`: of all, counted until now where turns are given."""
        ...

    @property
    def read(self) -> int:
        """Turns that were over when it began its unroll."""
        ...

    def act(self) -> Asked:
        """An unroll, and what is learned from it, by what it had when it began."""
        ...

    def parts(self) -> Any:
        """What it has for others."""
        ...

    def give(self, theirs: Any) -> None:
        """It is met by another one, which has this."""
        ...

    def meet(self, grant: Grant, theirs: Any) -> Metrics:
        """Ends its turn; None stands for nobody."""
        ...

    def standing(self, number: int, env_steps: int) -> Run:
        """After so many turns and environment steps of all."""
        ...

    @property
    def run(self) -> Run: ...


class PacedProcess(Process):
    """A Ray actor with a learner: one thread learns, another one answers."""

    _paced: Paced

    def __init__(self, name: str):
        super().__init__(name)
        self._metrics: list[tuple[int, Metrics]] = []
        self._times = Times()
        self._lock = threading.Lock()
        """What is averaged is read and written by both threads."""

    def begin(self, place: int) -> Begun:
        begun = self._paced.begin(place)
        return begun._replace(run=on_host(begun.run))

    def resume(self, run: Run) -> None:
        self._paced.resume(own_on(_device(), run))

    def replace(self, run: Run, place: Place) -> None:
        """See `Paced`."""
        run = own_on(_device(), run)
        self._paced.replace(run, place.number, place.unrolls)

    def read(self) -> int:
        """See `Paced`."""
        return self._paced.read

    def learn(self, joined: Joined) -> None:
        """Unroll after unroll, until another one has taken its place."""
        turns, times = ray.get_actor(joined.turns), Times()
        self._times = times
        me = joined.place, joined.generation
        self._paced.join(joined.env_steps)
        while True:
            asked = times.timed("learning", self._paced.act)
            taken = turns.take.remote(*me, asked)
            grant = times.timed("waiting for a turn", ray.get, taken)
            if grant is None:
                return
            missed = times.timed("meeting", self._met, grant, joined)
            turns.done.remote(*me, missed)

    def exchange(self, theirs: Any) -> Any:
        """Has the mean of both from now on; what it had."""
        with self._lock:
            parts = on_host(self._paced.parts())
            self._paced.give(own_on(_device(), theirs))
        return parts

    def run(self) -> Run:
        """What it has now."""
        with self._lock:
            return on_host(self._paced.run)

    def standing(self, number: int, env_steps: int) -> Standing:
        """Between two turns of all: see `Paced`."""
        metrics, self._metrics = self._metrics, []
        run = on_host(self._paced.standing(number, env_steps))
        return Standing(run, metrics, self._times.shares())

    def present(self, asker: int) -> None:
        """That it is there."""

    def _load(self, recipe: Recipe) -> None:
        self._paced = recipe.make(recipe.key, *recipe.arguments)

    def _met(self, grant: Grant, joined: Joined) -> bool:
        """Meets who was drawn; whether that one is lost."""
        name = grant.name
        theirs = self._exchanged(name, joined.patience) if name else None
        with self._lock:
            metrics = on_host(self._paced.meet(grant, theirs))
        self._metrics.append((grant.number, metrics))
        return theirs is None and name != ""

    def _exchanged(self, name: str, patience: float) -> Any:
        """What another one has, which takes the mean; None if it does not answer."""
        with self._lock:
            sent = on_host(self._paced.parts())
        try:
            method = ray.get_actor(name).exchange
            answer = method.options(concurrency_group="watch").remote(sent)
            return own_on(_device(), ray.get(answer, timeout=patience))
        except (ValueError, ray.exceptions.RayError):
            return None


def _device() -> Any:
    import jax

    return jax.devices("cpu")[0]
