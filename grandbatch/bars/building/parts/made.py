"""`PartsMade`: the parts of a cache, and of which blocks they were made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from grandbatch.bars.building.block import BlockJob, BlockRecord
from grandbatch.bars.building.quarantine import Find, quarantine_bars
from grandbatch.bars.cache.manifest import Part
from grandbatch.scheduling import Schedule


@dataclass(frozen=True)
class PartsMade:
    """What stands of a cache before it is published."""

    target: Path
    """Where the parts are."""
    symbols: list[str]
    parts: list[Part]
    """In bars order."""
    records: list[BlockRecord]
    """Of all blocks."""
    tasks: Sequence[BlockJob]
    """By which these were read."""
    reading: Schedule
    """Of tasks that read blocks."""
    joining: Schedule
    """Of tasks that read and write parts."""

    def quarantine(
        self, reason: int, finder: Callable[[BlockRecord], Find | None]
    ) -> list[BlockRecord]:
        """Turn bars into bad rows, in the blocks for which `finder` says how to find them.

        Returns
        -------
        list of BlockRecord
            Of all blocks, as they are then.
        """
        calls = [
            partial(quarantine_bars, task, record, reason, find)
            for record, task in zip(self.records, self.tasks, strict=True)
            if (find := finder(record)) is not None
        ]
        left = list(self.records)
        for record in self.reading.run(calls):
            left[record.index] = record
        return left
