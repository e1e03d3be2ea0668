"""What is learned of an adaptation, against derivatives made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import random
from jaxrl_par.agents import TrainState, gradient, trained_by
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.reinforce import ReinforceConfig, make_batch, reinforce
from jaxrl_par.axis import Axis
from jaxrl_par.distributions import Categorical
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops.inner_steps import (
    AdaptationConfig,
    adapt,
    meta_gradient,
    params_of,
    refuse_agent,
)
from jaxrl_par.networks import Network, NetworkConfig, actor_critic
from jaxrl_par.networks.twice import twice_differentiable
from jaxrl_par.types import Box, Discrete, TimeStep, Trajectory

KEY = random.key(0)


def agent_of(loss, start=0.0):
    """An agent that follows the gradient of loss(params, data), and has no network."""
    made = network_of(lambda params, obs: jnp.zeros((*obs.shape, 2)), start)
    optimizer = optax.sgd(1.0)

    def of_data(params, data):
        return loss(params, data), {}

    # Data of these tasks are no trajectories.
    return trained_by(made, optimizer, of_data, prepare=lambda state, data, axis: data)


def network_of(logits, start=0.0) -> Network:
    """From (params, observations) to logits; all values are 0."""

    def unroll(params, carry, steps):
        made = logits(params, steps.obs)
        return (Categorical(made), jnp.zeros(made.shape[:-1])), carry

    return Network(lambda key, step: jnp.float32(start), lambda n: (), unroll, unroll)


def found(agent, draw, start, config, key=KEY):
    """The gradient from these parameters."""

    def gradient_at(params):
        return meta_gradient(agent, draw, TrainState(params, ()), key, config)[0]

    return jax.jit(gradient_at)(jax.tree.map(jnp.asarray, start))


def near(centre):
    """Data of a task that are its centre."""
    return lambda params, key: (jnp.float32(centre), ())


def square(x, centre):
    return 0.5 * jnp.square(x - centre)


def fourth(x, centre):
    return 0.25 * (x - centre) ** 4


@pytest.mark.parametrize(
    ("loss", "method", "steps", "right"),
    [
        (square, "maml", 1, 0.81),
        (square, "fomaml", 1, 0.9),
        (square, "reptile", 3, 0.271),
        (square, "maml", 2, 0.6561),
        (square, "fomaml", 2, 0.81),
        (fourth, "maml", 1, 0.5103),
        (fourth, "fomaml", 1, 0.729),
        (fourth, "maml", 2, 0.299825),
        (fourth, "fomaml", 2, 0.565814),
    ],
)
def test_every_step_is_differentiated(loss, method, steps, right):
    config = AdaptationConfig(method, steps, 0.1)
    assert found(agent_of(loss), near(0.0), 1.0, config) == pytest.approx(
        right, abs=1e-6
    )


def bandit(params, key):
    """Both arms of one pull, of which the first pays 1; returns are weighed by the
    probability of what happened, so that a sum over them is an expectation."""
    chance = jax.nn.sigmoid(params)
    no = jnp.zeros((2, 2), bool)
    steps = TimeStep(jnp.zeros((2, 2)), no.at[0].set(True), no.at[1].set(True))
    zeros = jnp.zeros((1, 2))
    reward = zeros.at[0, 0].set(chance)
    return Trajectory(steps, jnp.array([[0, 1]]), reward, zeros, {}, ()), ()


def on_bandit(name, scores):
    """An agent with the first arm's logit."""
    logits = network_of(lambda x, obs: jnp.stack([x + 0 * obs, 0 * obs], axis=-1))
    network = logits if scores is None else twice_differentiable(logits, scores)
    if name == "reinforce":
        config = ReinforceConfig(gamma=1.0, baseline="none", reduction="sum")
        return reinforce(network, optax.sgd(1.0), config)
    config = A2CConfig(entropy_cost=0.0, value_cost=0.0, reduction="sum")
    return a2c(network, optax.sgd(1.0), config)


EXACT = (0.249026, 0.179009)
# What automatic differentiation makes of -log pi A, with all gradients right.
NAIVE = (0.233462, 0.174052)


