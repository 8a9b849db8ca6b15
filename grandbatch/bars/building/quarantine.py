"""Bad rows of all blocks: counting them, gathering them, and when there are too many to go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grandbatch.bars.building.beside import TextsWatch
from grandbatch.bars.building.block import (
    BlockJob,
    BlockRecord,
    block_path,
    describe_rows,
    read_bad_rows,
    read_rows,
    write_bad_rows,
)
from grandbatch.bars.building.disorder import likely_remedy
from grandbatch.bars.building.judging import NEAR_MISS, judge
from grandbatch.bars.building.planning import Source
from grandbatch.bars.building.problems import bad_rows, duplicate
from grandbatch.bars.reading.row_groups import OpenGroups
from grandbatch.bars.reading.rows import Rows
from grandbatch.bars.rules import REASONS, BarRules
from grandbatch.bars.rules.flags import offer
from grandbatch.errors import InputError
from grandbatch.files.verbs import local_copy
from grandbatch.files.whole import written_aside
from grandbatch.kernels.bars.bar_rules import (
    ACCEPTED,
    DUPLICATE_TIMESTAMP,
    N_REASONS,
    OHLC_INCONSISTENT,
)

Faults = npt.NDArray[np.uint16]

Find = Callable[[Rows], tuple[npt.NDArray[np.bool_], Faults | None]]
"""Of judged rows those that are no bars, and which extra column of each is at fault, if any is."""

CLOCK_CHANGES = "repeated", "skipped"
"""What clocks do with bars' times."""

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("line", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("reason", pa.string()),
    ]
)


class HopelessError(Exception):
    """So many of the rows read so far are bad that no others can make up for them."""

    def __init__(self, records: list[BlockRecord]) -> None:
        super().__init__(len(records))
        self.records = records
        """Those of the blocks read, from the first on."""


class BadRowsWatch:
    """Watches bad rows, and columns that must not change, while blocks are read.

    Counted are only those that stay bad: where timestamps may turn out to be meant otherwise
    nothing is, where clocks change or evenings belong to days before, nothing that depends on time.
    """

    def __init__(
        self,
        tasks: Sequence[BlockJob],
        names: Sequence[str],
        rules: BarRules,
        before: tuple[int, int] = (0, 0),
    ) -> None:
        """Watch the blocks of some tasks, beside `before`: bad rows, and rows, that are known."""
        self._rules = rules
        self._rows_to_come = sum(task.block.most_rows(task.dialect.n_fields) for task in tasks)
        self._tasks = tasks
        self._waiting: dict[int, BlockRecord] = {}
        self._heard: list[BlockRecord] = []
        self._n_bad, self._n_rows = before
        self._texts = TextsWatch(tasks, names, rules)

    def hear(self, record: BlockRecord) -> None:
        """Take note of a block.

        Raises
        ------
        HopelessError
            If too many rows are bad, whatever comes.
        ColumnError
            If a column that is read over tells instruments apart.
        """
        self._waiting[record.index] = record
        while len(self._heard) in self._waiting:
            following = self._waiting.pop(len(self._heard))
            task = self._tasks[following.index]
            self._rows_to_come -= task.block.most_rows(task.dialect.n_fields)
            self._n_rows += following.n_rows
            self._n_bad += self._surely_bad(following)
            self._heard.append(following)
            self._texts.hear(following)
            if not self._rules.allows(self._n_bad, self._n_rows + self._rows_to_come):
                raise HopelessError(self._heard)

    def _surely_bad(self, record: BlockRecord) -> int:
        rules = self._rules
        if record.evidence.is_open(rules):
            return 0
        is_time_settled = rules.timezone == "UTC" and rules.session_start is None
        stop = N_REASONS if is_time_settled else DUPLICATE_TIMESTAMP
        return sum(record.reasons[ACCEPTED + 1 : stop])


def count_reasons(records: Sequence[BlockRecord]) -> dict[str, int]:
    """Rows of each reason, without zeros."""
    counts = np.zeros(N_REASONS, np.int64)
    for record in records:
        counts += record.reasons
    counts = counts[ACCEPTED + 1 :]
    return {name: int(n) for name, n in zip(REASONS, counts, strict=True) if n}


def count_left_out(records: Sequence[BlockRecord]) -> int:
    """Rows that are none of those asked for."""
    return sum(record.left_out for record in records)


def count_changes(records: Sequence[BlockRecord]) -> dict[str, int]:
    """Bars whose time clocks show twice, and rows whose time they skip, without zeros."""
    counts = {
        name: sum(record.changes[place] for record in records)
        for place, name in enumerate(CLOCK_CHANGES)
    }
    return {name: count for name, count in counts.items() if count}


def near_misses(records: Sequence[BlockRecord], rules: BarRules) -> list[str]:
    """Offer to take highs and lows that miss by a rounding, in one line or, where few do, none."""
    count = sum(record.n_near for record in records)
    n_inconsistent = sum(record.reasons[OHLC_INCONSISTENT] for record in records)
    if not count or 2 * count < n_inconsistent or not 0 < rules.ohlc_tolerance < NEAR_MISS:
        return []
    flag = offer("--ohlc-tolerance", str(NEAR_MISS))
    return [
        f"highs and lows of {count:,} rows miss by less than a millionth of the price, as in "
        f"single precision; to widen them, add {flag}"
    ]


