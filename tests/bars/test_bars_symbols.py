"""Thousands of symbols in one file: each as if it had been alone."""

import itertools
import os

import numpy as np
import pytest

import grandbatch as gb
from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.cache.upkeep import iter_bad_rows
from grandbatch.errors import InputError
from grandbatch.scheduling import Schedule

HEADER = "timestamp,symbol,open,high,low,close,volume"
HERE = Schedule.local("sync")


def prices(n_symbols, n_bars, seed=0):
    """Closes in cents, (n_symbols, n_bars)."""
    steps = np.random.default_rng(seed).integers(-30, 31, (n_symbols, n_bars))
    return 100_000 + np.cumsum(steps, axis=1)


def line_of(time, symbol, cents):
    low, close, high = ((cents + d) / 100 for d in (-5, 0, 5))
    return f"{time},{symbol},{close},{high},{low},{close},{cents % 997}\n"


def times_of(n_bars):
    return np.datetime_as_string(np.datetime64("2024-01-01", "s") + 300 * np.arange(n_bars))


def write(path, lines):
    with path.open("w") as file:
        file.write(f"{HEADER}\n")
        file.writelines(lines)
    return path


SINGLES = int(os.environ.get("GRANDBATCH_SINGLES", "25"))
"""How many of a thousand symbols are built alone, too; all take minutes."""


@pytest.mark.slow
def test_a_thousand_interleaved_symbols_build_as_each_alone(tmp_path):
    n_symbols, n_bars = 1000, 2000
    cents, times = prices(n_symbols, n_bars), times_of(n_bars)
    names = [f"S{i * 7 % n_symbols:03d}" for i in range(n_symbols)]
    together = write(
        tmp_path / "all.csv",
        (
            line_of(time, name, c)
            for time, column in zip(times, cents.T.tolist(), strict=True)
            for name, c in zip(names, column, strict=True)
        ),
    )
    store = gb.build_store(together, tmp_path / "all.zarr", durable=False)
    bars = prepare_bars(together, tmp_path / ".grandbatch" / "bars")
    together.unlink()
    assert list(store.symbols) == list(bars.symbols) == sorted(names)
    order = np.argsort(names)
    np.testing.assert_array_equal(
        bars.read(0, len(bars), ("close",))["close"].reshape(n_symbols, n_bars),
        cents[order] / 100,
    )
    starts = np.searchsorted(store.symbol[:], np.arange(n_symbols + 1))
    for code in np.random.default_rng(1).choice(n_symbols, SINGLES, replace=False):
        number = order[code]
        lines = map(line_of, times, itertools.repeat(names[number]), cents[number].tolist())
        path = write(tmp_path / f"{code}.csv", lines)
        alone = gb.build_store(path, tmp_path / f"{code}.zarr", durable=False)
        windows = slice(starts[code], starts[code + 1])
        np.testing.assert_array_equal(store.matrices[windows], alone.matrices[:])
        np.testing.assert_array_equal(store.end_time[windows], alone.end_time[:])
        np.testing.assert_array_equal(store.next_return[windows], alone.next_return[:])


@pytest.mark.parametrize(("interleaved", "sort"), [(True, False), (False, False), (True, True)])
def test_symbols_of_very_different_lengths_are_whole(tmp_path, interleaved, sort):
    n_symbols = 1000
    lengths = np.random.default_rng(0).zipf(1.5, n_symbols).clip(1, 500)
    lengths[:2] = 5000, 1
    cells = [(bar, symbol) for symbol, n in enumerate(lengths.tolist()) for bar in range(n)]
    if interleaved:
        cells.sort()
    times = times_of(5000)
    path = write(tmp_path / "x.csv", (line_of(times[b], f"S{s:04d}", 9000 + b) for b, s in cells))
    bars = prepare_bars(path, tmp_path / "c", BarRules(sort=sort), HERE, 200_000)
    assert np.diff(bars.symbol_bounds).tolist() == lengths.tolist()
    close = bars.read(0, len(bars), ("close",))["close"]
    expected = np.concatenate([9000 + np.arange(n) for n in lengths]) / 100
    np.testing.assert_array_equal(close, expected)


HOSTILE = [
    *("/", "//", "..", ".", "../../etc", "CON", "NUL.txt", "a\\b", "symbol=A", "%2F", "%", "a b"),
    *("\u00e4", "\u4e2d\u6587", "\u202e", "e\u0301", "\u00e9", "~", "$(x)", "`"),
    *("a", "A", "-rf", "*"),
]  # fmt: skip


def test_hostile_names_in_a_column_stay_apart_and_inside_the_cache(tmp_path):
    lines = [line_of(time, name, 5000) for time in times_of(3) for name in HOSTILE]
    path = write(tmp_path / "x.csv", lines)
    bars = prepare_bars(path, tmp_path / "c", BarRules(), HERE, 300)
    assert list(bars.symbols) == sorted(HOSTILE)
    assert np.diff(bars.symbol_bounds).tolist() == [3] * len(HOSTILE)
    inside = bars.path.resolve()
    assert all((bars.path / part.path).resolve().parent == inside for part in bars.parts)
    assert {entry.name for entry in (tmp_path / "c").iterdir()} >= {bars.path.name}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["c", "x.csv"]


def test_empty_names_are_missing_and_endless_ones_refused(tmp_path):
    lines = [line_of(time, name, 5000) for time in times_of(3) for name in ("A", "", " ", '""')]
    path = write(tmp_path / "x.csv", lines)
    bars = prepare_bars(path, tmp_path / "c", BarRules(max_bad_fraction=1), HERE)
    assert bars.symbols == ("A",)
    assert {row.reason for row in iter_bad_rows(bars.path)} == {"missing"}
    path = write(tmp_path / "y.csv", [line_of(times_of(1)[0], "x" * 500, 5000)])
    with pytest.raises(InputError, match="at most 200 may be"):
        prepare_bars(path, tmp_path / "c", BarRules(), HERE)


@pytest.mark.parametrize("letter", ["x", "é", "茅", "/", "😀"])
def test_a_symbol_of_200_bytes_is_one_whatever_its_letters(tmp_path, letter):
    name = letter * (200 // len(letter.encode()))
    names = [name, name[:-1] + "y"]
    rows = [f"2024-01-02 00:{i:02d},{name},10,12,9,11,{i}" for i in range(20) for name in names]
    path = tmp_path / "x.csv"
    path.write_text("\n".join(["timestamp,symbol,open,high,low,close,volume", *rows, ""]))
    bars = prepare_bars(path, tmp_path / "c", BarRules(), HERE)
    assert bars.symbols == tuple(sorted(names))
    assert bars.read(0, 40, ("volume",))["volume"].tolist() == [*range(20)] * 2
