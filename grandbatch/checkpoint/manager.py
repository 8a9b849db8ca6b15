"""The checkpoints of one run: saving, pruning, listing, and loading the latest good one.

Covers one writer per directory (rank 0) and any number of readers. Does not cover a file's bytes.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from grandbatch.checkpoint.encoding import (
    check_plain,
    decode_payload,
    encode,
    metrics_from_json,
    read_header,
)
from grandbatch.checkpoint.shelves import opened, shelf_at, step_of
from grandbatch.errors import CheckpointError, DamagedCheckpointError, DiskFullError, UsageError
from grandbatch.files.locations import as_location, told

log = logging.getLogger("grandbatch")


Said = TypeVar("Said")


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint's header says, or why it can't be read.

    Parameters
    ----------
    path : Path
        The file.
    step : int
        Training step after which it was saved.
    content_id : str or None
        Identity of the store that the run trains on.
    chunk_index, offset : int or None
        Where in the epoch the run stood: the open Zarr chunk, and windows handed over from it.
    metrics : dict of str to float
        As given to `save`.
    n_bytes : int
        Size of the file.
    problem : str or None
        Why the header can't be used; the payload is checked by `load` only.
    """

    path: Path
    step: int
    content_id: str | None
    chunk_index: int | None
    offset: int | None
    metrics: dict[str, float]
    n_bytes: int
    problem: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found good.

    Parameters
    ----------
    step : int
        Training step after which it was saved.
    trainer_state : dict
        As given to `save`, tensors on the CPU.
    loader_state : dict
        As given to `save`.
    metrics : dict of str to float
        As given to `save`.
    path : Path
        The file it came from.
    skipped : tuple of str
        What was wrong with each newer checkpoint that was passed over.
    """

    step: int
    trainer_state: dict[str, Any]
    loader_state: dict[str, Any]
    metrics: dict[str, float]
    path: Path
    skipped: tuple[str, ...] = ()

    def said(self, key: str, read: Callable[[Any], Said], what: str) -> Said | None:
        """Read a part of the loader's state; None where it was written before there was one.

        Parameters
        ----------
        key : str
            Of the part.
        read : callable
            Makes something of it; what it raises says that it makes no sense.
        what : str
            What the part says, for the error.

        Raises
        ------
        CheckpointError
            If the part makes no sense.
        """
        if key not in self.loader_state:
            return None
        try:
            return read(self.loader_state[key])
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self.path} does not say {what} ({type(error).__name__}: {error}); train again"
            ) from None


def read_checkpoint(
    path: str | Path, content_id: str | None = None, skipped: tuple[str, ...] = ()
) -> Checkpoint:
    """Read one checkpoint and check it, also to take its weights to another store.

    Parameters
    ----------
    path : str or Path
        The file.
    content_id : str, optional
        Identity of the store it must belong to; by default any.
    skipped : tuple of str
        What to put in `Checkpoint.skipped`.

    Raises
    ------
    CheckpointError
        If it can't be used, or belongs to another store.
    """
    path = as_location(path)
    with opened(path) as (file, n_bytes):
        header = read_header(file, path, n_bytes)
        if content_id is not None and header["content_id"] != content_id:
            raise CheckpointError(
                f"{path} was saved while training on other windows: those of another store, or "
                "of this one before it grew or was built anew; to train on what is new since, "
                "give --since-last (since_last=True); to take its weights along, "
                f"--init-from {shlex.quote(str(path))} and another folder; or start again "
                f"with --no-resume (it is of {header['content_id'][:12]}, this run of "
                f"{content_id[:12]})"
            )
        payload = file.read(header["payload_bytes"])
    digest = hashlib.sha256(payload).hexdigest()
    if digest != header["sha256"]:
        raise DamagedCheckpointError(
            f"{path} is damaged: its payload's sha256 is {digest[:16]}…, "
            f"written was {header['sha256'][:16]}…"
        )
    return Checkpoint(
        step=header["step"],
        trainer_state=decode_payload(payload, path),
        loader_state=header["loader_state"],
        metrics=metrics_from_json(header["metrics"]),
        path=path,
        skipped=skipped,
    )


class CheckpointManager:
    """Saves, prunes and loads the checkpoints of one training run in one directory.

    Parameters
    ----------
    directory : str or Path
        Where the files lie; made where it is missing. Or a URL of an object store: ``s3://…``.
    content_id : str
        Identity of the store that the run trains on; a checkpoint of another one is refused.
    keep : int
        How many of the latest checkpoints stay.
    keep_best : bool
        Whether the best one stays as well.
    metric : str
        Metric that decides which is best; higher is better.

    Raises
    ------
    UsageError
        If `keep` is below 1, or the directory is a file, inside a store, or at a URL that is none
        of an object store.

    Attributes
    ----------
    directory : Path
    logs : Path
        Where what is written all the time lies: the directory, or a folder on a disk for a URL.

    Examples
    --------
    >>> import grandbatch as gb
    >>> manager = gb.CheckpointManager("saved", content_id="of a store")
    >>> path = manager.save(10, {"weight": 0.5}, {}, {"loss": 0.25})
    >>> manager.load().trainer_state
    {'weight': 0.5}
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        content_id: str,
        keep: int = 3,
        keep_best: bool = True,
        metric: str = "avg_reward",
    ) -> None:
        if keep < 1:
            raise UsageError(f"keep must be at least 1 checkpoint, got {keep}")
        self._shelf = shelf_at(directory)
        self.directory, self.logs = self._shelf.path, self._shelf.logs
        self.content_id = content_id
        self.keep = keep
        self.keep_best = keep_best
        self.metric = metric

    def prepare(self, trainer_state: Mapping[str, Any]) -> None:
        """Make the directory, and see to it that such a state can be saved there.

        Raises
        ------
        UsageError
            If the directory can't be written, or the state holds what could not be read back.
        DiskFullError
            If there is no room.
        """
        check_plain(dict(trainer_state), "trainer_state", lazy=True)
        try:
            self._shelf.prepare()
        except DiskFullError:
            raise
        except OSError as error:
            raise UsageError(
                f"checkpoints can't be saved in {self.directory} ({told(error)}); "
                "save into another folder, or check its rights"
            ) from None

    def save(
        self,
        step: int,
        trainer_state: Mapping[str, Any],
        loader_state: Mapping[str, Any],
        metrics: Mapping[str, float],
    ) -> Path:
        """Write a checkpoint, durably, then remove those that are no longer wanted.

        A run's history is one line: checkpoints of this or a later step, left by a run that was
        given up, are replaced.

        Parameters
        ----------
        step : int
            Training steps done, at least 0.
        trainer_state : mapping
            Tensors, numbers, strings, None, and dicts, lists and tuples of them.
        loader_state : mapping
            JSON types only. Its `chunk_index` and `offset` (or those of its `position`) are shown
            by `list`.
        metrics : mapping of str to float
            May hold NaN and infinities.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        UsageError
            If a state holds something that could not be read back.
        DiskFullError
            If there is no room; earlier checkpoints are left as they are.
        """
        if step < 0:
            raise UsageError(f"step must be at least 0, got {step}")
        data = encode(step, self.content_id, trainer_state, loader_state, metrics)
        later = [path for path in self._shelf.paths() if step_of(path) > step]
        path = self._shelf.write(f"step-{step:09d}.ckpt", data, later)
        self._prune()
        return path

    def load(
        self, path: str | Path | None = None, *, of_any_store: bool = False
    ) -> Checkpoint | None:
        """Read a checkpoint: the one given, or the latest good one; of this run's store alone.

        Newer ones that are damaged are passed over; that is logged as a warning and told in
        `Checkpoint.skipped`.

        Returns
        -------
        Checkpoint or None
            None if no path was given and the directory holds no checkpoint.

        Raises
        ------
        CheckpointError
            If none can be used, or it belongs to another store.
        """
        wanted = None if of_any_store else self.content_id
        if path is not None:
            return read_checkpoint(path, wanted)
        skipped: list[str] = []
        for candidate in reversed(self._shelf.paths()):
            try:
                found = read_checkpoint(candidate, wanted, tuple(skipped))
            except DamagedCheckpointError as error:
                skipped.append(str(error))
                continue
            for problem in skipped:
                log.warning("passed over a checkpoint: %s; going on from %s", problem, found.path)
            return found
        if not skipped:
            return None
        raise CheckpointError(
            f"none of the {len(skipped)} checkpoints in {self.directory} can be used: "
            + "; ".join(skipped)
            + "; put back good copies, or start again with --no-resume"
        )

    def latest(self) -> Path | None:
        """Return the newest checkpoint's path, unchecked; None where there is none."""
        paths = self._shelf.paths()
        return paths[-1] if paths else None

    def best(self) -> Path | None:
        """Return the path of the one that `metric` calls the best; None where none has it."""
        found = self.list()
        for info in found:
            if info.problem is not None:
                log.warning("passed over a checkpoint: %s", info.problem)
        rated = [info for info in found if self._is_rated(info)]
        return max(rated, key=self._rank).path if rated else None

    def list(self) -> tuple[CheckpointInfo, ...]:
        """Return what each checkpoint's header says, oldest first, without reading payloads."""
        return tuple(_info(path) for path in self._shelf.paths())

    def _is_rated(self, info: CheckpointInfo) -> bool:
        return math.isfinite(info.metrics.get(self.metric, math.nan))

    def _rank(self, info: CheckpointInfo) -> tuple[float, int]:
        return info.metrics[self.metric], info.step

    def _prune(self) -> None:
        mine = [info for info in self.list() if info.problem is None]
        wanted = {info.path for info in mine[-self.keep :]}
        rated = [i for i in mine if i.content_id == self.content_id and self._is_rated(i)]
        if self.keep_best and rated:
            wanted.add(max(rated, key=self._rank).path)
        self._shelf.remove([info.path for info in mine if info.path not in wanted])


def _info(path: Path) -> CheckpointInfo:
    try:
        with opened(path) as (file, n_bytes):
            header = read_header(file, path, n_bytes)
    except CheckpointError as error:
        return CheckpointInfo(path, step_of(path), None, None, None, {}, 0, str(error))
    position = header["position"] or {}
    return CheckpointInfo(
        path=path,
        step=header["step"],
        content_id=header["content_id"],
        chunk_index=position.get("chunk_index"),
        offset=position.get("offset"),
        metrics=metrics_from_json(header["metrics"]),
        n_bytes=n_bytes,
    )
