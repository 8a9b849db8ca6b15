"""The cache of bars: reuse, crashes, damage, reading."""

import errno
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from grandbatch.bars import BarRules, find_bars, open_bars, prepare_bars, read_bars
from grandbatch.bars.building import build as building
from grandbatch.bars.building import making
from grandbatch.bars.cache import keeping
from grandbatch.errors import DiskFullError, InputError, UsageError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
HEADER = "timestamp,symbol,open,high,low,close,volume"
MINUTE = 60 * 10**9


def write(path, minutes, symbols=("A",)):
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(list(minutes), unit="min")
    lines = [
        f"{time},{symbol},10,12,9,11,{i}" for i, time in enumerate(times) for symbol in symbols
    ]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


@pytest.fixture
def csv(tmp_path):
    return write(tmp_path / "x.csv", range(100), ("B", "A"))


def prepare(csv, **rules):
    return prepare_bars(csv, csv.parent / "cache", BarRules(**rules), HERE)


def test_unchanged_inputs_are_not_read_again(csv, monkeypatch):
    built = prepare(csv)
    monkeypatch.setattr(making, "build_bars", None)
    again = prepare(csv)
    assert again.path == built.path
    assert find_bars(csv, csv.parent / "cache", BarRules(allow_non_positive=True)) is None


def test_a_touched_file_is_digested_and_found_a_changed_one_is_not(csv):
    built = prepare(csv)
    os.utime(csv, ns=(1, 1))
    found = find_bars(csv, csv.parent / "cache")
    assert found is not None
    assert found.fingerprint == built.fingerprint
    text = csv.read_text()
    csv.write_text(text.replace(",11,0", ",11,7", 1))
    assert find_bars(csv, csv.parent / "cache") is None
    changed = prepare(csv)
    assert changed.fingerprint != built.fingerprint


def test_reuse_imports_nothing_heavy(csv):
    prepare(csv)
    code = (
        "import sys; from grandbatch.bars import find_bars;"
        f"assert find_bars({str(csv)!r}, {str(csv.parent / 'cache')!r}) is not None;"
        "heavy = {'dask', 'pandas', 'pyarrow', 'numba', 'torch', 'zarr'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_nothing_is_published_of_a_build_that_failed(csv, monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(building, "check_bad_rows", lambda *args, **options: fail())
        with pytest.raises(DiskFullError, match="bytes"):
            prepare(csv)
    assert [path.name for path in (csv.parent / "cache").iterdir() if path.is_dir()] == []
    assert prepare(csv).n_rows == 200


def test_leftovers_of_a_killed_build_are_replaced(csv, monkeypatch):
    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keeping.shutil, "rmtree", lambda *args, **kwargs: None)
        patch.setattr(building, "plan_parts", die)
        with pytest.raises(KeyboardInterrupt):
            prepare(csv)
    assert any(path.name.startswith(".staging") for path in (csv.parent / "cache").iterdir())
    built = prepare(csv)
    folders = {path.name for path in (csv.parent / "cache").iterdir() if path.is_dir()}
    assert folders == {"inputs", built.fingerprint}


@pytest.mark.parametrize("harm", ["cut", "gone", "manifest"])
def test_a_damaged_cache_is_no_cache_and_is_built_anew(csv, harm):
    built = prepare(csv)
    part = built.path / built.parts[0].path
    if harm == "cut":
        part.write_bytes(part.read_bytes()[:-1])
    elif harm == "gone":
        part.unlink()
    else:
        (built.path / "bars.json").write_text("{")
    assert open_bars(built.path) is None
    again = prepare(csv)
    assert again.path == built.path
    assert again.read(0, 200)["volume"].tolist() == list(range(100)) * 2


def test_a_cache_that_is_cleared_under_a_reader_is_an_error(csv):
    bars = prepare(csv)
    for path in {part.path for part in bars.parts}:
        (bars.path / path).unlink()
    with pytest.raises(InputError, match="cleared"):
        bars.read(0, 10)


def test_bars_go_through_a_pickle(csv):
    bars = prepare(csv)
    again = pickle.loads(pickle.dumps(bars))
    assert again.symbols == ("A", "B")
    np.testing.assert_array_equal(again.read(5, 9)["timestamp"], bars.read(5, 9)["timestamp"])


def test_wrong_rows_columns_and_bounds_are_refused(csv):
    bars = prepare(csv)
    for call in (
        lambda: bars.read(-1, 5),
        lambda: bars.read(5, 4),
        lambda: bars.read(0, 201),
        lambda: bars.read(0, 5, ("price",)),
        lambda: bars.frame([0, 100]),
        lambda: bars.frame([0, 150, 100, 200]),
    ):
        with pytest.raises(UsageError):
            call()


def test_segments_end_at_symbols_and_at_long_gaps(tmp_path):
    minutes = [0, 1, 2, 10, 11, 30]
    bars = prepare(write(tmp_path / "x.csv", minutes, ("A", "B")))
    whole = bars.segments()
    assert whole.start.tolist() == [0, 6]
    cut = bars.segments(5 * MINUTE)
    assert cut.start.tolist() == [0, 3, 5, 6, 9, 11]
    assert cut.length.tolist() == [3, 2, 1, 3, 2, 1]
    assert cut.symbol.tolist() == [0, 0, 0, 1, 1, 1]
    assert bars.segments(8 * MINUTE).start.tolist() == [0, 5, 6, 11]


def test_a_gap_of_five_centuries_is_a_gap(tmp_path):
    path = tmp_path / "x.csv"
    days = ("1700-01-01", "2260-01-01", "2260-01-02")
    path.write_text("\n".join([HEADER, *(f"{day},A,10,12,9,11,100" for day in days)]))
    assert prepare(path).segments(5 * 24 * 60 * MINUTE).start.tolist() == [0, 1]


def test_the_frame_holds_the_bars_in_order_for_any_bounds(csv):
    bars = prepare(csv)
    whole = bars.frame().compute(scheduler="sync")
    cut = bars.frame([0, 7, 7, 150, 200]).compute(scheduler="sync")
    pd.testing.assert_frame_equal(whole, cut)
    assert list(whole.columns) == HEADER.split(",")
    assert str(whole["timestamp"].dtype) == "datetime64[ns, UTC]"
    rows = bars.read(0, bars.n_rows)
    np.testing.assert_array_equal(whole["timestamp"].astype("int64"), rows["timestamp"])
    assert whole["symbol"].tolist() == ["A"] * 100 + ["B"] * 100


def test_read_bars_caches_below_the_current_folder(csv, monkeypatch):
    monkeypatch.chdir(csv.parent)
    frame = read_bars(csv, schedule=HERE, timezone="UTC")
    assert len(frame) == 200
    assert (csv.parent / ".grandbatch" / "bars").is_dir()
