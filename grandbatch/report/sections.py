"""The page's sections about a store: each from what the store says to HTML."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from grandbatch.bars.cache.bars import Bars
from grandbatch.bars.cache.upkeep import caches_of, sample_bad_rows
from grandbatch.builder.history import read_build
from grandbatch.report import charts, html
from grandbatch.report.coverage import read_coverage
from grandbatch.report.sampling import RowSample, correlations, spread, time_bands
from grandbatch.store import MatrixStore
from grandbatch.store.notes import notes
from grandbatch.values.arrays import Float64
from grandbatch.values.texts import amount, duration
from grandbatch.values.times import moment

MOST_FEATURES = 60
_MOST_SYMBOLS = 60
_MOST_INPUTS = 100
_OPEN_INPUTS = 3
_MOST_PAIRS = 8
_BAD_ROWS_PER_REASON = 5
_TEXT_LETTERS = 160
_SAMPLES = 6
_FIGURES = ("mean", "std", "min", "max")


def find_bars(store: MatrixStore, cache_dir: Path) -> Bars | None:
    """Return the cached bars that a store was built from, by the prices of its first windows."""
    n = min(len(store), 64)
    rows = store.first_row[:n] + store.sequence_length - 1
    for bars in caches_of(store.attrs, cache_dir):
        low, high = int(rows.min()), int(rows.max()) + 1
        if np.array_equal(bars.read(low, high, ("close",))["close"][rows - low],
                          store.close_price[:n]):  # fmt: skip
            return bars
    return None


def worth_a_look(store: MatrixStore) -> str:
    """Show what a person should know of before all else; nothing where there is nothing."""
    lines = notes(store.attrs)
    if not lines:
        return ""
    return html.section("worth-a-look", "Worth a look", *map(html.words, lines))


def made_of(store: MatrixStore) -> str:
    """Show inputs, settings and identity."""
    attrs = store.attrs
    files = [path for path in store.path.rglob("*") if path.is_file()]
    source = attrs["source"]
    shown = [(s["name"], s["bytes"], s["digest"]) for s in source[:_MOST_INPUTS]]
    more = len(source) - len(shown)
    gap = attrs.get("max_gap_ns")
    return html.section(
        "made-of",
        "What it is made of",
        html.tiles(
            {
                "windows": f"{len(store):,}",
                "rows x features": f"{store.sequence_length} x {store.n_features}",
                "bars": f"{attrs['n_rows']:,}",
                "symbol" if attrs["n_symbols"] == 1 else "symbols": f"{attrs['n_symbols']:,}",
                "on disk": amount(sum(path.stat().st_size for path in files)),
                "decoded": amount(store.spec.decoded_bytes),
            }
        ),
        html.facts(
            {
                "bars from": moment(attrs["first_time"]) + " UTC",
                "bars until": moment(attrs["last_time"]) + " UTC",
                "feature set": attrs["feature_set"],
                "overlap, stride": f"{store.overlap} and {store.stride} rows",
                "features read": _inputs(store),
                "extra columns": _extra(store),
                "bars before the first row": attrs.get("lookback"),
                "segments": attrs["n_segments"],
                "longest gap in a segment": "no limit" if gap is None else duration(gap / 1e9),
                "layout, codec": f"{store.layout}, {attrs.get('codec')}",
                "chunks": f"{store.n_chunks:,} of {store.chunk_windows:,} windows",
                "files": len(files),
                "feature versions": _versions(store),
                "built by": f"{attrs['created_by']}, format {attrs['format']}",
                "fingerprint": store.fingerprint,
                "content": store.content_id,
            }
        ),
        html.folded(
            f"{len(source):,} input{'s' if len(source) > 1 else ''}",
            html.table(("file", "bytes", "sha256 of its content"), shown, "ids")
            + (html.words(f"… and {more:,} more inputs.") if more else ""),
            is_open=len(source) <= _OPEN_INPUTS,
        ),
    )


def coverage(store: MatrixStore) -> str:
    """Show which times the windows cover, and gaps."""
    found = read_coverage(store)
    shown = found.symbols[:_MOST_SYMBOLS]
    items = []
    for symbol in shown:
        facts = [
            f"{symbol.n_windows:,} windows",
            f"{moment(symbol.first)} to {moment(symbol.last)}",
            f"usually {duration(symbol.usual_step / 1e9)} apart",
            f"gaps: {symbol.n_gaps:,}",
        ]
        label = f"where the windows of {symbol.name} lie in time"
        items.append((symbol.name, charts.strip(label, symbol.density), ", ".join(facts)))
    without = store.attrs.get("symbols_without_windows", ())
    parts = [
        html.words(
            "Each strip runs from the first bar of the store to its last; its colour is stronger "
            "where more windows end. A gap is a way from one window's last bar to the next "
            f"window's, {_bars(store.stride)} on, that takes more than twice as long as the "
            f"symbol's usually does. There are {f'{found.n_gaps:,}' if found.n_gaps else 'none'}."
        ),
        html.figures(items, "strips"),
    ]
    if len(found.symbols) > len(shown):
        parts.append(html.words(f"… and {len(found.symbols) - len(shown):,} more symbols."))
    if without:
        said = f"{len(without):,} symbols have too few bars for a window: {', '.join(without)}."
        parts.append(html.words(said))
    if found.gaps:
        rows = [
            (gap.symbol, moment(gap.begin), moment(gap.end), _length(gap.length))
            for gap in found.gaps
        ]
        head = ("symbol", "a window ends", "the next one ends", "length")
        parts += ["<h3>The longest gaps</h3>", html.table(head, rows)]
    return html.section("coverage", "Time coverage", *parts)


def quarantine(store: MatrixStore, bars: Bars | None) -> str:
    """Show rows that were no bars."""
    counts = store.attrs["quarantined"]
    total = sum(counts.values())
    if not total:
        said = html.words("Every row of the inputs is a bar: nothing was quarantined.")
        return html.section("quarantine", "Quarantine", said)
    share = total / (total + store.attrs["n_rows"])
    parts = [
        html.words(
            f"{total:,} rows of the inputs ({100 * share:.3f} %) are no bars and were left out."
        ),
        html.table(("reason", "rows"), Counter(counts).most_common()),
    ]
    if bars is None:
        parts.append(
            html.words("The rows themselves can't be shown: the bars cache is not there any more.")
        )
    else:
        rows = [
            (row.file, row.line, reason, row.text[:_TEXT_LETTERS])
            for reason, found in sample_bad_rows(bars, _BAD_ROWS_PER_REASON).items()
            for row in found
        ]
        parts.append(f"<h3>The first {_BAD_ROWS_PER_REASON} of each reason</h3>")
        parts.append(html.table(("file", "line", "reason", "text"), rows, "raw"))
    return html.section("quarantine", "Quarantine", *parts)


def features(store: MatrixStore, sample: RowSample) -> str:
    """Show each feature's distribution over time."""
    bands = time_bands(sample)
    items = []
    for number, name in enumerate(store.feature_names[:MOST_FEATURES]):
        drawing = charts.bands(
            f"distribution of {name} over time",
            bands.edges,
            bands.quantiles[:, :, number],
            bands.mean[:, number],
        )
        stats = store.feature_stats[name]
        said = ", ".join(f"{key} {html.number(stats[key])}" for key in ("mean", "std"))
        ends = f"from {html.number(stats['min'])} to {html.number(stats['max'])}"
        items.append((name, drawing, f"{said}, {ends}"))
    rest = [
        (name, *(html.number(store.feature_stats[name][key]) for key in _FIGURES))
        for name in store.feature_names[MOST_FEATURES:]
    ]
    return html.section(
        "features",
        "Features over time",
        html.words(
            f"Bands hold the middle 50 % and 90 % of values, the line is the median, the dashed "
            f"line the mean: of the last row of {len(sample.time):,} windows, from "
            f"{sample.n_chunks:,} of {store.n_chunks:,} chunks spread evenly over the store"
            f"{', all symbols together' if store.attrs['n_symbols'] > 1 else ''}. The figures "
            "below each chart are exact, over every feature row in the store."
        ),
        html.figures(items),
        html.words(f"… and {len(rest):,} more features, in figures:") if rest else "",
        html.table(("feature", *_FIGURES), rest, "figures") if rest else "",
    )


