"""What a block's rows must know of the blocks before and behind them, from the blocks' records.

A row's time is compared with the symbol's last accepted bar, which may lie in an earlier block. Of
two rows of one time the last may be meant to stand: then a later block takes the bar of an earlier
one away. Blocks for which that matters are read again: once, but where clocks show times twice, or
the last of several rows of a time stands: there the latest bar of a block depends on others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from grandbatch.bars.building.block import BlockJob, BlockRecord, SymbolRows
from grandbatch.bars.building.judging import Carry


@dataclass(frozen=True)
class _Standing:
    """The last accepted bar of a symbol so far."""

    carry: Carry
    block: int
    """Where its row is."""


_CACHED = -1
"""Block of a bar that is cached."""


def tasks_to_repeat(
    records: Sequence[BlockRecord],
    tasks: Sequence[BlockJob],
    before: Mapping[str, Carry] = MappingProxyType({}),
) -> list[BlockJob]:
    """Return the tasks of the blocks that were read under wrong assumptions, with right ones.

    Parameters
    ----------
    records : sequence of BlockRecord
        Records of all blocks, in input order.
    tasks : sequence of BlockJob
        By which these were read.
    before : mapping of str to Carry
        The last bars of symbols in a cache that the blocks come behind.
    """
    carries: list[dict[str, Carry]] = [{} for _ in tasks]
    gives_way: list[set[str]] = [set() for _ in tasks]
    for number, held, standing in _followed(records, _cached(before)):
        if standing is not None and held.first_candidate <= standing.carry.time:
            carries[number][held.name] = standing.carry
        if standing is not None and held.replaces and standing.block != _CACHED:
            gives_way[standing.block].add(held.name)
    return [
        replace(task, carry=carry, gives_way=frozenset(names))
        for task, carry, names in zip(tasks, carries, gives_way, strict=True)
        if carry != task.carry or names != task.gives_way
    ]


def final_carries(records: Sequence[BlockRecord], before: Mapping[str, Carry]) -> dict[str, Carry]:
    """Return the last accepted bar of each symbol behind all blocks, which come behind a cache."""
    standing = _cached(before)
    for _ in _followed(records, standing):
        pass
    return {name: last.carry for name, last in standing.items()}


def _cached(before: Mapping[str, Carry]) -> dict[str, _Standing]:
    return {name: _Standing(carry, _CACHED) for name, carry in before.items()}


def _followed(
    records: Sequence[BlockRecord], standing: dict[str, _Standing]
) -> Iterator[tuple[int, SymbolRows, _Standing | None]]:
    """Give what each block holds of each symbol, with the last bar before, which is kept up."""
    for number, record in enumerate(records):
        for held in record.symbols:
            before = standing.get(held.name)
            yield number, held, before
            is_later = before is None or held.last_candidate >= before.carry.time
            if is_later and held.holds_last:
                carry = Carry(held.last_candidate, held.last_digest)
                standing[held.name] = _Standing(carry, number)
