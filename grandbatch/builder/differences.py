"""What sets the store that stands at a path apart from the one asked for, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grandbatch.bars import BarRules
from grandbatch.bars.cache.upkeep import list_caches
from grandbatch.builder.settings import StoreSettings
from grandbatch.store.format import NEXT_RETURN_VERSION
from grandbatch.store.notes import named
from grandbatch.store.reader import MatrixStore
from grandbatch.values.times import written_duration

InputEntries = Sequence[Mapping[str, Any]]

_RESAMPLE = "resample"


def difference(
    store: MatrixStore, settings: StoreSettings, inputs: InputEntries, rules: BarRules, cache: Path
) -> str:
    """Name what sets a store apart from the one asked for.

    Parameters
    ----------
    store : MatrixStore
    settings, inputs, rules
        Those of the store that is asked for; inputs as `input_digests` describes them.
    cache : Path
        Folder of caches of bars: one may tell by which rules the store's were read.
    """
    spec = settings.spec(n_windows=0, block_rows=0)
    wanted = {
        "feature_set": settings.feature_set.name,
        "sequence_length": settings.feature_set.sequence_length,
        "overlap": settings.feature_set.overlap,
        "chunk_windows": settings.chunk_windows,
        "layout": spec.layout,
        "codec": spec.codec,
        "max_gap_ns": settings.max_gap_ns,
        "order": settings.order,
        "period": settings.period,
        "next_return_version": NEXT_RETURN_VERSION,
        "zone_database": settings.feature_set.zone_database,
        "target_names": [target.name for target in settings.targets] or None,
        "target_versions": [target.version for target in settings.targets] or None,
    }
    found = {"order": "symbol", **store.attrs}
    different = [
        _change(name, found.get(name), value)
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if different:
        return ", ".join(different)
    return (
        _other_versions(store, settings)
        or _other_inputs(store, inputs)
        or _other_rules(store, settings, rules, cache)
        or "bar rules, or features whose names and versions are the same"
    )


def _other_versions(store: MatrixStore, settings: StoreSettings) -> str:
    """Name features whose versions differ, or that others stand for."""
    chosen = settings.feature_set
    now = dict(zip(chosen.feature_names, chosen.feature_versions, strict=True))
    before = dict(zip(store.feature_names, store.attrs["feature_versions"], strict=False))
    different = [
        f"{name} (version {before.get(name)}, now {version})"
        for name, version in now.items()
        if before.get(name) != version
    ]
    return f"features: {named(different)}" if different else ""


def _other_inputs(store: MatrixStore, inputs: InputEntries) -> str:
    """Name inputs that changed, went or came, or say that they come in another order."""
    before = {entry["name"]: entry for entry in store.attrs["source"]}
    now = {entry["name"]: entry for entry in inputs}
    told = {
        "changed": [name for name in before if name in now and before[name] != now[name]],
        "not given any more": [name for name in before if name not in now],
        "new": [name for name in now if name not in before],
    }
    lines = [f"{what}: {named(names)}" for what, names in told.items() if names]
    if not lines and store.attrs["source"] != list(inputs):
        lines = ["in another order"]
    return f"inputs ({'; '.join(lines)})" if lines else ""


def _other_rules(store: MatrixStore, settings: StoreSettings, rules: BarRules, cache: Path) -> str:
    """Name rules that differ, where a cache tells by which the store's bars were read."""
    now = rules.identity()
    for entry in list_caches(cache):
        bars = entry.bars
        if bars is None or settings.fingerprint(bars.fingerprint) != store.fingerprint:
            continue
        before, after = _parts(bars.rules, now), _parts(now, bars.rules)
        different = [
            _change(name, before.get(name), after.get(name))
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        ]
        return f"bar rules: {named(different)}"
    return ""


def _parts(rules: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return rules one by one; of a timeframe that the other rules lack, only its length."""
    found = dict(rules)
    timeframe = found.pop(_RESAMPLE, None)
    if timeframe is not None:
        found[f"{_RESAMPLE}_ns"] = timeframe["length_ns"]
        if _RESAMPLE in other:
            found |= {f"{_RESAMPLE}'s {part}": value for part, value in timeframe.items()}
            del found[f"{_RESAMPLE}'s length_ns"]
    return found


def _change(name: str, before: Any, now: Any) -> str:
    if name.endswith("_ns"):
        before, now = (None if one is None else written_duration(one) for one in (before, now))
    return f"{name.removesuffix('_ns')} ({before}, now {now})"
