"""Parameters that are pulled where an episode begins, and hold until it ends.

Asynchronous collectors do so: whoever moves a robot takes the newest parameters while
it is brought back, and never waits for the learner in between. Here that is data: each
environment has in its carry the parameters with which its episode began. So they are
the same in every topology, also where several environments share an actor, and a run
that is resumed goes on with them.

What they cost is a copy for each environment, in the carry: take a buffer that keeps no
carry (`replay.without_carry`). In threads the `lag` of a row is still that of what its
actor had been given, and what acted is up to an episode older.

Source: Gu et al., arXiv:1610.00633, algorithm 1.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_par.errors import RefusedError, lacking, refuse_any
from jaxrl_par.types import (
    Agent,
    Batch,
    Carry,
    Extras,
    Params,
    PRNGKey,
    State,
    TimeStep,
    Trajectory,
    as_acted,
    example,
    nothing,
)


class Pulled(NamedTuple):
    """What an environment is acted in with."""

    held: Params
    """Leaves [B, ...]; before the first row of a stream, zeros that nobody reads."""
    inner: Carry
    """The agent's own."""


def pulling_at_starts(agent: Agent) -> Agent:
    """The same agent, which acts with the parameters that were the newest where the
    episode of that environment began.

    `greedy`, which evaluates, has the newest always.

    Raises:
      RefusedError: `agent` is none, or does not know its specs.
    """
    makes = "an Agent, as algorithms make"
    refuse_any(lacking(makes, "init", "act", "params", agent=agent))
    if agent.specs is None:
        raise RefusedError(
            "an agent that holds parameters must know its specs: make its network from"
            " those of the environment"
        )
    step = _example(agent.specs[0])

    def initial_carry(num_envs: int) -> Pulled:
        begun = partial(agent.init, jax.random.key(0), step)
        shapes = jax.eval_shape(lambda: agent.params(begun()))
        held = jax.tree.map(lambda x: jnp.zeros((num_envs, *x.shape), x.dtype), shapes)
        return Pulled(held, agent.initial_carry(num_envs))

    def act(params: Params, carry: Pulled, step: TimeStep, key: PRNGKey):
        held = jax.tree.map(lambda x, y: _pulled(step, x, y), params, carry.held)
        keys = jax.random.split(key, step.first.shape[0])
        alone = jax.vmap(_alone(agent))
        action, inner, extras = alone(held, carry.inner, step, keys)
        return action, Pulled(held, inner), extras

    def greedy(params: Params, carry: Pulled, step: TimeStep, key: PRNGKey):
        action, inner, extras = agent.greedy(params, carry.inner, step, key)
        return action, carry._replace(inner=inner), extras

    def complete(params: Params, carry: Pulled, trajectory: Trajectory) -> Extras:
        return agent.complete(params, carry.inner, _own(trajectory))

    def prepare(state: State, trajectory: Trajectory, axis: Any) -> Batch:
        return agent.prepare(state, _own(trajectory), axis)

    def observe(state: State, trajectory: Trajectory, axis: Any) -> State:
        return agent.observe(state, _own(trajectory), axis)

    return agent._replace(
        initial_carry=initial_carry,
        act=act,
        greedy=greedy,
        # Who has none of them is known by these.
        complete=as_acted if agent.complete is as_acted else complete,
        observe=nothing if agent.observe is nothing else observe,
        prepare=prepare,
        preferences=None,
    )


def _alone(agent: Agent):
    """`act` in one environment, of leaves without its axis."""

    def act(params: Params, carry: Carry, step: TimeStep, key: PRNGKey):
        carry, step = jax.tree.map(lambda x: x[None], (carry, step))
        made = agent.act(params, carry, step, key)
        return jax.tree.map(lambda x: x[0], made)

    return act


def _pulled(step: TimeStep, newest: Any, held: Any) -> Any:
    first = step.first.reshape(-1, *[1] * (held.ndim - 1))
    return jnp.where(first, newest[None], held)


def _own(trajectory: Trajectory) -> Trajectory:
    """As the agent itself leaves it."""
    carry = trajectory.carry
    kept = isinstance(carry, Pulled)  # a buffer may keep none
    return trajectory._replace(carry=carry.inner) if kept else trajectory


def _example(observation_spec: Any) -> TimeStep:
    no = jnp.zeros(1, bool)
    return TimeStep(example(observation_spec, 1), no, no)
