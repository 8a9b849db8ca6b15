"""One task: a block of an input to clean bars, bad rows, and a small record of both.

The record holds what joins blocks: how many lines a block has, and per symbol the first and the
latest time of the rows that break no rule but those of time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grandbatch.bars.blocks import Block, BlockText, find_lines, read_text
from grandbatch.bars.choosing import leave_out, texts_by_symbol
from grandbatch.bars.digests import PartDigests
from grandbatch.bars.evidence import Evidence
from grandbatch.bars.layout import CsvLayout
from grandbatch.bars.parsing import parse_rows
from grandbatch.bars.parts import write_part
from grandbatch.bars.raw import write_raw
from grandbatch.bars.row_groups import OpenGroups, TableBlock
from grandbatch.bars.rows import Rows, scale_prices
from grandbatch.bars.tables import TableLayout, read_table, table_texts
from grandbatch.bars.times import TimeForm
from grandbatch.files import written_aside
from grandbatch.kernels.bar_rules import (
    ACCEPTED,
    DUPLICATE_TIMESTAMP,
    LEFT_OUT,
    NEVER,
    OUT_OF_ORDER,
    choose_second_times,
    judge_rows,
)

Int64 = npt.NDArray[np.int64]

WHOLE_PART_ROWS = 16_384
"""A block of one symbol with at least so many bars becomes a part of the cache as it is."""

SAMPLE_ROWS = 256
"""Of so many sorted bars of a symbol in a block, the first one's time is kept in the record."""


@dataclass(frozen=True)
class PieceTask:
    """What one task needs to know."""

    index: int
    """Place of the block among all blocks of all inputs."""
    file: int
    """Index of the input."""
    block: Block | TableBlock
    layout: CsvLayout | TableLayout
    form: TimeForm
    symbol: str | None
    """Symbol of all rows; None for those of the symbol column."""
    allow_non_positive: bool
    hashed: bool
    """Whether to digest the block's bytes."""
    folder: str
    """Where to write."""
    sort: bool = False
    """Whether to write bars of any order, sorted by symbol and time, with their rows."""
    price_scale: float = 1.0
    """What prices are multiplied by."""
    ends_block: bool = True
    """Whether no other task reads the same rows after this one, for another symbol."""
    carry: Mapping[str, int] = field(default_factory=dict)
    """Latest time of each symbol in the blocks before, where that matters."""


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
    """Latest time of such rows; the last bar's, if there are bars."""
    sample: tuple[int, ...] = ()
    """Time of every `SAMPLE_ROWS`-th bar, where bars are sorted."""
    texts: tuple[tuple[str, ...], ...] = ()
    """The first different texts of each column that must not change."""


@dataclass(frozen=True)
class Piece:
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
    reasons: tuple[int, ...]
    """Rows of each reason code."""
    symbols: tuple[SymbolRows, ...]
    """Sorted by name."""
    changes: tuple[int, int]
    """Bars with a time that clocks show twice; rows with one that they skip."""
    part: PartDigests | None
    """Where the bars are written as a finished part (`parquet`), what that is; else they are `raw`,
    symbol by symbol: times, five numbers, and, where bars are sorted, their rows in the block."""

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


def piece_path(folder: Path, index: int, suffix: str) -> Path:
    """Where a block's bars (`parquet`, `raw`) or bad rows (`bad`) are written."""
    return folder / f"{index:07d}.{suffix}"


def in_runs(tasks: Sequence[PieceTask], workers: int) -> list[list[PieceTask]]:
    """Gather blocks of one row group: it is read from its beginning, by one task.

    Where there are fewer row groups than workers several tasks share one, and skip what is before
    their blocks.
    """
    runs: list[list[PieceTask]] = []
    for task in tasks:
        if runs and _are_of_one_group(runs[-1][-1].block, task.block):
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


