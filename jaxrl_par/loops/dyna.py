"""Deep Dyna: an agent that learns from replay, and from what a model makes of it.

An update has three gradients, of one batch of real windows:

    model      of the rows, each for the members that see it
    real       of the windows, as the agent has it alone
    imagined   of branches that begin in states of the windows, and in which the agent
               acts by itself: `envs.imagined`

    the agent's gradient = (1 - share) real + share imagined,   share = 0 until ready

Branches are imagined anew for each update, by the newest model and policy, and never
kept: no imagined row is older than the model. `share` bounds how much they count,
however many there are. So in parallel deep Dyna-Q, where one process acts in the one
real environment and many train the model and imagine, the many cannot drown the one:

    acting          an actor, with `threads` and the decoupled schedule, at its own pace
    the many        streams under `vmap`, and the devices of a mesh: each learns the
                    model from a part of the batch, and imagines branches of its own
    how much in all the pace of `threads`, updates for each real row

Beyond lecture 5, whose authors ask for both: branches begin where errors are large, as
in prioritised sweeping (`starts`), and imagination may look for what the model does not
know (`curiosity`), as Dyna-Q+ does, or avoid it.

Everything is part of an `Agent`, which every topology takes as it is.

Sources: lecture 5 (Elster, Mustafaoglu and Pingali), parallel deep Dyna-Q; Sutton, Dyna
(1990); Janner et al., arXiv:1906.08253, for short branches from replayed states.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par import rollout
from jaxrl_par.axis import Axis
from jaxrl_par.envs.imagined import imagined
from jaxrl_par.errors import (
    RefusedError,
    at_least,
    lacking,
    not_between,
    not_chosen,
    refuse,
    refuse_any,
)
from jaxrl_par.measured import Metric
from jaxrl_par.types import (
    Agent,
    Batch,
    Carry,
    Grads,
    Info,
    Metrics,
    Obs,
    Params,
    PRNGKey,
    State,
    TimeStep,
    Trajectory,
    WorldModel,
)

METRICS = {
    "imagined_share": Metric(
        "share of the gradient",
        "that is of imagined branches; 0 until the model is believed",
    ),
    "imagined_*": Metric(
        "as without imagined_", "of the agent's gradient in imagined branches"
    ),
    "model_loss": Metric(
        "1",
        "squared error of normalised changes and of rewards, and cross- "
        "entropy of ends",
    ),
    "model_held_out_error": Metric(
        "1", "squared error of normalised changes, of rows that no member learns from"
    ),
    "model_dropped_members": Metric(
        "members", "of the ensemble that predict no number, and are not asked"
    ),
}


@dataclass(frozen=True)
class ImaginationConfig:
    """How much is imagined, and from where. Of one device."""

    share: float = 0.5
    """Of imagined branches in each update; real windows have the rest. 0 imagines
    nothing, 1 learns from imagination alone."""
    branches: int = 128
    """Streams that are imagined in each update."""
    horizon: int = 1
    """Steps of a branch."""
    starts: Literal["uniform", "prioritised"] = "uniform"
    """Which states of the windows branches begin in: each alike, or in proportion to
    the windows' priorities."""
    curiosity: float = 0.0
    """What is added to an imagined reward, for each standard deviation that the model's
    members disagree by. Above 0 the agent learns to go where the model is to be
    learned, below to avoid that."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_between(self, share=(0, 1)) + not_chosen(self)
        return found + at_least(self, branches=1, horizon=1)


class DynaState(NamedTuple):
    """What is learned."""

    agent: State
    model: State


class DynaBatch(NamedTuple):
    """The same windows, for each."""

    agent: Batch
    rows: Trajectory


class _Dyna(NamedTuple):
    """The functions of `Agent` that differ from the inner one's."""

    agent: Agent
    model: WorldModel
    config: ImaginationConfig

    def init(self, key: PRNGKey, step: TimeStep) -> DynaState:
        agent_key, model_key = jax.random.split(key)
        agent, model = (
            self.agent.init(agent_key, step),
            self.model.init(model_key, step),
        )
        return DynaState(agent, model)

    def act(self, params: Params, carry: Carry, step: TimeStep, key: PRNGKey):
        act_key, members_key = jax.random.split(key)
        action, carry, extras = self.agent.act(params, carry, step, act_key)
        members = self.model.members(members_key, step.first.shape[0])
        return action, carry, extras | {"members": members}

    def prepare(self, state: DynaState, batch: Trajectory, axis: Axis) -> DynaBatch:
        return DynaBatch(self.agent.prepare(state.agent, batch, axis), batch)

    def observe(self, state: DynaState, trajectory: Trajectory, axis: Axis):
        return DynaState(
            self.agent.observe(state.agent, trajectory, axis),
            self.model.observe(state.model, trajectory, axis),
        )

    def grad(
        self, state: DynaState, batch: DynaBatch, key: PRNGKey, axis: Axis
    ) -> tuple[Grads, Info]:
        real_key, model_key, dream_key, key = jax.random.split(key, 4)
        of_agent, info = self.agent.grad(state.agent, batch.agent, real_key, axis)
        of_model, learned = self.model.grad(state.model, batch.rows, model_key, axis)
        metrics = info.metrics | _named("model_", learned.metrics)
        if self.config.share > 0:
            dreams = self.imagine(state, batch.rows, info.priorities, dream_key)
            prepared = self.agent.prepare(state.agent, dreams, axis)
            by_dreams, dreamt = self.agent.grad(state.agent, prepared, key, axis)
            told = jnp.any(dreams.extras["weight"] > 0)
            ready = self.model.ready(state.model) & told
            share = jnp.where(ready, jnp.float32(self.config.share), 0.0)
            of_agent = jax.tree.map(
                lambda x, y: jnp.where(ready, (1.0 - share) * x + share * y, x),
                of_agent,
                by_dreams,
            )
            metrics |= {"imagined_share": share}
            metrics |= _named("imagined_", dreamt.metrics)
        grads = {"agent": of_agent, "model": of_model}
        return grads, info._replace(metrics=metrics)

    def apply(self, state: DynaState, grads: Any, metrics: Metrics) -> DynaState:
        prefix = "model_"
        told = {
            name.removeprefix(prefix): x
            for name, x in metrics.items()
            if name.startswith(prefix)
        }
        return DynaState(
            self.agent.apply(state.agent, grads["agent"], metrics),
            self.model.apply(state.model, grads["model"], told),
        )

    def imagine(
        self,
        state: DynaState,
        rows: Trajectory,
        priorities: Float[Array, " K"] | None,
        key: PRNGKey,
    ) -> Trajectory:
        """Branches of the agent in the model, [horizon, branches].

        Lanes in which the model could not tell have weight 0.
        """
        config, (reset_key, act_key) = self.config, jax.random.split(key)
        last, seen = rows.rows.last, rows.rows.obs
        mass = jnp.ones(last.shape)
        if config.starts == "prioritised":
            if priorities is None:
                raise RefusedError(
                    "starts = prioritised needs an agent whose gradients tell the"
                    " priorities of windows, as DQN's do: take uniform"
                )
            # A window without an error is not begun in, unless all are.
            mass = jnp.broadcast_to(jnp.abs(priorities) + 1e-6, last.shape)
        ends = jnp.cumsum(jnp.where(last, 0.0, mass).reshape(-1))

        def starts(key: PRNGKey) -> Obs:
            place = ends[-1] * jax.random.uniform(key, (config.branches,))
            index = jnp.searchsorted(ends, place, side="right")
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[index], seen)

        def predict(obs, action, key):
            told = self.model.predict(state.model, obs, action, key)
            return told._replace(reward=told.reward + config.curiosity * told.doubt)

        assert self.agent.specs is not None
        sizes = (config.branches, config.horizon)
        env = imagined(predict, starts, self.agent.specs, *sizes)
        streams = rollout.start(self.agent, env, reset_key)
        params = self.agent.params(state.agent)
        given = (self.agent, env, params, streams, act_key, config.horizon)
        _, trajectory, _ = rollout.unroll(*given)
        return _weighted(trajectory, ~jnp.all(last))


