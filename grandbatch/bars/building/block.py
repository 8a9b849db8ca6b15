"""One task: a block of an input to clean bars, bad rows, and a small record of both.

The record holds what joins blocks: how many lines a block has, and per symbol the first and the
latest time of the rows that break no rule but those of time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grandbatch.bars.building.filling import mark_gaps
from grandbatch.bars.building.judging import Carry, Judged, digests_of, judge
from grandbatch.bars.building.raw import write_raw
from grandbatch.bars.cache.digests import PartDigests
from grandbatch.bars.cache.extremes import Extremes, extremes_of
from grandbatch.bars.cache.parts import write_part
from grandbatch.bars.form.dialect import CsvDialect
from grandbatch.bars.reading.choosing import leave_out, texts_by_symbol
from grandbatch.bars.reading.opened import OpenBlock, open_block
from grandbatch.bars.reading.parquet_rows import ParquetDialect
from grandbatch.bars.reading.row_groups import OpenGroups, ParquetBlock
from grandbatch.bars.reading.rows import Rows, scale_prices
from grandbatch.bars.reading.text_blocks import CsvBlock
from grandbatch.bars.rules import BarRules
from grandbatch.bars.timestamps.evidence import Evidence
from grandbatch.bars.timestamps.scales import epoch_days
from grandbatch.bars.timestamps.texts import TimeForm
from grandbatch.files.locations import location_of
from grandbatch.files.verbs import local_copy
from grandbatch.files.whole import written_aside
from grandbatch.kernels.bars.bar_rules import (
    ACCEPTED,
    LEFT_OUT,
    N_REASONS,
    NEVER,
)

Int64 = npt.NDArray[np.int64]

WHOLE_PART_ROWS = 16_384
"""A block of one symbol with at least so many bars becomes a part of the cache as it is."""

SAMPLE_ROWS = 256
"""Of so many sorted bars of a symbol in a block, the first one's time is kept in the record."""


@dataclass(frozen=True)
class BlockJob:
    """What one task needs to know."""

    index: int
    """Place of the block among all blocks of all inputs."""
    file: int
    """Index of the input."""
    block: CsvBlock | ParquetBlock
    dialect: CsvDialect | ParquetDialect
    form: TimeForm
    symbol: str | None
    """Symbol of all rows; None for those of the symbol column."""
    rules: BarRules
    """Where they sort, bars of any order are written sorted by symbol and time, with their rows."""
    hashed: bool
    """Whether to digest the block's bytes."""
    folder: str
    """Where to write."""
    ends_block: bool = True
    """Whether no other task reads the same rows after this one, for another symbol."""
    carry: Mapping[str, Carry] = field(default_factory=dict)
    """The last accepted bar of each symbol in the blocks before, where that matters."""
    gives_way: frozenset[str] = frozenset()
    """Symbols whose last bar here has a later row of its time, in the blocks behind."""


@dataclass(frozen=True)
class SymbolRows:
    """What a block holds of one symbol."""

    name: str
    rows: int
    """Bars."""
    first_time: int
    """Of the first bar; `NEVER` where there is none."""
    first_candidate: int
    """Time of the first row that breaks no rule but those of time, the first of two."""
    last_candidate: int
    """Latest time of such rows, those in the blocks before among them."""
    last_time: int
    """Of the last bar; `NEVER` where there is none."""
    last_digest: int
    """Digest of the numbers of the last row of that latest time, if it is here."""
    holds_last: bool
    """Whether it is."""
    replaces: bool
    """Whether rows here stand instead of the last accepted bar in the blocks before."""
    sample: Int64 | None = field(default=None, compare=False)
    """Time of every `SAMPLE_ROWS`-th bar, where bars are sorted."""
    texts: tuple[tuple[str, ...], ...] = ()
    """The first different texts of each column that must not change."""


@dataclass(frozen=True)
class BlockRecord:
    """Record of a block that was read."""

    index: int
    file: int
    n_bytes: int
    """Bytes of the block."""
    n_lines: int
    """Lines by which the next block's are further down."""
    n_rows: int
    """Rows, good or bad."""
    left_out: int
    """Rows that are none of those asked for."""
    leaves: tuple[bytes, ...]
    evidence: Evidence
    turned: tuple[str, ...]
    """Plain names of columns in which no text was seen before, and may be one here."""
    days: tuple[int, ...]
    """Where timestamps are numbers, days of bars as `epoch_days` tells them."""
    reasons: tuple[int, ...]
    """Rows of each reason code."""
    symbols: tuple[SymbolRows, ...]
    """Sorted by name."""
    changes: tuple[int, int]
    """Bars with a time that clocks show twice; rows with one that they skip."""
    n_widened: int
    """Rows that break no rule but those of time since their high and low were widened."""
    n_near: int
    """Highs and lows that miss by a rounding, and more than is allowed."""
    n_differing: int
    """Rows with the time of a row before and other numbers; none where bars are sorted."""
    part: PartDigests | None
    """Where the bars are written as a finished part (`parquet`), what that is; else they are `raw`,
    symbol by symbol: times, all numbers, and, where bars are sorted, their rows in the block."""
    look: Extremes | None = field(default=None, compare=False)
    """At the bars of a finished part: so nobody reads them again for it."""

    @property
    def is_part(self) -> bool:
        """Whether the bars are written as a finished part."""
        return self.part is not None

    @property
    def n_bars(self) -> int:
        """Rows that are bars."""
        return self.reasons[ACCEPTED]

    @property
    def n_bad(self) -> int:
        """Rows that are no bars."""
        return self.n_rows - self.n_bars


