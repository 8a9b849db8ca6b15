"""Who gets which windows: blocks dealt to ranks, and the positions that come of it.

All ranks hand over windows in lockstep. The rank that runs out first (the lowest of several) takes
the next block whole. The first block that its rank can't take within its share begins the tail:
all that is left is given out in order, to each rank what it still needs. So totals differ by at
most one, and how far an epoch has come is told by the remainders of the open blocks alone.

Another world size deals the open remainders first, then the blocks that nobody had opened.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from grandbatch.errors import CheckpointError
from grandbatch.order.epoch import Order
from grandbatch.position import Position, Span

_FROM_THE_START = -1


class Share(NamedTuple):
    """Windows `[offset, stop)` of a block, in the block's order."""

    block: int
    offset: int
    stop: int

    @property
    def size(self) -> int:
        """Windows."""
        return self.stop - self.offset


@dataclass(eq=False)
class Hand:
    """The shares of one rank, in order, each with when it is reached and when it was opened.

    Both are counted in windows that the rank has handed over.
    """

    target: int
    shares: list[Share] = field(default_factory=list)
    reached: list[int] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    total: int = 0

    def take(self, share: Share, opened: int) -> None:
        """Append a share."""
        self.shares.append(share)
        self.reached.append(self.total)
        self.opened.append(opened)
        self.total += share.size

    def open_after(self, consumed: int) -> list[Share]:
        """Return what is left of the shares opened within the first `consumed` windows."""
        first = max(bisect_right(self.reached, consumed) - 1, 0)
        shares = self.shares[first : bisect_left(self.opened, consumed)]
        if shares:
            used = consumed - self.reached[first]
            shares[0] = shares[0]._replace(offset=shares[0].offset + used)
        return [share for share in shares if share.size > 0]


@dataclass(frozen=True, eq=False)
class Deal:
    """What is left of an epoch, dealt to all ranks.

    Parameters
    ----------
    order : Order
    hands : list of Hand
        One for each rank.
    first_block : int
        The first block that nobody had opened before.
    opened : list of int
        When each block from there on was opened, rising.
    """

    order: Order
    hands: list[Hand]
    first_block: int
    opened: list[int]

    @cached_property
    def windows_per_rank(self) -> int:
        """Windows that every rank hands over, repeated ones included."""
        return max(hand.target for hand in self.hands)

    def shares(self, rank: int) -> list[Share]:
        """Return the shares of a rank, in order, without repeated windows."""
        return self.hands[rank].shares

    @property
    def padding(self) -> Share:
        """The window that a rank repeats where it is one short: the epoch's very last."""
        block = self.order.n_blocks - 1
        size = int(self.order.block_sizes[block])
        return Share(block, size - 1, size)

    def position(self, consumed: int, step: int, rank: int) -> Position:
        """Return where the epoch stands after each rank handed over `consumed` windows.

        Behind the last one that is the start of the next epoch.
        """
        if consumed >= self.windows_per_rank:
            return self._next_epoch
        opened = [hand.open_after(min(consumed, hand.total)) for hand in self.hands]
        spans = tuple(
            tuple(
                Span(self.order.block_name(share.block), share.offset, share.stop) for share in own
            )
            for own in opened
        )
        next_block = self.first_block + bisect_left(self.opened, consumed)
        block, offset = next_block, 0
        if opened[rank]:
            block, offset = opened[rank][0].block, opened[rank][0].offset
        chunk_index = self.order.first_chunk(block)
        return Position(self.order.epoch, step, chunk_index, offset, next_block, spans)

    @cached_property
    def _next_epoch(self) -> Position:
        return epoch_start(self.order.following(), len(self.hands))


def epoch_start(order: Order, world_size: int) -> Position:
    """Return the position before an epoch's first batch."""
    return Position(order.epoch, 0, order.first_chunk(0), 0, 0, ((),) * world_size)


def deal(order: Order, world_size: int, position: Position | None = None) -> Deal:
    """Deal an epoch, or what a position left of it, to `world_size` ranks.

    Raises
    ------
    CheckpointError
        If the position is none of this order.
    """
    opened, first_block = _left(order, position)
    blocks = [
        Share(block, 0, int(order.block_sizes[block]))
        for block in range(first_block, order.n_blocks)
    ]
    left = sum(share.size for own in opened for share in own) + sum(b.size for b in blocks)
    share, rest = divmod(left, world_size)
    padded = order.settings.remainder == "pad"
    hands = [Hand(share + int(padded and rank < rest)) for rank in range(world_size)]
    spans: list[Share] = []
    if len(opened) == world_size:
        for hand, own in zip(hands, opened, strict=True):
            for one in own:
                hand.take(one, _FROM_THE_START)
        if any(hand.total > hand.target for hand in hands):
            raise _foreign(position, "a rank has more windows open than its share")
    else:
        spans = [one for own in opened for one in own]
    return Deal(order, hands, first_block, _deal(hands, spans, blocks))


def _deal(hands: list[Hand], spans: list[Share], blocks: list[Share]) -> list[int]:
    """Deal open spans, then blocks; return when each block was opened."""
    queue = [(hand.total, rank) for rank, hand in enumerate(hands)]
    heapq.heapify(queue)
    opened: list[int] = []
    items = [*spans, *blocks]
    for number, item in enumerate(items):
        total, rank = queue[0]
        when = _FROM_THE_START if number < len(spans) else total
        if total + item.size > hands[rank].target:
            _deal_tail(hands, items[number:], when)
            opened += [when] * (len(blocks) - len(opened))
            break
        hands[rank].take(item, when)
        heapq.heapreplace(queue, (hands[rank].total, rank))
        if number >= len(spans):
            opened.append(when)
    return opened


def _deal_tail(hands: list[Hand], items: Iterable[Share], when: int) -> None:
    """Give each rank what it still needs, in order; drop what nobody needs."""
    needy = iter(hand for hand in hands if hand.total < hand.target)
    hand = next(needy, None)
    for item in items:
        offset = item.offset
        while hand is not None and offset < item.stop:
            stop = min(item.stop, offset + hand.target - hand.total)
            hand.take(Share(item.block, offset, stop), when)
            offset = stop
            if hand.total == hand.target:
                hand = next(needy, None)


def _left(order: Order, position: Position | None) -> tuple[list[list[Share]], int]:
    """Open shares by rank, and the first block that nobody has opened."""
    if position is None:
        return [], 0
    if not 0 <= position.next_block <= order.n_blocks or position.step < 0:
        raise _foreign(position, f"the order has {order.n_blocks} blocks")
    opened: list[list[Share]] = []
    for spans in position.open_spans:
        opened.append([])
        for span in spans:
            block = order.block_named.get(span.chunk_index)
            if block is None or block >= position.next_block:
                raise _foreign(position, f"no open block is named {span.chunk_index}")
            if not 0 <= span.offset < span.stop <= order.block_sizes[block]:
                raise _foreign(
                    position, f"that block has {order.block_sizes[block]} windows, not {span.stop}"
                )
            opened[-1].append(Share(block, span.offset, span.stop))
    every = sorted(share for own in opened for share in own)
    for one, two in pairwise(every):
        if one.block == two.block and one.stop > two.offset:
            raise _foreign(position, "two of its open spans overlap")
    return opened, position.next_block


def _foreign(position: Position | None, why: str) -> CheckpointError:
    return CheckpointError(
        f"{position} is no position of this order: {why}; "
        "load it with the store and the settings it was saved under, or start again "
        "without it (--no-resume)"
    )
