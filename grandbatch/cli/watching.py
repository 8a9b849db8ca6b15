"""`watch`: a store that follows a folder.

Covers when to build, and what is told of it. Does not cover how: that is `building`'s.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from glob import escape
from pathlib import Path
from typing import Annotated, Any

import typer

from grandbatch.bars.inputs.files import standing_of_folder
from grandbatch.bars.rules import BarRules
from grandbatch.bars.rules.flags import offer
from grandbatch.builder.reuse import Request, is_free
from grandbatch.builder.settings import StoreSettings
from grandbatch.cli import options as o
from grandbatch.cli.building import BuildFlags, make_store, with_build_flags
from grandbatch.cli.output import explain, show_lines
from grandbatch.cli.training import (
    LearningFlags,
    train_since_last,
    with_learning_flags,
)
from grandbatch.errors import (
    DiskFullError,
    GrandbatchError,
    InputError,
    MemoryLimitError,
    StoreError,
    StoreMismatchError,
    UsageError,
)
from grandbatch.files.refusals import refuse_url
from grandbatch.store.notes import named
from grandbatch.store.reader import MatrixStore
from grandbatch.training.interrupts import Ending
from grandbatch.values.checks import number
from grandbatch.values.texts import one_line
from grandbatch.values.times import iso_time

_log = logging.getLogger("grandbatch")

Train = Callable[[MatrixStore], Mapping[str, Any] | None]

State = Mapping[str, tuple[int, int]]
"""Size and modification time of each file, by its path."""

_PASSING = (DiskFullError, MemoryLimitError, StoreError, OSError)
"""Errors that may be gone at another try, though no file has changed."""

_LONGEST_PAUSE = 600.0
"""Seconds between two such tries, at the most."""

_Every = Annotated[float, typer.Option(help="Seconds between two looks at the folder.")]
_Train = Annotated[
    bool, typer.Option("--train", help="Train on what is new after each build (MAPPO).")
]
_CheckpointDir = Annotated[Path | None, typer.Option(help="Of --train: where checkpoints lie.")]
_LeaveOut = Annotated[
    list[str] | None,
    typer.Option(
        help="Files in the folder that hold no bars, by name or pattern, e.g. 'notes*'; may be "
        "repeated."
    ),
]
_Settle = Annotated[
    float, typer.Option(help="Seconds that no file may change before they are read.")
]


class Settling:
    """Tells when what is looked at again and again has come to rest.

    Parameters
    ----------
    seconds : float
        How long it must have been the same.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._state: State | None = None
        self._since = 0.0

    def look(self, state: State, now: float) -> bool:
        """Take note of what is seen at a time, in seconds; tell whether it is at rest."""
        if state != self._state:
            self._state, self._since = state, now
        return now - self._since >= self._seconds


@dataclass
class Retrying:
    """When to try again what failed though no file had changed: after growing pauses."""

    first: float
    pause: float = field(init=False)
    at: float = field(default=float("inf"), init=False)

    def __post_init__(self) -> None:
        self.pause = self.first

    def after(self, error: BaseException | None, now: float) -> None:
        """Take note of how a try ended at a time, in seconds."""
        if isinstance(error, _PASSING) and not isinstance(error, StoreMismatchError):
            self.at = now + self.pause
            self.pause = min(2 * self.pause, _LONGEST_PAUSE)
        else:
            self.at, self.pause = float("inf"), self.first


