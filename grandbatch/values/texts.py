"""Text of others, such as symbols, headers and file names, made safe to show and to store."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

_UNSHOWABLE = re.compile(
    # controls but tab and newline, marks that turn the direction of text, lone surrogates
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Write out what a terminal would obey, or what can't be encoded, as Python would write it."""
    return _UNSHOWABLE.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def one_line(text: object) -> str:
    """Write what may have several lines, such as another library's error, in one."""
    return " ".join(str(text).split())


def strict_json(value: Any) -> str:
    """Write JSON that any reader takes: numbers that JSON has not are null."""
    return json.dumps(_finite(value), allow_nan=False, default=str)


def read_json(text: str | bytes) -> Any:
    """Read JSON of others: each number in it is one that a double can be.

    Raises
    ------
    ValueError
        If it is no JSON, nested without end, or has a number beyond the doubles.
    """
    try:
        return json.loads(
            text, parse_constant=_refuse, parse_float=_read_float, parse_int=_read_whole
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


_MOST_DIGITS = 308


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond the doubles")
    return value


def _read_whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits is beyond the doubles")
    return int(text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def amount(n_bytes: float) -> str:
    """Write bytes in the unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n_bytes) < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.4g} TB"


def duration(seconds: float) -> str:
    """Write a length of time in the unit that fits."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"
