"""Trees without JAX are those of JAX."""

from collections import namedtuple

import jax
import numpy as np
import pytest

from jaxrl_par import trees

Pair = namedtuple("Pair", "left right")
TREES = [
    1,
    (),
    None,
    {"b": 1, "a": (2, [3, None])},
    Pair({"x": 1}, (2, Pair(3, 4))),
    [{"2": 1, "10": 2}],
]


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_leaves_and_where_they_are_come_in_the_order_of_jax(tree):
    pairs = jax.tree.leaves_with_path(tree)
    assert trees.leaves(tree) == [leaf for _, leaf in pairs]
    assert trees.paths(tree) == [jax.tree_util.keystr(path) for path, _ in pairs]
    doubled = trees.map_leaves(lambda x, y: x + y, tree, tree)
    expected = jax.tree.map(lambda x: 2 * x, tree)
    assert doubled == expected and type(doubled) is type(expected)


@pytest.mark.parametrize(
    "other",
    [{"a": 1, "b": 2}, {"a": (1, 2)}, (1, 2), 3, {"a": [1]}, {"a": (1,), "c": 1}],
)
def test_another_structure_is_refused(other):
    with pytest.raises(ValueError, match=r"is n"):
        trees.map_leaves(lambda x, y: x, {"a": (1,)}, other)


def test_an_array_is_a_leaf_of_any_shape():
    assert trees.structure({"a": (np.zeros((2, 3)), None)}) == (
        "dict(['a']: tuple([0]: *, [1]: NoneType()))"
    )
