"""Perfect meta-learners: known numbers, and each other."""

from itertools import product

import numpy as np
import pytest

from jaxrl_par.testing import meta_learners


@pytest.mark.parametrize(("arms", "optimum"), [(5, 6.6600), (2, 6.0218)])
def test_the_bayes_optimum_of_ten_pulls(arms, optimum):
    assert abs(meta_learners.bayes_optimum(arms, 10) - optimum) < 5e-5


def test_the_bayes_optimum_of_two_pulls_by_hand():
    # Half of all first pulls pay; then the arm is worth 2/3, else the other one 1/2.
    expected = 0.5 + 0.5 * 2 / 3 + 0.5 * 1 / 2
    assert abs(meta_learners.bayes_optimum(2, 2) - expected) < 1e-12


def test_no_rule_of_three_pulls_beats_the_bayes_optimum():
    """All rules, each a table: first arm, then the next one by what was seen."""

    def value(first, second, third):
        total = 0.0
        grid = (np.arange(200) + 0.5) / 200
        p, q = np.meshgrid(grid, grid)
        chances = (p, q)
        for a, b, c in product((0, 1), repeat=3):
            arms = (first, second[a], third[2 * a + b])
            weight = np.ones_like(p)
            for arm, pays in zip(arms, (a, b, c), strict=True):
                weight = weight * (chances[arm] if pays else 1 - chances[arm])
            total += (a + b + c) * weight.mean()
        return total

    best = max(
        value(0, second, third)
        for second in product((0, 1), repeat=2)
        for third in product((0, 1), repeat=4)
    )
    assert abs(meta_learners.bayes_optimum(2, 3) - best) < 1e-4


def test_indices_are_what_one_would_rather_have_for_sure():
    index = meta_learners.gittins_indices(3)
    np.testing.assert_allclose(index[1, 0, 0], 1 / 2, atol=1e-3)
    np.testing.assert_allclose(index[1, 1, 0], 2 / 3, atol=1e-3)
    # 2 x = (1 + 2/3) / 2 + x / 2: after a pull that did not pay, one takes x.
    np.testing.assert_allclose(index[2, 0, 0], 5 / 9, atol=1e-3)


def test_indices_of_the_whole_range_order_arms_nearly_as_the_optimum():
    returns = meta_learners.gittins(5, 10, 40_000)
    error = returns.std() / 200
    assert 6.6600 - 0.02 - 3 * error < returns.mean() < 6.6600 + 3 * error


def test_gittins_earns_78_of_100_pulls():
    returns = meta_learners.gittins(5, 100, 4_000, grid=200)
    assert abs(returns.mean() - 78.5) < 3 * returns.std() / 4_000**0.5 + 0.1


def test_who_knows_the_task_of_one_step_takes_the_best_of_five_normals():
    returns = meta_learners.known_task(3, 5, 1, 2, 20_000)
    assert abs(returns.mean() - 2 * (1 + 1.16296)) < 3 * returns.std() / 20_000**0.5


def test_who_knows_the_task_of_two_steps_looks_ahead():
    """Against all policies, one by one."""
    rng = np.random.default_rng(0)
    transitions = rng.dirichlet(np.ones(2), (1, 2, 2))
    means = rng.normal(size=(1, 2, 2))
    (first, _), value = meta_learners._solved(transitions, means, 2)
    worth = [
        means[0, 0, a]
        + sum(transitions[0, 0, a, z] * means[0, z, b[z]] for z in (0, 1))
        for a in (0, 1)
        for b in product((0, 1), repeat=2)
    ]
    np.testing.assert_allclose(value[0, 0], max(worth))
    assert first[0, 0] == int(np.argmax(worth)) // 4


def test_posterior_sampling_begins_by_chance_and_ends_with_the_best():
    first = meta_learners.posterior_sampling(3, 2, 4, 1, 5_000)
    # It does not know the means, which are 1 on average, and looks as good as any.
    assert abs(first.mean() - 4) < 3 * first.std() / 5_000**0.5
    sizes = (3, 2, 4)
    short, long = (
        meta_learners.posterior_sampling(*sizes, n, 1_000, seed=1) for n in (40, 80)
    )
    late = (long.mean() - short.mean()) / 40
    best = meta_learners.known_task(*sizes, 1, 20_000).mean()
    assert best - 0.35 < late < best + 0.15
