"""Observations that come with a mask of actions. Nothing here imports JAX, so that the
processes of simulators can know it: others take the record from `types`.
"""

from functools import reduce
from operator import or_
from typing import Any, NamedTuple

from jaxrl_par.errors import RefusedError
from jaxrl_par.specs import Discrete, MultiDiscrete, Specs


class Masked(NamedTuple):
    """What an environment shows, with what may be done next.

    As part of the observation, the mask goes wherever that goes: into unrolls, replay,
    other processes and exported actors. Only where a step is `last` may it have no
    action at all: what is chosen there is never done.

    It may be a part of an observation, such as `WithPrevious` has, but there is only
    one mask. Networks read `obs` in its place, and never choose what is not allowed.
    """

    obs: Any
    """[*T, B, ...], a pytree; in a spec, as the other, its specs."""
    allowed: Any
    """[*T, B, A] booleans for an action of A; for a `MultiDiscrete` of nvec,
    [*T, B, sum of nvec] for masks of its parts, or [*T, B, *nvec] for one of all
    combinations. For actions with names, a dict of the masks of those that have one."""


def unmasked(tree: Any) -> Any:
    """Observations, or their specs, as networks read them: without masks."""
    if isinstance(tree, Masked):
        return tree.obs
    if isinstance(tree, dict):
        return {key: unmasked(x) for key, x in tree.items()}
    if not isinstance(tree, tuple | list):
        return tree
    parts = [unmasked(x) for x in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)


def masks(tree: Any) -> list[Any]:
    """What is allowed, of every mask in observations or their specs."""
    if isinstance(tree, Masked):
        return [tree.allowed, *masks(tree.obs)]
    if isinstance(tree, dict):
        return [mask for x in tree.values() for mask in masks(x)]
    if isinstance(tree, tuple | list):
        return [mask for x in tree for mask in masks(x)]
    return []


def allowed(tree: Any) -> Any:
    """What the one mask allows; None where there is none."""
    found = masks(tree)
    return found[0] if found else None


def paired(action: Any, mask: Any) -> list[tuple[Any, Any]]:
    """(part of an action or its spec, what is allowed of it or None), by name.

    Raises:
      RefusedError: the mask has other names.
    """
    if isinstance(action, dict):
        given = {} if mask is None else mask
        if not isinstance(given, dict) or given.keys() - action.keys():
            raise RefusedError(
                f"a mask of actions with the names {sorted(action)} is a dict of the"
                f" masks of some of them, got {_names(mask)}"
            )
        parts = [(action[name], given.get(name)) for name in sorted(action)]
    elif isinstance(action, tuple | list):
        given = [None] * len(action) if mask is None else mask
        if not isinstance(given, tuple | list) or len(given) != len(action):
            raise RefusedError(
                f"a mask of an action of {len(action)} parts has one for each, or None,"
                f" got {_names(mask)}"
            )
        parts = list(zip(action, given, strict=True))
    else:
        return [(action, mask)]
    return [pair for part in parts for pair in paired(*part)]


def is_of_combinations(spec: MultiDiscrete, mask: Any) -> bool:
    """Whether a mask [*N, ...], or its spec, is of all combinations of the choices, and
    not of each choice."""
    # No array of one axis more than one, and of that last length, is of combinations.
    return mask.shape[-1] != sum(spec.sizes)


def none_allowed(action_spec: Specs, allowed: Any) -> Any:
    """[*N] booleans: where an action, or a part of it, has nothing to choose from.

    Args:
      allowed: a mask of that action, leaves [*N, ...] of NumPy or of JAX.
    """
    return reduce(or_, (~x for x in _any(action_spec, allowed)))


def _any(action_spec: Specs, allowed: Any) -> list[Any]:
    """Whether there is a choice, of each that is masked."""
    found = []
    for spec, mask in paired(action_spec, allowed):
        if mask is None:
            continue
        if isinstance(spec, Discrete):
            found.append(mask.any(-1))
        elif is_of_combinations(spec, mask):
            found.append(mask.any(tuple(range(-len(spec.sizes), 0))))
        else:
            begin = 0
            for size in spec.sizes:
                found.append(mask[..., begin : begin + size].any(-1))
                begin += size
    return found


def _names(mask: Any) -> str:
    """What a mask is, in a few words."""
    return str(sorted(mask)) if isinstance(mask, dict) else f"{mask!r:.60}"
