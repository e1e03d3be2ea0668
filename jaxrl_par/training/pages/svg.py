"""Curves as SVG whose colours are those of the page around it.

Curves differ in their dashes too, so that a reader without colours can tell them apart.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

_WIDTH, _HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 20, 10, 28
_MOST_POINTS = 400
_MOST_TICKS = 5

Line = Float[np.ndarray, " N"]


class Curve(NamedTuple):
    """Values against environment steps; those that are not finite are left out."""

    label: str
    steps: Line
    values: Line
    low: Line | None = None
    high: Line | None = None


def chart(title: str, curves: Sequence[Curve | None]) -> Markup:
    """All curves in one picture, without a legend. A curve's place is its style; those
    of other pictures are None here."""
    known = [(i, thinned(curve)) for i, curve in enumerate(curves) if curve]
    shown = [x for _, c in known for x in (c.values, c.low, c.high) if x is not None]
    bounds = _bounds([c.steps for _, c in known]), _bounds(shown)
    parts = [*_axes(*bounds)]
    for index, curve in known:
        x, y = _placed(curve.steps, curve.values, *bounds)
        if curve.low is not None and curve.high is not None:
            low = _placed(curve.steps, curve.low, *bounds)[1]
            high = _placed(curve.steps, curve.high, *bounds)[1]
            outline = [
                *zip(x, high, strict=True),
                *zip(x[::-1], low[::-1], strict=True),
            ]
            parts.append(
                Markup('<polygon class="band c{}" points="{}"/>').format(
                    index % 6, _points(outline)
                )
            )
        form = '<polyline class="line c{}" points="{}"/>'
        if len(x) == 1:  # is no line
            form = '<polyline class="dot c{}" points="{}"/>'
        points = _points(zip(x, y, strict=True))
        parts.append(Markup(form).format(index % 6, points))
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, _HEIGHT, title, Markup("").join(parts))


def thinned(curve: Curve) -> Curve:
    """Its finite points, at most so many as the picture can show."""
    finite = np.isfinite(curve.steps) & np.isfinite(curve.values)
    kept = np.flatnonzero(finite)
    if len(kept) > _MOST_POINTS:
        kept = kept[np.linspace(0, len(kept) - 1, _MOST_POINTS).astype(int)]
    low, high = (
        None if x is None else np.where(np.isfinite(x), x, curve.values)[kept]
        for x in (curve.low, curve.high)
    )
    return curve._replace(
        steps=curve.steps[kept], values=curve.values[kept], low=low, high=high
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from one to the other, at most five."""
    step = 10.0 ** math.floor(math.log10((high - low) / _MOST_TICKS))
    for factor in (1, 2, 5, 10, 20):
        first = math.ceil(low / (factor * step) - 1e-9)
        last = math.floor(high / (factor * step) + 1e-9)
        if last - first < _MOST_TICKS:
            return [i * factor * step for i in range(first, last + 1)]
    raise AssertionError("twenty of the largest power of ten are more than the range")


def labels(numbers: Sequence[float]) -> list[str]:
    """Ticks as they are written: no longer than it takes to tell them apart."""
    largest = max(map(abs, numbers), default=0.0)
    units = (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0))
    unit, size = next((x for x in units if largest >= x[1]), units[-1])
    for digits in range(3, 10):
        told = [f"{x / size:.{digits}g}{unit if x else ''}" for x in numbers]
        if len(set(told)) == len(told):
            return told
    return [repr(x) for x in numbers]


def _bounds(lines: Iterable[Line]) -> tuple[float, float]:
    """Of all their numbers; wider where they are all equal."""
    known = np.concatenate([*lines, np.zeros(0)])
    known = known[np.isfinite(known)]
    if not known.size:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    # Too near to be told apart by a picture, or by float64.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = abs(low) / 10 or 0.5
        return low - margin, high + margin
    return low, high


def _placed(
    steps: Line, values: Line, x: tuple[float, float], y: tuple[float, float]
) -> tuple[Line, Line]:
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    return (
        _LEFT + across * (steps - x[0]) / (x[1] - x[0]),
        _TOP + down * (y[1] - values) / (y[1] - y[0]),
    )


def _axes(x: tuple[float, float], y: tuple[float, float]) -> Iterable[Markup]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for value, label in _labelled(*y):
        (_,), (at,) = _placed(np.array([x[0]]), np.array([value]), x, y)
        yield Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
            '<text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
        ).format(_LEFT, right, at, at, _LEFT - 5, at + 3, label)
    for value, label in _labelled(*x):
        (at,), (_,) = _placed(np.array([value]), np.array([y[0]]), x, y)
        yield Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            at, bottom + 15, label
        )


def _labelled(low: float, high: float) -> Iterable[tuple[float, str]]:
    values = ticks(low, high)
    return zip(values, labels(values), strict=True)


def _points(pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)
