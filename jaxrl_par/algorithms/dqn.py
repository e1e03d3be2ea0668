"""DQN: values of actions, learned from replay. Double, dueling, n-step, with memory.

A batch is of windows [burn-in | trained | lookahead], as `replay.Windows` cuts them:

    one row, n - 1 ahead          DQN and its n-step form; prioritised, Ape-X
    sequences, a stored carry     R2D2, with memory, `burn_in` and `rescale`

Each trained row regresses Q(o[t], a[t]) on

    y[t] = h( r[t] + d[t] r[t+1] + ... + d[t]..d[t+n-1] h^-1(v(o[t+n])) )
    v(o) = Q(o, a*; target),   a* = argmax Q(o, a; online) if double, else of the target

d is gamma, or 0 where the episode terminated. Where it is cut by a time limit, or the
unroll ends, the target bootstraps there after fewer steps. h is the identity, or
`returns.squashed`.

Sources: Mnih et al., Nature 518 (2015), algorithm 1; van Hasselt et al.,
arXiv:1509.06461, equation 4; Schaul et al., arXiv:1511.05952, algorithm 1; Horgan et
al., arXiv:1803.00933, section 3; Kapturowski et al., R2D2 (ICLR 2019), section 2.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxrl_par import exploration, losses, returns
from jaxrl_par.agents import accept, stepped
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import Elapsed
from jaxrl_par.errors import ReadIf, above, at_least, not_between, not_chosen
from jaxrl_par.networks import Network
from jaxrl_par.targets import polyak, renewed
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


@dataclass(frozen=True)
class DQNConfig:
    """Hyperparameters of DQN."""

    read_if: ClassVar[ReadIf] = {
        "epsilon_start": ("exploration", ("annealed",)),
        "epsilon_final": ("exploration", ("annealed",)),
        "anneal_steps": ("exploration", ("annealed",)),
        "ladder_base": ("exploration", ("ladder",)),
        "ladder_exponent": ("exploration", ("ladder",)),
        "target_period": ("polyak_rate", (None,)),
    }
    """What each of these fields is for: another one, and its values."""

    gamma: float = 0.99
    """Discount per environment step."""
    n_step: int = 1
    """Rewards in a target, before it bootstraps."""
    double: bool = True
    """The online network chooses the action whose value the target network gives."""
    huber_delta: float | None = 1.0
    """The error above which the loss grows linearly. None: squared errors."""
    target_period: int = 100
    """Updates between two copies of the parameters to the target network."""
    polyak_rate: float | None = None
    """In place of copies: the target moves this share of the way in every update."""
    exploration: Literal["annealed", "ladder"] = "annealed"
    """annealed: one epsilon that falls linearly. ladder: a constant one for each
    environment, as Ape-X has them."""
    epsilon_start: float = 1.0
    epsilon_final: float = 0.05
    anneal_steps: int = 10_000
    """Environment steps of all environments until epsilon is at its final value."""
    ladder_base: float = 0.4
    """Environment i of N has epsilon = base^(1 + exponent i / (N - 1))."""
    ladder_exponent: float = 7.0
    burn_in: int = 0
    """Rows on which memory is refreshed, without a gradient: those of the windows."""
    rescale: float | None = None
    """eps of h, in which values are learned; R2D2 has 1e-3. None: values themselves."""
    eta: float = 0.9
    """Share of the maximum in the priority of a sequence, and 1 - eta of the mean."""
    record_carry: bool = False
    """Leave the carry before each row in the extras, for windows that begin there."""

    def problems(self) -> list[str]:
        unit = ("gamma", "epsilon_start", "epsilon_final", "ladder_base")
        found = not_between(self, **dict.fromkeys((*unit, "eta"), (0, 1)))
        found += not_between(self, polyak_rate=(0, 1)) + not_chosen(self)
        found += above(self, huber_delta=0, rescale=0)
        counts = {"n_step": 1, "target_period": 1, "anneal_steps": 1, "burn_in": 0}
        return found + at_least(self, ladder_exponent=0, **counts)


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
      network: maps steps to the values of all actions [..., A].
      optimizer: clips, schedules and scales the gradient of the online parameters.
    """
    accept(network, optimizer, config, DQNConfig)

    def init(key: PRNGKey, step: TimeStep) -> DQNState:
        online = network.init(key, step)
        # Copied, because a buffer that is in the state twice cannot be donated.
        target = jax.tree.map(jnp.copy, online)
        opt_state = optimizer.init(online)
        return DQNState(online, target, opt_state, Elapsed.zero(), jnp.int32(0))

    def initial_carry(num_envs: int) -> DQNCarry:
        if config.exploration == "ladder":
            steps = (config.ladder_base, config.ladder_exponent)
            epsilon = exploration.geometric_ladder(num_envs, *steps)
        else:
            epsilon = jnp.full(num_envs, config.epsilon_final, jnp.float32)
        return DQNCarry(network.initial_carry(num_envs), epsilon)

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
        if config.polyak_rate is None:
            given = (online, state.target, state.phase, config.target_period)
            target, phase = renewed(*given)
        else:
            target = polyak(online, state.target, config.polyak_rate)
            phase = state.phase
        return DQNState(online, target, opt_state, state.elapsed, phase)

    act, greedy = _acting(network, config)
    functions = (init, initial_carry, act, grad, apply, greedy)
    return Agent(
        *functions,
        params=lambda state: Acting(state.online, state.elapsed),
        specs=network.specs,
    )


