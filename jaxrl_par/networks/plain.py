"""What `numpy_actor` needs to know of a network, in plain numbers and names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxrl_par.distributions import Distribution
from jaxrl_par.masks import allowed
from jaxrl_par.networks import heads
from jaxrl_par.networks.features import NetworkConfig, chosen_torso
from jaxrl_par.networks.observations import layout, scale
from jaxrl_par.types import (
    Discrete,
    Masked,
    MultiDiscrete,
    Params,
    PlainPolicy,
    Spec,
    Specs,
    example,
)

_KNOWN = {"compute_dtype": ("float32",)}


def plain(
    observation_spec: Specs, action_spec: Specs, config: NetworkConfig
) -> PlainPolicy | None:
    """The policy of `actor_critic` without JAX; None where NumPy does not know it."""
    if not for_numpy(config, observation_spec):
        return None
    two_memories = config.memory != "none" and not config.shared

    def arrays(params: Params) -> dict[str, Array]:
        pairs = _by_name(params)
        return pairs if config.shared else without_critic(pairs)

    def distribution(**parameters: Any) -> Distribution:
        mask = allowed(example(observation_spec, 1))
        number = heads.num_outputs(action_spec, allowed(observation_spec))
        shapes = (jnp.zeros((1, number)), jnp.zeros(heads.num_reals(action_spec)))
        like = jax.eval_shape(
            partial(heads.distribution, action_spec, config.policy), *shapes, mask
        )
        leaves = [parameters[name] for name in _by_name(like)]
        return jax.tree.structure(like).unflatten(leaves)

    def told() -> dict[str, Any]:
        there = described(observation_spec, action_spec, config)
        return there | {"normalization": None}

    keeps_all = not two_memories and not _has_fields(action_spec)
    return PlainPolicy(told, arrays, distribution, keeps_all)


def of_part(
    policy: PlainPolicy | None, name: str, *, whole: bool = True
) -> PlainPolicy | None:
    """The policy of a network that has another one's parameters under that name.

    Args:
      whole: the other one's memory is all that this one has.
    """
    if policy is None:
        return None
    arrays = lambda params: policy.arrays(params[name])  # noqa: E731
    return policy._replace(arrays=arrays, whole=policy.whole and whole)


def described(
    observation_spec: Specs, action_spec: Specs, config: NetworkConfig
) -> dict[str, Any]:
    """The network and what it reads and gives, as JSON has it.

    Observations and an action's parts come in the order of `jax.tree`. Those that are a
    mask have the kind "mask", and are not read by the network; of which part of the
    action they are says "of". An action of parts has a "tree" too, in which each is a
    number.
    """
    torso = chosen_torso(observation_spec, config.torso)
    return {
        "network": asdict(config) | {"torso": torso},
        "observations": _observations(observation_spec),
        "action": _action(action_spec),
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
    shared = {"name": "action", "kind": "parts", "parts": parts}
    return shared | {"tree": _tree(specs, count())}


def _tree(specs: Specs, numbers: Iterator[int]) -> int | dict[str, Any]:
    """What an action of parts is, with their numbers in their places. A NamedTuple is
    told as a dict."""
    if isinstance(specs, dict):
        inner: Any = {name: _tree(specs[name], numbers) for name in sorted(specs)}
        return {"kind": "dict", "parts": inner}
    if isinstance(specs, tuple | list):
        names = getattr(specs, "_fields", None)
        inner = [_tree(x, numbers) for x in specs]
        if names is not None:
            return {"kind": "dict", "parts": dict(zip(names, inner, strict=True))}
        return {"kind": type(specs).__name__, "parts": inner}
    return next(numbers)


def _has_fields(specs: Specs) -> bool:
    """Whether there is a NamedTuple in the tree."""
    inner = specs.values() if isinstance(specs, dict) else specs
    if not isinstance(specs, dict | tuple | list):
        return False
    return hasattr(specs, "_fields") or any(map(_has_fields, inner))


def _by_name(tree: Any) -> dict[str, Any]:
    """Leaves by their dotted path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _spec(spec: Spec, name: str) -> dict[str, Any]:
    shared = {"name": name, "shape": spec.shape, "dtype": str(np.dtype(spec.dtype))}
    if isinstance(spec, Discrete):
        found = {"kind": "discrete", "num_values": spec.num_values}
        return shared | found | {"start": spec.start}
    if isinstance(spec, MultiDiscrete):
        found = {"nvec": spec.nvec.tolist(), "start": spec.start.tolist()}
        return shared | {"kind": "multi_discrete"} | found
    low, high = spec.inner if name.startswith("action") else (spec.low, spec.high)
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
