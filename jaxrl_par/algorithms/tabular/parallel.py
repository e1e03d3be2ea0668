"""One table from those of W workers.

Workers without a common table learn apart under `jax.vmap`, and `averaged` joins what
they learned. Workers that share a table and meet at every step are those of
`learned_values` and `learned_action_values`. Workers that meet after many steps, each
with a copy, give their changes to `accumulated`: to write the copy back instead, as
lecture 3 puts it, would lose the changes of all but the last.

Source: Elster, Mustafaoglu and Pingali, Parallel reinforcement learning, lecture 3,
after Mnih et al., arXiv:1602.01783.
"""

import jax
import jax.numpy as jnp

from jaxrl_par.algorithms.tabular.tables import Table


def averaged(tables: Table) -> Table:
    """The mean of W tables, leaves [W, ...], entry by entry, weighted by visits.

        x = sum_w n_w x_w / sum_w n_w,   n = sum_w n_w

    Where nobody was, the plain mean. With the harmonic rule and targets that contain no
    values it is the table of a single worker that saw all targets.
    """
    totals = jnp.sum(tables.visits, axis=0)
    weights = jnp.where(totals == 0, 1, tables.visits)
    weighted = jnp.sum(weights * tables.values, axis=0) / jnp.sum(weights, axis=0)
    return Table(weighted, totals)


def accumulated(start: Table, workers: Table) -> Table:
    """`start` plus what each of W workers changed in its copy, leaves [W, ...].

        x <- x + sum_w (x_w - x)

    Entries that several workers changed move by the sum: small steps are needed.
    """
    return jax.tree.map(lambda x, y: x + jnp.sum(y - x, axis=0), start, workers)
