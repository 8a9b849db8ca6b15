"""What the first rows of a text tell: columns without a header, commas before decimals."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from grandbatch.bars.evidence import Tally
from grandbatch.bars.header import fields_of, is_number
from grandbatch.bars.times import TimeForm, read_texts
from grandbatch.errors import InputError
from grandbatch.kernels.timestamps import ABSOLUTE, NAIVE

_NUMBERS = ("open", "high", "low", "close", "volume")
_WITHOUT_HEADER = {
    6: ("timestamp", *_NUMBERS),  # histdata, NinjaTrader
    7: ("date", "time", *_NUMBERS),  # MetaTrader 4
    12: (  # Binance
        *("timestamp", *_NUMBERS, "close_time", "quote_volume", "count"),
        *("taker_buy_volume", "taker_buy_quote_volume", "ignore"),
    ),
}
_SAMPLE_LINES = 1000


def names_without_header(fields: Sequence[str], *, is_certain: bool) -> tuple[str, ...] | None:
    """Names of the columns of a usual form without a header; None if the fields are of none.

    Parameters
    ----------
    fields : sequence of str
        Of the first line.
    is_certain : bool
        Whether there is no header for certain. Else the line must be a bar.
    """
    names = _WITHOUT_HEADER.get(len(fields))
    if names is None:
        return None
    texts = dict(zip(names, fields, strict=True))
    is_row = all(is_number(texts[name]) for name in _NUMBERS)
    if len(fields) == 7:
        # with a number in place of the time it may be any of several forms
        is_form = is_time(f"{texts['date']} {texts['time']}")
    elif len(fields) == 12:
        is_form = is_time(texts["timestamp"]) and is_time(texts["close_time"])
    else:
        is_form = is_certain or is_time(texts["timestamp"])
    return names if is_form and (is_row or is_certain) else None


def is_time(text: str) -> bool:
    """Whether a text is a timestamp of a known form, or a number that may well be one."""
    data = np.frombuffer(text.encode() + bytes(8), np.uint8)  # read in words, and read-only
    places = np.array([[0], [len(data) - 8]], np.int64)
    times, status, tally = np.empty(1, np.int64), np.empty(1, np.uint8), Tally()
    read_texts(data, places, TimeForm(), times, status, tally)
    numbers = tally.evidence().numbers
    if numbers.rows:
        return bool(numbers.compact) or not numbers.are_near_zero
    return status[0] in (NAIVE, ABSOLUTE)


def likely_decimal(body: bytes, delimiter: str, columns: Sequence[int], where: str) -> str:
    """Tell whether numbers have a decimal point or a decimal comma, from the first lines.

    A comma with exactly three digits after it may group thousands; it says nothing by itself.

    Raises
    ------
    InputError
        If there are such commas only.
    """
    if delimiter == "," or b"," not in body:
        return "."
    points = commas = either = 0
    lines = body.decode("utf-8", "replace").splitlines()[:_SAMPLE_LINES]
    for line in lines:
        fields = fields_of(line, delimiter)
        for column in columns:
            text = fields[column].strip() if column < len(fields) else ""
            points += "," not in text and "." in text
            if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text):
                either += 1
            elif re.fullmatch(r"[+-]?\d*(\.\d{3})*,\d*([eE][+-]?\d+)?", text):
                commas += 1
            elif re.search(r",\d{3}[,.]", text):
                points += 1
    if either and not points and not commas:
        raise InputError(
            f"{where}: numbers such as 1,234 have decimals after the comma or grouped thousands? "
            f"The first {len(lines):,} lines don't tell; say which with --decimal , or --decimal ."
        )
    return "," if commas > points else "."
