"""A model of an environment as an environment: short branches from real states.

    reset     each stream in a state of `starts`
    step      to what the model predicts
    an end    as the model says, drawn: reward and discount 0, as for any environment
    a branch  is cut after `horizon` steps, as by a time limit: what would follow counts

A stream that ended shows a new start in its next step; the others go on from where they
are. So `rollout.unroll` serves it as any other, and losses bootstrap rightly.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.wrappers import episode_statistics
from jaxrl_par.errors import refuse
from jaxrl_par.types import Action, Obs, Prediction, PRNGKey, Specs, TimeStep


class Imagining(NamedTuple):
    """B branches in progress."""

    obs: Obs
    time: Int[Array, " B"]
    """Steps of the branch."""
    last: Bool[Array, " B"]


def imagined(
    predict: Callable[[Obs, Action, PRNGKey], Prediction],
    starts: Callable[[PRNGKey], Obs],
    specs: tuple[Specs, Specs],
    num_envs: int,
    horizon: int,
    name: str = "imagined",
) -> Environment:
    """Streams in which a model says what happens.

    Where it predicts what is no finite number, that is shown, and the branch ends
    there: whoever learns has to leave such rows out.

    Args:
      predict: the model, with its parameters.
      starts: draws `num_envs` observations of real states that ended no episode.
      specs: of observations and actions.
      horizon: steps of a branch.

    Raises:
      ValueError: a count is below 1.
    """
    refuse(num_envs=num_envs, horizon=horizon)

    def reset(key: PRNGKey) -> tuple[Imagining, TimeStep]:
        obs, no = starts(key), jnp.zeros(num_envs, bool)
        state = Imagining(obs, jnp.zeros(num_envs, jnp.int32), no)
        return state, TimeStep(obs, ~no, no)

    def step(state: Imagining, action: Action, key: PRNGKey):
        predict_key, end_key, start_key = jax.random.split(key, 3)
        told = predict(state.obs, action, predict_key)
        ended = jax.random.uniform(end_key, (num_envs,)) < told.end
        time = jnp.where(state.last, 0, state.time + 1)
        over = ended | (time >= horizon) | ~_finite(told)
        last = ~state.last & over
        obs = jax.tree.map(
            lambda x, y: jnp.where(_like(state.last, x), x, y),
            starts(start_key),
            told.obs,
        )
        reward = jnp.where(state.last, 0.0, told.reward)
        discount = (~(state.last | ended)).astype(jnp.float32)
        shown = TimeStep(obs, first=state.last, last=last)
        return Imagining(obs, time, last), shown, reward, discount

    return episode_statistics(
        Environment(
            reset,
            step,
            num_envs,
            *specs,
            name=name,
            max_episode_steps=horizon,
        )
    )


def _finite(told: Prediction) -> Bool[Array, " B"]:
    """Where an observation and a reward were predicted."""
    found = [jnp.isfinite(told.reward), jnp.isfinite(told.end)]
    for x in jax.tree.leaves(told.obs):
        found.append(jnp.all(jnp.isfinite(x), axis=range(1, x.ndim)))
    return jnp.stack(found).all(0)


def _like(x: Bool[Array, " B"], of: Array) -> Bool[Array, "B ..."]:
    return x.reshape(-1, *[1] * (of.ndim - 1))
