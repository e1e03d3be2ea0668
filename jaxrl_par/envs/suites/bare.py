"""What adapters of suites refuse alike."""

from typing import Any

from jaxrl_par.errors import RefusedError

_OTHERS = ("AutoReset", "Vmap", "EpisodeWrapper", "EvalWrapper")
"""In the names of wrappers that reset or count, or that step many at once."""


def refuse_wrapped(env: Any) -> None:
    """Accepts an environment without wrappers that reset it, count its steps, or step a
    batch of it. Others may change what is seen.

    Raises:
      RefusedError: one is around it, however deep.
    """
    inner = env
    while inner is not None:
        name = type(inner).__name__
        if any(x in name for x in _OTHERS):
            raise RefusedError(
                f"{name} is around the environment: hand over the one within, as the"
                " stream resets, counts and batches itself"
            )
        held = vars(inner) if hasattr(inner, "__dict__") else {}
        inner = held.get("_env", held.get("env"))
