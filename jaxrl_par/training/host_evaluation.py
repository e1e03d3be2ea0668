"""Evaluation on simulators: as `training.evaluation`, in steps of Python.

Simulators are called in a thread of their own, as they are while training: so one that
hangs is noticed, and signals are heard meanwhile.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import jax
import numpy as np

from jaxrl_par import rollout
from jaxrl_par.bridge.supervision import (
    Activity,
    DeadlineError,
    SupervisionConfig,
    Supervisor,
)
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.host.checked import checked
from jaxrl_par.envs.host.info import total
from jaxrl_par.errors import refuse
from jaxrl_par.training.evaluation import Evaluation, bound_of
from jaxrl_par.types import Agent, Metrics, Params, PRNGKey, TimeStep

T = TypeVar("T")


def host_evaluator(
    agent: Agent,
    episodes_per_env: int,
    max_steps: int | None = None,
    supervision: SupervisionConfig = SupervisionConfig(),
) -> Callable[[HostEnvironment, Params, PRNGKey], Evaluation]:
    """A function that plays so many episodes in each of B environments.

    Actions are sampled; `agent._replace(act=agent.greedy)` takes the mode.

    Args:
      max_steps: bound of an episode, by default that of the environments.
      supervision: how long a call of an environment may take.

    Raises:
      ValueError: a count is below 1; of the function, environments have no bound.
      HangError: of the function, an environment does not come back in time.
    """
    refuse(supervision, episodes_per_env=episodes_per_env, max_steps=max_steps)

    @jax.jit
    def act(params: Params, carry, step: TimeStep, key: PRNGKey, t):
        return agent.act(params, carry, step, jax.random.fold_in(key, t))[:2]

    def evaluate(env: HostEnvironment, params: Params, key: PRNGKey) -> Evaluation:
        rollout.refuse_other_specs(agent, env)
        env = checked(env)
        bound = bound_of(env.name, env.max_episode_steps, max_steps)

        def play(activity: Activity) -> Evaluation:
            cpu = jax.local_devices(backend="cpu")[0]
            given = jax.device_put((agent.settle(params), key), cpu)
            counts, t = _Counts(episodes_per_env, env.num_envs, bound), 0
            with jax.default_device(cpu):
                step = timed(activity, "reset", env.reset)
                carry = agent.initial_carry(env.num_envs)
                while counts.missing():
                    action, carry = act(given[0], carry, step, given[1], np.int32(t))
                    action = jax.tree.map(np.asarray, action)
                    activity.begin("step")
                    step, reward, _ = env.step(action)
                    activity.end()
                    counts.add(step, reward, env)
                    t += 1
            return counts.result()

        return in_time(play, env.name, supervision.env_timeout, supervision)

    return evaluate


@contextmanager
def simulators(
    make_env: Callable[[], HostEnvironment], supervision: SupervisionConfig
) -> Iterator[HostEnvironment]:
    """Environments that are made and closed in time. Closing that fails is a warning.

    Raises:
      HangError: they are not made in time.
    """

    def make(activity: Activity) -> HostEnvironment:
        return timed(activity, "make", make_env)

    limits = supervision.env_timeout, supervision
    env = in_time(make, "environments of an evaluation", *limits)
    try:
        yield env
    finally:
        limits = supervision.close_seconds, supervision
        try:
            in_time(lambda x: timed(x, "close", env.close), env.name, *limits)
        except Exception as error:
            warnings.warn(
                f"closing {env.name} after an evaluation failed with"
                f" {type(error).__name__}: {error}",
                stacklevel=3,
            )


class _Counts:
    """What was played, of E episodes in B environments: see `Evaluation`."""

    def __init__(self, num_episodes: int, num_envs: int, bound: int):
        shape = num_episodes, num_envs
        self._returns = np.full(shape, np.nan, np.float64)
        self._lengths = np.zeros(shape, np.int32)
        self._bound, self._num_cut = bound, 0
        self._running = np.zeros(num_envs)
        self._length, self._played = np.zeros((2, num_envs), np.int64)
        self._info: list[Metrics] = []

    def missing(self) -> bool:
        return bool(self._played.min() < len(self._returns))

    def add(self, step: TimeStep, reward: np.ndarray, env: HostEnvironment) -> None:
        first, last = np.asarray(step.first), np.asarray(step.last)
        self._running = np.where(first, 0.0, self._running + reward)
        self._length = np.where(first, 0, self._length + 1)
        counts = self._played < len(self._returns)
        cut = counts & ~last & (self._length >= self._bound)
        done = np.flatnonzero(counts & (last | cut))
        rows = self._played[done]
        self._returns[rows, done] = self._running[done]
        self._lengths[rows, done] = self._length[done]
        left = np.where(cut, len(self._returns) - self._played, 0)
        self._num_cut += int(left.sum())
        self._played += np.where(cut, left, counts & last)
        if last.any():
            self._info.append(env.take_info(counts))

    def result(self) -> Evaluation:
        num_cut, info = np.array(self._num_cut), total(self._info) if self._info else {}
        return Evaluation(self._returns, self._lengths, num_cut, info)


def in_time(
    work: Callable[[Activity], T],
    name: str,
    limit: float,
    supervision: SupervisionConfig,
) -> T:
    """What `work` returns, from a thread whose calls of a simulator are timed.

    An interrupted one ends when its call comes back, and is left behind until then.

    Raises:
      HangError: a call takes longer than `limit` seconds.
      Exception: as `work` raised it.
    """
    supervisor, results = Supervisor(supervision.patience), []
    activity = Activity("evaluation", limit)
    supervisor.watch(activity)

    def do() -> None:
        result = work(activity)
        with supervisor.condition:
            results.append(result)
            supervisor.condition.notify_all()

    try:
        supervisor.start("evaluation", do)
        # The clock of the owner stands still: only calls of simulators can be late.
        supervisor.wait(lambda: results or None, "evaluation")
        return results[0]
    except DeadlineError as error:
        error.add_note(f"in an evaluation of {name}")
        raise
    finally:
        activity.give_up()
        supervisor.stop(supervision.close_seconds)


def timed(activity: Activity, doing: str, call: Callable[[], T]) -> T:
    activity.begin(doing)
    result = call()
    activity.end()
    return result
