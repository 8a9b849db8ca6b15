"""What goes wrong with inputs as a whole, in words."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from grandbatch.bars.inputs.files import InputFile
from grandbatch.bars.rules import UNITS, BarRules
from grandbatch.bars.rules.clocks import is_zone
from grandbatch.bars.rules.flags import offer
from grandbatch.bars.timestamps.evidence import Clocks, Dates, Evidence, Numbers, first_verdict
from grandbatch.bars.timestamps.forms import likely_form
from grandbatch.errors import BadRowsError, DiskFullError, TimestampError
from grandbatch.kernels.bars.epochs import COMPACT, NO_TIME
from grandbatch.kernels.bars.timestamps import NO_CLOCK

_NO_ZONES = ("AM", "PM", "UTC", "GMT")
_MOST_STRAY = 0.05
"""Of a file's rows: if more can't be read, it is their form that is another."""


def disk_full(files: Sequence[InputFile], cache_dir: Path) -> DiskFullError:
    """Say how much room the cache needs."""
    needed = sum(file.text_bytes for file in files)
    free = shutil.disk_usage(cache_dir).free
    return DiskFullError(
        f"{cache_dir}: no room for the bars cache; it needs about {needed:,} bytes (as many as the "
        f"text it is made of), {free:,} are free. Free some, or put the cache on another disk"
    )


def check_times(
    file: InputFile, found: Evidence, everywhere: Evidence, n_rows: int, rules: BarRules
) -> None:
    """Refuse timestamps whose meaning nothing decides.

    Parameters
    ----------
    file : InputFile
    found, everywhere : Evidence
        What the file's rows say, and those of all files.
    n_rows : int
        Of the file. A few stray numbers among other timestamps are bad rows and no more.
    rules : BarRules

    Raises
    ------
    TimestampError
    """
    dates, numbers, clocks = found.dates, found.numbers, found.clocks
    is_open = rules.dayfirst is None and dates.rows
    if is_open and first_verdict(dates, everywhere.dates) is None:
        raise TimestampError(f"{file.location}: {_which_first(dates)}")
    if rules.epoch_unit is None and 2 * numbers.rows > n_rows:
        units = [UNITS[unit] for unit in numbers.mixed_units]
        if units and numbers.verdict != COMPACT and not rules.allows(numbers.misfits, n_rows):
            raise TimestampError(
                f"{file.location}: its timestamps are epochs in {' and in '.join(units)}. Part the "
                "file where the unit changes: each file may have its own"
            )
        verdict = first_verdict(numbers, everywhere.numbers)
        if verdict is None or verdict == NO_TIME:
            raise TimestampError(f"{file.location}: {_which_numbers(numbers)}")
    if 2 * clocks.rows > n_rows:
        verdict = first_verdict(clocks, everywhere.clocks)
        if verdict is None or verdict == NO_CLOCK:
            raise TimestampError(f"{file.location}: {_which_clocks(clocks)}")
    check_dated(file, found, n_rows)


def check_dated(file: InputFile, found: Evidence, n_rows: int) -> None:
    """Refuse timestamps that are times of day and nothing else."""
    if 2 * found.undated > n_rows:
        raise TimestampError(
            f"{file.location}: its timestamps are times of day without a date; map the columns of "
            "both, as date and as time"
        )


def _which_first(dates: Dates) -> str:
    if dates.day_first:
        return (
            f"days or months first? {dates.day_first:,} rows can only be day-first and as many "
            "only month-first; part the file by the form of its dates"
        )
    return (
        f"days or months first? none of its {dates.rows:,} dates that could be either has a day "
        "above 12. Add --dayfirst for days, or --no-dayfirst for months"
    )


def _which_numbers(numbers: Numbers) -> str:
    if numbers.are_row_numbers and 2 * numbers.compact != numbers.rows:
        return (
            f"its timestamps are numbers from {numbers.lowest:,} to {numbers.highest:,}: row "
            "numbers, times of day or dates of another form rather than epochs; map the column of "
            f"times to timestamp. If these are epochs in seconds, add {offer('--epoch-unit', 's')}"
        )
    units = [UNITS[unit] for unit in numbers.likely_units]
    why = f"they may count {' or '.join(units)}"
    if 2 * numbers.compact == numbers.rows:
        why = f"{numbers.compact:,} of {numbers.rows:,} could be dates written as digits"
    offers = [offer("--epoch-unit", unit) for unit in units]
    return f"its timestamps are numbers, and {why}. If they are epochs, add {' or '.join(offers)}"


def _which_clocks(clocks: Clocks) -> str:
    if clocks.short == clocks.rows:
        return (
            "its times of day are numbers below 100: hours, minutes or seconds? If they are hours "
            f"behind dates such as 20240102, add {offer('--timestamp-format', '%Y%m%d %H')}"
        )
    return (
        f"its times of day are numbers of which {clocks.seconds + clocks.millis:,} of "
        f"{clocks.rows:,} are too long for HHMM, and the others too short for HHMMSS. Write all of "
        "them as HHMMSS, with zeros before them"
    )


def duplicate(path: Path) -> BadRowsError:
    """Name the first row of the quarantine whose time its symbol had before."""
    is_one = pc.field("reason") == "duplicate_timestamp"
    with pq.ParquetFile(path) as file:
        found = (batch.filter(is_one) for batch in file.iter_batches())
        row = next(batch for batch in found if len(batch)).slice(0, 1).to_pylist()[0]
    return BadRowsError(
        f"{row['file']}:{row['line']}: duplicate_timestamp: {row['text']}. Of two rows of a symbol "
        "and time --duplicates first keeps the first, --duplicates last the last"
    )


def bad_rows(
    path: Path,
    counts: Mapping[str, int],
    n_rows: int,
    rules: BarRules,
    *,
    is_all: bool,
    known: Mapping[str, str],
) -> BadRowsError:
    """Say what is wrong with the rows, from the quarantine; `is_all` if all were read.

    `known` says what to do about some reasons, as far as the rows tell.
    """
    with pq.ParquetFile(path) as file:
        first = next(file.iter_batches(batch_size=5)).to_pylist()
    lines = [f"{row['file']}:{row['line']}: {_reason(row)}: {row['text']}" for row in first]
    if rules.on_bad_rows == "raise":
        return BadRowsError(f"{lines[0]}. Mend the row, or let bad rows be quarantined")
    n_bad = sum(counts.values())
    worst = max(counts, key=lambda reason: counts[reason])
    remedies = {
        "duplicate_timestamp": "check that its symbols are told apart",
        "negative_volume": "if there is no volume, add --no-volume",
        "non_positive_price": "if such prices are meant, add --allow-non-positive",
        "unparseable": "check how times, fields and decimals are written",
        **{reason: remedy for reason, remedy in known.items() if remedy},
    }
    remedy = remedies.get(worst, "mend the file")
    zone = _zone_in_letters(row["text"] for row in first)
    texts = [row["text"] for row in first if row["reason"] == "unparseable"]
    form = likely_form(texts) if rules.timestamp_format is None else None
    if worst == "unparseable" and form and not zone:
        remedy = f"if its times are of such a form, add {offer('--timestamp-format', form)}"
    elif worst == "unparseable" and zone and "/" in zone:
        remedy = _reading_zone([row["text"] for row in first], zone)
    elif worst == "unparseable" and zone:
        remedy = (
            f"{zone} is an abbreviation, and several zones have the same: write offsets "
            "such as -05:00 in its place"
        )
    at_fault = [row["column"] for row in first if row["reason"] == worst and row.get("column")]
    if at_fault:
        remedy = _fills(at_fault[0], rules)
    # where a form is read wrongly, the rows that seem to be right may be wrong as well
    is_form = worst == "unparseable" and n_bad > _MOST_STRAY * n_rows
    may_go = is_all and not known.get(worst) and not is_form
    table = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
    listed = "\n  ".join(lines)
    return BadRowsError(
        f"{n_bad:,} of {'' if is_all else 'the first '}{n_rows:,} rows are no bars "
        f"({n_bad / n_rows:.2%}; allowed are {rules.max_bad_fraction:.2%}): {table}. The first:\n"
        f"  {listed}\n"
        f"Remedy: {remedy}{_allowing(n_bad, n_rows) if may_go else ''}"
    )


def _reason(row: Mapping[str, str]) -> str:
    """Name a row's reason, and the extra column that is at fault, if one is."""
    return f"{row['reason']} ({row['column']})" if row.get("column") else row["reason"]


