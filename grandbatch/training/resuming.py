"""Taking up a training where a checkpoint has it: on the same windows, or on those that are new.

Covers what is read and checked. Does not cover checkpoints' bytes, or how training goes on.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grandbatch.builder.growth import corrected_since
from grandbatch.errors import CheckpointError, MemoryLimitError, UsageError
from grandbatch.position import Position
from grandbatch.training.lineage import Lineage
from grandbatch.training.provenance import Provenance
from grandbatch.training.totals import Means, Totals
from grandbatch.values.arrays import Bool

if TYPE_CHECKING:
    from grandbatch.checkpoint import Checkpoint, CheckpointManager
    from grandbatch.memory import MemoryMonitor
    from grandbatch.store import MatrixStore
    from grandbatch.training.trainer import Trainer

_log = logging.getLogger("grandbatch")

_COPIES = 2
"""A checkpoint is in memory twice while it is read: as bytes, and as what they say."""

_MISFITS = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    RuntimeError,
)
"""What trainers, torch's among them, raise where a state isn't theirs."""


@dataclass(frozen=True)
class Beginning:
    """From what a training goes on with what is new in its store."""

    checkpoint: Checkpoint | None
    lineage: Lineage
    windows: Bool | None
    """Those that take part, (N,) bool; None where all do."""
    is_up_to_date: bool = False
    """Whether no window is new."""


def read_latest(
    checkpoints: CheckpointManager, monitor: MemoryMonitor, *, of_any_store: bool = False
) -> Checkpoint | None:
    """Read the latest good checkpoint, if memory allows; None where there is none.

    Raises
    ------
    CheckpointError
        As of `CheckpointManager.load`.
    MemoryLimitError
        If there is no room for it.
    """
    latest = checkpoints.latest()
    if latest is None:
        return None
    try:
        monitor.check(_COPIES * latest.stat().st_size)
        return checkpoints.load(of_any_store=of_any_store)
    except (MemoryLimitError, MemoryError) as error:
        raise MemoryLimitError(f"no memory to resume from {latest}: {error}") from None


def check_since_last(loader_options: Mapping[str, Any], *, resume: bool) -> None:
    """Refuse settings that contradict going on with all that is new.

    Raises
    ------
    UsageError
    """
    if not resume or loader_options.get("subset") is not None:
        raise UsageError(
            "since_last=True (--since-last) goes on from the training before with all that is new: "
            "leave out resume=False (--no-resume), splits (--split) and subset="
        )


def begin_since_last(
    store: MatrixStore, checkpoints: CheckpointManager, monitor: MemoryMonitor
) -> Beginning:
    """Find what is new in a store to the training of a folder.

    Where the latest checkpoint is of this store, its training goes on; where it is of this store
    before it grew, a new stage begins, on the windows that it did not have.

    Raises
    ------
    CheckpointError
        If the checkpoints can't be used, or don't say which windows they had.
    UsageError
        If the training keeps a test.
    """
    found = read_latest(checkpoints, monitor, of_any_store=True)
    if found is None:
        _log.info("%s holds no training yet: all windows are new", checkpoints.directory)
        return Beginning(None, Lineage.first(store), None)
    saved, seen = Lineage.of_checkpoint(found), Provenance.of_checkpoint(found)
    if saved is None or saved.had is None:
        raise CheckpointError(
            f"{found.path} doesn't say which windows its training had; begin with its weights in "
            f"another folder: --init-from {shlex.quote(str(found.path))}"
        )
    if seen is not None and seen.splits:
        raise UsageError(
            f"{found.path} is of a training that keeps windows from learning "
            f"({', '.join(seen.splits)}), and they would be new ones: begin another one "
            "without splits in another folder; its weights are taken along by "
            f"--init-from {shlex.quote(str(found.path))}"
        )
    if saved.last.content_id == store.content_id:
        return Beginning(found, saved, saved.new_windows(store))
    changed = corrected_since(store.path, saved.last.content_id, store.content_id)
    if changed is None:
        _log.warning(
            "no build on record leads from the store that %s was trained on to %s: windows of the "
            "same symbol and time are taken for the same, whether or not bars were corrected",
            found.path,
            store.path,
        )
    over = Position.from_json(found.loader_state["loader"].get("position", {})).epoch
    lineage = saved.next(store, found.step, over, changed or {})
    new = lineage.new_windows(store)
    count = len(store) if new is None else int(new.sum())
    _log.info(
        "%s: %s of %s windows are new to the training in %s; what it has learnt, its schedules and "
        "its normalisation go on from step %s",
        store.path,
        f"{count:,}",
        f"{len(store):,}",
        checkpoints.directory,
        f"{found.step:,}",
    )
    return Beginning(found, lineage, new if count else None, not count)


def take_up(
    checkpoint: Checkpoint, trainer: Trainer, epoch: int | None
) -> tuple[Totals, dict[str, Any] | None, Position | None]:
    """Give a trainer the state of a checkpoint.

    Parameters
    ----------
    checkpoint : Checkpoint
    trainer : Trainer
    epoch : int, optional
        Where a new stage begins, its first epoch.

    Returns
    -------
    totals : Totals
    state : dict or None
        Of the loader, and the position in it; None where a new stage begins.
    position : Position or None

    Raises
    ------
    CheckpointError
        If it does not fit the trainer.
    """
    state = checkpoint.loader_state
    try:
        trainer.load_state_dict(checkpoint.trainer_state)
        totals = Totals.from_json(state["totals"])
        position = Position.from_json(state["loader"]["position"])
    except _MISFITS as error:
        raise CheckpointError(
            f"{checkpoint.path} does not fit this trainer ({type(error).__name__}: {error}); "
            "use the trainer that wrote it, another folder, or start again with --no-resume"
        ) from None
    _log.info("resuming from %s, after step %d", checkpoint.path, checkpoint.step)
    if epoch is None:
        return totals, state["loader"], position
    # what was rated was other windows
    totals.epochs, totals.epoch, totals.stretch = epoch, Means(), Means()
    return totals, None, None
