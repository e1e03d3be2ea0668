"""Several learners on one stream: each is a stage, and one of them acts.

A step of a chain is one step of each stage, in the order in which they were given. A
stage reads the states and data of all, as the stages before it have just left them, and
changes its own. So the parts of a system stay what they are alone: a model and what
plans with it (deep Dyna-Q), a teacher and its student, a policy and its auxiliary phase
(PPG).

A trajectory's carry and extras are those of the stage that acts. Another stage with
memory keeps its own, as distillation's teacher does.

A stage of `Lessons` makes updates that need nothing but what was drawn for them. Where
such a stage is the last one, and acts, its updates can be made by threads of their own
while the others go on: see `bridge.actor_learner.distillers`.
"""

import re
from collections import namedtuple
from collections.abc import Callable, Collection
from functools import cache, partial
from keyword import iskeyword
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_par.axis import Axis
from jaxrl_par.errors import refuse_any, unknown_name
from jaxrl_par.loops.learner import Data, Deferred, Learner, learner_of, over_updates
from jaxrl_par.types import Agent, Metrics, PRNGKey, State, TimeStep, Trajectory


class Parts(NamedTuple):
    """All stages, as the one whose turn it is finds them."""

    state: Any
    """A record of the states, by name of the stage, and `updates`: steps of the chain
    that were made, so that a stage can tell how old is what another one left."""
    data: Any
    """A record of their data."""


StageFn = Callable[
    [State, Data, Trajectory, PRNGKey, Axis, Parts], tuple[State, Data, Metrics]
]
"""As `LearnFn`, of the stage's own state and data, and sees the others. What it
averages over the axis depends on the trajectory or the key: that keeps it behind what
the stages before it average."""


class Lessons(NamedTuple):
    """Updates of a stage, in each step a fixed number, which keep no data."""

    number: int
    """Updates of each step."""
    draw: Callable[[Parts, PRNGKey], Any]
    """All that an update needs to know of the other stages."""
    learn: Callable[[State, Any, Axis], tuple[State, Metrics]]
    """(the stage's own state, what was drawn, axis) -> (state after it, metrics)"""
    shown: bool = False
    """Stages before it read its state. Where threads of their own learn the lessons, it
    is that before those of the last step, which are out."""


class Stage(NamedTuple):
    """A learner among others."""

    init: Callable[[PRNGKey, TimeStep], State]
    learn: StageFn | Lessons
    start: Callable[[Trajectory], Data] = lambda trajectory: ()
    """As `Learner.start`."""
    actor: Agent | None = None
    """It acts, with `params` of the stage's state; None where the stage cannot."""
    in_order: bool = False
    """As `Learner.in_order`."""
    prefix: str | None = None
    """How its metrics begin; by default the stage's name and "_"."""


_Stages = dict[str, Stage]


def chain(*, acts: str, **stages: Stage | Learner | Agent) -> Learner:
    """Learns with one stage after the other from each trajectory.

    The state is a record of the stages' states in the order of their names, so how one
    starts does not depend on its turn. `skipped` is the sum of all. It has no halves.

    Args:
      acts: the stage that acts.
      stages: by name. A learner, or an agent alone, is a stage that looks at no other.

    Raises:
      ValueError: there is no stage `acts`, or it has no actor; a name cannot be that of
        a field; metrics of two stages begin alike; lessons are below 1.
    """
    made = {name: _stage(name, given) for name, given in stages.items()}
    refuse_any(_problems(made))
    if acts not in made:
        raise unknown_name("stage", acts, made)
    actor = made[acts].actor
    if actor is None:
        able = ", ".join(name for name, stage in made.items() if stage.actor)
        raise ValueError(f"stage {acts!r} has no actor; with one: {able or 'none'}")
    deferrable = acts == list(made)[-1] and isinstance(made[acts].learn, Lessons)
    return Learner(
        actor=actor,
        init=partial(_init, made),
        params=lambda state: actor.params(getattr(state, acts)),
        start=partial(_start, made),
        learn=partial(_learn, made),
        in_order=any(stage.in_order for stage in made.values()),
        deferred=_deferred(made) if deferrable else None,
    )


def _stage(name: str, given: Stage | Learner | Agent) -> Stage:
    if isinstance(given, Stage):
        stage = given
    else:
        learner = learner_of(given)

        def learn(state, data, trajectory, key, axis, parts):
            return learner.learn(state, data, trajectory, key, axis)

        actor = learner.actor._replace(params=learner.params)
        stage = Stage(learner.init, learn, learner.start, actor, learner.in_order)
    return stage._replace(prefix=f"{name}_" if stage.prefix is None else stage.prefix)


def _problems(stages: _Stages) -> list[str]:
    found, known = [], {}
    for name, stage in stages.items():
        if name == "updates":
            found.append("'updates' counts the steps of the chain, and is no stage")
        elif not _is_field(name):
            field = re.sub(r"\W", "_", name).strip("_")
            field = field if _is_field(field) else f"stage_{field}"
            found.append(
                f"a stage is a field of the state, whose name cannot be {name!r}; did"
                f" you mean {field!r}?"
            )
        if known.setdefault(stage.prefix, name) != name:
            found.append(
                f"metrics of the stages {known[stage.prefix]!r} and {name!r} both begin"
                f" with {stage.prefix!r}"
            )
        if isinstance(stage.learn, Lessons) and stage.learn.number < 1:
            found.append(
                f"{name}: lessons must be at least 1, got {stage.learn.number}"
            )
    return found


