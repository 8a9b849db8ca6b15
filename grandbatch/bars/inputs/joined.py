"""Files read as one series whose names look like symbols."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from grandbatch.bars.inputs.packing import stem_of
from grandbatch.bars.rules import DEFAULT_SYMBOL, BarRules
from grandbatch.bars.rules.flags import offer
from grandbatch.store.notes import named

_WORD = re.compile(r"[^\W\d_]{2,}")
_NO_SYMBOLS = re.compile(
    r"(jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec)[a-z]*|day|week|month|quarter|year|part"
    r"|train(ing)?|valid(ation)?|test(ing)?|val|old|new|first|second|third|last|next|more|rest"
    r"|data|bars?|history|recent|update[ds]?|copy|in|out|of|sample",
    re.IGNORECASE,
)
"""Words that tell parts of one series apart."""
_STARTS = "^([^-_ .]+)"


def names_apart(names: Sequence[str], symbols: Sequence[str], rules: BarRules) -> list[str]:
    """Say that files are joined whose names have words of their own, in one line or none.

    Parameters
    ----------
    names : sequence of str
        Of files.
    symbols : sequence of str
        Of their bars.
    rules : BarRules
    """
    if rules.symbol is not None or list(symbols) != [DEFAULT_SYMBOL]:
        return []
    stems = [stem_of(name) for name in names]
    own = _own_words(stems)
    if len({words for words in own if words}) < 2:
        return []
    shown = named(list(dict.fromkeys(itertools.compress(stems, own))))
    return [f"files with names apart are read as one series: {shown}{_advice(stems, own)}"]


def _own_words(texts: Sequence[str]) -> list[frozenset[str]]:
    """Words of each text that not all have, and that may be symbols."""
    words = [frozenset(_WORD.findall(text)) for text in texts]
    shared = frozenset.intersection(*words)
    return [
        frozenset(word for word in of - shared if not _NO_SYMBOLS.fullmatch(word)) for of in words
    ]


def _advice(stems: Sequence[str], own: Sequence[frozenset[str]]) -> str:
    """Offer the flag that takes symbols from the names, where it tells all of them."""
    starts = [re.split("[-_ .]", stem)[0] for stem in stems]
    if not any(re.search("[-_ ]", stem) for stem in stems):
        flag = offer("--symbol-from", "filename")
    elif all(
        any(word in start for word in words) for start, words in zip(starts, own, strict=True)
    ):
        flag = offer("--symbol-from", _STARTS)
    else:
        return ""
    return f"; if these are symbols, add {flag}"
