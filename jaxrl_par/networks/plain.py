"""What `numpy_actor` needs to know of a network, in plain numbers and names."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from jaxrl_par.distributions import Categorical, DiagNormal, SquashedNormal
from jaxrl_par.masks import masks
from jaxrl_par.networks.features import NetworkConfig, chosen_torso
from jaxrl_par.networks.observations import layout, scale
from jaxrl_par.types import (
    Box,
    Discrete,
    Masked,
    MultiDiscrete,
    Params,
    PlainPolicy,
    Spec,
    Specs,
)

_KNOWN = {
    "torso": ("mlp", "conv"),
    "memory": ("none", "lstm", "gru"),
    "compute_dtype": ("float32",),
}


def plain(
    observation_spec: Specs, action_spec: Specs, config: NetworkConfig
) -> PlainPolicy | None:
    """The policy of `actor_critic` without JAX; None where NumPy does not know it, or
    where its critic has a memory of its own, which only JAX would keep."""
    two_memories = config.memory != "none" and not config.shared
    if two_memories or not for_numpy(config, observation_spec):
        return None
    vector = isinstance(action_spec, Box) and len(action_spec.shape) == 1
    if masks(observation_spec) or not (vector or isinstance(action_spec, Discrete)):
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
    observation_spec: Specs, action_spec: Specs, config: NetworkConfig
) -> dict[str, Any]:
    """The network and what it reads and gives, as JSON has it.

    Observations and an action's parts come in the order of `jax.tree`. Those that are a
    mask have the kind "mask", and are not read by the network; of which part of the
    action they are says "of".
    """
    torso = chosen_torso(observation_spec, config.torso)
    return {
        "network": asdict(config) | {"torso": torso},
        "observations": _observations(observation_spec),
        "action": _action(action_spec),
    }


def unknown(network: Mapping[str, Any]) -> list[str]:
    """What of a network that was described NumPy does not know."""
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


def _observations(specs: Specs) -> list[dict[str, Any]]:
    """Each leaf, those that are masks as such."""
    named = _named(specs, Spec)
    prefixes = [f"{name}.allowed" for name in _named(specs, Masked | Spec, Masked)]
    found = []
    for name, spec in named.items():
        leaf = _spec(spec, name)
        for prefix in prefixes:
            if name.startswith(prefix):
                leaf |= {"kind": "mask", "of": f"action{name.removeprefix(prefix)}"}
        found.append(leaf)
    return found


def _named(specs: Specs, leaves: Any, kind: Any = object) -> dict[str, Any]:
    """What is a leaf, and of that kind, by its place."""
    found = jax.tree.leaves_with_path(specs, is_leaf=lambda x: isinstance(x, leaves))
    named = {f"obs{jax.tree_util.keystr(path)}": x for path, x in found}
    return {name: x for name, x in named.items() if isinstance(x, kind)}


def _action(specs: Specs) -> dict[str, Any]:
    """A single one, or its parts by name."""
    if isinstance(specs, Spec):
        return _spec(specs, "action")
    found = jax.tree.leaves_with_path(specs, is_leaf=lambda x: isinstance(x, Spec))
    parts = [_spec(x, f"action{jax.tree_util.keystr(path)}") for path, x in found]
    return {"name": "action", "kind": "parts", "parts": parts}


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
