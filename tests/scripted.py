"""Environments that do what a test says, when it says so; and an agent that is quick to
compile."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, threads
from jaxrl_par.types import Agent, Box, Discrete, Info, TimeStep

NUM_ENVS, LENGTH, EPISODE = 2, 4, 6
"""Environments of an actor, rows of an unroll, steps of an episode."""
HIGH = 10.0
"""Largest value of an observation that the spec allows."""


class SimulatorError(Exception):
    """What a broken simulator raises."""


class Call(NamedTuple):
    """A call of an environment."""

    kind: str
    """make, reset, step or close"""
    actor: int
    life: int
    """How many environments this actor had before."""
    step: int
    """Steps of this environment before."""


@dataclass
class World:
    """Makes environments, and sees all that is done to them.

    `before` may raise or hang; `after` gets what a step or reset is to return, and may
    return something else. Hanging calls end with the test: `release`.
    """

    before: Callable[[Call], None] = lambda call: None
    after: Callable[[Call, tuple], tuple] = lambda call, rows: rows
    released: threading.Event = field(default_factory=threading.Event)
    made: list["Scripted"] = field(default_factory=list)

    def make(self, key) -> "Scripted":
        actor = int(re.search(r"\d+", threading.current_thread().name)[0])
        life = sum(env.actor == actor for env in self.made)
        self.before(Call("make", actor, life, 0))
        self.made.append(Scripted(self, actor, life))
        return self.made[-1]

    def hang(self) -> None:
        assert self.released.wait(60)

    @property
    def rows(self) -> int:
        """Rows that were acted, over all environments."""
        return sum(env.steps for env in self.made) * NUM_ENVS

    def unclosed(self) -> list["Scripted"]:
        return [env for env in self.made if not env.closed]


class Scripted(HostEnvironment):
    """Observations count the steps of an episode, from 0 to `EPISODE`."""

    num_envs = NUM_ENVS
    observation_spec = Box((3,), low=0.0, high=HIGH)
    action_spec = Discrete(2)
    name = "Scripted"
    max_episode_steps = EPISODE

    def __init__(self, world: World, actor: int, life: int):
        self.world, self.actor, self.life = world, actor, life
        self.steps = self.closed = 0
        self._at = 0

    def call(self, kind: str) -> Call:
        return Call(kind, self.actor, self.life, self.steps)

    def reset(self):
        self.world.before(self.call("reset"))
        return self.world.after(self.call("reset"), (self._show(),))[0]

    def step(self, action):
        call = self.call("step")
        self.world.before(call)
        was_last = self._at == EPISODE
        self._at = 0 if was_last else self._at + 1
        paid = np.full(NUM_ENVS, 0.0 if was_last else 1.0, np.float32)
        continues = 0.0 if was_last or self._at == EPISODE else 1.0
        discount = np.full(NUM_ENVS, continues, np.float32)
        rows = self.world.after(call, (self._show(), paid, discount))
        self.steps += 1
        return rows

    def close(self):
        self.closed += 1
        self.world.before(self.call("close"))

    def _show(self) -> TimeStep:
        return TimeStep(
            np.full((NUM_ENVS, 3), self._at, np.float32),
            np.full(NUM_ENVS, self._at == 0),
            np.full(NUM_ENVS, self._at == EPISODE),
        )


def at(step: int, kind: str = "step", actor: int = 0, life: int | None = 0):
    """Whether a call is that one; of every life, if `life` is None."""

    def matches(call: Call) -> bool:
        here = (call.kind, call.actor, call.step) == (kind, actor, step)
        return here and life in (None, call.life)

    return matches


def raising(where, error: BaseException | None = None) -> Callable[[Call], None]:
    """Raises there."""

    def before(call: Call) -> None:
        if where(call):
            raise error or SimulatorError("out of fuel")

    return before


def hanging(world: World, where) -> Callable[[Call], None]:
    """Does not return there before the world is released."""

    def before(call: Call) -> None:
        if where(call):
            world.hang()

    return before


def sleeping(seconds: float, where) -> Callable[[Call], None]:
    def before(call: Call) -> None:
        if where(call):
            time.sleep(seconds)

    return before


def replacing(where, change) -> Callable[[Call, tuple], tuple]:
    """Returns `change(step, reward, discount)` there, of a reset `change(step)`."""
    return lambda call, rows: change(*rows) if where(call) else rows


class Sum(NamedTuple):
    params: jax.Array


AGENT = Agent(
    init=lambda key, step: Sum(jnp.zeros(())),
    initial_carry=lambda num_envs: (),
    act=lambda params, carry, step, key: (
        jnp.zeros(step.first.shape, jnp.int32),
        carry,
        {},
    ),
    greedy=lambda *args: None,
    grad=lambda state, batch, key, axis: (jnp.mean(batch.reward), Info({})),
    apply=lambda state, grads, metrics: Sum(state.params + grads),
)
"""It sums mean rewards, and learns nothing."""


def supervised(options: dict) -> dict:
    """The options of a config, those of its supervision in a part of their own."""
    names = {field.name for field in fields(SupervisionConfig)}
    supervision = {n: x for n, x in options.items() if n in names}
    others = {n: x for n, x in options.items() if n not in names}
    return others | {"supervision": SupervisionConfig(**supervision)}


def engine(world: World, agent: Agent = AGENT, **options):
    """Threads of that world, with little patience."""
    settings = {"num_actors": 2, "env_timeout": 20.0, "patience": 60.0} | options
    config = ThreadsConfig(**supervised(settings))
    return threads(agent, world.make, LENGTH, config, data_mesh(1))
