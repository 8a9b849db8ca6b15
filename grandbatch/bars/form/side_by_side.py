"""Headers over several columns: a row holds bars of several symbols side by side.

So write pandas and yfinance: two lines, of fields and of symbols in either order, and a third with
the index's name alone; or one line of pairs, ``('Open', 'AAPL')``, ``Open_AAPL``, ``AAPL.Open``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from grandbatch.bars.form.columns import ColumnMap
from grandbatch.bars.form.header import match_columns, plain_name
from grandbatch.bars.rules import BarRules
from grandbatch.errors import ColumnError

_PRICES = {"open", "high", "low", "close"}
_FIELDS = r"adj(?:usted)?[ _]?close|open|high|low|close|volume"
_MARKS = (", ", "_", " ", ".", "-", "|", ":", "/")
_NO_SYMBOLS = {
    *("bid", "ask", "mid", "mark", "index", "spot", "last", "trade", "price", "prices", "interest"),
    *("adj", "adjusted", "raw", "day", "prev", "previous", "session", "regular", "pre", "post"),
    *("am", "pm", "usd", "eur", "gbp", "jpy", "cny", "local", "ha", "min", "max", "mean", "avg"),
}
"""Words that stand beside a field's name and are no symbols."""
_CORNERS = {"", "price", "ticker", "tickers", "attributes", "symbols", "symbol", "field", "fields"}


@dataclass(frozen=True)
class FrameHeader:
    """A header that says of each column which field of which symbol it is."""

    fields: tuple[str, ...]
    symbols: tuple[str, ...]
    """Empty for a column of all symbols: the time."""
    n_lines: int


def read_frame_header(lines: Sequence[Sequence[str]], rules: BarRules) -> FrameHeader | None:
    """Read the header of a frame from the first three lines; None where there is none."""
    pairs = read_pairs(lines[0], rules)
    if pairs is not None:
        return pairs
    if len(lines) < 2 or len(lines[0]) != len(lines[1]):
        return None
    columns = _pairs_of(lines[0], lines[1])
    has_corner = all(cell.lower() in _CORNERS for cell in columns[0])
    if not has_corner and all(columns[0]):
        return None
    has_name = (
        has_corner
        and len(lines) > 2
        and bool(lines[2][0].strip())
        and not any(cell.strip() for cell in lines[2][1:])
    )
    if has_corner:
        columns[0] = (lines[2][0].strip() if has_name else "", "")
    return _header_of(columns, 3 if has_name else 2)


def _pairs_of(upper: Sequence[str], lower: Sequence[str]) -> list[tuple[str, str]]:
    """Pair the cells of two lines; pandas numbers those of the upper one that come again."""
    cells = [cell.strip() for cell in upper]
    names = set(cells)
    numbered = [re.fullmatch(r"(.+)\.\d+", cell) for cell in cells]
    plain = [
        found[1] if found and found[1] in names else cell
        for found, cell in zip(numbered, cells, strict=True)
    ]
    lower = [cell.strip() for cell in lower]
    pairs = list(zip(plain, lower, strict=True))
    full = [pair for pair in pairs if all(pair)]
    # else some of them are called so
    return pairs if len(set(full)) == len(full) else list(zip(cells, lower, strict=True))


def read_pairs(headers: Sequence[str], rules: BarRules) -> FrameHeader | None:
    """Read headers that are pairs of texts, but for that of the time; None where they aren't."""
    pairs = _header_of([_read_pair(header) or (header, "") for header in headers], 1)
    if pairs is None and not _PRICES.intersection(rules.columns):
        extra = [rules.columns.get(name, name) for name in rules.extra]
        pairs = _read_joined(headers, "|".join([*map(re.escape, extra), _FIELDS]))
    return pairs


def _read_joined(headers: Sequence[str], fields_pattern: str) -> FrameHeader | None:
    """Read headers that are a field and a symbol joined by a mark, of two symbols or more."""
    for mark in _MARKS:
        sides = f"(?P<field>{fields_pattern})", re.escape(mark), "(?P<symbol>.+?)"
        for form in (re.compile("".join(part), re.IGNORECASE) for part in (sides, sides[::-1])):
            found = [form.fullmatch(header.strip()) for header in headers]
            symbols = tuple("" if one is None else one["symbol"].strip() for one in found)
            fields = tuple(
                header if one is None else one["field"]
                for header, one in zip(headers, found, strict=True)
            )
            named = {
                symbol: {
                    plain_name(field)
                    for field, of in zip(fields, symbols, strict=True)
                    if of == symbol
                }
                for symbol in dict.fromkeys(symbols)
            }
            of_all = named.pop("", set())
            is_frame = len(named) > 1 and all(of >= _PRICES for of in named.values())
            if is_frame and not (of_all & _PRICES or _NO_SYMBOLS & {*map(str.lower, named)}):
                return FrameHeader(fields, symbols, 1)
    return None


def _header_of(columns: Sequence[tuple[str, str]], n_lines: int) -> FrameHeader | None:
    """Tell fields from symbols; a column with one of the two alone is one of all symbols."""
    pairs = [column for column in columns if all(column)]
    if len(pairs) < len(_PRICES):
        return None
    found = _sort_levels(*zip(*pairs, strict=True))
    if found is None:
        return None
    of_pairs = iter(zip(*found, strict=True))
    named = [next(of_pairs) if all(column) else ("".join(column), "") for column in columns]
    fields, symbols = zip(*named, strict=True)
    return FrameHeader(fields, symbols, n_lines)


def _read_pair(header: str) -> tuple[str, str] | None:
    if not header.strip().startswith("("):
        return None
    try:
        value = ast.literal_eval(header.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(value, tuple) or len(value) != 2:
        return None
    return str(value[0]).strip(), str(value[1]).strip()


def _sort_levels(
    one: Sequence[str], other: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]] | None:
    """Tell the level of the fields from that of the symbols; None where neither is of fields."""
    for fields, symbols in ((one, other), (other, one)):
        of_first = {
            plain_name(field)
            for field, symbol in zip(fields, symbols, strict=True)
            if symbol == symbols[0]
        }
        if of_first >= _PRICES:
            return fields, symbols
    return None


def match_frame(frame: FrameHeader, rules: BarRules, where: str) -> tuple[ColumnMap, ...]:
    """Find the columns of each symbol's bars.

    Raises
    ------
    ColumnError
        If one has no bars, or the rules want all to be of one symbol, or some rows only.
    """
    symbols = list(dict.fromkeys(filter(None, frame.symbols)))
    if len(symbols) > 1 and (rules.symbol is not None or rules.symbol_from is not None):
        raise ColumnError(
            f"{where}: its columns are those of {len(symbols):,} symbols side by side "
            f"({', '.join(symbols[:5])}); leave out what names another symbol"
        )
    if rules.where:
        raise ColumnError(
            f"{where}: rows can't be chosen by a column where symbols stand side by side"
        )
    found = []
    for symbol in symbols:
        headers = [
            field if of in ("", symbol) else ""
            for field, of in zip(frame.fields, frame.symbols, strict=True)
        ]
        columns = match_columns(headers, rules, f"{where} ({symbol})")
        found.append(replace(columns, symbol=None, symbol_name=symbol))
    return tuple(found)
