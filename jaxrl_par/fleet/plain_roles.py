"""Actors of a process that imports no JAX."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrl_par import compatible
from jaxrl_par.bridge.plain.actor import Form, PlainActor
from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.fleet.claims import Claims
from jaxrl_par.fleet.messages import NoParameters
from jaxrl_par.fleet.parameters import NoHolderError, Puller


class PlainActing:
    """As `roles.Acting`, in NumPy."""

    def __init__(
        self,
        root: np.ndarray,
        make_env: Callable[[int], HostEnvironment],
        specs: compatible.Both | None,
        form: Form,
        unroll_length: int,
        check_bounds: bool,
        kept: int,
    ):
        """
        Args:
          root: the words of the key of all unrolls.
          make_env: simulators from a seed.
          specs: those that the agent was made for.
          kept: as for `roles.Acting`.
        """
        self._given = make_env, form, unroll_length, root, None
        self._claims = Claims(specs)
        self._check_bounds = check_bounds
        self._puller = Puller(kept, _owned)

    def actor(self, index: int, **options: Any) -> PlainActor:
        return PlainActor(
            index, *self._given, told=_as_it_is, claim=self._claims.claim,
            check_bounds=self._check_bounds, **options,
        )  # fmt: skip

    def shown(self, member: PlainActor) -> Any:
        return member.env

    def work(
        self, member: PlainActor, unroll: int, holder: str, at_least: int, exact: bool
    ) -> Any:
        """As `roles.Acting.work`."""
        try:
            version, params = self._puller.pull(holder, at_least, exact)
        except NoHolderError as error:
            return NoParameters(str(error))
        return member.unroll(params, version)

    def data(self, index: int, unroll: int) -> Any:
        """None: what an actor keeps is part of each answer."""

    def sent(self, tree: Any) -> Any:
        """As it is: all of it is NumPy."""
        return tree


def _owned(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.array(x) for name, x in arrays.items()}


def _as_it_is(trajectory: Any) -> Any:
    """What the driver makes of it needs JAX."""
    return trajectory
