"""What decides an epoch's order, as a value that goes through JSON unchanged."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from grandbatch.errors import CheckpointError, UsageError

Remainder = Literal["pad", "drop"]
REMAINDERS: tuple[Remainder, ...] = ("pad", "drop")
_MAX_SEED = 2**64
_MOST = 2**31 - 1


@dataclass(frozen=True)
class OrderSettings:
    """Everything but the store and the epoch that determines an order.

    Raises
    ------
    UsageError
        If a value makes no sense; the message names it.
    """

    seed: int = 0
    """Below 2^64."""
    shuffle: bool = True
    """False: the order of the store."""
    shuffle_chunks: int = 1
    """Chunks whose windows are mixed with each other."""
    run_length: int = 1
    """Consecutive windows that stay together."""
    start: int | None = None
    """Windows that end before (ns since 1970 UTC) don't take part."""
    stop: int | None = None
    """Windows that end then or later (ns since 1970 UTC) don't take part."""
    symbols: tuple[str, ...] | None = None
    """Names of the symbols that take part, sorted; all where None."""
    reads: tuple[int, int] | None = None
    """Windows that read bars before the first time, or from the second on, don't take part."""
    windows: str | None = None
    """Digest of which windows take part, where single ones are named."""
    weights: str | None = None
    """Digest of the windows' weights, where windows are drawn by them; else each comes once."""
    remainder: Remainder = "pad"
    """Ranks that are one window short repeat one ("pad"), or the others drop theirs ("drop")."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < _MAX_SEED:
            raise UsageError(f"seed must be from 0 to 2^64 - 1, got {self.seed}")
        for name in ("shuffle_chunks", "run_length"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
            if getattr(self, name) > _MOST:
                raise UsageError(f"{name} must be at most {_MOST:,}, got {getattr(self, name)}")
        if self.remainder not in REMAINDERS:
            raise UsageError(f'remainder must be "pad" or "drop", got {self.remainder!r}')
        if self.start is not None and self.stop is not None and self.start >= self.stop:
            raise UsageError(
                f"start must be before stop, got {self.start} and {self.stop} (ns since 1970 UTC)"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        value = asdict(self)
        for name in ("symbols", "reads"):
            value[name] = None if value[name] is None else list(value[name])
        return value

    def check_same(self, saved: object) -> None:
        """Compare with what `to_json` gave when a state was saved.

        Raises
        ------
        CheckpointError
            If they differ: the message names each setting with both values.
        """
        if not isinstance(saved, dict):
            raise CheckpointError(
                f"not the settings of an order: {saved!r}; start again without it (--no-resume)"
            )
        mine = self.to_json()
        differing = [
            f"{field.name} is {mine[field.name]!r} here and {saved.get(field.name)!r} there"
            for field in fields(self)
            if mine[field.name] != saved.get(field.name)
        ]
        if differing:
            raise CheckpointError(
                "the state belongs to another order: "
                + "; ".join(differing)
                + "; make the loader with the settings the state was saved under, or start again "
                "without it (--no-resume)"
            )
