"""Stores of sets that read extra columns and the time: the oracle's numbers, however built."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch import windows as w
from grandbatch.bars.cache.bars import Bars
from grandbatch.errors import BadRowsError, KernelError

ZONE = "America/New_York"
EXTRA = ("vwap", "trades", "funding", "spread", "unread")
FILL = {"trades": "zero", "funding": "last", "spread": "last"}
GAPS = ("", "x", "nan", "inf")


def premium(close, vwap, first, out):
    out[:] = close[first:] / vwap[first:] - 1


def hours_of_three(timestamp, trades, first, out):
    """Hours since the bar before, and trades of three bars, in one number."""
    out[:] = w.change(timestamp, 1)[first:] / 3.6e12 + w.sum(trades, 3)[first:]


MINE = gb.FeatureSet(
    "mine",
    [
        gb.column("funding"),
        gb.STRATEGIC.features[0],
        gb.Feature("premium", 0, premium, ("close", "vwap")),
        gb.Feature("hours", 2, hours_of_three, ("timestamp", "trades")),
        gb.time_of_day(ZONE)[1],
        gb.column("spread"),
    ],
    sequence_length=4,
    overlap=3,
)


def rows_of(n, symbols, seed, share=0.15):
    """Rows in time order, with values missing here and there."""
    rng = np.random.default_rng(seed)
    rows, time = [], pd.Timestamp("2024-03-09 20:00")
    price = dict.fromkeys(range(symbols), 100.0)
    for _ in range(n):
        time += pd.Timedelta(int(rng.integers(1, 40)), "min")
        which = int(rng.integers(symbols))
        price[which] = close = round(price[which] * float(np.exp(rng.normal(0, 0.01))), 3)
        values = {
            "vwap": round(close * 1.001, 4),
            "trades": int(rng.integers(0, 9)),
            "funding": round(float(rng.normal()), 6),
            "spread": round(float(rng.random()), 4),
            "unread": 1,
        }
        for name in values:
            if rng.random() < (share if name in FILL else share / 8):
                values[name] = GAPS[int(rng.integers(len(GAPS)))]
        rows.append({"timestamp": time, "symbol": f"S{which}", "open": close, "high": close,
                     "low": close, "close": close, "volume": 5, **values})  # fmt: skip
    return rows


def write_files(folder, rows, n_files):
    paths = []
    for number, part in enumerate(np.array_split(np.arange(len(rows)), n_files)):
        paths.append(folder / f"part{number}.csv")
        pd.DataFrame([rows[k] for k in part]).to_csv(paths[-1], index=False)
    return paths


def number_of(value):
    try:
        number = float(value)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def oracle(rows):
    """Feature rows by symbol and time, one bar after the other."""
    bars, last = {}, {}
    for row in rows:
        values = {name: number_of(row[name]) for name in EXTRA}
        if any(values[name] is None for name in ("vwap", "unread")):
            continue
        seen = last.setdefault(row["symbol"], {})
        for name in ("funding", "spread"):
            if values[name] is not None:
                seen[name] = values[name]
        if len(seen) == 2:
            full = {**values, "trades": values["trades"] or 0.0, **seen}
            bars.setdefault(row["symbol"], []).append({**row, **full})
    found = {}
    for symbol, of in bars.items():
        for k in range(2, len(of)):
            bar = of[k]
            local = bar["timestamp"].tz_localize("UTC").tz_convert(ZONE)
            day = (local.tz_localize(None) - local.tz_localize(None).normalize()).total_seconds()
            hours = (bar["timestamp"] - of[k - 1]["timestamp"]).total_seconds() / 3600
            found[symbol, bar["timestamp"].value] = (
                bar["funding"],
                bar["close"] / of[k - 1]["close"] - 1,
                bar["close"] / bar["vwap"] - 1,
                hours + sum(each["trades"] for each in of[k - 2 : k + 1]),
                np.cos(2 * np.pi * day / 86_400),
                bar["spread"],
            )
    return found


def rules(**more):
    return gb.BarRules(extra=EXTRA, fill=FILL, max_bad_fraction=1.0, **more)


def build(folder, paths, name="s.zarr", **options):
    options = {"scheduler": "sync", "durable": False, "chunk_windows": 16, **options}
    return gb.build_store(paths, folder / name, feature_set=MINE, rules=rules(), **options)


def digest(folder):
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def assert_is(store, wanted):
    for k in range(len(store)):
        symbol = store.attrs["symbols"][store.symbol[k]]
        row = wanted[symbol, int(store.end_time[k])]
        np.testing.assert_allclose(store.matrices[k][-1], row, rtol=1e-6, atol=1e-7)
    by_symbol = pd.Series([symbol for symbol, _ in wanted]).value_counts()
    assert len(store) == sum(max(0, count - 3) for count in by_symbol)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_any_way_of_building_gives_the_bytes_of_one_and_the_numbers_of_the_oracle(tmp_path, layout):
    rows = rows_of(240, 3, seed=1)
    wanted = oracle(rows)
    paths = write_files(tmp_path, rows, 3)
    ways = [
        {},
        {"engine": "overlap", "partition_bars": 40, "scheduler": "threads"},
        {"engine": "overlap", "partition_bars": 1},
        {"engine": "direct", "partition_bars": 40},
        {"engine": "direct", "scheduler": "threads", "workers": 3},
    ]
    stores = [build(tmp_path, paths, f"{k}.zarr", layout=layout, **way)
              for k, way in enumerate(ways)]  # fmt: skip
    assert len({digest(store.path) for store in stores}) == 1
    assert_is(stores[0], wanted)
    assert stores[0].attrs["inputs"] == list(MINE.inputs)
    whole = tmp_path / "whole.csv"
    pd.DataFrame(rows).to_csv(whole, index=False)
    again = build(tmp_path, whole, "whole.zarr", layout=layout)
    np.testing.assert_array_equal(again.matrices[:], stores[0].matrices[:])


@pytest.mark.slow
def test_a_cluster_gives_the_bytes_of_threads(tmp_path):
    paths = write_files(tmp_path, rows_of(400, 2, seed=2), 2)
    plain = digest(build(tmp_path, paths).path)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        for engine in ("overlap", "direct"):
            shutil.rmtree(tmp_path / ".grandbatch", ignore_errors=True)
            far = build(tmp_path, paths, f"{engine}.zarr", client=client, engine=engine,
                        partition_bars=60)  # fmt: skip
            assert digest(far.path) == plain


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.integers(30, 150), st.integers(1, 3), st.integers(0, 2**20))
def test_live_bars_give_the_windows_of_the_store_to_the_bit(tmp_path_factory, n, symbols, seed):
    folder = tmp_path_factory.mktemp("live")
    rows = rows_of(n, symbols, seed)
    live = gb.LiveFeatures(MINE, extra=EXTRA, fill=FILL)
    pushed, refused = {}, 0
    for row in rows:
        try:
            matrix = live.push({**row, **{name: row[name] or None for name in ("vwap", "unread")}})
        except BadRowsError:
            refused += 1
            continue
        if matrix is not None:
            pushed[row["symbol"], row["timestamp"].value] = matrix
    if not pushed:
        return
    store = build(folder, write_files(folder, rows, 1))
    stored = {
        (store.attrs["symbols"][store.symbol[k]], int(store.end_time[k])): store.matrices[k]
        for k in range(len(store))
    }
    assert stored.keys() == pushed.keys()
    assert all(stored[key].tobytes() == matrix.tobytes() for key, matrix in pushed.items())
    assert refused == sum(store.attrs["quarantined"].values())


def test_an_extension_gives_the_bytes_of_a_build_from_scratch(tmp_path):
    rows = rows_of(400, 1, seed=4)
    source = tmp_path / "b.csv"
    for n in (250, 330, 400):
        pd.DataFrame(rows[:n]).to_csv(source, index=False)
        grown = build(tmp_path, source)
        fresh = build(tmp_path, source, f"{n}.zarr", cache=tmp_path / f"cache{n}")
        assert digest(grown.path) == digest(fresh.path)
    assert_is(grown, oracle(rows))


@pytest.mark.parametrize("engine", ["overlap", "direct"])
def test_only_columns_that_are_needed_are_read_from_the_cache(tmp_path, monkeypatch, engine):
    read = set()
    copy = Bars.read

    def watched(self, start, stop, columns):
        read.update(columns if start < stop else ())
        return copy(self, start, stop, columns)

    paths = write_files(tmp_path, rows_of(120, 1, seed=5), 1)
    monkeypatch.setattr(Bars, "read", watched)
    build(tmp_path, paths, engine=engine)
    needed = {"timestamp", "close", "vwap", "trades", "funding", "spread"}
    assert read - {"symbol"} == needed


def test_a_kernel_that_reads_tomorrows_value_is_refused_by_a_build(tmp_path):
    def tomorrow(funding, first, out):
        out[:] = np.append(funding[1:], 0.0)[first:]

    paths = write_files(tmp_path, rows_of(120, 1, seed=6), 1)
    wrong = gb.FeatureSet("wrong", [gb.Feature("tomorrow", 0, tomorrow, ("funding",))], 4)
    with pytest.raises(KernelError, match="'tomorrow' looks ahead"):
        gb.build_store(paths, tmp_path / "w.zarr", feature_set=wrong, rules=rules())


def test_vwap0_of_alpha158_is_of_the_files_own_column(tmp_path):
    rows = rows_of(200, 1, seed=7, share=0)
    paths = write_files(tmp_path, rows, 1)
    chosen = gb.alpha158((5,), exclude=("RANK",), vwap="vwap", sequence_length=2, overlap=1)
    store = gb.build_store(paths, tmp_path / "a.zarr", feature_set=chosen, rules=rules())
    column = store.feature_names.index("VWAP0")
    want = [rows[k]["vwap"] / rows[k]["close"] for k in range(chosen.lookback, 200)]
    np.testing.assert_array_equal(store.matrices[:][:, -1, column], np.array(want[1:], np.float32))
