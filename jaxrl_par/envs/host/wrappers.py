"""Changes of what a simulator shows; `envs.wrappers` has those of pure environments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxrl_par import trees
from jaxrl_par.envs.host.base import HostEnvironment, HostRow
from jaxrl_par.envs.previous import WithPrevious, with_previous
from jaxrl_par.stream import Action, Metrics, TimeStep


def previous_action_and_reward(env: HostEnvironment) -> HostEnvironment:
    """As `envs.wrappers.previous_action_and_reward`, for simulators."""
    return _PreviousActionAndReward(env)


def showing_previous(
    make: Callable[[int], HostEnvironment], seed: int
) -> HostEnvironment:
    """The same of what makes simulators from a seed."""
    return previous_action_and_reward(make(seed))


class _Snapshot(NamedTuple):
    inner: Any
    action: Action
    reward: np.ndarray


class _PreviousActionAndReward(HostEnvironment):
    def __init__(self, env: HostEnvironment):
        self._env = env
        self._describe(env)
        self.observation_spec = with_previous(env.specs)
        nothing = trees.map_leaves(
            lambda x: np.zeros((self.num_envs, *x.shape)), self.action_spec
        )
        self._nothing = nothing, np.zeros(self.num_envs, np.float32)
        self._keep(*self._nothing)

    def reset(self) -> TimeStep:
        self._keep(*self._nothing)
        return self._show(self._env.reset())

    def step(self, action: Any) -> HostRow:
        # Copies: callers and simulators may write into theirs.
        chosen = self._copied(action)
        step, reward, discount = self._env.step(action)
        self._action, self._reward = chosen, np.array(reward)
        return self._show(step), reward, discount

    def close(self) -> None:
        self._env.close()

    def take_info(self, lanes: np.ndarray | None = None) -> Metrics:
        return self._env.take_info(lanes)

    def render(self) -> np.ndarray | None:
        return self._env.render()

    def plan(self, keys: Any) -> None:
        self._env.plan(keys)

    def snapshot(self) -> Any:
        inner = self._env.snapshot()
        if inner is None:
            return None
        return _Snapshot(inner, self._action, self._reward)

    def restore(self, snapshot: Any) -> TimeStep:
        self._keep(snapshot.action, snapshot.reward)
        return self._show(self._env.restore(snapshot.inner))

    def _keep(self, action: Any, reward: np.ndarray) -> None:
        self._action, self._reward = self._copied(action), np.array(reward)

    def _copied(self, action: Any) -> Any:
        return trees.map_leaves(
            lambda spec, x: np.array(x, spec.dtype), self.action_spec, action
        )

    def _show(self, step: TimeStep) -> TimeStep:
        def cleared(x):
            first = np.asarray(step.first).reshape(-1, *[1] * (x.ndim - 1))
            return np.where(first, np.zeros_like(x), x)

        action = trees.map_leaves(cleared, self._action)
        previous = action, cleared(self._reward)
        return step._replace(obs=WithPrevious(step.obs, *previous))
