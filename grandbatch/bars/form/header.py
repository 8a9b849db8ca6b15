"""Which column of a file is which: exact names, aliases, and what was likely meant."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from grandbatch.bars.form.columns import NOWHERE, ColumnMap
from grandbatch.bars.rules import BarRules
from grandbatch.bars.rules.flags import offer_columns
from grandbatch.errors import ColumnError

# Chinese (simplified, traditional), Japanese, Korean, German, Russian
_OPEN = ("开盘", "开盘价", "開盤", "開盤價", "始値", "시가", "eröffnung", "erster", "открытие")
_HIGH = ("最高", "最高价", "最高價", "高値", "고가", "hoch", "макс", "максимум")
_LOW = ("最低", "最低价", "最低價", "安値", "저가", "tief", "мин", "минимум")
_CLOSE = ("收盘", "收盘价", "收盤", "收盤價", "終値", "종가", "schluss", "schlusskurs", "закрытие")
_VOLUME = (
    "成交量",
    "成交量(手)",
    "成交量(股)",
    "出来高",
    "거래량",
    "volumen",
    "stück",
    "объем",
    "объём",
)
_SYMBOL = ("代码", "股票代码", "证券代码", "代碼", "종목코드", "kürzel")
_DATE_NAMES = (
    "date",
    "day",
    "trade_date",
    "日期",
    "交易日期",
    "日付",
    "날짜",
    "일자",
    "datum",
    "дата",
)
CLOCK_NAMES = ("time", "时间", "時間", "時刻", "시간", "zeit", "uhrzeit", "время")

# In order of preference: the first that a file has is taken.
_NUMBER_NAMES: dict[str, tuple[str, ...]] = {
    "open": ("open", "o", "open_price", "opening_price", "first", *_OPEN),
    "high": ("high", "h", "high_price", "max", *_HIGH),
    "low": ("low", "l", "low_price", "min", *_LOW),
    "close": ("close", "c", "close_price", "closing_price", "close_last", "last", *_CLOSE),
    "volume": (
        "volume",
        "v",
        "vol",
        "total_volume",
        "tick_volume",
        "tickvol",
        "tickvolume",
        *_VOLUME,
    ),
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
    "ts_event",
    "start_time",
    "begins_at",
    "日期时间",
    "t",
    "index_level_0",  # what pandas calls an index without a name in Parquet
)
_LIKELY = {
    "timestamp": (*_TIME_NAMES, "date", "time"),
    "close": (*_NUMBER_NAMES["close"], "price"),
    "volume": (
        *_NUMBER_NAMES["volume"],
        *("vlm", "qty", "quantity", "shares", "contracts", "lots", "traded", "ticks", "size"),
    ),
}
_NO_VOLUME = re.compile(
    r"adj|close|price|wap|av(er)?g|mean|ch(an)?ge?|return|spread|bid|ask|date|time|count|number|"
    r"trades|interest|divid|split|amount|turnover|value|symbol|ticker|name|exchange|note|comment|"
    r"source|type|flag|session|contract$|currency|id$|index|unnamed|%"
)
"""In names of columns that are likely no volume."""

_SYMBOL_NAMES = ("symbol", "ticker", "sym", "instrument", "name", *_SYMBOL)
_VOLUME_WITH_UNIT = re.compile(r"volume_\(?(?![se]?ma\b|avg\b)[a-z]{2,5}\)?")


def match_columns(
    headers: Sequence[str],
    rules: BarRules,
    where: str,
    folders: Mapping[str, str] = MappingProxyType({}),
) -> ColumnMap:
    """Find the columns of a bar among a file's headers.

    Case, blanks and ``<>`` around a name don't matter. A header given in `rules` comes first,
    then the exact name, then its aliases. The first of several volumes with units (``Volume BTC``,
    ``Volume USD``) is the volume where there is none without. A first column without a name, as
    pandas writes an index, is the timestamp where there is no other. A symbol that isn't among the
    headers may be that of a hive folder: `folders` are these, with their values.

    Raises
    ------
    ColumnError
        If a column is missing, or a name stands there twice; the likely header is named. One column
        may stand for several numbers of a bar, but not for a text or an extra column too.
    """
    match = _Match(headers, rules.columns, where)
    timestamp = match.timestamp()
    symbol, symbol_name = match.symbol(folders)
    found, extra = match.numbers(has_volume(rules)), match.extras(rules.extra)
    missing = [name for name, index in {**found, **extra}.items() if index is None]
    if not timestamp:
        missing.insert(0, "timestamp")
    if missing:
        taken = {*timestamp, symbol, *found.values(), *extra.values()}
        raise ColumnError(match.explain(missing, taken))
    o, h, l, c, v = (
        index
        for index in {**found, "volume": found.get("volume", NOWHERE)}.values()
        if index is not None
    )
    texts = [*timestamp, *([] if symbol is None else [symbol])]
    shared = [i for i in texts if i in (o, h, l, c, v) or texts.count(i) > 1]
    if shared:
        raise ColumnError(
            f"{where}: the column {headers[shared[0]]!r} can't be two of timestamp, symbol and a "
            "number at once; mend what maps it"
        )
    extras = {name: index for name, index in extra.items() if index is not None}
    of_bars = dict.fromkeys(timestamp, "timestamp") | {symbol: "symbol"}
    of_bars |= {index: name for name, index in found.items()}
    match.refuse_twice(extras, of_bars)
    return ColumnMap(
        timestamp, (o, h, l, c, v), symbol, symbol_name=symbol_name, extras=tuple(extras.values())
    )


def columns_there(
    headers: Sequence[str], rules: BarRules, where: str
) -> dict[str, tuple[int, ...]]:
    """Find those columns of a bar that are among some headers, each with its places.

    As `match_columns`, but any may be missing. The timestamp may have two places: date and time.

    Raises
    ------
    ColumnError
        If a name stands there twice, or a header that `rules` map isn't there.
    """
    if not headers:
        return {}
    match = _Match(headers, rules.columns, where)
    symbol, _ = match.symbol({})
    single = {**match.numbers(has_volume(rules)), **match.extras(rules.extra), "symbol": symbol}
    there = {"timestamp": match.timestamp()}
    there |= {name: (place,) for name, place in single.items() if place is not None}
    return {name: places for name, places in there.items() if places}


def explain_missing(
    headers: Sequence[str], rules: BarRules, where: str, missing: Sequence[str]
) -> str:
    """Say which columns are missing among headers, and what may have been meant."""
    there = columns_there(headers, rules, where)
    taken = {place for places in there.values() for place in places}
    return _Match(headers, rules.columns, where).explain(missing, {*taken})


def has_volume(rules: BarRules) -> bool:
    """Whether bars have a volume."""
    return not rules.no_volume


def find_header(headers: Sequence[str], wanted: str) -> int | None:
    """Index of a header that a user names: as it stands, or but for case, blanks and ``<>``."""
    for places in (
        [i for i, header in enumerate(headers) if header.strip() == wanted.strip()],
        [i for i, header in enumerate(headers) if plain_name(header) == plain_name(wanted)],
    ):
        if places:
            return places[0]
    return None


def plain_name(header: str) -> str:
    """Write a header as names are compared."""
    return re.sub(r"[\s\-/.]+", "_", header.strip().strip("<>\"'").strip().lower()).strip("_")


class _Match:
    """One file's headers, and what was asked of them."""

    def __init__(self, headers: Sequence[str], mapping: Mapping[str, str], where: str) -> None:
        self.headers = [header.strip() for header in headers]
        self.plain = [plain_name(header) for header in headers]
        self.mapping = mapping
        self.where = where

    def find(self, column: str, names: Sequence[str]) -> int | None:
        if column in self.mapping:
            return self._mapped(column)
        for name in names:
            places = [i for i, plain in enumerate(self.plain) if plain == name]
            if len(places) > 1:
                flag = offer_columns([(column, self.headers[places[0]])])
                differ = len({self.headers[i] for i in places}) > 1
                raise ColumnError(
                    f"{self.where}: {len(places)} columns are named {self.headers[places[0]]!r}; "
                    + (f"for the first of them, add {flag}" if flag and differ else "rename one")
                )
            if places:
                return places[0]
        return None

    def _mapped(self, column: str) -> int:
        wanted = self.mapping[column]
        place = find_header(self.headers, wanted)
        if place is None:
            near = difflib.get_close_matches(plain_name(wanted), self.plain, n=1, cutoff=0.6)
            meant = self.headers[self.plain.index(near[0])] if near else ""
            flag = offer_columns([(column, meant)])
            raise ColumnError(
                f"{self.where}: {column}={wanted} maps a header that isn't there; "
                f"the headers are {', '.join(self.headers)}"
                + (f". If {meant!r} was meant, add {flag} instead" if flag else "")
            )
        return place

    def symbol(self, folders: Mapping[str, str]) -> tuple[int | None, str | None]:
        """Find the symbol among the headers, else among hive folders: its field, or its name."""
        known = [self.mapping["symbol"]] if "symbol" in self.mapping else _SYMBOL_NAMES
        for name in known:
            folder = find_header(list(folders), name)
            if folder is not None and find_header(self.headers, name) is None:
                return None, list(folders.values())[folder]
            if name in self.plain:
                break
        return self.find("symbol", _SYMBOL_NAMES), None

    def timestamp(self) -> tuple[int, ...]:
        if "timestamp" in self.mapping:
            return (self._mapped("timestamp"),)
        whole = self.find("timestamp", _TIME_NAMES[:4])
        if whole is not None:
            return (whole,)
        date, time = self.find("date", _DATE_NAMES), self.find("time", CLOCK_NAMES)
        if date is not None and time is not None:
            return (date, time)
        for one in (date, time, self.find("timestamp", _TIME_NAMES[4:])):
            if one is not None:
                return (one,)
        return (0,) if self.plain[0] == "" and len(self.plain) > 1 else ()

    def refuse_twice(self, extras: Mapping[str, int], taken: Mapping[int | None, str]) -> None:
        """Refuse extra columns that are others already; `taken` are columns of the bar."""
        known = dict(taken)
        for name, index in extras.items():
            before = known.setdefault(index, name)
            if before != name:
                raise ColumnError(
                    f"{self.where}: the column {self.headers[index]!r} is {before} already, and "
                    f"can't be the extra column {name} too; map one of them to another header"
                )

    def numbers(self, has_volume: bool) -> dict[str, int | None]:
        """Find open, high, low, close, and volume where there is one."""
        names = {n: of for n, of in _NUMBER_NAMES.items() if n != "volume" or has_volume}
        found = {name: self.find(name, aliases) for name, aliases in names.items()}
        if found.get("volume", 0) is None:
            found["volume"] = self.volume_with_unit()
        return found

    def extras(self, names: Sequence[str]) -> dict[str, int | None]:
        return {name: self.find(name, (plain_name(name),)) for name in names}

    def volume_with_unit(self) -> int | None:
        units = (i for i, plain in enumerate(self.plain) if _VOLUME_WITH_UNIT.fullmatch(plain))
        return next(units, None)

    def explain(self, missing: Sequence[str], taken: set[int | None]) -> str:
        free = [i for i in range(len(self.headers)) if i not in taken and self.plain[i]]
        text = (
            f"{self.where}: no column {', '.join(missing)} among the headers "
            f"{', '.join(self.headers)}"
        )
        if looks_like_bar(self.headers):
            return f"{text}: that line is no header but a row"
        pairs = []
        lacks_volume = False
        for column in missing:
            likely = self._likely(column, free)
            if likely is not None:
                free.remove(likely)
                text += f"; {self.headers[likely]!r} looks like {column}"
                others = [i for i in free if column in self.plain[i].split("_")]
                if column in _NUMBER_NAMES and column != "volume" and others:
                    text += f" ({len(others):,} more like it would be left out)"
                pairs.append((column, self.headers[likely]))
            elif column == "volume":
                lacks_volume = True
        flags = [flag for flag in (offer_columns(pairs),) if flag]
        known = ""
        if lacks_volume:
            known = offer_columns([*pairs, ("volume", self._maybe_volume(free))])
            flags.append("--no-volume")
            text += "; nothing looks like a volume"
        # what leaves another column missing is no remedy
        if flags and len(pairs) + lacks_volume == len(missing):
            if known:
                there = self._maybe_volume(free)
                return (
                    f"{text}. Add {known} if {there!r} is it all the same, or {' '.join(flags)} "
                    "if there is none"
                )
            return f"{text}. If so, add {' '.join(flags)}"
        return f"{text}. Give it that name, or map the header that it has"

    def _maybe_volume(self, free: Sequence[int]) -> str:
        """Return the header of what may be a volume under any name; empty if there is none."""
        return next((self.headers[i] for i in free if not _NO_VOLUME.search(self.plain[i])), "")

    def _likely(self, column: str, free: Sequence[int]) -> int | None:
        names = _LIKELY.get(column) or _NUMBER_NAMES.get(column) or (plain_name(column),)
        for i in free:
            if any(len(name) > 2 and name in self.plain[i] for name in names):
                return i
        plain = {self.plain[i]: i for i in reversed(free)}
        near = difflib.get_close_matches(column, list(plain), n=1, cutoff=0.6)
        return plain[near[0]] if near else None


def is_time_name(header: str) -> bool:
    """Whether a header is one of those that columns of times have."""
    plain = plain_name(header)
    return plain.endswith("time") or plain in (*_TIME_NAMES, *_DATE_NAMES, *CLOCK_NAMES)


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
