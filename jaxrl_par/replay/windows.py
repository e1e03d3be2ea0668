"""Windows: which rows of the unrolls that are kept make a batch.

    rows    burn-in .. | trained ...... | lookahead ..
            only memory  gradients        rewards and values of n-step targets

The trained rows of all windows tile an unroll, so each is trained as often as every
other. Where an unroll ends within the lookahead, the window has a `last` row there:
targets bootstrap from the final observation, after fewer steps.

With memory, a window begins where the carry is known, and is that of acting: it is kept
for the first row of each window, and for no other. The first window of an unroll has no
rows to burn in: its first trained row has the carry of acting itself.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jaxrl_par.errors import RefusedError, at_least
from jaxrl_par.types import Trajectory


@dataclass(frozen=True)
class Windows:
    """Lengths of windows, in rows of an unroll."""

    length: int | None = None
    """Rows that are trained; it must divide those of an unroll. None: all of them."""
    burn_in: int = 0
    """Rows before those, at most `length`. Memory is refreshed on them."""
    lookahead: int = 0
    """Rows after those: n - 1 for targets of n steps."""
    constant_carry: bool = False
    """The carry stays the same within an unroll, as a rate of exploration does, or its
    memory is not read: those of all windows are that of the unroll's row 0."""

    def problems(self) -> list[str]:
        """What is out of range, but for what depends on the unroll."""
        found = at_least(self, length=1, burn_in=0, lookahead=0)
        if not found and self.length is not None and self.burn_in > self.length:
            told = f"burn_in must be at most length = {self.length}"
            found.append(f"{told}, got {self.burn_in}")
        return found

    def trained(self, rows: int) -> int:
        """Trained rows of a window, of unrolls of so many rows."""
        return self.length or rows

    def each(self, rows: int) -> int:
        """Windows in an unroll of so many rows."""
        return rows // self.trained(rows)

    def refuse(self, shapes: Trajectory) -> None:
        """Accepts unrolls of these shapes.

        Raises:
          RefusedError: `length` does not divide their rows, they are no longer than
            `lookahead`, nothing would be burned in, or the carry is not known where
            windows begin.
        """
        rows = shapes.reward.shape[0]
        if rows % self.trained(rows):
            raise RefusedError(
                f"length must divide the {rows} rows of an unroll, got {self.length}"
            )
        if self.lookahead >= rows:
            raise RefusedError(
                f"lookahead must be below the {rows} rows of an unroll, got"
                f" {self.lookahead}: targets of so many steps cannot be made"
            )
        if self.burn_in and self.each(rows) == 1:
            raise RefusedError(
                f"burn_in = {self.burn_in} needs several windows in an unroll: the"
                f" first one has no rows before it, and one has all {rows} rows"
            )
        has_memory = jax.tree.leaves(shapes.carry) and not self.constant_carry
        if has_memory and self.each(rows) > 1 and "carry" not in shapes.extras:
            raise RefusedError(
                f"windows of {self.length} rows begin within unrolls of {rows}, where"
                ' the carry is not known: record it in extras["carry"], say that it is'
                " constant_carry, or let length be that of the unroll"
            )

    def kept(self, trajectory: Trajectory) -> Trajectory:
        """What is kept of a trajectory: lanes first, and the carries [B, windows, ...]
        before the first row of each window."""
        extras = dict(trajectory.extras)
        recorded = extras.pop("carry", None)
        rows, carry = trajectory.reward.shape[0], trajectory.carry
        if self._has_starts(rows, carry):
            begins = jnp.arange(self.each(rows)) * self.trained(rows) - self.burn_in
            begins = jnp.maximum(begins, 0)
            carry = jax.tree.map(lambda x: jnp.swapaxes(x[begins], 0, 1), recorded)
        kept = trajectory._replace(extras=extras, carry=()).lanes_first()
        return kept._replace(carry=carry)

    def cut(
        self, items: Trajectory, slot: Int[Array, " K"], window: Int[Array, " K"]
    ) -> Trajectory:
        """The window of that number in each of those items, as a batch.

        Returns:
          a trajectory [burn_in + length + lookahead, K, ...]. With `burn_in`,
          `extras["padded"]` marks the rows before the beginning of the unroll.
        """
        size, rows = items.reward.shape[:2]
        trained = self.trained(rows)
        total = self.burn_in + trained + self.lookahead
        begin = window * trained - self.burn_in
        row = begin[:, None] + jnp.arange(total + 1)[None]  # [K, total + 1]

        def gathered(tree: PyTree, row: Int[Array, "K L"], length: int) -> PyTree:
            index = slot[:, None] * length + jnp.clip(row, 0, length - 1)
            return jax.tree.map(lambda x: _rows(x, size * length, index), tree)

        steps = gathered(items.steps, row, rows + 1)
        batch = items._replace(steps=(), carry=())
        batch = gathered(batch, row[:, :-1], rows)
        if self.lookahead:
            # The unroll's final row ends what is known, unless it ends the window too.
            over = (row >= rows) & (jnp.arange(total + 1) < total)[None]
            steps = steps._replace(
                last=steps.last | over, first=steps.first | (row > rows)
            )
            reward, discount = (
                jnp.where(over[:, :-1], 0.0, x) for x in (batch.reward, batch.discount)
            )
            batch = batch._replace(reward=reward, discount=discount)
        if self.burn_in:
            padded = batch.extras | {"padded": row[:, :-1] < 0}
            batch = batch._replace(extras=padded)
        carry = items.carry
        if self._has_starts(rows, carry):
            index = slot * self.each(rows) + window
            number = size * self.each(rows)
            carry = jax.tree.map(
                lambda x: x.reshape(number, *x.shape[2:])[index], carry
            )
        else:
            carry = jax.tree.map(lambda x: x[slot], carry)
        return batch._replace(steps=steps, carry=carry).time_first()

    def _has_starts(self, rows: int, carry: PyTree) -> bool:
        """Whether a carry is kept for each window."""
        known = not jax.tree.leaves(carry) or self.constant_carry
        return not known and self.each(rows) > 1


def _rows(x: Array, number: int, index: Int[Array, "K L"]) -> Array:
    # Rows of one axis are copied three times faster on CPU than rows of two.
    return x.reshape(number, *x.shape[2:])[index]
