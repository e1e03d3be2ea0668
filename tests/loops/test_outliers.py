"""Outlying losses: who is refused, against lists of all losses, and who is not."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_workers import TOY

from jaxrl_par.elapsed import Elapsed
from jaxrl_par.loops import Gradient, asynchronous, learner_of, outliers
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.loops.outliers import OutlierConfig
from jaxrl_par.types import Mean

REJECT = OutlierConfig("reject", num_deviations=3.0, warm_up=100)
EARLY = OutlierConfig("reject", num_deviations=3.0, warm_up=3)


def given_of(loss, accepted=True):
    return Gradient(jnp.ones(2), {"value_loss": loss}, jnp.int32(1), accepted)


@cache
def judging(config):
    """(statistics, losses [N], accepted [N]) -> (statistics, outlying [N], gradients
    [N, 2])"""

    def once(losses, inputs):
        losses, given = outliers.judged(losses, given_of(*inputs), config)
        return losses, (jnp.asarray(given.outlying), given.grads)

    return jax.jit(lambda *given: jax.lax.scan(once, given[0], given[1:]))


def judged(losses, config=REJECT, before=None, accepted=None):
    losses = jnp.asarray(losses, jnp.float32)
    accepted = jnp.ones(len(losses), bool) if accepted is None else accepted
    start = outliers.start(config) if before is None else before
    after, (outlying, grads) = judging(config)(start, losses, jnp.asarray(accepted))
    return after, np.asarray(outlying), np.asarray(grads)


def refused_by_lists(losses, config):
    """From all losses before, kept as they are, in float64."""
    seen, refused = [], []
    for loss in losses:
        warm = len(seen) >= config.warm_up
        bound = np.mean(seen) + config.num_deviations * np.std(seen) if seen else 0.0
        refused.append(bool(warm and loss > bound))
        seen.append(loss)
    return refused


def test_refused_losses_enter_so_that_a_new_level_is_accepted_after_12():
    losses = [0.9, 1.1] * 50 + [10.0] * 40
    before, outlying, _ = judged(losses[:100])
    np.testing.assert_allclose([before.mean, before.variance], [1.0, 0.01], rtol=1e-5)
    assert not outlying.any()
    after, outlying, grads = judged(losses[100:], before=before)
    assert outlying.tolist() == [True] * 12 + [False] * 28
    np.testing.assert_array_equal(grads, 1.0)
    assert after.count == 140
    np.testing.assert_allclose(after.mean, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(after.variance, np.var(losses), rtol=1e-5)


@pytest.mark.parametrize("warm_up", [1, 7])
@pytest.mark.parametrize("deviations", [0.5, 3.0])
def test_the_refused_are_those_told_by_lists_of_all_losses(warm_up, deviations):
    config = OutlierConfig("reject", deviations, warm_up)
    losses = np.random.default_rng(0).pareto(1.5, 300).astype(np.float32)
    _, outlying, _ = judged(losses, config)
    assert outlying.tolist() == refused_by_lists(losses.astype(float), config)
    assert 3 < outlying.sum() < 150


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("warm", [False, True])
def test_a_loss_that_is_not_finite_is_refused_always_and_never_enters(bad, warm):
    before, *_ = judged([1.0, 2.0, 3.0, 4.0] if warm else [], EARLY)
    after, outlying, grads = judged([bad] * 3, EARLY, before)
    np.testing.assert_array_equal(jax.tree.leaves(after), jax.tree.leaves(before))
    assert np.isnan(grads).all() and not outlying.any()
    _, given = outliers.judged(before, given_of(jnp.float32(bad)), EARLY)
    given = given._replace(metrics={})
    state = (jnp.zeros(2), Elapsed.zero())
    state, metrics = asynchronous.apply_stale(
        lambda now, grads, _: (now[0] + grads, now[1]),
        state, given, jnp.int32(0), StalenessConfig(),
    )  # fmt: skip
    assert not state[0].any() and metrics["skipped"] == 1
    # Counted once, as what it is.
    assert metrics["outlying"] == metrics["stale"] == metrics["rejected"] == 0


def test_a_loss_whose_square_is_not_finite_is_refused_and_spoils_nothing():
    before, *_ = judged([1.0, 2.0, 3.0, 4.0], EARLY)
    after, outlying, grads = judged([1e30, 2.0, 100.0], EARLY, before)
    assert outlying.tolist() == [True, False, True]
    assert after.count == 6 and np.isfinite(after.variance)
    assert np.isfinite(grads).all()
    # Nor as the first of all.
    first, outlying, _ = judged([1e30, 1.0], EARLY)
    assert first.count == 1 and first.mean == 1.0 and not outlying.any()


def test_what_comes_before_a_buffer_is_ready_is_not_judged():
    """Its loss is of no data."""
    accepted = [False, False, True, True, True, True]
    losses = [1e6, np.nan, 1.0, 1.0, 1.5, 50.0]
    after, outlying, grads = judged(losses, EARLY, accepted=accepted)
    assert outlying.tolist() == [False] * 5 + [True]
    assert after.count == 4 and np.isfinite(grads).all()


def test_a_mean_is_its_quotient_and_one_without_rows_is_no_loss():
    before, *_ = judged([1.0, 2.0, 3.0, 4.0], EARLY)
    for total, count, outlying in ((80.0, 4.0, True), (80.0, 40.0, False)):
        loss = Mean(jnp.float32(total), jnp.float32(count))
        after, given = outliers.judged(before, given_of(loss), EARLY)
        assert given.outlying == outlying and after.count == 5
    empty = Mean(jnp.float32(0), jnp.float32(0))
    after, given = outliers.judged(before, given_of(empty), EARLY)
    assert not given.outlying and after.count == 4 and np.all(given.grads == 1)


def test_reasons_are_told_apart():
    bound = StalenessConfig("reject", max_staleness=1)
    for staleness, outlying, ready in np.ndindex(2, 2, 2):
        given = Gradient(jnp.ones(2), {}, jnp.int32(0), bool(ready), bool(outlying))
        state, metrics = asynchronous.apply_stale(
            lambda now, grads, _: now + grads,
            jnp.zeros(2), given, jnp.int32(2 * staleness), bound,
        )  # fmt: skip
        assert metrics["stale"] == staleness and metrics["outlying"] == outlying
        assert metrics["rejected"] == bool(staleness or outlying or not ready)
        assert np.all(state == 1.0 - metrics["rejected"])


def test_accept_changes_nothing():
    learner = learner_of(TOY)
    assert outliers.rejecting(learner, OutlierConfig(), "workers") is learner
    given = given_of(jnp.float32(np.nan))
    assert outliers.judged((), given, OutlierConfig()) == ((), given)


def test_an_agent_without_such_a_loss_is_told():
    given = Gradient(jnp.ones(2), {"loss": jnp.float32(1)}, jnp.int32(1))
    with pytest.raises(ValueError, match=r"value_loss, and .* reports only loss"):
        outliers.judged(outliers.start(REJECT), given, REJECT)


def test_settings_out_of_range_are_named():
    assert OutlierConfig().problems() == REJECT.problems() == []
    wrong = OutlierConfig("reject", num_deviations=0.0, warm_up=0).problems()
    assert [x.split()[0] for x in wrong] == ["warm_up", "num_deviations"]
    (endless,) = OutlierConfig("reject", float("inf")).problems()
    assert endless == "num_deviations must be below inf, got inf"
