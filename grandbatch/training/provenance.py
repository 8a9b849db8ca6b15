"""`Provenance`: which bars a training has seen, kept with every checkpoint of it; and its `Goal`.

What a model is judged on must not be what it learnt from, nor what the best of its checkpoints was
chosen by. So each checkpoint says which times its training read, and which part was kept from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from grandbatch.bars.rules import TIME_NUMBERS
from grandbatch.errors import CheckpointError, UsageError
from grandbatch.splits.split import Split
from grandbatch.values.checks import whole
from grandbatch.values.times import shown

if TYPE_CHECKING:
    from grandbatch.checkpoint import Checkpoint
    from grandbatch.store import MatrixStore

TRAIN, TEST = "train", "test"
"""Names of the splits that are learnt from, and kept for the end."""

_KEY = "provenance"
_GOAL = "goal"
_OF_BARS = ("rules", "day_first", "time_numbers")
"""Attributes of a store."""
_FOREVER = 2**63 - 1

Stretch = tuple[int, int]
"""Bars from the first time on, to before the second; ns since 1970 UTC."""


@dataclass(frozen=True)
class Provenance:
    """What a training learns from, and what is kept from it.

    Raises
    ------
    UsageError
        If the test split reads bars that were seen.
    """

    feature_set: str
    sequence_length: int
    stride: int
    """Bars between neighbouring windows of the store."""
    max_gap_ns: int | None
    """A larger gap starts a new segment."""
    seen: tuple[Stretch, ...]
    """What training and validation read, also those of a training whose weights were taken."""
    splits: Mapping[str, Split] = field(default_factory=dict)
    """As the training was given them, by name."""
    bars: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What the store says of how its bars were read, for those that arrive."""

    def __post_init__(self) -> None:
        if self.test is not None:
            self.check_unseen(self.test, "the training")

    @property
    def test(self) -> Split | None:
        """The split that was kept for the end, if one was."""
        return self.splits.get(TEST)

    @property
    def seen_until(self) -> int:
        """No bar from this time on was seen."""
        return max(stop for _, stop in self.seen)

    @classmethod
    def of(cls, store: MatrixStore, splits: Mapping[str, Split], subset: object) -> Provenance:
        """Tell what a training on a store sees: all splits but the test, or a subset, or all.

        All, too, where the subset is of single windows.
        """
        learnt = [split.reads for name, split in splits.items() if name != TEST]
        if not learnt:
            first, last = int(store.attrs["first_time"]), int(store.attrs["last_time"])
            learnt = [subset.reads if isinstance(subset, Split) else (first, last + 1)]
        return cls(
            feature_set=store.attrs["feature_set"],
            sequence_length=store.sequence_length,
            stride=store.stride,
            max_gap_ns=store.attrs["max_gap_ns"],
            seen=tuple(learnt),
            splits=dict(splits),
            bars={name: store.attrs[name] for name in _OF_BARS if name in store.attrs},
        )

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint) -> Provenance | None:
        """Read what a checkpoint says; None where it was written before it said anything.

        Raises
        ------
        CheckpointError
            If what it says makes no sense.
        """

        def read(value: Any) -> Provenance:
            gap = value["max_gap_ns"]
            seen = tuple((int(first), int(stop)) for first, stop in value["seen"])
            if not seen:
                raise ValueError("nothing was seen")
            return cls(
                feature_set=str(value["feature_set"]),
                sequence_length=int(value["sequence_length"]),
                stride=int(value["stride"]),
                max_gap_ns=None if gap is None else int(gap),
                seen=seen,
                splits={name: Split.from_json(part) for name, part in value["splits"].items()},
                bars=_of_bars(value["bars"]) if "bars" in value else {},
            )

        return checkpoint.said(_KEY, read, "which bars were learnt from")

    def to_state(self) -> dict[str, Any]:
        """Return what goes into a checkpoint's state, as JSON types."""
        said = {**asdict(self), "seen": [list(stretch) for stretch in self.seen]}
        if not self.bars:
            del said["bars"]
        return {_KEY: said}

    def after(self, other: Provenance) -> Provenance:
        """Tell what was seen once the weights of another training were taken to begin with."""
        seen = tuple(dict.fromkeys((*self.seen, *other.seen)))
        wider = (
            one
            for one in seen
            if not any(two != one and two[0] <= one[0] and one[1] <= two[1] for two in seen)
        )
        return replace(self, seen=tuple(wider))

    def check_resumes(self, saved: Provenance | None, path: object) -> None:
        """Refuse to go on from a training with other splits.

        Raises
        ------
        CheckpointError
            If what it sees, or keeps, is something else.
        """
        if saved is None or (
            set(self.seen) <= set(saved.seen) and replace(saved, seen=self.seen) == self
        ):
            return
        was, now = (_told(one.splits) for one in (saved, self))
        raise CheckpointError(
            f"{path} is of a training on {saved.feature_set} with {was}, this one is on "
            f"{self.feature_set} with {now}; give the same splits, save into another folder, or "
            "start again with --no-resume"
        )

    def check_unseen(self, split: Split, path: object) -> None:
        """Refuse windows that read what was seen.

        Raises
        ------
        UsageError
            If some may.
        """
        for first, stop in self.seen:
            if first < split.reads_until and split.reads_from < stop:
                raise UsageError(
                    f"{path} sees bars from {shown(first)} to {shown(stop)}, and is to be judged "
                    f"by windows that read bars from {shown(split.reads_from)} on: give all "
                    "trainings, and those whose weights they begin with, the same splits"
                )

    def unseen(self, store: MatrixStore) -> Split:
        """Return the windows of a store that may be judged by: the test, or what came later.

        Raises
        ------
        UsageError
            If there is none.
        """
        if self.test is not None:
            return self.test
        last = int(store.attrs["last_time"])
        if last <= self.seen_until:
            raise UsageError(
                f"the training has seen bars until {shown(self.seen_until)}, and those of "
                f"{store.path} end at {shown(last)}: nothing is left to judge it by. Train with "
                "--split 0.7,0.15,0.15 into another folder, or evaluate on later bars"
            )
        return Split(self.seen_until, last + 1, self.seen_until, _FOREVER, 0, 0, 0)


