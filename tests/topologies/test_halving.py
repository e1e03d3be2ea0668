"""Successive halving: who goes on, what the others cost, and across a stop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import loops, random
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import Program
from jaxrl_par.loops.rungs import HalvingConfig, Rung, member_steps, rungs
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.topologies.halving import halving, members_of
from jaxrl_par.topologies.population import population


def counting(values):
    """A member whose score is its own, and which counts its steps; by some `fall` it
    loses score with each."""
    falls = values.get("fall", 0.0)

    def init(key):
        return loops.new_run(jnp.float32(0), (), key)

    def step(run):
        progress = run.progress.counted(jnp.int32(1))
        run = run._replace(learner=run.learner + 1.0, progress=progress)
        return run, {"score": values["score"] - falls * run.learner}

    return Program(init, step)


def halved(scores, config, num_updates, steps=None):
    """The run after so many steps, and metrics."""
    members = population(counting, {"score": np.array(scores, np.float32)})
    found = rungs(len(scores), num_updates, config)
    program = halving(members.program, found, score="score", window=1)
    run = jax.jit(program.init)(random.key(0))
    return jax.jit(scanned(program, steps or num_updates))(run), program


@pytest.mark.parametrize(
    ("members", "eta", "updates", "number"),
    [(243, 3, 10**6, 5), (1000, 10, 10**6, 3), (9, 3, 9, 2), (2, 3, 100, 0)],
)
def test_rungs_are_counted_in_integers(members, eta, updates, number):
    found = rungs(members, updates, HalvingConfig(first=1, eta=eta))
    assert len(found) - 1 == number


def test_survivors_go_on_and_do_not_start_again():
    found = rungs(9, 9, HalvingConfig(first=1, eta=3))
    assert found == [Rung(0, 9), Rung(1, 3), Rung(3, 1)]
    assert member_steps(found, 9) == 21
    scores = [3.0, 1.0, 9.0, 2.0, 8.0, 4.0, 7.0, 5.0, 6.0]
    (run, metrics), _ = halved(scores, HalvingConfig(1, 3), 9)
    trained = members_of(run).learner
    np.testing.assert_array_equal(trained, [1, 1, 9, 1, 3, 1, 3, 1, 1])
    assert float(jnp.sum(trained)) == 21.0
    np.testing.assert_array_equal(metrics["num_trained"][:, 0], [9, 3, 3] + [1] * 6)
    seen, counts = metrics["score"]
    np.testing.assert_array_equal(seen[0], scores)
    np.testing.assert_array_equal(counts.sum(axis=1), [9, 3, 3] + [1] * 6)
    assert seen[-1, 2] == 9.0 and counts[-1, 2] == 1.0


def test_equal_scores_and_what_is_no_number():
    (run, metrics), _ = halved([5.0, 5.0, 5.0, 1.0], HalvingConfig(1, 2), 2)
    np.testing.assert_array_equal(members_of(run).learner, [2, 2, 1, 1])
    (run, _), _ = halved([np.nan, -1e30, np.nan, -np.inf], HalvingConfig(1, 4), 3)
    assert int(np.argmax(members_of(run).learner)) == 1
    assert metrics["num_trained"].shape == (2, 4)


def test_who_is_frozen_stays_so():
    given = {"score": np.array([4.0, 9.0, 3.0, 8.0], "f4")}
    given |= {"fall": np.array([0.0, 3.0, 0.0, 2.0], "f4")}
    found = rungs(4, 8, HalvingConfig(1, 2))
    program = halving(
        population(counting, given).program, found, score="score", window=1
    )
    run, _ = jax.jit(scanned(program, 8))(program.init(random.key(0)))
    # At the second time both that are left are worse than those that are frozen.
    np.testing.assert_array_equal(members_of(run).learner, [1, 2, 1, 8])


@pytest.mark.slow
def test_a_stop_at_a_rung_changes_nothing():
    config, scores = HalvingConfig(2, 2), [3.0, 1.0, 4.0, 2.0]
    (whole, _), program = halved(scores, config, 8)
    half = jax.jit(scanned(program, 2))(jax.jit(program.init)(random.key(0)))[0]
    resumed = jax.jit(scanned(program, 6))(half)[0]
    for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def test_members_stay_themselves():
    scores = [3.0, 1.0, 4.0, 2.0]
    (run, _), _ = halved(scores, HalvingConfig(1, 2), 4)
    ordered = members_of(run)
    np.testing.assert_array_equal(ordered.settings["score"], scores)
    members = population(counting, {"score": np.array(scores, np.float32)})
    start = members.program.init(random.key(0))
    keys = [jax.random.key_data(x.key) for x in (start, ordered)]
    np.testing.assert_array_equal(*keys)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([], "begin at 0"),
        ([Rung(1, 4)], "begin at 0"),
        ([Rung(0, 4), Rung(0, 2)], "begin later with no more members"),
        ([Rung(0, 4), Rung(2, 5)], "begin later with no more members"),
        ([Rung(0, 5)], "all members"),
    ],
)
def test_what_is_wrong_is_refused(found, told):
    members = population(counting, {"score": np.zeros(4, np.float32)})
    with pytest.raises(RefusedError, match=told):
        halving(members.program, found, score="score").init(random.key(0))


def test_an_unknown_score_is_refused():
    members = population(counting, {"score": np.zeros(4, np.float32)})
    program = halving(members.program, [Rung(0, 4)], score="scores")
    with pytest.raises(RefusedError, match="'score'"):
        program.step(program.init(random.key(0)))


@pytest.mark.parametrize(
    ("config", "told"),
    [({"first": -1}, "first"), ({"eta": 1}, "eta"), ({"window": 0}, "window")],
)
def test_a_config_out_of_range_is_refused(config, told):
    with pytest.raises(ValueError, match=told):
        rungs(4, 10, HalvingConfig(**{"first": 1} | config))
