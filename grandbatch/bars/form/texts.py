"""What texts of the first rows tell: times, and what stands before decimals or thousands."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from grandbatch.bars.form.header import is_number
from grandbatch.bars.rules import BarRules
from grandbatch.bars.timestamps.evidence import Tally
from grandbatch.bars.timestamps.texts import TimeForm, read_texts
from grandbatch.errors import InputError
from grandbatch.kernels.bars.timestamps import ABSOLUTE, NAIVE

_MARKS = ".' _\u2019\u00a0\u202f"
"""What stands between thousands, besides commas."""
_NO_VOLUME = {"", "-", "--", "nan", "na", "n/a", "#n/a", "null", "none"}
_MANY = 0.5


def is_time(text: str) -> bool:
    """Whether a text is a timestamp of a known form, or a number that may well be one."""
    data = np.frombuffer(text.encode() + bytes(8), np.uint8)  # read in words, and read-only
    places = np.array([[0], [len(data) - 8]], np.int64)
    times, status, tally = np.empty(1, np.int64), np.empty(1, np.uint8), Tally()
    read_texts(data, places, TimeForm(), times, status, tally)
    found = tally.evidence()
    if found.numbers.rows:
        return bool(found.numbers.compact) or not found.numbers.are_near_zero
    return status[0] in (NAIVE, ABSOLUTE) or found.dates.month_first > 0


def likely_decimal(
    rows: Sequence[Sequence[str]], columns: Sequence[int], where: str, *, grouped: bool
) -> str:
    """Tell whether numbers have a decimal point or a decimal comma, from the first rows.

    A comma with exactly three digits after it may group thousands; it says nothing by itself,
    unless numbers are `grouped`.

    Raises
    ------
    InputError
        If there are such commas only.
    """
    points = commas = either = 0
    for fields in rows:
        for column in columns:
            text = fields[column].strip() if 0 <= column < len(fields) else ""
            points += "," not in text and "." in text
            if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text):
                either += 1
            elif re.fullmatch(rf"[+-]?\d*([{_MARKS}]\d{{3}})*,\d*([eE][+-]?\d+)?", text):
                commas += 1
            elif re.search(r",\d{3}[,.]", text):
                points += 1
    if either and not points and not commas and not grouped:
        raise InputError(
            f"{where}: numbers such as 1,234 have decimals after the comma or grouped thousands? "
            f"The first {len(rows):,} rows don't tell. Add --decimal , if these are decimals, or "
            "--grouped if they are thousands"
        )
    return "," if commas > points else "."


def refuse_grouped(
    rows: Sequence[Sequence[str]],
    columns: Sequence[int],
    decimal: str,
    rules: BarRules,
    where: str,
) -> None:
    """Refuse rows more of which may be bad if their numbers may be grouped, and not else.

    Raises
    ------
    InputError
        Unless numbers are said to be grouped.
    """
    if rules.grouped:
        return
    n_grouped, other = 0, "," if decimal == "." else "."
    for row in rows:
        texts = [row[column].strip() for column in columns if 0 <= column < len(row)]
        plain = [text for text in texts if is_number(text) and other not in text]
        others = [text for text in texts if text and text not in plain]
        n_grouped += bool(others) and all(is_grouped_number(text, decimal) for text in others)
    if n_grouped > rules.max_bad_fraction * len(rows):
        raise InputError(
            f"{where}: some of its numbers have marks between thousands, or letters for their "
            "power. If so, add --grouped"
        )


def refuse_empty_volume(texts: Iterable[str], header: str, rules: BarRules, where: str) -> None:
    """Refuse a volume that none of the first rows has.

    Raises
    ------
    InputError
        Unless it was said that there is none, or most rows may be bad.
    """
    if rules.no_volume or rules.max_bad_fraction > _MANY:
        return
    texts = iter(texts)
    first = next(texts, "0")  # as a rule, it has one
    if all(text.strip().lower() in _NO_VOLUME for text in itertools.chain([first], texts)):
        raise InputError(
            f"{where}: the column {header.strip()!r} is empty in all of the first rows. If there "
            "is no volume, add --no-volume"
        )


def is_grouped_number(text: str, decimal: str = ".") -> bool:
    """Whether a text is a number with marks between thousands, or a letter for their power."""
    return ungroup(text, decimal) != text


def ungroup(text: str, decimal: str) -> str:
    """Write a number plainly that has marks between thousands, or K, M, B or T behind it.

    Any other text is returned as it is.
    """
    found = _grouped(decimal).fullmatch(text.strip())
    if found is None:
        return text
    mark, power = found["mark"], _POWERS[(found["power"] or "").upper()]
    if not mark and not power:
        return text
    whole = found["whole"].replace(mark, "") if mark else found["whole"]
    return f"{found['sign']}{whole}{found['rest'] or ''}{power}"


_POWERS = {"": "", "K": "e3", "M": "e6", "B": "e9", "T": "e12"}


@lru_cache
def _grouped(decimal: str) -> re.Pattern[str]:
    marks = f",{_MARKS}".replace(decimal, "")
    return re.compile(
        rf"(?P<sign>[+-]?)(?P<whole>\d{{1,3}}(?P<mark>[{marks}])(\d{{2,3}}(?P=mark))*\d{{3}}|\d+)"
        rf"(?P<rest>{re.escape(decimal)}\d*)?\s?(?P<power>[kKmMbBtT]?)"
    )
