"""The cache of clean bars: opening it, reading rows of it.

A cache is a folder ``<cache_dir>/<fingerprint>`` that is published whole, and never changed after.
Opening it and reading rows import neither dask nor pandas nor pyarrow.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from grandbatch.bars.cache.cutting import as_segments, as_stretches, find_cuts
from grandbatch.bars.cache.digests import PartRows, check_part, copy_rows, damaged, file_digest
from grandbatch.bars.cache.keeping import Use, put_aside
from grandbatch.bars.cache.manifest import (
    QUARANTINE,
    Part,
    files_folder,
    parse_manifest,
    read_manifest,
)
from grandbatch.bars.cache.published import built_manifest, publish_objects
from grandbatch.errors import DamagedBarsError, UsageError
from grandbatch.files.deferred import Deferred, Opening
from grandbatch.files.locations import is_remote, location_of
from grandbatch.files.system import sync_folder
from grandbatch.files.verbs import both
from grandbatch.grid import Segments, Stretches
from grandbatch.values.columns import BAR_COLUMNS

if TYPE_CHECKING:
    from dask.dataframe import DataFrame

logger = logging.getLogger(__name__)

PARTITION_ROWS = 131_072


class Bars(Deferred):
    """Clean bars in a cache, ordered by symbol, then time. Read-only; safe from several threads.

    `open_bars` and `prepare_bars` return them. A pickle holds the path only. As long as one is
    there that was opened for use, `cache clear` leaves the cache alone.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], use: Use | None = None) -> None:
        self.path: Path = path if is_remote(path) else path.absolute()
        """The cache's folder."""
        self.files = files_folder(self.path, manifest)
        """Where its files lie: the same, but in an object store."""
        self.fingerprint: str = manifest["fingerprint"]
        self.symbols: tuple[str, ...] = tuple(manifest["symbols"])
        """Names, sorted."""
        self.extra: tuple[str, ...] = tuple(manifest.get("extra", ()))
        """Names of the columns behind the five, in order."""
        self.fill: dict[str, str] = manifest.get("fill", {})
        """What stands in each of these where there is no value: `BarRules.fill`."""
        self.filled: dict[str, int] = manifest.get("filled", {})
        """Bars of which each column that is filled has a 0, or the value before, for its own."""
        self.source: list[dict[str, Any]] = manifest["source"]
        """Name, bytes and digest of each input."""
        self.day_first: tuple[bool | None, ...] = tuple(manifest["day_first"])
        """Per input, whether days came before months; None where it didn't matter."""
        self.time_numbers: tuple[str | None, ...] = tuple(manifest["time_numbers"])
        """Per input, what numbers in its timestamps mean: ``ms``, ``date``, ``HHMM``; or None."""
        self.quarantined: dict[str, int] = manifest["quarantined"]
        """Rows that are no bars: reason → count, without zeros."""
        self.clock_changes: dict[str, int] = manifest["clock_changes"]
        """Bars whose local time comes twice (``repeated``), rows with one that there is not
        (``skipped``)."""
        self.incomplete: int = manifest.get("incomplete", 0)
        """Symbols whose last interval was left out, where bars were resampled."""
        self.left_out: int = manifest.get("left_out", 0)
        """Rows that are none of those asked for (``where``), or empty where symbols stand side by
        side."""
        self.widened: int = manifest["widened"]
        """Rows whose high or low was widened, for a rounding, to hold the other prices."""
        self.differing_duplicates: int = manifest["differing_duplicates"]
        """Rows with the time of a row before of their symbol, and other numbers."""
        self.worth_a_look: tuple[str, ...] = tuple(manifest["worth_a_look"])
        """What a person should look at, a line for each kind."""
        self.rules: dict[str, Any] = manifest["rules"]
        """By which they were made, as `BarRules.identity` writes them."""
        self.growth: dict[str, Any] | None = manifest.get("growth")
        """What must be known to add files; None where the cache can't grow."""
        self.parts: tuple[Part, ...] = manifest["parts"]
        self._quarantine: dict[str, int] = manifest["quarantine"]
        self._sha256: str = manifest["sha256"]
        self._use = use
        rows = np.array([part.rows for part in self.parts], np.int64)
        self._bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(rows, dtype=np.int64)])
        codes = np.array([part.symbol for part in self.parts], np.int64)
        starts = np.searchsorted(codes, np.arange(len(self.symbols) + 1))
        self.symbol_bounds: npt.NDArray[np.int64] = self._bounds[starts]
        """Row where each symbol starts, and the number of rows at the end; (S + 1,) int64."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns: those of a bar, and the extra ones behind them."""
        return *BAR_COLUMNS, *self.extra

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

    def grew_from(self, other: Bars) -> bool:
        """Whether these are the bars of another cache as they are, with more behind some."""
        return self.growth is not None and self.growth["from"] == other.fingerprint

    @property
    def quarantine_path(self) -> Path:
        """Parquet file of the rows that are no bars: file, line, text, reason.

        Where there are extra columns, also `column`: the one that is at fault, if one is.
        """
        return self.files / QUARANTINE

    def _deferral(self) -> tuple[dict[str, Any], Opening]:
        known = {"path": self.path, "fingerprint": self.fingerprint, "_sha256": self._sha256}
        return known, (_reopen, (str(self.path), self._sha256))

    def __dask_tokenize__(self) -> tuple[str, str]:
        return type(self).__name__, self.fingerprint

    def read(
        self, start: int, stop: int, columns: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Read the bars from row `start` up to row `stop`.

        Parameters
        ----------
        start, stop : int
            Rows in bars order, ``0 <= start <= stop <= n_rows``.
        columns : sequence of str, optional
            Some of `columns`; all by default.

        Returns
        -------
        dict of str to (stop - start,) array
            ``timestamp`` int64 nanoseconds since 1970 UTC, ``symbol`` int32 index into `symbols`,
            the others float64.

        Raises
        ------
        UsageError
            If the rows or a column aren't there.
        DamagedBarsError
            If they are not those that were written, or were cleared.
        """
        return self.read_ranges([(start, stop)], columns)

    def read_ranges(
        self, ranges: Sequence[tuple[int, int]], columns: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Read the bars of several half-open ranges of rows, one behind the other, as `read`."""
        wrong = [rows for rows in ranges if not 0 <= rows[0] <= rows[1] <= self.n_rows]
        if wrong:
            raise UsageError(
                f"rows {wrong[0][0]} to {wrong[0][1]} are not within 0 to {self.n_rows}"
            )
        columns = self.columns if columns is None else columns
        unknown = [name for name in columns if name not in self.columns]
        if unknown:
            raise UsageError(f"no column {unknown[0]!r}; choose from {', '.join(self.columns)}")
        dtypes = {"timestamp": np.int64, "symbol": np.int32}
        n_rows = sum(stop - start for start, stop in ranges)
        copies: list[PartRows] = []
        out = {name: np.empty(n_rows, dtypes.get(name, np.float64)) for name in columns}
        stored = [name for name in out if name != "symbol"]
        at = 0
        for start, stop in ranges:
            here = slice(at, at + stop - start)
            if start < stop and stored:
                copies += self._copies(start, stop, [out[name][here] for name in stored])
            if "symbol" in out:
                rows = np.arange(start, stop)
                codes = np.searchsorted(self.symbol_bounds, rows, side="right") - 1
                out["symbol"][here] = codes
            at = here.stop
        try:
            copy_rows(self.files, copies, stored)
        except DamagedBarsError:
            if self._use is not None:
                self._use.end()  # it may be cleared now
            raise
        return out

    def _copies(self, start: int, stop: int, out: Sequence[npt.NDArray[Any]]) -> Iterator[PartRows]:
        """Part some rows by the parts that they lie in."""
        first, last = np.searchsorted(self._bounds, [start, stop - 1], side="right") - 1
        for place in range(int(first), int(last) + 1):
            base = int(self._bounds[place])
            low, high = max(start, base), min(stop, int(self._bounds[place + 1]))
            values = [array[low - start : high - start] for array in out]
            part = self.parts[place]
            yield PartRows(part.path, part.digests, (low - base, high - base), values)

    def check_quarantine(self) -> None:
        """Compare the quarantine with what was written.

        Raises
        ------
        DamagedBarsError
            If it is not the same.
        """
        _, found = file_digest(self.files, QUARANTINE)
        if found != self._quarantine["crc32c"]:
            raise damaged(self.path, f"{QUARANTINE} is not what was written")

    def problems(self, numbers: Iterable[int] | None = None) -> Iterator[DamagedBarsError]:
        """Read everything, and tell what is not as it was written.

        Parameters
        ----------
        numbers : iterable of int, optional
            Read only these parts, by their numbers; the quarantine has the one behind the last.
        """
        for number in range(len(self.parts) + 1) if numbers is None else numbers:
            if number < len(self.parts):
                part = self.parts[number]
                yield from check_part(self.files, part.path, part.digests)
                continue
            try:
                self.check_quarantine()
            except DamagedBarsError as error:
                yield error

    def segments(self, max_gap_ns: int | None = None) -> Segments:
        """Cut the bars at the symbols' borders, and where time leaps by more than `max_gap_ns`.

        Parameters
        ----------
        max_gap_ns : int, optional
            Longest gap, in nanoseconds, that a segment spans; None sets no limit.
        """
        return as_segments(self, find_cuts(self, max_gap_ns, None).leaps)

    def stretches(self, period: str) -> Stretches:
        """Cut the bars at the symbols' borders, and where a calendar period (UTC) begins.

        Parameters
        ----------
        period : str
            As `grandbatch.times.calendar_period` reads it.
        """
        return as_stretches(find_cuts(self, None, period))

    def frame(self, bounds: Sequence[int] | None = None, *, codes: bool = False) -> DataFrame:
        """Return the bars as a Dask frame with all their `columns`.

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
        from grandbatch.bars.cache.frames import frame_of

        if bounds is None:
            bounds = [*range(0, self.n_rows, PARTITION_ROWS), self.n_rows]
        edges = [int(bound) for bound in bounds]
        rising = all(a <= b for a, b in pairwise(edges))
        if len(edges) < 2 or edges[0] != 0 or edges[-1] != self.n_rows or not rising:
            raise UsageError(f"bounds must rise from 0 to {self.n_rows}, got {edges[:8]}")
        return frame_of(self, edges, codes=codes)

    def gathered_frame(self, partitions: Sequence[Sequence[tuple[int, int]]]) -> DataFrame:
        """Return a Dask frame of symbols as codes, whose partitions gather ranges of rows each."""
        from grandbatch.bars.cache.frames import gathered_frame

        return gathered_frame(self, partitions)


def open_bars(path: Path) -> Bars | None:
    """Open a cache, or return None where there is none, or not all of it."""
    with suppress(FileNotFoundError, DamagedBarsError):
        return load_bars(path)
    return None


def load_bars(path: Path, *, use: bool = False) -> Bars:
    """Open a cache; its manifest and the sizes of its files are checked, rows are as they are read.

    Parameters
    ----------
    path : Path
    use : bool
        Whether nobody may clear it as long as the bars are there.

    Raises
    ------
    FileNotFoundError
        If there is none, or one of another format.
    DamagedBarsError
        If it is not what was written.
    """
    claim = Use(path) if use else None
    try:
        return Bars(path, read_manifest(path), claim)
    except BaseException:
        if claim is not None:
            claim.end()
        raise


def publish(built: Path, target: Path) -> Bars:
    """Give a finished cache its name, unless one of that name is whole already.

    Raises
    ------
    DamagedBarsError
        If not all of it is there: in an object store nothing is published then.
    """
    if is_remote(target):
        there, raw = both(lambda: open_bars(target), lambda: built_manifest(built))
        if there is not None:
            return there
        bars = Bars(target, parse_manifest(raw, target))
        publish_objects(raw, target)
        return bars
    with suppress(FileNotFoundError, DamagedBarsError):
        return load_bars(target, use=True)
    claim = Use(target)  # from before it is there to be cleared
    try:
        throw_away_unreadable(target)
        try:
            built.rename(target)
        except OSError as error:  # another process published the same bars just now
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        sync_folder(target.parent)
        return load_bars(target, use=True)
    finally:
        claim.end()


def throw_away_unreadable(path: Path) -> None:
    """Throw away what stands in the place of a cache and can't be opened; say so if it is damaged.

    Of another format, or without a manifest, it is nothing to speak of.
    """
    try:
        read_manifest(path)
    except FileNotFoundError:
        put_aside(path)
    except DamagedBarsError as error:
        _throw_away(path, error)


def throw_away_damaged(path: Path) -> None:
    """Read all of a cache, and throw it away, and say so, if it is not what was written.

    Whoever met damage may have read a cache that stands here no more.
    """
    try:
        problem = next(load_bars(path).problems(), None)
    except FileNotFoundError:
        return
    except DamagedBarsError as error:
        problem = error
    if problem is not None:
        _throw_away(path, problem)


def _throw_away(path: Path, problem: DamagedBarsError) -> None:
    logger.warning("%s; it is thrown away, and the inputs are read again", problem.args[0])
    put_aside(path)


@lru_cache(maxsize=64)
def _reopen(path: str, sha256: str) -> Bars:
    """Open the bars of a pickle, once in each process."""
    bars = open_bars(location_of(path))
    if bars is None or bars._sha256 != sha256:
        raise DamagedBarsError(
            f"{path}: the bars cache of this run is not there; it was cleared or built anew, or "
            "this machine can't see the folder",
            "run the same command again",
        )
    return bars
