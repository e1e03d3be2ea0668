"""Values of many actions in each state: the state is read once, for all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import features
from jaxrl_par.networks.continuous import units_of
from jaxrl_par.networks.features import NetworkConfig, Static
from jaxrl_par.networks.layers import Linear
from jaxrl_par.types import Params, PRNGKey, Specs, TimeStep

_FIRST = -3.0
"""Logits at first, which are probabilities of 5 %. From 50 % on they would have to sink
where nothing pays, by a factor of gamma in each sweep, before what pays is seen."""


class CandidateValues(NamedTuple):
    """A network in two parts."""

    init: Callable[[PRNGKey, TimeStep], Params]
    embed: Callable[[Params, TimeStep], Float[Array, "N D"]]
    """What is seen in N states [N, ...]: images, numbers, or both."""
    logits: Callable[
        [Params, Float[Array, "N D"], Float[Array, "N C A"]], Float[Array, "N C"]
    ]
    """From that, logits of the values of C unit actions in each state."""
    specs: tuple[Specs, Specs]
    """Those of observations and actions that it was made for."""


def candidate_values(
    observation_spec: Specs, action_spec: Specs, config: NetworkConfig = NetworkConfig()
) -> CandidateValues:
    """A network of the values of unit actions: see `networks.continuous`.

    Behind the torso, which reads the state alone, the embeddings of state and action
    are added, and two dense layers as wide as the torso's last one read the sum.

    Args:
      config: without memory; `shared` and `policy` are for actor-critics, and change
        nothing here.

    Raises:
      ValueError: the config does not fit the specs.
      RefusedError: as `units_of`, the config has memory, or no dense layer.

    Source: Kalashnikov et al., arXiv:1806.10293, figure 12, where the action is added
    to the image's features too.
    """
    units_of(action_spec)
    features.check(observation_spec, config)
    if config.memory != "none":
        raise RefusedError(
            f"network.memory must be none here, got {config.memory}: values of actions"
            " are learned from single transitions"
        )
    if not config.widths:
        raise RefusedError("network.widths must have a layer, to join the action to")
    specs = Static(observation_spec, action_spec)
    torso: Any = features.Torso(specs, config)
    head: Any = _Logits(config)

    def init(key: PRNGKey, step: TimeStep) -> Params:
        torso_key, head_key = jax.random.split(key)
        torso_params = torso.init(torso_key, step.obs)
        seen = torso.apply(torso_params, step.obs)
        unit = jnp.zeros((seen.shape[0], 1, *action_spec.shape), jnp.float32)
        return {"torso": torso_params, "logits": head.init(head_key, seen, unit)}

    return CandidateValues(
        init=init,
        embed=lambda params, steps: torso.apply(params["torso"], steps.obs),
        logits=lambda params, seen, unit: head.apply(params["logits"], seen, unit),
        specs=(observation_spec, action_spec),
    )


class _Logits(nn.Module):
    config: NetworkConfig

    @nn.compact
    def __call__(
        self, seen: Float[Array, "N D"], unit: Float[Array, "N C A"]
    ) -> Float[Array, "N C"]:
        width, activation = self.config.widths[-1], self.config.function
        num_states, num_candidates, size = unit.shape
        state = Linear(width, name="state")(seen.astype(jnp.float32))
        action = Linear(width, name="action")(unit.reshape(-1, size))
        x = state[:, None] + action.reshape(num_states, num_candidates, width)
        x = activation(x).reshape(-1, width)
        x = activation(Linear(width, name="joined")(x))
        logits = Linear(1, scale=0.1, name="logit")(x) + _FIRST
        return logits.reshape(num_states, num_candidates)
