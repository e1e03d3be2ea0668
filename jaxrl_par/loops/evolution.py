"""Generations of perturbed parameters, each of which plays whole episodes.

Members come in pairs: one has a noise added to the parameters, the other the same noise
subtracted, and both play with the same random numbers, so that they differ by the noise
alone. One more plays with the parameters themselves, on each device: its return is that
of the policy, and the members' mean is not. Statistics of observations are those of its
episodes, and stand still within a generation.

Source: Salimans et al., arXiv:1703.03864.
"""

import jax
import jax.numpy as jnp

from jaxrl_par import rollout
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Environment
from jaxrl_par.envs.base import refuse_others
from jaxrl_par.errors import refuse
from jaxrl_par.loops.generations import (
    Local,
    Place,
    is_looked_at,
    learning,
    playing,
    refuse_odd,
    refuse_unperturbed,
)
from jaxrl_par.loops.reference import shown
from jaxrl_par.loops.run import Program, Run, new_run
from jaxrl_par.perturbations import NoiseConfig
from jaxrl_par.types import Agent, Metrics, Params, PRNGKey


def evolution(
    agent: Agent,
    env: Environment,
    noise: NoiseConfig,
    num_members: int,
    max_steps: int,
    *,
    cap_factor: float | None = None,
    axis: Axis = Axis(),
) -> Program:
    """A generation plays, then the parameters take a step.

    Args:
      agent: as `algorithms.es` makes, of the same noise.
      env: in which one member plays, an episode in each.
      num_members: of this instance along the axis, an even number.
      max_steps: longest episode. One that is longer is cut there, as by a time limit.
      cap_factor: a member's episode is cut at so many times the mean length of those of
        the generation before: few that are long would keep all others waiting.

    Raises:
      ValueError: a count is below 1, members are no pairs, or the agent was made for
        other specs.
    """

    def made(key: PRNGKey) -> Params:
        return agent.params(agent.init(key, env.reset(key)[1]))

    refuse(num_members=num_members, max_steps=max_steps)
    refuse(noise)
    refuse_odd(num_members)
    refuse_others(env)
    rollout.refuse_other_specs(agent, env)
    refuse_unperturbed(jax.eval_shape(made, jax.random.key(0)), noise)
    looked_at = is_looked_at(agent)
    played = playing(agent, env, noise, num_members // 2, max_steps, looked_at)
    learn = learning(agent, max_steps, cap_factor, axis)

    def init(key: PRNGKey) -> Run:
        learn_key, env_key, root = jax.random.split(key, 3)
        _, step = env.reset(env_key)
        state = shown(agent, env, agent.init(learn_key, step), root)
        return new_run(state, Local(jnp.int32(max_steps)), root)

    def step(run: Run) -> tuple[Run, Metrics]:
        place = Place(run.key, run.progress.updates, axis.index, axis.size)
        params = agent.params(run.learner)
        return learn(run, played(params, place, run.local.cap))

    return Program(init, step)
