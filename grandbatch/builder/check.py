"""A build's look at the kernels of a user's own: on bars made for it, then on some of the input's.

The second look takes the first bars of a few segments. Sets built in are the package's to test.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from grandbatch.bars import Bars
from grandbatch.builder.settings import StoreSettings
from grandbatch.features.checking import find_faults, own_subjects, refuse, simulated
from grandbatch.features.trial import SampleBars, Subject
from grandbatch.grid import Segments
from grandbatch.targets import own_targets
from grandbatch.values.columns import TIMESTAMP
from grandbatch.values.times import shown

_TRIES = 4
_SEGMENTS = 3


def check_on_simulated(settings: StoreSettings) -> None:
    """Check a user's own kernels on awkward bars, before anything is read.

    Raises
    ------
    KernelError
        If one is wrong.
    """
    refuse(find_faults(_subjects(settings), simulated, _TRIES))


def check_on_bars(settings: StoreSettings, bars: Bars, segments: Segments) -> None:
    """Check a user's own kernels on the first bars of a few segments.

    Raises
    ------
    KernelError
        If one is wrong.
    """
    samples = partial(first_bars, bars=bars, segments=segments)
    refuse(find_faults(_subjects(settings), samples, _TRIES))


def _subjects(settings: StoreSettings) -> list[Subject]:
    own = own_targets(settings.targets)
    return [*own_subjects(settings.feature_set), *(target.subject for target in own)]


def first_bars(subject: Subject, bars: Bars, segments: Segments) -> Iterator[SampleBars]:
    """Read the beginnings of segments that are long enough: the first, one midway, the last."""
    enough = np.flatnonzero(segments.length >= subject.bars_needed)
    if not len(enough):
        return
    for place in np.unique(np.linspace(0, len(enough) - 1, _SEGMENTS).astype(int)):
        segment = enough[place]
        start = int(segments.start[segment])
        stop = start + min(int(segments.length[segment]), subject.sample_bars)
        read = bars.read(start, stop, tuple(dict.fromkeys((TIMESTAMP, *subject.inputs))))
        symbol, began = bars.symbols[segments.symbol[segment]], shown(int(read[TIMESTAMP][0]))
        yield SampleBars(f"the bars of {symbol} from {began} on", read)
