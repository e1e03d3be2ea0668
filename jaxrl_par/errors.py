"""What every part says when it refuses a name: what is allowed, and the nearest."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> ValueError:
    """The error for a name that is not among those allowed, for the caller to raise."""
    allowed = sorted(allowed)
    lowered = {candidate.lower(): candidate for candidate in allowed}
    close = get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.4)
    hint = f"; did you mean {lowered[close[0]]!r}?" if close else ""
    return ValueError(f"unknown {kind} {name!r}{hint} Known: {', '.join(allowed)}")
