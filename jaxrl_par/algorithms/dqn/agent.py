"""DQN as an agent: what it learns, and how it acts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxrl_par import exploration
from jaxrl_par.agents import accept, stepped, valuing
from jaxrl_par.algorithms.dqn import acted
from jaxrl_par.algorithms.dqn.config import DQNConfig
from jaxrl_par.algorithms.dqn.loss import loss
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import Elapsed
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import Network
from jaxrl_par.targets import polyak, renewed
from jaxrl_par.types import (
    ActFn,
    Agent,
    Carry,
    Extras,
    Grads,
    Info,
    Mean,
    Metrics,
    Params,
    PRNGKey,
    TimeStep,
    Trajectory,
    as_acted,
)


class Acting(NamedTuple):
    """What acts: parameters, and how far exploration is annealed."""

    online: Params
    elapsed: Elapsed


class DQNState(NamedTuple):
    """What DQN learns."""

    online: Params
    target: Params
    """A copy of `online` of some updates ago, or one that follows it."""
    opt_state: optax.OptState
    elapsed: Elapsed
    phase: Int[Array, ""]
    """Updates since the target was copied, below `target_period`."""


class DQNCarry(NamedTuple):
    """What an environment's actions depend on besides what it shows."""

    memory: Carry
    epsilon: Float[Array, " B"]
    """Where the annealing ends, or the rung of the ladder. It never changes."""


def dqn(
    network: Network,
    optimizer: optax.GradientTransformation,
    config: DQNConfig = DQNConfig(),
) -> Agent:
    """DQN for discrete actions, to be learned with `loops.replayed`: see the module.

    `greedy` takes the action of the largest Q, the first of equals.

    Args:
      network: maps steps to the values of all actions [..., A], or to distributions
        [..., A, num_atoms].
      optimizer: clips, schedules and scales the gradient of the online parameters.
    """
    accept(network, optimizer, config, DQNConfig)

    def init(key: PRNGKey, step: TimeStep) -> DQNState:
        online = network.init(key, step)
        _refuse_outputs(network, online, step, config)
        # Copied, because a buffer that is in the state twice cannot be donated.
        target = jax.tree.map(jnp.copy, online)
        opt_state = optimizer.init(online)
        return DQNState(online, target, opt_state, Elapsed.zero(), jnp.int32(0))

    def initial_carry(num_envs: int) -> DQNCarry:
        return DQNCarry(network.initial_carry(num_envs), _rates(num_envs, config))

    def grad(
        state: DQNState, batch: Trajectory, key: PRNGKey, axis: Axis
    ) -> tuple[Grads, Info]:
        del key, axis  # the loss is deterministic, and of this batch alone
        given = (state.target, batch, network, config)
        grads, info = jax.grad(loss, has_aux=True)(state.online, *given)
        if config.exploration == "annealed":
            epsilon = annealed(state.elapsed, batch.carry.epsilon, config)
            info.metrics["epsilon"] = Mean(jnp.sum(epsilon), jnp.float32(epsilon.size))
        return grads, info

    def apply(state: DQNState, grads: Grads, metrics: Metrics) -> DQNState:
        del metrics  # the optimizer needs none
        online, opt_state = stepped(optimizer, state.online, state.opt_state, grads)
        target, phase = _target(online, state, config)
        return DQNState(online, target, opt_state, state.elapsed, phase)

    def complete(params: Acting, carry: DQNCarry, trajectory: Trajectory) -> Extras:
        given = network, config, params.online, carry.memory, trajectory
        return acted.completed(*given)

    act, greedy = _acting(network, config)
    functions = (init, initial_carry, act, grad, apply, greedy)
    return Agent(
        *functions,
        params=lambda state: Acting(state.online, state.elapsed),
        complete=complete if config.record_priority else as_acted,
        specs=network.specs,
        preferences=valuing(network, config.kind().expected),
    )


def _acting(network: Network, config: DQNConfig) -> tuple[ActFn, ActFn]:
    """(act, greedy)"""
    kind = config.kind()

    def act(params: Acting, carry: DQNCarry, step: TimeStep, key: PRNGKey):
        outputs, memory = network.apply(params.online, carry.memory, step)
        epsilon = carry.epsilon
        if config.exploration == "annealed":
            epsilon = annealed(params.elapsed, epsilon, config)
        action = exploration.epsilon_greedy(key, kind.expected(outputs), epsilon)
        extras = {"carry": carry} if config.record_carry else {}
        if config.record_priority:
            extras |= acted.kept(action, outputs, kind)
        if config.measure_staleness:
            extras["memory"] = carry.memory
        return action, DQNCarry(memory, carry.epsilon), extras

    def greedy(params: Acting, carry: DQNCarry, step: TimeStep, key: PRNGKey):
        del key  # the largest needs none
        outputs, memory = network.apply(params.online, carry.memory, step)
        action = jnp.argmax(kind.expected(outputs), axis=-1).astype(jnp.int32)
        return action, DQNCarry(memory, carry.epsilon), {}

    return act, greedy


def _target(
    online: Params, state: DQNState, config: DQNConfig
) -> tuple[Params, Int[Array, ""]]:
    """The target network after an update, and its phase."""
    if config.polyak_rate is not None:
        return polyak(online, state.target, config.polyak_rate), state.phase
    return renewed(online, state.target, state.phase, config.target_period)


def _rates(num_envs: int, config: DQNConfig) -> Float[Array, " B"]:
    """The epsilon of each environment, in the end."""
    if config.exploration == "ladder":
        steps = (config.ladder_base, config.ladder_exponent)
        return exploration.geometric_ladder(num_envs, *steps)
    return jnp.full(num_envs, config.epsilon_final, jnp.float32)


def annealed(
    elapsed: Elapsed, final: Float[Array, " B"], config: DQNConfig
) -> Float[Array, " B"]:
    """The epsilon of each environment after so many environment steps."""
    done = elapsed.fraction(config.anneal_steps)
    return (1.0 - done) * config.epsilon_start + done * final


def _refuse_outputs(
    network: Network, params: Params, step: TimeStep, config: DQNConfig
) -> None:
    """Accepts a network that gives what is to be learned.

    Raises:
      RefusedError: it has other atoms, or there is no memory whose staleness is asked.
    """
    (num_envs,), memory = step.first.shape, network.initial_carry(1)
    if config.measure_staleness and not jax.tree.leaves(memory):
        raise RefusedError("measure_staleness is for networks with memory")
    carry = network.initial_carry(num_envs)
    outputs, _ = jax.eval_shape(network.apply, params, carry, step)
    atoms = () if config.values == "expected" else (config.num_atoms,)
    if outputs.shape[2:] != atoms:
        raise RefusedError(
            f"values = {config.values} need a network whose outputs are"
            f" {['environments', 'A', *atoms]}, got {[*outputs.shape]}: q_network takes"
            " num_atoms"
        )
