"""Recorded data alone: off-policy learning, to which nothing is added."""

from dataclasses import replace
from typing import NamedTuple

import jax

from jaxrl_par.axis import Axis
from jaxrl_par.replay import ring
from jaxrl_par.replay.buffers import Buffer, uniform
from jaxrl_par.replay.mixed import streams
from jaxrl_par.replay.windows import Windows
from jaxrl_par.types import PRNGKey, Trajectory


class Recorded(NamedTuple):
    """Part of the data, so that no program has it as a constant."""

    items: ring.Ring
    """A lane of what was recorded is one item."""


def recorded(
    given: Trajectory, batch_size: int, windows: Windows = Windows()
) -> Buffer:
    """Draws windows of what was recorded, each as often as any other.

    What is acted meanwhile is forgotten: it tells how good the agent is, and teaches
    nothing. Every device and worker has all of the data.

    Args:
      given: [N, B], of which extras and carry are not read. Rows at the end that fill
        no window are left out.
      batch_size: windows in a batch.
      windows: of a network without memory.

    Raises:
      ValueError: as `uniform`; or, from `init`, the data are of other shapes than what
        is acted, or too short for a window, as no data are.
    """
    num_lanes = given.reward.shape[1]

    def fixed(length: int) -> Buffer:
        return uniform(num_lanes, batch_size, replace(windows, length=length))

    fixed(1)  # which refuses sizes before there is an environment

    def init(shapes: Trajectory) -> Recorded:
        length = windows.trained(shapes.reward.shape[0])
        kept = streams(given, shapes, length, windows.burn_in)
        empty = fixed(length).init(jax.eval_shape(lambda: kept))
        return Recorded(fixed(length).add(empty, (), kept))

    def sample(data: Recorded, newest: Trajectory | None, key: PRNGKey, axis: Axis):
        length = windows.length
        if length is None:
            assert newest is not None
            length = newest.reward.shape[0]
        return fixed(length).sample(data.items, newest, key, axis)

    return Buffer(
        init=init,
        add=lambda data, state, trajectory: data,
        sample=sample,
        update=lambda data, drawn, info, axis: data,
        ready=lambda data: True,
        batch_rows=lambda rows: batch_size * windows.trained(rows),
    )
