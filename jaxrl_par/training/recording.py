"""Acting to be recorded: what any agent does, as demonstrations."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_par import rollout
from jaxrl_par.bridge.supervision import Activity, SupervisionConfig
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host import HostEnvironment, from_pure
from jaxrl_par.envs.host.checked import checked
from jaxrl_par.errors import refuse
from jaxrl_par.training.host_evaluation import in_time, timed
from jaxrl_par.types import Agent, Params, PRNGKey, TimeStep, Trajectory

_KEYS = 256
"""Steps whose keys are drawn at a time."""


class Recording(NamedTuple):
    """What somebody did."""

    trajectory: Trajectory
    """[N, B], NumPy's arrays without extras and carry. The first row begins episodes;
    the last one may be anywhere."""
    env_steps: int
    """Rows that are no `last`."""
    returns: np.ndarray
    """[E], float64, of the episodes that came to an end."""

    def about(self) -> dict[str, Any]:
        """In numbers, for the manifest."""
        episodes = len(self.returns)
        mean = float(np.mean(self.returns)) if episodes else None
        told = {"env_steps": self.env_steps, "episodes": episodes}
        return told | {"mean_return": mean}


def record(
    agent: Agent,
    params: Params,
    env: Environment | HostEnvironment,
    num_steps: int,
    key: PRNGKey,
    *,
    greedy: bool = True,
    supervision: SupervisionConfig = SupervisionConfig(),
) -> Recording:
    """Acts in all environments until they have made so many steps together.

    Args:
      env: B environments. Simulators are not closed.
      greedy: take the mode of the policy, else sample.
      supervision: how long a call of a simulator may take.

    Raises:
      RefusedError: the agent was made for other observations or actions, or `num_steps`
        is below 1.
      HangError: an environment does not come back in time.
    """
    refuse(supervision, num_steps=num_steps)
    rollout.refuse_other_specs(agent, env)
    start_key, key = jax.random.split(key)
    given = from_pure(env, start_key) if isinstance(env, Environment) else env
    simulators = checked(given)

    def acted(activity: Activity) -> Recording:
        rows, count = [], 0
        for row in _rows(agent, params, simulators, key, greedy, activity):
            rows.append(row)
            # The last row is an observation alone: nobody acts in it.
            if count >= num_steps:
                break
            count += int(np.sum(~row[0].last))
        return _joined(rows, count)

    return in_time(acted, env.name, supervision.env_timeout, supervision)


def _rows(
    agent: Agent,
    params: Params,
    env: HostEnvironment,
    key: PRNGKey,
    greedy: bool,
    activity: Activity,
) -> Iterator[tuple[TimeStep, np.ndarray, np.ndarray, np.ndarray]]:
    """(step, action, reward, discount), row by row without end."""
    chosen = agent.greedy if greedy else agent.act

    @jax.jit
    def act(params: Params, carry, step: TimeStep, key: PRNGKey, t):
        return chosen(params, carry, step, jax.random.fold_in(key, t))[:2]

    act_key, env_key = jax.random.split(key)
    cpu = jax.local_devices(backend="cpu")[0]
    params, act_key = jax.device_put((params, act_key), cpu)
    with jax.default_device(cpu):
        step, t = timed(activity, "reset", env.reset), 0
        carry = agent.initial_carry(env.num_envs)
        while True:
            if t % _KEYS == 0:
                env.plan(jax.random.split(jax.random.fold_in(env_key, t), _KEYS))
            action, carry = act(params, carry, step, act_key, np.int32(t))
            action = jax.tree.map(np.asarray, action)
            # Simulators may write the next row where this one is.
            step = jax.tree.map(np.array, step)
            activity.begin("step")
            after, reward, discount = env.step(action)
            activity.end()
            yield step, action, np.array(reward), np.array(discount)
            step, t = after, t + 1


def _joined(rows: list[Any], env_steps: int) -> Recording:
    """Rows of which the last one shows the final observation."""
    steps, action, reward, discount = (
        jax.tree.map(lambda *xs: np.stack(xs), *part)
        for part in zip(*rows, strict=True)
    )
    reward, discount = (x[:-1].astype(np.float32) for x in (reward, discount))
    action = jax.tree.map(lambda x: x[:-1], action)
    trajectory = Trajectory(steps, action, reward, discount, extras={}, carry=())
    return Recording(trajectory, env_steps, _returns(trajectory))


def _returns(trajectory: Trajectory) -> np.ndarray:
    """Of all episodes with an end, lane by lane."""
    last = np.asarray(trajectory.steps.last)
    sums = np.cumsum(np.asarray(trajectory.reward, np.float64), axis=0)
    found = []
    for lane in range(last.shape[1]):
        ends = np.flatnonzero(last[1:, lane])
        found.extend(np.diff(sums[ends, lane], prepend=0.0))
    return np.asarray(found)
