"""Columns of rows without a header: the usual forms, and what the rows themselves suggest."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

import numpy as np

from grandbatch.bars.form.header import is_number, is_time_name
from grandbatch.bars.form.texts import is_time
from grandbatch.bars.rules.flags import offer_list
from grandbatch.errors import ColumnError

_PRICES = ("open", "high", "low", "close")
_NUMBERS = (*_PRICES, "volume")
_WITHOUT_HEADER = {
    6: ("timestamp", *_NUMBERS),  # histdata, NinjaTrader
    7: ("date", "time", *_NUMBERS),  # MetaTrader 4
    12: (  # Binance
        *("timestamp", *_NUMBERS, "close_time", "quote_volume", "count"),
        *("taker_buy_volume", "taker_buy_quote_volume", "ignore"),
    ),
}
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?")
_STEADY = 1.05

Fields = Sequence[str]


def names_without_header(
    rows: Sequence[Fields], *, is_certain: bool, has_volume: bool
) -> tuple[str, ...] | None:
    """Names of the columns of a usual form without a header; None if the rows are of none.

    Parameters
    ----------
    rows : sequence of sequence of str
        Fields of the first lines.
    is_certain : bool
        Whether there is no header for certain. Else the first line must be a bar.
    has_volume : bool
        Whether there is a volume.
    """
    fields = rows[0]
    names = _WITHOUT_HEADER.get(len(fields) + (not has_volume))
    if names is None:
        return None
    if not has_volume:
        names = tuple(name for name in names if name != "volume")
    texts = dict(zip(names, fields, strict=True))
    is_row = all(is_number(text) for name, text in texts.items() if name in _NUMBERS)
    if "time" in texts:
        # with a number in place of the time it may be any of several forms
        is_form = is_time(f"{texts['date']} {texts['time']}")
    elif len(names) == 12 - (not has_volume):
        is_form = is_time(texts["timestamp"]) and is_time(texts["close_time"])
    else:
        is_form = is_certain or is_time(texts["timestamp"])
    if not is_form or not (is_row or is_certain):
        return None
    return None if _speak_against(rows, names) else names


def _speak_against(rows: Sequence[Fields], names: Sequence[str]) -> bool:
    """Whether no row has a high and a low as these names say, but all have them elsewhere."""
    place = names.index("open")
    return not any(
        _is_candle(row[place : place + 4]) for row in rows if len(row) == len(names)
    ) and (guess_names(rows) is not None)


def _is_candle(texts: Fields) -> bool:
    """Whether four texts can be open, high, low and close."""
    if len(texts) < 4 or not all(is_number(text) for text in texts):
        return False
    o, h, l, c = map(_value, texts)
    return l <= min(o, c) and h >= max(o, c)


def guess_names(rows: Sequence[Fields]) -> tuple[str, ...] | None:
    """Names that the columns of rows may well have; None where the rows don't say.

    There must be a time, and behind it the prices: the first four columns in a row with highs and
    lows where these belong, else where one is always the highest and one the lowest, and the others
    are open and close. The column behind them is the volume unless it keeps its ratio to the close,
    as adjusted closes do.
    """
    width = len(rows[0])
    whole = [row for row in rows if len(row) == width]
    columns = list(zip(*whole, strict=True))
    times = _find_times(columns)
    if not times:
        return None
    start, prices = _find_prices(columns, max(times) + 1)
    if not prices:
        return None
    if start > max(times) + 1 and len(times) == 1:
        times = _with_clock(columns, *times)
    close = columns[start + prices.index("close")]
    names: list[str] = []
    for i, column in enumerate(columns):
        if i in times:
            names.append(times[i])
        elif start <= i < start + 4:
            names.append(prices[i - start])
        elif i < start and "symbol" not in names and not any(is_number(text) for text in column):
            names.append("symbol")
        elif i > start and "volume" not in names and _is_volume(close, column):
            names.append("volume")
        else:
            names.append(f"extra_{i + 1}")
    return tuple(names)


def _find_times(columns: Sequence[Sequence[str]]) -> dict[int, str]:
    """Names of the first columns of times, by their place: a time, or a date and a time of day."""
    for i, column in enumerate(columns):
        if i + 1 < len(columns) and all(_CLOCK.fullmatch(text.strip()) for text in columns[i + 1]):
            return {i: "date", i + 1: "time"}
        if all(is_time(text) for text in column):
            return {i: "timestamp"}
    return {}


def _with_clock(columns: Sequence[Sequence[str]], date: int) -> dict[int, str]:
    """Take numbers behind dates for times of day, where they are some."""
    clocks = [text.strip() for text in columns[date + 1]]
    # short ones are decided by the whole file
    widths = [next((width for width in (4, 6) if len(clock) <= width), 9) for clock in clocks]
    padded = [clock.zfill(width)[:6] for clock, width in zip(clocks, widths, strict=True)]
    moments = [f"{text} {clock}" for text, clock in zip(columns[date], padded, strict=True)]
    if all(clock.isdigit() for clock in clocks) and all(is_time(moment) for moment in moments):
        return {date: "date", date + 1: "time"}
    return {date: "timestamp"}


def _find_prices(columns: Sequence[Sequence[str]], after: int) -> tuple[int, tuple[str, ...]]:
    """Where prices start, and what they are called; no names where there are none."""
    places = range(after, len(columns) - 3)
    for i in places:
        if all(_is_candle(texts) for texts in zip(*columns[i : i + 4], strict=True)):
            return i, _PRICES
    for i in places:
        if all(is_number(text) for column in columns[i : i + 4] for text in column):
            rows = np.array([[_value(text) for text in column] for column in columns[i : i + 4]])
            is_high, is_low = ((rows == end).all(axis=1) for end in (rows.max(0), rows.min(0)))
            if is_high.sum() == is_low.sum() == 1:
                rest = iter(("open", "close"))
                marks = zip(is_high, is_low, strict=True)
                return i, tuple("high" if h else "low" if l else next(rest) for h, l in marks)
    return 0, ()


def _value(text: str) -> float:
    return float(text.replace(",", "."))


def _is_volume(closes: Sequence[str], column: Sequence[str]) -> bool:
    return all(is_number(text) for text in column) and not _keeps_ratio(closes, column)


def _keeps_ratio(closes: Sequence[str], column: Sequence[str]) -> bool:
    """Whether a column follows the closes; two rows or more must say so."""
    if len(closes) < 2 or not all(is_number(text) for text in itertools.chain(closes, column)):
        return False
    pairs = [(_value(text), _value(close)) for text, close in zip(column, closes, strict=True)]
    if any(value <= 0 or close <= 0 for value, close in pairs):
        return False
    ratios = [value / close for value, close in pairs]
    return math.isfinite(max(ratios)) and max(ratios) < _STEADY * min(ratios)


def offer_names(rows: Sequence[Fields]) -> str:
    """Write flags that say what the columns of rows may be; empty where the rows don't say."""
    names = guess_names(rows)
    if names is None:
        return ""
    lacks_volume = "" if "volume" in names else " --no-volume"
    return f"--no-header {offer_list('--names', names)}{lacks_volume}"


def refuse_narrow(header: Fields, rows: Sequence[Fields], where: str) -> None:
    """Refuse a header that has fewer names than any of the first rows has fields.

    R writes one for all columns but that of its rows' names.
    """
    if not rows or any(len(row) - (not row[-1].strip()) <= len(header) for row in rows):
        return
    row = rows[0]
    is_first = len(row) == len(header) + 1 and is_time_name(header[0]) and is_time(row[1])
    names = offer_list("--names", ("row", *header))
    advice = f"If the first of these has no name, add {names}" if is_first else "Name every column"
    raise ColumnError(
        f"{where}: its header has {len(header)} names ({', '.join(header)}) and the row behind it "
        f"{len(row)} fields ({', '.join(row)}). {advice}"
    )
