"""Kinds of action values: what a network's outputs say, and how they are learned.

    expected      q [..., A], values themselves
    categorical   logits [..., A, N] of N atoms z, evenly from v_min to v_max
    quantile      theta [..., A, N], where the return is below with probability
                  tau[i] = (i + 1/2) / N

A target is made of the atoms or quantiles of the best action, one by one: of each, y[j]
= r + d z[j]. Values may be learned in the space of h (`returns.squashed`): there are
q, z, theta and y, with y[j] = h(r + d h^-1(z[j])). A distribution's mean is then that
of h^-1(z), of the return itself; q stays in that space.

Outputs of -inf, all N of an action, make it impossible, as for `exploration`.

Sources: Bellemare et al., arXiv:1707.06887, algorithm 1 (C51); Dabney et al.,
arXiv:1710.10044, equations 9 and 10 (QR-DQN).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrl_par import returns

Outputs = Float[Array, "..."]
"""[..., *N]: N is there for distributions only."""


class Compared(NamedTuple):
    """What was learned of each row, and what is to be learned."""

    loss: Float[Array, "L K"]
    priority: Float[Array, "L K"]
    """Not negative, and without a gradient: see each kind."""


class Values(NamedTuple):
    """A kind of action values."""

    located: Callable[[Outputs], Outputs]
    """Where the atoms or quantiles of outputs [..., *N] are, [..., *N]."""
    mean: Callable[[Outputs, Outputs], Float[Array, "..."]]
    """(located, outputs) -> the mean [...], with the probabilities of the outputs."""
    compared: Callable[[Outputs, Outputs, Outputs], Compared]
    """(outputs of the action taken, targets, outputs that those were made of), each
    [L, K, *N]."""

    def expected(self, outputs: Outputs) -> Float[Array, "..."]:
        """What is acted by: the means of outputs [..., *N]; -inf where impossible."""
        return self.mean(self.located(outputs), outputs)


def expected(huber_delta: float | None) -> Values:
    """One number for each action; its priority is the absolute error.

    Args:
      huber_delta: the error above which the loss grows linearly. None: squared errors.
    """

    def compared(chosen: Outputs, targets: Outputs, ahead: Outputs) -> Compared:
        del ahead  # targets are all there is
        errors = targets - chosen
        sizes = jnp.abs(jax.lax.stop_gradient(errors))
        if huber_delta is None:
            return Compared(jnp.square(errors) / 2, sizes)
        return Compared(optax.losses.huber_loss(errors, delta=huber_delta), sizes)

    return Values(lambda outputs: outputs, lambda located, outputs: located, compared)


def categorical(
    num_atoms: int, v_min: float, v_max: float, rescale: float | None = None
) -> Values:
    """Probabilities of atoms. The loss is KL(target, outputs), whose gradient is that
    of the cross-entropy, and it is the priority, as in Rainbow (Hessel et al.,
    arXiv:1710.02298): 0 where there is no more to learn.

    Args:
      v_min, v_max: where the first and the last atom are; targets beyond count there.
      rescale: eps of h, or None.
    """
    atoms = jnp.linspace(v_min, v_max, num_atoms, dtype=jnp.float32)

    def located(outputs: Outputs) -> Outputs:
        return jnp.broadcast_to(_trailing(atoms, outputs), outputs.shape)

    def mean(located: Outputs, outputs: Outputs) -> Float[Array, "..."]:
        return jnp.sum(jax.nn.softmax(outputs) * _returns(located, rescale), axis=-1)

    def compared(chosen: Outputs, targets: Outputs, ahead: Outputs) -> Compared:
        target = projected(jax.nn.softmax(ahead), targets, atoms)
        target = jax.lax.stop_gradient(target)
        surprise = -jnp.sum(target * jax.nn.log_softmax(chosen), axis=-1)
        loss = surprise + jnp.sum(jax.scipy.special.xlogy(target, target), axis=-1)
        # Rounding may leave it below.
        return Compared(loss, jnp.maximum(jax.lax.stop_gradient(loss), 0.0))

    return Values(located, partial(_possible, mean), compared)


def quantile(
    num_atoms: int, huber_delta: float, rescale: float | None = None
) -> Values:
    """Quantiles of equal probability; the priority is the mean over all pairs of |y[j]
    - theta[i]|, which is the absolute error of a single one.

    Args:
      huber_delta: the paper's kappa.
      rescale: eps of h, or None.
    """

    def mean(located: Outputs, outputs: Outputs) -> Float[Array, "..."]:
        del outputs  # all are equally probable
        return jnp.mean(_returns(located, rescale), axis=-1)

    def compared(chosen: Outputs, targets: Outputs, ahead: Outputs) -> Compared:
        del ahead  # targets are quantiles themselves
        errors = jnp.abs(_errors(jax.lax.stop_gradient(chosen), targets))
        loss = quantile_huber(chosen, targets, huber_delta)
        return Compared(loss, jnp.mean(errors, axis=(-2, -1)))

    return Values(lambda outputs: outputs, partial(_possible, mean), compared)


def projected(
    probabilities: Float[Array, "... M"],
    located: Float[Array, "... M"],
    atoms: Float[Array, " N"],
) -> Float[Array, "... N"]:
    """A distribution on M places as one on the atoms, of which the two nearest share
    the mass between them, by their distance; what is beyond counts at the end.

        m[i] = sum_j p[j] max(0, 1 - |y[j] - z[i]| / (z[1] - z[0]))

    Unlike a floor and a ceiling, it loses no mass that lands on an atom.
    """
    located = jnp.clip(located, atoms[0], atoms[-1])[..., None, :]
    distance = jnp.abs(located - _trailing(atoms[:, None], located))
    share = jnp.maximum(1.0 - distance / (atoms[1] - atoms[0]), 0.0)
    return jnp.sum(probabilities[..., None, :] * share, axis=-1)


def quantile_huber(
    theta: Float[Array, "... N"], targets: Float[Array, "... M"], kappa: float
) -> Float[Array, "..."]:
    """Summed over the quantiles theta[i], and the mean over targets y[j], of

    |tau[i] - [u < 0]| huber(u, kappa),   u = y[j] - theta[i]
    """
    tau = (jnp.arange(theta.shape[-1], dtype=jnp.float32) + 0.5) / theta.shape[-1]
    errors = _errors(theta, targets)
    weight = jnp.abs(
        _trailing(tau[:, None], errors) - (errors < 0.0).astype(jnp.float32)
    )
    losses = weight * optax.losses.huber_loss(errors, delta=kappa)
    return jnp.sum(jnp.mean(losses, axis=-1), axis=-1)


def _errors(theta: Outputs, targets: Outputs) -> Float[Array, "... N M"]:
    return targets[..., None, :] - theta[..., :, None]


def _trailing(x: Array, of: Array) -> Array:
    """x, with axes of 1 before its own, so that it has as many as the other."""
    return x.reshape(*[1] * (of.ndim - x.ndim), *x.shape)


def _returns(located: Outputs, rescale: float | None) -> Outputs:
    return located if rescale is None else returns.unsquashed(located, rescale)


def _possible(mean: Callable, located: Outputs, outputs: Outputs) -> Outputs:
    """The mean, or -inf where all outputs are."""
    none = jnp.all(outputs == -jnp.inf, axis=-1, keepdims=True)
    # Replaced before: of -inf alone, softmax and h^-1 make no number.
    located, outputs = (jnp.where(none, 0.0, x) for x in (located, outputs))
    return jnp.where(none[..., 0], -jnp.inf, mean(located, outputs))
