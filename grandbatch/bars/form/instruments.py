"""Columns that are read over, and may tell instruments apart: a contract, a ticker, an exchange.

Where such a column changes within a symbol, bars of several instruments would be joined into one
series: that is an error, unless the column is named as one that doesn't matter.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from grandbatch.bars.form.columns import NOWHERE, ColumnMap, TextColumn
from grandbatch.bars.form.header import find_header, plain_name
from grandbatch.bars.rules import DEFAULT_SYMBOL, BarRules
from grandbatch.bars.rules.flags import offer, offer_columns, offer_list
from grandbatch.errors import ColumnError

SNIFFED_ROWS = 50
"""First rows of a file that show which columns are text."""

_MOST_TEXTS = 3
_MOST_CODES = 8
"""Numbers that stand for instruments are few in a file; an open interest has more."""
_TELLING_NAMES = (
    *("symbol", "ticker", "sym", "instrument", "contract", "name", "ric", "isin", "cusip", "figi"),
    *("permno", "gvkey", "stkcd", "sc_code", "ts_code", "conid", "instrument_token", "stock"),
    *("sedol", "code", "security", "root", "underlying", "pair", "market", "expiry", "expiration"),
    *("contract_month", "delivery", "delivery_month", "maturity", "exchange", "venue", "mic"),
    *("合约", "代码", "股票代码", "交易所", "secid", "exp", "exp_date", "maturity_date", "strike"),
    *("strike_price", "token", "lasttradedateorcontractmonth"),
)
"""Names of columns that tell instruments apart, the likeliest first."""
_TELLING = re.compile(
    r"(instrument|asset|stock|security|secu?|contract|symbol|ticker|product|scrip|fund|share"
    r"|listing|series|company|issue|exchange|market|venue|publisher|pair|coin|currency)"
    r"_?(id|code|token)"
    r"|(contract|delivery|expiry|expiration|maturity)_?(date|month|day|year|ym)|.+代码"
)
"""More such names: numbers that stand for instruments, venues or contracts."""

_OF_TIMES = re.compile(r".*(year|month|day|week|date|time|hour|minute|session|period|index|row).*")
"""Names of numbers that change for other reasons."""

_AMOUNT = re.compile(r"(?=.*\d)[$€£¥]?[+-]?[\d.,'\s]+(e[+-]?\d+)?\s?[kmbt%]?", re.IGNORECASE)
_GAPS = {"nan", "nat", "na", "n/a", "#n/a", "null", "none"}
_NO_WORDS = {"true", "false", "yes", "no", "inf", "-inf", "infinity", *_GAPS}
_TIME_WORDS = re.compile(
    r"(?<![^\W\d_])((jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec)[a-z]*"
    r"|(mon|tues?|wed(nes)?|thu(rs)?|fri|sat(ur)?|sun)(day)?|[ap]m|utc|gmt|est|edt|cst|cdt)"
    r"(?![^\W\d_])|(?<=\d)t(?=\d)|(?<=\d)z$",
    re.IGNORECASE,
)


def is_text(value: str) -> bool:
    """Whether a value is a word: no amount, time, switch or gap."""
    word = value.strip().lower()
    if word in _NO_WORDS or _AMOUNT.fullmatch(word):
        return False
    is_time = len(re.findall(r"\d+", word)) > 1  # a month with one number may be a contract's
    rest = _TIME_WORDS.sub("", word) if is_time else word
    return any(letter.isalpha() for letter in rest)


def is_telling_name(name: str) -> bool:
    """Whether a column of that name tells instruments apart, whatever its values look like."""
    plain = plain_name(name)
    return plain in _TELLING_NAMES or _TELLING.fullmatch(plain) is not None


def with_texts(
    headers: Sequence[str],
    columns: ColumnMap,
    rules: BarRules,
    folders: Mapping[str, str],
    where: str,
    may_be_text: Sequence[bool],
    may_be_code: Sequence[bool],
    may_turn: Sequence[bool],
) -> ColumnMap:
    """Add the columns beside a bar's whose texts are looked at.

    Parameters
    ----------
    headers : sequence of str
    columns : ColumnMap
        Of the bar.
    rules : BarRules
    folders : mapping
        Columns that hive folders stand for.
    where : str
        What errors call the file.
    may_be_text : sequence of bool
        Of each field, whether its values are texts as far as one knows.
    may_be_code : sequence of bool
        Of each field, whether its values may be numbers that stand for instruments.
    may_turn : sequence of bool
        Of each field, whether texts may follow where none was seen so far.

    Raises
    ------
    ColumnError
        If a column that rows are chosen by isn't there, or is a time or a number of a bar.
    """
    chosen = _chosen_columns(headers, columns, rules, folders, where)
    passed = {plain_name(name) for name in rules.ignore_columns}
    taken = {*columns.taken, *(column.field for column in chosen)}
    watched = [
        TextColumn(field, name.strip(), is_code=not is_text)
        for field, name in enumerate(headers)
        if field not in taken and plain_name(name) not in passed
        for is_text in [may_be_text[field] or is_telling_name(name)]
        if is_text or (may_be_code[field] and not _OF_TIMES.fullmatch(plain_name(name)))
    ]
    taken.update(column.field for column in watched)
    unseen = (
        TextColumn(field, name.strip())
        for field, name in enumerate(headers)
        if may_turn[field] and field not in taken and plain_name(name) not in passed
    )
    names = {column.name for column in chosen}
    watched += [
        TextColumn(NOWHERE, name, constant=value)
        for name, value in folders.items()
        if name not in names and plain_name(name) not in passed
    ]
    return replace(columns, texts=(*chosen, *watched), unseen=tuple(unseen))


def _chosen_columns(
    headers: Sequence[str],
    columns: ColumnMap,
    rules: BarRules,
    folders: Mapping[str, str],
    where: str,
) -> list[TextColumn]:
    found = []
    for name, texts in rules.where.items():
        field = find_header(headers, name)
        folder = find_header(list(folders), name)
        wanted = tuple(text.strip() for text in texts)
        if field is None and folder is not None:
            key = list(folders)[folder]
            found.append(TextColumn(NOWHERE, key, wanted, folders[key]))
        elif field is None:
            known = ", ".join([*(header.strip() for header in headers), *folders])
            raise ColumnError(
                f"{where}: there is no column {name!r} to choose rows by; the headers are {known}"
            )
        elif field in columns.taken and field != columns.symbol:
            raise ColumnError(
                f"{where}: rows can't be chosen by {name!r}, which is a time or a number of the "
                "bars; name another column"
            )
        else:
            found.append(TextColumn(field, headers[field].strip(), wanted))
    return found


class _Texts:
    """Different texts of a column of one symbol, in the order in which they first came."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_code = False
        self._texts: dict[str, bool] = {}

    def add(self, column: TextColumn, texts: Sequence[str]) -> bool:
        """Add texts as `first_texts` gives them; return whether one of those that tell was new."""
        before = len(self.words)
        self.is_code |= column.is_code
        for text in texts:
            is_word = tells(column, text)
            if is_word or len(self.others) <= _MOST_CODES:
                self._texts.setdefault(text, is_word)
        return len(self.words) > before

    @property
    def words(self) -> list[str]:
        """Those that tell instruments apart."""
        return [text for text, is_word in self._texts.items() if is_word]

    @property
    def others(self) -> list[str]:
        """Numbers and the like, up to one more than may stand for instruments."""
        return [text for text, is_word in self._texts.items() if not is_word]

    @property
    def first_two(self) -> tuple[str, str]:
        """The first text, and the first of the other kind."""
        first = next(iter(self._texts))
        return first, (self.others if self._texts[first] else self.words)[0]