def _fills(column: str, rules: BarRules) -> str:
    """Say what may stand where an extra column has no value."""
    zero = f"{offer('--fill', f'{column}=zero')} if that means 0"
    if rules.fill[column] == "last":
        return f"the first bars have no value of {column} before them; add {zero}"
    last = f"{offer('--fill', f'{column}=last')} if the last value before still holds"
    return f"where there is no value of {column}, add {last}, or {zero}"


def _zone_in_letters(texts: Iterable[str]) -> str | None:
    """Name the zone that stands in letters behind a time of day, or an abbreviation of one."""
    for text in texts:
        found = re.search(
            r"\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?: ?[+-]\d\d:?\d\d)? ?\[?([A-Za-z_]+(?:/[\w+-]+)*)",
            text,
        )
        if found and "/" in found[1] and is_zone(found[1]):
            return found[1]
        if found and re.fullmatch("[A-Z]{2,5}", found[1]) and found[1] not in _NO_ZONES:
            return found[1]
    return None


def _reading_zone(texts: Sequence[str], zone: str) -> str:
    """Offer to read times that have the name of a zone behind them, where all are of one form."""
    written = re.compile(
        r"\d{4}(?P<m>[-/.]?)\d\d(?P=m)\d\d(?P<T>[ T])\d\d:\d\d(?P<S>:\d\d(?P<f>\.\d{1,6})?)?"
        rf"(?P<z> ?[+-]\d\d:?\d\d)?(?P<zone> ?\[?{re.escape(zone)}\]?)"
    )
    forms = set()
    for found in map(written.search, texts):
        seconds = found and f"{':%S' if found['S'] else ''}{'.%f' if found['f'] else ''}"
        offset = found and found["z"] and found["z"].rstrip("+-:0123456789") + "%z"
        date = found and "{0}{1}%m{1}%d{2}".format("%Y", found["m"], found["T"])
        forms.add(found and f"{date}%H:%M{seconds}{offset or ''}{found['zone']}")
    form = forms.pop()
    if forms or form is None:
        return "times name their zone; write offsets such as -05:00 in its place"
    in_zone = "" if "%z" in form else f" {offer('--timezone', zone)}"
    return f"times name their zone; add {offer('--timestamp-format', form)}{in_zone}"


def _allowing(n_bad: int, n_rows: int) -> str:
    """Offer to go without the bad rows, where others are left."""
    if n_bad == n_rows:
        return ""
    fraction = math.ceil(n_bad / n_rows * 1000) / 1000
    return f", or go without them: {offer('--max-bad-fraction', str(fraction))}"
