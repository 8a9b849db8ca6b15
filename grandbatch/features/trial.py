"""Whether a kernel keeps what a feature promises, found out by running it.

A kernel is run on bars and on the same bars changed where it must not look; float32 results are
compared to the bit. Covers what a run can show: not whether a formula is the one that was meant,
nor conditions that the bars don't hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from grandbatch.features.awkward import awkward_bars
from grandbatch.features.fused import Kernel
from grandbatch.values.arrays import Array, Float32, Float64, Int64
from grandbatch.values.columns import TIMESTAMP
from grandbatch.values.texts import one_line

BARS = 2_000
"""Bars of a sample, besides twice what is read around each."""

TRIES = 24
"""Times at which bars are cut off and replaced."""

_LEAST_VALUES, _MOST_READS = 256, 4_000_000
"""A kernel that reads its whole window for each value reads no more than this in a run."""

_GUARD = 64
_THREADS, _THREAD_RUNS = 4, 24


@dataclass(frozen=True)
class Subject:
    """A kernel, and what it may read.

    Parameters
    ----------
    kind, name : str
        What it is called: feature 'rsi'.
    kernel : callable
        ``kernel(*inputs, first, out)``; ``out[k]`` is the value at bar ``first + k``.
    inputs : tuple of str
        What it reads.
    before, after : int
        Bars before and after t that its value at t may read; `out` ends `after` bars early. What
        looks ahead is a target: it may be NaN where it is not known.
    """

    kind: str
    name: str
    kernel: Kernel
    inputs: tuple[str, ...]
    before: int
    after: int = 0

    @property
    def is_target(self) -> bool:
        """Whether it looks ahead by right."""
        return self.after > 0

    @property
    def bars_needed(self) -> int:
        """Bars that can show anything at all."""
        return self.before + self.after + 2

    @property
    def sample_bars(self) -> int:
        """Bars that show all there is to see; of long lookbacks what can be seen in little time."""
        reach = self.before + self.after
        values = min(reach + BARS, max(_LEAST_VALUES, _MOST_READS // max(1, reach)))
        return reach + values


@runtime_checkable
class Checkable(Protocol):
    """Something with a kernel to check: a feature, or a target."""

    @property
    def subject(self) -> Subject:
        """The kernel, and what it may read."""
        ...


@dataclass(frozen=True)
class SampleBars:
    """Consecutive bars of one segment, called `label` in messages."""

    label: str
    bars: Mapping[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.bars.values())))


def find_fault(subject: Subject, sample: SampleBars, tries: int = TRIES) -> str | None:
    """Return what is wrong with a kernel, as a sentence; None where nothing was found.

    Parameters
    ----------
    subject : Subject
    sample : SampleBars
        At least `subject.bars_needed` bars.
    tries : int
        Times at which bars are cut off and replaced, besides the first and the last. What is
        wrong in general shows at two; more of them find what is wrong at some times only.
    """
    return next(_Trial(subject, sample, tries).faults(), None)


class _Raised(Exception):  # noqa: N818 (it travels inside this module only)
    """What a kernel raised."""


class _Trial:
    """One kernel on one sample."""

    def __init__(self, subject: Subject, sample: SampleBars, tries: int) -> None:
        self._subject, self._label = subject, sample.label
        self._bars = [np.ascontiguousarray(sample.bars[name]) for name in subject.inputs]
        self._n = len(sample)
        other = awkward_bars(self._n, 2, subject.inputs)
        self._others = {
            # first: it is never forgotten, where prices of long ago drown in rounding
            "NaN": [x if x.dtype == np.int64 else np.full(self._n, np.nan) for x in other.values()],
            "other ones": [*other.values()],
        }
        if subject.inputs == (TIMESTAMP,):
            del self._others["NaN"]
        self._first = subject.before
        self._tries = tries

    def faults(self) -> Iterator[str]:
        """Find one after the other; what one of them explains comes after it."""
        try:
            self._whole = self._run(self._bars)
            yield from self._of_runs()
            yield from self._of_values()
            yield from self._of_reach()
        except _Raised as raised:
            error = raised.__cause__
            yield (
                f"{self._named} raised {type(error).__name__} on {self._label} "
                f"({one_line(error)}); it must "
                f"take any bars, and write out[k] for each bar from first + k on, here "
                f"{self._first} to {self._n - 1}"
            )

    @property
    def _named(self) -> str:
        return f"{self._subject.kind} {self._subject.name!r}"

    def _of_runs(self) -> Iterator[str]:
        """Compare runs over the same bars."""
        yield from self._inputs_changed()
        yield from self._differ(
            self._run(self._bars),
            "is not the same in two runs over the same bars",
            "in the second",
            "it must use no random number, clock, or anything that it kept from another call",
        )
        yield from self._differ(
            self._run(self._bars, fill=-3e-30),
            "is not written, or is read before it is",
            "where out holds something else beforehand",
            "write every out[k] with =, and read none of them",
        )
        # each thread meets others at work on other bars
        pair = [self._bars, self._others["other ones"]]
        wanted = [self._whole, self._run(pair[1])]
        with ThreadPoolExecutor(_THREADS) as pool:
            for k, found in enumerate(
                pool.map(lambda k: self._run(pair[k % 2]), range(_THREAD_RUNS))
            ):
                yield from self._differ(
                    found,
                    "is another one while other threads run the kernel",
                    "beside them",
                    "make the arrays that it works in inside the kernel, not outside",
                    wanted=wanted[k % 2],
                )

    def _inputs_changed(self) -> Iterator[str]:
        given = [_guarded(values) for values in self._bars]
        self._call(given, self._first, 7e30)
        for name, before, after in zip(self._subject.inputs, self._bars, given, strict=True):
            changed = _unlike(before, after)
            if len(changed):
                bar = int(changed[0])
                yield (
                    f"{self._named} writes into its inputs: {name} of bar {bar} of {self._label} "
                    f"was {before[bar]} and is {after[bar]} after the call; others read it too: "
                    f"work on a copy, {name} = {name}.copy()"
                )

    def _of_values(self) -> Iterator[str]:
        odd = np.flatnonzero(~np.isfinite(self._whole))
        if len(odd) and not self._subject.is_target:
            bar = self._first + int(odd[0])
            read = ", ".join(
                f"{name} {values[bar]}"
                for name, values in zip(self._subject.inputs, self._bars, strict=True)
            )
            yield (
                f"{self._named} is {self._whole[odd[0]]} at bar {bar} of {self._label} ({read}), "
                f"and not finite at {len(odd):,} of {len(self._whole):,} bars; a value is wanted "
                "everywhere: say what it is where prices stand still, the volume is 0, or a "
                "divisor is"
            )

    def _of_reach(self) -> Iterator[str]:
        """Cut off, or replace, bars that must not be read."""
        before, after = self._subject.before, self._subject.after
        rng = np.random.default_rng(0)
        last = self._n - 1 - after
        # the first value last: what reads before the bars begin finds the last ones there
        times = (last - 1, *rng.integers(before, last, self._tries), before)
        for t in map(int, times):
            values = t - before + 1
            behind = t + after + 1
            later = f"bars from {behind} on" if after else "bars after it"
            yield from self._ahead(
                self._run([x[:behind] for x in self._bars]), values, f"without the {later}"
            )
            for what, other in self._others.items():
                changed = [np.concatenate([x[:behind], y[behind:]]) for x, y in self._with(other)]
                yield from self._ahead(self._try(changed), values, f"where the {later} are {what}")
            yield from self._too_far_back(t)
            early = int(rng.integers(0, t - before + 1))
            for begin, first in ((t - before, before), (early, t - early)):
                yield from self._differ(
                    self._run([x[begin:] for x in self._bars], first),
                    "depends on where the run begins",
                    f"in a run that begins at bar {begin}",
                    "carry nothing from bar to bar, and add in an order that is the window's "
                    "own: grandbatch.windows has sums and averages that do",
                    wanted=self._whole[t - before :],
                    base=t,
                )

    def _ahead(self, found: Float32 | None, values: int, when: str) -> Iterator[str]:
        after = self._subject.after
        if found is None:
            return
        wanted = self._whole[:values]
        unlike = _unlike(wanted, found[:values])
        if len(unlike) and unlike[-1] < values // 2:
            # far from the cut, so by an index below 0: that shows as a lookback too small
            return
        yield from self._differ(
            found[:values],
            f"reads bars beyond its horizon of {after}" if after else "looks ahead",
            when,
            f"out[k] may read bars {'first + k' if after else 'up'} to first + k"
            f"{f' + {after}' if after else ''}, and nothing of all bars such as their mean"
            f"{'; or give it a longer horizon' if after else ''}",
            wanted=wanted,
        )

    def _too_far_back(self, t: int) -> Iterator[str]:
        before = self._subject.before
        lookback = "" if self._subject.is_target else f" (the lookback is {before})"
        k = t - before
        for what, other in self._others.items():

            def value_at(reach: int, other: Sequence[Float64] = other) -> np.float32 | None:
                cut = t - reach
                changed = [np.concatenate([y[:cut], x[cut:]]) for x, y in self._with(other)]
                found = self._try(changed)
                return None if found is None else found[k]

            seen = value_at(before)
            if seen is None or not len(_unlike(seen, self._whole[k])):
                continue
            reach = self._reach(value_at, t)
            if self._subject.is_target:
                cause = "reads bars before its own"
                remedy = (
                    f"out[k] may read bars first + k to first + k + {self._subject.after}: what "
                    "comes before is a feature's to tell"
                )
            elif reach > 3 * before + _GUARD:
                cause = "carries something from bar to bar"
                remedy = (
                    "compute each value from its own window: grandbatch.windows has sums and "
                    "averages that do"
                )
            else:
                cause = "reads bars before its lookback"
                remedy = f"it reads {reach} bars back: give lookback={reach}"
            yield self._fault(
                cause, t, self._whole[k], seen,
                f"where the bars before {t - before}{lookback} are {what}",
                remedy,
            )  # fmt: skip

    def _reach(self, value_at: Callable[[int], np.float32 | None], t: int) -> int:
        """Find how many bars back a value reads."""
        still = self._whole[t - self._subject.before]

        def changes(reach: int) -> bool:
            seen = value_at(reach)
            return seen is not None and len(_unlike(seen, still)) > 0

        low = self._subject.before
        high = low
        while changes(high):
            low, high = high, min(2 * high + 1, t)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if changes(middle) else (low, middle)
        return high

    def _with(self, other: Sequence[Float64]) -> Iterator[tuple[Array, Array]]:
        return zip(self._bars, other, strict=True)

    def _differ(
        self,
        found: Float32,
        problem: str,
        when: str,
        remedy: str,
        *,
        wanted: Float32 | None = None,
        base: int | None = None,
    ) -> Iterator[str]:
        wanted = self._whole if wanted is None else wanted
        unlike = _unlike(wanted, found)
        if len(unlike):
            at = int(unlike[0])
            bar = (self._first if base is None else base) + at
            yield self._fault(problem, bar, wanted[at], found[at], when, remedy)

    def _fault(
        self, problem: str, bar: int, one: np.float32, other: np.float32, when: str, remedy: str
    ) -> str:
        return (
            f"{self._named} {problem}: at bar {bar} of {self._label} it is {one}, and {other} "
            f"{when}; {remedy}"
        )

    def _try(self, bars: Sequence[Array]) -> Float32 | None:
        """Run on bars that no build would hand over: a kernel may refuse those."""
        try:
            return self._run(bars)
        except _Raised:
            return None

    def _run(self, bars: Sequence[Array], first: int | None = None, fill: float = 7e30) -> Float32:
        """Run on copies, so that nothing can be spoiled for the next run."""
        given = [_guarded(values) for values in bars]
        return self._call(given, self._first if first is None else first, fill)

    def _call(self, bars: Sequence[Array], first: int, fill: float) -> Float32:
        out = np.full(len(bars[0]) - first - self._subject.after, fill, np.float32)
        try:
            with np.errstate(all="ignore"):
                self._subject.kernel(*bars, first, out)
        except Exception as error:
            raise _Raised from error
        if self._subject.is_target:
            out[~np.isfinite(out)] = np.nan  # as it is stored: undefined values have one form
        return out


def _guarded(values: Array) -> Array:
    """Copy values between others, for compiled loops that read past the ends unhindered."""
    around = np.full(_GUARD, 3, values.dtype)
    return np.concatenate([around, values, around])[_GUARD : _GUARD + len(values)]


def _unlike(a: Any, b: Any) -> Int64:
    """Where values have other bits."""
    a, b = np.atleast_1d(a), np.atleast_1d(b)
    bits = np.dtype(f"i{a.itemsize}")
    return np.flatnonzero(a.view(bits) != b.view(bits))
