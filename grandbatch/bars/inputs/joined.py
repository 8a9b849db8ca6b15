"""Files read as one series whose names, or those of their folders, look like symbols."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

import numpy as np

from grandbatch.bars.inputs.files import InputFile
from grandbatch.bars.inputs.hive import is_hive_folder
from grandbatch.bars.inputs.packing import stem_of
from grandbatch.bars.rules import DEFAULT_SYMBOL, BarRules
from grandbatch.bars.rules.flags import offer
from grandbatch.errors import InputError
from grandbatch.store.notes import named

_ALONE = r"(?<![^\W_]){}(?![^\W_])"
_WORD = re.compile(rf"[^\W\d_]{{2,}}|{_ALONE.format('[A-Z]')}")
_CONTRACT = re.compile(_ALONE.format(r"([FGHJKMNQUVXZ])\d{2}(?:\d\d)?"))
"""Letters of delivery months, with a year."""
_CODE = re.compile(_ALONE.format(r"\d{4,6}"))
_DATE = re.compile(r"(19|20)?\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])?|(19|20)\d\d")
_NO_SYMBOLS = re.compile(
    r"jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?"
    r"|oct(ober)?|nov(ember)?|dec(ember)?|(mon|tues|wednes|thurs|fri|satur|sun)day"
    r"|(day|week|month|quarter|year|hour|minute)s?|daily|weekly|monthly|yearly|hourly|intraday"
    r"|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|first|second|third|fourth|last|next|previous|prior|before|after|begin(ning)?|start|middle"
    r"|mid|end|head|tail|left|right|early|earlier|late|later|half|top|bottom|upper|lower"
    r"|old(er)?|new(er)?|recent|latest|current|history|historical|past|today|yesterday|live"
    r"|archived?|backup|backfill|update[ds]?|append(ed)?|added|extra|more|rest|missing|other"
    r"|replaced|fix(ed)?|correct(ed|ion)?|clean(ed)?|raw|full|partial|copy|merged|joined|base"
    r"|parts?|chunk|block|batch|piece|shard|split|section|segment|fold|set|file|folder|dir"
    r"|train(ing)?|valid(ation)?|test(ing)?|val|dev|eval|sample|small|large|big|good|bad"
    r"|data|bars?|candles?|ohlcv?|prices?|quotes?|ticks?|csv|parquet|zip|in|out|of|to|from|and"
    r"|download(s|ed)?|export(s|ed)?|input|output|dump|tmp|temp|disk|store|am|pm|utc",
    re.IGNORECASE,
)
"""Words that tell parts of one series apart."""


_MONTHS_IN_NAMES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<word>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-_. ]?"
        r"(?P<year>(19|20)?\d\d)(?!\d)",
        r"(?P<letter>[FGHJKMNQUVXZ])(?P<year>(19|20)?\d\d|(?<=[a-z][a-z])\d)(?![^\W_])",
        r"(?<!\d)(?P<year>(19|20)\d\d)[-_. ]?(?P<month>0[1-9]|1[0-2])([-_. ]?\d\d)?(?!\d)",
        r"(?<!\d)(?P<year>\d\d)(?P<month>0[1-9]|1[0-2])(?!\d)",
        r"(?<!\d)(?P<month>0[1-9]|1[0-2])[-_. ](?P<year>(19|20)?\d\d)(?!\d)",
    )
)
"""How names of contracts tell months of delivery, and those of other files what they hold."""
_DAYS = 86_400_000_000_000
_MONTHS = "janfebmaraprmayjunjulaugsepoctnovdec"
_LETTERS = "FGHJKMNQUVXZ"

_Span = tuple[int, int]
"""First and last time of a file's bars."""


def refuse_apart(files: Sequence[InputFile]) -> None:
    """Refuse files of one series that have words of their own in their names or folders.

    Folders that are columns tell for themselves.

    Raises
    ------
    InputError
        It names the flags that read them rightly.
    """
    paths = _paths(files)
    own = _own(_words(paths))
    if len(_groups(own)) < 2 or not any(len(word) > 1 for words in own for word in words):
        return
    shown = _shown(paths, own)
    flag = _flag(files, own)
    choice = f"{flag} if these are symbols, or " if flag else ""
    raise InputError(
        f"files with names apart would be read as one series: {shown}. Add {choice}"
        f"{offer('--symbol', DEFAULT_SYMBOL)} if all are one series"
    )


def numbers_apart(files: Sequence[InputFile]) -> list[str]:
    """Say that files are read as one series whose numbers may be symbols, in one line or none."""
    paths = _paths(files)
    own = _own([frozenset(_CODE.findall(path)) for path in paths])
    codes = sorted({int(code) for words in own for code in words})
    are_parts = bool(codes) and codes[-1] - codes[0] < 10 * len(codes)
    if len(_groups(own)) < 2 or are_parts or _are_dates(own):
        return []
    flag = _flag(files, own)
    advice = f"; if these are symbols, add {flag}" if flag else ""
    return [f"files with numbers apart are read as one series: {_shown(paths, own)}{advice}"]


