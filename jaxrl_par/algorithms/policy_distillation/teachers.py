"""Teachers that do not learn any more: what they think, and what they do."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxrl_par import compatible
from jaxrl_par.errors import RefusedError
from jaxrl_par.types import (
    Action,
    Agent,
    Carry,
    Params,
    Preferences,
    PRNGKey,
    Specs,
    TaskObs,
    TimeStep,
)

Memories = tuple[Carry, ...]
"""Of each teacher, of all lanes."""


class FixedTeacher(NamedTuple):
    """An agent that does not learn any more."""

    agent: Agent
    params: Params
    specs: tuple[Specs, Specs]
    """Those of observations and actions that it learned with."""
    name: str
    """What it is called where it is refused."""


class Teachers(NamedTuple):
    """The teacher of each task, in their order."""

    each: tuple[FixedTeacher, ...]

    def refuse(self, specs: tuple[Specs, Specs] | None) -> None:
        """Accepts the teachers of a student that was made for these specs.

        Raises:
          RefusedError: there is not one for each task; one cannot tell what it thinks,
            or learned with other specs than those of the only task.
        """
        for teacher in self.each:
            if teacher.agent.preferences is None:
                raise RefusedError(
                    f"{teacher.name} cannot tell what it thinks of all actions: a"
                    " teacher has discrete ones, and a network of this library"
                )
        several = specs is not None and isinstance(specs[0], TaskObs)
        number = specs[0].task.num_values if specs and several else 1
        if self.each and len(self.each) != number:
            raise RefusedError(
                f"teachers must be one for each task, which are {number}, got"
                f" {len(self.each)}"
            )
        for teacher in () if several else self.each:
            told = f"its teacher {teacher.name} was made for"
            remedy = "A student learns where its teacher did"
            compatible.refuse_others(specs, teacher.specs, "the student", told, remedy)

    def leaves(self) -> list[list[Array]]:
        """All that they have learned."""
        return [jax.tree.leaves(teacher.params) for teacher in self.each]

    def initial_carry(self, num_envs: int) -> Memories:
        return tuple(x.agent.initial_carry(num_envs) for x in self.each)

    def preferences(
        self, leaves: PyTree, carries: Memories, step: TimeStep
    ) -> tuple[Preferences, Memories]:
        """What the teacher of each lane's task thinks, and the memories of all after.

        Actions that the task lacks are -inf.
        """
        said, after = [], []
        for i, teacher in enumerate(self.each):
            assert teacher.agent.preferences is not None
            given = (self._params(leaves, i), carries[i], self.seen(step, i))
            told, carry = teacher.agent.preferences(*given)
            said.append(told._replace(actions=_padded(told.actions, step)))
            after.append(carry)
        return _of_task(said, step), tuple(after)

    def act(
        self, leaves: PyTree, carries: Memories, step: TimeStep, key: PRNGKey
    ) -> Action:
        """What the teacher of each lane's task does."""
        done = []
        for i, teacher in enumerate(self.each):
            given = (self._params(leaves, i), carries[i], self.seen(step, i))
            action, _, _ = teacher.agent.act(*given, jax.random.fold_in(key, i))
            done.append(action)
        return _of_task(done, step)

    def seen(self, step: TimeStep, i: int) -> TimeStep:
        """What teacher i sees of all lanes."""
        if not isinstance(step.obs, TaskObs):
            return step
        return step._replace(obs=step.obs.own(self.each[i].specs[0]))

    def _params(self, leaves: PyTree, i: int) -> Params:
        structure = jax.tree.structure(self.each[i].params)
        return jax.tree.unflatten(structure, leaves[i])


def _of_task(each: Sequence[Any], step: TimeStep) -> Any:
    """From leaves [B, ...] of every task to those of each lane's own."""
    if len(each) == 1:
        return each[0]

    def own(*xs: Array) -> Array:
        tasks = [step.obs.task == i for i in range(len(xs))]
        tasks = [x.reshape(-1, *[1] * (xs[0].ndim - 1)) for x in tasks]
        tasks = [jnp.broadcast_to(x, y.shape) for x, y in zip(tasks, xs, strict=True)]
        return jnp.select(tasks, list(xs))

    return jax.tree.map(own, *each)


def _padded(actions: Float[Array, "B A"], step: TimeStep) -> Float[Array, "B A_"]:
    if not isinstance(step.obs, TaskObs):
        return actions
    lacks = step.obs.allowed.shape[-1] - actions.shape[-1]
    return jnp.pad(actions, [(0, 0), (0, lacks)], constant_values=-jnp.inf)
