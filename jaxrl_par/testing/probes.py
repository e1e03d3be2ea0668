"""Environments small enough to know the answer, to find what is wrong with an agent.

Each fails for one reason: the first that an agent does not solve says where to look:

    constant_reward      the value function, the discount
    truncation           a time limit that is taken for an end
    observation_reward   the policy gradient, observations that reach the network
    continuous_action    the same with real numbers for actions
    delayed_reward       credit over time
    memory               a carry that is kept, cleared and trained through
    counter, clock       shifts of observation, action, reward; mixed environments, rows

Rewards of `counter` and `clock` are functions of what is shown beside them, exact in
float32, so that a batch can be checked wherever it turns up. gamma is the agent's
discount; optimal returns are undiscounted, as in `Environment.episode`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.envs import Environment
from jaxrl_par.envs.wrappers import episode_statistics
from jaxrl_par.errors import refuse
from jaxrl_par.types import Action, Box, Discrete, Obs, PRNGKey, Specs, TimeStep


class State(NamedTuple):
    """B episodes in progress."""

    time: Int[Array, " B"]
    """Environment steps so far in the episode."""
    position: Int[Array, ""]
    """Rows of the stream so far."""
    secret: Float[Array, " B"]
    """What the episode drew at its start, or remembers."""
    last: Bool[Array, " B"]


def constant_reward(
    num_envs: int, reward: float = 1.0, continuing: bool = False
) -> Environment:
    """Pays `reward` for anything, in episodes of one step or in one without end.

    The value is `reward`, or reward / (1 - gamma) if `continuing`.
    """
    return probe(
        "constant_reward",
        num_envs,
        length=None if continuing else 1,
        show=lambda state: jnp.ones((num_envs, 1)),
        pay=lambda state, action: jnp.full(num_envs, reward),
        observation_spec=Box((1,), low=1.0, high=1.0),
    )


def truncation(num_envs: int, limit: int = 5) -> Environment:
    """Pays 1 for anything; a time limit cuts episodes after `limit` steps.

    The value is 1 / (1 - gamma) everywhere. Who takes the limit for an end finds, with
    targets of one step, 1 / (1 - gamma * (limit - 1) / limit), and less with longer
    ones: observations do not tell the time, and one step in `limit` has no successor.
    """
    refuse(limit=limit)
    return probe(
        "truncation",
        num_envs,
        length=limit,
        show=lambda state: jnp.ones((num_envs, 1)),
        pay=lambda state, action: jnp.ones(num_envs),
        cut=lambda state: jnp.array(True),
        observation_spec=Box((1,), low=1.0, high=1.0),
    )


def observation_reward(num_envs: int) -> Environment:
    """Pays 1 for naming the bit that is shown, else 0, in episodes of one step.

    The optimal return is 1 and so is its value. Whoever does not see gets 0.5.
    """
    return probe(
        "observation_reward",
        num_envs,
        draw=lambda key: bits(key, num_envs),
        pay=lambda state, action: action == state.secret,
        observation_spec=Box((1,), low=0.0, high=1.0),
    )


def continuous_action(num_envs: int) -> Environment:
    """Pays -(action - obs)**2, obs uniform in [-1, 1], in episodes of one step.

    The optimal return is 0 and so is its value. Whoever does not see gets -1/3 at best.
    """
    return probe(
        "continuous_action",
        num_envs,
        draw=lambda key: jax.random.uniform(key, (num_envs,), minval=-1.0),
        pay=lambda state, action: -jnp.square(action[:, 0] - state.secret),
        observation_spec=Box((1,), low=-1.0, high=1.0),
        action_spec=Box((1,), low=-1.0, high=1.0),
    )


def delayed_reward(num_envs: int, delay: int = 3) -> Environment:
    """The first action earns 1 if it is 1, else 0; this is paid `delay` steps later.

    Shows (time / delay, whether it earned). Actions after the first change nothing. The
    optimal return is 1 and its value gamma**(delay - time); once the first action is
    taken, the value of any policy is that, times whether it earned.
    """
    refuse(delay=delay)
    return probe(
        "delayed_reward",
        num_envs,
        length=delay + 1,
        show=lambda state: jnp.stack([state.time / delay, state.secret], axis=1),
        remember=lambda state, action: jnp.where(state.time == 0, action, state.secret),
        pay=lambda state, action: jnp.where(state.time == delay, state.secret, 0.0),
        observation_spec=Box((2,), low=0.0, high=(delay + 1) / delay),
    )


def memory(num_envs: int, length: int = 4) -> Environment:
    """A bit shown first must be named `length` steps later, which pays 1, else 0.

    Shows (the bit as -1 or 1 at first, then 0; 1 when it is asked for, else 0). With
    memory the optimal return is 1 and its value gamma**(length - time). No policy
    without memory gets more than 0.5.
    """
    refuse(length=length)

    def show(state):
        bit = jnp.where(state.time == 0, 2.0 * state.secret - 1.0, 0.0)
        return jnp.stack([bit, 1.0 * (state.time == length)], axis=1)

    return probe(
        "memory",
        num_envs,
        length=length + 1,
        draw=lambda key: bits(key, num_envs),
        show=show,
        pay=lambda state, action: (state.time == length) & (action == state.secret),
        observation_spec=Box((2,), low=-1.0, high=1.0),
    )


def counter(num_envs: int, length: int = 3) -> Environment:
    """Shows (steps so far in the episode, row of the stream) and pays `counter_reward`.

    Episodes of `length` steps terminate and are cut by a time limit in turns: of the
    rows 0 .. length the final one is `last`, and the transition to it has discount 0;
    in the next length + 1 rows it has discount 1. An episode that starts in row s
    returns length * s + length * (length - 1) / 2, and half the sum of its actions.
    """
    refuse(length=length)
    return probe(
        "counter",
        num_envs,
        length=length,
        show=lambda state: _with_row(state.time, state),
        pay=lambda state, action: counter_reward(_with_row(state.time, state), action),
        cut=lambda state: (state.position // (length + 1)) % 2 == 1,
        observation_spec=Box((2,), low=0.0),
    )


def counter_reward(
    obs: Float[Array, "*B 2"], action: Int[Array, "*B"]
) -> Float[Array, "*B"]:
    """What `counter` pays for `action` at `obs`: its row, and a half for action 1."""
    return obs[..., 1] + 0.5 * action


def clock(num_envs: int) -> Environment:
    """Shows (index of the environment, row of the stream) and pays `clock_reward`.

    Episodes of environment b terminate after b + 1 steps, so that rows of environments
    are out of step with each other. Its first episode returns
    (b + 1) * b + b * (b + 1) / 2048, whatever it does.
    """
    index = jnp.arange(num_envs)
    env = probe(
        "clock",
        num_envs,
        length=index + 1,
        show=lambda state: _with_row(index, state),
        pay=lambda state, action: clock_reward(_with_row(index, state)),
        observation_spec=Box((2,), low=0.0),
    )
    return env._replace(max_episode_steps=num_envs)


def clock_reward(obs: Float[Array, "*B 2"]) -> Float[Array, "*B"]:
    """What `clock` pays for anything at `obs`: the index, and 1/1024 for each row."""
    return obs[..., 0] + obs[..., 1] / 1024.0


def probe(
    name: str,
    num_envs: int,
    *,
    length: int | Int[Array, " B"] | None = 1,
    show: Callable[[State], Obs] = lambda state: state.secret[:, None],
    pay: Callable[[State, Action], Array],
    observation_spec: Specs,
    action_spec: Specs = Discrete(2),
    draw: Callable[[PRNGKey], Array] | None = None,
    remember: Callable[[State, Action], Array] = lambda state, action: state.secret,
    cut: Callable[[State], Bool[Array, ""]] = lambda state: jnp.array(False),
) -> Environment:
    """Episodes of `length` steps, None for one without end, with their statistics.

    Args:
      draw: the secret of a new episode, by default 0.
      remember: the secret after an action.
      cut: whether the end of the episode is a time limit, by default never.
    """
    refuse(num_envs=num_envs)
    no = jnp.zeros(num_envs, bool)
    draw = draw or (lambda key: jnp.zeros(num_envs))

    def reset(key):
        time = jnp.zeros(num_envs, jnp.int32)
        state = State(time, jnp.int32(0), draw(key), last=no)
        return state, TimeStep(show(state), first=~no, last=no)

    def step(state, action, key):
        time = jnp.where(state.last, 0, state.time + 1)
        last = no if length is None else ~state.last & (time >= length)
        reward = jnp.where(state.last, 0.0, pay(state, action).astype(jnp.float32))
        discount = ~(state.last | (last & ~cut(state)))
        secret = jnp.where(state.last, draw(key), remember(state, action))
        after = State(time, state.position + 1, secret, last)
        after_step = TimeStep(show(after), first=state.last, last=last)
        return after, after_step, reward, discount.astype(jnp.float32)

    return episode_statistics(
        Environment(
            reset=reset,
            step=step,
            num_envs=num_envs,
            observation_spec=observation_spec,
            action_spec=action_spec,
            name=name,
            max_episode_steps=length if isinstance(length, int) else None,
        )
    )


def _with_row(x: Int[Array, " B"], state: State) -> Float[Array, "B 2"]:
    """What is shown of x, and the row of the stream."""
    row = jnp.broadcast_to(state.position, x.shape)
    return jnp.stack([x, row], axis=1).astype(jnp.float32)


def bits(key: PRNGKey, num_envs: int) -> Float[Array, " B"]:
    """0 or 1 with equal probability, in float32."""
    return jax.random.bernoulli(key, 0.5, (num_envs,)).astype(jnp.float32)
