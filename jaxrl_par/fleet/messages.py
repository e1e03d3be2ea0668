"""What a process and its driver say to each other."""

import pickle
import traceback
from typing import Any, NamedTuple

from jaxrl_par.fleet.recipe import Software


class Failed(NamedTuple):
    """In place of a result: what was raised in a process."""

    error: bytes | None
    """The error pickled, with its notes; None if it cannot be."""
    told: str
    """Its type and message."""
    trace: str
    where: str
    """The process and its node."""

    def as_error(self) -> Exception:
        """The error itself, or else a `RuntimeError` that tells of it."""
        try:
            error = None if self.error is None else pickle.loads(self.error)
        except Exception:
            # A class that only the process has.
            error = None
        if not isinstance(error, Exception):
            error = RuntimeError(self.told)
        error.add_note(f"in {self.where}. There:\n{self.trace}")
        return error


def failed(error: BaseException, where: str) -> Failed:
    """What to send in place of an error."""
    try:
        sent = pickle.dumps(error)
        pickle.loads(sent)  # some errors can be pickled and not made again
    except Exception:
        sent = None
    told = f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    return Failed(sent, told, trace, where)


class Hello(NamedTuple):
    """The first that a process says."""

    where: str
    """What it is called in errors: its members, itself and its node."""
    pid: int
    software: Software


class Reply(NamedTuple):
    """What a member answers."""

    result: Any
    """None if it failed."""
    failed: Failed | None
    rows: int
    """Rows acted since the last answer, over all environments."""
    seconds: dict[str, float]
    """By what the member did meanwhile, as `Times` names it."""


class Shown(NamedTuple):
    """What a driver knows of a member's environments, as it would of its own."""

    name: str
    num_envs: int
    observation_spec: Any
    action_spec: Any


class Started(NamedTuple):
    """A member that has environments."""

    env: Shown
    state: Any
    """Between two unrolls, leaves in NumPy."""
    goes_on: bool
    """False if a saved state was not brought back, but begun anew."""


class Progress(NamedTuple):
    """How far a member is."""

    calls: int
    """Calls of its environments that began."""
    inside: bool
    """Whether it is in one."""
    doing: str
    rows: int
    """Rows of the unroll in progress."""


class NoParameters(NamedTuple):
    """In place of an unroll that did not begin: the holder did not answer."""

    told: str
