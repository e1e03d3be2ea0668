"""Trials: what is shown within them, what lasts for them, and what ends with them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment, spaces
from learners import OPTIMIZER
from learners import network as network_of

from jaxrl_par import envs, returns
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.normalize import normalize_observations, normalized
from jaxrl_par.axis import Axis
from jaxrl_par.envs.imaze import IMaze
from jaxrl_par.envs.tasks.bandits import Bandit, BanditParams, bernoulli_bandits
from jaxrl_par.envs.tasks.base import Tasks
from jaxrl_par.envs.tasks.shapes import refuse_other_shapes
from jaxrl_par.envs.trials import trials
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import check_environment, check_equal
from jaxrl_par.types import TimeStep, Trajectory


class Params(NamedTuple):
    pay: Any = 1.0
    max_steps_in_episode: Any = 2

    def replace(self, **changes):
        return self._replace(**changes)


class Paying(environment.Environment):
    """Pays `pay` for anything, and ends behind two steps, by termination or limit."""

    default_params = Params()

    def __init__(self, terminates=True):
        self.terminates = terminates

    def action_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def observation_space(self, params=None):
        return spaces.Box(0.0, 9.0, (1,), jnp.float32)

    def reset_env(self, key, params):
        return jnp.zeros(1), State(jnp.int32(0))

    def step_env(self, key, state, action, params):
        time = state.time + 1
        terminated = (time == 2) & self.terminates
        return jnp.full(1, time * 1.0), State(time), params.pay, terminated, {}


class State(NamedTuple):
    time: Any


def two_arms(key) -> BanditParams:
    """The one arm always pays, the other never."""
    first = jax.random.bernoulli(key).astype(jnp.float32)
    return BanditParams(jnp.stack([first, 1 - first]))


def played(env, policy, length, key=0):
    """Steps [T+1], then of each of the T actions (action, reward, discount, state)."""

    def advance(carry, key):
        state, step = carry
        action = policy(step)
        state, step, reward, discount = env.step(state, action, key)
        return (state, step), (step, action, reward, discount, state)

    def run(key):
        reset_key, key = jax.random.split(key)
        start = env.reset(reset_key)
        keys = jax.random.split(key, length)
        _, (steps, *rows) = jax.lax.scan(advance, start, keys)
        steps = jax.tree.map(
            lambda x, y: jnp.concatenate([x[None], y]), start[1], steps
        )
        return steps, *rows

    return jax.tree.map(np.asarray, jax.jit(run)(jax.random.key(key)))


def stay_or_switch(step: TimeStep):
    """The last action where it paid, else the other one; arm 0 where nothing was."""
    last = jnp.argmax(step.obs.action, axis=-1)
    paid = step.obs.reward > 0
    begun = step.obs.action.sum(axis=-1) > 0
    return jnp.where(begun & ~paid, 1 - last, last)


@pytest.fixture(scope="module")
def pulls():
    """Two trials of ten pulls of 400 bandits, and the beginning of a third."""
    env = trials(Tasks(Bandit(2), two_arms), 400, 10)
    return played(env, stay_or_switch, 25)


def test_every_pull_shows_action_reward_and_end_though_it_ends_an_episode(pulls):
    steps, action, reward, *_ = pulls
    first = steps.first
    np.testing.assert_array_equal(np.flatnonzero(first[:, 0]), [0, 11, 22])
    inner = ~first[1:]
    one_hot = np.eye(2)[action]
    np.testing.assert_array_equal(steps.obs.action[1:][inner], one_hot[inner])
    np.testing.assert_array_equal(steps.obs.reward[1:][inner], reward[inner])
    assert (steps.obs.ended[1:][inner] == 1).all()
    # Zeros, which are no action: else the task before would leak into the trial.
    for shown in steps.obs:
        assert not shown[first].any()


def test_a_task_lasts_for_the_trial_and_no_longer(pulls):
    """Stay or switch earns ten or nine of ten; of tasks drawn at each pull, five."""
    _, _, reward, _, state = pulls
    # Rows 10 and 21 go from a trial to the next one.
    of_trials = np.array([reward[:10].sum(axis=0), reward[11:21].sum(axis=0)])
    assert set(np.unique(of_trials)) == {9, 10}
    assert abs(of_trials.mean() - 9.5) < 3 * 0.5 / np.sqrt(of_trials.size)
    task = state.inner.task.probabilities
    assert (task[:10] == task[0]).all() and (task[10:21] == task[10]).all()
    changed = (task[10] != task[9]).any(axis=-1).mean()
    assert abs(changed - 0.5) < 3 * 0.5 / np.sqrt(400)


def test_the_return_is_that_of_the_trial(pulls):
    steps, _, reward, _, state = pulls
    episode = state.episode
    np.testing.assert_array_equal(episode.return_[9], reward[:10].sum(axis=0))
    assert (episode.length[9] == 10).all() and (episode.length[12] == 2).all()
    np.testing.assert_array_equal(np.flatnonzero(steps.last[:, 0]), [10, 21])


@pytest.mark.parametrize("terminates", [True, False])
def test_values_bootstrap_through_ends_within_a_trial(terminates):
    """Two episodes of two steps, rewards 1: 1 + 1/2 + 1/4 + 1/8, and not 1.5."""
    env = trials(Tasks(Paying(terminates), lambda key: Params()), 3, 2)
    steps, _, reward, discount, _ = played(env, lambda step: jnp.ones((3, 2)), 9)
    np.testing.assert_array_equal(discount[:, 0], [1, 1, 1, 0, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(reward[:, 0], [1, 1, 1, 1, 0, 1, 1, 1, 1])
    total = returns.gae(
        rewards=jnp.array(reward),
        discounts=jnp.array(0.5 * discount),
        last=jnp.array(steps.last[:-1]),
        values=jnp.zeros((10, 3)),
        lambda_=1.0,
    )
    assert total[0, 0] == 1.875
    # Each episode from its start, and the final observation of the trial alone.
    np.testing.assert_array_equal(
        steps.obs.obs[:, 0, 0], [0, 1, 0, 1, 2, 0, 1, 0, 1, 2]
    )
    np.testing.assert_array_equal(steps.obs.ended[:, 0], [0, 0, 1, 0, 1, 0, 0, 1, 0, 1])
    assert env.max_episode_steps == 4


def test_of_real_numbers_what_was_done_is_shown():
    env = trials(Tasks(Paying(), lambda key: Params()), 3, 2)
    steps, *_ = played(env, lambda step: jnp.full((3, 2), 7.0), 3)
    np.testing.assert_array_equal(steps.obs.action[:, 0], [[0, 0], *[[1, 1]] * 3])


def test_tasks_differ_over_lanes_and_devices_and_follow_the_key():
    env = trials(bernoulli_bandits(3), 4, 2)

    def start(key):
        own = Axis("devices").own(key)
        return env.reset(own)[0].inner.task.probabilities

    key = jax.random.key(0)
    mapped = jax.vmap(start, (None,), axis_name="devices", axis_size=2)
    drawn = np.asarray(jax.jit(mapped)(key))
    assert np.unique(drawn.reshape(8, 3), axis=0).shape == (8, 3)
    assert len(np.unique(drawn)) == drawn.size
    np.testing.assert_array_equal(drawn, jax.jit(mapped)(key))


@pytest.mark.slow
def test_memory_lasts_for_the_trial_and_is_cleared_where_one_begins():
    env = envs.make("Bandits-3x4", 2)
    config = NetworkConfig(widths=(4,), memory="gru", memory_width=4)
    network = actor_critic(*env.specs, config)
    steps, *_ = played(env, lambda step: jnp.zeros(2, jnp.int32), 9)
    steps = jax.tree.map(jnp.asarray, steps)
    carry = network.initial_carry(2)
    step = jax.tree.map(lambda x: x[0], steps)
    params = network.init(jax.random.key(0), step)

    def values(steps):
        return np.asarray(network.unroll(params, carry, steps)[0][1])

    other = steps.obs.reward.at[1].add(1)  # of the first pull, which ended an episode
    changed = values(steps._replace(obs=steps.obs._replace(reward=other)))
    differs = (changed != values(steps)).any(axis=1)
    np.testing.assert_array_equal(differs, [0, 1, 1, 1, 1, 0, 0, 0, 0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Bandits-3x4", "RandomMDPs-4x2", "Mazes-5x2"])
def test_trials_keep_the_contract(name):
    env = envs.make(name, 4)
    assert env.name == name
    check_environment(env, 2 * env.max_episode_steps + 20)


@pytest.mark.slow
def test_any_environment_whose_parameters_are_traced_has_tasks():
    maze = IMaze(5)

    def draw(key):
        return maze.default_params.replace(reward_correct=jax.random.uniform(key))

    env = trials(Tasks(maze, draw), 4, 3)
    check_environment(env, 3 * env.max_episode_steps)
    assert env.name == "3 episodes of IMaze-5x5"
    state, _ = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(
        env.draw(state, 2), maze.draw(jax.tree.map(lambda x: x[2], state.inner.state))
    )


@pytest.mark.slow
def test_an_environment_in_one_task_may_be_vmapped_over_tasks():
    tasks = bernoulli_bandits(2)

    def pays(task):
        env = tasks.at(task, 3)
        state, _ = env.reset(jax.random.key(0))
        return env.step(state, jnp.zeros(3, jnp.int32), jax.random.key(1))[2]

    sure = BanditParams(jnp.array([[1.0, 0.0], [0.0, 1.0]]))
    paid = jax.vmap(pays, (BanditParams(0, None),))(sure)
    np.testing.assert_array_equal(paid, [[1, 1, 1], [0, 0, 0]])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (partial(trials, bernoulli_bandits(2), 4, 0), "num_episodes must be at least"),
        (partial(trials, bernoulli_bandits(2), 0, 4), "num_envs must be at least 1"),
        (partial(refuse_other_shapes, Bandit(2)), "tasks must be a family, Tasks"),
        (partial(bernoulli_bandits, 0), "num_arms must be at least 1, got 0"),
        (partial(envs.make, "Bandits-1x10", 4), "unknown environment 'Bandits-1x10'"),
        (partial(envs.make, "Bandits-5", 4), "did you mean 'Bandits-5x10'"),
        (partial(envs.make, "Mazes-7x3", 4), "did you mean 'Mazes-9x5'"),
        (
            partial(envs.make, "RandomMDPs-4x3", 4, lenght=3),
            "parameter of RandomMDPs-4x3 'lenght'; did you mean 'length'",
        ),
    ],
)
def test_what_makes_no_trials_is_refused(make, told):
    with pytest.raises(RefusedError, match=told):
        make()


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (lambda key: BanditParams(jnp.ones(3)), r"probabilities is \(2,\) there, and"),
        (lambda key: Params(), "is no field there"),
    ],
)
def test_tasks_of_other_shapes_are_refused(draw, told):
    with pytest.raises(RefusedError, match=told):
        trials(Tasks(Bandit(2), draw), 4, 4)


@pytest.mark.slow
def test_trials_give_the_same_numbers_on_every_topology():
    """Tasks that are drawn where any lane needs one are those of each lane alone."""
    env = trials(bernoulli_bandits(2), 2, 3)
    learner = a2c(network_of(env, "gru"), OPTIMIZER)
    assert set(check_equal(learner, env).values()) == {"bits"}


@pytest.mark.slow
def test_normalised_trials_have_the_statistics_of_all_devices():
    """Bandits of one device never pay, those of the other always: the variance is
    0.248, and 0.041 would be the mean of theirs. Zeros of a trial's start stay apart
    from what any action shows."""

    def trial(pays):
        tasks = Tasks(Bandit(2), lambda key: BanditParams(jnp.full(2, pays)))
        env = trials(tasks, 4, 10)
        steps, action, reward, discount, _ = played(
            env, lambda step: jnp.zeros(4, jnp.int32), 11
        )
        return env, Trajectory(steps, action, reward, discount, {}, ())

    env, poor = trial(0.0)
    both = jax.tree.map(lambda *x: jnp.stack(x), poor, trial(1.0)[1])
    agent = normalize_observations(a2c(network_of(env, "none"), OPTIMIZER))
    start = agent.init(jax.random.key(0), jax.tree.map(lambda x: x[0, 0], both.steps))
    observe = partial(agent.observe, start, axis=Axis("data"))
    found = jax.jit(jax.vmap(observe, axis_name="data"))(both).statistics
    rewards = np.array([0.0] * 12 + [1.0] * 10)  # two starts among them
    for device in range(2):
        mean, variance = (
            getattr(found, x).reward[device] for x in ("mean", "variance")
        )
        assert float(mean) == pytest.approx(rewards.mean(), abs=1e-5)
        assert float(variance) == pytest.approx(rewards.var(), abs=1e-5)
    # They are the state's after the trial; what acted in it stands as it was.
    assert float(found.count[0]) > 0 and float(start.statistics.count) == 0
    one = jax.tree.map(lambda x: x[0], found)
    shown = normalized(one, both.steps.obs, 10.0).action
    np.testing.assert_array_equal(
        shown[:, 0], np.broadcast_to(shown[0, 0, 0], (2, 4, 2))
    )
    assert np.all(np.any(shown[:, 1:11] != shown[0, 0, 0], axis=-1))
