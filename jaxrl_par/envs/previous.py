"""An observation with what led to it, as pure environments and simulators show it."""

from typing import Any, NamedTuple

from jaxrl_par import trees
from jaxrl_par.specs import Box, Spec, Specs
from jaxrl_par.stream import Action, Obs


class WithPrevious(NamedTuple):
    """An observation with what led to it; action and reward are 0 where `first`."""

    obs: Obs
    action: Action
    reward: Any
    """[*T, B]; in a spec, that of a reward."""


def with_previous(specs: tuple[Specs, Specs]) -> WithPrevious:
    """The spec of observations that show action and reward."""

    def unbounded(spec: Spec) -> Spec:
        return Box(spec.shape, spec.dtype) if isinstance(spec, Box) else spec

    observation, action = specs
    return WithPrevious(observation, trees.map_leaves(unbounded, action), Box(()))
