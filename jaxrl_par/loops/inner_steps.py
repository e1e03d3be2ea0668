"""Learning to adapt: MAML, first-order MAML and Reptile, over any agent's own gradient.

Tasks are drawn, and from the same parameters every task goes its own way: K steps by
the agent's gradient g, each from new data, drawn by the parameters reached so far.

    theta[0] = theta,   theta[k+1] = theta[k] - rate g(theta[k], data of theta[k])

The mean over the tasks of one of these is then the gradient of theta:

    maml      (d theta[K] / d theta)^T g(theta[K], new data)
    fomaml    g(theta[K], new data)
    reptile   theta - theta[K]

Data are constants: that other parameters would have drawn others is the business of the
agent's loss, which `networks.twice_differentiable` makes right. What the loss itself
holds constant stays so. A task is a world of its own, whose baselines and statistics
are of its own data, and all tasks count equally.

Sources: Finn et al., arXiv:1703.03400; Nichol et al., arXiv:1803.02999.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_par.axis import Axis
from jaxrl_par.errors import (
    RefusedError,
    above,
    at_least,
    lacking,
    not_chosen,
    refuse_any,
)
from jaxrl_par.types import (
    Agent,
    Grads,
    Metrics,
    Params,
    PRNGKey,
    State,
    nothing,
)


@dataclass(frozen=True)
class AdaptationConfig:
    """How parameters adapt to a task, and what is learned of that."""

    method: Literal["maml", "fomaml", "reptile"] = "maml"
    """maml: the gradient through the steps. fomaml: the one after them, as if they had
    been constant. reptile: towards where the steps led."""
    inner_steps: int = 1
    """Gradients by which a task's parameters move."""
    inner_rate: float = 0.1
    """How far, times the gradient. 0: tasks are learned together, without adapting."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, inner_steps=1, inner_rate=0) + not_chosen(self)
        if self.method == "reptile":
            found += above(self, inner_rate=0)
        return found


Draw = Callable[[Params, PRNGKey], tuple[Any, Any]]
"""(what acts, key) -> new data of a task, as `Agent.prepare` takes them, and anything
that is told of them."""


class Adapted(NamedTuple):
    """What came of one task."""

    params: Params
    """After the steps."""
    metrics: Metrics
    """Of the last gradient."""
    told: Any
    """Of the data of each step, leaves [K, ...]."""


def adapt(
    agent: Agent,
    draw: Draw,
    state: State,
    params: Params,
    key: PRNGKey,
    config: AdaptationConfig,
) -> Adapted:
    """`params` after the steps in one task, all else being as in the agent's state."""

    def step(params: Params, key: PRNGKey) -> tuple[Params, tuple[Metrics, Any]]:
        grads, metrics, told = _gradient(agent, draw, state, params, key)
        params = jax.tree.map(lambda x, g: x - config.inner_rate * g, params, grads)
        return params, (metrics, told)

    keys = jax.random.split(key, config.inner_steps)
    params, (metrics, told) = jax.lax.scan(step, params, keys)
    return Adapted(params, jax.tree.map(lambda x: x[-1], metrics), told)


def adapt_again(
    agent: Agent,
    data: Any,
    state: State,
    params: Params,
    key: PRNGKey,
    config: AdaptationConfig,
) -> Params:
    """As `adapt`, from data that were drawn before, leaves [K, ...]."""

    def step(params: Params, now: tuple[PRNGKey, Any]) -> tuple[Params, None]:
        key, known = now
        given = agent, lambda params, key: (known, ()), state, params, key
        grads, _, _ = _gradient(*given)
        moved = jax.tree.map(lambda x, g: x - config.inner_rate * g, params, grads)
        return moved, None

    keys = jax.random.split(key, config.inner_steps)
    return jax.lax.scan(step, params, (keys, data))[0]


def meta_gradient(
    agent: Agent, draw: Draw, state: State, key: PRNGKey, config: AdaptationConfig
) -> tuple[Grads, Metrics, Any]:
    """The gradient of the state's parameters, of one task.

    Returns:
      (gradient, metrics of the agent's last gradient, what was told of the data of each
      step and, at the end, of those of the adapted parameters: leaves [K + 1, ...]).

    Raises:
      RefusedError: as `refuse_agent`.
    """
    adapt_key, last_key = jax.random.split(key)
    params = params_of(state)

    def adapted(params: Params) -> tuple[Params, Adapted]:
        made = adapt(agent, draw, state, params, adapt_key, config)
        return made.params, made._replace(params=())

    pull = None
    if config.method == "maml":
        after, pull, made = jax.vjp(adapted, params, has_aux=True)
    else:
        after, made = adapted(params)
    if config.method == "reptile":
        grads, metrics = jax.tree.map(jnp.subtract, params, after), made.metrics
        # Of which nothing is learned.
        told = draw(acting_with(agent, state, after), last_key)[1]
    else:
        grads, metrics, told = _gradient(agent, draw, state, after, last_key)
    if pull is not None:
        (grads,) = pull(grads)
    told = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), made.told, told)
    return grads, metrics, told


def refuse_agent(agent: Agent) -> None:
    """Accepts agents whose parameters may adapt.

    Raises:
      RefusedError: it is none, or learns from data without a gradient.
    """
    refuse_any(lacking("an Agent, as algorithms make", "act", "grad", agent=agent))
    if agent.observe is not nothing:
        raise RefusedError(
            "agent must learn by gradients alone, to adapt by them: this one observes"
            " data besides, as for normalised observations"
        )


def params_of(state: State) -> Params:
    """What adapts.

    Raises:
      RefusedError: the state does not tell.
    """
    if not (hasattr(state, "_replace") and hasattr(state, "params")):
        raise RefusedError(
            "agent must have a state with a field params, as agents.TrainState has, to"
            f" adapt these: got a {type(state).__name__}"
        )
    return state.params


def _gradient(
    agent: Agent, draw: Draw, state: State, params: Params, key: PRNGKey
) -> tuple[Grads, Metrics, Any]:
    """The agent's, with these parameters, of data that they drew."""
    draw_key, grad_key = jax.random.split(key)
    data, told = draw(acting_with(agent, state, params), draw_key)
    state = state._replace(params=params)
    batch = agent.prepare(state, data, Axis())
    grads, info = agent.grad(state, batch, grad_key, Axis())
    if jax.tree.structure(grads) != jax.tree.structure(params):
        raise RefusedError(
            "agent must have a gradient of each of its state's params, to adapt them,"
            " and this one's are others"
        )
    return grads, info.metrics, told


def acting_with(agent: Agent, state: State, params: Params) -> Params:
    """What acts with these parameters; nothing is differentiated through acting."""
    state = state._replace(params=params)
    return jax.lax.stop_gradient(agent.params(state))
