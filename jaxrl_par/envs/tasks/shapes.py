"""What is wrong with a family of tasks, known before any is drawn."""

from typing import Any

import jax
import numpy as np

from jaxrl_par.envs.tasks.base import Tasks
from jaxrl_par.errors import RefusedError, told


def refuse_other_shapes(tasks: Any) -> None:
    """Accepts a family whose tasks are parameters of its environment. JAX would not
    notice an arm too few: an index beyond the end is that of the last one.

    Raises:
      RefusedError: it is none, or a task has other fields or shapes than
        `env.default_params`.
    """
    if not isinstance(tasks, Tasks):
        raise RefusedError(
            "tasks must be a family, Tasks(env, draw), as envs.tasks.bandits makes,"
            f" got {told(tasks)}"
        )
    default = tasks.env.default_params
    drawn = jax.eval_shape(tasks.draw, jax.random.key(0))
    expected, actual = _shapes(default), _shapes(drawn)
    for name in sorted({*expected, *actual}, key=str):
        if expected.get(name) != actual.get(name):
            raise RefusedError(
                f"tasks of {tasks.env.name} must have the shapes of its default_params:"
                f" {name} is {expected.get(name, 'no field')} there, and"
                f" {actual.get(name, 'no field')} in a task that is drawn"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """By path."""
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path)[1:]: np.shape(leaf) for path, leaf in leaves}
