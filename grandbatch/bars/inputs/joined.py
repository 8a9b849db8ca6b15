"""Files read as one series whose names look like symbols."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence, Set
from pathlib import PurePath

from grandbatch.bars.flags import offer
from grandbatch.bars.inputs.files import InputFile
from grandbatch.bars.rules import DEFAULT_SYMBOL, BarRules
from grandbatch.store.notes import named

log = logging.getLogger("grandbatch")

_WORD = re.compile(r"[^\W\d_]{2,}")
_NO_SYMBOLS = re.compile(
    r"(jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec)[a-z]*|day|week|month|quarter|year|part"
    r"|train(ing)?|valid(ation)?|test(ing)?|val|old|new|first|second|third|last|next|more|rest"
    r"|data|bars?|history|recent|update[ds]?|copy|in|out|of|sample",
    re.IGNORECASE,
)
"""Words that tell parts of one series apart."""
_STARTS = "^([^-_ .]+)"
_FOLDER = "/([^/]+)/[^/]+$"


def names_apart(files: Sequence[InputFile], symbols: Set[str | None], rules: BarRules) -> list[str]:
    """Say that files are joined whose names have words of their own, in one line or none.

    Names of folders are told in the log alone: no path is a part of what is kept.

    Parameters
    ----------
    files : sequence of InputFile
    symbols : set of str or None
        Of files; None for one with a column of them.
    rules : BarRules
    """
    if rules.symbol is not None or symbols != {DEFAULT_SYMBOL}:
        return []
    stems = _apart([file.stem for file in files])
    if stems:
        return [f"files with names apart are read as one series: {named(stems)}{_advice(files)}"]
    folders = _apart([PurePath(file.full_name).parent.name for file in files])
    if folders:
        advice = f"if these are symbols, add {offer('--symbol-from', _FOLDER)}"
        log.warning("folders are read as one series: %s; %s", named(folders), advice)
    return []


def _apart(texts: Sequence[str]) -> list[str]:
    """Return the texts with words of their own, where there are several such words."""
    own = _own_words(texts)
    if len({words for words in own if words}) < 2:
        return []
    return list(dict.fromkeys(text for text, words in zip(texts, own, strict=True) if words))


def _own_words(texts: Sequence[str]) -> list[frozenset[str]]:
    """Words of each text that not all have, and that may be symbols."""
    words = [frozenset(_WORD.findall(text)) for text in texts]
    shared = frozenset.intersection(*words)
    return [
        frozenset(word for word in of - shared if not _NO_SYMBOLS.fullmatch(word)) for of in words
    ]


def _advice(files: Sequence[InputFile]) -> str:
    """Offer the flag that takes symbols from the names, where it tells all of them."""
    stems = [file.stem for file in files]
    starts = [re.split("[-_ .]", stem)[0] for stem in stems]
    own = _own_words(stems)
    if not any(re.search("[-_ ]", stem) for stem in stems):
        flag = offer("--symbol-from", "filename")
    elif all(
        any(word in start for word in words) for start, words in zip(starts, own, strict=True)
    ):
        flag = offer("--symbol-from", _STARTS)
    else:
        return ""
    return f"; if these are symbols, add {flag}"
