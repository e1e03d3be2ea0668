"""Whether two parts were made for the same observations and actions."""

import numpy as np

from jaxrl_par import trees
from jaxrl_par.errors import RefusedError
from jaxrl_par.specs import Box, Discrete, MultiDiscrete, Spec, Specs

Both = tuple[Specs, Specs]
"""(of observations, of actions)"""


def refuse_others(
    made: Both | None, given: Both | None, who: str, whom: str, remedy: str
) -> None:
    """Accepts parts that were made for the same, or of which one says nothing.

    Bounds of observations may differ.

    Args:
      who, whom: both in words, the second with its verb.
      remedy: what to do.

    Raises:
      RefusedError: they were made for others.
    """
    if made is not None and given is not None and not _same(made, given):
        raise RefusedError(
            f"{who} was made for {_told(made)}; {whom} {_told(given)}. {remedy}"
        )


def _same(made: Both, given: Both) -> bool:
    """Arrays of the same kinds by the same names; bounds of observations may differ."""
    for one, other in zip(made, given, strict=True):
        a, b = _leaves(one), _leaves(other)
        if a.keys() != b.keys() or not all(_alike(a[x], b[x]) for x in a):
            return False
    actions, others = (_leaves(specs[1]) for specs in (made, given))
    return all(_same_bounds(actions[x], others[x]) for x in actions)


def _leaves(specs: Specs) -> dict[str, Spec]:
    return dict(zip(trees.paths(specs), trees.leaves(specs), strict=True))


def _alike(a: Spec, b: Spec) -> bool:
    """Arrays of one kind, bounds aside."""
    if not (isinstance(a, Box) and isinstance(b, Box)):
        return a == b
    return a.shape == b.shape and np.dtype(a.dtype) == np.dtype(b.dtype)


def _same_bounds(a: Spec, b: Spec) -> bool:
    if not (isinstance(a, Box) and isinstance(b, Box)):
        return True
    pairs = (a.low, b.low), (a.high, b.high)
    return all(np.all(np.float32(x) == np.float32(y)) for x, y in pairs)


def _told(specs: Both) -> str:
    """Observations and actions in words, without the bounds of large arrays."""

    def words(spec: Spec) -> str:
        if isinstance(spec, Discrete):
            start = f" from {spec.start}" if spec.start else ""
            return f"one of {spec.num_values}{start}"
        if isinstance(spec, MultiDiscrete):
            return f"choices {spec}"
        low, high = np.min(spec.low), np.max(spec.high)
        return f"{np.dtype(spec.dtype)} {spec.shape} in [{low:.4g}, {high:.4g}]"

    kinds = zip(("observations", "actions"), specs, strict=True)
    parts = []
    for kind, part in kinds:
        leaves = [f"{path} {words(x)}".strip() for path, x in _leaves(part).items()]
        parts.append(f"{kind} {', '.join(leaves)}")
    return " and ".join(parts)
