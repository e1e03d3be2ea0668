"""Policy distillation against its equations: who says what, and what it costs."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import loops, random, rollout
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.dqn import DQNConfig, dqn
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.policy_distillation import (
    FixedTeacher,
    PolicyDistillationConfig,
    acted_by_teachers,
    policy_distillation,
)
from jaxrl_par.algorithms.policy_distillation.loss import (
    LOSSES,
    cross_entropy,
    kl,
    loss,
    mse,
    nll,
)
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.envs.several import several
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import (
    NetworkConfig,
    actor_critic,
    of_tasks,
    policy_network,
    q_network,
)
from jaxrl_par.statistics import Moments
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.types import Box, Discrete

INF = jnp.inf
SMALL = NetworkConfig(widths=(6,))


def valued(function, said, logits, temperature=1.0):
    """(the loss, its gradient with respect to the student's logits)"""
    said, logits = jnp.array(said), jnp.array(logits)
    return jax.jit(jax.value_and_grad(lambda z: function(said, z, temperature)))(logits)


def test_the_temperature_divides_what_the_teacher_says_alone():
    """Trap P22, and the fact sheet's numeric checks 1 and 2."""
    q = [1.00, 1.01]
    value, slope = valued(kl, q, q, 0.01)
    np.testing.assert_allclose(value, 0.108646, atol=1e-6)
    np.testing.assert_allclose(slope, [0.228559, -0.228559], atol=1e-6)
    for temperature, target in ((0.01, [0.268941, 0.731059]), (1.0, [0.4975, 0.5025])):
        _, slope = valued(kl, q, [0.3, -0.2], temperature)
        softened = jax.nn.softmax(jnp.array([0.3, -0.2])) - slope
        np.testing.assert_allclose(softened, target, atol=1e-6)


def test_the_divergence_is_a_sum_over_actions_of_logarithms():
    """Trap P22."""
    said, logits = jnp.log(jnp.array([0.8, 0.1, 0.1])), jnp.log(jnp.array([2.0, 1, 1]))
    np.testing.assert_allclose(kl(said, logits, 1.0), 0.192745, atol=1e-6)


def test_an_action_that_there_is_not_weighs_nothing_in_loss_and_gradient():
    """Trap P22: no 0 x -inf, which `where` would hide in the loss alone."""
    said, masked = [1.0, 0.0, -INF], [0.0, 0.0, -INF]
    value, slope = valued(kl, said, masked)
    np.testing.assert_allclose(value, 0.110944, atol=1e-6)
    np.testing.assert_allclose(slope, [-0.231059, 0.231059, 0.0], atol=1e-6)
    np.testing.assert_allclose(valued(kl, said, [0.0] * 3)[0], 0.516409, atol=1e-6)
    for function in LOSSES.values():
        alone = valued(function, said[:2], masked[:2])
        padded = valued(function, said, masked)
        np.testing.assert_allclose(padded[0], alone[0], rtol=1e-6)
        np.testing.assert_allclose(padded[1], [*alone[1], 0.0], rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_losses_are_the_papers(temperature):
    """Against loops over rows and actions."""
    rng = np.random.default_rng(3)
    said, logits = rng.normal(size=(2, 4, 3)).astype(np.float32)
    expected = {name: [] for name in LOSSES}
    for q, z in zip(np.float64(said), np.float64(logits), strict=True):
        p, s = (np.exp(x) / np.sum(np.exp(x)) for x in (q / temperature, z))
        expected["kl"].append(sum(a * np.log(a / b) for a, b in zip(p, s, strict=True)))
        crossed = -sum(a * np.log(b) for a, b in zip(p, s, strict=True))
        expected["cross_entropy"].append(crossed)
        expected["nll"].append(-np.log(s[np.argmax(q)]))
        expected["mse"].append(sum((a - b) ** 2 for a, b in zip(q, z, strict=True)))
    for name, rows in expected.items():
        given = LOSSES[name](jnp.array(said), jnp.array(logits), temperature)
        np.testing.assert_allclose(given, rows, rtol=1e-4, atol=1e-6)
    assert {kl, nll, mse, cross_entropy} == {*LOSSES.values()}


def signs(length, num_actions, name):
    """Tasks whose observations, waves of their row, and actions differ in number."""

    def make(num_envs):
        env = probes.counter(num_envs)

        def shown(step):
            return step._replace(
                obs=jnp.sin(step.obs[:, 1:] * (1.0 + jnp.arange(length)))
            )

        def reset(key):
            state, step = env.reset(key)
            return state, shown(step)

        def step(state, action, key):
            state, seen, *paid = env.step(state, action, key)
            return state, shown(seen), *paid

        spec = Box((length,), low=-1.0, high=1.0)
        return env._replace(
            reset=reset, step=step, name=name, observation_spec=spec,
            action_spec=Discrete(num_actions),
        )  # fmt: skip

    return make


TASKS = {"short": signs(2, 2, "short"), "long": signs(3, 4, "long")}
BOTH = several(lambda name, num_envs: TASKS[name](num_envs), "short+long", 4)


@cache
def teacher(name, kind="policy", seed=0):
    """An agent of one task, with random parameters."""
    env = TASKS[name](2)
    if kind == "policy":
        agent = a2c(actor_critic(*env.specs, SMALL), optax.sgd(0.1))
    else:
        config = DQNConfig(anneal_steps=100)
        agent = dqn(q_network(*env.specs, SMALL), optax.sgd(0.1), config)
    _, step = env.reset(random.key(0))
    state = jax.jit(agent.init)(random.key(seed + 10), step)
    waves = jax.tree.map(
        lambda x: 3 * jnp.sin(jnp.arange(1.0, x.size + 1)).reshape(x.shape)
        if jnp.issubdtype(x.dtype, jnp.floating) else x,
        agent.params(state),
    )  # fmt: skip
    return FixedTeacher(agent, waves, env.specs, name)


def student(env, teachers, acts="student", **config):
    optimizer = config.pop("optimizer", optax.sgd(0.1))
    network = of_tasks(policy_network, *env.specs, config.pop("network", SMALL))
    config = PolicyDistillationConfig(**{"temperature": 1.0} | config)
    agent = policy_distillation(network, optimizer, teachers, config)
    return network, acted_by_teachers(agent, teachers) if acts == "teacher" else agent


def acted(env, agent, length=6):
    @jax.jit
    def act():
        streams = rollout.start(agent, env, random.key(0))
        state = agent.init(random.key(1), streams.step)
        given = (agent, env, agent.params(state), streams, random.key(2), length)
        return state, rollout.unroll(*given)[1]

    return act()


def said(teacher, obs):
    """(logits or values [..., A], features [..., D]), by hand."""
    params = getattr(teacher.params, "online", teacher.params)["params"]
    layer = params["torso"]["MLP_0"]["Linear_0"]
    features = np.tanh(obs @ layer["kernel"] + layer["bias"])
    name = "q_values" if "q_values" in params else "policy"
    head = params.get("_Heads_0", params)
    return features @ head[name] + head[f"{name}_bias"], features


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["values", "policy"])
def test_what_a_teacher_says_is_what_its_network_does(kind):
    env, given = TASKS["short"](4), teacher("short", kind)
    _, agent = student(env, [given], feature_cost=0.5)
    state, trajectory = acted(env, agent)
    del state
    logits, features = said(given, np.asarray(trajectory.rows.obs))
    told = trajectory.extras
    np.testing.assert_allclose(told["preferences"], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(told["features"], features, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_teacher_sees_normalised_what_it_learned_normalised():
    given = teacher("short")
    agent = normalize_observations(given.agent)
    step = TASKS["short"](2).reset(random.key(0))[1]
    params = agent.params(agent.init(random.key(1), step))
    seen = Moments(jnp.float32(9), jnp.array([1.0, 2.0]), jnp.array([4.0, 0.25]))
    params = params._replace(inner=given.params, statistics=seen)
    shown = step._replace(obs=jnp.array([[3.0, 2.0], [1.0, 2.5]]))
    told, _ = agent.preferences(params, (), shown)
    expected, _ = said(given, np.array([[1.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(told.actions, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_features_are_learned_by_a_linear_map():
    """The whole loss against NumPy, its map included."""
    env, given = TASKS["short"](4), teacher("short")
    network, agent = student(env, [given], feature_cost=0.5, loss="cross_entropy")
    state, trajectory = acted(env, agent)
    config = PolicyDistillationConfig("cross_entropy", 1.0, 0.5)
    total, told = loss(state.params, trajectory, network, config)
    rows, last = trajectory.rows, np.asarray(trajectory.rows.last)
    ((policy, _), own), _ = network.with_features(state.params.network, (), rows)
    logits, features = said(given, np.asarray(rows.obs))
    p, s = (np.exp(x) / np.sum(np.exp(x), -1, keepdims=True)
            for x in (logits, np.asarray(policy.logits)))  # fmt: skip
    imitation = -np.sum(p * np.log(s), -1)
    (matrix,) = state.params.maps
    errors = np.sum((own @ matrix - features) ** 2, -1)
    rows_loss = (imitation + 0.5 * errors)[~last]
    assert last.any()
    np.testing.assert_allclose(total, np.sum(rows_loss) / last.size, rtol=1e-4)
    np.testing.assert_allclose(
        told["feature_loss"].total, errors[~last].sum(), rtol=1e-4
    )
    grads = jax.grad(lambda p: loss(p, trajectory, network, config)[0])(state.params)
    assert all(np.any(x != 0) for x in jax.tree.leaves(grads))


def test_each_lane_learns_from_and_is_acted_by_the_teacher_of_its_task():
    """Observations are cropped to what the teacher knows, and what it says is padded;
    the student can do nothing that its task lacks."""
    both = [teacher("short", "values"), teacher("long")]
    both = [x._replace(agent=x.agent._replace(act=x.agent.greedy)) for x in both]
    network, agent = student(BOTH, both, acts="teacher")
    state, trajectory = acted(BOTH, agent)
    told, rows = np.asarray(trajectory.extras["preferences"]), trajectory.rows
    np.testing.assert_array_equal(rows.obs.task, np.tile([0, 0, 1, 1], (6, 1)))
    short, _ = said(both[0], np.asarray(rows.obs.obs[:, :2, :2]))
    long, _ = said(both[1], np.asarray(rows.obs.obs[:, 2:]))
    np.testing.assert_allclose(told[:, :2, :2], short, rtol=1e-4, atol=1e-4)
    assert np.all(told[:, :2, 2:] == -np.inf)
    np.testing.assert_allclose(told[:, 2:], long, rtol=1e-4, atol=1e-4)
    best = np.concatenate([np.argmax(x, -1) for x in (short, long)], axis=1)
    np.testing.assert_array_equal(trajectory.action, best)
    assert len(np.unique(best[:, 2:])) > 1
    (policy, _), _ = network.unroll(state.params.network, (), rows)
    probabilities = np.exp(policy.log_probs)
    assert np.all(probabilities[:, :2, 2:] == 0) and np.all(probabilities[:, 2:] > 0)


@pytest.mark.slow
def test_all_that_is_learned_stays_finite_where_tasks_differ():
    both = [teacher("short"), teacher("long", "values")]
    for name in LOSSES:
        _, agent = student(BOTH, both, loss=name, feature_cost=0.1)
        state, trajectory = acted(BOTH, agent)
        grads, info = jax.jit(partial(agent.grad, axis=Axis()))(
            state, trajectory, random.key(0)
        )
        for x in jax.tree.leaves((grads, info.metrics)):
            assert np.all(np.isfinite(x))
        # Half of the rows have each task.
        ((a, n), (b, m), (all_, _)) = (
            info.metrics[name] for name in ("loss_0", "loss_1", "loss")
        )
        assert n > 0 and m > 0
        np.testing.assert_allclose(a + b, all_, rtol=1e-5)


@pytest.mark.slow
def test_teachers_stay_what_they_are():
    """Of DQN, the steps that pass do not go on with its annealing either."""
    env, given = TASKS["short"](4), teacher("short", "values")
    _, agent = student(env, [given])
    state, trajectory = acted(env, agent)
    grad = jax.jit(partial(agent.grad, axis=Axis()))
    grads, _ = grad(state, trajectory, random.key(0))
    after = passed(agent.apply(state, grads, {}), 1000)
    assert not np.array_equal(*(jax.tree.leaves(x.params)[0] for x in (state, after)))
    for x, y in zip(after.teachers[0], jax.tree.leaves(given.params), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
@pytest.mark.parametrize("acts", ["student", "teacher"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_student_comes_to_do_what_its_teachers_do(name, acts):
    both = [teacher("short"), teacher("long")]
    able = {"network": NetworkConfig(widths=(64, 64)), "optimizer": optax.adam(0.01)}
    _, agent = student(BOTH, both, acts, loss=name, **able)
    program = compiled(loops.learner_of(agent), BOTH, 16)
    run = jax.jit(program.init)(random.key(0))
    _, metrics = jax.jit(scanned(program, 1000))(run)
    agreement = metrics["agreement"]
    share = agreement.total / agreement.count
    assert share[:5].mean() < 0.7 and share[-50:].mean() > 0.8


def test_teachers_of_other_specs_are_refused_with_both():
    env = TASKS["long"](2)
    with pytest.raises(RefusedError) as refused:
        student(env, [teacher("short")])
    told = str(refused.value)
    assert "float32 (3,)" in told and "float32 (2,)" in told
    assert "one of 4" in told and "one of 2" in told and "its teacher short" in told


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"feature_cost": -1.0}, "feature_cost must be at least 0, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(options, problem):
    with pytest.raises(RefusedError, match=problem):
        student(TASKS["short"](2), [teacher("short")], **options)


def test_who_cannot_teach_is_refused():
    env, given = TASKS["short"](2), teacher("short")
    silent = given._replace(agent=given.agent._replace(preferences=None))
    with pytest.raises(RefusedError, match="short cannot tell what it thinks"):
        student(env, [silent])
    with pytest.raises(RefusedError, match="one for each task, which are 2, got 1"):
        student(BOTH, [given])


@pytest.mark.slow
def test_features_of_several_widths_are_refused():
    env = TASKS["short"](2)
    wide = dqn(q_network(*env.specs, NetworkConfig(widths=(7,))), optax.sgd(0.1))
    _, step = env.reset(random.key(0))
    acting = wide.params(wide.init(random.key(0), step))
    other = FixedTeacher(wide, acting, env.specs, "wide")
    _, agent = student(BOTH, [other, teacher("long")], feature_cost=1.0)
    with pytest.raises(RefusedError, match="as many features, got 7, 6"):
        agent.init(random.key(0), BOTH.reset(random.key(0))[1])
