"""What workers and their serial repetition share: evaluators, compiled functions, and
what is learned of a generation."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par import rollout
from jaxrl_par.bridge.factory import ActorFactory
from jaxrl_par.bridge.generations.compiled import Compiled
from jaxrl_par.bridge.generations.config import GenerationsConfig
from jaxrl_par.bridge.generations.evaluator import (
    Evaluator,
    HostEvaluator,
    PureEvaluator,
    Task,
)
from jaxrl_par.bridge.generations.reference import shown_by
from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.envs import Environment
from jaxrl_par.envs.base import refuse_no_maker
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.loops import Run
from jaxrl_par.loops.generations import (
    Local,
    Played,
    is_looked_at,
    learning,
    refuse_odd,
    refuse_unperturbed,
)
from jaxrl_par.perturbations import NoiseConfig
from jaxrl_par.types import Agent, Metrics, Params, PRNGKey


@dataclass(frozen=True)
class Parts:
    """What evaluators are made from."""

    agent: Agent
    env: Environment | MakeEnv
    """In which one member plays, an episode in each; simulators are made from a key."""
    noise: NoiseConfig
    num_members: int
    """Of a whole generation."""
    max_steps: int
    cap_factor: float | None
    config: GenerationsConfig
    device: Any
    """A `jax.Device`, where members play and the parameters are."""

    @property
    def num_pairs(self) -> int:
        """Of one part."""
        return self.num_members // 2 // self.config.num_parts


def asked(
    agent: Agent,
    env: Environment | MakeEnv,
    noise: NoiseConfig,
    num_members: int,
    max_steps: int,
    cap_factor: float | None,
    config: GenerationsConfig,
    device: Any,
) -> Parts:
    """The parts, as arguments of `topologies.generations`.

    Raises:
      RefusedError: something is out of range, or the agent is for other environments,
        or has no parameters that may be perturbed.
    """
    refuse(config, noise, num_members=num_members, max_steps=max_steps)
    refuse_odd(num_members)
    if num_members % (2 * config.num_parts):
        raise RefusedError(
            "num_members must be pairs, as many in each of the"
            f" {config.num_parts} parts: a multiple of {2 * config.num_parts}, got"
            f" {num_members}"
        )
    if isinstance(env, Environment):
        rollout.refuse_other_specs(agent, env)
    else:
        refuse_no_maker(env)
    device = device or jax.devices()[0]
    return Parts(agent, env, noise, num_members, max_steps, cap_factor, config, device)


class EvaluatorSystem(ActorFactory[Evaluator]):
    """Evaluators and the functions that they share, without anything that decides when
    they play."""

    def __init__(self, parts: Parts, key: PRNGKey, looked_at: bool | None = None):
        """`looked_at`: whether somebody learns from the own episodes; None asks the
        agent."""
        super().__init__(key, parts.agent)
        self.parts = parts
        env = parts.env if isinstance(parts.env, Environment) else None
        looked_at = is_looked_at(parts.agent) if looked_at is None else looked_at
        sizes = parts.num_pairs, parts.max_steps, looked_at
        self._functions = Compiled(parts.agent, env, parts.noise, *sizes)
        self._learn = jax.jit(learning(parts.agent, parts.max_steps, parts.cap_factor))
        self._compiled: Any = None

    def actor(self, index: int, **options: Any) -> Evaluator:
        """An evaluator, still without environments."""
        parts = self.parts
        given = index, self._functions, parts.config.num_parts, self._root, parts.device
        if isinstance(parts.env, Environment):
            return PureEvaluator(*given, env=parts.env, **options)
        return HostEvaluator(*given, make_env=parts.env, claim=self.claim, **options)

    def new_run(self, evaluators: Sequence[Evaluator]) -> Run:
        """The run at its start: that of `loops.evolution`.

        Raises:
          RefusedError: no parameters may be perturbed, or too many for the noise.
        """
        parts, env = self.parts, evaluators[0].env
        with jax.default_device(parts.device):
            run, _ = self.first_run(parts.agent.init, env)
            local = Local(jnp.int32(parts.max_steps))
            given = parts.agent, parts.env, env.num_envs, run.learner, self._root
            run = run._replace(learner=shown_by(*given))
        refuse_unperturbed(self.params(run), parts.noise)
        return run._replace(local=local)

    def params(self, run: Run) -> Params:
        """Those that play."""
        return self.parts.agent.params(run.learner)

    def tasks(self, run: Run, params: Params) -> list[Task]:
        """The parts of the next generation."""
        generation = int(run.progress.updates)
        cap = np.asarray(run.local.cap)
        numbers = range(self.parts.config.num_parts)
        return [Task(generation, part, cap, params) for part in numbers]

    def learned(self, run: Run, parts: Sequence[Played]) -> tuple[Run, Metrics]:
        """The run after a generation, of which these parts entered."""
        if not self.is_compiled:
            self.compile(run, parts)
        joined = Played.join(parts, np.concatenate)
        return jax.block_until_ready(self._compiled(run, joined))

    @property
    def is_compiled(self) -> bool:
        """Whether `learned` compiles nothing."""
        return self._compiled is not None

    def compile(self, run: Run, parts: Sequence[Played]) -> None:
        """Compiles what learns, for parts of these shapes."""
        started = time.perf_counter()
        joined = Played.join(parts, np.concatenate)
        self._compiled = self._learn.lower(run, joined).compile()
        self.tally.compile_seconds += time.perf_counter() - started
