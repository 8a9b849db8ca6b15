"""What a block's rows must know of the blocks before and behind them, from the blocks' records.

A row's time is compared with the symbol's last accepted bar, which may lie in an earlier block. Of
two rows of one time the last may be meant to stand: then a later block takes the bar of an earlier
one away. Blocks for which that matters are read again: once, but where clocks show times twice, or
the last of several rows of a time stands: there the latest bar of a block depends on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from grandbatch.bars.building.block import BlockJob, BlockRecord
from grandbatch.bars.judging import Carry


@dataclass(frozen=True)
class _Standing:
    """The last accepted bar of a symbol so far."""

    carry: Carry
    block: int
    """Where its row is."""


def tasks_to_repeat(records: Sequence[BlockRecord], tasks: Sequence[BlockJob]) -> list[BlockJob]:
    """Return the tasks of the blocks that were read under wrong assumptions, with right ones.

    Parameters
    ----------
    records : sequence of BlockRecord
        Records of all blocks, in input order.
    tasks : sequence of BlockJob
        By which these were read.
    """
    standing: dict[str, _Standing] = {}
    carries: list[dict[str, Carry]] = []
    gives_way: list[set[str]] = [set() for _ in tasks]
    for number, record in enumerate(records):
        carries.append({})
        for held in record.symbols:
            before = standing.get(held.name)
            if before is not None and held.first_candidate <= before.carry.time:
                carries[number][held.name] = before.carry
            if before is not None and held.replaces:
                gives_way[before.block].add(held.name)
            is_later = before is None or held.last_candidate >= before.carry.time
            if is_later and held.holds_last:
                carry = Carry(held.last_candidate, held.last_digest)
                standing[held.name] = _Standing(carry, number)
    return [
        replace(task, carry=carry, gives_way=frozenset(names))
        for task, carry, names in zip(tasks, carries, gives_way, strict=True)
        if carry != task.carry or names != task.gives_way
    ]
