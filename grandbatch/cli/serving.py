"""`serve`: bars as JSON lines in, decisions as JSON lines out."""

from __future__ import annotations

import json
import logging
import math
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from grandbatch.bars.rules import UNITS
from grandbatch.bars.rules.flags import flags_of, offer
from grandbatch.cli import options as o
from grandbatch.cli.running.loading import loading
from grandbatch.errors import BadRowsError, UsageError
from grandbatch.values.texts import strict_json

if TYPE_CHECKING:
    from grandbatch.serving import LiveTeam

_log = logging.getLogger("grandbatch")

_MOST_LINE_BYTES = 2**20
_TIMED_BARS = 100_000
_YEAR_1973 = 10**17
"""ns since 1970; a whole number below it counts something longer."""
_MOST_OF = {"s": 10**11, "ms": 10**14}
"""A number below counts that, as a rule."""

_Confidence = Annotated[
    bool, typer.Option("--confidence", help="Tell how sure the team is: takes longer.")
]


@dataclass(frozen=True, kw_only=True)
class ReadingFlags:
    """The flags about how bars are read, as a shell has them."""

    columns: o.Columns = None
    epoch_unit: Annotated[
        str | None, typer.Option(help="s, ms, us or ns: what timestamps that are numbers count.")
    ] = None
    dayfirst: Annotated[
        bool | None,
        typer.Option("--dayfirst/--no-dayfirst", help="Whether 2/7/2025 is the 2nd of July."),
    ] = None
    timezone: Annotated[
        str | None, typer.Option(help="Zone of timestamps that name none (that of the training).")
    ] = None
    timestamp_format: o.TimestampFormat = None
    price_scale: Annotated[
        float | None, typer.Option(help="What prices are multiplied by, e.g. 1e-9.")
    ] = None
    no_volume: o.NoVolume = False
    allow_non_positive: o.AllowNonPositive = False
    ohlc_tolerance: Annotated[
        float | None,
        typer.Option(help="Share of a price by which high and low may miss the others."),
    ] = None
    extra: o.Extra = None
    fill: o.Fill = None

    def options(self) -> dict[str, Any]:
        """Return what they say, as `LiveFeatures` takes it; nothing of those that weren't given."""
        if self.epoch_unit not in (None, *UNITS):
            raise UsageError(f"--epoch-unit must be s, ms, us or ns, got {self.epoch_unit!r}")
        return {
            "dayfirst": self.dayfirst,
            "time_numbers": self.epoch_unit,
            "timezone": self.timezone,
            "timestamp_format": self.timestamp_format,
            "price_scale": self.price_scale,
            "columns": o.headers_of(self.columns),
            "no_volume": self.no_volume or None,
            "allow_non_positive": self.allow_non_positive or None,
            "ohlc_tolerance": self.ohlc_tolerance,
            **o.extra_columns(self.extra, self.fill),
        }