def count_rows(records: Sequence[BlockRecord]) -> dict[str, Any]:
    """Return what a cache's manifest says of rows, as JSON types."""
    return {
        "quarantined": count_reasons(records),
        "clock_changes": count_changes(records),
        "left_out": count_left_out(records),
        "widened": sum(record.n_widened for record in records),
    }


def check_bad_rows(
    path: Path,
    folder: Path,
    sources: Sequence[Source],
    tasks: Sequence[BlockJob],
    records: Sequence[BlockRecord],
    rules: BarRules,
) -> None:
    """Write the quarantine, and refuse more bad rows than are allowed.

    Parameters
    ----------
    path : Path
        The quarantine.
    folder : Path
        Where the blocks' bad rows are.
    sources : sequence of Source
    tasks, records : sequence of BlockJob, sequence of BlockRecord
        All blocks of the sources, and those read, from the first on.
    rules : BarRules

    Raises
    ------
    BadRowsError
        If there are too many.
    InputError
        If all rows are bad.
    """
    names = [source.file.name for source in sources]
    first_line = [source.first_line for source in sources]
    merge_bad_rows(records, folder, path, names, first_line.__getitem__, rules.extra)
    n_rows = sum(record.n_rows for record in records)
    counts = count_reasons(records)
    n_bad = sum(counts.values())
    left_out = count_left_out(records)
    if left_out and not n_rows and rules.where:
        wanted = "; ".join(f"{name}={' or '.join(of)}" for name, of in rules.where.items())
        raise InputError(
            f"{', '.join(names[:5])}: none of {left_out:,} rows has {wanted}; mend what rows are "
            "chosen by"
        )
    if rules.duplicates == "raise" and counts.get("duplicate_timestamp"):
        raise duplicate(path)
    if not rules.allows(n_bad, n_rows):
        is_order = max(counts, key=lambda reason: counts[reason]) == "out_of_order"
        order = likely_remedy(tasks, records) if is_order else ""
        is_all = len(records) == len(tasks)
        remedies = {
            "out_of_order": order,
            "ohlc_inconsistent": "".join(near_misses(records, rules)),
        }
        raise bad_rows(path, counts, n_rows, rules, is_all=is_all, known=remedies)
    if n_bad == n_rows:
        found = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
        raise InputError(
            f"{', '.join(names[:5])}: none of {n_rows:,} rows is a bar ({found}); mend the file"
        )


def quarantine_bars(task: BlockJob, record: BlockRecord, reason: int, find: Find) -> BlockRecord:
    """Turn the bars of a block that `find` finds into bad rows; it is read again for them.

    Parameters
    ----------
    task, record : BlockJob, BlockRecord
        The block, and what is known of it so far.
    reason : int
        Code of the reason.
    find : callable
    """
    with OpenGroups() as groups:
        read, opened = read_rows(task, groups)
        rows = judge(read, task.rules, task.carry, task.gives_way).rows
        found, faults = find(rows)
        bad = np.flatnonzero(found & (rows.reasons == ACCEPTED))
        reasons = np.full(len(bad), reason, np.uint8)
        of_bad = None if faults is None else faults[bad]
        table = describe_rows(task, opened, bad, reasons, of_bad)
    n_bad = len(table)
    if record.n_bad:
        before = read_bad_rows(task)
        # without what another run of this very task has added
        is_again = pc.and_(
            pc.is_in(before["line"], table["line"]), pc.equal(before["reason"], reason)
        )
        before = before.filter(pc.invert(is_again))
        # of bars of one time, where they were sorted, those that gave way are there already
        table = table.filter(pc.invert(pc.is_in(table["line"], before["line"])))
        n_bad = len(table)
        table = pa.concat_tables([before, table]).sort_by("line")
    if n_bad:
        write_bad_rows(task, table)
    counts = list(record.reasons)
    counts[ACCEPTED] -= n_bad
    counts[reason] += n_bad
    return replace(record, reasons=tuple(counts))


def merge_bad_rows(
    records: Sequence[BlockRecord],
    blocks_folder: Path,
    target: Path,
    names: Sequence[str],
    first_line: Callable[[int], int],
    extra: Sequence[str],
) -> None:
    """Join the blocks' bad rows into one quarantine, in file order, one row group at a time.

    Parameters
    ----------
    records : sequence of BlockRecord
        In input order.
    blocks_folder, target : Path
        Where the blocks' bad rows are, and the file to write.
    names : sequence of str
        What each input file is called.
    first_line : callable
        Line number of the first line after a file's header.
    extra : sequence of str
        Extra columns: where there are some, `column` says which of them gave a row its reason.
    """
    reasons, faults = pa.array(["", *REASONS]), pa.array(["", *extra])
    schema = QUARANTINE_SCHEMA
    if extra:
        schema = schema.append(pa.field("column", pa.string()))
    file, line = -1, 0
    with written_aside(target, shared=False) as aside, pq.ParquetWriter(aside, schema) as writer:
        for record in records:
            if record.file != file:
                file, line = record.file, first_line(record.file)
            if record.n_bad:
                path = block_path(blocks_folder, record.index, "bad")
                with local_copy(path) as copy, pq.ParquetFile(copy) as bad:
                    for batch in bad.iter_batches():
                        columns = [
                            pa.array([names[file]] * batch.num_rows, pa.string()),
                            pa.array(batch["line"].to_numpy() + line),
                            batch["text"],
                            reasons.take(batch["reason"]),
                            *([faults.take(batch["fault"])] if extra else []),
                        ]
                        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            line += record.n_lines
