"""One task of each suite: as our stream, and behind the suite's own automatic reset.

Both are functions of one environment with the same signature, so that `conformance.py`
can ask both the same questions, and `suites.py` can time both.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import jax
import own_resets
from own_resets import Bare, Seen, Wrapped, legal

from jaxrl_par.envs import Raw, from_raw
from jaxrl_par.envs import gymnax as adapter_of_gymnax
from jaxrl_par.envs.raw import constants_of
from jaxrl_par.envs.registry import alone


class Subject(NamedTuple):
    """A suite's task."""

    task: str
    limit: str | None
    """The parameter that is its time limit."""
    wrapped: Callable[[str, Raw, int], Wrapped] | None
    """(task, its bare transition, limit) -> the suite's own."""
    heavy: bool = False
    """It compiles for minutes."""
    params: tuple[tuple[str, Any], ...] = ()


def raw(suite: str, subject: Subject, limit: int) -> Raw:
    """The bare transition, as our adapter has it, with a time limit."""
    given = dict(subject.params)
    if subject.limit:
        given[subject.limit] = limit
    if suite in ("gymnax", "ours"):
        env = alone(subject.task)
        return adapter_of_gymnax.raw(env, env.default_params.replace(**given))
    adapter = import_module(f"jaxrl_par.envs.suites.{suite}")
    return adapter.raw(subject.task, **given)


def stream(raw: Raw) -> Wrapped:
    """One environment of our stream."""
    env, whole = from_raw(raw, 1, "stream"), constants_of(raw).put_back

    def seen(x: Any) -> Any:
        return jax.tree.map(lambda x: x[0], x)

    def reset(key):
        state, step = env.reset(key)
        return (state, step), seen(step.obs)

    def step(now, action, key):
        action = jax.tree.map(lambda x: x[None], action)
        state, step, reward, discount = env.step(now[0], action, key)
        obs = seen(step.obs)
        told = Seen(obs, obs, reward[0], step.last[0], discount[0])
        return (state, step), told

    def bare(now, action, key):
        inner = whole(seen(now[0].inner.streams.state))
        step_key = jax.random.split(key, (2, 1))[0, 0]
        _, obs, reward, terminated, _ = raw.step(inner, action, step_key)
        return Bare(obs, reward, terminated)

    act = legal(raw, lambda now: seen(now[1].obs))
    return Wrapped("our stream", reset, step, bare, act, lambda now: now[1].last[0])


SUBJECTS: dict[str, tuple[Subject, ...]] = {
    "ours": tuple(
        Subject(x, "max_steps_in_episode", None)
        for x in ("IMaze-9x9", "MetaFetch-7x7", "Grasping-16x16", "LQR-2x1")
    ),
    "gymnax": tuple(
        Subject(x, "max_steps_in_episode", own_resets.gymnax)
        for x in ("CartPole-v1", "Pendulum-v1", "Breakout-MinAtar", "Catch-bsuite")
    ),
    "brax": (
        Subject(
            *("inverted_pendulum", "episode_length", own_resets.brax),
            params=(("backend", "positional"),),
        ),
    ),
    "playground": (
        Subject("CartpoleBalance", "episode_length", own_resets.playground),
    ),
    "jumanji": (Subject("Snake-v1", "time_limit", own_resets.jumanji),),
    "pgx": (
        Subject("tic_tac_toe", None, None),
        Subject("tic_tac_toe-self-play", None, own_resets.pgx),
        Subject("connect_four", None, None),
        Subject("connect_four-self-play", None, own_resets.pgx),
    ),
    "xland": (Subject("MiniGrid-EmptyRandom-5x5", "max_steps", own_resets.xland),),
    "octax": (Subject("pong", "max_num_steps_per_episodes", None),),
    "navix": (Subject("Navix-Empty-Random-5x5-v0", "max_steps", own_resets.navix),),
    "craftax": (
        Subject(
            *("Craftax-Classic-Symbolic-v1", "max_timesteps", own_resets.craftax),
            heavy=True,
        ),
    ),
}
"""By suite, its light tasks: the one list of them. octax has no automatic reset, and
that of pgx is of a game without an opponent."""


def chosen(args: Any) -> Iterator[tuple[str, Subject]]:
    """(suite, task) of those that `only`, `tasks` and `heavy` allow."""
    for suite, subjects in SUBJECTS.items():
        for one in subjects if not args.only or suite in args.only else ():
            named = not args.tasks or one.task in args.tasks
            if named and (args.heavy or not one.heavy):
                yield suite, one
