"""Local policies that guide a global one: from rollouts to better controllers.

For each initial state an iteration

    fits dynamics to the rollouts, with a mixture of all transitions as their prior,
    makes the cost quadratic around them,
    moves the controller within a trust region (`constrained`),
    says what it would do where the rollouts were, and how certain it is of it.

All is vmapped over initial states. Instances along an axis have some of these each and
share the mixtures.

Sources: Montgomery and Levine, arXiv:1607.04614 (mdgps); Levine et al.,
arXiv:1504.00702 (badmm); Yahya et al., arXiv:1610.00673, for what runs in parallel.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jaxrl_par.algorithms.gps import badmm, mixture
from jaxrl_par.algorithms.gps.badmm import Duals
from jaxrl_par.algorithms.gps.config import GPSConfig
from jaxrl_par.algorithms.gps.constrained import Constrained, constrained, growth
from jaxrl_par.algorithms.gps.divergence import divergences
from jaxrl_par.algorithms.gps.lqr import Dynamics, Quadratic, expected, moments
from jaxrl_par.algorithms.gps.matrices import definite, no_smaller
from jaxrl_par.algorithms.gps.mixture import Mixture
from jaxrl_par.algorithms.gps.quadratic import CostFn, around
from jaxrl_par.algorithms.gps.regression import fitted
from jaxrl_par.axis import Axis
from jaxrl_par.errors import refuse
from jaxrl_par.guidance import Controllers, Guide, Lessons, Rollouts
from jaxrl_par.measured import Metric
from jaxrl_par.types import Metrics

METRICS = {
    "kl_policy": Metric(
        "nats", "of the local controllers from the policy, whole episodes"
    ),
    "predicted_fall": Metric(
        "cost", "by which new controllers should be better, of an episode"
    ),
    "local_cost": Metric("cost", "of an episode with the controllers that acted"),
}

_START_VARIANCE = 1e-6
"""Of a first state, which is the same in all rollouts."""


class Local(NamedTuple):
    """J local policies."""

    controllers: Controllers
    dynamics: Mixture
    policy: Mixture
    """Of transitions, and of what the global policy does: the regressions' priors."""
    began: Bool[Array, ""]
    """Whether the mixtures have seen points."""
    step: Float[Array, " J"]
    """Bounds of the next divergences, in nats."""
    cost: Float[Array, " J"]
    """Of the last rollouts, means."""
    fall: Float[Array, " J"]
    """By which the cost should be lower now; NaN before the first step."""
    duals: Duals


def guided_policy_search(
    cost: CostFn,
    num_steps: int,
    state_size: int,
    num_actions: int,
    config: GPSConfig = GPSConfig(),
) -> Guide:
    """Local policies of either method.

    Args:
      cost: what an action costs; it is differentiated twice.
      num_steps: of an episode.

    Raises:
      RefusedError: the config is out of range, or a size is below 1.
    """
    sizes = {"state_size": state_size, "num_actions": num_actions}
    refuse(config, num_steps=num_steps, **sizes)

    def init(num_states: int) -> Local:
        return _begun((num_states, num_steps, num_actions), state_size, config)

    def improve(
        local: Local,
        scenes: PyTree,
        rollouts: Rollouts,
        means: Float[Array, "J N T A"],
        covariance: Float[Array, "A A"],
        axis: Axis,
    ) -> tuple[Local, Lessons, Metrics]:
        local, paid = _with_bounds(local, rollouts, config, num_steps)
        models = _models(local, rollouts, means, covariance, config, axis)
        local, dynamics, policy = models
        before = jnp.concatenate([rollouts.states[:, :, :-1], rollouts.actions], axis=3)
        quadratic = jax.vmap(lambda scene, z: around(cost, scene, z, state_size))
        known = quadratic(scenes, before), dynamics, policy
        local, moved, apart = _stepped(local, known, before, config)
        local = local._replace(cost=paid)
        lessons = _lessons(local, rollouts, config)
        done = axis.after(apart, (lessons.mean, local.policy.means))
        return local, lessons, _told(moved, done, local, axis)

    return Guide(init, lambda local: local.controllers, improve, config.on_policy)


