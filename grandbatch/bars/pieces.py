"""One task: a block of an input to clean bars, bad rows, and a small record of both.

The record holds what joins blocks: how many lines a block has, and per symbol the first and the
latest time of the rows that break no rule but those of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from grandbatch.bars.blocks import Block, BlockText, find_lines, read_text
from grandbatch.bars.layout import CsvLayout
from grandbatch.bars.parsing import parse_rows
from grandbatch.bars.parts import write_part
from grandbatch.bars.rows import Rows
from grandbatch.bars.tables import TableBlock, TableLayout, read_table, table_texts
from grandbatch.bars.times import Evidence, TimeForm
from grandbatch.kernels.bar_rules import ACCEPTED, NEVER, OUT_OF_ORDER, judge_rows

WHOLE_PART_ROWS = 16_384
"""A block of one symbol with at least so many bars becomes a part of the cache as it is."""


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
    """Time of the first row that breaks no rule but those of time."""
    last_candidate: int
    """Latest time of such rows; the last bar's, if there are bars."""


@dataclass(frozen=True)
class Piece:
    """Record of a block that was read."""

    index: int
    file: int
    n_bytes: int
    """Bytes of the block."""
    n_lines: int
    n_rows: int
    """Rows, good or bad."""
    leaves: tuple[bytes, ...]
    evidence: Evidence
    reasons: tuple[int, ...]
    """Rows of each reason code."""
    symbols: tuple[SymbolRows, ...]
    """Sorted by name."""
    is_part: bool
    """Whether the bars are written as a finished part (`parquet`), else raw, symbol by symbol."""

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


def read_piece(task: PieceTask) -> Piece:
    """Read a block, judge its rows, write its bars and its bad rows."""
    text: BlockText | None = None
    if isinstance(task.block, TableBlock):
        assert isinstance(task.layout, TableLayout)
        rows = read_table(task.block, task.layout, task.form, task.symbol)
        n_bytes, n_lines = task.block.n_bytes, len(rows)
    else:
        assert isinstance(task.layout, CsvLayout)
        text = read_text(task.block, task.hashed)
        rows = parse_rows(text, task.layout, task.form, task.symbol)
        n_bytes, n_lines = task.block.stop - task.block.start, text.n_lines
    first = np.full(len(rows.symbols), NEVER, np.int64)
    last = np.array([task.carry.get(name, NEVER) for name in rows.symbols], np.int64)
    n_bad = judge_rows(
        rows.times, *rows.numbers, rows.codes, task.allow_non_positive, first, last, rows.reasons
    )
    folder = Path(task.folder)
    symbols, is_part = _write_bars(folder, task.index, rows, n_bad, first, last)
    if n_bad:
        _write_bad_rows(piece_path(folder, task.index, "bad"), task, text, rows.reasons)
    return Piece(
        index=task.index,
        file=task.file,
        n_bytes=n_bytes,
        n_lines=n_lines,
        n_rows=len(rows),
        leaves=text.leaves if text is not None else (),
        evidence=rows.evidence,
        reasons=tuple(np.bincount(rows.reasons, minlength=OUT_OF_ORDER + 1).tolist()),
        symbols=symbols,
        is_part=is_part,
    )


def _write_bars(
    folder: Path,
    index: int,
    rows: Rows,
    n_bad: int,
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
) -> tuple[tuple[SymbolRows, ...], bool]:
    """Write a block's bars in bars order."""
    times, numbers, codes = rows.times, list(rows.numbers), rows.codes
    if n_bad:
        good = np.flatnonzero(rows.reasons == ACCEPTED)
        times, codes = times[good], codes[good]
        numbers = [column[good] for column in numbers]
    if len(rows.symbols) > 1:
        # numpy sorts 16 bits by radix: linear, and stable
        small = codes.astype(np.uint16) if len(rows.symbols) <= 65_536 else codes
        order = np.argsort(small, kind="stable")
        times = times[order]
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
        )
        for code, name in enumerate(rows.symbols)
        if first[code] != NEVER
    )
    is_part = len(symbols) == 1 and len(times) >= WHOLE_PART_ROWS
    if is_part:
        write_part(piece_path(folder, index, "parquet"), times, numbers)
    elif len(times):
        raw = np.empty((6, len(times)), np.int64)
        raw[0] = times
        for column, values in enumerate(numbers, start=1):
            raw[column] = values.view(np.int64)
        piece_path(folder, index, "raw").write_bytes(raw.data)
    return symbols, is_part


def _write_bad_rows(
    path: Path, task: PieceTask, text: BlockText | None, reasons: npt.NDArray[np.uint8]
) -> None:
    """Write line (from 0, within the block), text and reason code of the rows that are no bars."""
    bad = np.flatnonzero(reasons != ACCEPTED)
    if text is None:
        assert isinstance(task.block, TableBlock)
        numbers, texts = bad, table_texts(task.block, bad)
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
        "reason": pa.array(reasons[bad]),
    }
    pq.write_table(pa.table(columns), path, row_group_size=65_536)