class ColumnsWatch:
    """Watches columns that must not change within a symbol, while blocks come in input order."""

    def __init__(self, rules: BarRules) -> None:
        self._rules = rules
        self._texts: dict[tuple[str, str], _Texts] = {}
        self._changed: dict[str, tuple[str, str, str]] = {}
        self._places: dict[str, tuple[str, ColumnMap]] = {}

    def hear(
        self, where: str, columns: ColumnMap, found: Mapping[str, Sequence[Sequence[str]]]
    ) -> None:
        """Take note of a block.

        Parameters
        ----------
        where : str
            Its file.
        columns : ColumnMap
            The columns of that.
        found : mapping
            Of each symbol, the first different texts of each column that is watched.
        """
        watched = [column for column in columns.texts if column.is_watched]
        for symbol, of_columns in found.items():
            for column, texts in zip(watched, of_columns, strict=True):
                key = plain_name(column.name), symbol
                known = self._texts.setdefault(key, _Texts(column.name))
                if known.add(column, texts):
                    self._places[known.name] = where, columns
                if len(known.words) > 1:
                    first, second, *_ = known.words
                    self._changed.setdefault(known.name, (symbol, first, second))

    def settle(self, *, in_order: bool) -> list[str]:
        """Decide on texts among numbers, once all blocks are heard; say what is worth a look.

        Where few numbers stand beside a text, they stand for instruments, too.

        Raises
        ------
        ColumnError
            As `check`.
        """
        told = []
        for (_, symbol), known in self._texts.items():
            name, words, others = known.name, known.words, known.others
            if len(words) == 1 and 0 < len(others) <= _MOST_CODES:
                self._changed.setdefault(name, (symbol, *known.first_two))
            elif len(words) == 1 and others:
                told.append(
                    f"the column {name!r} isn't read and has the text {words[0]!r} among numbers"
                )
            elif known.is_code and not words and 1 < len(others) <= _MOST_CODES:
                flag = offer_columns([("symbol", name)]) if symbol == DEFAULT_SYMBOL else ""
                advice = f"; if it tells instruments apart, add {flag}" if flag else ""
                told.append(
                    f"the column {name!r} isn't read and changes from {others[0]} to {others[1]}, "
                    f"of {len(others)} numbers in all{advice}"
                )
        self.check(in_order=in_order)
        return list(dict.fromkeys(told))

    def check(self, *, in_order: bool) -> None:
        """Refuse columns that have changed.

        Parameters
        ----------
        in_order : bool
            Whether bars' times rise as if all were of one series.

        Raises
        ------
        ColumnError
            It names the flags that read the file rightly.
        """
        if not self._changed:
            return
        names = sorted(self._changed, key=_likelihood)
        told = "; ".join(self._tell(name) for name in names)
        where, columns = self._places[names[0]]
        raise ColumnError(
            f"{where}: {told}. Bars of several instruments would be joined into one series. "
            f"{self._remedies(names, columns, in_order=in_order)}"
        )

    def _tell(self, name: str) -> str:
        symbol, first, other = self._changed[name]
        of_symbol = f" for {symbol}" if symbol != DEFAULT_SYMBOL else ""
        values = " to ".join(repr(text[:40]) for text in (first, other))
        return f"the column {name!r} isn't read and changes{of_symbol} from {values}"

    def _remedies(self, names: Sequence[str], columns: ColumnMap, *, in_order: bool) -> str:
        likeliest, *others = names
        rules = self._rules
        pass_others = f" {offer_list('--ignore-columns', others)}" if others else ""
        remedies = []
        has_symbol = columns.symbol is not None or columns.symbol_name is not None
        if not has_symbol and rules.symbol is None and rules.symbol_from is None:
            flag = offer_columns([("symbol", likeliest)])
            if flag:
                remedies.append(f"{flag}{pass_others} if it tells instruments apart")
        if in_order:
            flag = offer_list("--ignore-columns", names)
            remedies.append(f"{flag} if all rows are one series")
        if not remedies:
            _, first, _ = self._changed[likeliest]
            flag = offer("--where", f"{likeliest}={first}")
            remedies.append(f"{flag}{pass_others} to read those rows alone")
        return f"Add {', or '.join(remedies)}"