@pytest.mark.parametrize(
    ("name", "scores", "right"),
    [
        ("reinforce", "episode", EXACT),
        pytest.param("reinforce", "action", EXACT, marks=pytest.mark.slow),
        pytest.param("reinforce", None, NAIVE, marks=pytest.mark.slow),
        pytest.param("a2c", "episode", EXACT, marks=pytest.mark.slow),
        pytest.param("a2c", "action", EXACT, marks=pytest.mark.slow),
        ("a2c", None, NAIVE),
    ],
)
def test_the_second_derivative_is_that_of_the_expected_return(name, scores, right):
    agent, config = on_bandit(name, scores), AdaptationConfig("maml", 1, 0.5)

    def gain(start):
        state = TrainState(start, ())
        return -meta_gradient(agent, bandit, state, KEY, config)[0]

    np.testing.assert_allclose(
        jax.jit(jax.vmap(gain))(jnp.arange(2.0)), right, atol=1e-6
    )


# What each of two steps pays, by both actions. The first one knows only its own.
PAYS = jnp.array([[1.0, 1.0], [0.2, 0.2]]), jnp.array([[0.3, -1.0], [0.7, 1.5]])


def chances(theta):
    """Of the four paths through two steps, the first action first."""
    first, second = jax.nn.sigmoid(theta[0]), jax.nn.sigmoid(theta[1:])
    first = jnp.stack([1.0 - first, first])
    return (first[:, None] * jnp.stack([1.0 - second, second], axis=1)).ravel()


def two_steps(theta, key):
    """As `bandit`, in episodes of two steps: the second one's state is the action."""
    actions = jnp.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    no = jnp.zeros((3, 4), bool)
    obs = jnp.stack([jnp.zeros(4, int), 1 + actions[0], jnp.zeros(4, int)])
    steps = TimeStep(obs, no.at[0].set(True), no.at[2].set(True))
    reward = jnp.stack([x.ravel() for x in PAYS]) * chances(theta)[None]
    discount = jnp.ones((2, 4)).at[1].set(0.0)
    return Trajectory(steps, actions, reward, discount, {}, ()), ()


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [1, 2])
def test_it_is_exact_in_episodes_of_several_steps(num_steps):
    def logits(theta, obs):
        return jnp.stack([jnp.zeros(obs.shape), theta[obs]], axis=-1)

    def expected(theta):
        return jnp.sum(chances(theta) * sum(x.ravel() for x in PAYS))

    def adapted(theta):
        for _ in range(num_steps):
            theta = theta + 0.5 * jax.grad(expected)(theta)
        return expected(theta)

    start = jnp.array([0.3, -0.4, 0.8])
    config = AdaptationConfig("maml", num_steps, 0.5)
    right = -jax.grad(adapted)(start)
    gamma_one = ReinforceConfig(gamma=1.0, baseline="none", reduction="sum")

    def of(scores):
        network = twice_differentiable(network_of(logits), scores)
        agent = reinforce(network, optax.sgd(1.0), gamma_one)
        return found(agent, two_steps, start, config)

    np.testing.assert_allclose(of("episode"), right, atol=2e-6)
    assert np.abs(of("action") - right).max() > 3e-3


def drawn(params, key):
    """New data for the parameters, which depend on both."""
    return params + jax.random.normal(key), params


def test_each_gradient_is_of_new_data_of_the_parameters_it_has_reached():
    agent = agent_of(lambda x, data: data * x)
    state = TrainState(jnp.float32(2.0), ())
    config = AdaptationConfig("maml", 3, 0.5)
    made = jax.jit(lambda: adapt(agent, drawn, state, state.params, KEY, config))()
    noise = [
        jax.random.normal(jax.random.split(key)[0]) for key in jax.random.split(KEY, 3)
    ]
    x, seen = 2.0, []
    for z in noise:
        seen.append(x)
        x = x - 0.5 * (x + z)
    assert len({float(z) for z in noise}) == 3
    np.testing.assert_allclose(made.told, seen, rtol=1e-6)
    np.testing.assert_allclose(made.params, x, rtol=1e-6)