def months_apart(
    files: Sequence[InputFile], spans: Mapping[str, _Span], before: int | None = None
) -> list[str]:
    """Say that files are read as one series that are named by months as contracts are.

    A contract's bars come before its month of delivery, or begin before and end in it; those of
    other files lie within the month that they are named by.

    Parameters
    ----------
    files : sequence of InputFile
    spans : mapping
        First and last time of bars by full names of files, as far as they are known.
    before : int, optional
        Last time of bars in all other files.

    Returns
    -------
    list of str
        One line or none.
    """
    paths = _paths(files)
    for pattern in _MONTHS_IN_NAMES:
        found = [match for path in paths if (match := pattern.search(path))]
        own = _own([frozenset([match[0]]) for match in found])
        if len(found) < len(paths) or len(_groups(own)) < 2:
            continue
        known, others = [], []
        for match, file in zip(found, files, strict=True):
            if file.full_name in spans:
                span = spans[file.full_name]
                known.append((*_month(match, span[0]), *span))
            elif before is not None:
                others.append(_month(match, before))
        latest = max((last for *_, last in known), default=0)
        goes_on = not others or (before or 0) < max(end for _, end in others) + 5 * _DAYS
        are_contracts = all(_is_contract(*one, is_last=one[-1] == latest) for one in known)
        if known and goes_on and are_contracts:
            flag = _flag(files, own)
            advice = f"; if these are contracts, add {flag}" if flag else ""
            return [
                "files named by months hold bars of months before, as contracts do, and are read "
                f"as one series: {_shown(paths, own)}{advice}"
            ]
        break  # names have one form
    return []


def _is_contract(begin: int, end: int, first: int, last: int, *, is_last: bool) -> bool:
    """Whether bars lie around the month of a name as those of a contract do."""
    goes_into = last > begin + 2 * _DAYS or first < begin - 35 * _DAYS
    is_near = is_last or last > begin - 100 * _DAYS
    return first < begin - 5 * _DAYS and last < end + 5 * _DAYS and goes_into and is_near


def _month(match: re.Match[str], first: int) -> _Span:
    """Where the month begins and ends that a name tells, of a file whose first bar is known."""
    told, year = match.groupdict(), int(match["year"])
    if len(match["year"]) == 1:  # the next year that ends so
        year = np.datetime64(first, "ns").astype("datetime64[Y]").astype(int).item() + 1970
        year += (int(match["year"]) - year) % 10
    elif year < 100:
        year += 1900 if year >= 70 else 2000
    if told.get("word"):
        month = _MONTHS.index(told["word"].lower()) // 3
    elif told.get("letter"):
        month = _LETTERS.index(told["letter"].upper())
    else:
        month = int(told["month"]) - 1
    months = np.array([0, 1]) + 12 * (year - 1970) + month
    begin, end = months.astype("datetime64[M]").astype("datetime64[ns]").astype(int).tolist()
    return begin, end


def _are_dates(own: Sequence[frozenset[str]]) -> bool:
    return all(_DATE.fullmatch(code) for words in own for code in words)


def _paths(files: Sequence[InputFile]) -> list[str]:
    """Folders of each file below those that all are in, and its name without suffixes."""
    parts = [PurePath(file.full_name).parts for file in files]
    shared = _n_shared([path[:-1] for path in parts])
    if shared < 2:  # on several disks
        shared = max(map(len, parts), default=0)
    return [
        "/".join(
            [*(name for name in path[shared:-1] if not is_hive_folder(name)), stem_of(path[-1])]
        )
        for path in parts
    ]


def _n_shared(texts: Sequence[Sequence[str]]) -> int:
    """With how many items all begin."""
    beside = zip(*texts, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda items: len({*items}) == 1, beside))


def _words(paths: Sequence[str]) -> list[frozenset[str]]:
    contracts = [{found[0]: found[1] for found in _CONTRACT.finditer(path)} for path in paths]
    months = {letter for of in contracts for letter in of.values()}
    return [
        frozenset(word for word in _WORD.findall(path) if not _NO_SYMBOLS.fullmatch(word))
        | (frozenset(of) if len(months) > 1 else frozenset())
        for path, of in zip(paths, contracts, strict=True)
    ]


def _own(words: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    """Words of each that not all have."""
    shared = frozenset.intersection(*words) if words else frozenset()
    return [of - shared for of in words]


def _groups(own: Iterable[frozenset[str]]) -> set[frozenset[str]]:
    return {words for words in own if words}


def _shown(paths: Sequence[str], own: Sequence[frozenset[str]]) -> str:
    return named(list(dict.fromkeys(path for path, words in zip(paths, own, strict=True) if words)))


def _flag(files: Sequence[InputFile], own: Sequence[frozenset[str]]) -> str:
    """Offer the flag that takes symbols from names or paths, where it tells all of them."""
    stems = [file.stem for file in files]
    begin = re.escape(re.sub("[^-_ .]+$", "", stems[0][: _n_shared(stems)]))
    patterns = [f"^{begin}([^-_ .]+)", *("([^/]+)" + level * "/[^/]+" + "$" for level in (1, 2, 3))]
    values = ["filename", *patterns]
    if any(re.search("[-_ ]", stem) for stem in stems):
        values = [*patterns, "filename"]
    for value in values:
        symbols = stems if value == "filename" else _symbols(files, value)
        if symbols and _are_told(symbols, own):
            return offer("--symbol-from", value)
    return ""


def _are_told(symbols: Sequence[str], own: Sequence[frozenset[str]]) -> bool:
    """Whether symbols hold the words that files have of their own, and are as many as these."""
    pairs = {*zip(symbols, own, strict=True)}
    hold = all(not words or any(word in symbol for word in words) for symbol, words in pairs)
    return hold and len({*symbols}) == len({*own}) == len(pairs)


def _symbols(files: Sequence[InputFile], pattern: str) -> list[str]:
    """Symbols that a pattern finds; none where it doesn't find all."""
    rules = BarRules(symbol_from=pattern)
    try:
        return [str(file.symbol_by(rules)) for file in files]
    except InputError:
        return []
