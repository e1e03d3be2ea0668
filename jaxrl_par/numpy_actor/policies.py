"""From what the last layer gives, [K, B], to actions, part by part.

Parts of an action come in the order of their names, each with outputs of its own: a
logit for each action, for each action of every choice or, where a mask is one of
combinations, for each combination; a mean for each real number. Equations are those of
`jaxrl_par.distributions` and `jaxrl_par.joint`.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from .activations import ONE, ZERO
from .arrays import Arrays

HEADS = "params._Heads_0"
_LIMIT = ONE - np.float32(1e-6)
_IMPOSSIBLE = np.float32(-np.inf)


class Policy:
    """That of a whole action, a single one or a tree of parts."""

    def __init__(self, config: Mapping[str, Any], arrays: Arrays):
        self._action = action = config["action"]
        specs = action.get("parts", [action])
        masks = {
            x["of"]: i
            for i, x in enumerate(config["observations"])
            if x["kind"] == "mask"
        }
        self.masks = [masks.get(spec["name"]) for spec in specs]
        """By part, the place of its mask among the leaves of an observation."""
        number = sum(prod(x["shape"]) for x in specs if x["kind"] == "box")
        log_std = np.empty(0, np.float32)
        if number:
            log_std = arrays.get(f"{HEADS}.log_std", number)
        self._parts, begin = [], 0
        for spec, mask in zip(specs, self.masks, strict=True):
            if spec["kind"] == "box":
                end = begin + prod(spec["shape"])
                kind = config["network"]["policy"]
                self._parts.append(_Normal(spec, log_std[begin:end], kind))
                begin = end
            else:
                shape = None if mask is None else config["observations"][mask]["shape"]
                self._parts.append(_choices(spec, shape))
        self.sizes = [part.num_outputs for part in self._parts]
        ends = np.cumsum(self.sizes).tolist()
        self._rows = list(map(slice, [0, *ends], ends))

    def actions(
        self, outputs: np.ndarray, masks: Sequence[Any], rng: np.random.Generator | None
    ) -> Any:
        """As the environment takes them, int32 or float32 [B, ...]: the mode, or drawn.

        Args:
          masks: by part, booleans [K, B] or None.
        """
        found = [
            part.actions(rows, mask, rng)
            for part, rows, mask in zip(
                self._parts, self._apart(outputs), masks, strict=True
            )
        ]
        return action_of(self._action, found)

    def parameters(
        self, outputs: np.ndarray, masks: Sequence[Any]
    ) -> dict[str, np.ndarray]:
        """By name, [B, ...]; those of parts have the part's name before."""
        found = {}
        for name, part, rows, mask in zip(
            prefixes(self._action),
            self._parts,
            self._apart(outputs),
            masks,
            strict=True,
        ):
            own = part.parameters(rows, mask)
            found |= {f"{name}{key}": x for key, x in own.items()}
        return found

    def _apart(self, outputs: np.ndarray) -> list[np.ndarray]:
        return [outputs[rows] for rows in self._rows]


class _Categorical:
    """One action of A, one of all combinations, or one for each of H choices."""

    def __init__(self, spec: Mapping[str, Any]):
        self.num_outputs = spec["num_values"]
        self._start = np.int32(spec["start"])

    def actions(self, outputs, mask, rng) -> np.ndarray:
        """Int32 [B]."""
        return _chosen(_possible(outputs, mask), rng) + self._start

    def parameters(self, outputs, mask) -> dict[str, np.ndarray]:
        return {"logits": _possible(outputs, mask).T.copy()}


class _Heads:
    """An array of choices, each by itself."""

    def __init__(self, spec: Mapping[str, Any]):
        self._shape, self._start = tuple(spec["shape"]), np.int32(spec["start"])
        self._sizes = np.ravel(spec["nvec"])
        self.num_outputs = int(self._sizes.sum())
        self._ends = np.cumsum(self._sizes)[:-1]

    def actions(self, outputs, mask, rng) -> np.ndarray:
        """Int32 [B, *shape]."""
        parts = np.split(_possible(outputs, mask), self._ends)
        chosen = np.stack([_chosen(part, rng) for part in parts], axis=1)
        return chosen.reshape(-1, *self._shape) + self._start

    def parameters(self, outputs, mask) -> dict[str, np.ndarray]:
        """[B, H, A], where what a choice does not have is -inf."""
        most, padded = int(self._sizes.max()), []
        for part in np.split(_possible(outputs, mask), self._ends):
            if self._sizes.min() < most:
                # Where nothing is allowed all are alike, but for what is not there.
                part = np.where(part.max(axis=0) == _IMPOSSIBLE, ZERO, part)
            rest = ((0, most - len(part)), (0, 0))
            padded.append(np.pad(part, rest, constant_values=_IMPOSSIBLE))
        name = "logits" if len(self._shape) == 1 else "inner.logits"
        return {name: np.stack(padded).transpose(2, 0, 1).copy()}


