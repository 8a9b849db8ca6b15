"""What the rows of all blocks decide together, once they are read: how timestamps are meant."""

from __future__ import annotations

from collections.abc import Sequence

from grandbatch.bars.building.block import BlockRecord
from grandbatch.bars.building.planning import Source
from grandbatch.bars.building.problems import check_dated, check_times
from grandbatch.bars.inputs.files import InputFile
from grandbatch.bars.rules import UNITS, BarRules
from grandbatch.bars.timestamps.evidence import Evidence, total
from grandbatch.bars.timestamps.scales import check_weekdays
from grandbatch.bars.timestamps.sessions import day_before


def spans_of(
    records: Sequence[BlockRecord], files: Sequence[InputFile]
) -> dict[str, tuple[int, int]]:
    """First and last time of bars by full names of files, where a file has any."""
    spans: dict[str, tuple[int, int]] = {}
    for record in records:
        name = files[record.file].full_name
        for held in record.symbols:
            if held.rows:
                first, last = spans.get(name, (held.first_time, held.last_time))
                spans[name] = min(first, held.first_time), max(last, held.last_time)
    return spans


def refuse_undated(records: Sequence[BlockRecord], sources: Sequence[Source]) -> None:
    """Refuse files whose rows so far have times of day and no dates."""
    for source, (found, n_rows) in zip(sources, _hear(records, sources), strict=True):
        check_dated(source.file, found, n_rows)


def settle_meanings(
    records: Sequence[BlockRecord], sources: Sequence[Source], rules: BarRules
) -> set[int]:
    """Write what each file's timestamps mean; return the files that were read otherwise.

    A file's own rows decide; where they don't, those of all files together.

    Raises
    ------
    TimestampError
        If these don't decide either.
    """
    heard = _hear(records, sources)
    everywhere = total([found for found, _ in heard])
    wrong = set()
    for number, (source, (found, n_rows)) in enumerate(zip(sources, heard, strict=True)):
        check_times(source.file, found, everywhere, n_rows, rules)
        source.found = found
        meaning = source.meaning.settled(found, everywhere, rules)
        if meaning != source.meaning:
            source.meaning = meaning
            wrong.add(number)
    return wrong


def check_weeks(records: Sequence[BlockRecord], sources: Sequence[Source], rules: BarRules) -> None:
    """Refuse files of epochs whose days of rest are those of another year.

    Raises
    ------
    TimestampError
    """
    if rules.epoch_unit is not None:
        return
    days: list[set[int]] = [set() for _ in sources]
    for record in records:
        days[record.file].update(record.days)
    for source, of_file in zip(sources, days, strict=True):
        unit = source.meaning.numbers
        if of_file and unit is not None and unit in range(len(UNITS)):
            check_weekdays(of_file, unit, source.file.full_name)


def settle_sessions(records: Sequence[BlockRecord]) -> tuple[tuple[int, ...], list[int]]:
    """Return all days that stand in inputs, and the records whose evenings were put on others.

    An evening belongs to the last day before its own that stands in any of the inputs.
    """
    calendar = tuple(sorted({day for record in records for day in record.evidence.days}))
    wrong = [
        number
        for number, record in enumerate(records)
        if any(day_before(day, calendar) != taken for day, taken in record.evidence.taken)
    ]
    return calendar, wrong


def _hear(records: Sequence[BlockRecord], sources: Sequence[Source]) -> list[tuple[Evidence, int]]:
    """Return what each file's rows say, and how many there are."""
    of_file: list[list[BlockRecord]] = [[] for _ in sources]
    for record in records:
        of_file[record.file].append(record)
    return [
        (total([record.evidence for record in some]), sum(record.n_rows for record in some))
        for some in of_file
    ]