def test_nothing_is_differentiated_through_the_data():
    agent = agent_of(lambda x, data: data * x)
    config = AdaptationConfig("maml", 2, 0.5)
    # Gradients are the data, so that a constant would be added to the parameters.
    first = found(agent, drawn, 2.0, config)
    assert first == pytest.approx(float(found(agent, drawn, 2.0, replaced(config))))


def replaced(config):
    return AdaptationConfig("fomaml", config.inner_steps, config.inner_rate)


@pytest.mark.parametrize(("method", "right"), [("maml", -0.81), ("fomaml", -0.9)])
def test_all_tasks_count_equally(method, right):
    config = AdaptationConfig(method, 1, 0.1)
    agent = agent_of(square)
    each = [found(agent, near(a), 0.0, config) for a in (0.0, 1.0, 2.0)]
    np.testing.assert_allclose(each, np.array([0.0, 1.0, 2.0]) * right, rtol=1e-6)
    assert np.mean(each) == pytest.approx(right)


def test_a_task_with_fewer_rows_counts_as_much():
    """Gradients of rows are 3, 3 in one task, and four times 0 in another."""

    def loss(x, rows):
        slopes, counted = rows
        return x * jnp.sum(slopes) / jnp.sum(counted)

    slopes = jnp.array([[3.0, 3.0, 0.0, 0.0], [0.0] * 4])
    counted = jnp.array([[1.0, 1.0, 0.0, 0.0], [1.0] * 4])
    agent, state = agent_of(loss), TrainState(jnp.float32(0.0), ())

    def of_task(rows):
        given = agent, lambda params, key: (rows, ()), state, KEY
        return meta_gradient(*given, AdaptationConfig())[0]

    each = jax.jit(jax.vmap(of_task))((slopes, counted))
    assert float(jnp.mean(each)) == 1.5


def test_padding_has_no_say_in_a_baseline():
    last = jnp.array([[0, 0, 0, 0], [0, 0, 1, 1]], bool)
    flags = jnp.concatenate([last, jnp.ones((1, 4), bool)])
    steps = TimeStep(jnp.zeros((3, 4)), jnp.zeros((3, 4), bool), flags)
    reward = jnp.array([[0.0, 0.0, 3.0, 3.0], [3.0, 3.0, 0.0, 0.0]])
    given = jnp.zeros((2, 4), int), reward, jnp.ones((2, 4))
    trajectory = Trajectory(steps, *given, {}, ())
    batch = make_batch(trajectory, ReinforceConfig(gamma=1.0), Axis())
    np.testing.assert_array_equal(batch.returns, jnp.where(last, 0.0, 3.0))
    np.testing.assert_array_equal(batch.baseline, jnp.where(last, 0.0, 3.0))


def test_reptile_of_one_step_is_gradient_descent_on_the_mixture():
    agent = agent_of(fourth)
    tasks = (0.0, 0.5, 2.0)
    config = AdaptationConfig("reptile", 1, 0.1)
    differences = [found(agent, near(a), 1.0, config) for a in tasks]
    moved = 1.0 - 1.0 * np.mean(differences)
    joint = jax.grad(lambda x: jnp.mean(jnp.array([fourth(x, a) for a in tasks])))
    assert moved == pytest.approx(1.0 - 0.1 * float(joint(1.0)), rel=1e-6)


def sines(key, width=20):
    """A task of the textbook: 10 points of a sine, drawn anew for each gradient."""
    amplitude_key, phase_key = jax.random.split(key)
    amplitude = jax.random.uniform(amplitude_key, minval=0.1, maxval=5.0)
    phase = jax.random.uniform(phase_key, maxval=np.pi)

    def draw(params, key):
        x = jax.random.uniform(key, (10, 1), minval=-5.0, maxval=5.0)
        return (x, amplitude * jnp.sin(x - phase)), ()

    return draw


def regression(params, data):
    """Mean squared error of two hidden layers."""
    x, y = data
    for weights, bias in params[:-1]:
        x = jnp.tanh(x @ weights + bias[None])
    weights, bias = params[-1]
    return jnp.mean(jnp.square(x @ weights + bias[None] - y))


