"""Guided policy search as a program: known answers, devices, and what is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import random
from jaxrl_par.algorithms.gps import (
    GPSConfig,
    PriorConfig,
    global_policy,
    guided_policy_search,
)
from jaxrl_par.algorithms.gps.policy import seen
from jaxrl_par.axis import Axis
from jaxrl_par.envs.control import controlled
from jaxrl_par.envs.tasks.linear_system import LinearSystem, double_integrator, golden
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops.guided import (
    Search,
    Sizes,
    acting,
    begin,
    guided,
    policy,
    sampled,
)
from jaxrl_par.networks import NetworkConfig, policy_network
from jaxrl_par.presets.gps import Args
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.topologies.sharded import data_mesh, sharded

SMALL = GPSConfig(prior=PriorConfig(num_clusters=2, num_steps=2))
SIZES = Sizes(num_states=4, num_rollouts=4, num_updates=60, batch_size=16)
LINEAR = NetworkConfig(widths=())


def search_of(system, config=SMALL, optimizer=None, sizes=SIZES):
    """In a linear system, by a linear policy."""
    control = controlled(system)
    shape = control.num_steps, control.state_size, control.num_actions
    network = policy_network(*control.specs, LINEAR)
    agent = global_policy(network, optimizer or optax.adam(0.03))
    guide = guided_policy_search(control.cost, *shape, config)
    return Search(agent, control, guide, sizes)


def searched(search, num_iterations, num_devices=None):
    """The run after so many iterations, and their metrics."""
    axis = Axis() if num_devices is None else Axis("data")
    program = guided(search, axis=axis)
    if num_devices is not None:
        program = sharded(program, data_mesh(num_devices))
    run = jax.jit(program.init)(random.key(0))
    return jax.jit(scanned(program, num_iterations))(run)


def optimum(params, length, start):
    """The least cost from there, by Riccati's recursion."""
    a, b, q, r = (np.float64(x) for x in params[:4])
    value = np.zeros_like(q)
    for _ in range(length):
        gain = np.linalg.solve(r + b.T @ value @ b, b.T @ value @ a)
        value = q + a.T @ value @ a - a.T @ value @ b @ gain
    return 0.5 * start @ value @ start


def paid(search, learner, key):
    """(cost of a greedy episode of the global policy, where it began)."""
    agent, control = search.agent, search.control
    params = agent.params(learner)
    state, obs = control.start(key)
    start, total = np.float64(control.vector(state)), 0.0
    act, step = jax.jit(agent.greedy), jax.jit(control.step)
    for _ in range(control.num_steps):
        action, *_ = act(params, (), seen(obs[None], (1,)), key)
        state, obs, cost = step(state, action[0], key)
        total += float(cost)
    return total, start


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mdgps", "badmm"])
def test_a_linear_policy_comes_to_the_golden_gain(method):
    # So near the optimum a fall is less than its noise, and would end all steps.
    config = replace(SMALL, method=method, smallest_step=1.0)
    sizes, rate = SIZES._replace(num_updates=100), optax.adam(0.01, b2=0.9)
    given = search_of(LinearSystem(15, golden(15)), config, rate, sizes)
    run, metrics = searched(given, 15)
    head = run.learner.params["params"]["_Heads_0"]
    # Of an episode's last steps the best gains are smaller, down to 0.
    gains = run.local.guide.controllers.gain[:, :10]
    np.testing.assert_allclose(gains, -0.618, atol=0.04)
    np.testing.assert_allclose(head["policy"], [[-0.618]], atol=0.04)
    np.testing.assert_allclose(head["policy_bias"], [0.0], atol=0.01)
    assert np.all(metrics["skipped"] == 0) and np.all(metrics["indefinite"] == 0)


@pytest.mark.slow
def test_linear_tasks_are_solved_at_the_least_cost():
    """To 1 %, from states that were not among those it learned from."""
    length = 30
    sizes = SIZES._replace(num_states=8, num_rollouts=6, num_updates=200)
    search = search_of(LinearSystem(length), sizes=sizes)
    run, _ = searched(search, 20)
    found = [paid(search, run.learner, jax.random.key(i)) for i in range(100, 105)]
    best = [optimum(double_integrator(length), length, start) for _, start in found]
    assert np.sum([cost for cost, _ in found]) < 1.01 * np.sum(best)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mdgps", "badmm"])
def test_devices_share_the_initial_states_of_one_search(method):
    config = replace(SMALL, method=method)
    given = search_of(LinearSystem(6), config, optax.sgd(0.05))
    joint, told = searched(given, 2)
    for number in (1, 2, 4):
        sizes = SIZES._replace(num_states=4 // number)
        run, metrics = searched(given._replace(sizes=sizes), 2, number)
        assert_near(run.learner, joint.learner, 1e-4)
        guides = jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[2:]), run.local.guide.controllers
        )
        assert_near(guides, joint.local.guide.controllers, 1e-3)
        assert int(run.progress.env_steps) == int(joint.progress.env_steps)
        assert_near(metrics["episode_return"], told["episode_return"], 1e-4)


@pytest.mark.slow
def test_many_iterations_in_a_call_are_as_many_calls():
    program = guided(search_of(LinearSystem(5)))
    run = jax.jit(program.init)(random.key(0))
    together, _ = jax.jit(scanned(program, 2))(run)
    one = jax.jit(scanned(program, 1))
    apart, _ = one(one(run)[0])
    jax.tree.map(np.testing.assert_array_equal, together.learner, apart.learner)


@pytest.mark.slow
@pytest.mark.parametrize("acts", ["policy", "controllers"])
def test_rollouts_are_of_whoever_acts(acts):
    search = search_of(LinearSystem(5), replace(SMALL, acts=acts))
    key = jax.random.key(0)
    local = begin(search, key, 0)
    certain = 1e-8 * jnp.eye(2)
    known = search.agent.params(policy(search, key, local))
    known = known._replace(covariance=certain)
    controllers = search.guide.controllers(local.guide)
    controllers = controllers._replace(
        offset=controllers.offset + 3.0,
        covariance=jnp.broadcast_to(certain, controllers.covariance.shape),
    )
    given = acting(search, known), controllers, local.scenes, local.first
    played = jax.jit(sampled, static_argnums=(0, 1))(
        search, *given, jax.random.split(key, 4)
    )
    if acts == "controllers":
        np.testing.assert_allclose(played.actions, 3.0, atol=1e-3)
        return
    rows = played.obs.reshape(-1, 4)
    action, *_ = search.agent.greedy(known, (), seen(rows, rows.shape[:1]), key)
    np.testing.assert_allclose(played.actions.reshape(-1, 2), action, atol=1e-3)


@pytest.mark.slow
def test_sizes_below_one_and_other_agents_are_refused():
    search = search_of(LinearSystem(5))
    with pytest.raises(RefusedError, match="num_rollouts must be at least 1, got 0"):
        guided(search._replace(sizes=SIZES._replace(num_rollouts=0)))
    other = controlled(LinearSystem(5, golden(5)))
    with pytest.raises(RefusedError, match="the agent"):
        guided(search._replace(control=other))


def test_what_is_no_problem_of_control_is_refused_on_the_command_line():
    assert not Args().problems()
    (line,) = Args(rollouts=0).problems()
    assert line == "rollouts must be at least 1, got 0"
    (line,) = Args(normalize=True).problems()
    assert "normalize is not for guided policy search" in line
