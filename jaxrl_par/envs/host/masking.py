"""Masks of actions that simulators tell in `info["action_mask"]`, as Gymnasium's own do
(such as Taxi), at every reset and step. They become part of the observation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl_par.envs.host.admission import BadRowError, Where, shown
from jaxrl_par.masks import Masked, none_allowed
from jaxrl_par.specs import Box, Discrete, MultiDiscrete, Specs
from jaxrl_par.stream import Obs

ENTRY = "action_mask"
"""The entry of `info`: 0 or 1 for each action of a `Discrete` space, element 0 for its
start; for `MultiDiscrete` those of each choice, in a tuple or one after the other."""


class InfoMasks:
    """The masks of B simulators, as they were told last."""

    def __init__(self, action_spec: Specs, num_envs: int, name: str):
        """
        Raises:
          ValueError: a mask would not say which of these actions there are.
        """
        if isinstance(action_spec, Discrete):
            number = action_spec.num_values
        elif isinstance(action_spec, MultiDiscrete):
            number = sum(action_spec.sizes)
        else:
            raise ValueError(
                f"info[{ENTRY!r}] masks actions that are Discrete or MultiDiscrete, and"
                f" those of {name} are {action_spec}"
            )
        self.spec = Box((number,), np.dtype(bool), 0.0, 1.0)
        self._action_spec = action_spec
        self._rows = np.zeros((num_envs, number), bool)

    def read(self, info: Mapping[str, Any], index: int, where: Where) -> None:
        """Takes the mask of environment `index` from its info.

        Raises:
          BadRowError: there is none, or it is of other actions.
        """
        mask = info.get(ENTRY)
        if mask is None:
            raise BadRowError(
                f"info of {where(index)} has no {ENTRY!r}, which was asked for: tell it"
                " in every reset and step, or do not ask for masks"
            )
        self._rows[index] = self._admitted(mask, index, where)

    def read_all(self, infos: Mapping[str, Any], where: Where) -> None:
        """As `read`, of all, from what a vector environment tells: an array for all and
        perhaps, in `_action_mask`, who of them told it."""
        given, told = infos.get(ENTRY), infos.get(f"_{ENTRY}")
        for index in range(len(self._rows)):
            own = {}
            try:
                if given is not None and (told is None or told[index]):
                    own = {ENTRY: given[index]}
            except (IndexError, KeyError, TypeError) as error:
                raise BadRowError(
                    f"infos[{ENTRY!r}] of {where(None)} has none for environment"
                    f" {index}: {shown(given)}"
                ) from error
            self.read(own, index, where)

    def shown(self, obs: Obs, last: np.ndarray, where: Where) -> Masked:
        """Observations with their masks.

        Raises:
          BadRowError: a step that is not `last` has nothing to choose from.
        """
        found = np.flatnonzero(none_allowed(self._action_spec, self._rows) & ~last)
        if len(found):
            raise BadRowError(
                f"the action mask of {where(int(found[0]))} allows no action, and the"
                " episode goes on"
            )
        return Masked(obs, self._rows.copy())

    def _admitted(self, mask: Any, index: int, where: Where) -> np.ndarray:
        try:
            if isinstance(mask, Sequence) and len(mask):
                mask = np.concatenate([np.ravel(x) for x in mask])
            array = np.asarray(mask)
        except Exception as error:  # whatever an object's conversion raises
            raise BadRowError(
                f"the action mask of {where(index)} is no array ({error}):"
                f" {shown(mask)}"
            ) from error
        if np.ma.is_masked(mask):
            raise BadRowError(f"the action mask of {where(index)} is itself masked")
        if array.shape != self.spec.shape or array.dtype.kind not in "biu":
            raise BadRowError(
                f"the action mask of {where(index)} is {array.dtype} {[*array.shape]},"
                f" and must be integers or booleans {[*self.spec.shape]}"
            )
        if array.dtype.kind != "b" and not np.isin(array, (0, 1)).all():
            raise BadRowError(
                f"the action mask of {where(index)} has more than 0 and 1: {array}"
            )
        return array.astype(bool)