def _begun(shape: tuple[int, int, int], state_size: int, config: GPSConfig) -> Local:
    """Local policies of [J, T, A] that do anything."""
    num_states, num_steps, num_actions = shape
    covariance = config.initial_std**2 * jnp.eye(num_actions)
    controllers = Controllers(
        jnp.zeros((*shape, state_size)),
        jnp.zeros(shape),
        jnp.broadcast_to(covariance, (*shape, num_actions)),
    )
    number, size = config.prior.num_clusters, state_size + num_actions
    bound = jnp.full(num_states, config.kl_step * num_steps, jnp.float32)
    unknown = jnp.full(num_states, jnp.nan, jnp.float32)
    mixtures = _unseen(number, size + state_size), _unseen(number, size)
    duals = badmm.start(shape, config.first_weight)
    return Local(
        controllers, *mixtures, jnp.bool_(False), bound, unknown, unknown, duals
    )


def _stepped(
    local: Local,
    known: tuple[Quadratic, Dynamics, Controllers],
    before: Float[Array, "J N T Z"],
    config: GPSConfig,
) -> tuple[Local, Constrained, Float[Array, "J T"]]:
    """After a step of all controllers: (local policies, what the steps were,
    divergences from the global policy).

    Args:
      known: costs, dynamics, and the global policy as controllers.
      before: states and actions of the rollouts.
    """
    quadratic, dynamics, policy = known
    size = policy.gain.shape[-1]
    start = jax.vmap(_start)(before[:, :, 0, :size])
    given = local.controllers, *known, start, local.step, local.duals
    moved = jax.vmap(lambda *xs: _moved(config, *xs))(*given)
    new = _uncertain(moved.controllers, config.smallest_std)
    acted = policy if config.on_policy else local.controllers
    fall = jax.vmap(_fall)(acted, new, quadratic, dynamics, start)
    apart = jax.vmap(_apart)(new, policy, dynamics, start)
    local = local._replace(controllers=new, fall=fall)
    if config.method == "badmm":
        duals = badmm.updated(local.duals, new, policy, before, apart, config)
        local = local._replace(duals=duals)
    return local, moved, apart


def _with_bounds(
    local: Local, rollouts: Rollouts, config: GPSConfig, num_steps: int
) -> tuple[Local, Float[Array, " J"]]:
    """Bounds after what the last step came to, and what the rollouts cost."""
    paid = jnp.mean(jnp.sum(rollouts.costs, axis=2), axis=1)
    grown = local.step * growth(local.fall, local.cost - paid)
    usual = config.kl_step * num_steps
    grown = jnp.clip(grown, config.smallest_step * usual, config.largest_step * usual)
    return local._replace(step=jnp.where(jnp.isfinite(grown), grown, local.step)), paid


def _models(
    local: Local,
    rollouts: Rollouts,
    means: Float[Array, "J N T A"],
    covariance: Float[Array, "A A"],
    config: GPSConfig,
    axis: Axis,
) -> tuple[Local, Dynamics, Controllers]:
    """Mixtures of all that was seen, dynamics, and the global policy as controllers."""
    states = rollouts.states[:, :, :-1]
    inputs = jnp.concatenate([states, rollouts.actions], axis=3)
    strength = config.prior.strength
    moved = jnp.concatenate([inputs, rollouts.states[:, :, 1:]], axis=3)
    chosen = jnp.concatenate([states, means], axis=3)
    transitions = _mixture(local.dynamics, local.began, moved, config, axis)
    done = transitions.means
    policies = _mixture(
        local.policy, local.began, axis.after(chosen, done), config, axis
    )

    def fit(prior: Mixture, points: Array, size: int):
        def one(points):
            at = mixture.prior_at(prior, points)
            return fitted(points[:, :size], points[:, size:], at, strength)

        return jax.vmap(jax.vmap(one, in_axes=1))(points)

    dynamics = Dynamics(*fit(transitions, moved, inputs.shape[3]))
    policy = fit(policies, chosen, states.shape[3])
    noise = policy.covariance + jnp.broadcast_to(covariance, policy.covariance.shape)
    local = local._replace(dynamics=transitions, policy=policies, began=jnp.bool_(True))
    return local, dynamics, Controllers(policy.matrix, policy.offset, noise)


