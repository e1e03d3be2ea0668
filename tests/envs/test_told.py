"""What environments tell of their episodes, wherever episodes are counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import rollout
from jaxrl_par.envs import host
from jaxrl_par.envs.raw import Raw, from_raw
from jaxrl_par.envs.several import several
from jaxrl_par.loops import rounds, schedules
from jaxrl_par.topologies.quorum import quorum
from jaxrl_par.training.evaluation import evaluate, results
from jaxrl_par.types import Agent, Box, Discrete, Info

LONGEST, NUM_ENVS, NUM_ROWS = 4, 3, 23


def counting(*more):
    """Episodes of 1 to 4 steps, which pay and count the actions; odd sums succeed.

    Args:
      more: other names that tell the length.
    """

    def shown(state):
        return jnp.full((1, 1, 1), state["clock"], jnp.float32)

    def reset(key):
        length = jax.random.randint(key, (), 1, LONGEST + 1)
        state = {"clock": 0, "length": length, "sum": 0}
        return state, shown(state)

    def step(state, action, key):
        clock = state["clock"] + 1
        state = state | {"clock": clock, "sum": state["sum"] + action}
        return state, shown(state), action, clock == state["length"], False

    def told(state):
        known = {"success": state["sum"] % 2 == 1, "sum": state["sum"]}
        return known | {name: state["clock"] for name in more}

    return Raw(reset, step, Box((1, 1, 1), low=0.0), Discrete(3), told=told)


def made(num_envs=NUM_ENVS, *more):
    return from_raw(counting(*more), num_envs, "Counting")


def acting():
    """Acts at random."""

    def act(params, carry, step, key):
        return jax.random.randint(key, step.first.shape, 0, 3), carry, {}

    return Agent(
        init=lambda key, step: (),
        initial_carry=lambda num_envs: (),
        act=act,
        grad=lambda state, batch, key, axis: ((), Info({})),
        apply=lambda state, grads, metrics: state,
        greedy=act,
        params=lambda state: state,
    )


def expected(trajectory, only_first=False):
    """(successes, sum of what was counted, episodes), row by row."""
    last, action = trajectory.steps.last, np.asarray(trajectory.action)
    found = []
    for lane in range(last.shape[1]):
        total = 0
        for t in range(len(action)):
            total = 0 if last[t, lane] else total + action[t, lane]
            if last[t + 1, lane] and not last[t, lane]:
                found.append(total)
                if only_first:
                    break
    return sum(x % 2 for x in found), sum(found), len(found)


def test_an_unroll_has_what_was_told_at_its_ends():
    env, key = made(), jax.random.key(3)
    streams = rollout.start(acting(), env, key)
    act = jax.jit(lambda x, k: rollout.unroll(acting(), env, (), x, k, NUM_ROWS))
    _, trajectory, episodes = jax.device_get(act(streams, key))
    rate, counted, number = expected(trajectory)
    assert number > 10 and episodes.length.count == number
    assert episodes.told.keys() == {"success_rate", "info_sum"}
    assert episodes.told["success_rate"] == (rate, number)
    assert episodes.told["info_sum"] == (counted, number)


def test_whole_episodes_tell_of_the_first_of_each_environment():
    env = made()
    act = jax.jit(
        lambda key: rollout.whole_episodes(acting(), env, (), key, LONGEST + 3)
    )
    trajectory, episodes = jax.device_get(act(jax.random.key(0)))
    rate, counted, number = expected(trajectory, only_first=True)
    assert number == NUM_ENVS
    assert episodes.told["success_rate"] == (rate, number)
    assert episodes.told["info_sum"] == (counted, number)


def test_simulated_it_tells_the_same():
    env, key = made(), jax.random.key(5)
    simulated, keys = host.from_pure(env, key), jax.random.split(key, NUM_ROWS)
    state, step = env.reset(key)
    simulated.reset()
    simulated.plan(keys)
    found, advance = np.zeros((2, 2)), jax.jit(env.step)
    for t in range(NUM_ROWS):
        action = np.full(NUM_ENVS, t % 3)
        simulated.step(action)
        state, step, *_ = advance(state, action, keys[t])
        ended = np.asarray(step.last) & [False, True, True]
        told = env.episode(state).told
        for i, name in enumerate(("success_rate", "info_sum")):
            found[i] += np.sum(np.asarray(told[name])[ended]), ended.sum()
    lanes = np.array([False, True, True])
    taken = simulated.take_info(lanes)
    assert taken["success_rate"] == tuple(found[0])
    assert taken["info_sum"] == tuple(found[1]) and found[1].all()
    assert simulated.take_info()["info_sum"] == (0, 0)


def test_an_evaluation_tells_of_the_episodes_that_it_plays():
    result = evaluate(acting(), made(), (), jax.random.key(1), 7, LONGEST)
    # What is counted is what it pays.
    assert result.info["info_sum"] == (result.returns.sum(), result.returns.size)
    assert result.info["success_rate"].total == (result.returns % 2).sum()
    assert results(result)["info_sum"] == pytest.approx(result.returns.mean())


def test_rounds_of_a_quorum_count_it():
    """It begins from no episodes, of what there is to tell."""
    found = rounds.simulated(schedules.heavy_tailed(8, 3, 0, tail=1.5), 3, 0)
    program = quorum(acting(), made(), 5, found, num_workers=3)
    run = jax.eval_shape(program.init, jax.random.key(0))
    _, metrics = jax.eval_shape(program.step, run)
    assert {"success_rate", "info_sum"} <= metrics.keys()


def test_tasks_of_one_network_tell_what_all_of_them_do():
    def make(name, num_envs):
        return made(num_envs, *(["clock"] if name == "A" else []))

    env = several(make, "A+B", 3)
    state, _ = env.reset(jax.random.key(0))
    assert env.episode(state).told.keys() == {"success_rate", "info_sum"}
    assert env.episode(state).told["info_sum"].shape == (3,)