class _Combination:
    """An array of choices that are made together."""

    def __init__(self, spec: Mapping[str, Any]):
        self._shape, self._start = tuple(spec["shape"]), np.int32(spec["start"])
        self._sizes = tuple(np.ravel(spec["nvec"]).tolist())
        self.num_outputs = prod(self._sizes)

    def actions(self, outputs, mask, rng) -> np.ndarray:
        """Int32 [B, *shape]."""
        index = _chosen(_possible(outputs, mask), rng)
        each = np.unravel_index(index, self._sizes)
        chosen = np.stack(each, axis=1).astype(np.int32)
        return chosen.reshape(-1, *self._shape) + self._start

    def parameters(self, outputs, mask) -> dict[str, np.ndarray]:
        inner = "" if len(self._shape) == 1 else "inner."
        return {f"{inner}choice.logits": _possible(outputs, mask).T.copy()}


def together(spec: Mapping[str, Any], mask: Sequence[int] | None) -> bool:
    """Whether a mask of that shape is one of all combinations of the choices."""
    return mask is not None and mask[-1] != int(np.sum(spec["nvec"]))


def _choices(spec: Mapping[str, Any], mask: Sequence[int] | None) -> Any:
    if spec["kind"] == "discrete":
        return _Categorical(spec)
    return (_Combination if together(spec, mask) else _Heads)(spec)


class _Normal:
    """An array of real numbers, within their bounds."""

    def __init__(self, spec: Mapping[str, Any], log_std: np.ndarray, kind: str):
        self._shape = shape = tuple(spec["shape"])
        self.num_outputs = prod(shape)
        self._equal = {"log_std": log_std}
        self._low = low = bounds(spec["low"], shape, -np.inf)
        self._high = high = bounds(spec["high"], shape, np.inf)
        if kind == "squashed":
            self._equal |= {
                "centre": low / 2 + high / 2,
                "half_width": (high - low) / 2,
            }

    def actions(self, outputs, mask, rng) -> np.ndarray:
        """Float32 [B, *shape]."""
        if rng is not None:
            noise = rng.standard_normal(outputs.shape, dtype=np.float32)
            outputs = outputs + np.exp(self._equal["log_std"])[:, None] * noise
        if "centre" in self._equal:
            unit = np.clip(np.tanh(outputs), -_LIMIT, _LIMIT).T
            actions = self._equal["centre"] + self._equal["half_width"] * unit
        else:
            actions = outputs.T.copy()
        np.maximum(actions, self._low, out=actions)
        np.minimum(actions, self._high, out=actions)
        return actions.reshape(-1, *self._shape)

    def parameters(self, outputs, mask) -> dict[str, np.ndarray]:
        """[B, A]; of a squashed one, centre and half_width too."""
        rows = outputs.T.copy()
        equal = {name: np.tile(x, (len(rows), 1)) for name, x in self._equal.items()}
        inner = "" if len(self._shape) == 1 else "inner."
        return {f"{inner}{name}": x for name, x in ({"mean": rows} | equal).items()}


def bounds(given: Any, shape: tuple[int, ...], none: float) -> np.ndarray:
    """Float32 [A] of one number or one for each, of which null stands for none."""
    numbers = np.asarray(given, np.float64)  # null becomes NaN
    found = np.where(np.isnan(numbers), none, numbers).astype(np.float32)
    return np.broadcast_to(found, shape).reshape(-1)


def prefixes(action: Mapping[str, Any]) -> list[str]:
    """What parameters of each part's policy have before their names."""
    return _prefixes(action["tree"], "parts.") if "tree" in action else [""]


def _prefixes(tree: Any, before: str) -> list[str]:
    if isinstance(tree, int):
        return [before]
    is_dict = tree["kind"] == "dict"
    parts = tree["parts"].items() if is_dict else enumerate(tree["parts"])
    return [x for key, part in parts for x in _prefixes(part, f"{before}{key}.")]


def action_of(action: Mapping[str, Any], found: Sequence[Any]) -> Any:
    """What was found for the parts of an action that was described, in their tree: a
    dict by name, a tuple or list by place."""
    return _filled(action.get("tree", 0), found)


def _filled(tree: Any, found: Sequence[Any]) -> Any:
    if isinstance(tree, int):
        return found[tree]
    parts = tree["parts"]
    if tree["kind"] == "dict":
        return {key: _filled(part, found) for key, part in parts.items()}
    made = [_filled(part, found) for part in parts]
    return tuple(made) if tree["kind"] == "tuple" else made


def _possible(logits: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    return logits if mask is None else np.where(mask, logits, _IMPOSSIBLE)


def _chosen(logits: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """Int32 [B], the likeliest of [A, B], or drawn by softmax(logits)."""
    if rng is None:
        return logits.argmax(axis=0).astype(np.int32)
    largest = logits.max(axis=0)
    # Where nothing is possible all are alike: such a row ends an episode.
    none = largest == _IMPOSSIBLE
    weights = np.exp(np.where(none, ZERO, logits - np.where(none, ZERO, largest)))
    below = weights.cumsum(axis=0)
    # Below the total even when rounded: an action of weight 0 is never drawn.
    draw = rng.random(logits.shape[1], dtype=np.float32) * below[-1]
    return np.count_nonzero(draw >= below[:-1], axis=0).astype(np.int32)
