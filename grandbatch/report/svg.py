"""Inline SVG: the few shapes that the page's charts are made of.

Colours and letters are the style sheet's business: shapes carry classes only, so that one drawing
serves light and dark. Lengths are in units of which a chart is `WIDTH` wide; on a phone a unit is
about a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.values.arrays import Float64

WIDTH = 360.0
N_SHADES = 4
"""Steps of colour on either side of the middle."""


@dataclass(frozen=True)
class Plot:
    """A rectangle of the drawing, and the ranges of values that it shows."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 48.0
    top: float = 8.0
    width: float = WIDTH - 48.0 - 8.0
    height: float = 112.0

    def x(self, values: Any) -> Float64:
        """Where values lie from left to right."""
        low, high = self.x_range
        share = (np.asarray(values, np.float64) - low) / ((high - low) or 1.0)
        return self.left + share * self.width

    def y(self, values: Any) -> Float64:
        """Where values lie from top to bottom; those out of range lie on the edge."""
        low, high = self.y_range
        share = (np.asarray(values, np.float64) - low) / ((high - low) or 1.0)
        return self.top + (1.0 - np.clip(share, 0.0, 1.0)) * self.height

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.height


def drawing(height: float, label: str, *shapes: str, stretch: bool = False) -> str:
    """Join shapes into an image that readers call `label`; one without letters may stretch."""
    ratio = ' preserveAspectRatio="none"' if stretch else ""
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}"{ratio} role="img" aria-label="{clean(label)}">'
        f"{''.join(shapes)}</svg>"
    )


def clean(text: object) -> str:
    """Escape text for HTML and XML; what may stand in neither becomes a replacement character."""
    plain = "".join(c if c.isprintable() or c in "\t\n" else "\ufffd" for c in str(text))
    return escape(plain)


def text(x: float, y: float, content: object, anchor: str = "start", kind: str = "tx") -> str:
    """Write letters whose base line begins, is centred, or ends at a point."""
    return (
        f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">'
        f"{clean(content)}</text>"
    )


def line(xs: Float64, ys: Float64, kind: str) -> str:
    """Draw a line through points, broken where one is NaN."""
    steps = []
    has_begun = False
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        if math.isnan(x) or math.isnan(y):
            has_begun = False
            continue
        # a line of no length has round caps: a point alone is seen too
        steps.append(f"L{_n(x)} {_n(y)}" if has_begun else f"M{_n(x)} {_n(y)}h0")
        has_begun = True
    return f'<path class="{kind}" d="{"".join(steps)}"/>'


def area(xs: Float64, low: Float64, high: Float64, kind: str) -> str:
    """Fill the area between two lines, broken where either is NaN."""
    known = ~(np.isnan(low) | np.isnan(high))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]])))
    steps = []
    for begin, stop in zip(edges[::2], edges[1::2], strict=True):
        run = slice(begin, stop)
        there = zip(xs[run], high[run], strict=True)
        back = zip(xs[run][::-1], low[run][::-1], strict=True)
        steps.append("M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in [*there, *back]) + "z")
    return f'<path class="{kind}" d="{"".join(steps)}"/>'


def rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Draw a rectangle."""
    return (
        f'<rect class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"/>'
    )


def y_axis(
    plot: Plot, ticks: Sequence[float], unit: str = "", labels: Sequence[str] | None = None
) -> str:
    """Draw faint lines across the plot, with their values (or labels) to its left."""
    labels = tick_labels(ticks) if labels is None else labels
    return "".join(
        f'<path class="ax" d="M{_n(plot.left)} {_n(float(y))}h{_n(plot.width)}"/>'
        + text(plot.left - 4, float(y) + 4, label + unit, "end")
        for y, label in zip(plot.y(ticks), labels, strict=True)
    )


def x_labels(plot: Plot, labels: Sequence[str]) -> str:
    """Write first, middle and last value below the plot."""
    anchors = ("start", "middle", "end")
    places = (plot.left, plot.left + plot.width / 2, plot.left + plot.width)
    return "".join(
        text(x, plot.bottom + 14, label, anchor)
        for x, anchor, label in zip(places, anchors, labels, strict=True)
    )


def cells(
    levels: npt.NDArray[np.int8], left: float, top: float, width: float, height: float
) -> str:
    """Draw a grid of coloured cells, neighbours of one colour in a row as one.

    Parameters
    ----------
    levels : (rows, columns) int8
        From -`N_SHADES` to `N_SHADES`; 0 is left blank.
    left, top : float
        The grid's corner.
    width, height : float
        Of one cell.
    """
    paths: dict[int, list[str]] = {}
    for row, values in enumerate(levels):
        cuts = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1, [len(values)]])
        for begin, stop in pairwise(cuts.tolist()):
            if values[begin]:
                x, y = left + begin * width, top + row * height
                span = (stop - begin) * width
                step = f"M{_n(x)} {_n(y)}h{_n(span)}v{_n(height)}h-{_n(span)}z"
                paths.setdefault(int(values[begin]), []).append(step)
    return "".join(
        f'<path class="{"p" if level > 0 else "n"}{abs(level)}" d="{"".join(steps)}"/>'
        for level, steps in sorted(paths.items())
    )


def power_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Exponents between two of them to write 1, 2, 5, 10, … at, or only powers of ten of."""
    if high - low < 2:
        digits = [math.log10(digit) for digit in (1, 2, 5)]
        exponents = range(math.floor(low), math.ceil(high) + 1)
        near = [e + d for e in exponents for d in digits if low <= e + d <= high]
        if len(near) > 1:
            return near
    first, last = math.floor(low), math.ceil(high)
    step = max(1, math.ceil((last - first) / most))
    return [float(exponent) for exponent in range(first, last + 1, step)]


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values from `low` to `high`, at least two, at most about `most`."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [number * step for number in range(first, last + 1)]
    return ticks if len(ticks) > 1 else [low, high]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Write ticks with as many decimals as tell them apart, large ones with k, M or G."""
    largest = max(abs(tick) for tick in ticks)
    units = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
    scale, suffix = next((unit[1:] for unit in units if largest >= unit[0]), (1.0, ""))
    step = min(abs(b - a) for a, b in pairwise(ticks)) / scale
    if largest / scale < 1e-3:
        return [_scientific(tick) if tick else "0" for tick in ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step * 10**decimals, 6) % 1:
        decimals += 1
    return [f"{tick / scale:.{decimals}f}{suffix}" for tick in ticks]


def _scientific(value: float) -> str:
    # of -6e-05, a little off, it leaves the point of the zero that it trims
    return np.format_float_scientific(value, precision=1, trim="-", exp_digits=1).replace(".e", "e")


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
