"""A block, opened: its rows, and the text of some of them, however its file is written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grandbatch.bars.form.dialect import CsvDialect
from grandbatch.bars.reading.csv_rows import parse_rows
from grandbatch.bars.reading.parquet_rows import ParquetDialect, parquet_texts, read_parquet
from grandbatch.bars.reading.row_groups import OpenGroups, ParquetBlock
from grandbatch.bars.reading.rows import Rows
from grandbatch.bars.reading.text_blocks import BlockText, CsvBlock, find_lines, read_text
from grandbatch.bars.timestamps.texts import TimeForm

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OpenText:
    """Lines of CSV."""

    text: BlockText
    dialect: CsvDialect

    @property
    def n_lines(self) -> int:
        """Lines by which the next block's are further down."""
        return self.text.n_lines

    @property
    def leaves(self) -> tuple[bytes, ...]:
        """Digests of the 4 MiB leaves of its bytes, where these were asked for."""
        return self.text.leaves

    def rows(self, form: TimeForm, symbol: str | None) -> Rows:
        """Read all rows; `symbol` stands for all of them, or None for those of the column."""
        return parse_rows(self.text, self.dialect, form, symbol)

    def texts(self, rows: Int64) -> tuple[Int64, list[str]]:
        """Return the lines, from 0, and the texts of some rows, ascending."""
        lines = find_lines(self.text, rows)
        return lines.numbers, [
            self.text.data[start:stop].tobytes().decode("utf-8", "replace")
            for start, stop in zip(lines.starts, lines.stops, strict=True)
        ]


@dataclass(frozen=True)
class OpenRows:
    """Rows of a row group: the same verbs as `OpenText`, and each row is a line."""

    block: ParquetBlock
    dialect: ParquetDialect
    groups: OpenGroups
    leaves: tuple[bytes, ...] = ()

    @property
    def n_lines(self) -> int:
        """Rows by which the next block's are further down."""
        return self.block.stop - self.block.start

    def rows(self, form: TimeForm, symbol: str | None) -> Rows:
        """Read all rows; `symbol` stands for all of them, or None for those of the column."""
        return read_parquet(self.block, self.dialect, form, symbol, self.groups)

    def texts(self, rows: Int64) -> tuple[Int64, list[str]]:
        """Return some rows, ascending, and their values as text."""
        return rows, parquet_texts(self.block, self.dialect.n_fields, rows, self.groups)


OpenBlock = OpenText | OpenRows


def open_block(
    block: CsvBlock | ParquetBlock,
    dialect: CsvDialect | ParquetDialect,
    groups: OpenGroups,
    *,
    hashed: bool = False,
) -> OpenBlock:
    """Open a block; of a text, digest its bytes if `hashed`.

    Raises
    ------
    InputError
        If a line is longer than 1 MiB, or the file became shorter.
    """
    if isinstance(block, ParquetBlock):
        assert isinstance(dialect, ParquetDialect)
        return OpenRows(block, dialect, groups)
    assert isinstance(dialect, CsvDialect)
    return OpenText(read_text(block, hashed), dialect)
