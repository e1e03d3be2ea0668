"""Q-learning, SARSA and n-step Q-learning from what many environments show now.

No replay: environments that explore at different rates make data diverse enough. A copy
of the parameters, renewed from time to time, predicts what the next state is worth, and
Q(o[t], a[t]) regresses on

    q        r[t] + d[t] max_a Q(o[t+1], a; target)
    sarsa    r[t] + d[t] Q(o[t+1], a[t+1]; target)
    n_step   r[t] + d[t] r[t+1] + ... + d[t]...d[T-1] max_a Q(o[T], a; target)

d is gamma, or 0 where the episode terminated. n_step bootstraps at the unroll's end, or
where a time limit cuts the episode, so that targets of one batch are of 1 to T steps.

Workers that send `grad` to a server without waiting for each other make it the paper's
asynchronous methods.

Source: Mnih et al., arXiv:1602.01783, section 4, algorithms 1 and S2.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxrl_par import exploration, losses, returns
from jaxrl_par.agents import accept, gradient, stepped, valuing
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import Elapsed
from jaxrl_par.errors import ReadIf, at_least, not_between, not_chosen
from jaxrl_par.exploration import Probabilities, QValues
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.targets import renewed
from jaxrl_par.types import (
    ActFn,
    Agent,
    Carry,
    Grads,
    Info,
    Mean,
    Metrics,
    Params,
    PRNGKey,
    TimeStep,
    Trajectory,
)

METRICS = {
    "q_value": Metric("returns", "of the action that was done"),
    "target": Metric("returns", "what it is moved to"),
    "epsilon": Metric("probability", "of an action at random, mean over environments"),
}


@dataclass(frozen=True)
class QConfig:
    """Hyperparameters of Q-learning."""

    read_if: ClassVar[ReadIf] = {
        "inverse_temperature": ("exploration", ("boltzmann",)),
        "epsilon_start": ("exploration", ("epsilon_greedy",)),
        "epsilon_finals": ("exploration", ("epsilon_greedy",)),
        "epsilon_weights": ("exploration", ("epsilon_greedy",)),
        "anneal_steps": ("exploration", ("epsilon_greedy",)),
    }
    """What each of these fields is for: another one, and its values."""

    method: Literal["q", "sarsa", "n_step"] = "n_step"
    """What Q regresses on: see the module."""
    gamma: float = 0.99
    """Discount per environment step."""
    target_period: int = 100
    """Updates between two copies of the parameters to the target network."""
    exploration: Literal["epsilon_greedy", "boltzmann"] = "epsilon_greedy"
    """A random action with probability epsilon, or probabilities that grow with Q."""
    epsilon_start: float = 1.0
    """Where epsilon starts, in every environment."""
    epsilon_finals: tuple[float, ...] = (0.1, 0.01, 0.5)
    """Each environment ends at one of them."""
    epsilon_weights: tuple[float, ...] = (0.4, 0.3, 0.3)
    """Shares of the environments that end at each."""
    anneal_steps: int = 128_000
    """Environment steps of all environments over which epsilon goes linearly from its
    start to its end."""
    inverse_temperature: float = 1.0
    """For boltzmann: uniform at 0, greedy as it grows."""
    reduction: Literal["mean", "sum"] = "mean"
    """How rows make a loss. The paper's workers sum: gradients are then T * B times
    larger."""

    def problems(self) -> list[str]:
        unit = ("gamma", "epsilon_start", "epsilon_finals")
        found = not_between(self, **dict.fromkeys(unit, (0, 1))) + not_chosen(self)
        found += at_least(self, target_period=1, anneal_steps=1, inverse_temperature=0)
        try:
            exploration.shares(len(self.epsilon_finals), self.epsilon_weights)
        except ValueError as error:
            found.append(f"epsilon_weights: {error}")
        return found


class Acting(NamedTuple):
    """What acts: parameters, and how far exploration is annealed."""

    online: Params
    elapsed: Elapsed


class QState(NamedTuple):
    """What Q-learning learns."""

    online: Params
    target: Params
    """A copy of `online` of some updates ago."""
    opt_state: optax.OptState
    elapsed: Elapsed
    """How far exploration is annealed."""
    phase: Int[Array, ""]
    """Updates since the target was copied, below `target_period`."""


class QCarry(NamedTuple):
    """What an environment's actions depend on besides what it shows."""

    memory: Carry
    epsilon: Float[Array, " B"]
    """Where the annealing ends. It is an environment's own, and never changes."""


def q_learning(
    network: Network,
    optimizer: optax.GradientTransformation,
    config: QConfig = QConfig(),
) -> Agent:
    """Q-learning for discrete actions, with or without memory: see `algorithms`.

    `greedy` takes the action of the largest Q, the first of equals.

    Args:
      network: maps steps to the values of all actions [..., A].
      optimizer: clips, schedules and scales the gradient of the online parameters.
    """
    accept(network, optimizer, config, QConfig)

    def init(key: PRNGKey, step: TimeStep) -> QState:
        online = network.init(key, step)
        # Copied, because a buffer that is in the state twice cannot be donated.
        target = jax.tree.map(jnp.copy, online)
        opt_state = optimizer.init(online)
        return QState(online, target, opt_state, Elapsed.zero(), jnp.int32(0))

    def initial_carry(num_envs: int) -> QCarry:
        finals, weights = config.epsilon_finals, config.epsilon_weights
        epsilon = exploration.ladder(num_envs, finals, weights)
        return QCarry(network.initial_carry(num_envs), epsilon)

    def grad(
        state: QState, batch: Trajectory, key: PRNGKey, axis: Axis
    ) -> tuple[Grads, Info]:
        del key, axis  # the loss is deterministic, and of this batch alone
        constants = (state.target, state.elapsed, batch, network, config)
        return gradient(loss, state.online, *constants)

    def apply(state: QState, grads: Grads, metrics: Metrics) -> QState:
        del metrics  # the optimizer needs none
        online, opt_state = stepped(optimizer, state.online, state.opt_state, grads)
        target, phase = renewed(online, state.target, state.phase, config.target_period)
        return QState(online, target, opt_state, state.elapsed, phase)

    act, greedy = _acting(network, config)
    functions = (init, initial_carry, act, grad, apply, greedy)
    return Agent(
        *functions,
        params=lambda state: Acting(state.online, state.elapsed),
        reduction=config.reduction,
        specs=network.specs,
        preferences=valuing(network, lambda q_values: q_values),
    )


