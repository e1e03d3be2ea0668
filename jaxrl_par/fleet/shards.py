"""A parameter server whose shards have a process each.

Gradients go from the process that computed them to those of the shards, and parameters
the other way: through the driver goes who pushed, and in which order. A worker leaves
the parts of its gradient with all shards before it says that it is done; then the
driver puts the push into the line, and each shard applies what was left with it. So a
worker that dies in between has pushed nothing, and one that dies later loses nothing.

What a shard has is in its process alone: one that dies ends the run, which goes on from
its last checkpoint.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_par.bridge.parameter_server.shards import Shards
from jaxrl_par.bridge.parameter_server.stores.store import Pulled, applied
from jaxrl_par.fleet.arrays import on_host, own_on
from jaxrl_par.fleet.process import Process
from jaxrl_par.fleet.recipe import Recipe
from jaxrl_par.lazy import late
from jaxrl_par.loops import Gradient
from jaxrl_par.types import PRNGKey, State

ray: Any = late("ray")

_SECONDS = 60.0
"""For a shard to answer a worker."""


class Read(NamedTuple):
    """A shard at one moment."""

    state: State
    """Leaves in NumPy."""
    pushes: int
    version: int


class HeldShard:
    """A shard, and the parts of gradients that wait for their turn."""

    def __init__(self, key: PRNGKey, made_from: tuple[Any, ...], state: State):
        """
        Args:
          made_from: arguments of `Shards`.
          state: of this shard, leaves in NumPy.
        """
        del key  # a shard draws nothing
        self._shards = Shards(*made_from)
        self._device = jax.devices("cpu")[0]
        self._state = own_on(self._device, state)
        self._pushes = self._version = 0
        self._left: dict[int, tuple[int, Gradient]] = {}

    def leave(self, worker: int, unroll: int, part: Gradient) -> None:
        """Keeps a worker's newest part: it has no two in the line."""
        self._left[worker] = unroll, own_on(self._device, part)

    def apply(self, worker: int, unroll: int, staleness: int) -> tuple[Any, bool]:
        """Metrics, and whether it was used.

        Raises:
          RuntimeError: something else was left.
        """
        left, part = self._left.pop(worker, (None, None))
        if left != unroll or part is None:
            raise RuntimeError(
                f"unroll {unroll} of worker {worker} is to be applied, and its gradient"
                f" of {left} was left"
            )
        done = applied(self._shards, self._state, part, staleness)
        self._state = done.state
        self._pushes += 1
        self._version += done.applied
        return done.metrics, done.applied

    def read(self) -> Read:
        return Read(on_host(self._state), self._pushes, self._version)


class ShardProcess(Process):
    """A Ray actor with a shard. It does one thing at a time."""

    _shard: HeldShard

    def leave(self, worker: int, unroll: int, part: Gradient) -> None:
        self._shard.leave(worker, unroll, part)

    def apply(self, worker: int, unroll: int, staleness: int) -> tuple[Any, bool]:
        return self._shard.apply(worker, unroll, staleness)

    def read(self) -> Read:
        return self._shard.read()

    def _load(self, recipe: Recipe) -> None:
        self._shard = recipe.make(recipe.key, *recipe.arguments)


class Far:
    """A worker's side: all shards, by their names."""

    def __init__(self, names: tuple[str, ...], shards: Shards):
        self._actors = [ray.get_actor(name) for name in names]
        self._shards = shards

    def read(self) -> tuple[State, Pulled]:
        """The whole state, and how far each shard of it was."""
        reads: list[Read] = self._asked([x.read.remote() for x in self._actors])
        device = jax.devices("cpu")[0]
        state = self._shards.join([own_on(device, x.state) for x in reads])
        pushes = tuple(x.pushes for x in reads)
        return state, Pulled((), pushes, tuple(x.version for x in reads))

    def leave(self, worker: int, unroll: int, given: Gradient) -> None:
        """Leaves its part with each shard, and waits until all have it."""
        parts = zip(self._actors, self._shards.divide(given), strict=True)
        self._asked([x.leave.remote(worker, unroll, on_host(y)) for x, y in parts])

    def _asked(self, calls: list[Any]) -> list[Any]:
        return ray.get(calls, timeout=_SECONDS)


def as_sent(state: State) -> State:
    """Of a tree, shapes and dtypes alone."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), state)
