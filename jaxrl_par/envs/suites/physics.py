"""What brax and MuJoCo Playground share: environments whose state is all of a step.

Their `step` takes the state that the step before returned, with the observation, the
`metrics` and the `info` in it, and may read any of them: so it gets it whole, and a
reset replaces all that may change. What their wrappers add to `info`, such as a counter
of steps, has no place there.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.envs.raw import Raw, as_written
from jaxrl_par.envs.suites.bare import refuse_wrapped
from jaxrl_par.envs.suites.keys import words
from jaxrl_par.errors import refuse
from jaxrl_par.types import Action, Box, EnvState


@as_written
def raw(env: Any, episode_length: int | None, action_repeat: int) -> Raw:
    """One environment with brax's interface: `reset(key)`, `step(state, action)`.

    Its `done` is a termination. Actions are [-1, 1], as both suites have them.

    Args:
      episode_length: time limit in steps of `env`; None for none.
      action_repeat: steps of `env` that one action takes. Rewards are added up. The
        suites' own wrapper steps on behind an end within; here it is the end.

    Raises:
      RefusedError: a number is below 1, or a wrapper is around the environment.
    """
    refuse(episode_length=episode_length, action_repeat=action_repeat)
    refuse_wrapped(env)

    def reset(key):
        state = env.reset(words(key))
        return state, state.obs

    def step(state, action, key):
        state, reward, done = _repeated(env, state, action, action_repeat)
        return state, state.obs, reward, done, False

    shown = jax.eval_shape(reset, jax.random.key(0))[1]
    return Raw(
        reset,
        step,
        observation_spec=jax.tree.map(lambda x: Box(x.shape, np.dtype(x.dtype)), shown),
        action_spec=Box((int(env.action_size),), low=-1.0, high=1.0),
        max_episode_steps=episode_length and -(-episode_length // action_repeat),
    )


def _repeated(env: Any, state: EnvState, action: Action, times: int):
    """(state, sum of the rewards, done) after so many steps, or at the first end."""
    if times == 1:
        state = env.step(state, action)
        return state, state.reward, jnp.asarray(state.done, bool)

    def once(carry, _):
        before, total, over = carry
        after = env.step(before, action)
        total += jnp.where(over, 0.0, after.reward)
        kept = jax.tree.map(
            lambda x, y: jnp.where(over, x, y).astype(x.dtype), before, after
        )
        return (kept, total, over | jnp.asarray(after.done, bool)), None

    start = (state, jnp.float32(0), jnp.asarray(False))
    return jax.lax.scan(once, start, length=times)[0]
