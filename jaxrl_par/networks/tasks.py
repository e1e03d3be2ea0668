"""One network for several tasks, which it tells apart by what they show."""

from collections.abc import Callable

from jaxrl_par.networks.base import Network
from jaxrl_par.networks.features import NetworkConfig
from jaxrl_par.types import (
    Carry,
    Masked,
    Params,
    PRNGKey,
    Specs,
    TaskObs,
    TimeStep,
)

MakeNetwork = Callable[[Specs, Specs, NetworkConfig], Network]


def of_tasks(
    make: MakeNetwork,
    observation_spec: Specs,
    action_spec: Specs,
    config: NetworkConfig,
) -> Network:
    """The network of `make`, also for observations that are `TaskObs`.

    Of those it reads what the task shows, but not which one it is. The actions that a
    task lacks are masked.

    Args:
      make: a network for observations that are `Masked`.
    """
    if not isinstance(observation_spec, TaskObs):
        return make(observation_spec, action_spec, config)
    masked = Masked(observation_spec.obs, observation_spec.allowed)
    inner = make(masked, action_spec, config)

    def shown(steps: TimeStep) -> TimeStep:
        return steps._replace(obs=Masked(steps.obs.obs, steps.obs.allowed))

    def init(key: PRNGKey, step: TimeStep) -> Params:
        return inner.init(key, shown(step))

    def of(function: Callable) -> Callable:
        def call(params: Params, carry: Carry, steps: TimeStep):
            return function(params, carry, shown(steps))

        return call

    with_features = inner.with_features
    return Network(
        init,
        inner.initial_carry,
        apply=of(inner.apply),
        unroll=of(inner.unroll),
        specs=(observation_spec, action_spec),
        with_features=None if with_features is None else of(with_features),
    )
