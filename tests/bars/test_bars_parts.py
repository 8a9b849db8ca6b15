"""Parts of a file of bars: read together or one by one, they are what was written, or an error."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grandbatch.bars.building.parts.looking import pack_looks, unpack_looks
from grandbatch.bars.cache import digests, parts
from grandbatch.bars.cache.digests import STORED, PartRows
from grandbatch.bars.cache.extremes import ManyExtremes, extremes_of
from grandbatch.errors import DamagedBarsError

ROWS = [3, 1, 40, 2_500, 7, 7, 200, 2_048, 2_049, 5]
"""Of the parts of a file: short ones, and some that are not."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with two files of parts, their values, and what must be found in them."""
    folder, random = tmp_path_factory.mktemp("parts"), np.random.default_rng(1)
    values, found = {}, {}
    for name in ("a", "b"):
        values[name] = [(random.integers(0, 10**9, n), random.random((5, n))) for n in ROWS]
        bars = [(times, [*numbers]) for times, numbers in values[name]]
        found[name] = parts.write_parts(folder / name, bars)
    return folder, values, found


def wanted_rows(found, ranges, columns):
    wanted = []
    for name, number, low, high in ranges:
        out = [np.empty(high - low, np.int64 if c == "timestamp" else np.float64) for c in columns]
        wanted.append(PartRows(name, found[name][number], (low, high), out))
    return wanted


@st.composite
def ranges_of_rows(draw):
    """Rows of some parts, in any order, some parts more than once."""
    numbers = st.integers(0, len(ROWS) - 1)
    some = draw(st.lists(st.tuples(st.sampled_from("ab"), numbers), min_size=1, max_size=25))
    ranges = []
    for name, number in some:
        low = draw(st.integers(0, ROWS[number] - 1))
        ranges.append((name, number, low, draw(st.integers(low + 1, ROWS[number]))))
    return ranges


@given(ranges_of_rows(), st.lists(st.sampled_from(STORED), min_size=1, unique=True))
def test_rows_of_any_parts_are_those_that_were_written(written, ranges, columns):
    folder, values, found = written
    wanted = wanted_rows(found, ranges, columns)
    digests.copy_rows(folder, wanted, columns)
    for (name, number, low, high), one in zip(ranges, wanted, strict=True):
        times, numbers = values[name][number]
        of_name = dict(zip(STORED, (times, *numbers), strict=True))
        for column, got in zip(columns, one.out, strict=True):
            assert np.array_equal(got, of_name[column][low:high])


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_a_byte_flipped_in_one_of_many_parts_is_an_error_that_names_the_file(
    written, number, tmp_path
):
    folder, _, found = written
    raw = bytearray((folder / "a").read_bytes())
    part = found["a"][number]
    place, n_rows = part.place(0, STORED.index("close"))
    raw[place + 8 * (n_rows - 1)] ^= 1
    (tmp_path / "a").write_bytes(raw)
    everything = [("a", n, 0, rows) for n, rows in enumerate(ROWS)]
    with pytest.raises(DamagedBarsError, match=rf"a: close of rows 0 to {n_rows} is not what"):
        digests.copy_rows(tmp_path, wanted_rows(found, everything, STORED), STORED)


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_a_file_that_ends_in_the_middle_of_a_part_is_damage(written, number, tmp_path):
    folder, _, found = written
    place, n_rows = found["a"][number].place(0, len(STORED) - 1)
    raw = Path(folder / "a").read_bytes()
    (tmp_path / "a").write_bytes(raw[: place + 8 * n_rows - 1])
    everything = [("a", n, 0, rows) for n, rows in enumerate(ROWS)]
    with pytest.raises(DamagedBarsError, match="is not what was written"):
        digests.copy_rows(tmp_path, wanted_rows(found, everything, STORED), STORED)


PRICES = st.sampled_from([0.0, 1.0, 2.0, 2.5, 9.0, 60.0])


@st.composite
def symbols_in_runs(draw):
    """Bars of a few symbols, each cut into runs: times, highs, lows, volumes."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
        n = sum(counts)
        prices = [draw(st.lists(PRICES, min_size=n, max_size=n)) for _ in range(3)]
        high, low = np.maximum(prices[0], prices[1]), np.minimum(prices[0], prices[1])
        bars = np.arange(n, dtype=np.int64) + 7, high, low, np.array(prices[2])
        edges = np.cumsum([0, *counts])
        found.append((bars, [slice(a, b) for a, b in itertools.pairwise(edges)]))
    return found


@given(symbols_in_runs())
def test_what_is_known_of_runs_joined_is_what_is_seen_of_all_their_bars(symbols):
    runs = [
        extremes_of(*(of[run].copy() for of in bars)) for bars, runs_ in symbols for run in runs_
    ]
    begins = np.cumsum([0, *(len(runs_) for _, runs_ in symbols)])[:-1]
    joined = unpack_looks(pack_looks(ManyExtremes.of(runs))).taken(
        ManyExtremes.of([]), range(len(runs))
    )
    for got, (bars, _) in zip(joined.joined(begins), symbols, strict=True):
        expected = extremes_of(*bars)
        for name, value in vars(expected).items():
            if name == "volumes":
                assert got.volumes.tolist() == value.tolist()
            elif name != "leap_time" or expected.n_leaps:
                assert getattr(got, name) == value, name