def _likelihood(name: str) -> tuple[int, str]:
    plain = plain_name(name)
    known = plain in _TELLING_NAMES
    return (_TELLING_NAMES.index(plain) if known else len(_TELLING_NAMES)), name


def may_be_texts(rows: Sequence[Sequence[str]], n_fields: int) -> list[bool]:
    """Of each field, whether some of the first rows hold a text, or all hold nothing."""
    return [
        any(is_text(row[field]) for row in rows if field < len(row))
        or not any(row[field].strip() for row in rows if field < len(row))
        for field in range(n_fields)
    ]


def may_be_codes(rows: Sequence[Sequence[str]], n_fields: int) -> list[bool]:
    """Of each field, whether the first rows hold numbers that may stand for instruments.

    These come in runs. Years and dates are none, nor are numbers of two digits.
    """
    columns = [
        [row[field].strip() for row in rows if field < len(row)] for field in range(n_fields)
    ]
    runs = [[text for text, _ in itertools.groupby(column)] for column in columns]
    return [
        0 < len(run) <= _MOST_TEXTS and len(set(run)) == len(run) and all(map(_is_code, run))
        for run in runs
    ]


def _is_code(text: str) -> bool:
    is_date = re.fullmatch(r"(19|20)\d\d((0[1-9]|1[0-2])([0-3]\d)?)?", text)
    return re.fullmatch(r"[1-9]\d{2,17}", text) is not None and not is_date


def tells(column: TextColumn, text: str) -> bool:
    """Whether a text of a column tells instruments apart, and isn't a number among others."""
    return is_telling_name(column.name) or is_text(text)


def first_texts(column: TextColumn, names: Sequence[str]) -> tuple[str, ...]:
    """Return the first different texts of a watched column that count, in order.

    Those are a few that tell instruments apart, and so many others that one knows whether these are
    too many to stand for instruments.
    """
    all_tell = is_telling_name(column.name)
    room = {True: _MOST_TEXTS, False: _MOST_CODES + 1}
    kept: list[str] = []
    for name in names:
        is_word = all_tell or is_text(name)
        if name and room[is_word] and (is_word or name.lower() not in _GAPS):
            room[is_word] -= 1
            kept.append(name)
            if not any(room.values()):
                break
    return tuple(kept)
