"""What adapters of suites refuse alike."""

from typing import Any

from jaxrl_par.errors import RefusedError

_OTHERS = ("AutoReset", "Vmap")
"""In the names of wrappers that reset, or that step many at once."""


def refuse_wrapped(env: Any) -> None:
    """Accepts an environment without wrappers that reset it, or step a batch of it.

    Raises:
      RefusedError: one is around it, however deep.
    """
    inner = env
    while inner is not None:
        name = type(inner).__name__
        if any(x in name for x in _OTHERS):
            raise RefusedError(
                f"{name} is around the environment: hand over the one within, as the"
                " stream resets and batches itself"
            )
        inner = vars(inner).get("_env") if hasattr(inner, "__dict__") else None
