"""Which windows times and symbols leave, read from the store's per-window values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from grandbatch.errors import UsageError
from grandbatch.loader.context.contexts import Contexts
from grandbatch.order import OrderSettings, Selection
from grandbatch.splits import Split, span_reader
from grandbatch.splits.making import SpanReader
from grandbatch.store import MatrixStore
from grandbatch.values.arrays import Bool
from grandbatch.values.times import shown

_SCANNED_WINDOWS = 2**20


Symbols = str | Iterable[str] | Callable[[str], bool]
"""Names, or patterns such as ``SYM9*``, or what tells of a name whether it is meant."""


def symbol_names(store: MatrixStore, symbols: Symbols) -> tuple[str, ...]:
    """Find the symbols that names, patterns or a predicate mean; sorted.

    A name that the store has stands for itself, whatever letters are in it. In patterns ``*`` is
    any text, ``?`` one letter, ``[AB]`` one of these.

    Raises
    ------
    UsageError
        If a name is unknown, or a pattern or the predicate fits none.
    """
    if callable(symbols):
        found = {name for name in store.symbols if symbols(name)}
        if not found:
            raise UsageError(
                f"symbols fits no symbol of {store.path}; it has {some_of(store.symbols)}"
            )
        return tuple(sorted(found))
    found, unknown = set(), []
    for entry in sorted({symbols} if isinstance(symbols, str) else set(symbols)):
        fitting = {entry} & set(store.symbols) or {
            name for name in store.symbols if fnmatchcase(name, entry)
        }
        found |= fitting
        if not fitting:
            unknown.append(entry)
    if unknown:
        raise UsageError(
            f"{store.path} has no symbol {some_of(unknown)}; it has {some_of(store.symbols)}"
        )
    return tuple(sorted(found))


def some_of(names: Sequence[str]) -> str:
    """List names, as many as a message can hold."""
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def within(settings: OrderSettings, subset: Split | Bool | None) -> OrderSettings:
    """Restrict an order to the windows of a split, or to single windows.

    Raises
    ------
    UsageError
        If it is neither, or `start` and `stop` leave nothing of it.
    """
    if subset is None:
        return settings
    if isinstance(subset, np.ndarray) and subset.dtype == np.bool_:
        named = hashlib.sha256(np.packbits(subset).tobytes()).hexdigest()
        return replace(settings, windows=named)
    if not isinstance(subset, Split):
        raise UsageError(
            "subset must be a bool for each window, or a Split, such as split_store(store, "
            f"...)['train'], got {type(subset).__name__}"
        )
    start = subset.start if settings.start is None else max(settings.start, subset.start)
    stop = subset.stop if settings.stop is None else min(settings.stop, subset.stop)
    return replace(settings, start=start, stop=stop, reads=subset.reads)


def select(
    store: MatrixStore,
    settings: OrderSettings,
    contexts: Contexts | None = None,
    subset: Split | Bool | None = None,
) -> Selection:
    """Find the windows that take part; of a subset those that its array names.

    Where runs are asked for, stretches end where a segment does, so that no run crosses it. Windows
    without a context are left out, and counted by `contexts`.

    Raises
    ------
    UsageError
        If there are none.
    """
    n = len(store)
    if isinstance(subset, np.ndarray) and subset.shape != (n,):
        raise UsageError(
            f"subset must say of each of the {n:,} windows of {store.path} whether it takes part, "
            f"got an array of shape {subset.shape}"
        )
    limits = (settings.start, settings.stop, settings.symbols, settings.reads, settings.windows)
    filtered = contexts or any(limit is not None for limit in limits)
    if not filtered and (settings.run_length == 1 or not settings.shuffle):
        return Selection.everything(n, store.chunk_windows)
    begin: list[int] = []
    end: list[int] = []
    # whole chunks at a time: they end runs in any case, so where the scan pauses doesn't show
    step = max(1, _SCANNED_WINDOWS // store.chunk_windows) * store.chunk_windows
    spans = None if settings.reads is None else span_reader(store)
    reads = contexts.limit(settings.reads) if contexts else None
    for first in range(0, n, step):
        stop = min(first + step, n)
        kept = _kept(store, settings, spans, first, stop)
        if isinstance(subset, np.ndarray):
            kept &= subset[first:stop]
        if contexts:
            contexts.narrow(kept, first, reads)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]])))
        breaks = _breaks(store, first, stop) if settings.run_length > 1 else np.empty(0, np.int64)
        inner = breaks[kept[breaks] & kept[breaks - 1]]
        begin += (first + np.union1d(edges[::2], inner)).tolist()
        end += (first + np.union1d(edges[1::2], inner)).tolist()
    if not begin:
        raise UsageError(
            f"no window of {store.path} ends from {_shown(settings.start)} to before "
            f"{_shown(settings.stop)}"
            + (f" for {', '.join(settings.symbols)}" if settings.symbols is not None else "")
            + (f" and reads bars of {_span_of_time(settings.reads)} only" if settings.reads else "")
            + (f" and has {contexts}" if contexts else "")
            + (" and is among those that subset= names" if settings.windows else "")
            + f"; it has windows ending from {_shown(int(store.end_time[:].min()))} to "
            f"{_shown(int(store.end_time[:].max()))}"
        )
    return Selection(np.array(begin, np.int64), np.array(end, np.int64), store.chunk_windows)


def _kept(
    store: MatrixStore, settings: OrderSettings, spans: SpanReader | None, first: int, stop: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    kept = np.ones(stop - first, np.bool_)
    if settings.start is not None or settings.stop is not None:
        times = store.end_time[first:stop]
        if settings.start is not None:
            kept &= times >= settings.start
        if settings.stop is not None:
            kept &= times < settings.stop
    if settings.symbols is not None:
        wanted = [store.symbols.index(name) for name in settings.symbols]
        kept &= np.isin(store.symbol[first:stop], wanted)
    if settings.reads is not None and spans is not None and kept.any():
        first_read, last_read = spans(first, stop)
        kept &= (first_read >= settings.reads[0]) & (last_read < settings.reads[1])
    return kept


def _breaks(
    store: MatrixStore, first: int, stop: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Windows whose segment begins with them.

    They don't follow the one before by one stride; or, without lookback and overlap, they may, but
    then the segment of the one before ends with it.
    """
    steps = np.diff(store.first_row[first:stop])
    ended = np.isnan(store.next_return[first : stop - 1])
    return np.flatnonzero((steps != store.stride) | ended) + 1


def _shown(time: int | None) -> str:
    return "any time" if time is None else shown(time)


def _span_of_time(reads: tuple[int, int]) -> str:
    return f"{shown(reads[0])} to before {shown(reads[1])}"
