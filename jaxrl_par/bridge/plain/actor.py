"""An actor that acts in NumPy, in environments of its own."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxrl_par import draws, numpy_actor
from jaxrl_par.bridge.plain.drawn import Drawing
from jaxrl_par.bridge.stepping import SteppingActor
from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.stream import Carry, TimeStep, Trajectory


class Form(NamedTuple):
    """What acts, in plain numbers and names, so that it can be sent anywhere: that of a
    `PlainPolicy`."""

    config: dict[str, Any]
    log_prob: bool
    policy: bool


class PlainActor(SteppingActor):
    """Parameters that it is given are arrays by name, keys their words."""

    def __init__(
        self, index: int, make_env: MakeEnv, form: Form, *arguments: Any,
        told: Callable[[Trajectory], Trajectory], **options: Any,
    ):  # fmt: skip
        """
        Args:
          told: from an unroll in plain numbers to what is given further.
          arguments, options: further ones of `SteppingActor`.
        """
        super().__init__(index, make_env, *arguments, **options)
        self._form = form
        self._drawing = Drawing(form.config)
        self._told = told
        self._arrays: Mapping[str, np.ndarray] | None = None
        self._policy: Any = None

    def _no_memory(self, num_envs: int) -> Carry:
        return numpy_actor.empty(self._form.config["network"], num_envs)

    def _placed(self, carry: Carry) -> Carry:
        return tuple(np.array(x) for x in carry)

    def _plan(self) -> tuple[Any, Any]:
        # As `Acting.plan`, and so as `rollout.unroll`.
        key = self._root
        for number in (*divmod(self.next_unroll, 1_000_000), self.index):
            key = draws.fold_in(key, number)
        act_key, _ = draws.split(key, 2)
        both = draws.split(draws.split(act_key, self._length), 2)
        return both[:, 0], both[:, 1]

    def _begin(self, params: Any, version: int, keys: Any, step: TimeStep) -> None:
        if params is not self._arrays:
            self._arrays = params
            self._policy = numpy_actor.Actor(self._form.config, params)
        length, num_envs = self._length, len(step.first)
        # Of all rows at once: for each of them it would cost more than to act does.
        self._noise = self._drawing.noise(keys, num_envs)
        self._version, self._before = version, self._carry
        self._log_probs = np.empty((length, num_envs), np.float32)
        self._policies: dict[str, np.ndarray] = {}

    def _act(self, t: int, step: TimeStep) -> Any:
        first: Any = step.first
        policy, self._carry = self._policy.distribution(step.obs, first, self._carry)
        noise = [x[t] for x in self._noise]
        action, self._log_probs[t] = self._drawing(policy, noise)
        if self._form.policy:
            for name, x in policy.items():
                self._kept(name, x)[t] = x
        return action

    def _end(self, trajectory: Trajectory) -> Trajectory:
        extras: dict[str, Any] = {}
        if self._form.log_prob:
            extras["log_prob"] = self._log_probs
        if self._form.policy:
            extras["policy"] = self._policies
        shape = trajectory.reward.shape
        extras["version"] = np.full(shape, self._version, np.int32)
        return self._told(trajectory._replace(extras=extras, carry=self._before))

    def _kept(self, name: str, x: np.ndarray) -> np.ndarray:
        """Where parameters of the policy of that name are kept, [T, B, A]."""
        if name not in self._policies:
            self._policies[name] = np.empty((self._length, *x.shape), np.float32)
        return self._policies[name]
