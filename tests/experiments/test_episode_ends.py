"""The questions of the conformance table, asked of who does all wrong."""

from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from walks import walk

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"
LIMIT = 5


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return [import_module(x) for x in ("episode_ends", "own_resets", "wrapped")]


def careless(own_resets, raw):
    """Shows the first start again in place of the end, takes the limit for an end, and
    loses the reward of that step."""

    def reset(key):
        state, obs = raw.reset(key)
        return (state, state, obs), obs

    def step(now, action, key):
        state, obs, reward, ended, _ = raw.step(now[0], action, key)
        over = ended | (state.time >= LIMIT)
        state, obs = jax.tree.map(
            lambda x, y: jnp.where(over, x, y), now[1:], (state, obs)
        )
        reward = jnp.where(over, 0.0, reward)
        return (state, *now[1:]), own_resets.Seen(obs, obs, reward, over, 1.0 - over)

    def bare(now, action, key):
        _, obs, reward, ended, _ = raw.step(now[0], action, key)
        return own_resets.Bare(obs, reward, ended)

    def act(now, key):
        return (jax.random.uniform(key) < 0.1).astype(jnp.int32)

    return own_resets.Wrapped("careless", reset, step, bare, act)


def answers(episode_ends, wrapped):
    key = jax.random.key(0)
    rows = episode_ends.followed(wrapped, 4, 40, key)
    starts = jax.vmap(wrapped.reset)(jax.random.split(key, 8))[1]
    return [
        episode_ends.kept(rows, LIMIT),
        episode_ends.truncates(rows, LIMIT),
        episode_ends.differ(rows, LIMIT, starts),
        episode_ends.paid(rows, LIMIT),
        episode_ends.stable(wrapped, key),
    ]


@pytest.mark.slow
def test_each_question_finds_its_fault(modules):
    episode_ends, own_resets, _ = modules
    kept, truncates, differ, paid, stable = answers(
        episode_ends, careless(own_resets, walk())
    )
    assert "are not shown" in kept and "are ends" in truncates
    assert "begin as the first episode did" in differ and "are others" in paid
    assert "weak" in stable  # the start is counted by a Python number


@pytest.mark.slow
def test_the_stream_has_none_of_them(modules):
    episode_ends, _, wrapped = modules
    subject = wrapped.stream(walk(limit=LIMIT))
    assert answers(episode_ends, subject)[:4] == [True] * 4
