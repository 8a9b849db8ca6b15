"""Timestamps that are numbers and count otherwise than epochs, or are digits of another order.

Such numbers make plausible epochs of wrong years: ticks of .NET are nanoseconds of 1990, and
``2401020930`` is a second of 2046. A column's first and last rows show what they are. Seconds since
2000 or 2001 look like epochs of thirty years before; where markets rest, the days of the week tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from grandbatch.bars.rules import UNITS, BarRules
from grandbatch.bars.rules.flags import offer
from grandbatch.bars.timestamps.forms import has_form
from grandbatch.bars.timestamps.texts import TimeForm, read_times
from grandbatch.errors import TimestampError
from grandbatch.kernels.bars.epochs import COMPACT, NO_TIME
from grandbatch.kernels.bars.timestamps import NAIVE

Floats = npt.NDArray[np.float64]

_FEWEST = 5
"""Different numbers that tell what they are."""
_DAY = 86_400.0
_DAY_NS = 86_400 * 10**9
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def _year(year: int) -> float:
    return datetime(year, 1, 1, tzinfo=UTC).timestamp()


_FIRST, _RECENT, _LAST = _year(1950), _year(1990), _year(2035)
"""Bars of another count begin after the first of these, and end between the others; those that
could be epochs begin after 1980."""
_INTRADAY, _FUTURE = _year(1980), _year(2040)
"""Before the one there are days only; after the other there are no bars yet."""
_IN_TURN = 0.8
"""Of steps from row to row, more go one way than the other by such a share, as a rule."""
_REGULAR = 0.9
"""Of bars' times, such a share is on whole minutes, as a rule."""


@dataclass(frozen=True)
class _Scale:
    """A way to count time."""

    name: str
    zero: int | float
    """The number that 1970 has."""
    seconds: tuple[int, int]
    """A step in seconds, as a fraction."""

    def read(self, numbers: Floats) -> Floats:
        """Seconds since 1970."""
        above, below = self.seconds
        return (numbers - self.zero) * above / below

    @property
    def formula(self) -> str:
        """What makes seconds since 1970 of a number x."""
        above, below = self.seconds
        shifted = f"(x - {self.zero})" if self.zero else "x"
        return shifted + (f" * {above}" if above > 1 else "") + (f" / {below}" if below > 1 else "")


_SCALES = (
    _Scale("ticks of .NET (100 ns since 0001)", 621_355_968_000_000_000, (1, 10_000_000)),
    _Scale("FILETIME of Windows (100 ns since 1601)", 116_444_736_000_000_000, (1, 10_000_000)),
    _Scale("microseconds since 1601", 11_644_473_600_000_000, (1, 1_000_000)),
    _Scale("steps of 100 ns since 1970", 0, (1, 10_000_000)),
    _Scale("tenths of milliseconds since 1970", 0, (1, 10_000)),
    _Scale("seconds since 1900", 2_208_988_800, (1, 1)),
    _Scale("seconds since 1904", 2_082_844_800, (1, 1)),
    _Scale("minutes since 1970", 0, (60, 1)),
    _Scale("hours since 1970", 0, (3600, 1)),
    _Scale("days since 1970", 0, (86_400, 1)),
    _Scale("days of Excel", 25_569, (86_400, 1)),
    _Scale("Julian days", 2_440_587.5, (86_400, 1)),
    _Scale("modified Julian days", 40_587, (86_400, 1)),
    _Scale("days of MATLAB", 719_529, (86_400, 1)),
    _Scale("days since 0001, as Python's ordinals", 719_163, (86_400, 1)),
)
_FORMS = (
    (r"\d{4}", ("%Y",)),
    (r"\d{4}\.\d\d", ("%Y.%m",)),
    (r"\d{6}", ("%y%m%d", "%Y%m")),
    (r"\d{7}", ("%Y%j", "1%y%m%d")),
    (r"\d{8}", ("%d%m%Y", "%m%d%Y")),
    (r"\d{8}\.\d{4}", ("%Y%m%d.%H%M",)),
    (r"\d{8}\.\d{6}", ("%Y%m%d.%H%M%S",)),
    (r"\d{10}", ("%y%m%d%H%M",)),
    (r"\d{12}", ("%y%m%d%H%M%S", "%d%m%Y%H%M", "%m%d%Y%H%M")),
    (r"\d{14}", ("%d%m%Y%H%M%S", "%m%d%Y%H%M%S")),
    (r"\d{16}|\d{18,20}", ("%Y%m%d%H%M%S%f",)),
)


def check_scale(texts: Sequence[str], rules: BarRules, where: str) -> None:
    """Refuse timestamps that are no epochs, where some of a file's rows show what they are.

    Parameters
    ----------
    texts : sequence of str
        Timestamps of rows, in order, from all over the file.
    rules : BarRules
        Whoever says how timestamps are meant is believed.
    where : str
        What errors call the file.

    Raises
    ------
    TimestampError
        It names what they look like, and what to do.
    """
    if rules.timestamp_format is not None or rules.epoch_unit is not None:
        return
    numbers = [text.strip() for text in texts if _NUMBER.fullmatch(text.strip())]
    known = list(dict.fromkeys(numbers))
    if len(known) < _FEWEST or 2 * len(numbers) < len(texts):
        return
    found = read_times(_column(known), TimeForm())[2].numbers
    if found.compact == len(known):
        return
    is_epoch = found.verdict not in (None, NO_TIME, COMPACT)
    unit = found.verdict if is_epoch else None
    looks = _forms_advice(known) or _scales_advice(np.array(known, np.float64), unit)
    if looks:
        low, high = min(known, key=float), max(known, key=float)
        said = 0 if found.verdict == NO_TIME else unit
        epochs = "" if said is None else offer("--epoch-unit", UNITS[said])
        raise TimestampError(
            f"{where}: its timestamps are numbers from {low} to {high}, and rather than "
            f"epochs look like {looks}" + (f"; if they are epochs, add {epochs}" if epochs else "")
        )


