"""One network for several tasks, which it tells apart by what they show."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxrl_par.networks.base import Network
from jaxrl_par.networks.features import NetworkConfig
from jaxrl_par.types import Carry, Params, PRNGKey, Spec, Specs, TaskObs, TimeStep

MakeNetwork = Callable[[Specs, Spec, NetworkConfig], Network]


def of_tasks(
    make: MakeNetwork, observation_spec: Specs, action_spec: Spec, config: NetworkConfig
) -> Network:
    """The network of `make`, also for observations that are `TaskObs`.

    Of those it reads what the task shows, but not which one it is. The logits of
    actions that a task lacks are -inf.

    Args:
      make: a network whose outputs are (distribution of one of A actions, anything).
    """
    if not isinstance(observation_spec, TaskObs):
        return make(observation_spec, action_spec, config)
    inner = make(observation_spec.obs, action_spec, config)

    def shown(steps: TimeStep) -> TimeStep:
        return steps._replace(obs=steps.obs.obs)

    def masked(outputs: Any, steps: TimeStep) -> Any:
        policy, *rest = outputs
        logits = jnp.where(steps.obs.allowed, policy.logits, -jnp.inf)
        return policy._replace(logits=logits), *rest

    def init(key: PRNGKey, step: TimeStep) -> Params:
        return inner.init(key, shown(step))

    def of(function: Callable) -> Callable:
        def call(params: Params, carry: Carry, steps: TimeStep):
            outputs, carry = function(params, carry, shown(steps))
            return masked(outputs, steps), carry

        return call

    def with_features(params: Params, carry: Carry, steps: TimeStep):
        assert inner.with_features is not None
        told, carry = inner.with_features(params, carry, shown(steps))
        outputs, features = told
        return (masked(outputs, steps), features), carry

    return Network(
        init,
        inner.initial_carry,
        apply=of(inner.apply),
        unroll=of(inner.unroll),
        specs=(observation_spec, action_spec),
        with_features=None if inner.with_features is None else with_features,
    )
