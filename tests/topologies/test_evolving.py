"""Population-based training: on the paper's toy, in bits, and across a stop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nearness import assert_near

from jaxrl_par import envs, loops, random
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import Program
from jaxrl_par.loops.schedules import Schedule
from jaxrl_par.loops.selection import Explore, tournament, truncation
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.evolving import evolving, members_of
from jaxrl_par.topologies.population import population
from jaxrl_par.topologies.sharded import data_mesh


def toy(values):
    """The paper's: the gradient of a surrogate 1.2 - h.x^2 is followed, and judged is
    1.2 - x.x."""

    def init(key):
        return loops.new_run(jnp.array([0.9, 0.9]), (), key)

    def step(run):
        h = jnp.stack([values["h0"], values["h1"]])
        x = run.learner - 0.01 * 2.0 * h * run.learner
        progress = run.progress.counted(jnp.int32(1))
        score = 1.2 - jnp.sum(jnp.square(x))
        return run._replace(learner=x, progress=progress), {"score": score}

    return Program(init, step)


# Not quite the paper's: of two members that are equal neither copies the other.
START = {"h0": np.array([1.0, 0.0], "f4"), "h1": np.array([0.0, 0.9], "f4")}
EXPLORE = {name: Explore(1e-3, 1.0, resample=0.25) for name in ("h0", "h1")}


def test_the_papers_toy_needs_both():
    members = population(toy, START)
    run = members.program.init(random.key(0))
    _, alone = jax.jit(scanned(members.program, 400))(run)
    assert np.max(alone["score"]) < 0.391
    options = {"interval": 5, "score": "score", "window": 1}
    program = evolving(members.program, EXPLORE, exploit=tournament(), **options)
    _, metrics = jax.jit(scanned(program, 400))(program.init(random.key(0)))
    assert np.max(metrics["score"]) > 1.19
    assert metrics["num_ancestors"][-1, 0] == 1


def ranked(values):
    """A member whose score is its setting, and which learns its own number of steps."""

    def init(key):
        return loops.new_run(jnp.float32(0), (), key)

    def step(run):
        progress = run.progress.counted(jnp.int32(1))
        learner = run.learner + values["rate"]
        return run._replace(learner=learner, progress=progress), {"score": learner}

    return Program(init, step)


RATES = {"rate": np.array([1.0, 0.1, 0.5, 0.4], "f4"), "seed": np.arange(4)}
OWN = jnp.arange(4, dtype=jnp.int32)
RANKED = {"interval": 3, "score": "score", "window": 1}


def rates_evolving(exploit=None, explore=None):
    members = population(ranked, RATES)
    given = {} if explore is None else explore
    return evolving(
        members.program, given, exploit=exploit or truncation(0.25), **RANKED
    )


def test_a_turn_comes_every_interval_and_copies_what_was_learned():
    program = rates_evolving()
    run, metrics = jax.jit(scanned(program, 12))(program.init(random.key(0)))
    turns = [i + 1 for i, row in enumerate(metrics["copied"]) if np.any(row)]
    # Then the members with rates 1 and 1 copy nobody, and each next worst one does.
    assert turns == [3, 6, 9]
    np.testing.assert_array_equal(metrics["copied"][2], [0, 1, 0, 0])
    np.testing.assert_array_equal(metrics["ancestor"][3], [0, 0, 2, 3])
    np.testing.assert_array_equal(run.local.source, np.arange(4))
    np.testing.assert_array_equal(run.settings["rate"], np.ones(4))
    np.testing.assert_array_equal(run.settings["seed"], np.arange(4))
    np.testing.assert_allclose(run.learner, np.full(4, 12.0))
    assert metrics["num_ancestors"][-1, 0] == 1


def test_who_copied_is_judged_by_later_scores_alone():
    program = rates_evolving()
    run, _ = jax.jit(scanned(program, 3))(program.init(random.key(0)))
    np.testing.assert_array_equal(run.local.record.number, [3, 0, 3, 3])


def test_what_is_copied_is_changed_and_the_next_step_uses_it():
    explore = {"rate": Explore(0.01, 10.0)}
    program = rates_evolving(explore=explore)
    run, metrics = jax.jit(scanned(program, 4))(program.init(random.key(0)))
    changed = float(run.settings["rate"][1])
    assert np.isclose(changed, 1.2) or np.isclose(changed, 1 / 1.2)
    np.testing.assert_allclose(run.learner[1], 3.0 + changed, rtol=1e-6)
    np.testing.assert_array_equal(metrics["setting_rate"][-1], run.settings["rate"])
    np.testing.assert_array_equal(metrics["setting_rate"][2], RATES["rate"])


@pytest.mark.slow
def test_a_population_in_parts_ends_in_the_same_bits():
    program = rates_evolving(explore={"rate": Explore(0.01, 10.0)})
    start = program.init(random.key(0))
    whole, _ = jax.jit(scanned(program, 12))(start)
    for stop in (5, 6, 7):
        run, _ = jax.jit(scanned(program, stop))(start)
        again, _ = jax.jit(scanned(program, 12 - stop))(jax.tree.map(jnp.copy, run))
        jax.tree.map(np.testing.assert_array_equal, again.learner, whole.learner)
        jax.tree.map(np.testing.assert_array_equal, again.local, whole.local)


def cart_poles(mesh=None):
    env = envs.make("CartPole-v1", 4)

    def make_program(values):
        network = actor_critic(*env.specs, NetworkConfig(widths=(8,)))
        rate = OptimizerConfig(learning_rate=values["rate"], anneal=False)
        config = A2CConfig(gamma=values["gamma"])
        return compiled(a2c(network, make_optimizer(rate), config), env, 8)

    values = {"rate": np.geomspace(1e-4, 1e-2, 4), "gamma": np.full(4, 0.99)}
    return population(make_program, values, mesh)


AGENTS = {
    "rate": Explore(1e-5, 1.0),
    "gamma": Explore(0.5, 0.999, scale="discount"),
}


@pytest.mark.slow
def test_without_an_exploit_it_is_the_population():
    members = cart_poles()
    alone, _ = jax.jit(scanned(members.program, 20))(
        members.program.init(random.key(0))
    )
    program = evolving(members.program, AGENTS, interval=5, exploit=truncation(0.0))
    run, _ = jax.jit(scanned(program, 20))(program.init(random.key(0)))
    both = members_of(run), alone
    data = [jax.tree.map(_data, x) for x in both]
    jax.tree.map(np.testing.assert_array_equal, *data)
    assert members.member(members_of(run), 2).hyperparameters["gamma"] > 0.98


def _data(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


@pytest.mark.slow
def test_members_copy_optimizers_and_keep_environments_and_keys():
    members = cart_poles()
    program = evolving(members.program, AGENTS, interval=1, exploit=truncation(0.25))
    step = jax.jit(scanned(program, 1))
    run, metrics = program.init(random.key(0)), {}
    copied = False
    while not copied:
        before = run
        run, metrics = step(run)
        copied = np.any(metrics["copied"])
    alone, _ = jax.jit(scanned(members.program, 1))(members_of(before))
    source = np.asarray(run.local.source)
    given = jax.tree.map(lambda x: x[source], alone.learner)
    jax.tree.map(np.testing.assert_array_equal, run.learner, given)
    data = [jax.tree.map(_data, x) for x in (members_of(run).local, alone.local)]
    jax.tree.map(np.testing.assert_array_equal, *data)
    np.testing.assert_array_equal(_data(run.key), _data(alone.key))


@pytest.mark.slow
def test_devices_share_the_members():
    def trained(mesh):
        program = evolving(cart_poles(mesh).program, AGENTS, interval=5)
        start = jax.jit(program.init)(random.key(0))
        return jax.jit(scanned(program, 20))(start)

    (alone, before), (shared, metrics) = trained(None), trained(data_mesh(2))
    # Not in bits: batches of other sizes are multiplied.
    assert_near(shared.learner.params, alone.learner.params, 1e-4)
    np.testing.assert_array_equal(metrics["copied"], before["copied"])
    np.testing.assert_array_equal(metrics["ancestor"], before["ancestor"])
    assert np.any(metrics["copied"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"interval": 0}, "interval must be at least 1, got 0"),
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"explore": {"rate": Explore(2.0, 1.0)}}, r"explore\['rate'\]: low must be"),
        ({"explore": {"rates": Explore(0.1, 1.0)}}, "'rates'; did you mean 'rate'"),
        ({"score": "scores"}, "'scores'; did you mean 'score'"),
    ],
)
def test_what_is_wrong_is_refused(given, told):
    usual = {"explore": {}} | RANKED
    with pytest.raises(RefusedError, match=told):
        program = evolving(population(ranked, RATES).program, **(usual | given))
        program.step(program.init(random.key(0)))


def test_a_single_run_is_no_population():
    program = evolving(toy({"h0": 1.0, "h1": 1.0}), {}, interval=1)
    with pytest.raises(RefusedError, match="must be that of a population"):
        program.init(random.key(0))


def turns_of(workers):
    return Schedule(np.array(workers, np.int32), np.zeros(len(workers), np.int32))


def at_own_pace(workers, exploit=None, **options):
    """The run after all turns, and metrics of each."""
    members = population(ranked, RATES)
    exploit = exploit or truncation(0.25)
    program = evolving(
        members.program,
        {},
        exploit=exploit,
        schedule=turns_of(workers),
        **RANKED | options,
    )
    run = jax.jit(program.init)(random.key(0))
    return jax.jit(scanned(program, len(workers)))(run), program


def test_at_its_own_pace_a_member_takes_its_own_steps():
    workers = [0, 0, 1, 2, 0, 3, 3, 0]
    (run, metrics), _ = at_own_pace(workers, exploit=lambda key, record: OWN)
    members = members_of(run)
    np.testing.assert_array_equal(members.progress.updates.units, [4, 1, 1, 2])
    np.testing.assert_array_equal(run.progress.updates.units, [8] * 4)
    assert_near(members.learner, RATES["rate"] * np.array([4, 1, 1, 2]), 1e-6)
    score, count = metrics["score"]
    np.testing.assert_array_equal(np.argmax(count, axis=1), workers)
    np.testing.assert_array_equal(count.sum(axis=1), np.ones(8))
    assert_near(score[:, 0].sum(), 1.0 + 2.0 + 3.0 + 4.0, 1e-6)


def test_at_its_own_pace_a_member_copies_the_newest_of_others():
    # Member 1 is the worst, and due at its third step, when member 0 has taken five.
    workers = [0, 1, 2, 0, 3, 1, 0, 0, 0, 1, 1]
    (run, metrics), _ = at_own_pace(workers)
    copied = np.asarray(metrics["copied"])
    assert copied.sum() == 1.0 and copied[9, 1] == 1.0
    members = members_of(run)
    # What it took over, and a step of its own with the rate that it took over.
    assert float(members.learner[1]) == 5.0 * 1.0 + 1.0
    np.testing.assert_array_equal(run.settings["seed"], np.arange(4))
    np.testing.assert_array_equal(members.progress.updates.units, [5, 4, 1, 1])


def test_at_its_own_pace_each_member_is_one_of_the_population():
    workers = [2, 0, 1, 3, 3, 1, 0, 2]
    (run, _), program = at_own_pace(workers, exploit=lambda key, record: OWN)
    together = population(ranked, RATES).program
    both, _ = jax.jit(scanned(together, 2))(together.init(random.key(0)))
    np.testing.assert_array_equal(members_of(run).learner, both.learner)
    half, _ = jax.jit(scanned(program, 3))(jax.jit(program.init)(random.key(0)))
    resumed, _ = jax.jit(scanned(program, 5))(half)
    np.testing.assert_array_equal(resumed.learner, run.learner)
    np.testing.assert_array_equal(resumed.local.alone.turn, run.local.alone.turn)


def test_a_schedule_of_others_is_refused():
    with pytest.raises(RefusedError, match="workers must be in 0"):
        at_own_pace([0, 4])
