"""A member of a population computes what it would compute alone."""

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import random
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.loops import Program, Run, new_run
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.population import grid, population, random_search
from jaxrl_par.topologies.sharded import data_mesh

ENV = probes.observation_reward(4)
NETWORK = actor_critic(
    ENV.observation_spec, ENV.action_spec, NetworkConfig(widths=(8,))
)
SWEEP = grid(learning_rate=[0.01, 0.03], entropy_cost=[0.0, 0.1], seed=[0, 1])


def program_of(values):
    config = A2CConfig(entropy_cost=values["entropy_cost"])
    return compiled(a2c(NETWORK, optax.sgd(values["learning_rate"]), config), ENV, 6)


def trained(program, key, num_updates=5):
    return jax.jit(lambda key: scanned(program, num_updates)(program.init(key)))(key)


@pytest.mark.sample(1)
@pytest.mark.parametrize("num_devices", [None, 4])
def test_member_i_equals_a_run_of_its_own(num_devices):
    mesh = None if num_devices is None else data_mesh(num_devices)
    many = population(program_of, SWEEP, mesh)
    run, metrics = trained(many.program, random.key(9))
    assert metrics["grad_norm"].shape == (5, 8)
    for index in (0, 3, 6):
        member = many.member(run, index)
        values = {name: x[index] for name, x in SWEEP.items()}
        assert member.hyperparameters == pytest.approx(values)
        key = random.key(int(values["seed"]))
        alone, _ = trained(program_of(values), key)
        assert_near(member.run.learner, alone.learner)


@pytest.mark.slow
def test_what_changes_the_settings_of_a_run_changes_what_members_do():
    """As exploiting members do, and resumed runs: nothing of it is in the program."""
    many = population(program_of, SWEEP)
    run = jax.jit(many.program.init)(random.key(0))
    assert sorted(run.settings) == sorted(SWEEP)
    settings = run.settings | {"learning_rate": jnp.zeros(8)}
    still, _ = jax.jit(many.program.step)(run._replace(settings=settings))
    moved, _ = jax.jit(many.program.step)(run)
    before, kept, after = (
        jax.flatten_util.ravel_pytree(x.learner.params)[0] for x in (run, still, moved)
    )
    np.testing.assert_array_equal(before, kept)
    assert np.any(before != after)
    assert many.member(still, 3).hyperparameters["learning_rate"] == 0.0


@pytest.mark.slow
def test_a_member_is_ready_to_be_trained_further():
    many = population(program_of, SWEEP)
    run, _ = trained(many.program, random.key(0), num_updates=2)
    member = many.best(run, jnp.arange(8.0))
    assert member.hyperparameters == pytest.approx(
        {"learning_rate": 0.03, "entropy_cost": 0.1, "seed": 1}
    )
    after, _ = jax.jit(scanned(member.program, 3))(member.run)
    assert int(after.progress.updates) == 5


def test_members_without_seeds_get_different_keys():
    many = population(program_of, grid(learning_rate=[0.1, 0.1], entropy_cost=[0.0]))
    run = jax.jit(many.program.init)(random.key(0))
    first, second = jax.random.key_data(run.key)
    assert not np.array_equal(first, second)


def test_the_same_seed_starts_alike():
    many = population(program_of, SWEEP)
    run = jax.jit(many.program.init)(random.key(0))
    data = np.asarray(jax.random.key_data(run.key))
    assert len(np.unique(data, axis=0)) == 2


def test_best_never_picks_a_score_that_is_no_number():
    many = population(program_of, SWEEP)
    run = jax.jit(many.program.init)(random.key(0))
    scores = np.full(8, np.nan)
    with pytest.raises(ValueError, match="one number for each of 8 members"):
        many.best(run, scores)
    scores[5] = -3.0
    best = many.best(run, jnp.asarray(scores))
    assert best.hyperparameters["seed"] == SWEEP["seed"][5]


