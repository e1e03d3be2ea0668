"""Several tasks as one environment, for one network that learns them all.

Each lane has one of the tasks, and they share the lanes in equal parts, one block after
the other. What is shown is padded to the most channels, actions are as many as the task
with the most has, and a step says which task it is and which actions that has: see
`types.TaskObs`. In place of an action that it lacks, a task does its last one.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from jaxrl_par.envs.base import Environment, Episode
from jaxrl_par.envs.catalogue import tasks
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.types import Action, Box, Discrete, PRNGKey, TaskObs, TimeStep


class _Task(NamedTuple):
    """One of the tasks, in the lanes that it has."""

    number: int
    env: Environment
    num_actions: int
    lanes: slice

    def shown(self, step: TimeStep, spec: Box, most: int) -> TimeStep:
        """The step as it is shown where tasks have up to so many actions."""
        number = step.first.shape[0]
        allowed = jnp.broadcast_to(jnp.arange(most) < self.num_actions, (number, most))
        task = jnp.full(number, self.number, jnp.int32)
        return step._replace(obs=TaskObs(_padded(step.obs, spec), task, allowed))


class _Several(NamedTuple):
    """The functions of an `Environment`, with what they are made of."""

    tasks: Sequence[_Task]
    """Those that have lanes."""
    spec: Box
    """Of what any task shows."""
    most: int
    """Actions of the task with the most."""

    def reset(self, key: PRNGKey):
        states, steps = [], []
        for x in self.tasks:
            state, step = x.env.reset(jax.random.fold_in(key, x.number))
            states.append(state)
            steps.append(x.shown(step, self.spec, self.most))
        return tuple(states), _joined(steps)

    def step(self, env_state: Any, action: Action, key: PRNGKey):
        states, rows = [], []
        for x, state in zip(self.tasks, env_state, strict=True):
            own = jnp.minimum(action[x.lanes], x.num_actions - 1)
            own_key = jax.random.fold_in(key, x.number)
            state, step, reward, discount = x.env.step(state, own, own_key)
            states.append(state)
            rows.append((x.shown(step, self.spec, self.most), reward, discount))
        return tuple(states), *_joined(rows)

    def episode(self, env_state: Any) -> Episode:
        both = zip(self.tasks, env_state, strict=True)
        all_ = [x.env.episode(state) for x, state in both if x.env.episode]
        # A mean over episodes is one of all tasks: what only some tell has none.
        common = set.intersection(*({*x.told} for x in all_))
        return _joined(
            x._replace(told={name: x.told[name] for name in sorted(common)})
            for x in all_
        )

    def draw(self, env_state: Any, i: int):
        k = next(k for k, x in enumerate(self.tasks) if i < x.lanes.stop)
        drawn = self.tasks[k].env.draw
        assert drawn is not None
        return drawn(env_state[k], i - self.tasks[k].lanes.start)


def several(
    make: Callable[[str, int], Environment], name: str, num_envs: int
) -> Environment:
    """Environments of all tasks in a name, as "Breakout-MinAtar+Asterix-MinAtar" has.

    Args:
      make: (name of one task, num_envs) -> its environments.
      num_envs: all together. Where the tasks do not divide them, the first ones have
        one more, and those for which nothing is left have none.

    Raises:
      RefusedError: `num_envs` is below 1, a task is there twice, or the tasks cannot be
        padded to one shape.
    """
    refuse(num_envs=num_envs)
    names = tasks(name)
    if len(set(names)) < len(names):
        raise RefusedError(f"each task must be another one, got {name}")
    number, more = divmod(num_envs, len(names))
    counts = [number + (i < more) for i in range(len(names))]
    made = [make(x, max(n, 1)) for x, n in zip(names, counts, strict=True)]
    actions, ends = _numbers_of_actions(made), np.cumsum(counts).tolist()
    present = [
        _Task(i, made[i], actions[i], slice(ends[i] - count, ends[i]))
        for i, count in enumerate(counts)
        if count
    ]
    joint = _Several(present, _joint_spec(made), max(actions))
    bits = Box((joint.most,), np.dtype(bool), 0.0, 1.0)
    limits = [x for x in (env.max_episode_steps for env in made) if x is not None]
    return Environment(
        reset=joint.reset,
        step=joint.step,
        num_envs=num_envs,
        observation_spec=TaskObs(joint.spec, Discrete(len(made)), bits),
        action_spec=Discrete(joint.most),
        name=name,
        max_episode_steps=max(limits) if len(limits) == len(made) else None,
        episode=joint.episode if all(env.episode for env in made) else None,
        draw=joint.draw if all(env.draw for env in made) else None,
        stagger=max(env.stagger for env in made),
    )


def _joined(records: Iterable[Any]) -> Any:
    """One record [B, ...] of those of the tasks."""
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *records)


def _padded(x: Num[Array, "B ..."], spec: Box) -> Num[Array, "B ..."]:
    lacks = spec.shape[-1] - x.shape[-1]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, lacks)])


def _numbers_of_actions(made: Sequence[Environment]) -> list[int]:
    found = []
    for env in made:
        spec = env.action_spec
        if not isinstance(spec, Discrete):
            raise RefusedError(
                "tasks of one network choose one of some actions:"
                f" {env.name} has {spec}"
            )
        found.append(spec.num_values)
    return found


def _joint_spec(made: Sequence[Environment]) -> Box:
    """An array that holds what any of the tasks shows.

    Raises:
      RefusedError: one shows no array, or they differ in more than their last axis.
    """
    specs: list[Box] = []
    for env in made:
        spec = env.observation_spec
        if not isinstance(spec, Box) or not spec.shape:
            raise RefusedError(
                "tasks of one network show one array each, without a mask:"
                f" {env.name} has {spec}"
            )
        specs.append(spec)
        first = specs[0]
        if (spec.shape[:-1], spec.dtype) != (first.shape[:-1], first.dtype):
            raise RefusedError(
                "tasks of one network show arrays that differ in their last axis alone:"
                f" {made[0].name} has {first}, {env.name} has {spec}"
            )
    bounds = (
        [float(np.min(x.low)) for x in specs],
        [float(np.max(x.high)) for x in specs],
    )
    last = max(x.shape[-1] for x in specs)
    shape = (*specs[0].shape[:-1], last)
    # Padding is 0.
    return Box(shape, specs[0].dtype, min(0.0, *bounds[0]), max(0.0, *bounds[1]))
