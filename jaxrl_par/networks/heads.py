"""From the outputs of a network to a distribution of the action, whatever its parts.

Outputs [N, K] have those of every part side by side, parts in the order of their names:
a logit for each action of a `Discrete` or of each choice of a `MultiDiscrete`, or for
each combination where the mask is one of combinations, and a mean for each number of a
`Box`. What is not allowed has a logit of -inf.
"""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrl_par.distributions import (
    Categorical,
    DiagNormal,
    Distribution,
    SquashedNormal,
)
from jaxrl_par.errors import RefusedError
from jaxrl_par.joint import Combination, Heads, Joint, Reshaped, Shape
from jaxrl_par.masks import allowed as allowed_in
from jaxrl_par.masks import is_of_combinations, masks, paired
from jaxrl_par.types import (
    Action,
    Box,
    Discrete,
    MultiDiscrete,
    Obs,
    PRNGKey,
    Spec,
    Specs,
)


def refuse_actions(action_spec: Specs, mask: Specs, policy: str) -> None:
    """Accepts actions that a policy can choose, and a mask that fits them.

    Args:
      mask: the spec of what is allowed, None without.
      policy: of real numbers, "gaussian" or "squashed".

    Raises:
      RefusedError: an action or the mask is something else.
      ValueError: a squashed policy has no bounds to squash to.
    """
    found = paired(action_spec, mask)
    if not found:
        raise RefusedError(f"there is no action to choose in {action_spec!r}")
    for spec, allowed in found:
        _refuse_action(spec, policy)
        if allowed is not None:
            refuse_mask(spec, allowed)


def refuse_masks(observation_spec: Specs, masked: bool) -> None:
    """Accepts observations with one mask at most.

    Args:
      masked: whether the network can do without the actions that it excludes.

    Raises:
      RefusedError: there are more, or one that it would not keep to.
    """
    number = len(masks(observation_spec))
    if number > 1:
        raise RefusedError(
            f"an observation has one mask of actions, got {number}: join them into one"
        )
    if number and not masked:
        raise RefusedError(
            "observations come with a mask of actions, which nothing here would keep"
            " to: take ppo or dqn, whose networks do, or show the environment without"
        )


def refuse_mask(spec: Spec, mask: Spec) -> None:
    """Accepts a mask that says which actions of this spec there are.

    Raises:
      RefusedError: it has another shape or dtype, which nothing is made fit.
    """
    if isinstance(spec, Discrete):
        shapes = {f"[{spec.num_values}]": (spec.num_values,)}
    elif isinstance(spec, MultiDiscrete):
        total, sizes = sum(spec.sizes), spec.sizes
        shapes = {f"[{total}], one for each choice": (total,)}
        shapes |= {f"{[*sizes]}, one of all combinations": sizes}
    else:
        raise RefusedError(f"a mask is of actions that can be counted, not of {spec}")
    kind = np.dtype(getattr(mask, "dtype", object))
    if kind != np.bool_ or tuple(mask.shape) not in shapes.values():
        raise RefusedError(
            f"a mask of {spec} is booleans {' or '.join(shapes)}, got {kind}"
            f" {[*getattr(mask, 'shape', ())]}"
        )


def num_outputs(action_spec: Specs, mask: Specs) -> int:
    """K."""
    return sum(_width(*pair) for pair in paired(action_spec, mask))


def num_reals(action_spec: Specs) -> int:
    """Real numbers in an action, each of which has a standard deviation."""
    specs = [spec for spec, _ in paired(action_spec, None)]
    return sum(prod(spec.shape) for spec in specs if isinstance(spec, Box))


def distribution(
    action_spec: Specs,
    policy: str,
    outputs: Float[Array, "N K"],
    log_std: Float[Array, " L"] | None,
    allowed: Any,
) -> Distribution:
    """That of the action in N rows.

    Args:
      policy: of real numbers, "gaussian" or "squashed".
      log_std: of the L real numbers, None without any.
      allowed: what the mask says in each row, leaves [N, ...]; None without.
    """
    made, begin, real = [], 0, 0
    for spec, mask in paired(action_spec, allowed):
        end = begin + _width(spec, mask)
        part, begin = outputs[:, begin:end], end
        if isinstance(spec, Discrete):
            made.append(Categorical(_possible(part, mask)))
        elif isinstance(spec, MultiDiscrete):
            made.append(_choices(spec, part, mask))
        else:
            assert log_std is not None
            stds = log_std[real : real + part.shape[1]]
            real += part.shape[1]
            made.append(_reals(spec, policy, part, stds))
    parts = iter(made)
    one = isinstance(action_spec, Spec)
    return made[0] if one else Joint(_filled(action_spec, parts))


