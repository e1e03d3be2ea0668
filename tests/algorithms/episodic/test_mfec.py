"""MFEC: the best return of a chain, evaluation that changes nothing, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import loops, random
from jaxrl_par.algorithms.episodic import MFECConfig, mfec
from jaxrl_par.algorithms.episodic.mfec import episodes_kept
from jaxrl_par.algorithms.episodic.projection import projected, projection
from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.training.evaluation import evaluator
from jaxrl_par.types import Box, Discrete, TimeStep, Trajectory

NUM_STATES, LENGTH = 5, 7
CHAIN = Box((NUM_STATES,)), Discrete(2)
CONFIG = MFECConfig(gamma=0.9, capacity=32, num_neighbours=3)


def learner(config=CONFIG, specs=CHAIN, longest=LENGTH, length=LENGTH):
    kept = episodes_kept(specs[0], config, longest, length)
    return loops.remembering(mfec(*specs, config), loops.Remember(*kept))


def shown(state, first=False, last=False):
    obs = np.eye(NUM_STATES, dtype=np.float32)[[state]]
    return TimeStep(jnp.asarray(obs), *(jnp.array([x]) for x in (first, last)))


def chained(choose):
    """An episode from the middle of a chain, whose right end pays 1 and left end 0.1;
    cut after `LENGTH` rows, with a row that is `last` and one that starts the next."""
    state, steps, actions, rewards = 2, [], [], []
    while 0 < state < NUM_STATES - 1 and len(steps) < LENGTH - 1:
        action = choose(state)
        steps.append(shown(state, first=not steps))
        actions.append(action)
        state += 1 if action else -1
        rewards.append({0: 0.1, NUM_STATES - 1: 1.0}.get(state, 0.0))
    steps.append(shown(state, last=True))
    while len(steps) < LENGTH + 1:
        steps.append(shown(2, first=len(steps) == LENGTH, last=len(steps) < LENGTH))
    given = ((actions, jnp.int32), (rewards, jnp.float32))
    action, reward = (
        jnp.zeros((LENGTH, 1), dtype).at[: len(x), 0].set(jnp.asarray(x, dtype))
        for x, dtype in given
    )
    together = jax.tree.map(lambda *x: jnp.stack(x), *steps)
    return Trajectory(together, action, reward, jnp.ones((LENGTH, 1)), {}, ())


@pytest.mark.slow
def test_greedy_repeats_the_best_return_of_a_chain():
    """Check 5 of the reference: after one rewarded episode; what is worse and comes
    later changes nothing, and what is better replaces it."""
    made = learner()
    learn, greedy = jax.jit(lambda *x: made.learn(*x, Axis())), made.actor.greedy
    state = made.init(random.key(0), shown(2))
    data = made.start(chained(lambda state: 0))

    def after(choose):
        nonlocal state, data
        state, data, _ = learn(state, data, chained(choose), random.key(0))

    @jax.jit
    def acted(state, step):
        return greedy(made.params(state), (), step, random.key(0))[0][0]

    def returned():
        return float(chained(lambda s: int(acted(state, shown(s)))).reward.sum())

    after(lambda state: 0)
    assert returned() == pytest.approx(0.1)
    after(lambda state: 1)
    assert returned() == 1
    values = np.asarray(state.table.values)
    np.testing.assert_allclose(sorted(values[1])[-2:], [0.9, 1.0], rtol=1e-6)
    turns = iter([1, 0, 0, 0, 0])
    after(lambda state: next(turns))
    assert returned() == 1
    # The best return of (2, right) is 0.9, not that of the detour.
    np.testing.assert_allclose(sorted(state.table.values[1])[-2:], [0.9, 1], rtol=1e-6)
    assert state.table.count.tolist() == [3, 2]


@pytest.mark.slow
def test_evaluation_leaves_table_and_stamps_to_the_bit():
    env = probes.clock(2)
    made = learner(specs=env.specs, longest=2, length=5)
    program = compiled(made, env, 5)
    train = jax.jit(lambda key: scanned(program, 3)(program.init(key))[0])
    run = train(random.key(0))
    before = jax.tree.map(np.array, run.learner)
    assert int(before.table.clock) == 6 and int(run.learner.table.count.sum()) > 2
    evaluate = jax.jit(evaluator(made.actor, env, 2))
    assert evaluate(made.params(run.learner), random.key(1)).complete
    jax.tree.map(np.testing.assert_array_equal, before, run.learner)


def test_the_same_observation_has_the_same_key_in_a_batch_of_any_size():
    """Were factors not rounded, last bits would differ, and entries not be found."""
    spec = Box((10, 10, 4), np.dtype(np.uint8))
    factors = projection(random.key(0), spec, 16)
    images = jax.random.randint(random.key(1), (33, 10, 10, 4), 0, 256)
    images = images.astype(jnp.uint8)
    together = jax.jit(lambda x: projected(factors, spec, x))(images)
    alone = jax.jit(jax.vmap(lambda x: projected(factors, spec, x)))(images[:, None])
    np.testing.assert_array_equal(together, alone[:, 0])
    exact = np.asarray(images, np.float64).reshape(33, -1) @ np.float64(factors)
    np.testing.assert_array_equal(together, exact)


def test_few_numbers_and_choices_are_keys_themselves():
    spec = {"a": Discrete(3), "b": Box((2, 2))}
    assert projection(random.key(0), spec, 7) is None
    obs = {"a": jnp.int32([1]), "b": jnp.float32([[[4, 5], [6, 7]]])}
    assert projected(None, spec, obs).tolist() == [[0, 1, 0, 4, 5, 6, 7]]


def test_bad_input_is_refused():
    with pytest.raises(RefusedError, match="single Discrete action, not Box"):
        mfec(CHAIN[0], Box((1,)))
    told = "num_neighbours must be at most 32, got 33"
    with pytest.raises(RefusedError, match=told):
        mfec(*CHAIN, MFECConfig(capacity=32, num_neighbours=33))
