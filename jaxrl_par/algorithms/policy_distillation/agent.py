"""The student of policy distillation as an agent."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from jaxrl_par.agents import accept, gradient, stepped
from jaxrl_par.algorithms.policy_distillation import teachers as taught
from jaxrl_par.algorithms.policy_distillation.loss import (
    PolicyDistillationConfig,
    StudentParams,
    loss,
)
from jaxrl_par.algorithms.policy_distillation.teachers import FixedTeacher, Teachers
from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import Network
from jaxrl_par.types import (
    Agent,
    Carry,
    Extras,
    Grads,
    Metrics,
    Params,
    PRNGKey,
    TimeStep,
    Trajectory,
)


class StudentState(NamedTuple):
    """What a student has learned, and from whom."""

    params: StudentParams
    opt_state: optax.OptState
    teachers: PyTree
    """Their parameters, which stay what they are, with a run that is resumed: of each
    the leaves alone, in which nothing counts the steps that pass."""


class Acting(NamedTuple):
    """What acts: the student, beside its teachers."""

    student: Params
    teachers: PyTree


class Memory(NamedTuple):
    """That of everybody, whoever acts."""

    student: Carry
    teachers: taught.Memories


def policy_distillation(
    network: Network,
    optimizer: optax.GradientTransformation,
    teachers: Sequence[FixedTeacher],
    config: PolicyDistillationConfig = PolicyDistillationConfig(),
) -> Agent:
    """An agent that learns what teachers say of where it has acted: see the module.

    That is in the extras, said once: batches may come from replay. For teachers that
    act in its place, see `acted_by_teachers`.

    Args:
      network: maps steps to (distribution of one of A actions, anything), for several
        tasks that of `networks.of_tasks`.
      teachers: of each task, in their order. Without any it acts, and does not learn.

    Raises:
      RefusedError: the config is out of range; as `Teachers.refuse`; or, from `init`,
        features are to be learned that are of several widths, or not known.
    """
    accept(network, optimizer, config, PolicyDistillationConfig)
    given = Teachers(tuple(teachers))
    given.refuse(network.specs)

    def init(key: PRNGKey, step: TimeStep) -> StudentState:
        network_key, map_key = jax.random.split(key)
        params, maps = network.init(network_key, step), ()
        if config.reads_features and given.each:
            maps = _new_maps(network, params, given, step, map_key)
        learned = StudentParams(params, maps)
        # Copied: what is donated with the state is not the teachers' own.
        leaves = jax.tree.map(jnp.copy, given.leaves())
        opt_state = optimizer.init(learned) if given.each else ()
        return StudentState(learned, opt_state, leaves)

    def initial_carry(num_envs: int) -> Memory:
        return Memory(network.initial_carry(num_envs), given.initial_carry(num_envs))

    def act(params: Acting, carry: Memory, step: TimeStep, key: PRNGKey):
        (policy, _), own = network.apply(params.student, carry.student, step)
        extras: Extras = {}
        memories = carry.teachers
        if given.each:
            asked = (params.teachers, carry.teachers, step)
            said, memories = given.preferences(*asked)
            extras["preferences"] = said.actions
            if config.reads_features:
                extras["features"] = said.features
        return policy.sample(key), Memory(own, memories), extras

    def greedy(params: Acting, carry: Memory, step: TimeStep, key: PRNGKey):
        del key  # the mode needs none
        (policy, _), own = network.apply(params.student, carry.student, step)
        return policy.mode(), carry._replace(student=own), {}

    def grad(state: StudentState, batch: Trajectory, key: PRNGKey, axis: Axis):
        del key, axis  # the loss is deterministic, and of this batch alone
        return gradient(loss, state.params, batch, network, config)

    def apply(state: StudentState, grads: Grads, metrics: Metrics) -> StudentState:
        del metrics  # the optimizer needs none
        new = stepped(optimizer, state.params, state.opt_state, grads)
        return StudentState(*new, state.teachers)

    functions = (init, initial_carry, act, grad, apply, greedy)
    return Agent(
        *functions,
        params=lambda state: Acting(state.params.network, state.teachers),
        specs=network.specs,
    )


def acted_by_teachers(agent: Agent, teachers: Sequence[FixedTeacher]) -> Agent:
    """The student, in whose place its teachers act, each in the lanes of its task."""
    given = Teachers(tuple(teachers))

    def act(params: Acting, carry: Memory, step: TimeStep, key: PRNGKey):
        _, after, extras = agent.act(params, carry, step, key)
        action = given.act(params.teachers, carry.teachers, step, key)
        return action, after, extras

    return agent._replace(act=act)


def _new_maps(
    network: Network, params: Params, given: Teachers, step: TimeStep, key: PRNGKey
) -> Float[Array, "G D F"]:
    """Linear maps from the student's features to those of each teacher.

    Raises:
      RefusedError: the student's are not known, or the teachers' of several widths.
    """
    if network.with_features is None:
        raise RefusedError(
            "feature_cost needs a network with_features, as those of the library have"
        )
    number = step.first.shape[0]
    steps = jax.tree.map(lambda x: x[None], step)
    read = (params, network.initial_carry(number), steps)
    (_, features), _ = jax.eval_shape(network.with_features, *read)
    carries = given.initial_carry(number)
    widths = []
    for i, teacher in enumerate(given.each):
        assert teacher.agent.preferences is not None
        seen = (teacher.params, carries[i], given.seen(step, i))
        said, _ = jax.eval_shape(teacher.agent.preferences, *seen)
        widths.append(said.features.shape[-1])
    if len(set(widths)) > 1:
        raise RefusedError(
            "feature_cost is for teachers that have as many features, got"
            f" {', '.join(map(str, widths))}"
        )
    width = features.shape[-1]
    shape = (len(widths), width, widths[0])
    return jax.random.normal(key, shape) / jnp.sqrt(jnp.float32(width))
