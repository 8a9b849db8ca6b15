"""In the order of periods, a store holds the same windows, numbered by time first."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from simulated import write_bars

import grandbatch as gb
from grandbatch.builder.builder import BuildOptions, build
from grandbatch.builder.reuse import Request
from grandbatch.builder.settings import make_settings
from grandbatch.errors import StoreMismatchError, UsageError
from grandbatch.evaluation.walking import read_tape
from grandbatch.loader.subset import select, within
from grandbatch.order import OrderSettings
from grandbatch.report.coverage import read_coverage
from grandbatch.scheduling import Schedule
from grandbatch.splits import span_reader
from grandbatch.values.times import period_starts

DAY = 86_400 * 10**9
LABELS = ("end_time", "symbol", "close_price", "next_return", "first_row")


@pytest.fixture(autouse=True, scope="module")
def small_files():
    """Files of a few chunks, so that few bars fill many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grandbatch.store.format._FILE_BYTES", 10_000)
        yield


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """Six days of three symbols, of which each but the first leaves out some hours."""
    path = write_bars(tmp_path_factory.mktemp("bars") / "b.csv", 1700, symbols=3, seed=5)
    header, *lines = path.read_text().splitlines(keepends=True)
    del lines[2900:3100], lines[5000:5090]
    path.write_text(header + "".join(lines))
    return path


def digest(folder):
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def built(bars, path, overlap=40, order="period", period="1D", layout="windows", **options):
    settings = make_settings(
        "strategic", None, overlap, layout, 16, "auto", "1h", order,
        period if order == "period" else None,
    )  # fmt: skip
    request = Request.of(bars, path, settings, gb.BarRules())
    chosen = {"schedule": Schedule.local("sync"), "durable": False, **options}
    return build(request, BuildOptions(**chosen)).store


@pytest.mark.parametrize("layout", ["windows", "rows"])
@pytest.mark.parametrize("overlap", [12, 47])
def test_windows_are_those_of_the_order_of_symbols_by_the_day_of_their_last_bar(
    bars, tmp_path, overlap, layout
):
    by_symbol = built(bars, tmp_path / "a.zarr", overlap, "symbol", layout=layout)
    by_day = built(bars, tmp_path / "b.zarr", overlap, layout=layout)
    assert by_day.verify().ok
    days = by_symbol.end_time[:] // DAY
    places = np.argsort(days, kind="stable")
    assert len(np.unique(days)) > 3
    for name in LABELS:
        wanted = getattr(by_symbol, name)[:][places]
        np.testing.assert_array_equal(getattr(by_day, name)[:], wanted)
    np.testing.assert_array_equal(by_day.matrices[:], by_symbol.matrices[:][places])
    for name, figures in by_symbol.feature_stats.items():
        assert by_day.feature_stats[name] == pytest.approx(figures, rel=1e-12)
    assert (by_day.attrs["order"], by_day.attrs["period"]) == ("period", "1D")
    assert by_day.fingerprint != by_symbol.fingerprint
    assert by_day.content_id != by_symbol.content_id
    assert "order" not in by_symbol.attrs


@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_engines_partitions_and_threads_give_the_same_bytes(bars, tmp_path, layout):
    ways = [
        {"engine": "direct"},
        {"engine": "overlap"},
        {"engine": "overlap", "partition_bars": 100},
        {"engine": "direct", "partition_bars": 700, "schedule": Schedule.local("threads", 2)},
        {"engine": "overlap", "partition_bars": 3000, "schedule": Schedule.local("threads", 2)},
    ]
    stores = [
        digest(built(bars, tmp_path / f"{number}.zarr", layout=layout, **way).path)
        for number, way in enumerate(ways)
    ]
    assert len(set(stores)) == 1


def test_one_symbol_is_in_the_same_order_either_way(tmp_path):
    path = write_bars(tmp_path / "b.csv", 900)
    one = built(path, tmp_path / "a.zarr", order="symbol")
    other = built(path, tmp_path / "b.zarr")
    np.testing.assert_array_equal(one.matrices[:], other.matrices[:])
    np.testing.assert_array_equal(one.first_row[:], other.first_row[:])


def test_another_order_or_period_at_the_path_is_named(bars, tmp_path):
    path = tmp_path / "s.zarr"
    built(bars, path, order="symbol")
    with pytest.raises(StoreMismatchError, match=r"order \(symbol, now period\), period \(None, "):
        built(bars, path)
    built(bars, path, overwrite=True)
    with pytest.raises(StoreMismatchError, match=r"period \(1D, now 1W\)"):
        built(bars, path, period="1W")
    assert built(bars, path, period="d").fingerprint


@pytest.mark.parametrize(
    ("order", "period", "said"),
    [("time", None, "choose symbol or period"), ("symbol", "1M", "--order period"),
     ("period", "5min", "calendar days"), ("period", "0D", "calendar days")],
)  # fmt: skip
def test_orders_and_periods_that_make_no_sense_are_refused(order, period, said):
    with pytest.raises(UsageError, match=said):
        make_settings("strategic", None, None, "windows", None, "auto", None, order, period)


