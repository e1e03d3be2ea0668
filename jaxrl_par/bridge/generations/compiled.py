"""The compiled functions that all evaluators of a process share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par import rollout
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.loops.generations import Members, Place, members_of, playing
from jaxrl_par.perturbations import NoiseConfig
from jaxrl_par.types import Agent, Carry, Params, PRNGKey, TimeStep, Trajectory


class Compiled:
    """Functions of a part, of one size; they are compiled on first use."""

    def __init__(
        self, agent: Agent, env: Environment | None, noise: NoiseConfig,
        num_pairs: int, max_steps: int, looked_at: bool,
    ):  # fmt: skip
        """
        Args:
          env: pure environments of one member, None for simulators.
          looked_at: whether somebody learns from the own episodes.
        """
        self.max_steps = max_steps
        self._agent = agent
        self._looked_at = looked_at
        if env is not None:
            self.play = jax.jit(
                playing(agent, env, noise, num_pairs, max_steps, looked_at)
            )

        def members(params: Params, place: Place) -> Members:
            return members_of(agent, params, place, noise, num_pairs)

        def member(members: Members, pair: Any, sign: Any) -> tuple[Params, Any]:
            params = jax.tree.map(lambda x: x[pair, sign], members.params)
            return params, _keys(members.keys[pair], max_steps)

        def act(params: Params, carry: Carry, step: TimeStep, keys: Any, t: Any):
            return agent.act(params, carry, step, keys[t])[:2]

        self.members = jax.jit(members)
        """(params, place) -> `Members`"""
        self.member = jax.jit(member)
        """(members, pair, sign) -> parameters of one, and its keys: to make
        environments, to act with [T], of steps [T]"""
        self.act = jax.jit(act)
        """(params, carry, step, keys [T], t) -> action, carry"""

    def carry(self, num_envs: int) -> Carry:
        """The memory of one member at the start."""
        return rollout.initial_carry(self._agent, num_envs)

    def rows(self, env: HostEnvironment) -> "Rows | None":
        """For the own episodes, if somebody looks at them."""
        return Rows(env, self.max_steps) if self._looked_at else None


class Rows:
    """What was seen in episodes, as `loops.playing.play` has it: rows that nothing is
    known of are `last`, and what they show is no number."""

    def __init__(self, env: HostEnvironment, max_steps: int):
        def unseen(spec: Any) -> np.ndarray:
            dtype = np.dtype(spec.dtype)
            fill = np.nan if dtype.kind == "f" else 0
            return np.full((max_steps + 1, env.num_envs, *spec.shape), fill, dtype)

        flags = np.zeros((max_steps + 1, env.num_envs), np.bool_)
        obs = jax.tree.map(unseen, env.observation_spec)
        first: Any = flags
        last: Any = ~flags
        self._steps = TimeStep(obs, first, last)
        shape = max_steps, env.num_envs
        self._action: Any = jax.tree.map(
            lambda spec: np.zeros((*shape, *spec.shape), spec.dtype), env.action_spec
        )
        self._reward, self._discount = np.zeros((2, *shape), np.float32)
        self._t = 0

    def begin(self, step: TimeStep) -> None:
        self._write(step)

    def add(self, action: Any, reward: Any, discount: Any, step: TimeStep) -> None:
        """What was done, and what came of it."""

        def write(rows: Any, x: Any) -> None:
            rows[t] = x

        t = self._t
        jax.tree.map(write, self._action, action)
        self._reward[t], self._discount[t] = reward, discount
        self._t += 1
        self._write(step)

    def trajectory(self) -> Trajectory:
        paid: Any = self._reward, self._discount
        return Trajectory(self._steps, self._action, *paid, extras={}, carry=())

    def _write(self, step: TimeStep) -> None:
        def write(rows: Any, x: Any) -> None:
            rows[self._t] = x

        jax.tree.map(write, self._steps, step)


def _keys(key: PRNGKey, max_steps: int) -> tuple[PRNGKey, Any, Any]:
    """As in `loops.playing.play`."""
    start_key, act_key, env_key = jax.random.split(key, 3)
    times = jnp.arange(max_steps, dtype=jnp.int32)
    folded = jax.vmap(jax.random.fold_in, (None, 0))
    return start_key, folded(act_key, times), folded(env_key, times)