def _with_reading(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all flags about how bars are read, and what they say as `reading`."""
    return o.gathering(command, "reading", ReadingFlags, lambda flags: flags.options())


@_with_reading
def serve(
    checkpoint_dir: Annotated[Path, typer.Option(help="Of the training whose team decides.")],
    set_name: Annotated[
        str | None, typer.Option("--set", help="The set trained on, where it is your own.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="File to go on from, and to save to; made at first.")
    ] = None,
    save_every: Annotated[
        int, typer.Option(min=1, help="Bars between two savings; it is saved at the end, too.")
    ] = 1000,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Go on from what another team held.")
    ] = False,
    confidence: _Confidence = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Answer bars, as JSON lines on stdin, with a team's decisions, as JSON lines on stdout.

    A line has timestamp, open, high, low, close, volume, and symbol where there are several, under
    any name that a file's header may have. The answer has the exposure wanted, or bars_missing
    until there is a window, or error and reason where the line is no bar, which then changes
    nothing.

    Bars are read as those that the team was trained on: days or months first, zone, scale of prices
    and so on, unless flags say otherwise.

    Ctrl-C and SIGTERM end it between two bars, its state saved. After kill -9 the state is that of
    the last saving: send the bars since again, and the decisions are the same.

    Example: grandbatch serve --checkpoint-dir run --state live.state < bars.jsonl
    """
    if state is not None:
        state = _behind_links(state)
    with loading():
        from grandbatch.serving import LiveTeam

    team = LiveTeam.from_checkpoint(checkpoint_dir, set_name, **reading)
    _tell_reading(team)
    if state is not None:
        _take_up(team, state, take_over=take_over)
    _answer_all(team, state, save_every, confidence=confidence)


def _tell_reading(team: LiveTeam) -> None:
    """Say how bars are read where nothing else is said, and what only who sends them can know."""
    known = dict(team.live.read_as)
    numbers = known.pop("time_numbers", None)
    if numbers in UNITS:
        known["epoch_unit"] = numbers
    if known:
        _log.info("bars are read as those that were learnt from: %s", flags_of(known))
    for doubt in team.doubts:
        _log.warning("%s", doubt)


def _answer_all(
    team: LiveTeam,
    state: Path | None,
    save_every: int,
    *,
    confidence: bool,
) -> None:
    """Answer each line of stdin; keep the state where one is kept.

    Raises
    ------
    BadRowsError
        If lines came, and not one of them was a bar.
    """
    seconds: deque[float] = deque(maxlen=_TIMED_BARS)
    bad, is_decided, first_error = 0, False, ""
    try:
        for line in _Lines(sys.stdin.buffer):
            began = time.perf_counter()
            answer = _answer(team, line, confidence=confidence)
            sys.stdout.write(strict_json(answer) + "\n")
            sys.stdout.flush()
            if "error" in answer:
                bad += 1
                first_error = first_error or answer["error"]
                continue
            seconds.append(time.perf_counter() - began)
            is_decided = is_decided or answer["exposure"] is not None
            if state is not None and team.n_bars % save_every == 0:
                team.save(state)
        # not where an answer could not be given: the bar is sent again then
        if state is not None:
            team.save(state)
    finally:
        _tell(team, seconds, bad, is_decided=is_decided)
    if bad and not seconds:
        raise BadRowsError(
            f"not one of {bad:,} lines was a bar, so nothing was decided; of the first: "
            f"{first_error}"
        )


def _behind_links(state: Path) -> Path:
    """Return the file that a state is kept in, also where links lead to it.

    Raises
    ------
    UsageError
        If a link leads nowhere: whether there was a state is not known.
    """
    if state.is_symlink() and not state.exists():
        raise UsageError(
            f"{state} is a link to {state.readlink()}, and nothing is there; mend the link, or "
            "remove it to begin anew"
        )
    return state.resolve()


def _take_up(team: LiveTeam, state: Path, *, take_over: bool) -> None:
    """Go on from a file, or make it: where it can't be saved that is known before the first bar."""
    if state.exists():
        team.load(state, take_over=take_over)
        _log.info("going on from %s, after %d bars", state, team.n_bars)
    else:
        team.save(state)


class _Lines:
    """Lines of a stream; a signal that ends the process is answered between two of them."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._is_waiting, self._must_stop = stream, False, False

    def __iter__(self) -> Iterator[bytes]:
        before = {number: signal.signal(number, self._hear) for number in _ENDING}
        try:
            while line := self._next():
                if line.strip():
                    yield line
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _next(self) -> bytes:
        try:
            self._is_waiting = True
            if self._must_stop:
                return b""
            line = self._stream.readline(_MOST_LINE_BYTES)
            self._is_waiting = False
        except _EndedError:
            return b""
        return line

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._must_stop = True
        if self._is_waiting:
            raise _EndedError


class _EndedError(Exception):
    """Raised while waiting for a line, to stop waiting."""


_ENDING = (signal.SIGINT, signal.SIGTERM)


def _answer(team: LiveTeam, line: bytes, *, confidence: bool) -> dict[str, Any]:
    try:
        bar = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"error": f"the line is no JSON ({error})", "reason": "unparseable"}
    if not isinstance(bar, dict):
        return {"error": "the line is no JSON object", "reason": "unparseable"}
    told: dict[str, Any] = {}
    try:
        bar = team.live.named(bar)
        told = {name: bar[name] for name in ("symbol", "timestamp") if _is_plain(bar.get(name))}
        if team.live.time_numbers is None:
            _refuse_small(bar.get("timestamp"))
        return {**team.decide(bar, confidence=confidence), **told}
    except BadRowsError as error:
        return {**told, "error": str(error), "reason": error.reason}


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _refuse_small(time_: Any) -> None:
    """Refuse a number that can't count ns since 1970, where nothing says what numbers count."""
    if isinstance(time_, bool) or not isinstance(time_, int | float) or abs(time_) >= _YEAR_1973:
        return
    size = abs(time_)
    likely = next((unit for unit, most in _MOST_OF.items() if size < most), "us")
    error = BadRowsError(
        f"timestamp {time_!r} is a number that can't count ns since 1970; say what it counts, "
        f"such as {offer('--epoch-unit', likely)}"
    )
    error.reason = "unparseable"
    raise error


def _tell(team: LiveTeam, seconds: deque[float], bad: int, *, is_decided: bool) -> None:
    if not seconds:
        if not bad:
            _log.info("no bar came")
        return
    if not is_decided:
        _log.info(
            "nothing was decided yet: a segment's first decision comes with its bar number %d",
            team.live.bars_needed,
        )
    ranked = sorted(seconds)
    half, most = (1e3 * ranked[int(share * (len(ranked) - 1))] for share in (0.5, 0.99))
    _log.info(
        "%d bars in all, %d lines were no bars; half of the last %d answers took at most %.2f ms, "
        "99 %% of them %.2f ms",
        team.n_bars,
        bad,
        len(ranked),
        half,
        most,
    )
