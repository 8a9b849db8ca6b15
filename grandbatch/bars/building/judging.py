"""Which rows of a block are bars, given what the blocks beside it hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from grandbatch.bars.reading.rows import Rows
from grandbatch.bars.rules import BarRules
from grandbatch.kernels.bars.bar_rules import (
    ACCEPTED,
    DUPLICATE_TIMESTAMP,
    LEFT_OUT,
    NEVER,
    OHLC_INCONSISTENT,
    choose_second_times,
    judge_rows,
    widen,
)

Int64 = npt.NDArray[np.int64]


class Carry(NamedTuple):
    """An accepted bar, as later blocks see it."""

    time: int
    digest: int
    """Of its numbers, and extra columns."""


NEAR_MISS = 1e-6
"""Of a price: single precision rounds by a tenth of it."""

_NO_BAR = Carry(NEVER, 0)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Judged:
    """What judging a block's rows has shown; (S,) values are per symbol."""

    rows: Rows
    """With their reasons, highs and lows widened."""
    n_bad: int
    n_widened: int
    n_near: int
    """Highs and lows that miss by a rounding of single precision."""
    n_differing: int
    first: Int64
    """Time of the first row that breaks no rule but those of time."""
    last: Int64
    """Latest time of such rows."""
    holders: Int64
    """The last row of that time; -1 where it is in the blocks before."""
    replaces: npt.NDArray[np.bool_]


def judge(
    rows: Rows, rules: BarRules, carry: Mapping[str, Carry], gives_way: frozenset[str]
) -> Judged:
    """Give a block's rows their reasons, in place.

    Parameters
    ----------
    rows : Rows
    rules : BarRules
    carry : mapping of str to Carry
        The last accepted bar of symbols in the blocks before, where that matters.
    gives_way : frozenset of str
        Symbols whose last bar here has a later row of its time, in the blocks behind.
    """
    names = rows.symbols
    first = np.full(len(names), NEVER, np.int64)
    last = np.array([carry.get(name, _NO_BAR).time for name in names], np.int64)
    numeric = rules.allow_non_positive, rules.ohlc_tolerance
    shared = rows.times, *rows.numbers, rows.codes, *numeric
    if len(rows.changes.rows) and not rules.sort:
        twice = rows.changes.rows, rows.changes.second
        choose_second_times(*shared, first, last.copy(), rows.reasons, *twice)
    holders = np.full(len(names), -1, np.int64)
    twins = np.empty((2, len(rows)), np.int64)
    keeps_last = rules.duplicates == "last" and not rules.sort
    n_bad, n_widened, n_twins = judge_rows(
        *shared, keeps_last, first, last, holders, rows.reasons, twins
    )
    if n_widened:
        o, h, l, c, v = rows.numbers
        rows = replace(rows, numbers=(o, *widen(o, h, l, c), c, v))
    replaces = np.zeros(len(names), np.bool_)
    n_differing = 0
    if rules.sort:
        # time is settled where bars of all blocks meet
        of_time = (rows.reasons >= DUPLICATE_TIMESTAMP) & (rows.reasons != LEFT_OUT)
        rows.reasons[of_time] = ACCEPTED
        n_bad = int(np.count_nonzero(rows.reasons))
    elif n_twins:
        again, before = twins[:, :n_twins]
        told = digests_of(rows, before)
        for place in np.flatnonzero(before < 0):
            code = rows.codes[again[place]]
            told[place] = carry[names[code]].digest
            replaces[code] = keeps_last
        n_differing = int(np.count_nonzero(digests_of(rows, again) != told))
    for code, name in enumerate(names):
        if name in gives_way:
            rows.reasons[holders[code]] = DUPLICATE_TIMESTAMP
            n_bad += 1
    n_near = _count_near(rows) if n_bad else 0
    return Judged(rows, n_bad, n_widened, n_near, n_differing, first, last, holders, replaces)


def _count_near(rows: Rows) -> int:
    """Count the rows whose prices miss their high or low by no more than `NEAR_MISS`."""
    places = np.flatnonzero(rows.reasons == OHLC_INCONSISTENT)
    if not len(places):
        return 0
    o, h, l, c = (prices[places] for prices in rows.numbers[:4])
    top, bottom = np.maximum(np.maximum(o, c), l), np.minimum(np.minimum(o, c), h)
    near = (top - h <= NEAR_MISS * np.abs(top)) & (l - bottom <= NEAR_MISS * np.abs(bottom))
    return int(np.count_nonzero(near))


def digests_of(rows: Rows, places: Int64) -> Int64:
    """Return a number for the values of each of some rows, equal ones for equal values."""
    mixed = np.zeros(len(places), np.uint64)
    for values in (*rows.numbers, *rows.extras) if len(rows) else ():
        mixed = (mixed ^ (values[places] + 0.0).view(np.uint64)) * _MULTIPLIER
        mixed ^= mixed >> np.uint64(29)
    return mixed.view(np.int64)
