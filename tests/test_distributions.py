"""Distributions against their definitions, by sums, integrals and samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl_par.distributions import Categorical, DiagNormal, SquashedNormal

NUM_SAMPLES = 100_000
LOW, HIGH = np.array([-2.0, 0.5]), np.array([2.0, 3.5])


def categorical(batch=(), num_actions=5, seed=0):
    return Categorical(
        2.0 * jax.random.normal(jax.random.key(seed), (*batch, num_actions))
    )


def normal(batch=(), num_actions=2, seed=0):
    means, log_stds = 0.5 * jax.random.normal(
        jax.random.key(seed), (2, *batch, num_actions)
    )
    return DiagNormal(means, log_stds - 0.7)


def squashed(batch=(), num_actions=2, seed=0):
    mean, log_std = normal(batch, num_actions, seed)
    bounds = [jnp.resize(jnp.array(x, jnp.float32), mean.shape) for x in (LOW, HIGH)]
    low, high = bounds
    return SquashedNormal(mean, log_std, (low + high) / 2, (high - low) / 2)


KINDS = {"categorical": categorical, "normal": normal, "squashed": squashed}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def draw(distribution, num_samples=NUM_SAMPLES, seed=1):
    many = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (num_samples, *x.shape)), distribution
    )
    return jax.jit(type(many).sample)(many, jax.random.key(seed)), many


def cdf(distribution, action):
    """Of one squashed action dimension, in float64."""
    mean, log_std, centre, half_width = (np.float64(x) for x in distribution)
    x = np.arctanh((np.float64(action) - centre) / half_width)
    return scipy.stats.norm.cdf((x - mean) / np.exp(log_std))


# Probabilities


def test_categorical_probabilities_are_a_softmax():
    policy = categorical((3,))
    expected = jax.nn.softmax(policy.logits)
    actual = [jnp.exp(policy.log_prob(jnp.full(3, a))) for a in range(5)]
    np.testing.assert_allclose(jnp.stack(actual, -1), expected, rtol=1e-5)
    np.testing.assert_allclose(sum(actual), np.ones(3), rtol=1e-5)


def test_normal_log_prob_is_that_of_scipy_and_integrates_to_one():
    policy = normal()
    axes = [np.linspace(-6, 6, 601)] * 2
    grid = jnp.stack(jnp.meshgrid(*axes), axis=-1).astype(jnp.float32)
    log_probs = policy.log_prob(grid)
    expected = scipy.stats.norm.logpdf(grid, policy.mean, np.exp(policy.log_std)).sum(
        -1
    )
    np.testing.assert_allclose(log_probs, expected, rtol=1e-4, atol=1e-4)
    assert np.exp(log_probs).sum() * 0.02**2 == pytest.approx(1.0, abs=1e-3)


def test_squashed_density_is_the_derivative_of_its_cdf_and_integrates_to_one():
    policy = squashed(num_actions=1)
    span = HIGH[0] - LOW[0]
    actions = LOW[0] + span * (np.arange(20_000) + 0.5) / 20_000
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (20_000, 1)), policy)
    density = np.exp(many.log_prob(jnp.array(actions, jnp.float32)[:, None]))
    width = 1e-6
    numerical = cdf(policy, actions + width) - cdf(policy, actions - width)
    np.testing.assert_allclose(density, numerical / (2 * width), rtol=5e-3, atol=1e-4)
    assert density.sum() * span / 20_000 == pytest.approx(1.0, abs=1e-3)


def test_squashed_dimensions_are_independent():
    policy = squashed((4,))
    action = policy.sample(jax.random.key(0))
    parts = [
        jax.tree.map(lambda x, i=i: x[:, i : i + 1], policy).log_prob(
            action[:, i : i + 1]
        )
        for i in range(2)
    ]
    np.testing.assert_allclose(policy.log_prob(action), sum(parts), rtol=1e-5)


# Samples


def test_categorical_samples_have_the_right_frequencies():
    policy = categorical(num_actions=6)
    actions, _ = draw(policy)
    counts = np.bincount(actions, minlength=6)
    expected = NUM_SAMPLES * np.asarray(jax.nn.softmax(policy.logits), np.float64)
    expected *= counts.sum() / expected.sum()
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.sample(1)
@pytest.mark.parametrize("impossible", [0, 8, 17])
def test_an_impossible_action_is_never_drawn(impossible):
    """Not even the last, where probabilities of the others round to less than 1."""
    logits = 2.0 * jax.random.normal(jax.random.key(0), (18,))
    logits = logits.at[impossible].set(-1e9)
    actions, _ = draw(Categorical(logits), 1000)
    assert impossible not in actions

    # The largest number that jax.random.uniform gives, for many policies.
    logits = 2.0 * jax.random.normal(jax.random.key(1), (100_000, 18))
    policies = Categorical(logits.at[:, impossible].set(-1e9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            jax.random, "uniform", lambda _, shape: jnp.full(shape, 1 - 2.0**-23)
        )
        assert impossible not in policies.sample(jax.random.key(0))


def test_normal_samples_follow_their_distribution():
    policy = normal()
    actions, _ = draw(policy)
    for action, mean, log_std in zip(
        np.asarray(actions.T, np.float64), policy.mean, policy.log_std, strict=True
    ):
        standard = (action - float(mean)) / np.exp(float(log_std))
        assert scipy.stats.kstest(standard, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(actions.T)[0, 1]) < 4 / NUM_SAMPLES**0.5


def test_squashed_samples_follow_their_distribution():
    policy = squashed()
    actions, _ = draw(policy)
    for i, action in enumerate(np.asarray(actions.T)):
        part = jax.tree.map(lambda x, i=i: x[i], policy)
        assert scipy.stats.kstest(cdf(part, action), "uniform").pvalue > 1e-3


@pytest.mark.sample(1)
@every_kind
def test_the_mode_is_the_likeliest_or_the_median(make):
    policy = make((7,))
    if make is not squashed:
        best = policy.log_prob(policy.mode())
        for seed in range(20):
            assert np.all(policy.log_prob(policy.sample(jax.random.key(seed))) <= best)
        return
    actions, _ = draw(policy, 10_000)
    below = np.mean(actions < policy.mode(), axis=0)
    np.testing.assert_allclose(below, 0.5, atol=4 * 0.5 / 100)


# Entropy and divergence


@pytest.mark.parametrize("make", [categorical, normal])
def test_entropy_is_the_mean_of_minus_log_prob(make):
    policy = make()
    actions, many = draw(policy)
    log_probs = np.asarray(many.log_prob(actions))
    error = 4 * float(log_probs.std()) / NUM_SAMPLES**0.5
    assert -log_probs.mean() == pytest.approx(float(policy.entropy()), abs=error)


def test_squashed_entropy_is_exact_for_small_deviations():
    policy = squashed()._replace(log_std=jnp.full(2, -5.0))
    actions, many = draw(policy)
    log_probs = np.asarray(many.log_prob(actions))
    assert -log_probs.mean() == pytest.approx(float(policy.entropy()), abs=0.02)


def entropy_by_quadrature(mean, std):
    """That of one dimension on (-1, 1), in float64."""
    z = np.linspace(-12.0, 12.0, 48_001)
    x = mean + std * z
    log_slopes = np.log(4.0) - 2.0 * np.logaddexp(x, -x)
    weights = scipy.stats.norm.pdf(z) * (z[1] - z[0])
    return 0.5 * np.log(2 * np.pi * np.e) + np.log(std) + np.sum(weights * log_slopes)


def test_squashed_entropy_and_its_slopes_are_those_of_quadrature():
    means, stds = (0.0, 0.3, -2.0, 8.0, 50.0), (0.05, 0.2, 1.0, 2.0, 5.0, 20.0)
    mean, std = (x.ravel() for x in np.meshgrid(means, stds))
    policy = SquashedNormal(
        *(jnp.asarray(x, jnp.float32)[:, None] for x in (mean, np.log(std))),
        jnp.zeros((30, 1)), jnp.ones((30, 1)),
    )  # fmt: skip

    def change(*step):
        up, down = (
            [entropy_by_quadrature(m + d * step[0], s * np.exp(d * step[1]))
             for m, s in zip(mean, std, strict=True)]
            for d in (1e-4, -1e-4)
        )  # fmt: skip
        return (np.array(up) - down) / 2e-4

    exact = list(map(entropy_by_quadrature, mean, std))
    slopes = jax.grad(lambda policy: policy.entropy().sum())(policy)
    np.testing.assert_allclose(policy.entropy(), exact, atol=2e-4, rtol=1e-5)
    np.testing.assert_allclose(slopes.mean[:, 0], change(1, 0), atol=1e-4)
    np.testing.assert_allclose(slopes.log_std[:, 0], change(0, 1), atol=1e-4)


@pytest.mark.parametrize(
    ("std", "entropy", "slope"),
    [(1, 0.670, -0.21), (2, -0.001, -1.92), (5, -3.69, -6.85)],
)
def test_squashed_entropy_has_these_values(std, entropy, slope):
    """No density on (-1, 1) exceeds log 2; wide normals pile up at both bounds."""
    leaves = jnp.zeros(1), jnp.log(jnp.full(1, float(std))), jnp.zeros(1), jnp.ones(1)
    policy = SquashedNormal(*leaves)
    slopes = jax.grad(SquashedNormal.entropy)(policy)
    assert float(policy.entropy()) == pytest.approx(entropy, abs=0.005)
    assert float(slopes.log_std[0]) == pytest.approx(slope, abs=0.005)


def test_squashed_entropy_adds_up_over_dimensions_and_scales_with_the_bounds():
    policy = squashed((4,))
    unit = policy._replace(half_width=jnp.ones((4, 2)))
    widths = np.log(policy.half_width).sum(-1)
    np.testing.assert_allclose(policy.entropy(), unit.entropy() + widths, rtol=1e-5)
    parts = [jax.tree.map(lambda x, i=i: x[:, i : i + 1], policy) for i in range(2)]
    sums = sum(part.entropy() for part in parts)
    np.testing.assert_allclose(policy.entropy(), sums, rtol=1e-5)


@pytest.mark.sample(1)
@every_kind
def test_half_precision_leaves_are_computed_with_in_float32(make):
    half = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16), (make((9,)), make((9,), seed=1))
    )
    same = jax.tree.map(lambda x: x.astype(jnp.float32), half)

    def numbers(policy, other):
        action, log_prob = policy.sample_and_log_prob(jax.random.key(0))
        return log_prob, policy.log_prob(action), policy.entropy(), policy.kl(other)

    jax.tree.map(np.testing.assert_array_equal, numbers(*half), numbers(*same))


@every_kind
def test_kl_is_the_mean_log_ratio_and_zero_to_itself(make):
    policy, other = make(), make(seed=1)
    actions, many = draw(policy)
    there = jax.tree.map(lambda x: jnp.broadcast_to(x, (NUM_SAMPLES, *x.shape)), other)
    log_ratios = np.asarray(many.log_prob(actions) - there.log_prob(actions))
    error = 4 * float(log_ratios.std()) / NUM_SAMPLES**0.5
    assert log_ratios.mean() == pytest.approx(float(policy.kl(other)), abs=error)
    assert float(policy.kl(policy)) == pytest.approx(0.0, abs=1e-6)
    assert float(policy.kl(other)) > 10 * error


def test_categorical_kl_follows_its_definition():
    policy, other = categorical((8,)), categorical((8,), seed=1)
    p, q = (np.asarray(jax.nn.softmax(x.logits), np.float64) for x in (policy, other))
    expected = (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(policy.kl(other), expected, rtol=1e-4)


def test_normal_kl_of_a_moved_mean_is_a_quadratic_form():
    policy = normal((8,))
    distance = jnp.linspace(-1.0, 1.0, 16).reshape(8, 2)
    moved = policy._replace(mean=policy.mean + distance)
    expected = 0.5 * np.sum(np.square(distance) * np.exp(-2 * policy.log_std), -1)
    np.testing.assert_allclose(policy.kl(moved), expected, rtol=1e-4)


def test_kl_gradient_is_student_minus_teacher():
    """Rusu et al. (2015): d KL(teacher || student) / d logits; target at 0.01."""
    teacher = Categorical(jnp.array([1.00, 1.01]) / 0.01)
    target = [0.268941, 0.731059]
    np.testing.assert_allclose(jax.nn.softmax(teacher.logits), target, atol=1e-5)
    logits = jnp.array([0.3, -0.2])
    gradient = jax.grad(lambda logits: teacher.kl(Categorical(logits)))(logits)
    np.testing.assert_allclose(
        gradient, jax.nn.softmax(logits) - np.array(target), atol=1e-5
    )


# Impossible actions

NEVER = -jnp.inf


def test_an_impossible_action_adds_nothing_to_entropy_and_divergence():
    policy = Categorical(jnp.array([0.3, -0.2, NEVER]))
    assert float(policy.entropy()) == pytest.approx(0.6628, abs=1e-4)
    slope = jax.grad(Categorical.entropy)(policy).logits
    np.testing.assert_allclose(slope, [-0.1175, 0.1175, 0.0], atol=1e-4)
    assert float(policy.kl(policy)) == 0.0
    np.testing.assert_allclose(jax.grad(Categorical.kl)(policy, policy).logits, 0.0)

    other = Categorical(jnp.array([0.0, NEVER, jnp.log(3.0)]))
    uniform = Categorical(jnp.array([0.0, NEVER, 0.0]))
    assert float(other.entropy()) == pytest.approx(0.562335, abs=1e-6)
    assert float(uniform.kl(other)) == pytest.approx(0.143841, abs=1e-6)
    slope = jax.grad(lambda other: uniform.kl(other))(other).logits
    np.testing.assert_allclose(slope, [-0.25, 0.0, 0.25], atol=1e-6)


def test_what_only_the_other_makes_impossible_is_infinitely_far():
    policy = Categorical(jnp.zeros(3))
    assert float(policy.kl(Categorical(jnp.array([0.0, NEVER, 0.0])))) == np.inf
    rare = Categorical(jnp.array([0.0, -1e4, 0.0]))
    assert float(rare.kl(Categorical(jnp.array([0.0, NEVER, 0.0])))) == 0.0


def test_where_nothing_is_possible_numbers_are_finite():
    """The final observation of a game; a NaN of the network stays one."""

    def total(logits, action):
        policy = Categorical(logits)
        far = policy.kl(Categorical(jnp.full_like(logits, NEVER)))
        return policy.log_prob(action) + policy.entropy() + far

    value, slope = jax.value_and_grad(total)(jnp.full(3, NEVER), jnp.int32(1))
    assert float(value) == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_array_equal(slope, np.zeros(3))
    assert np.isnan(total(jnp.array([0.0, jnp.nan, 0.0]), jnp.int32(0)))


@pytest.mark.parametrize("num_actions", [4, 1000])
def test_what_is_impossible_is_never_drawn(num_actions):
    """Few actions are drawn in another way than many."""
    possible = [1, num_actions - 2]
    logits = jnp.full(num_actions, NEVER).at[jnp.array(possible)].set(0.0)
    actions, _ = draw(Categorical(logits), 2000)
    counts = np.bincount(actions, minlength=num_actions)
    assert counts[possible].sum() == 2000 and counts[possible].min() > 850


def test_many_actions_make_no_longer_program():
    def program(num_actions):
        policy = Categorical(jnp.zeros((4, num_actions)))
        return jax.jit(policy.sample).lower(jax.random.key(0)).as_text()

    assert len(program(4672)) < 1.5 * len(program(100))


# Policy gradients


def test_bandit_policy_gradient_is_exact():
    """Two arms that pay 1 and 0, with any constant baseline: [1/4, -1/4]."""

    def expected_gain(logits, baseline):
        policy, arms = Categorical(jnp.stack([logits, logits])), jnp.arange(2)
        weights = jax.lax.stop_gradient(jnp.exp(policy.log_prob(arms)))
        return jnp.sum(weights * policy.log_prob(arms) * (1.0 - arms - baseline))

    for baseline in (0.0, 0.5, -3.0):
        gradient = jax.grad(expected_gain)(jnp.zeros(2), baseline)
        np.testing.assert_allclose(gradient, [0.25, -0.25], atol=1e-6)


@pytest.mark.sample(1)
@every_kind
def test_scores_have_mean_zero(make):
    policy = make()
    actions, _ = draw(policy)
    score = jax.vmap(jax.grad(lambda p, action: p.log_prob(action)), (None, 0))
    scores = score(policy, actions)
    num_learned = 1 if make is categorical else 2
    for leaf in jax.tree.leaves(scores)[:num_learned]:
        error = 4 * np.std(leaf, axis=0) / NUM_SAMPLES**0.5
        assert np.all(np.abs(np.mean(leaf, axis=0)) < error)


# Extremes


@pytest.mark.sample(2)
@pytest.mark.parametrize("mean", [-1e4, -50.0, 0.0, 50.0, 1e4])
@pytest.mark.parametrize("log_std", [-5.0, 0.0, 2.0])
def test_squashed_stays_finite_and_within_its_bounds(mean, log_std):
    policy = squashed()
    policy = policy._replace(mean=jnp.full(2, mean), log_std=jnp.full(2, log_std))
    low, high = policy.centre - policy.half_width, policy.centre + policy.half_width
    sampled, _ = draw(policy, 1000)
    assert np.all((sampled >= low) & (sampled <= high))
    for action in (low, high, policy.mode(), sampled[0]):
        value, gradient = jax.value_and_grad(
            lambda policy, action=action: policy.log_prob(action) + policy.entropy()
        )(policy)
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((value, gradient)))


def test_squashed_likelihood_of_its_own_actions_survives_float32():
    """Actions near a bound, where 1 - tanh(x)**2 has lost all digits."""
    x = jnp.linspace(-6.0, 6.0, 25)[:, None]
    policy = SquashedNormal(x, jnp.zeros_like(x), jnp.zeros_like(x), jnp.ones_like(x))
    exact = np.float64(x)
    expected = -0.5 * np.log(2 * np.pi) + 2 * np.log(np.cosh(exact))
    np.testing.assert_allclose(
        policy.log_prob(policy.mode()), expected[:, 0], atol=0.02
    )


@pytest.mark.sample(1)
@pytest.mark.parametrize("logits", [[1e9, 0.0, -1e9], [-80.0, 0.0, 80.0], [0.0] * 3])
def test_categorical_gradients_are_finite(logits):
    def total(logits, action):
        policy = Categorical(logits)
        other = Categorical(jnp.roll(logits, 1) / 2)
        return policy.log_prob(action) + policy.entropy() + policy.kl(other)

    for action in range(3):
        gradient = jax.grad(total)(jnp.array(logits), jnp.int32(action))
        assert np.all(np.isfinite(gradient))


def test_the_density_of_a_fresh_sample_is_exact_at_a_bound(monkeypatch):
    """It is that of the value before squashing; computed back, it would be -13.8."""
    zero = lambda key, shape, dtype: jnp.zeros(shape, dtype)  # noqa: E731
    monkeypatch.setattr(jax.random, "normal", zero)

    def log_prob(mean):
        log_std = jnp.log(jnp.full(1, 0.1))
        policy = SquashedNormal(mean, log_std, jnp.zeros(1), jnp.ones(1))
        return policy.sample_and_log_prob(jax.random.key(0))[1]

    value, slope = jax.value_and_grad(log_prob)(jnp.full(1, 8.0))
    assert float(value) == pytest.approx(15.99735, abs=1e-4)
    assert float(slope[0]) == pytest.approx(2.0, abs=1e-4)


def test_a_stored_action_is_inverted_as_exactly_as_its_digits_allow():
    x = np.linspace(-7.0, 7.0, 57)
    policy = SquashedNormal(*jnp.zeros((3, 1)), jnp.ones(1))

    def stored(x):
        mean = jnp.full(1, x, jnp.float32)
        return policy.log_prob(policy._replace(mean=mean).mode())

    exact = scipy.stats.norm.logpdf(x) + 2 * np.log(np.cosh(x))
    allowed = 1e-4 + 3e-8 * np.exp(2 * np.abs(x)) * (np.abs(x) + 2)
    assert np.all(np.abs(jax.vmap(stored)(x) - exact) < allowed)


def test_a_sample_with_its_density_is_the_sample_and_its_density():
    policy, key = squashed((50,)), jax.random.key(3)
    action, log_prob = policy.sample_and_log_prob(key)
    np.testing.assert_array_equal(action, policy.sample(key))
    np.testing.assert_allclose(log_prob, policy.log_prob(action), rtol=1e-3, atol=1e-3)


# Shapes


@pytest.mark.sample(1)
@every_kind
def test_every_method_has_the_batch_shape_and_works_compiled_and_mapped(make):
    policy, other = make((3, 4)), make((3, 4), seed=1)

    def everything(policy, other, key):
        action = policy.sample(key)
        numbers = (policy.log_prob(action), policy.entropy(), policy.kl(other))
        return action, policy.mode(), numbers

    action, mode, numbers = everything(policy, other, jax.random.key(0))
    shape = (3, 4) if make is categorical else (3, 4, 2)
    assert action.shape == mode.shape == shape and action.dtype == mode.dtype
    assert all(x.shape == (3, 4) and x.dtype == jnp.float32 for x in numbers)

    compiled = jax.jit(everything)(policy, other, jax.random.key(0))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
        compiled,
        (action, mode, numbers),
    )
    keys = jax.random.split(jax.random.key(0), 3)
    mapped = jax.vmap(everything)(policy, other, keys)
    row = everything(*jax.tree.map(lambda x: x[1], (policy, other, keys)))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x[1], y, rtol=1e-5, atol=1e-5),
        mapped,
        row,
    )


@pytest.mark.slow
@every_kind
def test_a_distribution_can_be_sliced_and_returned(make):
    policy = make((5, 3))
    head = jax.jit(lambda policy: jax.tree.map(lambda x: x[:-1], policy))(policy)
    assert type(head) is type(policy)
    action = policy.sample(jax.random.key(0))
    np.testing.assert_allclose(
        head.log_prob(action[:-1]), policy.log_prob(action)[:-1], rtol=1e-6
    )
    np.testing.assert_allclose(head.entropy(), policy.entropy()[:-1], rtol=1e-6)


def test_a_mode_has_the_dtype_of_a_sample():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), normal((2,)))
    assert half.mode().dtype == half.sample(jax.random.key(0)).dtype == jnp.float32


@pytest.mark.parametrize(("one", "other"), [(normal, squashed), (squashed, normal)])
def test_policies_of_two_kinds_have_no_kl(one, other):
    with pytest.raises(ValueError, match="policies of one kind have a KL, and not"):
        one().kl(other())


@pytest.mark.parametrize("action", [-1, 3, 2**31 - 1])
def test_an_action_that_does_not_exist_has_no_probability(action):
    """0 would be that of a certain one. Nothing of it reaches a gradient."""
    logits = jnp.array([[0.3, -0.2, 1.0], [0.0, 1.0, 2.0]])

    def log_probs(logits):
        return Categorical(logits).log_prob(jnp.array([action, 2]))

    found = log_probs(logits)
    assert found[0] == -jnp.inf
    np.testing.assert_allclose(found[1], jax.nn.log_softmax(logits[1])[2], rtol=1e-6)
    slope = jax.grad(lambda x: jnp.where(jnp.array([0, 1]) == 1, log_probs(x), 0).sum())
    assert np.all(np.isfinite(slope(logits))) and not np.any(slope(logits)[0])