def _mixture(
    old: Mixture, began: Array, points: Array, config: GPSConfig, axis: Axis
) -> Mixture:
    number, size = config.prior.num_clusters, points.shape[-1]
    over_time = points.reshape(-1, *points.shape[2:])
    first = mixture.spread_over_time(over_time, number, axis)
    now = jax.tree.map(lambda x, y: jnp.where(began, x, y), old, first)
    flat = points.reshape(-1, size)
    return mixture.improved(now, flat, config.prior.num_steps, axis)


def _start(states: Float[Array, "N D"]) -> tuple[Array, Array]:
    """Mean and covariance of the first state."""
    mean = jnp.mean(states, axis=0)
    centred = states - mean[None]
    spread = centred.T @ centred / len(states)
    return mean, spread + _START_VARIANCE * jnp.eye(len(mean))


def _moved(
    config: GPSConfig,
    old: Controllers,
    cost: Quadratic,
    dynamics: Dynamics,
    policy: Controllers,
    start: tuple[Array, Array],
    bound: Float[Array, ""],
    duals: Duals,
) -> Constrained:
    if config.method == "mdgps":
        return constrained(cost, dynamics, policy, start, bound)
    priced, pull = badmm.priced(cost, policy, duals)
    return constrained(priced, dynamics, old, start, bound, pull)


def _uncertain(controllers: Controllers, smallest_std: float) -> Controllers:
    """With no less noise than that."""
    enough = jax.vmap(jax.vmap(lambda x: no_smaller(x, smallest_std**2)))
    return controllers._replace(covariance=enough(controllers.covariance))


def _fall(
    old: Controllers,
    new: Controllers,
    cost: Quadratic,
    dynamics: Dynamics,
    start: tuple[Array, Array],
) -> Float[Array, ""]:
    """By how much the cost should be lower than that of what acted."""
    before, after = (expected(cost, moments(x, dynamics, *start)) for x in (old, new))
    return before - after


def _apart(
    new: Controllers, policy: Controllers, dynamics: Dynamics, start: tuple
) -> Float[Array, " T"]:
    return divergences(new, policy, moments(new, dynamics, *start))


def _lessons(local: Local, rollouts: Rollouts, config: GPSConfig) -> Lessons:
    """What the controllers would do in each state that was seen."""
    controllers, covariance = local.controllers, local.controllers.covariance
    mean = jax.vmap(controllers.mean, 1, 1)(rollouts.states[:, :, :-1])
    precision = jax.vmap(jax.vmap(lambda x: definite(x).inverse()))(covariance)
    if config.method == "badmm":
        return badmm.lessons(local.duals, rollouts.obs, mean, covariance, precision)
    return Lessons(rollouts.obs, mean, precision, jnp.ones(covariance.shape[:2]))


def _told(moved: Constrained, apart: Array, local: Local, axis: Axis) -> Metrics:
    """Means over initial states, and counts of what went wrong, sums."""
    means = {
        "kl_step": jnp.sum(moved.divergences, axis=1),
        "kl_bound": local.step,
        "log_eta": jnp.log(moved.eta),
        "kl_policy": jnp.sum(apart, axis=1),
        "predicted_fall": local.fall,
        "local_cost": local.cost,
    }
    counts = {
        "indefinite": jnp.sum(moved.indefinite).astype(jnp.float32),
        "stayed": jnp.sum(~moved.moved).astype(jnp.float32),
    }
    told = {name: jnp.mean(x) for name, x in means.items()}
    told, counts = axis.mean(told), axis.sum(axis.after(counts, told))
    return told | counts


def _unseen(num_clusters: int, size: int) -> Mixture:
    eye = jnp.broadcast_to(jnp.eye(size), (num_clusters, size, size))
    weights = jnp.full(num_clusters, 1.0 / num_clusters, jnp.float32)
    return Mixture(weights, jnp.zeros((num_clusters, size)), eye)
