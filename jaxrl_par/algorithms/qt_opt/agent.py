"""QT-Opt as an agent: it regresses on labels, and acts by the cross-entropy method."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxrl_par import losses
from jaxrl_par.agents import stepped
from jaxrl_par.algorithms.qt_opt.cem import Found, cross_entropy
from jaxrl_par.algorithms.qt_opt.config import QTOptConfig
from jaxrl_par.algorithms.qt_opt.labels import (
    Copies,
    Labelled,
    Nets,
    labelled,
    same_shape,
)
from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError, lacking, refuse, refuse_any, told
from jaxrl_par.networks.candidates import CandidateValues
from jaxrl_par.networks.continuous import units_of
from jaxrl_par.targets import followed, renewed
from jaxrl_par.types import (
    Agent,
    Grads,
    Info,
    Params,
    PRNGKey,
    Spec,
    TimeStep,
    Trajectory,
)


class QTOptState(NamedTuple):
    """What is learned."""

    params: Params
    opt_state: optax.OptState
    copies: Copies
    waiting: Params
    """The slow copy as it was when the delayed one was made: what that will be next."""
    slow_phase: Int[Array, ""]
    """Updates since the slow copy moved, below `target_period`."""
    delay_phase: Int[Array, ""]
    """Updates since the delayed copy was made, below `delay`."""


def qt_opt(
    values: CandidateValues,
    action_spec: Spec,
    optimizer: optax.GradientTransformation,
    config: QTOptConfig = QTOptConfig(),
) -> Agent:
    """QT-Opt, learned with `loops.replayed` or `loops.labelling`: see the package.

    It learns from batches of a replay, which it labels itself, and from `Labelled`
    rows, which others have labelled.

    Args:
      values: as `networks.candidate_values` makes.
      optimizer: clips, schedules and scales the gradient.

    Raises:
      RefusedError: an argument is something else, or actions are not bounded.
    """
    nets = nets_of(values, action_spec, config)
    makes = "an optax.GradientTransformation, as optimizers.make_optimizer makes"
    refuse_any(lacking(makes, "init", "update", optimizer=optimizer))

    def act(params: Params, carry: tuple[()], step: TimeStep, key: PRNGKey):
        search_key, explore_key, uniform_key = jax.random.split(key, 3)
        unit = best(params, step, search_key, nets).unit
        uniform = jax.random.uniform(uniform_key, unit.shape, unit.dtype, -1.0, 1.0)
        explores = jax.random.bernoulli(explore_key, config.epsilon, unit.shape[:1])
        unit = jnp.where(explores[:, None], uniform, unit)
        return nets.units.action(unit), carry, {}

    def greedy(params: Params, carry: tuple[()], step: TimeStep, key: PRNGKey):
        unit = best(params, step, key, nets).unit
        return nets.units.action(unit), carry, {}

    def grad(
        state: QTOptState, batch: Trajectory | Labelled, key: PRNGKey, axis: Axis
    ) -> tuple[Grads, Info]:
        if isinstance(batch, Labelled):
            return _grad(state.params, values, batch)
        rows = labelled(state.copies, batch, key, axis, nets)
        grads, info = _grad(state.params, values, rows)
        errors = jnp.reshape(jnp.asarray(info.priorities), batch.reward.shape)
        # Windows have one row, of which the largest error is the mean.
        priorities = losses.of_sequences(errors, batch.rows.last, 1.0)
        return grads, info._replace(priorities=priorities)

    return Agent(
        init=lambda key, step: _begun(values, optimizer, key, step),
        initial_carry=lambda num_envs: (),
        act=act,
        greedy=greedy,
        grad=grad,
        apply=lambda state, grads, metrics: _applied(optimizer, config, state, grads),
        specs=values.specs,
    )


def nets_of(values: CandidateValues, action_spec: Spec, config: QTOptConfig) -> Nets:
    """The network, with the units of actions.

    Raises:
      RefusedError: an argument is something else, or actions are not bounded.
    """
    makes = "a CandidateValues, as networks.candidate_values makes"
    refuse_any(lacking(makes, "init", "embed", "logits", values=values))
    if not isinstance(config, QTOptConfig):
        raise RefusedError(f"config must be a QTOptConfig, got {told(config)}")
    refuse(config)
    return Nets(values, units_of(action_spec), config)


def best(params: Params, steps: TimeStep, key: PRNGKey, nets: Nets) -> Found:
    """The best actions in B states, and the logits of their values."""
    seen = nets.values.embed(params, steps)
    return cross_entropy(
        jax.random.split(key, steps.first.shape[0]),
        lambda unit: nets.values.logits(params, seen, unit),
        len(nets.units.low),
        nets.config.cem,
    )


def bernoulli_loss(
    params: Params, values: CandidateValues, rows: Labelled
) -> tuple[Float[Array, ""], Float[Array, " N"]]:
    """Cross-entropy of what is said and the targets, both probabilities; and what is
    said.

        -y log Q - (1 - y) log(1 - Q),   Q = sigmoid(logit)
    """
    seen = values.embed(params, rows.steps)
    logits = values.logits(params, seen, rows.unit[:, None])[:, 0]
    same_shape(logits, rows.target)
    # log(1 + exp(x)) - y x is the same, and finite for every logit.
    entropies = jax.nn.softplus(logits) - rows.target * logits
    return losses.over_rows(rows.weight * entropies, rows.last), jax.nn.sigmoid(logits)


def _grad(params: Params, values: CandidateValues, rows: Labelled):
    """The gradient; priorities are the sizes of the errors of all rows."""
    grads, q_values = jax.grad(bernoulli_loss, has_aux=True)(params, values, rows)
    errors = jnp.abs(q_values - rows.target)
    log_q, log_rest = jnp.log(q_values + 1e-7), jnp.log(1.0 - q_values + 1e-7)
    entropies = -rows.target * log_q - (1.0 - rows.target) * log_rest
    by_name = {"value_loss": entropies, "q_value": q_values, "target": rows.target}
    by_name |= {"td_error": errors, "importance_weight": rows.weight}
    return grads, Info(losses.row_means(rows.last, **by_name), errors)


def _begun(values, optimizer, key: PRNGKey, step: TimeStep) -> QTOptState:
    params = values.init(key, step)
    # Copied, because a buffer that is in the state twice cannot be donated.
    slow, delayed, waiting = (jax.tree.map(jnp.copy, params) for _ in range(3))
    copies, zero = Copies(slow, delayed), jnp.int32(0)
    return QTOptState(params, optimizer.init(params), copies, waiting, zero, zero)


def _applied(
    optimizer: optax.GradientTransformation,
    config: QTOptConfig,
    state: QTOptState,
    grads: Grads,
) -> QTOptState:
    """After a gradient; the copies move after it."""
    params, opt_state = stepped(optimizer, state.params, state.opt_state, grads)
    phase, period = state.slow_phase, config.target_period
    slow, slow_phase = followed(
        params, state.copies.slow, phase, period, config.target_rate
    )
    # In two steps, so that the delayed copy is never the slow one of this moment.
    new, old = (state.waiting, slow), (state.copies.delayed, state.waiting)
    (delayed, waiting), phase = renewed(new, old, state.delay_phase, config.delay)
    copies = Copies(slow, delayed)
    return QTOptState(params, opt_state, copies, waiting, slow_phase, phase)
