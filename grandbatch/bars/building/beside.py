"""Columns beside the bars, judged by what the blocks of all files hold in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from grandbatch.bars.building.block import BlockJob, BlockRecord
from grandbatch.bars.form.columns import ColumnMap
from grandbatch.bars.form.header import plain_name
from grandbatch.bars.form.instruments import ColumnsWatch, tells
from grandbatch.bars.rules import BarRules
from grandbatch.kernels.bars.bar_rules import DUPLICATE_TIMESTAMP


class TextsWatch:
    """Hears what blocks hold in columns that must not change, in input order."""

    def __init__(self, tasks: Sequence[BlockJob], names: Sequence[str], rules: BarRules) -> None:
        """Watch the blocks of some tasks; `names` are those of the files."""
        self._tasks, self._names, self._rules = tasks, names, rules
        self._columns = ColumnsWatch(rules)
        self._untimely = self._n_rows = 0

    def hear(self, record: BlockRecord) -> None:
        """Take note of a block.

        Raises
        ------
        ColumnError
            If a column that is read over tells instruments apart.
        """
        self._n_rows += record.n_rows
        self._untimely += sum(record.reasons[DUPLICATE_TIMESTAMP:])
        columns = self._tasks[record.index].dialect.columns
        if any(column.is_watched for column in columns.texts):
            found = {held.name: held.texts for held in record.symbols}
            self._columns.hear(self._names[record.file], columns, found)
            self._columns.check(in_order=self._in_order)

    def settle(self) -> list[str]:
        """Say what is worth a look, once all blocks are heard.

        Raises
        ------
        ColumnError
            As `hear`.
        """
        return self._columns.settle(in_order=self._in_order)

    @property
    def _in_order(self) -> bool:
        return self._rules.allows(self._untimely, self._n_rows)


def settle_texts(
    records: Sequence[BlockRecord], tasks: Sequence[BlockJob], names: Sequence[str], rules: BarRules
) -> list[str]:
    """Say what in columns beside the bars is worth a look.

    Raises
    ------
    ColumnError
        If one that is read over tells instruments apart.
    """
    watch = TextsWatch(tasks, names, rules)
    for record in records:
        watch.hear(record)
    return watch.settle()


def watch_texts(records: Sequence[BlockRecord], tasks: Sequence[BlockJob]) -> list[BlockJob]:
    """Return tasks anew whose files have columns in which texts turned up, here or elsewhere.

    No text was seen in these when the files were looked at: they are watched from here on.
    """
    unseen = {plain_name(column.name) for task in tasks for column in task.dialect.columns.unseen}
    found = unseen and {
        name
        for record in records
        for name in (*record.turned, *_names_of_texts(record, tasks[record.index].dialect.columns))
    }
    again = []
    for task in tasks if found else ():
        columns = task.dialect.columns
        turned = tuple(of for of in columns.unseen if plain_name(of.name) in found)
        if turned:
            rest = tuple(of for of in columns.unseen if of not in turned)
            columns = replace(columns, texts=(*columns.texts, *turned), unseen=rest)
            dialect = replace(task.dialect, columns=columns)
            again.append(replace(task, dialect=dialect))
    return again


def _names_of_texts(record: BlockRecord, columns: ColumnMap) -> Iterator[str]:
    """Plain names of watched columns in which a block has texts that tell instruments apart."""
    watched = [column for column in columns.texts if column.is_watched]
    for held in record.symbols:
        for column, texts in zip(watched, held.texts, strict=True):
            if any(tells(column, text) for text in texts):
                yield plain_name(column.name)
