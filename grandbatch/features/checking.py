"""`check`: whether features keep what they promise, on bars that are given or made.

Covers which kernels are run on which bars; the running is `trial.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from grandbatch.errors import KernelError, UsageError
from grandbatch.features.awkward import awkward_bars
from grandbatch.features.fused import FusedColumn
from grandbatch.features.inputs import arrays_of, inputs_of, known_inputs, require_inputs
from grandbatch.features.named import resolve_checkable
from grandbatch.features.sets import Feature, FeatureSet
from grandbatch.features.trial import TRIES, Checkable, SampleBars, Subject, find_fault
from grandbatch.values.arrays import Array

_MOST_SYMBOLS = 3


def check(feature: str | FeatureSet | Checkable | Sequence[Checkable], bars: Any = None) -> None:
    """Run kernels where it shows whether they keep what a feature, or a target, promises.

    Each is run on bars, and on the same bars changed where it must not look. So it comes out if
    values depend on bars after t (of a target: more than its horizon after t, or before t), on
    bars before the lookback, on where the run began, on other threads, or on chance; if they
    aren't written, or aren't finite (a target may be unknown); and if inputs are changed.
    Not found: a formula that isn't the one meant, and what happens under conditions that the bars
    don't hold.

    Parameters
    ----------
    feature : Feature, Target, FeatureSet, sequence of them, or str
        What to check; or its name: `module:NAME`, `path.py:NAME`, or that of a built-in set.
    bars : DataFrame or mapping of str to (n,) array, optional
        Bars as `read_bars` gives them, of which the first of each of a few symbols are taken, or
        the columns of one symbol's; the timestamp may be a frame's index. By default bars made for
        it: a walk with a jump, a flat stretch, one without volume, and one of tiny moves; extra
        columns hold numbers between 0 and 1.

    Raises
    ------
    KernelError
        If a kernel is wrong: names the feature or target, the first bar, both values, and what to
        change.
    ColumnError
        If the bars lack a column that a kernel reads.
    UsageError
        If they are too few.
    """
    subjects = [checked.subject for checked in resolve_checkable(feature)]
    if bars is None:
        refuse(find_faults(subjects, simulated))
    else:
        samples = [*_samples(bars, subjects)]
        refuse(find_faults(subjects, lambda subject: samples))


def own_subjects(feature_set: FeatureSet) -> list[Subject]:
    """Return the kernels to check but for those that the package's own sets are made of."""
    return [feature.subject for feature in feature_set.features if not _is_of_package(feature)]


def _is_of_package(feature: Feature) -> bool:
    kernel = feature.kernel
    return isinstance(kernel, FusedColumn) and kernel.fused.run.__module__.startswith("grandbatch.")


def find_faults(
    subjects: Sequence[Subject],
    samples_for: Callable[[Subject], Iterable[SampleBars]],
    tries: int = TRIES,
) -> dict[str, str]:
    """Return what is wrong with each kernel that is, on the first of its samples where it shows."""
    faults = {}
    for subject in subjects:
        for sample in samples_for(subject):
            fault = find_fault(subject, sample, tries)
            if fault is not None:
                faults[subject.name] = fault
                break
    return faults


def simulated(subject: Subject) -> list[SampleBars]:
    """Return awkward bars, as many as a kernel needs to show all there is to see."""
    return [SampleBars("simulated bars", awkward_bars(subject.sample_bars, 1, subject.inputs))]


def refuse(faults: Mapping[str, str]) -> None:
    """Raise where something is wrong with any of several kernels.

    Raises
    ------
    KernelError
        With what is wrong with the first; names the others.
    """
    if faults:
        (_, fault), *others = faults.items()
        more = f" (wrong as well: {', '.join(name for name, _ in others)})" if others else ""
        raise KernelError(f"{fault}{more}")


def _samples(bars: Any, subjects: Sequence[Subject]) -> Iterator[SampleBars]:
    """Take the first bars of each of a few symbols."""
    wanted = max(subject.sample_bars for subject in subjects)
    needed = max(subject.bars_needed for subject in subjects)
    inputs = inputs_of(subjects)
    if hasattr(bars, "npartitions"):
        last = bars.npartitions - 1
        frames = [bars.get_partition(number).compute() for number in sorted({0, last // 2, last})]
    else:
        frames = [bars]
    seen: set[str] = set()
    found = False
    for frame in frames:
        require_inputs(subjects, known_inputs(frame))
        for symbol, rows in _by_symbol(frame, inputs):
            n = len(rows[inputs[0]])
            if symbol in seen or n < needed:
                continue
            seen.add(symbol)
            found = True
            label = f"the bars of {symbol}" if symbol else "the bars"
            yield SampleBars(label, {name: values[:wanted] for name, values in rows.items()})
            if len(seen) == _MOST_SYMBOLS:
                return
    if not found:
        raise UsageError(
            f"too few bars to check: {needed} of one symbol are needed; give more, or none, and "
            "bars are made for it"
        )


def _by_symbol(frame: Any, inputs: Sequence[str]) -> Iterator[tuple[str, dict[str, Array]]]:
    columns = arrays_of(frame, inputs)
    if "symbol" not in frame:
        yield "", columns
        return
    symbols = np.asarray(frame["symbol"])
    for symbol in dict.fromkeys(symbols.tolist()):
        rows = symbols == symbol
        yield str(symbol), {name: values[rows] for name, values in columns.items()}
