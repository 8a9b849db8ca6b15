"""Values of `BarRules`, checked where they are given; what is refused is a `UsageError`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from grandbatch.errors import UsageError

_CLOCK = r"([01]\d|2[0-3]):[0-5]\d"
_YEAR = r"%-?[YyGcxDF]"


def check_texts(values: Mapping[str, Any]) -> None:
    """Refuse bytes that are no UTF-8: no header and no symbol has them."""
    for name, value in values.items():
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            raise UsageError(f"{name} must be text in UTF-8, got {value!r}") from None


def checked_list(names: Sequence[str]) -> tuple[str, ...]:
    """Return headers, if they are a list of them."""
    if isinstance(names, str):
        raise UsageError(f"ignore_columns must be a list of headers, got the text {names!r}")
    return tuple(names)


def checked_where(where: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the texts by header that rows must have one of."""
    if not isinstance(where, Mapping):
        raise UsageError(f"where must map headers to texts, such as {{'x': '2'}}, got {where!r}")
    return {
        header: tuple(str(text) for text in ([texts] if _is_one(texts) else texts))
        for header, texts in where.items()
    }


def _is_one(texts: Any) -> bool:
    return isinstance(texts, str) or not isinstance(texts, Sequence)


def check_pattern(pattern: str | None) -> None:
    """Refuse what is no pattern with a group that is the symbol."""
    if pattern in (None, "filename"):
        return
    try:
        groups = re.compile(str(pattern)).groups
    except re.error as error:
        raise UsageError(f"symbol_from {pattern!r} is no regular expression: {error}") from None
    if not groups:
        raise UsageError(
            "symbol_from must be filename, or a regular expression with a group that is the "
            f"symbol, such as '([A-Z]+)-1m-', got {pattern!r}"
        )


def check_encoding(name: str) -> None:
    """Refuse an encoding that Python does not know."""
    try:
        "1".encode(name).decode(name)
    except (LookupError, UnicodeError, TypeError, ValueError):
        raise UsageError(
            f"encoding {name!r} is unknown; write one such as gbk, cp1252 or utf-16"
        ) from None


def checked_names(names: Sequence[str], columns: Mapping[str, str]) -> tuple[str, ...]:
    """Return names of columns, if each is there once and those that are mapped are among them."""
    if isinstance(names, str):
        raise UsageError(f"names must be a list of names, got the text {names!r}")
    for name in names:
        if name and list(names).count(name) > 1:
            raise UsageError(f"names has {name!r} twice; each column needs a name of its own")
    lost = [header for header in columns.values() if names and header not in names]
    if lost:
        raise UsageError(f"columns names {lost[0]!r}, which is not among names {', '.join(names)}")
    return tuple(names)


def check_start(start: str | None) -> None:
    """Refuse what is no time of day."""
    if start is not None and not re.fullmatch(_CLOCK, start):
        raise UsageError(f"session_start must be a time of day such as 18:00, got {start!r}")


def check_form(form: str | None, epoch_unit: str | None) -> None:
    """Refuse a form of timestamps that makes none, or contradicts a unit."""
    if form is None:
        return
    if "%" not in form:
        raise UsageError(
            f"timestamp_format must be in strptime's form, such as %d/%m/%Y %H:%M, got {form!r}"
        )
    if not re.search(_YEAR, form):
        raise UsageError(
            f"timestamp_format {form!r} has no year, and a time of day alone is no timestamp; "
            "map the columns date and time, and write %Y-%m-%d %H:%M"
        )
    if epoch_unit is not None:
        raise UsageError(
            f"epoch_unit {epoch_unit!r} and timestamp_format {form!r} contradict each other; "
            "give one of them"
        )
