"""A small agent, and workers that share what is compiled for it: tests of threads make
hundreds of engines, and would do nothing else than compile."""

from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scripted import supervised

from jaxrl_par import loops
from jaxrl_par.bridge.parameter_server import system
from jaxrl_par.bridge.parameter_server.shards import Shards
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.testing import probes
from jaxrl_par.topologies.workers import WorkersConfig, repeat_recorded, workers
from jaxrl_par.types import Agent, Info

KEY = jax.random.key(3)
SIZE, LENGTH, NUM_ENVS = 5, 3, 2
ENV = probes.counter(NUM_ENVS)


class Toy(NamedTuple):
    """What momentum needs: an array like the parameters, and a counter."""

    params: jax.Array
    trace: jax.Array
    updates: jax.Array


def _act(params, carry, step, key):
    noise = jax.random.normal(key, step.first.shape)
    return jnp.int32(noise > params[0]), carry, {}


def _grad(state, batch, key, axis):
    noise = jax.random.normal(key, (SIZE,))
    grads = jnp.mean(batch.reward) + 0.5 * state.params + noise
    return grads, Info({"loss": jnp.sum(grads)})


def _apply(state, grads, metrics):
    trace = 0.9 * state.trace + grads
    return Toy(state.params - 0.1 * trace, trace, state.updates + 1)


TOY = Agent(
    init=lambda key, step: Toy(jnp.zeros(SIZE), jnp.zeros(SIZE), jnp.int32(0)),
    initial_carry=lambda num_envs: (),
    act=_act,
    grad=_grad,
    apply=_apply,
    greedy=_act,
)
"""Each of its gradients depends on all that workers have: parameters, data and keys."""

ADDS = TOY._replace(apply=lambda state, grads, metrics: state._replace(
    params=state.params + grads, updates=state.updates + 1
))  # fmt: skip
"""Its parameters are the sum of the gradients."""


def _adapted(state, grads, metrics):
    loss = metrics["loss"]
    return _apply(state, jnp.where(loss > 0, 0.5, 2.0) * grads, metrics)


ADAPTS = TOY._replace(apply=_adapted)
"""It reads the metrics of its update."""
ON_HOST = TOY._replace(greedy=lambda *arguments: None)
"""The same for other environments: what is compiled is for shapes."""


def share_compiled(monkeypatch) -> None:
    """All engines of an agent call the same compiled functions."""
    monkeypatch.setattr(system.kinds, "gradients", _gradients)
    monkeypatch.setattr(system.kinds, "pure_starts", _pure_starts)
    monkeypatch.setattr(system.kinds, "pure_gradients", _pure_gradients)
    monkeypatch.setattr(system, "acting", _acting)
    monkeypatch.setattr(system, "Shards", _shards)


# One learner of each agent, so that what is compiled for it is found again.
learner_of = cache(loops.learner_of)


def _once(function):
    made = {}

    def cached(*arguments):
        if arguments not in made:
            made[arguments] = function(*arguments)
        return made[arguments]

    return cached


def once_by(key, function):
    """As `_once`, where arguments cannot be compared."""
    made = {}

    def cached(*arguments):
        known = key(*arguments)
        if known not in made:
            # With its arguments, so that no others get their ids.
            made[known] = function(*arguments), arguments
        return made[known][0]

    return cached


def by_shape(apply, state, grads, num_shards, staleness):
    leaves, tree = jax.tree.flatten((state, grads))
    shapes = tuple((x.shape, np.dtype(x.dtype).name) for x in leaves)
    # Of a system, whose gradients are packed, or of the agent itself.
    applies = getattr(apply, "args", apply)
    return applies, tree, shapes, num_shards, staleness


def by_identity(*arguments):
    return tuple(x if isinstance(x, int) else id(x) for x in arguments)


_gradients = _once(system.kinds.gradients)
_pure_starts = once_by(by_identity, system.kinds.pure_starts)
_pure_gradients = once_by(by_identity, system.kinds.pure_gradients)
_acting = _once(system.acting)
_shards = once_by(by_shape, Shards)


def config_of(store="lock", num_workers=2, num_shards=1, **options) -> WorkersConfig:
    settings = {"env_timeout": 20.0, "patience": 20.0} | options
    return WorkersConfig(num_workers, store, num_shards, **supervised(settings))


def staleness(rule, max_staleness=1) -> StalenessConfig:
    return StalenessConfig(rule, max_staleness)


@contextmanager
def engine(*given, agent=TOY, env=ENV, path=None, **options):
    """Workers, closed in the end."""
    made = workers(learner_of(agent), env, LENGTH, config_of(*given, **options))
    if path:
        made.record(path)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def repetition(path, *given, agent=TOY, env=ENV, **options):
    """Their replay."""
    config = config_of(*given, **options)
    made = repeat_recorded(learner_of(agent), env, LENGTH, config, path)
    try:
        yield made
    finally:
        made.close()