def correlation(store: MatrixStore, sample: RowSample) -> str:
    """Show how features go together."""
    names = store.feature_names
    found = correlations(sample.values)
    drawn = names[:MOST_FEATURES]
    firsts, seconds = np.triu_indices(len(names), 1)
    sizes = np.nan_to_num(found[firsts, seconds])
    strongest = np.argsort(-np.abs(sizes), kind="stable")[:_MOST_PAIRS]
    pairs = [
        (names[firsts[place]], names[seconds[place]], f"{sizes[place]:+.3f}") for place in strongest
    ]
    label = f"all pairs of {_of_features(store)}"
    square = found[: len(drawn), : len(drawn)]
    drawing = charts.correlation_map(f"correlation of {label}", square, drawn)
    still = [name for name, value in zip(names, np.diagonal(found), strict=True) if np.isnan(value)]
    return html.section(
        "correlations",
        "Correlations",
        html.words("Pearson correlation of features, over the same rows as above."),
        html.pair(
            html.figures([(label.capitalize(), drawing, "")]) + charts.level_key("-1", "0", "+1"),
            html.table(("the strongest", "with", "correlation"), pairs, "last"),
        ),
        html.words(f"Never changing in the sample: {', '.join(still)}.") if still else "",
    )  # fmt: skip