def _acting(network: Network, config: QConfig) -> tuple[ActFn, ActFn]:
    """(act, greedy)"""

    def act(params: Acting, carry: QCarry, step: TimeStep, key: PRNGKey):
        q_values, memory = network.apply(params.online, carry.memory, step)
        if config.exploration == "boltzmann":
            action = exploration.boltzmann(key, q_values, config.inverse_temperature)
        else:
            epsilon = annealed(params.elapsed, carry.epsilon, config)
            action = exploration.epsilon_greedy(key, q_values, epsilon)
        return action, QCarry(memory, carry.epsilon), {}

    def greedy(params: Acting, carry: QCarry, step: TimeStep, key: PRNGKey):
        del key  # the largest needs none
        q_values, memory = network.apply(params.online, carry.memory, step)
        action = jnp.argmax(q_values, axis=-1).astype(jnp.int32)
        return action, QCarry(memory, carry.epsilon), {}

    return act, greedy


def annealed(
    elapsed: Elapsed, final: Float[Array, " B"], config: QConfig
) -> Float[Array, " B"]:
    """The epsilon of each environment after so many environment steps."""
    done = elapsed.fraction(config.anneal_steps)
    return (1.0 - done) * config.epsilon_start + done * final


def loss(
    online: Params,
    target: Params,
    elapsed: Elapsed,
    trajectory: Trajectory,
    network: Network,
    config: QConfig,
) -> tuple[Float[Array, ""], Metrics]:
    """Half the squared error of Q(o[t], a[t]), over the T * B rows.

    Both networks read the steps from the same memory, which the one that acted left.
    """
    steps, memory = trajectory.steps, trajectory.carry.memory
    q_values, _ = network.unroll(online, memory, steps)
    target_q_values, _ = network.unroll(target, memory, steps)
    epsilon = annealed(elapsed, trajectory.carry.epsilon, config)
    behaviour = _behaviour(q_values, epsilon, config)
    targets = q_targets(trajectory, target_q_values, behaviour, config)
    targets = jax.lax.stop_gradient(targets)
    chosen = _of(trajectory.action, q_values[:-1])
    last = steps.last[:-1]
    # A `last` row's action may be one that is impossible there, with a value of -inf.
    value_losses = 0.5 * jnp.square(jnp.where(last, 0.0, targets - chosen))
    rows = {"value_loss": value_losses, "q_value": chosen, "target": targets}
    metrics = losses.row_means(last, **rows)
    if config.exploration == "epsilon_greedy":
        metrics["epsilon"] = Mean(jnp.sum(epsilon), jnp.float32(epsilon.size))
    return losses.over_rows(value_losses, last, config.reduction), metrics


def q_targets(
    trajectory: Trajectory,
    target_q_values: Float[Array, "N B A"],
    behaviour: Float[Array, "N B A"],
    config: QConfig,
) -> Float[Array, "T B"]:
    """What Q(o[t], a[t]) regresses on, from values of the N = T + 1 steps.

    SARSA has no next action where the unroll ends, as it is not taken yet, and none
    where the episode does, as it never is. There it takes what that action's value is
    on average, sum_a behaviour(a) Q(o, a; target): the same target without its noise.

    Args:
      behaviour: probabilities with which the policy takes each action.
    """
    last = trajectory.steps.last
    target_q_values = exploration.possible_values(target_q_values)
    if config.method == "sarsa":
        weighted = jnp.where(behaviour > 0.0, behaviour * target_q_values, 0.0)
        mean = jnp.sum(weighted, axis=-1)
        taken = _of(trajectory.action, target_q_values[:-1])
        values = mean.at[:-1].set(jnp.where(last[:-1], mean[:-1], taken))
    else:
        values = jnp.max(target_q_values, axis=-1)
    advantages = returns.gae(
        rewards=trajectory.reward,
        discounts=config.gamma * trajectory.discount,
        last=last[:-1],
        values=values,
        lambda_=1.0 if config.method == "n_step" else 0.0,
    )
    return advantages + values[:-1]


def _behaviour(
    q_values: QValues, epsilon: Float[Array, " B"], config: QConfig
) -> Probabilities:
    if config.exploration == "boltzmann":
        return exploration.boltzmann_probabilities(q_values, config.inverse_temperature)
    return exploration.epsilon_greedy_probabilities(q_values, epsilon)


def _of(action: Int[Array, "T B"], q_values: Float[Array, "T B A"]):
    """Q(o[t], a[t]), [T, B]."""
    return jnp.take_along_axis(q_values, action[..., None], axis=-1)[..., 0]