def _acting(network: Network, config: DQNConfig) -> tuple[ActFn, ActFn]:
    """(act, greedy)"""

    def act(params: Acting, carry: DQNCarry, step: TimeStep, key: PRNGKey):
        q_values, memory = network.apply(params.online, carry.memory, step)
        epsilon = carry.epsilon
        if config.exploration == "annealed":
            epsilon = annealed(params.elapsed, epsilon, config)
        action = exploration.epsilon_greedy(key, q_values, epsilon)
        extras = {"carry": carry} if config.record_carry else {}
        return action, DQNCarry(memory, carry.epsilon), extras

    def greedy(params: Acting, carry: DQNCarry, step: TimeStep, key: PRNGKey):
        del key  # the largest needs none
        q_values, memory = network.apply(params.online, carry.memory, step)
        action = jnp.argmax(q_values, axis=-1).astype(jnp.int32)
        return action, DQNCarry(memory, carry.epsilon), {}

    return act, greedy


def annealed(
    elapsed: Elapsed, final: Float[Array, " B"], config: DQNConfig
) -> Float[Array, " B"]:
    """The epsilon of each environment after so many environment steps."""
    done = elapsed.fraction(config.anneal_steps)
    return (1.0 - done) * config.epsilon_start + done * final


def loss(
    online: Params,
    target: Params,
    batch: Trajectory,
    network: Network,
    config: DQNConfig,
) -> tuple[Float[Array, ""], Info]:
    """The mean of weighted losses over the trained rows, and the windows' priorities.

    Weights are `batch.extras["weight"]`, 1 without it. The mean is over all rows, those
    that are `last` as 0, and is not divided by the sum of weights.
    """
    b = config.burn_in
    rows = batch.reward.shape[0] - b - (config.n_step - 1)
    after = jax.tree.map(lambda x: x[b:], batch._replace(carry=()))
    last = after.steps.last[:-1]
    ahead = returns.reached(
        rewards=after.reward,
        discounts=config.gamma * after.discount,
        last=last,
        n=config.n_step,
    )
    ahead = returns.Reached(*(x[:rows] for x in ahead))
    values = _values(online, target, batch, after.steps, ahead.index, network, config)
    chosen = _of(after.action[:rows], values.online)
    best = jnp.argmax(exploration.possible_values(values.choosing_ahead), axis=-1)
    bootstrap = _of(best, exploration.possible_values(values.target_ahead))
    if config.rescale is not None:
        bootstrap = returns.unsquashed(bootstrap, config.rescale)
    targets = ahead.rewards + ahead.discounts * bootstrap
    if config.rescale is not None:
        targets = returns.squashed(targets, config.rescale)
    last = last[:rows]
    # A `last` row's action may be one that is impossible there, with a value of -inf.
    errors = jnp.where(last, 0.0, jax.lax.stop_gradient(targets) - chosen)
    delta = config.huber_delta
    sizes = (
        jnp.square(errors) / 2
        if delta is None
        else optax.losses.huber_loss(errors, delta=delta)
    )
    weight = after.extras.get("weight", jnp.ones_like(after.reward))[:rows]
    told = {"value_loss": sizes, "q_value": chosen, "target": targets}
    told |= {"td_error": jnp.abs(errors), "importance_weight": weight}
    # Those of errors: not weighted, not squared, not cut at Huber's bound.
    priorities = losses.of_sequences(errors, last, config.eta)
    info = Info(losses.row_means(last, **told), jax.lax.stop_gradient(priorities))
    return losses.over_rows(weight * sizes, last), info


