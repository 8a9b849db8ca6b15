"""What becomes of rows whose extra columns have no value, by their fills.

A value that is missing, no number or not finite makes the row no bar. Where another is to stand
instead, NaN marks its place: which one may depend on bars of other blocks, so that is settled when
all bars are in order (`building.parts.gaps`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from grandbatch.bars.reading.rows import Rows
from grandbatch.bars.rules import BarRules
from grandbatch.kernels.bars.bar_rules import ACCEPTED, LEFT_OUT, NOT_FINITE


def mark_gaps(rows: Rows, rules: BarRules) -> Rows:
    """Give rows whose extra columns lack a value their reasons, in place, or mark where one is due.

    Parameters
    ----------
    rows : Rows
        As they were read, before any is judged.
    rules : BarRules
    """
    if not rules.extra:
        return rows
    extras, faults = [], np.zeros(len(rows), np.uint16)
    held = zip(rules.extra, rows.extras, rows.gaps, strict=True)
    for number, (name, values, gaps) in enumerate(held, start=1):
        lacks = (gaps != ACCEPTED) | ~np.isfinite(values)
        is_whole = not lacks.any()
        if rules.fill[name] != "require":
            extras.append(values if is_whole else np.where(lacks, np.nan, values))
            continue
        extras.append(values)
        if not is_whole:
            own = np.where(gaps == ACCEPTED, np.uint8(NOT_FINITE), gaps)
            # of several reasons the first in their order applies
            goes_first = (rows.reasons == ACCEPTED) | (own < rows.reasons)
            worse = lacks & goes_first & (rows.reasons != LEFT_OUT)
            rows.reasons[worse] = own[worse]
            faults[worse] = number
    return replace(rows, extras=tuple(extras), gaps=(), faults=faults)
