"""Steps of a policy within a trust region: natural gradients, and a search along them.

    gain    L(theta),  the mean of pi / mu A over the rows, mu the policy that acted
    bound   KL(theta), the mean of KL(pi_old || pi),  KL <= delta

Near the parameters before the step the gain grows by g s, and KL is s F s / 2. Within
the bound the best step is s = sqrt(2 delta / (x F x)) x with F x = g. That is the full
step. What is true only near by is then looked at: a step that gains nothing, or whose
KL is above delta, is halved, and the first that fits is the one to take. None may fit.

F is Fisher's matrix. With J the slope of what the policies say in the parameters, and H
the second derivative of KL in what they say,

    F v = J^T H J v

since the first derivative of KL is 0 there: no network is differentiated twice. What is
a mean over rows is one over all devices, in each product too. So all devices make the
same step, and it is that of their joint batch.

A step is for the parameters that it was searched from. Added to others, or scaled by an
optimizer, it is one whose KL nobody has looked at.

Sources: Schulman et al., arXiv:1502.05477, appendix C, and the released code for the
damping; Kakade, A natural policy gradient (NIPS 2001); Duan et al., arXiv:1604.06778
(the full step without a search).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.axis import Axis
from jaxrl_par.errors import ReadIf, above, at_least, at_most, not_chosen
from jaxrl_par.measured import Metric
from jaxrl_par.types import Metrics, Params

METRICS = {
    "kl": Metric("nats", "of the policy from that before the step; 0 without one"),
    "gain": Metric("1", "of the mean of ratio times advantage, by the step"),
    "halvings": Metric("trials", "that were refused in the search for the step"),
    "no_step": Metric("1", "1 where no trial was accepted, and nothing moved"),
}

Flat = Float[Array, " D"]
Number = Float[Array, ""]

_SOLVED = 1e-13
"""Share of |g|^2 that is left of a residual's square when float32 has no more digits of
it: there a direction is noise, and soon 0 / 0."""


@dataclass(frozen=True)
class TrustRegionConfig:
    """How far a step goes, and how it is found."""

    read_if: ClassVar[ReadIf] = {"max_halvings": ("step", ("searched",))}
    """What each of these fields is for: another one, and its values."""

    delta: float = 0.01
    """Bound of the mean KL from the policy before a step, in nats."""
    damping: float = 0.1
    """Times the identity, added to Fisher's matrix: directions that change no policy
    would be infinitely long. The larger, the shorter is the step."""
    cg_steps: int = 10
    """Most iterations of conjugate gradients, each of which has a product with Fisher's
    matrix."""
    step: Literal["searched", "natural"] = "searched"
    """searched: halved until it gains and its KL is within the bound. natural: the full
    step as it is, whatever its KL: the natural gradient."""
    max_halvings: int = 10
    """Halvings after which there is no step."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = above(self, delta=0) + at_least(self, damping=0)
        found += at_least(self, cg_steps=1, max_halvings=0)
        return found + at_most(self, cg_steps=10**4, max_halvings=60) + not_chosen(self)


class Region(NamedTuple):
    """What is to grow, and what is bounded: this instance's share of each, whose mean
    over the axis is that of the joint batch."""

    policies: Callable[[Params], Any]
    """What the parameters say in all rows: floats, by which KL is known."""
    gain: Callable[[Any], Number]
    """L of such policies."""
    divergence: Callable[[Any, Any], Number]
    """KL(old || new) of two of them."""


class Found(NamedTuple):
    """A step, to be added to the parameters that it was searched from."""

    step: Params
    """0 where no step fits; not finite where the gradient is not."""
    metrics: Metrics
    """`kl` and `gain` of the step; `halvings`: trials that were refused before it;
    `no_step`: 1 where all were."""


class Around(NamedTuple):
    """What is known of a region around some parameters, of all instances together."""

    origin: Flat
    """The parameters."""
    gradient: Flat
    """g"""
    product: Callable[[Flat], Flat]
    """F v"""
    measured: Callable[[Flat], tuple[Number, Number]]
    """By how much a step gains, and its KL."""


def around(region: Region, params: Params, axis: Axis = Axis()) -> Around:
    """The region as it is at these parameters, raveled."""
    origin, unravel = ravel_pytree(params)

    def policies(flat: Flat) -> Any:
        return region.policies(unravel(flat))

    old, slopes = jax.linearize(policies, origin)
    back = jax.linear_transpose(slopes, origin)
    before, slope = jax.value_and_grad(region.gain)(old)

    def product(vector: Flat) -> Flat:
        return axis.mean(back(_bent(region, old, slopes(axis.apart(vector))))[0])

    def measured(step: Flat) -> tuple[Number, Number]:
        new = policies(origin + step)
        return axis.mean((region.gain(new) - before, region.divergence(old, new)))

    gradient = axis.mean(back(slope)[0])
    return Around(origin, gradient, product, measured)


