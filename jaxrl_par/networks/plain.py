"""What `numpy_actor` needs to know of a network, in plain numbers and names."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from jaxrl_par.distributions import Categorical, DiagNormal, SquashedNormal
from jaxrl_par.networks.features import NetworkConfig, chosen_torso
from jaxrl_par.networks.observations import layout, scale
from jaxrl_par.types import (
    Discrete,
    MultiDiscrete,
    Params,
    PlainPolicy,
    Spec,
    Specs,
)

_KNOWN = {"compute_dtype": ("float32",)}


def plain(
    observation_spec: Specs, action_spec: Spec, config: NetworkConfig
) -> PlainPolicy | None:
    """The policy of `actor_critic` without JAX; None where NumPy does not know it, or
    where its critic has a memory of its own, which only JAX would keep."""
    two_memories = config.memory != "none" and not config.shared
    if two_memories or not for_numpy(config, observation_spec):
        return None
    kind = SquashedNormal if config.policy == "squashed" else DiagNormal
    kind = Categorical if isinstance(action_spec, Discrete) else kind

    def arrays(params: Params) -> dict[str, Array]:
        pairs = {
            jax.tree_util.keystr(path, simple=True, separator="."): leaf
            for path, leaf in jax.tree.leaves_with_path(params)
        }
        return pairs if config.shared else without_critic(pairs)

    def whole() -> dict[str, Any]:
        there = described(observation_spec, action_spec, config)
        return there | {"normalization": None}

    return PlainPolicy(whole, arrays, kind)


def described(
    observation_spec: Specs, action_spec: Spec, config: NetworkConfig
) -> dict[str, Any]:
    """The network and what it reads and gives, as JSON has it."""
    torso = chosen_torso(observation_spec, config.torso)
    observations = jax.tree.leaves_with_path(
        observation_spec, is_leaf=lambda x: isinstance(x, Spec)
    )
    return {
        "network": asdict(config) | {"torso": torso},
        "observations": [
            _spec(spec, f"obs{jax.tree_util.keystr(path)}")
            for path, spec in observations
        ],
        "action": _spec(action_spec, "action"),
    }


def unknown(network: Mapping[str, Any]) -> list[str]:
    """What of a network that was described NumPy and ONNX do not know."""
    return [
        f"{name} = {network[name]}; it knows {', '.join(known)}"
        for name, known in _KNOWN.items()
        if network[name] not in known
    ]


def for_numpy(network: NetworkConfig, observation_spec: Specs) -> bool:
    """Whether `numpy_actor` knows the network."""
    torso = chosen_torso(observation_spec, network.torso)
    return not unknown(asdict(network) | {"torso": torso})


def without_critic(named: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by name, without those that only values depend on."""
    return {name: x for name, x in named.items() if not _is_critic(name)}


def named_statistics(
    moments: Any, observations: Sequence[Mapping[str, Any]]
) -> dict[str, Array]:
    """Statistics of normalised observations, which are those of real numbers.

    Args:
      moments: `mean` and `variance`, each with the leaves of an observation.
      observations: as `described`.
    """
    return {
        f"statistics.{name}.{index}": leaf
        for name in ("mean", "variance")
        for index, leaf in enumerate(jax.tree.leaves(getattr(moments, name)))
        if np.issubdtype(observations[index]["dtype"], np.floating)
    }


def _is_critic(name: str) -> bool:
    *modules, last = name.split(".")
    of_critic = any(x.startswith("critic") for x in modules)
    return of_critic or last in ("value", "value_bias")


def _spec(spec: Spec, name: str) -> dict[str, Any]:
    shared = {"name": name, "shape": spec.shape, "dtype": str(np.dtype(spec.dtype))}
    if isinstance(spec, Discrete):
        found = {"kind": "discrete", "num_values": spec.num_values}
        return shared | found | {"start": spec.start}
    if isinstance(spec, MultiDiscrete):
        found = {"nvec": spec.nvec.tolist(), "start": spec.start.tolist()}
        return shared | {"kind": "multi_discrete"} | found
    low, high = spec.inner if name == "action" else (spec.low, spec.high)
    bounds = {"low": _bound(low), "high": _bound(high)}
    box = shared | {"kind": "box", "channels": layout(spec)} | bounds
    if np.issubdtype(spec.dtype, np.integer):
        low, width = scale(spec)
        box["scale"] = {"low": low.tolist(), "width": width.tolist()}
    return box


def _bound(bound: Any) -> float | list | None:
    """One number if all are equal, None where there is no bound."""
    bound = np.asarray(bound, np.float64)
    if np.all(bound == bound.flat[:1]):
        bound = bound.flat[0]
    known: Any = np.where(np.isfinite(bound), bound.astype(object), None)
    return known.tolist()
