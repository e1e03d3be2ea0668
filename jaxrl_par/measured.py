"""What a metric is: each module declares those that it records, by name, in `METRICS`.

`python -m jaxrl_par.training.metrics` prints all of them.
"""

from typing import NamedTuple


class Metric(NamedTuple):
    """One number of a row of metrics.jsonl. A name that ends in `*` stands for several.

    Numbers of a row are means over the updates since the row before, if nothing else is
    said.
    """

    unit: str  # "1" for a number without one
    meaning: str
