"""Columns named as timestamps are that hold row numbers, or times of day without a date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from grandbatch.bars.form.columns import ColumnMap
from grandbatch.bars.form.header import CLOCK_NAMES, plain_name
from grandbatch.bars.rules import BarRules
from grandbatch.bars.rules.flags import offer_columns
from grandbatch.bars.timestamps.evidence import UNSETTLED
from grandbatch.bars.timestamps.sessions import DAY
from grandbatch.bars.timestamps.texts import TimeForm, read_times
from grandbatch.errors import ColumnError
from grandbatch.kernels.bars.epochs import COMPACT, NO_TIME
from grandbatch.kernels.bars.timestamps import ABSOLUTE


def check_dated(
    headers: Sequence[str],
    columns: ColumnMap,
    rows: Sequence[Sequence[str]],
    rules: BarRules,
    where: str,
) -> None:
    """Refuse a timestamp without a date where another column has one.

    Where none has, all rows of the file tell whether it is one (`check_times`).

    Raises
    ------
    ColumnError
        It names the flags that map the columns.
    """
    is_said = rules.timestamp_format is not None or rules.epoch_unit is not None
    is_mapped = not {"timestamp", "date"}.isdisjoint(rules.columns)
    if is_said or is_mapped or len(columns.timestamp) != 1:
        return
    field = columns.timestamp[0]
    is_number, is_clock = _lacks_date(rows, field)
    if not is_number and not is_clock:
        return
    is_clock |= plain_name(headers[field]) in CLOCK_NAMES
    taken = {field, *columns.all_numbers, columns.symbol}
    for other in range(len(headers)):
        is_date, is_time = (False, False) if other in taken else _is_dated(rows, other)
        if is_date:
            clock = field if is_clock else _clock_beside(rows, taken | {other}, len(headers))
            pairs = [("timestamp", headers[other])]
            if clock is not None and not is_time:
                pairs = [("date", headers[other]), ("time", headers[clock])]
            what = "times of day without a date" if is_clock else "numbers, rather of rows"
            flags = offer_columns(pairs)
            raise ColumnError(
                f"{where}: the column {headers[field]!r} holds {what}, and {headers[other]!r} "
                f"holds dates" + (f". If these are the bars', add {flags}" if flags else "")
            )


def _clock_beside(
    rows: Sequence[Sequence[str]], taken: set[int | None], n_fields: int
) -> int | None:
    free = (other for other in range(n_fields) if other not in taken)
    return next((other for other in free if _lacks_date(rows, other)[1]), None)


def _lacks_date(rows: Sequence[Sequence[str]], field: int) -> tuple[bool, bool]:
    """Whether a field has numbers that are no timestamps, and whether it has times of day."""
    texts = _texts(rows, field)
    found = read_times(texts, TimeForm())[2]
    is_number = 2 * found.numbers.rows > len(texts) and found.numbers.verdict == NO_TIME
    return is_number, 2 * found.undated > len(texts)


def _is_dated(rows: Sequence[Sequence[str]], field: int) -> tuple[bool, bool]:
    """Whether a field has dates, and whether they have times of day."""
    texts = _texts(rows, field)
    times, status, found, _ = read_times(texts, TimeForm(_AS_DATES))
    is_read = status <= ABSOLUTE
    n_dates = max(int(is_read.sum()), found.dates.rows)  # months may come first, too
    return 2 * n_dates > len(texts), bool((times[is_read] % DAY != 0).any())


_AS_DATES = replace(UNSETTLED, numbers=COMPACT)


def _texts(rows: Sequence[Sequence[str]], field: int) -> pa.ChunkedArray:
    texts = [row[field].encode() for row in rows if field < len(row)]
    return pa.chunked_array([pa.array(texts, pa.binary())])
