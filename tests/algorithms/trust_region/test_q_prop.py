"""Q-Prop against a value that is known: rewards are a parabola in the action.

    Q(a) = -k (a - c)^2,   a = mu + s z,   V = -k ((mu - c)^2 + s^2)
    dJ/dmu = -2 k (mu - c),   dJ/dlog s = -2 k s^2

A control variate with lambda times the right slope, weighed by eta, leaves of one
sample's estimate of dJ/dmu the variance

    8 k^2 (mu - c)^2 (1 - eta lambda)^2 + 10 k^2 s^2
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par.algorithms.trust_region import QPropConfig, q_prop
from jaxrl_par.algorithms.trust_region.agent import gain
from jaxrl_par.algorithms.trust_region.q_prop import make_batch
from jaxrl_par.axis import Axis
from jaxrl_par.distributions import DiagNormal, SquashedNormal
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import Network, NetworkConfig, actor_critic, policy_network
from jaxrl_par.testing import probes
from jaxrl_par.types import TimeStep, Trajectory

K, C, MU, S, NUMBER = 1.0, 0.0, 1.0, 0.5, 100_000
SLOPE = -2 * K * (MU - C)
V = -K * ((MU - C) ** 2 + S**2)
RIGHT = np.array([SLOPE, -2 * K * S**2])
PARAMS = {"actor": jnp.array([MU, jnp.log(S)]), "critic": jnp.float32(V)}


def network(outputs):
    def unroll(params, carry, steps):
        return outputs(params, jnp.zeros(steps.first.shape)), carry

    return Network(lambda key, step: (), lambda n: (), unroll, unroll)


def normal(params, zeros):
    return DiagNormal(zeros[..., None] + params[0], zeros[..., None] + params[1]), ()


ACTOR = network(normal)
CRITIC = network(lambda params, zeros: ((), zeros + params))


@cache
def played(ratio):
    """Episodes of one step, whose critic has so many times the right slope."""
    z = np.random.default_rng(0).normal(size=(1, NUMBER, 1)).astype(np.float32)
    action, flags = jnp.asarray(MU + S * z), jnp.zeros((2, NUMBER), bool)
    steps = TimeStep(jnp.zeros((2, NUMBER, 1)), flags, flags)
    policy, _ = normal(PARAMS["actor"], jnp.zeros((1, NUMBER)))
    extras = {"log_prob": policy.log_prob(action), "slope": 0 * action + ratio * SLOPE}
    reward = -K * jnp.square(action[..., 0] - C)
    return Trajectory(steps, action, reward, jnp.zeros((1, NUMBER)), extras, ()), z


def estimates(ratio, normalize=False, **settings):
    """Of each row, [N, 2], after the slope of the gain was seen to be their mean."""
    trajectory, z = played(ratio)
    config = QPropConfig(normalize_advantages=normalize, **settings)
    batch = make_batch(PARAMS, trajectory, Axis(), ACTOR, CRITIC, config)
    z = np.float64(z[0, :, 0])
    scores = np.stack([z / S, z**2 - 1], axis=1)
    advantage, control = (
        np.float64(batch.extras[x][0]) for x in ("advantage", "control")
    )
    rows = advantage[:, None] * scores + control * np.array([1.0, 0.0])

    def of(params):
        return gain(batch, normal(params, jnp.zeros((1, NUMBER)))[0])

    slope = jax.grad(of)(PARAMS["actor"])
    np.testing.assert_allclose(slope, rows.mean(0), atol=2e-3)
    return rows, batch.extras


def deviations(rows, right=RIGHT):
    """By how many standard errors the mean is off."""
    return np.abs(rows.mean(0) - right) / (rows.std(0) / np.sqrt(NUMBER))


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("ratio", "settings", "eta"),
    [
        (0.0, {"variant": "one"}, 1.0),
        (1.0, {"variant": "one"}, 1.0),
        (3.0, {"variant": "one"}, 1.0),
        (3.0, {"variant": "adaptive"}, 1 / 3),
        (-1.0, {"variant": "adaptive"}, -1.0),
        (1.0, {"variant": "conservative"}, 1.0),
        (-1.0, {"variant": "conservative"}, 0.0),
        (-1.0, {"variant": "aggressive"}, -1.0),
    ],
)
def test_estimates_are_unbiased_and_of_the_variance_that_is_known(ratio, settings, eta):
    rows, extras = estimates(ratio, **settings)
    assert np.all(deviations(rows) < 4)
    assert float(extras["told"]["eta"][0, 0]) == pytest.approx(eta, abs=0.01)
    left = 8 * (MU - C) ** 2 * (1 - eta * ratio) ** 2 + 10 * S**2
    assert rows[:, 0].var() == pytest.approx(K**2 * left, rel=0.05)


@pytest.mark.parametrize(
    ("variant", "weight"), [("conservative", np.heaviside), ("aggressive", None)]
)
def test_an_eta_of_a_rows_own_sample_biases_by_what_an_integral_says(variant, weight):
    """Over z, in float64."""
    z = np.linspace(-12, 12, 2_000_001)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    advantage = -K * ((MU + S * z - C) ** 2) - V
    control = SLOPE * S * z
    product = advantage * control
    eta = np.sign(product) if weight is None else weight(product, 0.0)
    mean = np.sum(density * ((advantage - eta * control) * z / S + eta * SLOPE))
    rows, _ = estimates(1.0, variant=variant, covariance="rows")
    assert deviations(rows)[0] > 10
    assert deviations(rows, np.array([mean, RIGHT[1]]))[0] < 4


def test_both_terms_are_normalised_alike():
    plain, _ = estimates(1.0, variant="one")
    rows, extras = estimates(1.0, variant="one", normalize=True)
    assert float(np.mean(extras["advantage"])) == pytest.approx(0, abs=1e-4)
    assert float(np.std(extras["advantage"])) == pytest.approx(1, rel=1e-3)
    found = rows.mean(0) / plain.mean(0)
    # The spread of -k s^2 (z^2 - 1) is sqrt(2) k s^2.
    np.testing.assert_allclose(found, 1 / (np.sqrt(2) * K * S**2), rtol=0.02)


def test_policies_of_other_kinds_are_refused():
    small, env = NetworkConfig(widths=(4,)), probes.counter(2)
    actor, critic = policy_network(*env.specs, small), actor_critic(*env.specs, small)
    with pytest.raises(RefusedError, match="must be real numbers, got Discrete"):
        q_prop(actor, critic, optax.sgd(0.1))

    def squashed(params, zeros):
        made, nothing = normal(params, zeros)
        ones = jnp.ones_like(made.mean)
        return SquashedNormal(*made, 0 * ones, ones), nothing

    given = PARAMS, played(1.0)[0], Axis(), network(squashed), CRITIC, QPropConfig()
    with pytest.raises(RefusedError, match="got SquashedNormal: take network"):
        make_batch(*given)