def test_grid_is_in_the_order_of_nested_loops():
    rows = grid(a=[1, 2], b=[0.5, 0.25, 0.125])
    np.testing.assert_array_equal(rows["a"], [1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(rows["b"], [0.5, 0.25, 0.125] * 2)


def test_random_search_is_log_uniform():
    draws = random_search(random.key(0), 4000, rate=(1e-4, 1e-2))["rate"]
    logs = np.log10(draws)
    assert logs.min() >= -4 and logs.max() <= -2
    counts, _ = np.histogram(logs, bins=4, range=(-4, -2))
    # Four standard deviations of a binomial count of 4000 / 4.
    assert np.all(np.abs(counts - 1000) < 4 * np.sqrt(750))


def test_random_search_draws_its_numbers_apart():
    draws = random_search(random.key(0), 2000, a=(1.0, 10.0), b=(1.0, 10.0))
    logs = np.log(draws["a"]), np.log(draws["b"])
    # Five standard deviations of a correlation of 0.
    assert abs(np.corrcoef(*logs)[0, 1]) < 5 / np.sqrt(2000)


def test_wrong_populations_are_rejected():
    with pytest.raises(ValueError, match="one common length"):
        population(program_of, {"a": jnp.zeros(2), "b": jnp.zeros(3)})
    with pytest.raises(ValueError, match="4 devices cannot share 6 members"):
        population(program_of, {"a": jnp.zeros(6)}, data_mesh(4))
    with pytest.raises(ValueError, match="at least one value"):
        grid(a=[])
    with pytest.raises(ValueError, match="rate needs a range 0 < low < high"):
        random_search(random.key(0), 3, rate=(0.0, 1.0))
    many = population(program_of, SWEEP)
    run = jax.jit(many.program.init)(random.key(0))
    with pytest.raises(ValueError, match="no member 8 in a population of 8"):
        many.member(run, 8)


def test_wrong_things_are_named():
    seeds = {"seed": np.arange(2)}
    for match, arguments in {
        "make_program must be a function .* got int: 1": (1, seeds),
        "hyperparameters must be arrays by name, .* list": (dict, [1, 2]),
        "mesh must be a Mesh, got int: 2": (dict, seeds, 2),
    }.items():
        with pytest.raises(ValueError, match=match):
            # As users call it: the tests check types first.
            inspect.unwrap(population)(*arguments)
    many = population(dict, seeds)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"make_program: it must be a Program, .* d"):
        jax.eval_shape(many.program.init, random.key(0))


@pytest.mark.parametrize("num_devices", [None, 2])
def test_a_state_may_be_a_class_of_the_function_that_makes_the_program(num_devices):
    """Each call then has another class, as an environment made by a factory may."""

    def program_of(values):
        class State(NamedTuple):
            total: Any

        def init(key):
            return new_run({"w": jnp.zeros(2)}, State(jnp.zeros(())), key)

        def step(run):
            def add(state, _):
                return State(state.total + values["rate"]), ()

            local, _ = jax.lax.scan(add, run.local, length=3)
            return run._replace(local=local), {"total": local.total}

        return Program(init, step)

    mesh = None if num_devices is None else data_mesh(num_devices)
    many = population(program_of, {"rate": np.array([1.0, 2.0], np.float32)}, mesh)
    run, metrics = trained(many.program, random.key(0), 2)
    np.testing.assert_array_equal(metrics["total"], [[3, 6], [6, 12]])
    member = many.member(run, 1)
    again, _ = scanned(member.program, 2)(member.run)
    assert float(again.local.total) == 24
    assert float(again.settings["rate"]) == 2


def test_seeds_that_would_be_the_same_member_are_refused():
    for seeds in ([0, 2**32], [0, -1], [0, 2**63], [0.0, 1.0]):
        with pytest.raises(
            ValueError, match=r"seed\[\d\] must be a whole number in \[0"
        ):
            population(lambda values: None, {"seed": np.array(seeds)})


def test_seeds_beyond_int32_are_not_wrapped():
    def make_program(values):
        def init(key):
            return Run(jax.random.bits(key), (), key, ())

        return Program(init, lambda run: (run, {}))

    seeds = [0, 2**31, 2**32 - 1]
    many = population(make_program, {"seed": np.array(seeds)})
    run = many.program.init(random.key(0))
    members = [many.member(run, i) for i in range(3)]
    assert [x.hyperparameters["seed"] for x in members] == seeds
    expected = [jax.random.bits(random.key(seed)) for seed in seeds]
    assert run.learner.tolist() == [int(x) for x in expected]
