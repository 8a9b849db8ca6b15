"""The cache of clean bars: its manifest, opening it, reading rows of it.

A cache is a folder ``<cache_dir>/<fingerprint>`` that is published whole, and never changed after.
Opening imports neither dask nor pandas nor pyarrow; reading rows imports pyarrow.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from grandbatch.bars.rules import FIELDS, BarRules
from grandbatch.errors import InputError, UsageError
from grandbatch.grid import Segments

if TYPE_CHECKING:
    from dask.dataframe import DataFrame

FORMAT = 2
MANIFEST = "bars.json"
QUARANTINE = "quarantine.parquet"
PARTITION_ROWS = 131_072
STAGING = ".staging-"
"""What is being built: ``.staging-<key>.<random>``, beside its lock ``.staging-<key>.lock``."""

_SCAN_ROWS = 1_048_576


def bars_fingerprint(source: Sequence[Mapping[str, Any]], rules: BarRules) -> str:
    """Digest everything that determines the bars: contents and names of inputs, and the rules.

    Parameters
    ----------
    source : sequence of mapping
        Name, bytes and digest of each input, in input order.
    rules : BarRules

    Returns
    -------
    str
        sha256 in hexadecimal of canonical JSON.
    """
    identity = {"format": FORMAT, "source": list(source), "rules": rules.identity()}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Part:
    """One Parquet file of a cache."""

    symbol: int
    """Index of its symbol."""
    path: str
    """Relative to the cache."""
    rows: int
    bytes: int
    first_time: int
    """Of its first bar, in nanoseconds since 1970."""
    last_time: int


class Bars:
    """Clean bars in a cache, ordered by symbol, then time. Read-only; safe from several threads.

    Open one with `open_bars`, or build it with `prepare_bars`. A pickle holds the path only.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path: Path = path
        """The cache's folder."""
        self.fingerprint: str = manifest["fingerprint"]
        self.symbols: tuple[str, ...] = tuple(manifest["symbols"])
        """Names, sorted."""
        self.source: list[dict[str, Any]] = manifest["source"]
        """Name, bytes and digest of each input."""
        self.day_first: tuple[bool | None, ...] = tuple(manifest["day_first"])
        """Per input, how dates such as ``2/7/2025`` were read where its own rows, or those of all
        inputs, decided it; else None."""
        self.quarantined: dict[str, int] = manifest["quarantined"]
        """Rows that are no bars: reason → count, without zeros."""
        self.clock_changes: dict[str, int] = manifest["clock_changes"]
        """Where local times were read: bars whose time clocks show twice (``repeated``), rows with
        one that they skip (``skipped``); without zeros."""
        self.parts: tuple[Part, ...] = tuple(Part(**part) for part in manifest["parts"])
        rows = np.array([part.rows for part in self.parts], np.int64)
        self._bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(rows, dtype=np.int64)])
        codes = np.array([part.symbol for part in self.parts], np.int64)
        starts = np.searchsorted(codes, np.arange(len(self.symbols) + 1))
        self.symbol_bounds: npt.NDArray[np.int64] = self._bounds[starts]
        """Row where each symbol starts, and the number of rows at the end; (S + 1,) int64."""

    @property
    def n_rows(self) -> int:
        """Bars in all."""
        return int(self._bounds[-1])

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        return f"<Bars: {self.n_rows:,} of {len(self.symbols):,} symbols in {self.path}>"

    @property
    def first_time(self) -> int:
        """Time of the earliest bar, in nanoseconds since 1970, UTC."""
        return min(part.first_time for part in self.parts)

    @property
    def last_time(self) -> int:
        """Time of the latest bar, in nanoseconds since 1970, UTC."""
        return max(part.last_time for part in self.parts)

    @property
    def quarantine_path(self) -> Path:
        """Parquet file of the rows that are no bars: file, line, text, reason."""
        return self.path / QUARANTINE

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self.fingerprint)

    def read(
        self, start: int, stop: int, columns: Sequence[str] = FIELDS
    ) -> dict[str, npt.NDArray[Any]]:
        """Read the bars from row `start` up to row `stop`.

        Parameters
        ----------
        start, stop : int
            Rows in bars order, ``0 <= start <= stop <= n_rows``.
        columns : sequence of str
            Some of timestamp, symbol, open, high, low, close, volume.

        Returns
        -------
        dict of str to (stop - start,) array
            ``timestamp`` int64 nanoseconds since 1970 UTC, ``symbol`` int32 index into `symbols`,
            the others float64.

        Raises
        ------
        UsageError
            If the rows or a column aren't there.
        """
        if not 0 <= start <= stop <= self.n_rows:
            raise UsageError(f"rows {start} to {stop} are not within 0 to {self.n_rows}")
        unknown = [name for name in columns if name not in FIELDS]
        if unknown:
            raise UsageError(f"no column {unknown[0]!r}; choose from {', '.join(FIELDS)}")
        dtypes = {"timestamp": np.int64, "symbol": np.int32}
        out = {name: np.empty(stop - start, dtypes.get(name, np.float64)) for name in columns}
        stored = [name for name in out if name != "symbol"]
        if start < stop:
            self._copy(start, stop, stored, [out[name] for name in stored])
        if "symbol" in out:
            rows = np.arange(start, stop)
            out["symbol"][:] = np.searchsorted(self.symbol_bounds, rows, side="right") - 1
        return out

    def _copy(
        self, start: int, stop: int, columns: Sequence[str], out: Sequence[npt.NDArray[Any]]
    ) -> None:
        from grandbatch.bars.parts import read_part

        first, last = np.searchsorted(self._bounds, [start, stop - 1], side="right") - 1
        for place in range(int(first), int(last) + 1):
            base = int(self._bounds[place])
            low, high = max(start, base), min(stop, int(self._bounds[place + 1]))
            rows = [values[low - start : high - start] for values in out]
            try:
                path = self.path / self.parts[place].path
                read_part(path, low - base, high - base, columns, rows)
            except FileNotFoundError as error:
                raise InputError(
                    f"{error.filename}: the bars cache was cleared while it was in use; "
                    "prepare the bars again"
                ) from error

    def segments(self, max_gap_ns: int | None = None) -> Segments:
        """Cut the bars at the symbols' borders, and where time leaps by more than `max_gap_ns`.

        Parameters
        ----------
        max_gap_ns : int, optional
            Longest gap, in nanoseconds, that a segment spans; None sets no limit.
        """
        starts = self.symbol_bounds[:-1]
        if max_gap_ns is not None:
            starts = np.union1d(starts, self._gaps(max_gap_ns))
        symbol = np.searchsorted(self.symbol_bounds, starts, side="right") - 1
        length = np.diff(starts, append=np.int64(self.n_rows))
        return Segments(starts.astype(np.int64), length, symbol.astype(np.int32))

    def _gaps(self, max_gap_ns: int) -> npt.NDArray[np.int64]:
        """Rows that come more than `max_gap_ns` after the row before."""
        found = [np.empty(0, np.int64)]
        for start in range(0, self.n_rows, _SCAN_ROWS):
            begin = max(start - 1, 0)
            stop = min(start + _SCAN_ROWS, self.n_rows)
            times = self.read(begin, stop, ("timestamp",))["timestamp"]
            # unsigned: int64 has no room for a gap of 300 years (borders of symbols are cut anyway)
            gaps = np.diff(times).view(np.uint64)
            found.append(np.flatnonzero(gaps > np.uint64(max_gap_ns)) + begin + 1)
        return np.concatenate(found)

    def frame(self, bounds: Sequence[int] | None = None, *, codes: bool = False) -> DataFrame:
        """Return the bars as a Dask frame with the columns of a bar.

        Parameters
        ----------
        bounds : sequence of int, optional
            Partition i holds the rows from ``bounds[i]`` up to ``bounds[i + 1]``; by default
            131,072 each.
        codes : bool
            Give symbols as int32 indices into `symbols`: frames of those are joined faster than
            frames of a category.

        Raises
        ------
        UsageError
            If the bounds don't rise from 0 to `n_rows`.
        """
        from grandbatch.bars.frames import frame_of

        if bounds is None:
            bounds = [*range(0, self.n_rows, PARTITION_ROWS), self.n_rows]
        edges = [int(bound) for bound in bounds]
        rising = all(a <= b for a, b in pairwise(edges))
        if len(edges) < 2 or edges[0] != 0 or edges[-1] != self.n_rows or not rising:
            raise UsageError(f"bounds must rise from 0 to {self.n_rows}, got {edges[:8]}")
        return frame_of(self, edges, codes=codes)