def samples(store: MatrixStore, bars: Bars | None) -> str:
    """Show a few matrices as they are."""
    names = store.feature_names[:MOST_FEATURES]
    stats = [store.feature_stats[name] for name in names]
    mean, std = (np.array([s[key] for s in stats]) for key in ("mean", "std"))
    items = []
    for window in spread(len(store), _SAMPLES).tolist():
        price, marked = _price(store, bars, window)
        matrix = store.matrices[window][:, : len(names)]
        drawing = charts.sample(
            f"matrix of window {window}", matrix, mean, std, names, price, marked
        )
        name = store.symbols[store.symbol[window]]
        ended = f"{name}, until {moment(int(store.end_time[window]))}"
        follows = store.next_return[window]
        said = "no next return" if np.isnan(follows) else f"next return {100 * follows:+.4f} %"
        items.append((f"Window {window:,}", drawing, f"{ended}, {said}"))
    above = (
        "the close of its bars"
        if bars is not None
        else "the close of its last bar and its neighbours' (the bars cache is not there any more; "
        "the shaded part is the window's)"
    )
    return html.section(
        "samples",
        "Sample matrices",
        html.words(
            f"{len(items)} windows spread evenly over the store, with {_all_or_first(store)}. "
            "Colours tell how far a value lies from the feature's mean, in its standard "
            f"deviations; above each stands {above}."
        ),
        charts.level_key("-2 std", "mean", "+2 std"),
        html.figures(items),
    )


def build(store: MatrixStore) -> str:
    """Show what building the store took."""
    took = read_build(store.path, store.fingerprint)
    if took is None:
        said = html.words(
            "No record of the build lies beside this store: it was built elsewhere, or moved."
        )
        return html.section("build", "Build", said)
    names = {"bars": "reading bars", "chunks": "writing chunks"}
    stages = {
        f"of which {names.get(stage, stage)}": duration(seconds)
        for stage, seconds in took["stage_seconds"].items()
    }
    return html.section(
        "build",
        "Build",
        html.facts(
            {
                "began": moment(int(took["began"] * 1e9)) + " UTC",
                "took": duration(took["seconds"]),
                **stages,
                "bars per second": round(took["n_rows"] / max(took["seconds"], 1e-3)),
                "chunks from an interrupted build": took["resumed_chunks"],
                "chunks kept of the store before": took["kept_chunks"],
                "tasks at once": took["tasks_in_flight"],
                "worker processes": took["worker_processes"],
                "memory at its peak": amount(took["peak_rss_bytes"])
                + (" in the building process alone" if took["worker_processes"] else ""),
                "memory as projected": amount(took["projected_bytes"]),
                "memory limit": f"{amount(took['limit_bytes'])} ({took['limit_source']})",
            }
        ),
    )


def _price(
    store: MatrixStore, bars: Bars | None, window: int
) -> tuple[Float64, tuple[float, float]]:
    """Read the closes to show above a window, and tell which share of them is its own."""
    length = store.sequence_length
    if bars is not None:
        first = int(store.first_row[window])
        return bars.read(first, first + length, ("close",))["close"], (0.0, 0.0)
    around = max(24, 2 * length // store.stride)
    low, high = max(0, window - around), min(len(store), window + around + 1)
    own = np.flatnonzero(store.symbol[low:high] == store.symbol[window])
    low, high = low + int(own[0]), low + int(own[-1]) + 1
    place, steps = window - low, max(1, high - low - 1)
    begin = max(0.0, place - (length - 1) / store.stride)
    return store.close_price[low:high], (begin / steps, place / steps)


def _all_or_first(store: MatrixStore) -> str:
    return "all features" if store.n_features <= MOST_FEATURES else _of_features(store)


def _of_features(store: MatrixStore) -> str:
    if store.n_features <= MOST_FEATURES:
        return "features"
    return f"the first {MOST_FEATURES} of {store.n_features} features"


def _inputs(store: MatrixStore) -> str:
    """Tell what features read of a bar; stores of earlier versions don't say."""
    zones = store.attrs.get("zone_database")
    read = ", ".join(map(str, store.attrs.get("inputs", ()))) or "not said"
    return f"{read}; local time by {zones}" if zones else read


def _extra(store: MatrixStore) -> str:
    """Tell the extra columns of the bars, and what stands where they have no value."""
    fill, filled = store.attrs.get("fill", {}), store.attrs.get("filled", {})
    found = [
        f"{name} ({fill.get(name)}{f', {filled[name]:,} times' if name in filled else ''})"
        for name in store.attrs.get("extra", ())
    ]
    return ", ".join(found) or "none"


def _versions(store: MatrixStore) -> str:
    """Tell each feature's version; those of many features only where they aren't the commonest."""
    versions = dict(zip(store.feature_names, store.attrs["feature_versions"], strict=True))
    usual, _ = Counter(versions.values()).most_common(1)[0]
    if store.n_features <= MOST_FEATURES:
        return ", ".join(f"{name} {version}" for name, version in versions.items())
    others = [f"{name} {version}" for name, version in versions.items() if version != usual]
    return ", ".join([f"all others {usual}" if others else f"all {usual}", *others])


def _bars(n: int) -> str:
    return "a bar" if n == 1 else f"{n:,} bars"


def _length(ns: int) -> str:
    return duration(ns / 1e9)
