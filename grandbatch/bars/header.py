"""Which column of a file is which: exact names, aliases, and what was likely meant."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grandbatch.errors import ColumnError

# In order of preference: the first that a file has is taken.
_NUMBER_NAMES: dict[str, tuple[str, ...]] = {
    "open": ("open", "o", "open_price", "opening_price", "first"),
    "high": ("high", "h", "high_price", "max"),
    "low": ("low", "l", "low_price", "min"),
    "close": ("close", "c", "close_price", "closing_price", "close_last", "last"),
    "volume": ("volume", "v", "vol", "total_volume", "tick_volume", "tickvol", "tickvolume"),
}
_TIME_NAMES = (
    "timestamp",
    "datetime",
    "date_time",
    "time_stamp",
    "unix_timestamp",
    "unix_time",
    "unix",
    "epoch",
    "ts",
    "open_time",
    "opentime",
    "gmt_time",
    "utc_time",
    "bar_time",
    "window_start",
    "index_level_0",  # what pandas calls an index without a name in Parquet
)
_SYMBOL_NAMES = ("symbol", "ticker", "sym", "instrument", "name")
_VOLUME_WITH_UNIT = re.compile(r"volume_\(?(?![se]?ma\b|avg\b)[a-z]{2,5}\)?")


@dataclass(frozen=True)
class ColumnMap:
    """Where each column of a bar stands in a file, as indices of its fields."""

    timestamp: tuple[int, ...]
    """One column, or date and time."""
    numbers: tuple[int, int, int, int, int]
    """Open, high, low, close, volume."""
    symbol: int | None


def match_columns(headers: Sequence[str], mapping: Mapping[str, str], where: str) -> ColumnMap:
    """Find the columns of a bar among a file's headers.

    Case, blanks and ``<>`` around a name don't matter. A header given in `mapping` comes first,
    then the exact name, then its aliases. The first of several volumes with units (``Volume BTC``,
    ``Volume USD``) is the volume where there is none without. A first column without a name, as
    pandas writes an index, is the timestamp where there is no other.

    Raises
    ------
    ColumnError
        If a column is missing, or a name stands there twice; the likely header is named. One column
        may stand for several numbers, but not for a text too.
    """
    match = _Match(headers, mapping, where)
    timestamp = match.timestamp()
    symbol = match.find("symbol", _SYMBOL_NAMES)
    found = {name: match.find(name, aliases) for name, aliases in _NUMBER_NAMES.items()}
    if found["volume"] is None:
        found["volume"] = match.volume_with_unit()
    missing = [name for name, index in found.items() if index is None]
    if not timestamp:
        missing.insert(0, "timestamp")
    if missing:
        taken = {*timestamp, symbol, *found.values()}
        raise ColumnError(match.explain(missing, taken))
    o, h, l, c, v = (index for index in found.values() if index is not None)
    texts = [*timestamp, *([] if symbol is None else [symbol])]
    shared = [i for i in texts if i in (o, h, l, c, v) or texts.count(i) > 1]
    if shared:
        raise ColumnError(
            f"{where}: the column {headers[shared[0]]!r} can't be two of timestamp, symbol and a "
            "number at once; mend --columns"
        )
    return ColumnMap(timestamp, (o, h, l, c, v), symbol)


def _plain(header: str) -> str:
    return re.sub(r"[\s\-/.]+", "_", header.strip().strip("<>\"'").strip().lower()).strip("_")


class _Match:
    """One file's headers, and what was asked of them."""

    def __init__(self, headers: Sequence[str], mapping: Mapping[str, str], where: str) -> None:
        self.headers = [header.strip() for header in headers]
        self.plain = [_plain(header) for header in headers]
        self.mapping = mapping
        self.where = where

    def find(self, column: str, names: Sequence[str]) -> int | None:
        if column in self.mapping:
            return self._mapped(column)
        for name in names:
            places = [i for i, plain in enumerate(self.plain) if plain == name]
            if len(places) > 1:
                raise ColumnError(
                    f"{self.where}: {len(places)} columns are named {self.headers[places[0]]!r}; "
                    f"rename one, or say which with --columns {column}=HEADER"
                )
            if places:
                return places[0]
        return None

    def _mapped(self, column: str) -> int:
        wanted = self.mapping[column]
        for places in (
            [i for i, header in enumerate(self.headers) if header == wanted],
            [i for i, plain in enumerate(self.plain) if plain == _plain(wanted)],
        ):
            if places:
                return places[0]
        raise ColumnError(
            f"{self.where}: --columns {column}={wanted} names a header that isn't there; "
            f"the headers are {', '.join(self.headers)}"
        )

    def timestamp(self) -> tuple[int, ...]:
        if "timestamp" in self.mapping:
            return (self._mapped("timestamp"),)
        whole = self.find("timestamp", _TIME_NAMES[:4])
        if whole is not None:
            return (whole,)
        date, time = self.find("date", ("date", "day")), self.find("time", ("time",))
        if date is not None and time is not None:
            return (date, time)
        for one in (date, time, self.find("timestamp", _TIME_NAMES[4:])):
            if one is not None:
                return (one,)
        return (0,) if self.plain[0] == "" and len(self.plain) > 1 else ()

    def volume_with_unit(self) -> int | None:
        units = (i for i, plain in enumerate(self.plain) if _VOLUME_WITH_UNIT.fullmatch(plain))
        return next(units, None)

    def explain(self, missing: Sequence[str], taken: set[int | None]) -> str:
        free = [i for i in range(len(self.headers)) if i not in taken and self.plain[i]]
        text = (
            f"{self.where}: no column {', '.join(missing)} among the headers "
            f"{', '.join(self.headers)}"
        )
        flags = []
        for column in () if looks_like_bar(self.headers) else missing:
            likely = self._likely(column, free)
            if likely is not None:
                header = self.headers[likely]
                text += f"; {header!r} looks like {column}"
                flags.append(f"--columns {column}={header}")
        if flags:
            return f"{text}. If so, add {' '.join(flags)}"
        if looks_like_bar(self.headers):
            return (
                f"{text}: that line is no header but a row. Say what its columns are with "
                "--no-header --names timestamp,open,high,low,close,volume"
            )
        return f"{text}. Name the header with --columns {missing[0]}=HEADER, or add a header line"

    def _likely(self, column: str, free: Sequence[int]) -> int | None:
        names = _TIME_NAMES if column == "timestamp" else _NUMBER_NAMES[column]
        for i in free:
            if any(len(name) > 2 and name in self.plain[i] for name in names):
                return i
        plain = {self.plain[i]: i for i in reversed(free)}
        near = difflib.get_close_matches(column, list(plain), n=1, cutoff=0.6)
        return plain[near[0]] if near else None


def fields_of(line: str, delimiter: str) -> list[str]:
    """Fields of one line; none where one of them is longer than any of a bar."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def looks_like_bar(fields: Sequence[str]) -> bool:
    """Whether fields are more likely those of a row than a header: four numbers or more."""
    return sum(is_number(field) for field in fields) >= 4


def is_number(field: str) -> bool:
    """Whether a field is a plain number, with a decimal point or comma."""
    return re.fullmatch(r"[+-]?\d+([.,]\d*)?([eE][+-]?\d+)?", field.strip()) is not None