def dyna(
    agent: Agent, model: WorldModel, config: ImaginationConfig = ImaginationConfig()
) -> Agent:
    """The agent, which also learns from what the model imagines: see the module.

    It is to be learned with `loops.replayed`. Actors know nothing of the model but who
    of its members is to see each row, which is in the extras.

    Args:
      agent: learns from windows by a mean, without memory, such as `dqn`. Weights of
        rows are `extras["weight"]`.
      model: as `algorithms.world_model` makes.

    Raises:
      RefusedError: the config is out of range, or an argument is something else.
    """
    refuse_any(
        lacking("an Agent, as algorithms make", "grad", "act", "specs", agent=agent)
        + lacking(
            "a WorldModel, as algorithms.world_model makes", "predict", model=model
        )
    )
    refuse(config)
    if agent.specs is None or agent.reduction != "mean":
        raise RefusedError(
            "dyna imagines for an agent that says what specs it was made for, and whose"
            " loss is a mean over rows"
        )
    made = _Dyna(agent, model, config)
    return agent._replace(
        init=made.init,
        act=made.act,
        grad=made.grad,
        apply=made.apply,
        prepare=made.prepare,
        observe=made.observe,
        params=lambda state: agent.params(state.agent),
    )


def _weighted(trajectory: Trajectory, any_start: Array) -> Trajectory:
    """Without what is not finite, whose lanes have no weight."""
    leaves = jax.tree.leaves(trajectory.steps.obs)
    finite = [jnp.all(jnp.isfinite(x), axis=(0, *range(2, x.ndim))) for x in leaves]
    finite.append(jnp.all(jnp.isfinite(trajectory.reward), axis=0))
    sound = jnp.stack(finite).all(0) & any_start

    def cleared(x: Array) -> Array:
        lanes = sound.reshape(1, -1, *[1] * (x.ndim - 2))
        return jnp.where(lanes, x, jnp.zeros_like(x))

    obs = jax.tree.map(cleared, trajectory.steps.obs)
    weight = jnp.broadcast_to(sound.astype(jnp.float32), trajectory.reward.shape)
    return trajectory._replace(
        steps=trajectory.steps._replace(obs=obs),
        reward=cleared(trajectory.reward),
        extras={"weight": weight},
    )


def _named(prefix: str, metrics: Metrics) -> Metrics:
    return {f"{prefix}{name}": x for name, x in metrics.items()}
