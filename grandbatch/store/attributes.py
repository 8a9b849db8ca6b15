"""The attributes of a store's group: what each must be before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from grandbatch.store.format import CODECS, LAYOUTS, MAX_SHARD_CHUNKS

_INT64 = 2**63


def problem_of(attrs: Mapping[str, Any]) -> str | None:
    """Say what is wrong with attributes; None where they can be those of a store."""
    for name, (fits, wanted) in _ALLOWED.items():
        if name in attrs and not fits(attrs[name]):
            return f"its attribute {name} is {str(attrs[name])[:60]!r}, {wanted} wanted"
    for name, (fits, wanted) in _WANTED.items():
        if name not in attrs:
            return f"its attribute {name} is missing"
        if not fits(attrs[name]):
            return f"its attribute {name} is {str(attrs[name])[:60]!r}, {wanted} wanted"
    length, overlap, stride = (attrs[name] for name in ("sequence_length", "overlap", "stride"))
    names, stats = attrs["feature_names"], attrs["feature_stats"]
    contradictions = {
        "stride isn't sequence_length less overlap": stride != length - overlap,
        "n_symbols doesn't count symbols": attrs["n_symbols"] != len(attrs["symbols"]),
        "it has fewer bars than a window": attrs["n_rows"] < length,
        "feature_stats has other features than feature_names": set(stats) != set(names),
        "it is ordered by no period": attrs.get("order") == "period" and "period" not in attrs,
        "block_rows hold no window": attrs["layout"] == "rows" and attrs["block_rows"] < length,
    }
    contradictions |= _of_targets(attrs)
    return next((what for what, is_so in contradictions.items() if is_so), None)


def _of_targets(attrs: Mapping[str, Any]) -> dict[str, bool]:
    """Say what is wrong with what only stores with targets have."""
    values = [attrs.get(name) for name in ("target_names", "target_horizons", "target_versions")]
    if values == [None] * 3:
        return {}
    names, horizons, versions = values
    sound = _are_names(names) and _are(_is_size)(horizons) and _are(_is_size)(versions)
    return {
        "target_names, target_horizons and target_versions don't describe targets": not (
            sound and len(names or ()) == len(horizons or ()) == len(versions or ())
        )
    }


def _is_count(value: Any, low: int = 0, high: int = _INT64 - 1) -> bool:
    return type(value) is int and low <= value <= high


def _is_size(value: Any) -> bool:
    return _is_count(value, 1)


def _is_time(value: Any) -> bool:
    return _is_count(value, -_INT64)


def _are(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _are_counts(value: Any) -> bool:
    return _is_mapping(value, _is_count)


def _is_mapping(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(fits, value.values()))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_names(value: Any) -> bool:
    return _are(_is_text)(value) and len(value) == len(set(value)) > 0


def _is_source(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_text(value.get("name"))
        and _is_count(value.get("bytes"))
        and _is_text(value.get("digest"))
    )


def _are_stats(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(one, dict)
        and {"count", "mean", "std", "min", "max"} <= one.keys()
        and all(type(number) in (int, float) and math.isfinite(number) for number in one.values())
        for one in value.values()
    )


_WANTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "feature_set": (_is_text, "a name"),
    "feature_names": (_are_names, "a list of different names"),
    "feature_versions": (lambda value: isinstance(value, list), "a list"),
    "lookback": (_is_count, "a whole number"),
    "sequence_length": (_is_size, "a positive whole number"),
    "overlap": (lambda value: _is_count(value, -_INT64), "a whole number"),
    "stride": (_is_size, "a positive whole number"),
    "chunk_windows": (_is_size, "a positive whole number"),
    "n_windows": (_is_size, "a positive whole number"),
    "n_rows": (_is_size, "a positive whole number"),
    "n_symbols": (_is_size, "a positive whole number"),
    "n_segments": (_is_size, "a positive whole number"),
    "symbols": (_are_names, "a list of different names"),
    "first_time": (_is_time, "ns since 1970"),
    "last_time": (_is_time, "ns since 1970"),
    "max_gap_ns": (lambda value: value is None or _is_size(value), "ns or null"),
    "layout": (lambda value: value in LAYOUTS, "windows or rows"),
    "codec": (lambda value: value in CODECS, "none, lz4 or zstd"),
    "block_rows": (_is_count, "a whole number"),
    "shard_chunks": (
        lambda value: _is_count(value, 1, MAX_SHARD_CHUNKS),
        f"1 to {MAX_SHARD_CHUNKS:,}",
    ),
    "feature_stats": (_are_stats, "finite figures for each feature"),
    "source": (_are(_is_source), "a list of files"),
    "day_first": (lambda value: isinstance(value, list), "a list"),
    "quarantined": (_are_counts, "counts of rows"),
    "clock_changes": (_are_counts, "counts of rows"),
    "fingerprint": (_is_text, "text"),
    "content_id": (_is_text, "text"),
    "created_by": (_is_text, "text"),
}

_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bar_duration": (_is_count, "a length of time in nanoseconds"),
    "bar_time": (lambda value: value in ("open", "close"), "open or close"),
    "order": (lambda value: value in ("symbol", "period"), "symbol or period"),
    "period": (_is_text, "a calendar period"),
    "most_runs": (_is_size, "a positive whole number"),
    "inputs": (_are_names, "a list of different names"),
    "extra": (_are_names, "a list of different names"),
    "fill": (lambda value: _is_mapping(value, _is_text), "a fill for each name"),
    "filled": (_are_counts, "counts of values"),
    "zone_database": (_is_text, "text"),
    "rules": (lambda value: isinstance(value, dict), "the settings of how bars were read"),
}
"""Attributes that a store need not have."""
