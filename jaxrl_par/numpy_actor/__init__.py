"""A trained actor on a machine that has NumPy, and neither JAX nor jaxrl_par.

This package lies in the folder of the actor, and all that acting needs is in it:

    from numpy_actor import Actor

    actor = Actor.load(".")
    carry = actor.initial_carry(1)
    first = np.ones(1, bool)  # an episode starts
    action, carry = actor.step(obs, first, carry)

Shapes are those of training: B environments come first. Inside they come last, [D, B],
so that parts of a buffer are contiguous, whatever B is: layers write their outputs to
where the next product reads them, and nothing is concatenated. A row of ones below the
inputs of each product carries its bias.

With many environments OpenBLAS takes all cores; OPENBLAS_NUM_THREADS=1 keeps it on one.

Imports are relative: what is here is the same package in the actor's folder.
"""

from .actor import Actor
from .arrays import ActorError
from .files import (
    ARRAYS,
    CONFIG,
    FORMAT,
    config_hash,
    parsed_config,
    read_arrays,
    read_config,
    read_file,
)
from .memories import Carry, empty
from .policies import action_of, prefixes, together

__all__ = [
    "ARRAYS",
    "CONFIG",
    "FORMAT",
    "Actor",
    "ActorError",
    "Carry",
    "action_of",
    "config_hash",
    "empty",
    "parsed_config",
    "prefixes",
    "read_arrays",
    "read_config",
    "read_file",
    "together",
]