def _is_field(name: str) -> bool:
    return name.isidentifier() and not iskeyword(name) and name[0] != "_"


@cache
def _record(names: tuple[str, ...]) -> Any:
    """One class for the same names, so that equal chains have one tree structure."""
    return namedtuple("Chained", names)


def _keys(names: Collection[str], key: PRNGKey) -> dict[str, PRNGKey]:
    return dict(zip(names, jax.random.split(key, len(names)), strict=True))


def _init(stages: _Stages, key: PRNGKey, step: TimeStep) -> Any:
    keys = _keys(sorted(stages), key)
    states = {name: stages[name].init(key, step) for name, key in keys.items()}
    return _record((*states, "updates"))(**states, updates=jnp.int32(0))


def _start(stages: _Stages, trajectory: Trajectory) -> Any:
    names = tuple(sorted(stages))
    return _record(names)(*(stages[name].start(trajectory) for name in names))


def _learn(
    stages: _Stages, state: Any, data: Any, trajectory: Trajectory, key: PRNGKey, axis
) -> tuple[Any, Any, Metrics]:
    keys = _keys(stages, key)
    now, metrics = _taught(stages, keys, Parts(state, data), trajectory, axis)
    return now.state._replace(updates=state.updates + 1), now.data, metrics


def _taught(
    stages: _Stages,
    keys: dict[str, PRNGKey],
    now: Parts,
    trajectory: Trajectory,
    axis: Axis,
) -> tuple[Parts, Metrics]:
    """The parts after the turn of each stage that has a key."""
    metrics: Metrics = {}
    for name, key in keys.items():
        stage, (own, kept) = stages[name], [getattr(x, name) for x in now]
        if metrics:
            # Each may have collectives of its own: see `Axis.after`.
            trajectory, key = axis.after((trajectory, key), metrics)
        if isinstance(stage.learn, Lessons):
            own, more = _lessons(stage.learn, name, own, key, axis, now)
        else:
            own, kept, more = stage.learn(own, kept, trajectory, key, axis, now)
        now = Parts(_with(now.state, name, own), _with(now.data, name, kept))
        metrics = _joined(stage, metrics, more)
    return now, metrics


def _lessons(
    lessons: Lessons, name: str, state: State, key: PRNGKey, axis: Axis, now: Parts
) -> tuple[State, Metrics]:
    def once(state: State, key: PRNGKey):
        seen = now._replace(state=_with(now.state, name, state))
        return lessons.learn(state, lessons.draw(seen, key), axis)

    state, metrics = jax.lax.scan(once, state, jax.random.split(key, lessons.number))
    return state, over_updates(metrics)


def _deferred(stages: _Stages) -> Deferred:
    """The last stage, apart from the others."""
    name, stage = list(stages.items())[-1]
    lessons: Any = stage.learn
    return Deferred(
        lead=partial(_lead, stages),
        learn=lessons.learn,
        join=lambda metrics, learned: _joined(stage, metrics, over_updates(learned)),
        part=lambda state: getattr(state, name),
        replace=lambda state, part: _with(state, name, part),
        shown=lessons.shown,
    )


def _lead(
    stages: _Stages, state: Any, data: Any, trajectory: Trajectory, key: PRNGKey, axis
) -> tuple[Any, Any, Metrics, Any]:
    """All stages but the last, for which the lessons are drawn."""
    keys = _keys(stages, key)
    name, last_key = keys.popitem()
    own = getattr(state, name)
    lessons: Any = stages[name].learn
    hidden = _with(state, name, _Elsewhere(name))
    now = Parts(state if lessons.shown else hidden, data)
    now, metrics = _taught(stages, keys, now, trajectory, axis)
    now = now._replace(state=_with(now.state, name, _Elsewhere(name)))
    # One by one, as in `_lessons`: a joint forward pass would round in another way.
    drawn = jax.lax.map(
        partial(lessons.draw, now), jax.random.split(last_key, lessons.number)
    )
    state = _with(now.state, name, own)._replace(updates=state.updates + 1)
    return state, now.data, metrics, drawn


class _Elsewhere:
    """In place of a state that other threads have: it would be an old one."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, field: str) -> Any:
        raise ValueError(
            f"the state of stage {self._name!r} is learned in threads of its own, and"
            f" nothing but its own lessons can read it: {field!r}"
        )


def _with(record: Any, name: str, part: Any) -> Any:
    return record._replace(**{name: part})


def _joined(stage: Stage, metrics: Metrics, more: Metrics) -> Metrics:
    """Metrics of one more stage among those of the stages before it.

    Raises:
      ValueError: a metric is there already.
    """
    rest: dict[str, Any] = dict(more)
    skipped: Any = rest.pop("skipped", 0.0)
    named = {f"{stage.prefix}{name}": value for name, value in rest.items()}
    twice = sorted(named.keys() & metrics.keys())
    refuse_any(f"two stages have a metric {name!r}" for name in twice)
    before: Any = metrics.get("skipped", jnp.float32(0))
    return {**metrics, **named, "skipped": before + skipped}
