"""Where an epoch stands, as a value that goes through JSON unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grandbatch.errors import CheckpointError

_LIMIT_BITS = 62
_LIMIT = 2**_LIMIT_BITS


@dataclass(frozen=True)
class Span:
    """Windows `[offset, stop)` of one shuffle block, in the block's own order.

    `chunk_index` is the Zarr chunk that the block starts with, and names the block; where windows
    are drawn by weights, several blocks may start with one chunk, and it is the block's number.
    """

    chunk_index: int
    offset: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.offset


@dataclass(frozen=True)
class Position:
    """Where an epoch stands, over all ranks: what was handed over, what is open, what is left.

    Parameters
    ----------
    epoch : int
        The epoch, from 0.
    step : int
        Batches handed over in this epoch (on each rank).
    chunk_index : int
        Zarr chunk that the open block of the rank that made this position starts with; where
        none is open, the block that comes next; -1 where nothing is left.
    offset : int
        Place in that block of the window that comes next: the windows handed over from it, and on
        ranks that share an epoch's last blocks those dealt to the ranks before.
    next_block : int
        The first block of the epoch's order that no rank has opened.
    open_spans : tuple of tuple of Span
        For each rank, what is left of the blocks dealt to it.
    batch_size : int or None
        Windows in a batch, as in force there: it decides where batches are cut, not which windows
        come. None where it was not recorded.

    Examples
    --------
    >>> import grandbatch as gb
    >>> made = gb.create_large_dataset_simulation("bars.csv", num_rows=2_000)
    >>> store = gb.build_store("bars.csv", "bars.zarr", overlap=47)
    >>> loader = gb.SlidingWindowDataLoader(store)
    >>> position = next(iter(loader)).position
    >>> position.epoch, position.step
    (0, 1)
    >>> gb.Position.from_json(position.to_json()) == position
    True
    """

    epoch: int
    step: int
    chunk_index: int
    offset: int
    next_block: int
    open_spans: tuple[tuple[Span, ...], ...]
    batch_size: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the position as JSON types."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "chunk_index": self.chunk_index,
            "offset": self.offset,
            "next_block": self.next_block,
            "open_spans": [
                [[s.chunk_index, s.offset, s.stop] for s in spans] for spans in self.open_spans
            ],
            "batch_size": self.batch_size,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Position:
        """Read what `to_json` gave.

        Raises
        ------
        CheckpointError
            If the value is not a position.
        """
        try:
            size, opened = value.get("batch_size"), value["open_spans"]
            if not isinstance(opened, list) or not all(isinstance(one, list) for one in opened):
                raise TypeError(f"{opened!r} are no open spans")
            return cls(
                epoch=_count(value["epoch"]),
                step=_count(value["step"]),
                chunk_index=_count(value["chunk_index"], least=-1),
                offset=_count(value["offset"]),
                next_block=_count(value["next_block"]),
                open_spans=tuple(
                    tuple(Span(_count(c), _count(o), _count(s)) for c, o, s in spans)
                    for spans in opened
                ),
                batch_size=None if size is None else _count(size, least=1),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"not a position: {str(value)[:300]} ({type(error).__name__}: {error}); "
                "load another checkpoint, or start again without it (--no-resume)"
            ) from None


def _count(value: Any, least: int = 0) -> int:
    """Take a whole number as it is: nothing is rounded, or read from text."""
    if type(value) is not int or not least <= value < _LIMIT:
        raise ValueError(f"{value!r} is no whole number from {least} to 2^{_LIMIT_BITS}")
    return value
