"""Simulated bars: valid, repeatable, with the traits they promise."""

import numpy as np
import pandas as pd
import pytest

import grandbatch as gb
from grandbatch import simulate
from grandbatch.errors import UsageError
from grandbatch.simulate import create_large_dataset_simulation


def frame_of(tmp_path, num_rows, **options):
    path = tmp_path / "x.csv"
    written = create_large_dataset_simulation(path, num_rows, **options)
    assert written == {"rows": num_rows, "bytes": path.stat().st_size}
    return pd.read_csv(path, parse_dates=["timestamp"])


def test_bars_are_consistent_multiples_of_the_tick_and_evenly_spaced(tmp_path):
    frame = frame_of(tmp_path, 20_000)
    assert list(frame.columns) == ["timestamp", "open", "high", "low", "close", "volume"]
    prices = frame[["open", "high", "low", "close"]]
    assert (prices > 0).all(axis=None)
    assert (prices * 4 % 1 == 0).all(axis=None)
    assert (frame["high"] == prices.max(axis=1)).all()
    assert (frame["low"] == prices.min(axis=1)).all()
    assert (frame["volume"] > 0).all()
    expected = pd.date_range("2020-01-01", periods=20_000, freq="5min")
    assert (frame["timestamp"] == expected).all()


def test_the_seed_decides_the_bytes_and_the_block_size_does_not(tmp_path, monkeypatch):
    def bytes_of(seed, block_rows, symbols):
        monkeypatch.setattr(simulate, "_BLOCK_ROWS", block_rows)
        path = tmp_path / "x.csv"
        create_large_dataset_simulation(path, 1000, seed=seed, symbols=symbols)
        return path.read_bytes()

    for symbols in (1, 3):
        assert bytes_of(1, 10_000, symbols) == bytes_of(1, 77, symbols)
        assert bytes_of(1, 500, symbols) != bytes_of(2, 500, symbols)


def test_symbols_are_interleaved_by_time(tmp_path):
    frame = frame_of(tmp_path, 100, symbols=11, freq="1h")
    assert list(frame.columns)[1] == "symbol"
    assert frame["symbol"].head(12).tolist() == [f"S{i:02d}" for i in range(11)] + ["S00"]
    first = frame[frame["symbol"] == "S00"]["timestamp"]
    assert (first.diff().dropna() == pd.Timedelta("1h")).all()


def test_volatility_clusters_and_volume_has_a_daily_shape(tmp_path):
    frame = frame_of(tmp_path, 100_000)
    size = np.abs(np.diff(np.log(frame["close"])))
    assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.05
    by_hour = frame.groupby(frame["timestamp"].dt.hour)["volume"].mean()
    assert by_hour.max() > 2 * by_hour.min()


@pytest.mark.parametrize(("signal", "low", "high"), [(0.0, -0.02, 0.02), (0.5, 0.2, 0.7)])
def test_the_signal_makes_returns_follow_from_momentum(tmp_path, signal, low, high):
    close = frame_of(tmp_path, 50_000, signal=signal)["close"]
    momentum = (close / close.shift(10) - 1)[10:-1]
    next_return = (close.shift(-1) / close - 1)[10:-1]
    assert low < -np.corrcoef(momentum, next_return)[0, 1] < high


@pytest.mark.parametrize(
    "options",
    [
        {"num_rows": 0},
        {"symbols": 0},
        {"freq": "5ms"},
        {"freq": "0s"},
        {"freq": "month"},
        {"seed": -1},
        {"signal": 1.0},
        {"num_rows": 100_000, "freq": "1d"},
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, options):
    with pytest.raises(UsageError):
        create_large_dataset_simulation(tmp_path / "x.csv", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "said"), [(".", "is a folder"), ("x.csv.gz", "plain CSV")])
def test_a_name_that_is_no_csv_file_is_refused(tmp_path, name, said):
    with pytest.raises(UsageError, match=said):
        create_large_dataset_simulation(tmp_path / name, 10)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        create_large_dataset_simulation(tmp_path / "none" / "x.csv", 10)


def predicted(features, returns):
    """How well ridge regression on the first two thirds foretells the rest, as a t value."""
    n = len(features) * 2 // 3
    scaled = (features - features[:n].mean(0)) / np.where(
        features[:n].std(0), features[:n].std(0), 1
    )
    weights = np.linalg.solve(
        scaled[:n].T @ scaled[:n] + 30 * np.eye(scaled.shape[1]), scaled[:n].T @ returns[:n]
    )
    return np.corrcoef(scaled[n:] @ weights, returns[n:])[0, 1] * np.sqrt(len(returns) - n)


def test_a_signal_of_a_timeframe_shows_in_its_windows_and_not_in_those_of_fast_bars(tmp_path):
    path = tmp_path / "x.csv"
    create_large_dataset_simulation(path, 14_000, seed=3, signal=0.5, signal_timeframe="30min")
    fast = gb.build_store(path, tmp_path / "fast.zarr", feature_set="tactical", overlap=59)
    slow = gb.build_store(
        path, tmp_path / "slow.zarr", feature_set="strategic", overlap=47, resample="30min"
    )
    minute = 60 * 10**9
    known = np.searchsorted(slow.end_time[:] + 30 * minute, fast.end_time[:] + 5 * minute, "right")
    returns = fast.next_return[:]
    kept = (known > 0) & ~np.isnan(returns)
    strategic = slow.matrices[:][known[kept] - 1].reshape(kept.sum(), -1)
    tactical = fast.matrices[:][kept].reshape(kept.sum(), -1)
    assert predicted(strategic, returns[kept]) > 8
    assert abs(predicted(tactical, returns[kept])) < 2.5


def test_a_signal_of_a_timeframe_leaves_neighbouring_returns_unrelated(tmp_path):
    close = frame_of(tmp_path, 200_000, signal=0.9, signal_timeframe="30min")["close"]
    move = np.diff(np.log(close))
    for bars in (1, 2, 3, 5, 10, 60, 81):
        before = np.convolve(move, np.ones(bars), "valid")[:-1]
        assert abs(np.corrcoef(before, move[bars:])[0, 1]) < 4 / np.sqrt(len(before))


def test_a_signal_of_a_timeframe_looks_back_only_and_any_block_size_gives_the_same(
    tmp_path, monkeypatch
):
    path, kept = tmp_path / "x.csv", []
    for rows, block_rows in ((3000, 10_000), (3000, 77), (1500, 10_000)):
        monkeypatch.setattr(simulate, "_BLOCK_ROWS", block_rows)
        create_large_dataset_simulation(path, rows, symbols=3, signal=0.5, signal_timeframe="30min")
        kept.append(path.read_bytes())
    assert kept[0] == kept[1]
    assert kept[0].startswith(kept[2])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"signal": 0.0}, "give signal"),
        ({"signal_timeframe": "7min"}, "a multiple of it"),
        ({"signal_timeframe": "15min"}, "at least 4 times"),
        ({"signal_timeframe": "7h"}, "go into a day"),
        ({"signal_timeframe": "soon"}, "signal_timeframe must be whole seconds"),
    ],
)
def test_a_timeframe_that_no_signal_can_have_is_refused(tmp_path, options, said):
    with pytest.raises(UsageError, match=said):
        create_large_dataset_simulation(
            tmp_path / "x.csv", 10, **{"signal": 0.5, "signal_timeframe": "30min", **options}
        )
