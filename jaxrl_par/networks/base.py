"""The one signature of all networks, whatever library they come from."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from jaxrl_par.types import (
    Carry,
    Obs,
    Params,
    PlainPolicy,
    PRNGKey,
    Specs,
    TimeStep,
)


class Network(NamedTuple):
    """A network, with or without memory."""

    init: Callable[[PRNGKey, TimeStep], Params]
    initial_carry: Callable[[int], Carry]
    """Empty memory for so many environments, leaves [B, ...]; () without memory."""
    apply: Callable[[Params, Carry, TimeStep], tuple[Any, Carry]]
    """One step [B, ...]. Clears the memory where the step is `first`."""
    unroll: Callable[[Params, Carry, TimeStep], tuple[Any, Carry]]
    """What `apply` gives over the steps [T, B, ...], in one call: outputs [T, B, ...],
    and the memory after the last step."""
    specs: tuple[Specs, Specs] | None = None
    """Those of observations and actions that it was made for; None if it may be any."""
    with_features: (
        Callable[[Params, Carry, TimeStep], tuple[tuple[Any, Array], Carry]] | None
    ) = None
    """As `unroll`, with outputs (what `unroll` has, features [T, B, D]): what the layer
    reads that makes the outputs, or the policy of an actor-critic. None: it cannot."""
    normalized: Callable[[Params, Obs], Params] | None = None
    """Parameters with which its layers are normalised over observations [R, ...]: see
    `networks.reference`. None: it cannot, as with memory."""
    plain: PlainPolicy | None = None
    """The policy for who acts without JAX; None where that cannot be."""