@dataclass(frozen=True)
class Goal:
    """How far a training is to go, kept with every checkpoint of it."""

    epochs: int
    epoch_steps: int
    """Batches of an epoch, at the batch size asked for."""

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint) -> Goal | None:
        """Read what a checkpoint says; None where it was written before it said anything.

        Raises
        ------
        CheckpointError
            If what it says makes no sense.
        """

        def read(value: Any) -> Goal:
            return cls(*(whole(name, value[name], 0) for name in ("epochs", "epoch_steps")))

        return checkpoint.said(_GOAL, read, "how far its training was to go")

    def to_state(self) -> dict[str, Any]:
        """Return what goes into a checkpoint's state, as JSON types."""
        return {_GOAL: asdict(self)}


def with_training_split(
    options: Mapping[str, Any], splits: Mapping[str, Split] | None
) -> dict[str, Any]:
    """Have a loader's options name the split that is learnt from.

    Raises
    ------
    UsageError
        If they name another subset, or no split is called "train".
    """
    if splits is None:
        return dict(options)
    if TRAIN not in splits:
        raise UsageError(f"one of the splits must be called {TRAIN!r}, got {', '.join(splits)}")
    if options.get("subset", splits[TRAIN]) != splits[TRAIN]:
        raise UsageError(f"subset= is not the split called {TRAIN!r} of splits=; give one of them")
    return {**options, "subset": splits[TRAIN]}


def _of_bars(value: Any) -> dict[str, Any]:
    """Read what a store says of how its bars were read; raise ValueError for anything else."""
    rules, first, numbers = value.get("rules", {}), value["day_first"], value.get("time_numbers")
    is_sound = (
        isinstance(rules, dict)
        and isinstance(first, list)
        and len(first) > 0
        and all(one is None or isinstance(one, bool) for one in first)
        and isinstance(numbers, list)
        and len(numbers) == len(first)
        and all(one is None or one in TIME_NUMBERS for one in numbers)
    )
    if not is_sound:
        raise ValueError("it says of no store how bars were read")
    return dict(value)


def _told(splits: Mapping[str, Split]) -> str:
    if not splits:
        return "no splits"
    parts = (
        f"{name} {shown(split.start)} to {shown(split.stop)}" for name, split in splits.items()
    )
    return f"the splits {', '.join(parts)}"
