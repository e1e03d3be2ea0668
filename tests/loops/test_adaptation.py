"""Adaptation as a program: tasks over devices, what is counted, and what is gained."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnax.environments import environment, spaces
from nearness import assert_near

from jaxrl_par import losses, random
from jaxrl_par.agents import trained_by
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.axis import Axis
from jaxrl_par.distributions import Categorical
from jaxrl_par.envs.tasks.base import Tasks
from jaxrl_par.envs.tasks.navigation import NavigationParams, navigation
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops.adaptation import adaptation, returns_after
from jaxrl_par.loops.inner_steps import AdaptationConfig
from jaxrl_par.networks import Network, NetworkConfig, actor_critic
from jaxrl_par.networks.twice import twice_differentiable
from jaxrl_par.presets.maml import EXPERIMENT, Args
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.topologies.population import population
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.types import Discrete


class Params(NamedTuple):
    """A task: what it shows and pays, and how long."""

    shown: Any
    length: Any
    max_steps_in_episode: Any = 4

    def replace(self, **changes):
        return self._replace(**changes)


class State(NamedTuple):
    time: Any


class Shows(environment.Environment):
    """Shows a number, and pays it in equal parts over an episode."""

    name = "Shows"
    default_params = Params(jnp.float32(0.0), jnp.int32(1))

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params=None):
        return spaces.Box(-9.0, 9.0, (1,), jnp.float32)

    def reset_env(self, key, params):
        return params.shown[None], State(jnp.int32(0))

    def step_env(self, key, state, action, params):
        state = State(state.time + 1)
        over = state.time >= params.length
        return params.shown[None], state, params.shown / params.length, over, {}


def shows():
    """Numbers from 0 to 1, the smaller ones in longer episodes, of up to four steps."""

    def drawn(key):
        shown = jax.random.uniform(key)
        return Params(shown, 4 - jnp.int32(3 * shown))

    return Tasks(Shows(), drawn)


def follower(rate=1.0):
    """Its parameter x moves to what is shown; the loss is a mean over rows that count,
    however many there are."""

    def unroll(params, carry, steps):
        logits = jnp.zeros((*steps.first.shape, 2))
        return (Categorical(logits), jnp.zeros(steps.first.shape)), carry

    specs = shows().at(shows().env.default_params, 1).specs
    network = Network(lambda key, step: jnp.float32(0.0), lambda n: (), unroll, unroll)

    def loss(x, trajectory):
        squares = 0.5 * jnp.square(x - trajectory.rows.obs[..., 0])
        mean = losses.row_mean(squares, trajectory.rows.last)
        return mean.total / mean.count, {"loss": mean}

    network = network._replace(specs=specs)
    return trained_by(network, optax.sgd(rate), loss)


def learned(program, steps=1):
    run = jax.jit(program.init)(random.key(0))
    return jax.jit(scanned(program, steps))(run)


def over_devices(make, number):
    """The program of so many tasks or environments, a share of them on each device."""
    return sharded(make(axis=Axis("data")), data_mesh(number))


FOUR = pytest.param(4, marks=pytest.mark.slow)


@pytest.mark.parametrize("num_devices", [None, FOUR])
def test_tasks_count_equally_however_long_their_episodes_are(num_devices):
    """The derivative of a task is .81 (x - what it shows)."""
    share = 8 // (num_devices or 1)
    given = follower(), shows(), AdaptationConfig("maml", 1, 0.1), share, 3, 4
    make = partial(adaptation, *given)
    program = make() if num_devices is None else over_devices(make, num_devices)
    run, metrics = learned(program, 2)
    before, after = (metrics[x] for x in ("return_before", "episode_return"))
    first, second = np.asarray(after.total / after.count)
    assert 0.2 < first < 0.8 and abs(second - first) > 1e-3  # tasks are new
    right = 0.19 * 0.81 * first + 0.81 * second
    assert float(run.learner.params) == pytest.approx(right, rel=1e-5)
    np.testing.assert_allclose(before.total, after.total, rtol=1e-6)
    # All episodes of a task are as long, before and after its gradient.
    length = metrics["episode_length"]
    np.testing.assert_array_equal(length.count, [8 * 3] * 2)
    assert int(run.progress.env_steps) == 2 * int(np.sum(length.total))
    assert int(run.progress.updates) == 2
    assert "loss" in metrics and not np.any(metrics["skipped"])


def navigator(scores="episode", rate=0.1, memory="none"):
    shape = NetworkConfig(widths=(8,), shared=False, memory=memory, memory_width=4)
    settings = Args(network=shape, scores=scores)
    specs = settings.make_env(1).specs
    return EXPERIMENT.make_agent(settings, specs, optax.sgd(rate))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["maml", "fomaml", "reptile"])
def test_one_and_several_devices_take_the_same_steps(method):
    config = AdaptationConfig(method, 2, 0.05)

    def make(number, axis=Axis()):
        given = navigator(), navigation(), config, 8 // number, 4, 12
        return adaptation(*given, axis=axis)

    alone, told = learned(make(1), 3)
    assert np.all(told["grad_norm"] > 0)
    for number in (1, 2, 4, 8):
        shared, others = learned(over_devices(partial(make, number), number), 3)
        assert_near(shared.learner.params, alone.learner.params, 1e-5)
        assert_near(others["episode_return"], told["episode_return"], 1e-5)
        assert int(shared.progress.env_steps) == int(alone.progress.env_steps)
        if number == 1:
            jax.tree.map(np.testing.assert_array_equal, alone.learner, shared.learner)


@pytest.mark.slow
def test_many_steps_in_a_call_are_as_many_calls():
    config = AdaptationConfig("maml", 1, 0.05)
    program = adaptation(navigator(memory="lstm"), navigation(), config, 3, 4, 10)
    run = jax.jit(program.init)(random.key(0))
    together, _ = jax.jit(scanned(program, 3))(run)
    one = jax.jit(scanned(program, 1))
    apart = one(one(one(run)[0])[0])[0]
    jax.tree.map(np.testing.assert_array_equal, together.learner, apart.learner)


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit(tmp_path):
    settings = Args(
        num_envs=2, episodes=2, unroll_length=5, network=NetworkConfig(widths=(4,))
    )
    training = replace(
        settings.training, runs_dir=str(tmp_path), gif=False, tensorboard=False,
        evaluation_envs=1, evaluation_episodes=1,
    )  # fmt: skip
    rows = settings.rows_per_update

    def trained(name, updates, resume=False):
        kept = replace(training, name=name, resume=resume)
        args = replace(settings, training=kept, total_steps=updates * rows)
        return EXPERIMENT.run(args)

    whole = trained("whole", 4)
    trained("parts", 2)
    parts = trained("parts", 4, resume=True)
    jax.tree.map(np.testing.assert_array_equal, whole.run.learner, parts.run.learner)
    assert (parts.directory.path / "adaptation.json").exists()


@pytest.mark.slow
def test_who_does_not_adapt_gains_exactly_nothing():
    still, agent = AdaptationConfig("maml", 2, 0.0), navigator()
    program = adaptation(agent, navigation(), still, 1, 1, 1)
    test = returns_after(agent, navigation(), still, 3, 2, 4)

    def tested(key):
        return test(program.init(key).learner, key)

    returns = np.asarray(jax.jit(tested)(random.key(0)))
    assert returns.shape == (3, 3)
    np.testing.assert_array_equal(returns, returns[:, :1] + np.zeros((3, 3)))
    assert len(set(returns[:, 0].tolist())) == 3  # tasks differ


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"num_tasks": 0}, "num_tasks must be at least 1, got 0"),
        ({"num_episodes": 0}, "num_episodes must be at least 1, got 0"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        (
            {"config": AdaptationConfig(inner_steps=0)},
            "inner_steps must be at least 1, got 0",
        ),
    ],
)
def test_what_is_out_of_range_is_refused(given, told):
    usual: dict[str, Any] = {
        "config": AdaptationConfig(), "num_tasks": 2, "num_episodes": 1, "max_steps": 2
    }  # fmt: skip
    for function in (adaptation, returns_after):
        with pytest.raises(RefusedError, match=told):
            function(follower(), shows(), **(usual | given))


def test_tasks_of_other_shapes_and_agents_of_other_specs_are_refused():
    def drawn(key):
        return NavigationParams(jnp.zeros(3), 100)

    tasks = Tasks(navigation().env, drawn)
    sizes = AdaptationConfig(), 2, 1, 2
    told = r"tasks of Navigation must have the shapes.*goal is \(2,\) there, and \(3,\)"
    with pytest.raises(RefusedError, match=told):
        adaptation(navigator(), tasks, *sizes)
    with pytest.raises(RefusedError, match="the agent was made for"):
        jax.eval_shape(adaptation(follower(), navigation(), *sizes).init, random.key(0))
    assert follower().specs[1] == Discrete(2)


def test_settings_that_do_not_fit_are_told_before_a_device_is_used():
    lines = {
        "show_previous": Args(show_previous=True),
        "normalize": Args(normalize=True),
        "scores": replace(Args(scores="action"), adaptation=AdaptationConfig("fomaml")),
        "env_name": Args(env_name="Navigatoin"),
        "num_envs": Args(num_envs=3, num_devices=2),
        "episodes": Args(episodes=0),
        "topology": Args(topology="threads"),
    }
    for name, args in lines.items():
        (line,) = args.problems()
        assert line.startswith(name), line
    assert not Args(env_name="GoalVelocity").problems()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_name", "method"),
    [
        ("Navigation", "maml"),
        ("Navigation", "fomaml"),
        ("Navigation", "reptile"),
        ("GoalVelocity", "fomaml"),
    ],
)
def test_one_gradient_gains_much_in_new_tasks(env_name, method):
    """Of each of three seeds."""
    adapts = AdaptationConfig(method, 3 if method == "reptile" else 1, 0.005)
    settings = Args(env_name=env_name, num_envs=10, adaptation=adapts)
    optimizer = replace(settings.optimizer, learning_rate=1e-2)
    settings = replace(settings, optimizer=optimizer)
    agent = EXPERIMENT.learner(settings).actor
    sizes = 10, settings.episodes, settings.unroll_length
    program = adaptation(agent, settings.tasks(), settings.adaptation, *sizes)
    runs = population(lambda values: program, {"seed": np.arange(3)}).program
    run, metrics = learned(runs, 40)
    one = replace(settings.adaptation, inner_steps=1)
    test = returns_after(agent, settings.tasks(), one, 30, *sizes[1:])
    returns = jax.jit(jax.vmap(test, (0, None)))(run.learner, random.key(9))
    before, after = np.mean(returns, axis=1).T
    assert np.all(after > before + 10.0), (before, after)
    # As the metrics said while it trained.
    told = [metrics[x].total[-5:].sum(0) for x in ("return_before", "episode_return")]
    assert np.all(told[1] > told[0])


@pytest.mark.slow
def test_any_agent_with_log_probabilities_will_do():
    env = navigation().at(navigation().env.default_params, 1)
    network = twice_differentiable(actor_critic(*env.specs, NetworkConfig(widths=(4,))))
    agent = a2c(network, optax.sgd(0.1))
    given = agent, navigation(), AdaptationConfig("maml", 1, 0.1), 2, 2, 5
    run = jax.eval_shape(adaptation(*given).init, random.key(0))
    after, metrics = jax.eval_shape(adaptation(*given).step, run)
    assert jax.tree.structure(after) == jax.tree.structure(run)
    assert {"value_loss", "return_before", "grad_norm"} <= metrics.keys()
