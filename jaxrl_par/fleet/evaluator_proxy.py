"""An evaluator that plays in another process."""

from typing import Any

from jaxrl_par.bridge.generations.evaluator import Evaluator, Task
from jaxrl_par.fleet.arrays import own
from jaxrl_par.fleet.messages import NoParameters
from jaxrl_par.fleet.proxy import Proxy
from jaxrl_par.fleet.published import Published
from jaxrl_par.loops.generations import Played


class FleetEvaluator(Proxy, Evaluator):
    """Plays in another process, with parameters that are pulled there."""

    def __init__(self, *arguments: Any, published: Published, **options: Any):
        super().__init__(*arguments, **options)
        self._published = published

    @property
    def rows_per_unroll(self) -> int:
        """Of a part nobody knows: as many as were seen when it was looked at last."""
        return self._in_progress

    def evaluate(self, task: Task) -> Played | None:
        """As `Evaluator.evaluate`, with parameters of the part's generation, which it
        pulls."""
        where = task.generation, task.part, task.cap
        while True:
            holder = self._published.holder
            played = self._asked("work", self.next_unroll, holder, *where)
            if not isinstance(played, NoParameters):
                self.next_unroll += 1
                return own(played)
            # It has not begun: the same part, from another holder.
            self._published.replace(holder, played.told)
