"""An ensemble of networks that learn what actions do, each from its own sample.

Of each row (o, a, r, o') member e learns, in units of the rows so far,

    (o' - o - mean) / std  and  (r - mean) / std     by squared errors
    whether a terminated the episode                  by cross-entropy

    L[e] = mean over rows of n[e] (mean squared error + cross-entropy)

n[e] is how often the member sees the row: a bootstrap, in which rows are drawn with
replacement. It is drawn where the row is acted, by Poisson(1), and is part of it: so it
stays the same as long as the row is kept, and is a new one in the row that takes its
place. Drawn anew for each batch, all members would soon have seen all rows, and
disagree no more than their initial parameters do. A row that no member sees is held
out: it measures the error.

The means and deviations are part of the state, and the only ones: what is learned, what
is predicted and what is measured at the same update is in the same units.

Sources: Sutton, Dyna (1990), for the use; Chua et al., arXiv:1805.12114, section 4, for
ensembles of bootstraps; Oza and Russell, Online bagging and boosting (2001), for counts
that are Poisson's.
"""

from jaxrl_par.algorithms.world_model.config import WorldModelConfig, drawn_members
from jaxrl_par.algorithms.world_model.ensemble import (
    WorldModelState,
    gradient,
    observed,
    predicted,
    world_model,
)
from jaxrl_par.algorithms.world_model.rows import in_units, rows_of

__all__ = [
    "WorldModelConfig",
    "WorldModelState",
    "drawn_members",
    "gradient",
    "in_units",
    "observed",
    "predicted",
    "rows_of",
    "world_model",
]