class Watcher:
    """Builds a store of a folder's files as they come, and says what it did.

    Parameters
    ----------
    request : Request
        The store, of all files in the folder.
    folder : Path
    how : BuildFlags
    every : float
        Seconds until what failed for another reason than its files is tried again.
    train : callable
        Trains on what is new in a store, and says what came of it; None where nothing was new.
    leave_out : sequence of str
        Names, or patterns of them, of files that aren't looked at.
    as_json : bool
        Whether to print JSON lines.
    """

    def __init__(
        self,
        request: Request,
        folder: Path,
        how: BuildFlags,
        every: float,
        train: Train | None = None,
        leave_out: Sequence[str] = (),
        *,
        as_json: bool,
    ) -> None:
        self._request, self._folder, self._how = request, folder, how
        self._train, self._leave_out, self._as_json = train, leave_out, as_json
        self._retrying = Retrying(every)
        self._tried: State | None = None
        self._has_succeeded = False
        self._told = ""

    def look(self) -> State | None:
        """Look at the folder; None where it can't be read now."""
        try:
            state = standing_of_folder(self._folder)
        except OSError as error:
            self._fail(error)
            return None
        return {path: at for path, at in state.items() if not self._is_left_out(path)}

    def _is_left_out(self, path: str) -> bool:
        return any(fnmatch(Path(path).name, pattern) for pattern in self._leave_out)

    def follow(self, state: State) -> None:
        """Make the store that of some files, unless it is, or they failed and stand as they did.

        Raises
        ------
        GrandbatchError
            At the first try, where no other files could help.
        """
        now = time.monotonic()
        if state == self._tried and now < self._retrying.at:
            return
        if not state and self._tried is None:
            return
        self._tried = state
        failed: GrandbatchError | OSError | None = None
        try:
            if not self._has_succeeded and not is_free(self._request.path):
                # what a training was cut off in is over before the store grows
                self._learn()
            self._build(state)
            self._learn()
            self._has_succeeded, self._told = True, ""
        except (GrandbatchError, OSError) as error:
            if not self._has_succeeded and not _may_pass(error):
                raise
            failed = error
            self._fail(error, state)
        self._retrying.after(failed, time.monotonic())

    def _build(self, state: State) -> None:
        if not state:
            raise InputError(f"{self._folder}: no file of bars is left; the store stays as it is")
        before = self._standing()
        # these files and no others: one that comes only now may be half written
        result = make_store(replace(self._request, inputs=list(state)), self._how)
        names = [Path(name).name for name in state]
        self._tell_store(
            {
                "event": "reused" if result["reused"] else "built",
                "time": iso_time(time.time_ns()),
                "n_files": len(names),
                "new_files": [name for name in names if name not in before[1]],
                "new_windows": result["n_windows"] - before[0],
                **result,
            }
        )

    def _standing(self) -> tuple[int, set[str]]:
        """Windows of the store that stands there, and base names of its inputs."""
        with suppress(StoreError):
            store = MatrixStore.open(self._request.path)
            return len(store), {Path(entry["name"]).name for entry in store.attrs["source"]}
        return 0, set()

    def _learn(self) -> None:
        """Train on what is new, if that is asked for."""
        learnt = self._train(MatrixStore.open(self._request.path)) if self._train else None
        if learnt is None:
            return
        event = {"event": "trained", "time": iso_time(time.time_ns()), **learnt}
        self._tell(
            event,
            f"{event['time']} {event['checkpoint_dir']}: trained, {event['steps']:,} steps on "
            f"{event['windows']:,} windows in all, avg_reward {event['avg_reward']:.3g}",
        )

    def _tell(self, event: Mapping[str, Any], line: str) -> None:
        show_lines(event, [line], as_json=self._as_json)
        # whoever reads along at the other end of a pipe is to see it now
        sys.stdout.flush()

    def _tell_store(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "reused":
            did = "is what the files give"
        else:
            files = f"{named(event['new_files'])}: " if event["new_files"] else ""
            did = (
                f"{files}{event['new_windows']:+,} windows, {event['kept_chunks']:,} of "
                f"{event['n_chunks']:,} chunks kept, in {event['seconds']:.1f} s"
            )
        line = (
            f"{event['time']} {self._request.path.name}: {did} ({event['n_windows']:,} windows of "
            f"{event['n_rows']:,} bars of {event['n_symbols']:,} symbols)"
        )
        self._tell(event, line)

    def _fail(self, error: GrandbatchError | OSError, state: State | None = None) -> None:
        """Say what failed, once, and how to go on without a file that holds no bars."""
        text = one_line(error if isinstance(error, GrandbatchError) else explain(error))
        named = [path for path in state or () if text.startswith(f"{path}:")]
        if isinstance(error, InputError) and named:
            text = (
                f"{text.rstrip('.')}; mend it or take it away, and it goes on; if it holds no "
                f"bars, begin again with {offer('--leave-out', escape(Path(named[0]).name))}"
            )
        if text == self._told:
            return
        self._told = text
        _log.error("%s", text)
        if self._as_json:
            self._tell({"event": "failed", "time": iso_time(time.time_ns()), "error": text}, text)


def _may_pass(error: BaseException) -> bool:
    """Whether other files, or another time, may help against an error."""
    return isinstance(error, (*_PASSING, InputError)) and not isinstance(
        error, StoreMismatchError | UsageError
    )


@o.with_rules
@o.with_settings
@with_build_flags
@with_learning_flags
def watch(
    settings: StoreSettings,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where files of bars come.")],
    store: o.StoreOption,
    every: _Every = 10.0,
    settle: _Settle = 30.0,
    train: _Train = False,
    checkpoint_dir: _CheckpointDir = None,
    leave_out: _LeaveOut = None,
    how: BuildFlags = BuildFlags(),  # noqa: B008 (frozen)
    learning: LearningFlags = LearningFlags(),  # noqa: B008 (frozen)
    cache: o.Cache = None,
    *,
    rules: BarRules,
    as_json: o.Json = False,
) -> None:
    """Build a store of a folder's bars, and extend it whenever new files have come.

    Files are read once none of them has changed for a while (--settle). One that can't be read is
    told in a line, the store stays as it is, and the next look after it was mended or taken away
    goes on. Ctrl-C and SIGTERM end it; the same command goes on.

    With --train and --checkpoint-dir each build is followed by a training on the windows that the
    training before did not have, as grandbatch train --since-last does it.

    Example: grandbatch watch strategic bars/ --store bars.zarr --order period
    """
    number("--every", every, above=0.0)
    number("--settle", settle, least=0.0)
    refuse_url(folder, "the folder to watch")
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder; make it, or check the path")
    if train != (checkpoint_dir is not None):
        raise UsageError("--train and --checkpoint-dir belong together; give both, or none")
    request = Request.of(folder, store, settings, rules, cache)
    learn: Train | None = None
    if checkpoint_dir is not None:
        # where the extra that it needs is missing, that is known before the first build
        import grandbatch.experiment  # noqa: F401

        learn = partial(train_since_last, checkpoint_dir, learning, how.memory_limit)
    watcher = Watcher(
        request, folder.absolute(), how, every, learn, leave_out or (), as_json=as_json
    )
    settling = Settling(settle)
    with Ending():
        while True:
            state = watcher.look()
            if state is not None and settling.look(state, time.monotonic()):
                watcher.follow(state)
            time.sleep(every)