def _are_of_one_group(one: Block | TableBlock, other: Block | TableBlock) -> bool:
    if not isinstance(one, TableBlock) or not isinstance(other, TableBlock):
        return False
    return (one.path, one.group) == (other.path, other.group)


def read_pieces(tasks: Sequence[PieceTask]) -> list[Piece]:
    """Read blocks one after the other."""
    with OpenGroups() as groups:
        return [read_piece(task, groups) for task in tasks]


def read_piece(task: PieceTask, groups: OpenGroups | None = None) -> Piece:
    """Read a block, judge its rows, write its bars and its bad rows.

    Parameters
    ----------
    task : PieceTask
    groups : OpenGroups, optional
        Where the row groups of Parquet files stand open that other blocks are read from, too.
    """
    groups = groups or OpenGroups()
    text: BlockText | None = None
    if isinstance(task.block, TableBlock):
        assert isinstance(task.layout, TableLayout)
        rows = read_table(task.block, task.layout, task.form, task.symbol, groups)
        n_bytes, n_lines = task.block.n_bytes, len(rows)
    else:
        assert isinstance(task.layout, CsvLayout)
        text = read_text(task.block, task.hashed)
        rows = parse_rows(text, task.layout, task.form, task.symbol)
        n_bytes, n_lines = task.block.stop - task.block.start, text.n_lines
    if task.price_scale != 1:
        rows = scale_prices(rows, task.price_scale)
    columns = task.layout.columns
    left_out = leave_out(rows, columns, task.symbol, side_by_side=bool(task.layout.series))
    n_bad, first, last = _judge(task, rows)
    beside = texts_by_symbol(rows, columns.texts)
    symbols, part = _write_bars(task, rows, n_bad, first, last, beside)
    if n_bad > left_out:
        bad = np.flatnonzero((rows.reasons != ACCEPTED) & (rows.reasons != LEFT_OUT))
        table = _describe(task, text, groups, bad, rows.reasons[bad])
        _write_bad_rows(task, table)
    return Piece(
        index=task.index,
        file=task.file,
        n_bytes=n_bytes,
        n_lines=n_lines if task.ends_block else 0,
        n_rows=len(rows) - left_out,
        left_out=left_out,
        leaves=text.leaves if text is not None else (),
        evidence=rows.evidence,
        reasons=tuple(np.bincount(rows.reasons, minlength=256)[: OUT_OF_ORDER + 1].tolist()),
        symbols=symbols,
        changes=(
            int((rows.reasons[rows.changes.rows] == ACCEPTED).sum()),
            rows.changes.skipped,
        ),
        part=part,
    )


def _judge(task: PieceTask, rows: Rows) -> tuple[int, Int64, Int64]:
    """Give rows their reasons; return how many are no bars, and what joins blocks, per symbol."""
    first = np.full(len(rows.symbols), NEVER, np.int64)
    last = np.array([task.carry.get(name, NEVER) for name in rows.symbols], np.int64)
    shared = rows.times, *rows.numbers, rows.codes, task.allow_non_positive, first
    if len(rows.changes.rows) and not task.sort:
        twice = rows.changes.rows, rows.changes.second
        choose_second_times(*shared, last.copy(), rows.reasons, *twice)
    n_bad = judge_rows(*shared, last, rows.reasons)
    if task.sort:
        # time is settled where bars of all blocks meet
        of_time = (rows.reasons >= DUPLICATE_TIMESTAMP) & (rows.reasons != LEFT_OUT)
        rows.reasons[of_time] = ACCEPTED
        n_bad = int(np.count_nonzero(rows.reasons))
    return n_bad, first, last


