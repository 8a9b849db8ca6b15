"""The page's section about targets: how they are distributed, and how features go with them."""

from __future__ import annotations

import numpy as np

from grandbatch.report import charts, html
from grandbatch.report.sampling import RowSample
from grandbatch.report.sections import MOST_FEATURES
from grandbatch.store import MatrixStore
from grandbatch.values.arrays import Float32, Float64

MOST_TARGETS = 12
_MOST_CLASSES = 5
_BINS = 48
_BLOCK_WINDOWS = 2**18
_TAIL = 0.5


def targets(store: MatrixStore, sample: RowSample) -> str:
    """Show the targets of a store; nothing where it has none."""
    if store.targets is None:
        return ""
    names = store.target_names
    drawn = names[:MOST_TARGETS]
    items, rows = [], []
    for number, (name, unknown) in enumerate(zip(names, _unknown(store), strict=True)):
        horizon = store.attrs["target_horizons"][number]
        known = sample.targets[np.isfinite(sample.targets[:, number]), number].astype(np.float64)
        rows.append((name, horizon, f"{100 * unknown:.2f} %", *_figures(known)))
        if number < len(drawn) and len(known):
            items.append((name, _distribution(name, known), _said(known)))
    figures = ("mean", "std", "min", "median", "max")
    return html.section(
        "targets",
        "Targets",
        html.words(
            f"Each is a value at a window's last bar that reads bars after it. Distributions and "
            f"correlations are of {len(sample.time):,} windows, from {sample.n_chunks:,} of "
            f"{store.n_chunks:,} chunks spread evenly over the store; how many are unknown (NaN: "
            "fewer bars than the horizon follow in the segment, or the value is not finite) is "
            "counted over all windows."
        ),
        html.figures(items),
        html.words(f"Of {len(names):,} targets the first {len(drawn)} are drawn.")
        if len(names) > len(drawn)
        else "",
        html.table(("target", "horizon", "unknown", *figures), rows, "figures"),
        _with_features(store, sample, drawn),
    )


def _unknown(store: MatrixStore) -> Float64:
    """Share of windows whose target is NaN, (K,) float64, over the whole store."""
    values = store.targets
    assert values is not None
    counts = np.zeros(len(store.target_names), np.int64)
    size = store.spec.label_chunk_windows
    step = max(1, _BLOCK_WINDOWS // size) * size
    for first in range(0, len(store), step):
        counts += np.isnan(values[first : first + step]).sum(axis=0)
    return counts / len(store)


def _figures(known: Float64) -> list[float | None]:
    if not len(known):
        return [None] * 5
    found = known.mean(), known.std(), known.min(), np.median(known), known.max()
    return [float(value) for value in found]


def _classes(known: Float64) -> tuple[Float64, Float64] | None:
    """Return the values and their shares where they are few."""
    values, counts = np.unique(known, return_counts=True)
    return (values, counts / len(known)) if len(values) <= _MOST_CLASSES else None


def _said(known: Float64) -> str:
    found = _classes(known)
    if found is None:
        low, high = np.percentile(known, [5, 95])
        return f"90 % from {html.number(low)} to {html.number(high)}"
    return ", ".join(f"{value:g}: {100 * share:.1f} %" for value, share in zip(*found, strict=True))


def _distribution(name: str, known: Float64) -> str:
    """Draw how often values occur; of many different ones the outermost are put at the ends."""
    found = _classes(known)
    label = f"how often values of {name} occur"
    if found is not None:
        values, shares = found
        return charts.histogram(label, shares, [f"{value:g}" for value in values])
    low, high = np.percentile(known, [_TAIL, 100 - _TAIL])
    if low == high:
        low, high = known.min(), known.max()
    counts, edges = np.histogram(np.clip(known, low, high), _BINS, (low, high))
    ends = [html.number(value) for value in (edges[0], (low + high) / 2, edges[-1])]
    return charts.histogram(label, counts / len(known), ends)


def correlations_with(features: Float32, values: Float32) -> Float64:
    """Pearson correlation of each target with each feature, (K, F) float64.

    Over the rows where the target is known; NaN where either never changes there.
    """
    found = np.full((values.shape[1], features.shape[1]), np.nan)
    for number, column in enumerate(values.T):
        known = np.isfinite(column)
        x, y = features[known].astype(np.float64), column[known].astype(np.float64)
        if not len(y) or y.min() == y.max():
            continue
        moves = x.min(axis=0) < x.max(axis=0)
        x, y = x[:, moves] - x[:, moves].mean(axis=0), y - y.mean()
        scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum())
        found[number, moves] = np.clip(y @ x / scale, -1.0, 1.0)
    return found


def _with_features(store: MatrixStore, sample: RowSample, drawn: tuple[str, ...]) -> str:
    """Show how features go with targets: those that go most with any of them first."""
    found = correlations_with(sample.values, sample.targets[:, : len(drawn)])
    sizes = np.nan_to_num(np.abs(found)).max(axis=0)
    order = np.argsort(-sizes, kind="stable")[:MOST_FEATURES].tolist()
    rows = [
        (store.feature_names[place], *(_signed(value) for value in found[:, place]))
        for place in order
    ]
    more = store.n_features - len(order)
    return (
        "<h3>Correlation with each feature</h3>"
        + html.words(
            "Pearson correlation of a target with the features of the window's last row, where "
            "the target is known. Neighbouring windows share bars, so that chance reaches further "
            "than their number suggests."
        )
        + html.table(("feature", *drawn), rows, "figures")
        + (html.words(f"… and {more:,} more features that go less with them.") if more else "")
    )


def _signed(value: float) -> str:
    return "never changes" if np.isnan(value) else f"{value:+.3f}"
