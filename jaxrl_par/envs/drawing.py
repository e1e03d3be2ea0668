"""Pictures of grids: square cells, and what is on them."""

import numpy as np
from jaxtyping import Bool, UInt8

Cells = UInt8[np.ndarray, "H W 3"]
Picture = UInt8[np.ndarray, "height width 3"]

FLOOR, WALL = (222, 222, 216), (52, 58, 70)
AGENT, MARK = (24, 24, 28), (255, 196, 40)
_SIZE = 360
_LIGHT, _SHARE = np.array((255, 232, 120)), 0.35


def lit(colours: Cells, row: int, column: int, view_size: int) -> Cells:
    """The same with a square of light around a cell, as far as it is on the grid."""
    height, width = colours.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    distance = np.maximum(abs(rows - row), abs(columns - column))
    bright = (1 - _SHARE) * colours + _SHARE * _LIGHT
    seen = distance <= view_size // 2
    return np.where(seen[..., None], bright, colours).astype(np.uint8)


def enlarge(colours: Cells) -> Picture:
    """At least 360 pixels high and wide, with lines between cells."""
    side = -(-_SIZE // min(colours.shape[:2]))
    picture = colours.repeat(side, 0).repeat(side, 1)
    for lines in (picture[::side], picture[:, ::side]):
        lines[:] = lines * 0.85
    return picture


def cell(
    picture: Picture, num_columns: int, row: int, column: int
) -> UInt8[np.ndarray, "side side 3"]:
    """The part of an enlarged grid to paint on, without its lines."""
    side = picture.shape[1] // num_columns
    top, left = row * side, column * side
    return picture[top + 1 : top + side, left + 1 : left + side]


def arrow(side: int, heading: int) -> Bool[np.ndarray, "side side"]:
    """A triangle that points up, or 1, 2, 3 quarters clockwise from there."""
    down, right = _coordinates(side)
    upwards = (down <= 0.7) & (2 * abs(right) <= 0.85 * (down + 0.75))
    return np.rot90(upwards, -heading)


def disc(side: int, radius: float = 0.7) -> Bool[np.ndarray, "side side"]:
    """A disc in the middle, as wide as the cell if `radius` is 1."""
    down, right = _coordinates(side)
    return down**2 + right**2 <= radius**2


def frame(side: int, width: int = 3) -> Bool[np.ndarray, "side side"]:
    """A border along the inside."""
    border = np.ones((side, side), bool)
    border[width:-width, width:-width] = False
    return border


def _coordinates(side: int):
    """From -1 to 1, downwards and to the right."""
    along = np.linspace(-1, 1, side)
    return along[:, None], along[None]
