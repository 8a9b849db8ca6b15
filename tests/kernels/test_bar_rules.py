"""Rows judged a thousand at a time are judged as one by one."""

import re

import numpy as np
import pytest

from grandbatch.kernels.bars import bar_rules

ROWS = 4000


def rows(seed, *, symbols=1):
    rng = np.random.default_rng(seed)
    low = 10 + rng.random(ROWS)
    o, c = low + rng.random((2, ROWS))
    high = np.maximum(o, c) + rng.random(ROWS)
    codes = rng.integers(0, symbols, ROWS).astype(np.int32)
    volume = rng.integers(0, 3, ROWS).astype(float)
    return np.arange(ROWS) * 60, [o, high, low, c, volume], codes, np.zeros(ROWS, np.uint8)


def judged(times, numbers, codes, reasons, *, size, keeps_last=False):
    """Reasons, counts and what is carried, of rows judged in blocks of a size."""
    symbols = int(codes.max()) + 1
    first, last = np.full((2, symbols), bar_rules.NEVER)
    reasons, counts, holders = reasons.copy(), [], []
    for at in range(0, ROWS, size):
        block = slice(at, at + size)
        held = np.full(symbols, -1)
        twins = np.empty((2, size), np.int64)
        found = bar_rules.judge_rows(
            *(times[block], *(column[block] for column in numbers), codes[block]),
            *(False, 1e-9, keeps_last, first, last, held, reasons[block], twins),
        )
        counts.append(found)
        holders.append(np.where(held >= 0, held + at, -1))
    latest = np.max(holders, axis=0)
    return reasons.tolist(), np.sum(counts, axis=0).tolist(), [*first, *last], latest.tolist()


@pytest.mark.parametrize("symbols", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_rows_are_judged_alike_together_and_one_by_one(seed, symbols):
    times, numbers, codes, reasons = rows(seed, symbols=symbols)
    rng = np.random.default_rng(100 + seed)
    spots = [0, 1, 1022, 1023, 1024, 1025, 2047, 2048, ROWS - 1, *rng.integers(0, ROWS, 6)]
    for number, spot in enumerate(spots):
        fault = (number + seed) % 8
        if fault < 5:
            numbers[fault][spot] = rng.choice([np.nan, -1.0, 1e30, 0.0, 1e-30])
        elif fault == 5:
            times[spot] -= rng.choice([60, 61, 6000])
        elif fault == 6:
            reasons[spot] = bar_rules.LEFT_OUT
        else:
            numbers[1][spot] *= 1 - 1e-12
    one_by_one = judged(times, numbers, codes, reasons, size=1)
    assert judged(times, numbers, codes, reasons, size=ROWS) == one_by_one
    assert judged(times, numbers, codes, reasons, size=1500) == one_by_one


@pytest.mark.parametrize("fault", range(9))
@pytest.mark.parametrize("spot", [0, 1, 1023, 1024, 2500, ROWS - 1])
def test_one_fault_among_thousands_of_plain_rows_is_found(spot, fault):
    times, numbers, codes, reasons = rows(7)
    if fault < 5:
        numbers[fault][spot] = np.nan
    elif fault == 5:
        numbers[1][spot] = numbers[2][spot] / 2
    elif fault == 6:
        numbers[4][spot] = -1
    elif fault == 7:
        reasons[spot] = bar_rules.MISSING
    else:
        times[max(spot, 1)] = times[max(spot, 1) - 1]
    given, counts, *_ = judged(times, numbers, codes, reasons, size=ROWS)
    assert counts[0] == np.count_nonzero(given) == 1


@pytest.mark.parametrize("size", [0, 1, 2, 127, 128, 129, 256, 1000])
@pytest.mark.parametrize("letters", [b"\r\n", b"\r\nab", b"\nabc", b"\rabc"])
def test_ends_of_lines_are_counted_wherever_texts_are_parted(size, letters):
    rng = np.random.default_rng(size)
    for _ in range(20):
        text = rng.choice(np.frombuffer(letters, np.uint8), size)
        text.flags.writeable = False
        found = bar_rules.count_line_ends(text)
        assert found == len(re.findall(rb"\r\n|\r|\n", text.tobytes()))
