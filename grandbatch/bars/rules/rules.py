"""What makes a row a bar: settings, reason codes, and their part of the fingerprint."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from grandbatch.bars.rules.checking import (
    check_encoding,
    check_form,
    check_pattern,
    check_start,
    check_texts,
    checked_list,
    checked_names,
    checked_where,
)
from grandbatch.bars.rules.clocks import split_zone
from grandbatch.bars.rules.extras import checked_extra, checked_fill
from grandbatch.bars.rules.timeframe import Timeframe, made_timeframe
from grandbatch.errors import InputError, UsageError
from grandbatch.values.columns import BAR_COLUMNS
from grandbatch.values.times import to_duration

if TYPE_CHECKING:
    from grandbatch.values.times import Duration

REASONS = (
    "unparseable",
    "missing",
    "not_finite",
    "non_positive_price",
    "ohlc_inconsistent",
    "negative_volume",
    "out_of_range",
    "duplicate_timestamp",
    "out_of_order",
    "spike",
)
"""Why a row is no bar, in the order in which the reasons apply; code k + 1 stands for the k-th."""

UNITS = ("s", "ms", "us", "ns")
"""Units of epochs; their places are what `grandbatch.kernels.bars.epochs` calls them."""

TIME_NUMBERS = (*UNITS, "date", "HHMM", "HHMMSS", "HHMMSSmmm")
"""What timestamps that are numbers, or times of day, can mean."""

MAPPABLE = (*BAR_COLUMNS, "date", "time")
"""Names that `BarRules.columns` can give to a header."""

DEFAULT_SYMBOL = "default"


@dataclass(frozen=True)
class BarRules:
    """How rows are read and which of them are bars.

    Raises
    ------
    UsageError
        If a value makes no sense; the message names the field.

    Examples
    --------
    >>> import grandbatch as gb
    >>> rules = gb.BarRules(timezone="Europe/Berlin", duplicates="last")
    >>> made = gb.create_large_dataset_simulation("bars.csv", num_rows=2_000)
    >>> len(gb.read_bars("bars.csv", rules=rules))
    2000
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    """Column name → header, where a header is not understood: ``{"low": "Llow"}``."""
    delimiter: str | None = None
    """The mark between fields; None infers it from the header."""
    decimal: str | None = None
    """What stands before a number's decimals, a point or a comma; None infers it from the first
    lines."""
    header: bool | None = None
    """Whether the first line is a header; None means that it is one unless it is a bar itself."""
    names: Sequence[str] = ()
    """What the columns are called, in place of a header's names."""
    timestamp_format: str | None = None
    """strptime form of all timestamps; None reads the known forms."""
    dayfirst: bool | None = None
    """Whether ``2/7/2025`` is the 2nd of July; None decides by the evidence of the whole file."""
    epoch_unit: Literal["s", "ms", "us", "ns"] | None = None
    """What timestamps that are numbers count since 1970; None decides by the evidence of the whole
    file whether they are epochs, of which unit, or dates written as digits."""
    timezone: str = "UTC"
    """Zone of timestamps that name none, or a zone with what its clock is ahead:
    ``America/New_York+07:00``. Where clocks go back, a time that comes twice is the first
    of the two unless its symbol's last bar is as late already; a time that clocks skip is
    unparseable."""
    session_start: str | None = None
    """Time of day, such as ``18:00``: times at or after it belong to the last date before the one
    they stand under, where night sessions are dated by their trading day."""
    sort: bool = False
    """Sort all bars by symbol and time. A time that comes twice is the first of the two then."""
    allow_non_positive: bool = False
    """Accept prices at or below zero."""
    duplicates: Literal["first", "last", "raise"] = "first"
    """Which row of a symbol and time stands where there are several; "raise" makes it an error."""
    ohlc_tolerance: float = 1e-9
    """Share of a price by which the high may lie below the other prices, or the low above: it is
    widened to hold them. 0 accepts none."""
    max_jump: float | None = None
    """A bar whose high lies above those of both its neighbours, or its low below, by more than such
    a share of theirs is a spike, and none. The only rule that looks at the bar behind."""
    max_bad_fraction: float = 0.01
    """Share of rows, from 0 to 1, that may be quarantined."""
    on_bad_rows: Literal["quarantine", "raise"] = "quarantine"
    """Whether bad rows go to the quarantine, or the first is an error."""
    symbol: str | None = None
    """The symbol of all bars."""
    symbol_from: str | None = None
    """Where each file's symbol stands: ``filename`` (without suffixes), or a regular expression
    whose first group finds it in the file's name, or, where it doesn't, in the path."""
    ignore_columns: Sequence[str] = ()
    """Headers of text columns that may change along a file and don't tell instruments apart."""
    where: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """Header → text, or texts: rows with another text in that column are left out, and counted."""
    no_volume: bool = False
    """There is no volume; it is 0 everywhere."""
    price_scale: float = 1.0
    """What prices are multiplied by; decimal fractions such as 1e-9 without an error of their
    own."""
    grouped: bool = False
    """Numbers may have marks between thousands, and K, M, B or T behind them (``1,234.5``,
    ``1.2M``)."""
    encoding: str | None = None
    """How text is written, such as gbk or utf-16; None is UTF-8."""
    extra: Sequence[str] = ()
    """Numeric columns to keep behind the five, float64, by the names that they are to have:
    ``("vwap", "trades")``. Their headers are found as those of other columns are."""
    fill: Mapping[str, Literal["require", "zero", "last"]] = field(default_factory=dict)
    """Extra column → what stands where its value is missing, no number, or not finite:
    "require" (nothing: the row is no bar; of columns that aren't named here), "zero", or "last",
    the value of the symbol's bar before, however far back; bars before the first value are none."""

    resample: Duration | None = None
    """Length of a coarser timeframe, such as ``30min``, that bars are gathered in; None leaves them
    as they are. Intervals begin at multiples of it since midnight of `timezone`, and a bar carries
    the start of its interval; a symbol's last one is left out until it is whole."""
    resample_offset: Duration | None = None
    """How long after midnight a day's first interval begins, such as ``18h``."""
    aggregate: Mapping[str, Literal["last", "first", "sum", "mean", "min", "max"]] = field(
        default_factory=dict
    )
    """Extra column → what a coarser bar has of it; "last" of those that aren't named here."""
    bar_time: Literal["open", "close"] = "open"
    """Whether the inputs' timestamps are those of a bar's opening or of its closing."""
    bar_duration: Duration | None = None
    """How long a bar of the inputs lasts; None takes the commonest distance of neighbours."""

    def __post_init__(self) -> None:
        check_texts({one.name: getattr(self, one.name) for one in fields(self)})
        object.__setattr__(self, "extra", checked_extra(self.extra, MAPPABLE))
        object.__setattr__(self, "fill", checked_fill(self.fill, self.extra))
        unknown = sorted(set(self.columns) - {*MAPPABLE, *self.extra})
        if unknown:
            raise UsageError(
                f"columns maps {unknown[0]!r}, which is no column; "
                f"choose from {', '.join((*MAPPABLE, *self.extra))}, or name it in extra"
            )
        object.__setattr__(self, "columns", dict(self.columns))
        object.__setattr__(self, "names", checked_names(self.names, self.columns))
        if self.delimiter is not None and (
            len(self.delimiter.encode()) != 1 or self.delimiter in '"\r\n'
        ):
            raise UsageError(f"delimiter must be one ASCII character, got {self.delimiter!r}")
        if self.decimal not in (None, ".", ",") or (
            self.decimal is not None and self.decimal == self.delimiter
        ):
            raise UsageError(
                "decimal must be a point or a comma, and not the delimiter, "
                f"got {self.decimal!r} with delimiter {self.delimiter!r}"
            )
        self._check_judgement()
        object.__setattr__(self, "ignore_columns", checked_list(self.ignore_columns))
        object.__setattr__(self, "where", checked_where(self.where))
        check_pattern(self.symbol_from)
        if not (math.isfinite(self.price_scale) and self.price_scale > 0):
            raise UsageError(f"price_scale must be above 0, got {self.price_scale}")
        if self.no_volume and "volume" in self.columns:
            raise UsageError("no_volume and columns for the volume contradict each other")
        if self.encoding is not None:
            check_encoding(self.encoding)
        if self.symbol is not None and self.symbol_from is not None:
            raise UsageError(
                f"symbol {self.symbol!r} and symbol_from {self.symbol_from!r} contradict each "
                "other; give one of them"
            )
        if self.symbol is not None and not self.symbol.strip():
            raise UsageError("symbol must not be empty")
        if self.epoch_unit not in (None, *UNITS):
            raise UsageError(f"epoch_unit must be s, ms, us or ns, got {self.epoch_unit!r}")
        check_form(self.timestamp_format, self.epoch_unit)
        zone = split_zone(self.timezone)
        if self.bar_time not in ("open", "close"):
            raise UsageError(f"bar_time must be open or close, got {self.bar_time!r}")
        duration = self.bar_duration
        if duration is not None:
            duration = to_duration(duration, "bar_duration", positive=True)
        object.__setattr__(self, "_bar_duration_ns", duration)
        asked = self.resample, self.resample_offset, zone, self.aggregate, self.extra
        timeframe = made_timeframe(*asked, by_closing=self.bar_time == "close")
        object.__setattr__(self, "_timeframe", timeframe)
        check_start(self.session_start)

    def _check_judgement(self) -> None:
        """Check what decides which rows are bars."""
        if not (math.isfinite(self.max_bad_fraction) and 0 <= self.max_bad_fraction <= 1):
            raise UsageError(f"max_bad_fraction must be from 0 to 1, got {self.max_bad_fraction}")
        if self.duplicates not in ("first", "last", "raise"):
            raise UsageError(f"duplicates must be first, last or raise, got {self.duplicates!r}")
        if not 0 <= self.ohlc_tolerance < 1:
            raise UsageError(
                f"ohlc_tolerance must be a share of the price from 0 to below 1, "
                f"got {self.ohlc_tolerance}"
            )
        if self.max_jump is not None and not (math.isfinite(self.max_jump) and self.max_jump > 0):
            raise UsageError(
                f"max_jump must be a share of the price above 0, such as 0.5, got {self.max_jump}"
            )
        if self.on_bad_rows not in ("quarantine", "raise"):
            raise UsageError(f"on_bad_rows must be quarantine or raise, got {self.on_bad_rows!r}")

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.columns.items())), self.timestamp_format, self.symbol))

    def identity(self) -> dict[str, Any]:
        """Return the values that determine bars, as JSON types.

        How many bad rows are allowed does not: it decides whether there are bars at all. Extra
        columns stand there only where there are some.
        """
        extra = {"extra": list(self.extra), "fill": dict(self.fill)} if self.extra else {}
        return {
            **extra,
            **self._time_identity(),
            "columns": dict(sorted(self.columns.items())),
            "delimiter": self.delimiter,
            "decimal": self.decimal,
            "header": self.header,
            "names": list(self.names),
            "timestamp_format": self.timestamp_format,
            "dayfirst": self.dayfirst,
            "epoch_unit": self.epoch_unit,
            "timezone": self.timezone,
            "session_start": self.session_start,
            "sort": self.sort,
            "allow_non_positive": self.allow_non_positive,
            "duplicates": self.duplicates,
            "ohlc_tolerance": self.ohlc_tolerance,
            "max_jump": self.max_jump,
            "symbol": self.symbol,
            "symbol_from": self.symbol_from,
            "ignore_columns": sorted(self.ignore_columns),
            "where": {header: list(texts) for header, texts in sorted(self.where.items())},
            "no_volume": self.no_volume,
            "price_scale": self.price_scale,
            "grouped": self.grouped,
            "encoding": self.encoding,
        }

    def told(self) -> dict[str, Any]:
        """Return the part of `identity` that isn't what it is by default."""
        plain = BarRules().identity()
        return {name: value for name, value in self.identity().items() if plain.get(name) != value}

    def _time_identity(self) -> dict[str, Any]:
        """Return what says how long bars last, and how they are gathered, if anything does."""
        found: dict[str, Any] = {}
        if self.bar_time != "open":
            found["bar_time"] = self.bar_time
        if self.bar_duration_ns is not None:
            found["bar_duration_ns"] = self.bar_duration_ns
        if self.timeframe is not None:
            found["resample"] = self.timeframe.to_json()
        return found

    @property
    def timeframe(self) -> Timeframe | None:
        """The timeframe that bars are gathered in, if one was named."""
        found: Timeframe | None = self.__dict__["_timeframe"]
        return found

    @property
    def bar_duration_ns(self) -> int | None:
        """`bar_duration` in nanoseconds, if it was named."""
        found: int | None = self.__dict__["_bar_duration_ns"]
        return found

    @property
    def of_inputs(self) -> BarRules:
        """The rules by which the bars of the inputs themselves are read."""
        return replace(
            self,
            resample=None,
            resample_offset=None,
            aggregate={},
            bar_time="open",
            bar_duration=None,
        )

    def symbol_of(self, *names: str) -> str | None:
        """Return the symbol that a pattern for `symbol_from` finds; None where there is none.

        It is sought in each of a file's names, the last of which is its location.

        Raises
        ------
        InputError
            If it finds nothing.
        """
        if self.symbol_from in (None, "filename"):
            return None
        assert self.symbol_from is not None
        for text in names:
            found = re.search(self.symbol_from, text.replace(os.sep, "/"))
            if found and found[1]:
                return found[1].strip()
        raise InputError(
            f"{names[-1]}: the pattern {self.symbol_from} finds no symbol in its name or path; "
            "mend symbol_from: the pattern's first group is the symbol"
        )

    @property
    def session_start_ns(self) -> int | None:
        """`session_start` in nanoseconds since midnight."""
        if self.session_start is None:
            return None
        hours, minutes = self.session_start.split(":")
        return (int(hours) * 60 + int(minutes)) * 60_000_000_000

    def allows(self, n_bad: int, n_rows: int) -> bool:
        """Whether `n_bad` bad rows of `n_rows` are few enough."""
        if self.on_bad_rows == "raise":
            return n_bad == 0
        return n_bad <= self.max_bad_fraction * n_rows