def uniform_actions(
    observation_spec: Specs, action_spec: Specs, obs: Obs, key: PRNGKey
) -> Action:
    """Actions for rows of observations, of which all that are allowed are as likely.

    Real numbers within bounds are nearly so, and normal where there are none.
    """
    rows = jax.tree.leaves(obs)[0].shape[0]
    boxes = [x for x, _ in paired(action_spec, None) if isinstance(x, Box)]
    policy = "squashed" if all(x.bounded for x in boxes) else "gaussian"
    width = num_outputs(action_spec, allowed_in(observation_spec))
    given = policy, jnp.zeros((rows, width)), jnp.zeros(num_reals(action_spec))
    return distribution(action_spec, *given, allowed_in(obs)).sample(key)


def _refuse_action(spec: Spec, policy: str) -> None:
    if isinstance(spec, MultiDiscrete):
        return
    if isinstance(spec, Discrete):
        if spec.shape:
            raise RefusedError(
                "a Discrete action is one integer, not an array of shape"
                f" {spec.shape}: MultiDiscrete is one of several"
            )
        return
    if not isinstance(spec, Box):
        raise RefusedError(
            "actions must be Box, Discrete or MultiDiscrete, or a dict of them, not"
            f" {spec!r}"
        )
    if not prod(spec.shape):
        raise RefusedError(f"there is no action to choose in {spec}")
    if policy == "squashed":
        _refuse_bounds(spec)
    if not np.issubdtype(spec.dtype, np.floating):
        raise RefusedError(
            f"policies choose real numbers, and actions are {spec}: make the"
            " environment take floats and round them, or one Discrete action in place"
            " of the integers (gymnasium.wrappers.TransformAction does either)"
        )


def _refuse_bounds(spec: Box) -> None:
    low, high = spec.inner
    with np.errstate(over="ignore"):
        width = high - low
    if not np.all(np.isfinite(width) & (width > 0)):
        raise ValueError(
            "a squashed policy needs a lower and a higher bound for every action,"
            f" whose distance is finite in float32, got {spec}"
        )


def _width(spec: Spec, mask: Any) -> int:
    """Outputs of a part, whose mask may be a spec or have rows."""
    if isinstance(spec, Discrete):
        return spec.num_values
    if isinstance(spec, Box):
        return prod(spec.shape)
    together = mask is not None and is_of_combinations(spec, mask)
    return prod(spec.sizes) if together else sum(spec.sizes)


def _possible(
    logits: Float[Array, "N *A"], allowed: Bool[Array, "N *A"] | None
) -> Float[Array, "N *A"]:
    return logits if allowed is None else jnp.where(allowed, logits, -jnp.inf)


def _choices(
    spec: MultiDiscrete, outputs: Float[Array, "N K"], mask: Array | None
) -> Distribution:
    if mask is not None and is_of_combinations(spec, mask):
        flat = mask.reshape(outputs.shape)
        choice = Categorical(_possible(outputs, flat))
        made: Any = Combination(choice, Shape(spec.sizes))
    else:
        made = Heads(_padded(_possible(outputs, mask), spec.sizes))
    return made if len(spec.shape) == 1 else Reshaped(made, Shape(spec.shape))


def _padded(
    logits: Float[Array, "N K"], sizes: tuple[int, ...]
) -> Float[Array, "N H A"]:
    """Logits of each head, side by side; what it does not have is -inf."""
    most = max(sizes)
    if min(sizes) == most:
        return logits.reshape(-1, len(sizes), most)
    own = np.arange(most) < np.array(sizes)[:, None]
    index = np.cumsum(own).reshape(own.shape) - 1
    padded = logits[:, index]
    # Where nothing is allowed all are alike, but for those that a head does not have.
    none = jnp.max(padded, axis=-1, keepdims=True) == -jnp.inf
    there = jnp.broadcast_to(own[None], padded.shape)
    return jnp.where(there, jnp.where(none, 0.0, padded), -jnp.inf)


def _reals(
    spec: Box, policy: str, mean: Float[Array, "N A"], log_std: Float[Array, " A"]
) -> Distribution:
    log_std = jnp.broadcast_to(log_std, mean.shape)
    if policy == "gaussian":
        made: Any = DiagNormal(mean, log_std)
    else:
        # One number for all may stand for an array.
        bounds = (x.reshape(-1) if x.ndim else x for x in spec.inner)
        low, high = (jnp.broadcast_to(x, mean.shape) for x in bounds)
        # A sum of bounds may be too large for float32, where their distance is not.
        made = SquashedNormal(mean, log_std, low / 2 + high / 2, (high - low) / 2)
    return made if len(spec.shape) == 1 else Reshaped(made, Shape(spec.shape))


def _filled(specs: Specs, parts: Any) -> Any:
    """The tree of the specs with parts in their places, in the order of `paired`."""
    if isinstance(specs, dict):
        return {name: _filled(specs[name], parts) for name in sorted(specs)}
    if isinstance(specs, tuple | list):
        made = [_filled(x, parts) for x in specs]
        return type(specs)(*made) if hasattr(specs, "_fields") else type(specs)(made)
    return next(parts)
