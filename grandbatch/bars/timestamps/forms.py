"""Forms of times that aren't known by themselves, as `strptime` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

_MONTH = r"(?P<month>[A-Z][a-z]{2,8})"
_DATES = (
    (
        re.compile(r"\b\d{1,2}(?P<mark>[/.-])\d{1,2}(?P=mark)\d\d(?!\d)"),
        ("%m{0}%d{0}%y", "%d{0}%m{0}%y"),
    ),
    (
        re.compile(rf"\b\d{{1,2}}(?P<mark>[-/ .]?){_MONTH}(?P=mark)\d{{4}}(?!\d)"),
        ("%d{0}{1}{0}%Y",),
    ),
    (re.compile(rf"\b\d{{1,2}}(?P<mark>[-/ .]?){_MONTH}(?P=mark)\d\d(?!\d)"), ("%d{0}{1}{0}%y",)),
    (re.compile(rf"\b{_MONTH}(?P<mark> )\d{{1,2}}, \d{{4}}(?!\d)"), ("{1}{0}%d, %Y",)),
    (re.compile(rf"\b\d{{4}}(?P<mark>[-/ .]){_MONTH}(?P=mark)\d{{1,2}}(?!\d)"), ("%Y{0}{1}{0}%d",)),
)
_CLOCK = re.compile(
    r"(?P<sep>[ T]|\"?[,;\t]\"?)"
    r"\d{1,2}:\d\d(?P<seconds>:\d\d(?P<part>\.\d{1,6})?)?(?P<half> ?[AP]M)?"
)


def likely_form(lines: Sequence[str]) -> str | None:
    """Find a form that a time in each of some lines has; None where there is none, or several.

    A date and a time of day in fields that follow each other are taken as one text, with a blank.
    """
    found = [set(_forms_of(line)) for line in lines]
    common = set.intersection(*found) if found else set()
    return common.pop() if len(common) == 1 else None


def _forms_of(line: str) -> Iterable[str]:
    for pattern, forms in _DATES:
        date = pattern.search(line)
        if date is None:
            continue
        text, rest = date[0], ""
        clock = _CLOCK.match(line, date.end())
        if clock:
            text += " " + clock[0][len(clock["sep"]) :]
            hour, seconds = ("%I" if clock["half"] else "%H"), ":%S" if clock["seconds"] else ""
            rest = f"{hour}:%M{seconds}{'.%f' if clock['part'] else ''}"
            rest += re.sub("[AP]M", "%p", clock["half"] or "")
        for form in forms:
            for month in ("%b", "%B"):
                whole = form.format(date["mark"], month) + (f" {rest}" if rest else "")
                if has_form(text, whole):
                    sep = clock["sep"] if clock and clock["sep"] == "T" else " "
                    yield whole.replace(" " + rest, sep + rest) if rest else whole
                    break
        return


def has_form(text: str, form: str) -> bool:
    """Whether a text is a time of some form, as `strptime` knows it."""
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True
