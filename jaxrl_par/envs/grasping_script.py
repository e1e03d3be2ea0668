"""Somebody who grasps now and then: a script, for data to learn from off policy.

It looks where the object is, goes there and down, closes the hand, lifts, and says that
it is done; but it aims badly, and any part of an action may be anything. So about one
in four of its episodes succeeds, and the others show what does not.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.envs.grasping import HIGH, STEP
from jaxrl_par.errors import RefusedError
from jaxrl_par.types import Agent, Obs, PRNGKey, TimeStep

_AIM = 0.4
"""Standard deviation of the moves, in units of an action."""
_ANYTHING = 0.08
"""Probability that a number of an action is drawn uniformly."""


def grasping_script() -> Agent:
    """Grasps in pictures of any size. It cannot be trained."""

    def act(params, carry: tuple[()], step: TimeStep, key: PRNGKey):
        del params  # it has its rules
        aim_key, size_key, choice_key, any_key = jax.random.split(key, 4)
        planned = _planned(step.obs)
        aim = _AIM * jax.random.normal(aim_key, planned[:, :3].shape)
        # Decisions are signs: with all sizes of them, a network learns that.
        sizes = jax.random.uniform(size_key, planned[:, 3:].shape)
        planned = planned.at[:, :3].add(aim).at[:, 3:].multiply(sizes)
        anything = jax.random.uniform(any_key, planned.shape, minval=-1.0, maxval=1.0)
        wanders = jax.random.bernoulli(choice_key, _ANYTHING, planned.shape)
        action = jnp.where(wanders, anything, planned)
        return jnp.clip(action, -1.0, 1.0), carry, {}

    def grad(state, batch, key, axis):
        raise RefusedError("a script has its rules, and cannot be trained")

    return Agent(
        init=lambda key, step: (),
        initial_carry=lambda num_envs: (),
        act=act,
        grad=grad,
        apply=lambda state, grads, metrics: state,
        greedy=act,
        params=lambda state: state,
    )


def _planned(obs: Obs) -> Float[Array, "B 5"]:
    """The action without errors; decisions are 1 or -1."""
    # Behind them may be the previous action and reward.
    image, told = jax.tree.leaves(obs)[:2]
    target, hand = (_centre(image[..., i]) for i in range(2))
    closed, height = told[:, 0] > 0.5, told[:, 1]
    away = (target - hand) / STEP
    reaches = jnp.all(jnp.abs(away) <= 1.0, axis=-1) & (height <= STEP)
    closes = closed | reaches
    ends = closed & (height >= HIGH - STEP)
    up = jnp.where(closed, 1.0, -1.0)
    decisions = jnp.stack([closes, ends], axis=-1) * 2.0 - 1.0
    moves = jnp.where(closed[:, None], 0.0, jnp.clip(away, -1.0, 1.0))
    return jnp.concatenate([moves, up[:, None], decisions], axis=-1)


def _centre(image: Array) -> Float[Array, "B 2"]:
    """Where the bright part of a picture is, in the unit square."""
    bright = image.astype(jnp.float32)
    total = jnp.maximum(jnp.sum(bright, axis=(1, 2)), 1.0)
    pixels = jnp.linspace(0.0, 1.0, image.shape[1])
    down = jnp.sum(bright * pixels[None, :, None], axis=(1, 2)) / total
    right = jnp.sum(bright * pixels[None, None, :], axis=(1, 2)) / total
    return jnp.stack([down, right], axis=-1)
