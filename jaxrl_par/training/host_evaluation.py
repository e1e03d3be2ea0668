"""Evaluation on simulators: as `training.evaluation`, in steps of Python."""

from collections.abc import Callable

import jax
import numpy as np

from jaxrl_par import rollout
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.host.checked import checked
from jaxrl_par.errors import refuse
from jaxrl_par.types import Agent, Params, PRNGKey, TimeStep


def host_evaluator(
    agent: Agent, episodes_per_env: int
) -> Callable[[HostEnvironment, Params, PRNGKey], np.ndarray]:
    """A function that plays so many episodes in each of B environments: returns [E, B].

    Actions are sampled; `agent._replace(act=agent.greedy)` takes the mode.

    Raises:
      ValueError: `episodes_per_env` is below 1.
    """
    refuse(episodes_per_env=episodes_per_env)

    @jax.jit
    def act(params: Params, carry, step: TimeStep, key: PRNGKey, t):
        return agent.act(params, carry, step, jax.random.fold_in(key, t))[:2]

    def evaluate(env: HostEnvironment, params: Params, key: PRNGKey) -> np.ndarray:
        rollout.refuse_other_specs(agent, env)
        env = checked(env)
        cpu = jax.local_devices(backend="cpu")[0]
        params, key = jax.device_put((params, key), cpu)
        returns = np.full((episodes_per_env, env.num_envs), np.nan, np.float64)
        running, ended = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
        step, t = env.reset(), 0
        with jax.default_device(cpu):
            carry = agent.initial_carry(env.num_envs)
            while ended.min() < episodes_per_env:
                action, carry = act(params, carry, step, key, np.int32(t))
                step, reward, _ = env.step(np.asarray(action))
                running += reward
                counted = np.flatnonzero(step.last & (ended < episodes_per_env))
                returns[ended[counted], counted] = running[counted]
                ended += step.last
                running[step.last] = 0.0
                t += 1
        return returns

    return evaluate