@pytest.mark.parametrize(
    ("period", "first", "last", "starts"),
    [
        ("1D", "2024-02-28T23:59", "2024-03-01", ["2024-02-29", "2024-03-01"]),
        ("1W", "2024-01-03", "2024-01-15", ["2024-01-08", "2024-01-15"]),
        ("M", "2023-12-31", "2024-03-01", ["2024-01-01", "2024-02-01", "2024-03-01"]),
        ("1Q", "2023-11-05", "2024-04-02", ["2024-01-01", "2024-04-01"]),
        ("1y", "1969-12-31", "1971-01-01", ["1970-01-01", "1971-01-01"]),
    ],
)
def test_periods_begin_where_the_calendar_says(period, first, last, starts):
    ends = [np.datetime64(time, "ns").astype(np.int64) for time in (first, last)]
    found = period_starts(period, *ends)[1:]
    assert found.view("M8[ns]").astype("M8[D]").astype(str).tolist() == starts


@pytest.mark.parametrize("layout", ["windows", "rows"])
@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.6, 0.2, 0.2)], ids=["two", "three"])
def test_a_split_by_time_is_a_range_of_chunks_and_no_others_are_read(
    bars, tmp_path, monkeypatch, layout, shares
):
    store = built(bars, tmp_path / "s.zarr", layout=layout)
    names = ("train", "validation", "test")[: len(shares)]
    splits = gb.split_store(store, dict(zip(names, shares, strict=True)), embargo="10min")
    read = []
    read_chunk, read_chunks = gb.MatrixStore.read_chunk, gb.MatrixStore.read_chunks
    monkeypatch.setattr(
        gb.MatrixStore,
        "read_chunk",
        lambda self, n, *rest: read.append(n) or read_chunk(self, n, *rest),
    )
    monkeypatch.setattr(
        gb.MatrixStore,
        "read_chunks",
        lambda self, some, *rest: read.extend(some) or read_chunks(self, some, *rest),
    )
    config = gb.BatchConfig(sequence_length=48, overlap=40, batch_size=8, num_workers=1)
    chunk_of = np.arange(len(store)) // store.chunk_windows
    times = store.end_time[:]
    total = 0
    for split in splits.values():
        read.clear()
        loader = gb.SlidingWindowDataLoader(store, config, shuffle=True, subset=split)
        windows = np.concatenate(
            [batch.index.numpy()[batch.weight.numpy() > 0] for batch in loader]
        )
        assert len(windows) == split.n_windows
        holding = np.unique(windows // store.chunk_windows)
        assert sorted(set(read)) == holding.tolist()
        inside = chunk_of[(times >= split.start) & (times < split.stop)]
        assert set(read) <= set(inside)
        # purged windows lie at a split's borders: what is between is read
        assert holding[-1] - holding[0] < len(holding) + 4
        total += len(holding)
    assert total <= store.n_chunks + 2 * (len(shares) - 1)


@pytest.mark.parametrize("overlap", [12, 47])
def test_splits_keep_the_same_windows_in_either_order(bars, tmp_path, overlap):
    stores = [
        built(bars, tmp_path / f"{order}.zarr", overlap, order) for order in ("symbol", "period")
    ]
    kept = []
    for store in stores:
        first_row, spans = store.first_row[:], span_reader(store)
        splits = gb.split_store(store, {"train": 0.6, "validation": 0.2, "test": 0.2})
        found = [np.array(spans(0, len(store)))[:, np.argsort(first_row)].tolist()]
        for split in splits.values():
            chosen = select(store, within(OrderSettings(), split))
            ranges = zip(chosen.begin, chosen.end, strict=True)
            windows = np.concatenate([np.arange(*limits) for limits in ranges])
            found.append(sorted(first_row[windows].tolist()))
        kept.append((found, [split.to_json() for split in splits.values()]))
    assert kept[0] == kept[1]


def test_policies_walk_the_same_way_in_either_order(bars, tmp_path):
    tapes = []
    for order in ("symbol", "period"):
        store = built(bars, tmp_path / f"{order}.zarr", 47, order)
        tape = read_tape(store, None)
        matrices = gb.evaluation.walking._read_windows(store, tape.window)
        rest = (tape.time, tape.symbol, tape.next_return, tape.begins)
        tapes.append((store.first_row[:][tape.window], matrices, *rest))
    for one, other in zip(*tapes, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_covered_is_the_same_in_either_order(bars, tmp_path):
    one, other = (
        read_coverage(built(bars, tmp_path / f"{order}.zarr", 30, order))
        for order in ("symbol", "period")
    )
    assert one.gaps == other.gaps
    for a, b in zip(one.symbols, sorted(other.symbols, key=lambda s: s.name), strict=True):
        assert (a.name, a.first, a.last, a.n_windows) == (b.name, b.first, b.last, b.n_windows)
