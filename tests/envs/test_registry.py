"""Names of environments: those of gymnax and our own."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import envs, random


def test_sizes_of_our_own_are_refused_where_their_classes_refuse_them():
    for family in ("IMaze", "MetaFetch"):
        for size in range(12):
            name = f"{family}-{size}x{size}"
            if envs.is_name(name):
                assert envs.make(name, 1).name == name
            else:
                with pytest.raises(ValueError, match=f"unknown environment '{name}'"):
                    envs.make(name, 1)


@pytest.mark.parametrize(
    "name",
    [
        "IMaze-9x11",
        "IMaze-9",
        "IMaze",
        "Maze-9x9",
        "imaze-9x9",
        "IMaze-9x9 ",
        "IMaze-09x09",
        "MemoryChain-030",
        "MemoryChain-30x30",
        "MemoryChain-0",
        "MemoryChain-10000",
    ],
)
def test_what_resembles_a_name_is_none(name):
    assert not envs.is_name(name)


def test_all_names_that_are_listed_are_names():
    listed = envs.names()
    assert {"IMaze-9x9", "IMaze-15x15", "MetaFetch-7x7", "CartPole-v1"} <= {*listed}
    assert {"MemoryChain-30", "MemoryChain-bsuite"} <= {*listed}
    assert all(map(envs.is_name, listed)) and len({*listed}) == len(listed)
    assert envs.is_name("IMaze-21x21") and envs.is_name("MetaFetch-4x4")


@pytest.mark.slow
def test_names_are_known_without_gymnax():
    code = (
        "import sys; from jaxrl_par import envs;"
        "names = envs.names(), envs.is_name('IMaze-11x11'), envs.is_name('IMaze-8x8');"
        "assert 'gymnax' not in sys.modules and names[1:] == (True, False);"
        "import gymnax; assert envs.names() == names[0]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.slow
def test_a_chain_of_some_length_asks_behind_so_many_steps():
    env = envs.make("MemoryChain-3", 4)
    assert env.name == "MemoryChain-3" and env.max_episode_steps == 4
    state, step = env.reset(random.key(0))
    bit = (step.obs[:, 2] > 0).astype(jnp.int32)
    rewards = []
    for action in (bit, 1 - bit, 1 - bit, bit):
        assert not jnp.any(step.last)
        state, step, reward, discount = env.step(state, action, random.key(1))
        rewards.append(reward)
    assert bool(jnp.all(step.last)) and not jnp.any(discount)
    np.testing.assert_array_equal(rewards, [[0] * 4] * 3 + [[1] * 4])