def layers(key, widths=(1, 40, 40, 1)):
    keys = jax.random.split(key, len(widths) - 1)
    return [
        (jax.random.normal(k, (n, m)) / np.sqrt(n), jnp.zeros(m))
        for k, n, m in zip(keys, widths[:-1], widths[1:], strict=True)
    ]


@pytest.mark.sample(1)
@pytest.mark.parametrize("method", ["maml", "fomaml", "reptile"])
def test_gradients_are_those_of_formulas(method):
    """Of two steps, in a task of the textbook, by jax.grad of the whole."""
    draw, agent = sines(random.key(5)), agent_of(regression)
    start = layers(random.key(6), (1, 5, 1))
    config = AdaptationConfig(method, 2, 0.05)
    adapt_key, last_key = jax.random.split(KEY)
    keys = [jax.random.split(key)[0] for key in jax.random.split(adapt_key, 2)]

    def adapted(params):
        for key in keys:
            grads = jax.grad(regression)(params, draw((), key)[0])
            params = jax.tree.map(lambda x, g: x - 0.05 * g, params, grads)
        return params

    def after(params):
        return regression(params, draw((), jax.random.split(last_key)[0])[0])

    right = {
        "maml": lambda: jax.grad(lambda params: after(adapted(params)))(start),
        "fomaml": lambda: jax.grad(after)(adapted(start)),
        "reptile": lambda: jax.tree.map(jnp.subtract, start, adapted(start)),
    }[method]
    assert_near(found(agent, draw, start, config), jax.jit(right)(), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["maml", "fomaml"])
def test_sines_are_learned_from_ten_points(method):
    """After one gradient the error is a small part of that before it."""
    agent = agent_of(regression)
    config = AdaptationConfig(method, 1, 0.02)
    optimizer = optax.adam(2e-3)

    def step(now, key):
        params, opt_state = now
        state = TrainState(params, ())

        def of_task(key):
            task_key, key = jax.random.split(key)
            return meta_gradient(agent, sines(task_key), state, key, config)[0]

        grads = jax.vmap(of_task)(jax.random.split(key, 20))
        grads = jax.tree.map(lambda x: jnp.mean(x, axis=0), grads)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), ()

    params = layers(random.key(1))
    now = params, optimizer.init(params)
    now, _ = jax.jit(lambda now, keys: jax.lax.scan(step, now, keys))(
        now, jax.random.split(random.key(2), 4000)
    )

    def errors(key):
        task_key, key, test_key = jax.random.split(key, 3)
        draw, state = sines(task_key), TrainState(now[0], ())
        after = adapt(agent, draw, state, now[0], key, config).params
        points = draw((), test_key)[0]
        return regression(now[0], points), regression(after, points)

    before, after = jax.vmap(errors)(jax.random.split(random.key(3), 200))
    assert np.mean(after) < 0.5 * np.mean(before)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (AdaptationConfig(inner_steps=0), "inner_steps must be at least 1, got 0"),
        (AdaptationConfig(inner_rate=-0.1), "inner_rate must be at least 0, got -0.1"),
        (AdaptationConfig("reptile", inner_rate=0.0), "inner_rate must be above 0"),
    ],
)
def test_what_is_out_of_range_is_told(config, told):
    (line,) = config.problems()
    assert told in line


def test_agents_that_cannot_adapt_are_refused():
    specs, shape = (Box((1,)), Discrete(2)), NetworkConfig(widths=(4,))
    agent = a2c(actor_critic(*specs, shape), optax.sgd(1.0))
    refuse_agent(agent)
    with pytest.raises(RefusedError, match="learn by gradients alone"):
        refuse_agent(normalize_observations(agent))
    with pytest.raises(RefusedError, match=r"a field params.* got a tuple"):
        params_of((1.0, 2.0))
    others = agent_of(square)._replace(
        grad=lambda state, batch, key, axis: gradient(
            lambda both, batch: (square(both[0], batch), {}), (state.params, 0.0), batch
        )
    )
    with pytest.raises(RefusedError, match="a gradient of each of its state's params"):
        found(others, near(0.0), 1.0, AdaptationConfig())
