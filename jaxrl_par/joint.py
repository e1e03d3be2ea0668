"""Distributions over actions of several parts, each of which is one action.

Given what was seen, parts are independent of each other, or one choice among all of
their combinations. So a row has one log-probability, that of all parts together, one
ratio of it to that of another policy, and one entropy, which is that of the
distribution and not of what was drawn.

As in `distributions`, leaves are [*B, ...] and what is computed of them [*B], in nats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrl_par.distributions import Categorical, Distribution
from jaxrl_par.types import Action, PRNGKey


@jax.tree_util.register_static
@dataclass(frozen=True)
class Shape:
    """Lengths of axes, which are part of a pytree's structure and no leaf of it."""

    sizes: tuple[int, ...]


class Heads(NamedTuple):
    """H choices, head h among N_h actions of its own. Actions are [*B, H]."""

    logits: Float[Array, "*B H N"]
    """N is the largest N_h. What a head does not have is -inf, as in `Categorical`."""

    @property
    def _each(self) -> Categorical:
        return Categorical(self.logits)

    def sample(self, key: PRNGKey) -> Int[Array, "*B H"]:
        return self._each.sample(key)

    def sample_and_log_prob(
        self, key: PRNGKey
    ) -> tuple[Int[Array, "*B H"], Float[Array, "*B"]]:
        action = self.sample(key)
        return action, self.log_prob(action)

    def mode(self) -> Int[Array, "*B H"]:
        return self._each.mode()

    def log_prob(self, action: Int[Array, "*B H"]) -> Float[Array, "*B"]:
        return jnp.sum(self._each.log_prob(action), axis=-1)

    def entropy(self) -> Float[Array, "*B"]:
        return jnp.sum(self._each.entropy(), axis=-1)

    def kl(self, other: "Heads") -> Float[Array, "*B"]:
        """KL(self || other)."""
        _refuse_others(self, other)
        return jnp.sum(self._each.kl(other._each), axis=-1)


class Combination(NamedTuple):
    """H choices that are made together, by one head over all of their combinations:
    only so can some combinations be impossible whose parts are not. Actions are
    [*B, H]."""

    choice: Categorical
    """[*B, the product of sizes], the last choice changing fastest."""
    sizes: Shape
    """Actions of each choice."""

    @property
    def _strides(self) -> list[int]:
        sizes = self.sizes.sizes
        return [prod(sizes[i + 1 :]) for i in range(len(sizes))]

    def _apart(self, index: Int[Array, "*B"]) -> Int[Array, "*B H"]:
        parts = zip(self._strides, self.sizes.sizes, strict=True)
        digits = [index // stride % size for stride, size in parts]
        return jnp.stack(digits, axis=-1)

    def sample(self, key: PRNGKey) -> Int[Array, "*B H"]:
        return self._apart(self.choice.sample(key))

    def sample_and_log_prob(
        self, key: PRNGKey
    ) -> tuple[Int[Array, "*B H"], Float[Array, "*B"]]:
        index, log_prob = self.choice.sample_and_log_prob(key)
        return self._apart(index), log_prob

    def mode(self) -> Int[Array, "*B H"]:
        return self._apart(self.choice.mode())

    def log_prob(self, action: Int[Array, "*B H"]) -> Float[Array, "*B"]:
        index = sum(action[..., i] * stride for i, stride in enumerate(self._strides))
        sizes = np.broadcast_to(np.array(self.sizes.sizes, np.int32), action.shape)
        exists = jnp.all((action >= 0) & (action < sizes), axis=-1)
        # Beyond its own, a choice would be taken for another combination.
        return self.choice.log_prob(jnp.where(exists, index, -1))

    def entropy(self) -> Float[Array, "*B"]:
        return self.choice.entropy()

    def kl(self, other: "Combination") -> Float[Array, "*B"]:
        """KL(self || other)."""
        _refuse_others(self, other)
        return self.choice.kl(other.choice)


class Reshaped(NamedTuple):
    """A distribution over vectors [*B, A], whose actions are arrays [*B, *shape]."""

    inner: Any
    shape: Shape

    def _array(self, vector: Array) -> Array:
        return vector.reshape(*vector.shape[:-1], *self.shape.sizes)

    def sample(self, key: PRNGKey) -> Array:
        return self._array(self.inner.sample(key))

    def sample_and_log_prob(self, key: PRNGKey) -> tuple[Array, Float[Array, "*B"]]:
        vector, log_prob = self.inner.sample_and_log_prob(key)
        return self._array(vector), log_prob

    def mode(self) -> Array:
        return self._array(self.inner.mode())

    def log_prob(self, action: Array) -> Float[Array, "*B"]:
        batch = action.shape[: action.ndim - len(self.shape.sizes)]
        return self.inner.log_prob(action.reshape(*batch, -1))

    def entropy(self) -> Float[Array, "*B"]:
        return self.inner.entropy()

    def kl(self, other: "Reshaped") -> Float[Array, "*B"]:
        """KL(self || other)."""
        _refuse_others(self, other)
        return self.inner.kl(other.inner)


class Joint(NamedTuple):
    """A distribution for each part of an action, by its name."""

    parts: Any
    """In the tree that actions and their specs have."""

    def sample(self, key: PRNGKey) -> Action:
        return _of_each(lambda part, key: part.sample(key), self.parts, self._keys(key))

    def sample_and_log_prob(self, key: PRNGKey) -> tuple[Action, Float[Array, "*B"]]:
        parts, tree = jax.tree.flatten(self.parts, is_leaf=_is_part)
        keys = tree.flatten_up_to(self._keys(key))
        drawn = [x.sample_and_log_prob(k) for x, k in zip(parts, keys, strict=True)]
        actions, log_probs = zip(*drawn, strict=True)
        return tree.unflatten(actions), reduce(add, log_probs)

    def mode(self) -> Action:
        return _of_each(lambda part: part.mode(), self.parts)

    def log_prob(self, action: Action) -> Float[Array, "*B"]:
        return _total(lambda part, x: part.log_prob(x), self.parts, action)

    def entropy(self) -> Float[Array, "*B"]:
        return _total(lambda part: part.entropy(), self.parts)

    def kl(self, other: "Joint") -> Float[Array, "*B"]:
        """KL(self || other)."""
        _refuse_others(self, other)
        return _total(lambda part, x: part.kl(x), self.parts, other.parts)

    def _keys(self, key: PRNGKey) -> Any:
        tree = jax.tree.structure(self.parts, is_leaf=_is_part)
        return tree.unflatten(list(jax.random.split(key, tree.num_leaves)))


def _is_part(x: Any) -> bool:
    return isinstance(x, Distribution)


def _of_each(function: Callable[..., Any], parts: Any, *others: Any) -> Any:
    """`function` of each part, and of what the others have by its name."""
    return jax.tree.map(function, parts, *others, is_leaf=_is_part)


def _total(function: Callable[..., Array], parts: Any, *others: Any) -> Array:
    found, tree = jax.tree.flatten(parts, is_leaf=_is_part)
    rest = [tree.flatten_up_to(x) for x in others]
    return reduce(add, (function(*xs) for xs in zip(found, *rest, strict=True)))


def _refuse_others(one: Any, other: Any) -> None:
    """Accepts two of one structure: parts of the same names and kinds."""
    trees = [jax.tree.structure(x) for x in (one, other)]
    if trees[0] != trees[1]:
        raise ValueError(
            "policies of one kind have a KL: give both networks the same actions, masks"
            f" and `policy`, got {type(one).__name__} and {type(other).__name__} of"
            " other parts"
        )
