"""One device, many updates in each call (Anakin): the loop is inside the program.

Everything that happens between two looks at the metrics is one compiled call, so that
neither Python nor a transfer to the host stands between two updates.

Source: Hessel et al., arXiv:2104.06272, section 2.
"""

from collections.abc import Callable

import jax

from jaxrl_par.loops import Program, Run
from jaxrl_par.types import Metrics


def scanned(program: Program, num_updates: int) -> Callable[[Run], tuple[Run, Metrics]]:
    """`num_updates` steps of `program` in one call; metrics are stacked [num_updates].

    `num_updates` calls of one give the same numbers as one call of `num_updates`,
    because all randomness is drawn from the run's own key and counter.

    Raises:
      ValueError: `num_updates` is below 1.
    """
    if num_updates < 1:
        raise ValueError(f"num_updates must be at least 1, got {num_updates}")

    def call(run: Run) -> tuple[Run, Metrics]:
        return jax.lax.scan(lambda run, _: program.step(run), run, length=num_updates)

    return call
