"""The page's charts: from arrays to inline SVG."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from grandbatch.report import svg
from grandbatch.report.svg import Plot
from grandbatch.values.arrays import Float32, Float64, Int64

_HEAT_LEFT = 132.0
_HEAT_WIDTH = svg.WIDTH - _HEAT_LEFT - 6.0
_MOST_COLUMNS = 114
_PRICE_HEIGHT = 64.0
_WIDE = 10.0
_LEAST_EQUITY = 1e-6


def time_labels(low: float, high: float) -> list[str]:
    """Write the first, middle and last of a stretch of time, given in ns since 1970."""
    forms = ((2 * 86_400e9, "%Y-%m-%d"), (600e9, "%d %b %H:%M"), (-1.0, "%H:%M:%S"))
    form = next(form for least, form in forms if high - low > least)
    moments = (low, (low + high) / 2, high)
    return [dt.datetime.fromtimestamp(ns / 1e9, dt.UTC).strftime(form) for ns in moments]


def bands(label: str, edges: Int64, quantiles: Float64, mean: Float64) -> str:
    """Draw the distribution of a feature over time.

    Parameters
    ----------
    label : str
    edges : (B + 1,) int64
        ns since 1970 UTC.
    quantiles : (5, B) float64
        5th, 25th, 50th, 75th, 95th percentile; NaN where nothing is known.
    mean : (B,) float64
    """
    middles = (edges[:-1] + edges[1:]) / 2
    plot = Plot((float(edges[0]), float(edges[-1])), _padded(np.vstack([quantiles, mean])))
    xs = plot.x(middles)
    ys = plot.y(quantiles)
    return svg.drawing(
        plot.bottom + 20,
        label,
        svg.y_axis(plot, svg.nice_ticks(*plot.y_range)),
        svg.area(xs, ys[0], ys[4], "b1"),
        svg.area(xs, ys[1], ys[3], "b2"),
        svg.line(xs, ys[2], "l1"),
        svg.line(xs, plot.y(mean), "l2"),
        svg.x_labels(plot, time_labels(*plot.x_range)),
    )


def lines(
    label: str,
    x: Float64,
    series: Mapping[str, Float64],
    x_labels: Sequence[str],
    *,
    from_zero: bool = False,
    unit: str = "",
) -> str:
    """Draw up to three values over one axis; a key stands above where there are several."""
    values = np.vstack(list(series.values()))
    low, high = _padded(values)
    # without padding at its lower end: what is counted never goes below zero
    y_range = (0.0, max(high, 1e-12)) if from_zero else (low, high)
    x_range = (float(x[0]), float(x[-1]) if x[-1] > x[0] else float(x[0]) + 1.0)
    top = 22.0 if len(series) > 1 else 8.0
    plot = Plot(x_range, y_range, top=top)
    shapes = [svg.y_axis(plot, svg.nice_ticks(*y_range), unit)]
    place = plot.left
    for number, (name, ys) in enumerate(series.items(), start=1):
        shapes.append(svg.line(plot.x(x), plot.y(ys), f"l{number}"))
        if len(series) > 1:
            shapes.append(svg.line(np.array([place, place + 14]), np.full(2, 8.0), f"l{number}"))
            shapes.append(svg.text(place + 18, 12, name))
            place += 34 + 6.2 * len(name)
    return svg.drawing(plot.bottom + 20, label, *shapes, svg.x_labels(plot, x_labels))


def equity(
    label: str, times: Int64, curves: Mapping[str, Float64], chance: Float64, chance_name: str
) -> str:
    """Draw what a capital of 1 becomes; where it grows or falls tenfold, by powers of ten.

    Parameters
    ----------
    label : str
    times : (P,) int64
        ns since 1970 UTC.
    curves : mapping of at most three names to (P,) float64
    chance : (3, P) float64
        Low, middle and high of what chance gives: a band and a faint line.
    chance_name : str
    """
    values = np.vstack([*curves.values(), chance])
    is_wide = values.max() > _WIDE * max(values.min(), _LEAST_EQUITY)
    scaled = np.log10(np.maximum(values, _LEAST_EQUITY)) if is_wide else values
    if is_wide:
        low, high = _padded(scaled)
        ticks = svg.power_ticks(low, high)
        y_range = min(low, ticks[0]), max(high, ticks[-1])
        named = [f"{10.0**tick:g}" for tick in ticks]
    else:
        y_range = _padded(scaled)
        ticks = svg.nice_ticks(*y_range)
        named = svg.tick_labels(ticks)
    plot = Plot((float(times[0]), float(times[-1])), y_range, top=36.0, height=150.0)
    xs, ys = plot.x(times), plot.y(scaled)
    fewer, middle, more = ys[len(curves) :]
    shapes = [
        svg.y_axis(plot, ticks, labels=named),
        svg.area(xs, fewer, more, "b1"),
        svg.line(xs, middle, "l3"),
    ]
    place, row = plot.left, 8.0
    for number, (name, y) in enumerate(zip(curves, ys, strict=False)):
        kind = ("l1", "l2", "l4")[number]
        shapes.append(svg.line(xs, y, kind))
        shapes.append(svg.line(np.array([place, place + 14]), np.full(2, row), kind))
        shapes.append(svg.text(place + 18, row + 4, _short(name)))
        place += 34 + 6.2 * len(_short(name))
    shapes.append(svg.rectangle(plot.left, row + 11, 14, 8, "b1"))
    middle_of = np.array([plot.left, plot.left + 14])
    shapes.append(svg.line(middle_of, np.full(2, row + 15), "l3"))
    shapes.append(svg.text(plot.left + 18, row + 19, chance_name))
    return svg.drawing(
        plot.bottom + 20, label, *shapes, svg.x_labels(plot, time_labels(*plot.x_range))
    )


def strip(label: str, density: Int64) -> str:
    """Draw a thin strip over time, darker where there is more, blank where there is nothing."""
    most = max(int(density.max()), 1)
    levels = np.ceil(density / most * svg.N_SHADES).astype(np.int8)
    width = svg.WIDTH / len(density)
    return svg.drawing(
        10,
        label,
        svg.rectangle(0, 0, svg.WIDTH, 10, "bg"),
        svg.cells(-levels[None], 0, 0, width, 10),
        stretch=True,
    )


def histogram(label: str, shares: Float64, x_labels: Sequence[str]) -> str:
    """Draw shares of a whole as bars side by side; with as many labels as bars one below each."""
    plot = Plot((0.0, float(len(shares))), (0.0, max(float(shares.max()) * 1.06, 1e-12)))
    width = plot.width / len(shares)
    room = width * (0.2 if len(shares) == len(x_labels) else 0.04)
    bars = [
        svg.rectangle(left + room / 2, top, width - room, plot.bottom - top, "b2")
        for left, top in zip(plot.x(np.arange(len(shares))), plot.y(shares), strict=True)
    ]
    if len(shares) == len(x_labels):
        names = "".join(
            svg.text(float(x), plot.bottom + 14, name, "middle")
            for x, name in zip(plot.x(np.arange(len(shares)) + 0.5), x_labels, strict=True)
        )
    else:
        names = svg.x_labels(plot, x_labels)
    ticks = svg.nice_ticks(*plot.y_range)
    percent = [f"{100 * tick:.3g} %" for tick in ticks]
    return svg.drawing(
        plot.bottom + 20, label, svg.y_axis(plot, ticks, labels=percent), *bars, names
    )


def sample(
    label: str,
    matrix: Float32,
    mean: Float64,
    std: Float64,
    names: Sequence[str],
    price: Float64,
    marked: tuple[float, float],
) -> str:
    """Draw a window as a heat map, below its price.

    Parameters
    ----------
    label : str
    matrix : (L, F) float32
    mean, std : (F,) float64
        Of the whole store: colours tell how many `std` a value lies from `mean`.
    names : sequence of F str
    price : (P,) float64
        From left to right; its first and last stand above the heat map's edges.
    marked : pair of float
        The part of the price, as shares of its width, that the window covers.
    """
    place = Plot((0.0, max(len(price) - 1.0, 1.0)), _padded(price), _HEAT_LEFT, 6, _HEAT_WIDTH,
                 _PRICE_HEIGHT)  # fmt: skip
    begin, end = marked
    top = place.bottom + 8
    scores = np.divide(matrix - mean, std, out=np.zeros(matrix.shape), where=std > 0)
    levels = _levels(_thinned(scores.T), 2.0)
    height = 12.0
    axis_top = top + height * len(names)
    return svg.drawing(
        axis_top + 16,
        label,
        svg.rectangle(_HEAT_LEFT + begin * _HEAT_WIDTH, place.top, (end - begin) * _HEAT_WIDTH,
                      _PRICE_HEIGHT, "mark"),
        svg.y_axis(place, svg.nice_ticks(*place.y_range, most=3)),
        svg.line(place.x(np.arange(len(price))), place.y(price), "l1"),
        svg.rectangle(_HEAT_LEFT, top, _HEAT_WIDTH, height * len(names), "bg"),
        svg.cells(levels, _HEAT_LEFT, top, _HEAT_WIDTH / levels.shape[1], height),
        *(
            svg.text(_HEAT_LEFT - 4, top + height * (row + 0.78), _short(name), "end")
            for row, name in enumerate(names)
        ),
        svg.text(_HEAT_LEFT, axis_top + 12, "oldest row"),
        svg.text(_HEAT_LEFT + _HEAT_WIDTH, axis_top + 12, "newest row", "end"),
    )  # fmt: skip


def correlation_map(label: str, values: Float64, names: Sequence[str]) -> str:
    """Draw the correlations of features, (F, F); colours tell sign and size."""
    n = len(names)
    side = _HEAT_WIDTH / n
    top = 18.0
    levels = _levels(np.nan_to_num(values), 1.0)
    shapes = [
        svg.rectangle(_HEAT_LEFT, top, _HEAT_WIDTH, _HEAT_WIDTH, "bg"),
        svg.cells(levels, _HEAT_LEFT, top, side, side),
    ]
    if side >= 7:
        for number, name in enumerate(names):
            y = top + side * (number + 0.5) + 3.5
            shapes.append(svg.text(_HEAT_LEFT - 4, y, f"{_short(name)} {number}", "end"))
            if side >= 14 or number % 5 == 0:
                x = _HEAT_LEFT + side * (number + 0.5)
                shapes.append(svg.text(x, top - 5, number, "middle"))
    return svg.drawing(top + _HEAT_WIDTH + 4, label, *shapes)


def level_key(low: str, middle: str, high: str) -> str:
    """Draw what the colours of heat maps mean."""
    width, left = 16.0, 96.0
    levels = np.arange(-svg.N_SHADES, svg.N_SHADES + 1, dtype=np.int8)[None]
    right = left + width * levels.shape[1]
    return svg.drawing(
        28,
        f"colours from {low} over {middle} to {high}",
        svg.rectangle(left, 2, width * levels.shape[1], 10, "bg"),
        svg.cells(levels, left, 2, width, 10),
        svg.text(left - 6, 11, low, "end"),
        svg.text((left + right) / 2, 25, middle, "middle"),
        svg.text(right + 6, 11, high),
    )


def _levels(values: Float64, end: float) -> npt.NDArray[np.int8]:
    """Turn values into steps of colour, whose strongest begins at `end`."""
    steps = np.rint(np.clip(values / end, -1.0, 1.0) * svg.N_SHADES)
    return steps.astype(np.int8)


def _thinned(values: Float64) -> Float64:
    """Means of neighbouring columns where there are too many to tell apart."""
    columns = values.shape[1]
    if columns <= _MOST_COLUMNS:
        return values
    cuts = np.linspace(0, columns, _MOST_COLUMNS + 1).astype(np.int64)
    sums = np.add.reduceat(values, cuts[:-1], axis=1)
    return np.asarray(sums / np.diff(cuts), np.float64)


def _padded(values: Float64) -> tuple[float, float]:
    """Range of values, with a little room; never empty."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    room = (high - low) * 0.06 or abs(high) * 0.01 or 1.0
    return low - room, high + room


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"