_REST = "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"
_ZEROS = {2000: 946_684_800, 2001: 978_307_200}
"""Seconds from 1970 to the start of other years."""
_WEEKENDS = {5, 6}, {5}, {4, 5}
"""Days without bars, from Monday on."""
_FEWEST_DAYS = 15
_STRAY = 0.02
"""A day of the week with fewer dates has stray ones only."""


def epoch_days(times: npt.NDArray[np.int64], last: int) -> tuple[int, ...]:
    """Return the different days of times, as far as they may count from another year than 1970.

    Where the last of them lies behind 1999, it alone: that shows that they don't.
    """
    if last >= _ZEROS[2000] * 10**9:
        return (last // _DAY_NS,)
    days = times // _DAY_NS
    return tuple(np.unique(days[np.append(True, days[1:] != days[:-1])[: len(days)]]).tolist())


def check_weekdays(days: set[int], unit: int, where: str) -> None:
    """Refuse epochs whose days of rest are those of a week that began in another year.

    Parameters
    ----------
    days : set of int
        As `epoch_days`, of all rows.
    unit : int
        That of the numbers.
    where : str
        What errors call the file.

    Raises
    ------
    TimestampError
        It names the year, and what to do.
    """
    if len(days) < _FEWEST_DAYS or min(days) < 0 or max(days) >= _ZEROS[2000] // 86_400:
        return
    counts = np.bincount([(day + 3) % 7 for day in days], minlength=7)
    rest = {day for day in range(7) if counts[day] <= _STRAY * counts.max()}
    is_daily = 2 * len(days) > max(days) - min(days)
    for year, zero in _ZEROS.items():
        if is_daily and {(day + zero // 86_400) % 7 for day in rest} in _WEEKENDS:
            names = " or ".join(_REST[day] for day in sorted(rest))
            raise TimestampError(
                f"{where}: its timestamps are numbers, and as epochs, from "
                f"{_date(min(days))} to {_date(max(days))}, none falls on a {names}, as if they "
                f"counted from {year}. If so, write x + {zero * 1000**unit} in their place; if "
                f"they are epochs, add {offer('--epoch-unit', UNITS[unit])}"
            )


def _date(day: int) -> str:
    return str(np.datetime64(day, "D"))


def _column(texts: Sequence[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([text.encode() for text in texts], pa.binary())])


def _forms_advice(texts: Sequence[str]) -> str:
    """Name dates written as digits, with the flags that read them."""
    found = _forms_of(texts)
    if found:
        offers = " or ".join(offer("--timestamp-format", form) for form in found)
        return f"dates written as digits. Add {offers} if so"
    width = max(map(len, texts))
    width += width % 2
    if all(text.isdecimal() and width - 1 <= len(text) for text in texts):
        found = _forms_of([text.zfill(width) for text in texts])
    if not found:
        return ""
    return (
        f"dates written as digits, {' or '.join(found)}, but without the zero before them: write "
        f"them with {width} digits"
    )


def _forms_of(texts: Sequence[str]) -> list[str]:
    return [
        form
        for digits, forms in _FORMS
        if all(re.fullmatch(digits, text) for text in texts)
        for form in forms
        if _is_form(texts, form)
    ]


def _is_form(texts: Sequence[str], form: str) -> bool:
    if not all(has_form(text, form) for text in texts):  # the first of most epochs has none
        return False
    times, status, _, _ = read_times(_column(texts), TimeForm(strptime=form))
    seconds = times / 1e9
    is_old = form in ("%Y", "%Y.%m", "%Y%m")  # series of centuries
    first = _year(1700) if is_old else _FIRST
    is_in_turn = abs(float(np.mean(np.sign(np.diff(seconds))))) >= _IN_TURN
    return is_in_turn and bool((status == NAIVE).all()) and _lie_within(seconds, first)


def _lie_within(seconds: Floats, first: float) -> bool:
    return bool(seconds.min() >= first and _RECENT <= seconds.max() < _LAST)


def _scales_advice(numbers: Floats, unit: int | None) -> str:
    """Name other counts of time that numbers fit better than epochs in a unit."""
    if unit is not None and _are_plausible(numbers / 1000.0**unit):
        return ""
    first = _FIRST if unit is None else _INTRADAY
    fit = [scale for scale in _SCALES if _lie_within(scale.read(numbers), first)]
    if not fit:
        return ""
    shares = [_regular_share(scale.read(numbers)) for scale in fit]
    fit = [scale for scale, share in zip(fit, shares, strict=True) if share >= max(shares) - 0.1]
    told = ", or ".join(f"{scale.name}: write {scale.formula}" for scale in fit)
    return f"{told}, seconds since 1970, in their place"


def _are_plausible(seconds: Floats) -> bool:
    """Whether bars may have such times: whole minutes, of years that have bars."""
    steps = np.abs(np.diff(seconds))
    steps = steps[steps > 0]
    has_days = len(steps) > 0 and float(np.median(steps)) >= _REGULAR * _DAY
    is_of_years = (has_days or seconds.max() >= _INTRADAY) and seconds.min() < _FUTURE
    return bool(is_of_years) and _regular_share(seconds) >= _REGULAR


def _regular_share(seconds: Floats) -> float:
    """Share of times on whole minutes, as far as days with six decimals tell."""
    off = np.abs(seconds - 60 * np.round(seconds / 60))
    return float(np.mean(off < 0.1))
