"""Games of octax against a plain loop over its own reset and step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from following import starts_afresh

from jaxrl_par import envs, random
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import check_environment
from jaxrl_par.types import Box, Discrete

pytest.importorskip("octax")
pytest.importorskip("cv2")

from jaxrl_par.envs import suites
from jaxrl_par.envs.suites import octax as adapter

pytestmark = pytest.mark.filterwarnings("ignore:scatter inputs:FutureWarning")


@pytest.mark.slow
def test_each_row_is_that_of_a_plain_loop():
    from octax.environments import create_environment

    game, _ = create_environment("brix", max_num_steps_per_episodes=40)
    one = adapter.adapted(game)
    assert one.action_spec == Discrete(3)
    key = random.key(1)
    state, obs = one.reset(key)
    expected, seen, _ = game.reset(jax.random.key_data(key))
    ours = jax.jit(one.step)
    paid = 0.0
    for t in range(40):
        np.testing.assert_array_equal(obs, seen)
        action = jnp.int32(t // 4 % 3)
        state, obs, reward, terminated, truncated = ours(state, action, key)
        expected, seen, theirs, ended, cut, _ = game.step(expected, action)
        assert float(reward) == float(theirs)
        assert (bool(terminated), bool(truncated)) == (bool(ended), bool(cut))
        paid += float(reward)
    assert bool(truncated) and obs.any()


@pytest.mark.slow
def test_a_limit_is_a_truncation_and_the_contract_is_kept():
    env = envs.make("octax::cavern3", 4, max_num_steps_per_episodes=5)
    assert env.max_episode_steps == 5
    assert isinstance(env.observation_spec, Box)
    check_environment(env, 12)
    state, step = env.reset(random.key(0))
    advance = jax.jit(env.step)
    for _ in range(5):
        state, step, _, discount = advance(
            state,
            jnp.full(4, 4, jnp.int32),
            random.key(0),  # nothing is pressed
        )
    assert step.last.all() and discount.tolist() == [1.0] * 4
    assert env.draw is not None and env.draw(state, 0).shape == (256, 512, 3)


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: suites.from_octax(object(), 1), "env must be an OctaxEnv"),
        (
            lambda: envs.make("octax::brix", 1, frameskip=3),
            "parameter of octax::brix 'frameskip'; did you mean 'frame_skip'?",
        ),
        (lambda: envs.make("octax::cavern", 1), "did you mean 'octax::cavern"),
    ],
)
def test_bad_input(make, told):
    with pytest.raises(RefusedError) as refused:
        make()
    assert told in str(refused.value)


@pytest.mark.slow
def test_nothing_of_a_game_is_left_in_the_next_one():
    """Trap S10, in all leaves of the state, the memory of the machine included."""
    env = envs.make("octax::brix", 2, max_num_steps_per_episodes=5)
    raw = adapter.raw("brix", max_num_steps_per_episodes=5)
    assert starts_afresh(env, raw, 12) == 4
