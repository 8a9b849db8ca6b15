"""What the rows of all blocks decide together, once they are read: how timestamps are meant."""

from __future__ import annotations

from collections.abc import Sequence

from grandbatch.bars.evidence import Evidence, total
from grandbatch.bars.pieces import Piece
from grandbatch.bars.planning import Source
from grandbatch.bars.problems import check_dated, check_times
from grandbatch.bars.rules import BarRules
from grandbatch.bars.sessions import day_before


def refuse_undated(pieces: Sequence[Piece], sources: Sequence[Source]) -> None:
    """Refuse files whose rows so far have times of day and no dates."""
    for source, (found, n_rows) in zip(sources, _hear(pieces, sources), strict=True):
        check_dated(source.file, found, n_rows)


def settle_meanings(
    pieces: Sequence[Piece], sources: Sequence[Source], rules: BarRules
) -> set[int]:
    """Write what each file's timestamps mean; return the files that were read otherwise.

    A file's own rows decide; where they don't, those of all files together.

    Raises
    ------
    TimestampError
        If these don't decide either.
    """
    heard = _hear(pieces, sources)
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


def settle_sessions(pieces: Sequence[Piece]) -> tuple[tuple[int, ...], list[int]]:
    """Return all days that stand in inputs, and the pieces whose evenings were put on others.

    An evening belongs to the last day before its own that stands in any of the inputs.
    """
    calendar = tuple(sorted({day for piece in pieces for day in piece.evidence.days}))
    wrong = [
        number
        for number, piece in enumerate(pieces)
        if any(day_before(day, calendar) != taken for day, taken in piece.evidence.taken)
    ]
    return calendar, wrong


def _hear(pieces: Sequence[Piece], sources: Sequence[Source]) -> list[tuple[Evidence, int]]:
    """Return what each file's rows say, and how many there are."""
    of_file: list[list[Piece]] = [[] for _ in sources]
    for piece in pieces:
        of_file[piece.file].append(piece)
    return [
        (total([piece.evidence for piece in some]), sum(piece.n_rows for piece in some))
        for some in of_file
    ]