def looks_while_reading(records: Iterable[BlockRecord]) -> dict[PartDigests, Extremes]:
    """Return what was seen of the finished parts that blocks were written as."""
    return {record.part: record.look for record in records if record.part and record.look}


def block_path(folder: Path, index: int, suffix: str) -> Path:
    """Where a block's bars (`parquet`, `raw`) or bad rows (`bad`) are written."""
    return folder / f"{index:07d}.{suffix}"


def in_runs(tasks: Sequence[BlockJob], workers: int) -> list[list[BlockJob]]:
    """Gather blocks of one row group: it is read from its beginning, by one task.

    Where there are fewer row groups than workers several tasks share one, and skip what is before
    their blocks.
    """
    runs: list[list[BlockJob]] = []
    for task in tasks:
        read_on = task.block.read_on
        if runs and read_on is not None and runs[-1][-1].block.read_on == read_on:
            runs[-1].append(task)
        else:
            runs.append([task])
    shares = -(-workers // max(1, len(runs)))
    return [
        run[at : at + size]
        for run in runs
        for size in [-(-len(run) // shares)]
        for at in range(0, len(run), size)
    ]


def read_blocks(tasks: Sequence[BlockJob]) -> list[BlockRecord]:
    """Read blocks one after the other."""
    with OpenGroups() as groups:
        return [read_block(task, groups) for task in tasks]


def read_block(task: BlockJob, groups: OpenGroups | None = None) -> BlockRecord:
    """Read a block, judge its rows, write its bars and its bad rows.

    Parameters
    ----------
    task : BlockJob
    groups : OpenGroups, optional
        Where the row groups of Parquet files stand open that other blocks are read from, too.
    """
    groups = groups or OpenGroups()
    rows, opened = read_rows(task, groups)
    left_out = int(np.count_nonzero(rows.reasons == LEFT_OUT))
    judged = judge(rows, task.rules, task.carry, task.gives_way)
    rows = judged.rows
    beside = texts_by_symbol(rows, task.dialect.columns.texts)
    symbols, part, look = _write_bars(task, judged, beside)
    if judged.n_bad > left_out:
        bad = np.flatnonzero((rows.reasons != ACCEPTED) & (rows.reasons != LEFT_OUT))
        faults = None if rows.faults is None else rows.faults[bad]
        write_bad_rows(task, describe_rows(task, opened, bad, rows.reasons[bad], faults))
    return BlockRecord(
        index=task.index,
        file=task.file,
        n_bytes=task.block.n_bytes,
        n_lines=opened.n_lines if task.ends_block else 0,
        n_rows=len(rows) - left_out,
        left_out=left_out,
        leaves=opened.leaves,
        evidence=rows.evidence,
        turned=rows.turned,
        days=_days_of(rows, symbols),
        reasons=tuple(np.bincount(rows.reasons, minlength=256)[:N_REASONS].tolist()),
        symbols=symbols,
        changes=(
            int((rows.reasons[rows.changes.rows] == ACCEPTED).sum()),
            rows.changes.skipped,
        ),
        n_widened=judged.n_widened,
        n_near=judged.n_near,
        n_differing=judged.n_differing,
        part=part,
        look=look,
    )


def _days_of(rows: Rows, symbols: Sequence[SymbolRows]) -> tuple[int, ...]:
    if not rows.evidence.numbers.rows:
        return ()
    last = max((held.last_time for held in symbols if held.rows), default=NEVER)
    return epoch_days(rows.times[rows.reasons == ACCEPTED], last)


def read_rows(task: BlockJob, groups: OpenGroups) -> tuple[Rows, OpenBlock]:
    """Read a block's rows, before any is judged; and the block, for the text of some."""
    opened = open_block(task.block, task.dialect, groups, hashed=task.hashed)
    rows = opened.rows(task.form, task.symbol)
    if task.rules.price_scale != 1:
        rows = scale_prices(rows, task.rules.price_scale)
    leave_out(rows, task.dialect.columns, task.symbol, side_by_side=bool(task.dialect.series))
    return mark_gaps(rows, task.rules), opened


def _write_bars(
    task: BlockJob, judged: Judged, beside: Mapping[str, tuple[tuple[str, ...], ...]]
) -> tuple[tuple[SymbolRows, ...], PartDigests | None, Extremes | None]:
    """Write a block's bars in bars order; `beside` are the texts to tell."""
    folder, rows = location_of(task.folder), judged.rows
    times, numbers, codes = rows.times, [*rows.numbers, *rows.extras], rows.codes
    sort, holders = task.rules.sort, judged.holders
    order = _bars_order(rows, judged.n_bad, sort=sort)
    if order is not None:
        times, codes = times[order], codes[order]
        numbers = [column[order] for column in numbers]
    counts = np.bincount(codes, minlength=len(rows.symbols))
    starts = np.cumsum(counts) - counts
    digests = digests_of(rows, holders)
    symbols = tuple(
        SymbolRows(
            name,
            rows=int(counts[code]),
            first_time=int(times[starts[code]]) if counts[code] else NEVER,
            first_candidate=int(judged.first[code]),
            last_candidate=int(judged.last[code]),
            last_time=int(times[starts[code] + counts[code] - 1]) if counts[code] else NEVER,
            last_digest=int(digests[code]),
            holds_last=bool(holders[code] >= 0),
            replaces=bool(judged.replaces[code]),
            sample=_sample(times, starts[code], counts[code]) if sort else None,
            texts=beside.get(name, ()),
        )
        for code, name in enumerate(rows.symbols)
        if judged.first[code] != NEVER
    )
    part = look = None
    if len(symbols) == 1 and len(times) >= WHOLE_PART_ROWS and not sort:
        path = block_path(folder, task.index, "parquet")
        part = write_part(path, times, numbers, task.rules.extra)
        look = extremes_of(times, numbers[1], numbers[2], numbers[4])
    elif len(times):
        columns = [times, *(values.view(np.int64) for values in numbers)]
        if sort:
            columns.append(np.arange(len(times)) if order is None else order)
        write_raw(block_path(folder, task.index, "raw"), np.array(columns, np.int64))
    return symbols, part, look


def _bars_order(rows: Rows, n_bad: int, *, sort: bool) -> Int64 | None:
    """Rows that are bars, by symbol, in a stable order; None where these are all as they come."""
    good = np.flatnonzero(rows.reasons == ACCEPTED) if n_bad else None
    if len(rows.symbols) == 1 and not sort:
        return good
    times, codes = rows.times, rows.codes
    if len(rows.symbols) <= 65_536:
        codes = codes.astype(np.uint16)  # numpy sorts 16 bits by radix: linear, and stable
    if good is not None:
        times, codes = times[good], codes[good]
    order: Int64 = np.lexsort((times, codes)) if sort else np.argsort(codes, kind="stable")
    return order if good is None else good[order]


def _sample(times: Int64, start: int, count: int) -> Int64:
    return times[start : start + count : SAMPLE_ROWS].copy()


def add_bad_rows(
    entries: Sequence[tuple[BlockJob, BlockRecord, Int64]], reason: int
) -> list[BlockRecord]:
    """Turn some bars of some blocks, each with its record, into bad rows, as `_add_bad_rows`."""
    with OpenGroups() as groups:
        return [_add_bad_rows(*entry, reason, groups) for entry in entries]


def _add_bad_rows(
    task: BlockJob, record: BlockRecord, bad: Int64, reason: int, groups: OpenGroups
) -> BlockRecord:
    """Turn some of a block's bars into bad rows: their indices, ascending, and their reason.

    The block is read again for their text.
    """
    opened = open_block(task.block, task.dialect, groups)
    table = describe_rows(task, opened, bad, np.full(len(bad), reason, np.uint8))
    if record.n_bad:
        before = read_bad_rows(task)
        # without what another run of this very task has added
        before = before.filter(pc.invert(pc.is_in(before["line"], table["line"])))
        table = pa.concat_tables([before, table]).sort_by("line")
    write_bad_rows(task, table)
    reasons = list(record.reasons)
    reasons[ACCEPTED] -= len(bad)
    reasons[reason] += len(bad)
    return replace(record, reasons=tuple(reasons))


def bad_path(task: BlockJob) -> Path:
    """Where a block's bad rows are."""
    return block_path(location_of(task.folder), task.index, "bad")


def read_bad_rows(task: BlockJob) -> Any:
    """Read a block's bad rows, as a table."""
    with local_copy(bad_path(task)) as path, pq.ParquetFile(path) as file:
        return file.read()


def write_bad_rows(task: BlockJob, table: Any) -> None:
    """Write a block's bad rows, instead of those before."""
    with written_aside(bad_path(task), shared=True) as aside:
        pq.write_table(table, aside, row_group_size=65_536)


def describe_rows(
    task: BlockJob,
    opened: OpenBlock,
    bad: Int64,
    reasons: npt.NDArray[np.uint8],
    faults: npt.NDArray[np.uint16] | None = None,
) -> Any:
    """Line (from 0, within the block), text and reason code of some rows, as a table.

    Where there are extra columns also which of them is at fault, from 1, or 0 for none.
    """
    numbers, texts = opened.texts(bad)
    columns: dict[str, Any] = {
        "line": pa.array(numbers, pa.int64()),
        "text": pa.array(texts, pa.string()),
        "reason": pa.array(reasons),
    }
    if task.rules.extra:
        columns["fault"] = pa.array(np.zeros(len(bad), np.uint16) if faults is None else faults)
    return pa.table(columns)