class _Values(NamedTuple):
    online: Float[Array, "L K A"]
    """In the trained rows."""
    choosing_ahead: Float[Array, "L K A"]
    """In the rows that their targets bootstrap from, of the network that chooses the
    action there."""
    target_ahead: Float[Array, "L K A"]


def _values(
    online: Params,
    target: Params,
    batch: Trajectory,
    steps: TimeStep,
    index: Int[Array, "L K"],
    network: Network,
    config: DQNConfig,
) -> _Values:
    """Both networks' values. `steps` begin after the burn-in, and index is of them."""
    rows, memory = index.shape[0], batch.carry.memory
    if not jax.tree.leaves(memory):
        # No row depends on those before: only what is used is computed.
        ahead = jax.tree.map(lambda x: _rows(x, index), steps)
        trained = jax.tree.map(lambda x: x[:rows], steps)
        q_values, _ = network.unroll(online, memory, trained)
        target_values, _ = network.unroll(target, memory, ahead)
        if not config.double:
            return _Values(q_values, target_values, target_values)
        # Apart from the trained rows: of these no gradient is computed.
        choosing, _ = network.unroll(jax.lax.stop_gradient(online), memory, ahead)
        return _Values(q_values, choosing, target_values)
    starts = [_burned(x, batch, network, config) for x in (online, target)]
    q_values, _ = network.unroll(online, starts[0], steps)
    target_values, _ = network.unroll(target, starts[1], steps)
    target_ahead = _rows(target_values, index)
    choosing = _rows(q_values, index) if config.double else target_ahead
    return _Values(q_values[:rows], choosing, target_ahead)


def _burned(
    params: Params, batch: Trajectory, network: Network, config: DQNConfig
) -> Carry:
    """Memory before the first trained row, from the carry that was stored."""
    memory = batch.carry.memory
    if not config.burn_in:
        return memory
    steps = jax.tree.map(lambda x: x[: config.burn_in], batch.steps)
    _, burned = network.unroll(params, memory, steps)
    # An unroll's first rows have nothing before them: there acting's memory is known.
    padded = batch.extras["padded"][0]

    def chosen(stored: Array, burned: Array) -> Array:
        where = padded.reshape(-1, *[1] * (stored.ndim - 1))
        return jnp.where(where, stored, jax.lax.stop_gradient(burned))

    return jax.tree.map(chosen, memory, burned)


def _rows(x: Array, index: Int[Array, "L K"]) -> Array:
    """x[index[t, k], k, ...]."""
    return x[index, jnp.arange(index.shape[1])[None]]


def _of(action: Int[Array, "L K"], q_values: Float[Array, "L K A"]):
    """Q(o[t], a[t]), [L, K]."""
    return jnp.take_along_axis(q_values, action[..., None], axis=-1)[..., 0]