def step_within(
    region: Region, params: Params, config: TrustRegionConfig, axis: Axis = Axis()
) -> Found:
    """The step that is to be taken from these parameters."""
    known = around(region, params, axis)
    full = full_step(known.product, known.gradient, config)
    # Else a product and the sum with the parameters may be rounded once in one program,
    # and twice in another.
    full = jax.lax.optimization_barrier(full)
    found = _searched(known.measured, full, config)
    step = jnp.where(found.fits, found.factor * full, 0.0)
    # To be counted as what it is, and not as a search without a result.
    finite = jnp.isfinite(known.gradient @ known.gradient)
    step = jnp.where(finite, step, jnp.nan)
    fits = found.fits.astype(jnp.float32)
    told: Metrics = {
        "kl": jnp.where(found.fits, found.kl, 0.0),
        "gain": jnp.where(found.fits, found.gain, 0.0),
        "halvings": found.tried.astype(jnp.float32) - fits,
        "no_step": 1.0 - fits,
    }
    return Found(ravel_pytree(params)[1](step), told)


def full_step(
    product: Callable[[Flat], Flat], gradient: Flat, config: TrustRegionConfig
) -> Flat:
    """sqrt(2 delta / (x F x)) x with F x = g, F damped; 0 where g is.

    Args:
      product: F v, without damping.
    """

    def damped(vector: Flat) -> Flat:
        return product(vector) + config.damping * vector

    direction = conjugate_gradients(damped, gradient, config.cg_steps)
    curvature = direction @ damped(direction)
    known = curvature > 0.0
    size = jnp.sqrt(2.0 * config.delta / jnp.where(known, curvature, 1.0))
    return jnp.where(known, size * direction, 0.0)


def conjugate_gradients(
    product: Callable[[Flat], Flat], target: Flat, iterations: int
) -> Flat:
    """x with `product(x)` = target, after at most so many iterations.

    Iterations after the one that solves it change nothing: then the residual is noise,
    and what divides by it, or by a direction's curvature, is none.

    Args:
      product: of a symmetric, positive definite matrix with a vector.

    Source: Hestenes and Stiefel (1952).
    """
    enough = _SOLVED * (target @ target)

    def iterate(_: Any, now: tuple[Flat, Flat, Flat, Number]):
        x, residual, direction, square = now
        curved = product(direction)
        curvature = direction @ curved
        goes_on = (square > enough) & (curvature > 0.0)
        rate = square / jnp.where(goes_on, curvature, 1.0)
        after = residual - rate * curved
        left = after @ after
        further = after + left / jnp.where(goes_on, square, 1.0) * direction
        new = (x + rate * direction, after, further, left)
        return jax.tree.map(lambda new, old: jnp.where(goes_on, new, old), new, now)

    start = (jnp.zeros_like(target), target, target, target @ target)
    return jax.lax.fori_loop(0, iterations, iterate, start)[0]


class _Trial(NamedTuple):
    tried: Int[Array, ""]
    factor: Number
    gain: Number
    kl: Number
    fits: Bool[Array, ""]


def _searched(
    measured: Callable[[Flat], tuple[Number, Number]],
    full: Flat,
    config: TrustRegionConfig,
) -> _Trial:
    """The last trial, which fits unless none does.

    Factors are powers of 1/2, so that a product with one of them is exact.
    """

    def trial(now: _Trial) -> _Trial:
        factor = 0.5 * now.factor
        gain, kl = measured(factor * full)
        fits = jnp.bool_(True)
        if config.step == "searched":
            # Neither is true of what is no number.
            fits = (gain > 0.0) & (kl <= config.delta)
        return _Trial(now.tried + 1, factor, gain, kl, fits)

    def goes_on(now: _Trial) -> Bool[Array, ""]:
        return ~now.fits & (now.tried <= config.max_halvings)

    zero = jnp.float32(0)
    start = _Trial(jnp.int32(0), jnp.float32(2), zero, zero, jnp.bool_(False))
    return jax.lax.while_loop(goes_on, trial, start)


def _bent(region: Region, old: Any, change: Any) -> Any:
    """H times a change of what the policies say."""
    slope = jax.grad(partial(region.divergence, jax.lax.stop_gradient(old)))
    return jax.jvp(slope, (old,), (change,))[1]