def open_bars(path: Path) -> Bars | None:
    """Open a cache, or return None where there is none, or not all of it."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            return None
        files = {part["path"]: part["bytes"] for part in manifest["parts"]}
        files[QUARANTINE] = manifest["quarantine_bytes"]
        for name, size in files.items():
            if (path / name).stat().st_size != size:
                return None
        return Bars(path, manifest)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=64)
def _reopen(path: str, fingerprint: str) -> Bars:
    """Open the bars of a pickle, once in each process."""
    bars = open_bars(Path(path))
    if bars is None or bars.fingerprint != fingerprint:
        raise InputError(
            f"{path}: no bars cache there; it was cleared, or this machine can't see the folder"
        )
    return bars


def cached_sources(cache_dir: Path) -> set[tuple[str, int]]:
    """Name and bytes of every input of every cache in a folder."""
    found: set[tuple[str, int]] = set()
    for manifest in cache_dir.glob(f"*/{MANIFEST}"):
        try:
            source = json.loads(manifest.read_text(encoding="utf-8"))["source"]
            found.update((str(entry["name"]), int(entry["bytes"])) for entry in source)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def remove_abandoned(cache_dir: Path) -> None:
    """Remove what builds of caches left when they were killed: their locks died with them."""
    for left in cache_dir.glob(f"{STAGING}*.*/"):
        with suppress(Timeout), FileLock(left.with_suffix(".lock"), timeout=0):
            shutil.rmtree(left, ignore_errors=True)


def total_rows(bars: Bars) -> tuple[int, int]:
    """Rows that are no bars, and rows in all."""
    bad = sum(bars.quarantined.values())
    return bad, bad + bars.n_rows


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