def _write_bars(
    task: PieceTask,
    rows: Rows,
    n_bad: int,
    first: Int64,
    last: Int64,
    beside: Mapping[str, tuple[tuple[str, ...], ...]],
) -> tuple[tuple[SymbolRows, ...], PartDigests | None]:
    """Write a block's bars in bars order; `n_bad` rows are none, `beside` are the texts to tell."""
    folder = Path(task.folder)
    times, numbers, codes = rows.times, list(rows.numbers), rows.codes
    order = _bars_order(rows, n_bad, sort=task.sort)
    if order is not None:
        times, codes = times[order], codes[order]
        numbers = [column[order] for column in numbers]
    counts = np.bincount(codes, minlength=len(rows.symbols))
    starts = np.cumsum(counts) - counts
    symbols = tuple(
        SymbolRows(
            name,
            rows=int(counts[code]),
            first_time=int(times[starts[code]]) if counts[code] else NEVER,
            first_candidate=int(first[code]),
            last_candidate=int(last[code]),
            sample=_sample(times, starts[code], counts[code]) if task.sort else (),
            texts=beside.get(name, ()),
        )
        for code, name in enumerate(rows.symbols)
        if first[code] != NEVER
    )
    part = None
    if len(symbols) == 1 and len(times) >= WHOLE_PART_ROWS and not task.sort:
        part = write_part(piece_path(folder, task.index, "parquet"), times, numbers)
    elif len(times):
        columns = [times, *(values.view(np.int64) for values in numbers)]
        if task.sort:
            columns.append(np.arange(len(times)) if order is None else order)
        write_raw(piece_path(folder, task.index, "raw"), np.array(columns, np.int64))
    return symbols, part


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


def _sample(times: Int64, start: int, count: int) -> tuple[int, ...]:
    return tuple(times[start : start + count : SAMPLE_ROWS].tolist())


def add_bad_rows(entries: Sequence[tuple[PieceTask, Piece, Int64]], reason: int) -> list[Piece]:
    """Turn some bars of some blocks, each with its piece, into bad rows, as `_add_bad_rows`."""
    with OpenGroups() as groups:
        return [_add_bad_rows(*entry, reason, groups) for entry in entries]


def _add_bad_rows(
    task: PieceTask, piece: Piece, bad: Int64, reason: int, groups: OpenGroups
) -> Piece:
    """Turn some of a block's bars into bad rows: their indices, ascending, and their reason.

    The block is read again for their text.
    """
    text = None if isinstance(task.block, TableBlock) else read_text(task.block, hashed=False)
    table = _describe(task, text, groups, bad, np.full(len(bad), reason, np.uint8))
    if piece.n_bad:
        before = pq.ParquetFile(_bad_path(task)).read()
        # without what another run of this very task has added
        before = before.filter(pc.invert(pc.is_in(before["line"], table["line"])))
        table = pa.concat_tables([before, table]).sort_by("line")
    _write_bad_rows(task, table)
    reasons = list(piece.reasons)
    reasons[ACCEPTED] -= len(bad)
    reasons[reason] += len(bad)
    return replace(piece, reasons=tuple(reasons))


def _bad_path(task: PieceTask) -> Path:
    return piece_path(Path(task.folder), task.index, "bad")


def _write_bad_rows(task: PieceTask, table: Any) -> None:
    with written_aside(_bad_path(task), shared=True) as aside:
        pq.write_table(table, aside, row_group_size=65_536)


def _describe(
    task: PieceTask,
    text: BlockText | None,
    groups: OpenGroups,
    bad: Int64,
    reasons: npt.NDArray[np.uint8],
) -> Any:
    """Line (from 0, within the block), text and reason code of some rows, as a table."""
    if text is None:
        assert isinstance(task.block, TableBlock)
        numbers, texts = bad, table_texts(task.block, bad, groups)
    else:
        lines = find_lines(text, bad)
        numbers = lines.numbers
        texts = [
            text.data[start:stop].tobytes().decode("utf-8", "replace")
            for start, stop in zip(lines.starts, lines.stops, strict=True)
        ]
    columns: dict[str, Any] = {
        "line": pa.array(numbers, pa.int64()),
        "text": pa.array(texts, pa.string()),
        "reason": pa.array(reasons),
    }
    return pa.table(columns)
