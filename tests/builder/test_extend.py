"""A store whose inputs grew at their end is extended: in the bytes of a build from scratch."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from distributed import Client, LocalCluster
from growing import Growing, by_time, dated, digest, lines, small_files, text  # noqa: F401 (a fixture of every test here)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import grandbatch as gb
from grandbatch.cli.main import app
from grandbatch.errors import StoreChangedError
from grandbatch.scheduling import Schedule

VARIANTS = [
    {"overlap": 12, "targets": "forward_return:5,triple_barrier:0.01:0.01:60"},
    {"overlap": 12, "layout": "rows", "codec": "none"},
    {"overlap": 12, "codec": "zstd", "chunk": 1},
    {"overlap": 47, "chunk": 16},
    {"overlap": 47, "layout": "rows", "codec": "lz4", "chunk": 16},
    {"overlap": 47, "codec": "none", "chunk": 48},
    {"overlap": 12, "order": "period", "period": "1D"},
    {"overlap": 47, "layout": "rows", "chunk": 16, "order": "period", "period": "1D"},
]


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("way", ["rows", "file", "both"])
def test_new_bars_of_one_symbol_keep_all_full_files(tmp_path, variant, way):
    (bars,) = lines(1700)
    growing = Growing(tmp_path, **variant)
    growing.write(a=text(bars[:1300]))
    before = growing.build()
    assert before.kept_chunks == 0
    if way == "rows":
        after = growing.grow(a=text(bars))
    elif way == "file":
        after = growing.grow(a=text(bars[:1300]), b=text(bars[1300:]))
    else:
        after = growing.grow(a=text(bars[:1500]), b=text(bars[1500:]))
    per_file = before.store.spec.shard_chunks * before.store.chunk_windows
    full = len(before.store) // per_file
    assert full > 1
    assert after.kept_chunks == full * before.store.spec.shard_chunks
    assert (after.reused, after.resumed_chunks) == (False, 0)
    assert len(after.store) > len(before.store)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_symbols_of_one_file_keep_the_files_before_the_first_moved_window(tmp_path, variant):
    a, b = lines(900, symbols=2)
    growing = Growing(tmp_path, **variant)
    growing.write(x=text(a, b[:600]))
    n_first = int((growing.build().store.symbol[:] == 0).sum())
    after = growing.grow(x=text(a, b))
    per_file = after.store.spec.shard_chunks * after.store.chunk_windows
    assert after.kept_chunks * after.store.chunk_windows >= n_first // per_file * per_file > 0


def test_symbols_interleaved_by_time_keep_what_the_first_symbol_does_not_move(tmp_path):
    a, b = lines(1600, symbols=2)
    growing = Growing(tmp_path)
    growing.write(x=text(by_time(a[:1200], b[:1200])))
    before = growing.build().store
    n_first = int((before.symbol[:] == 0).sum())
    after = growing.grow(x=text(by_time(a, b)))
    full = n_first // (before.spec.shard_chunks * before.chunk_windows)
    assert full > 0
    assert after.kept_chunks == full * before.spec.shard_chunks


def test_rows_too_few_for_a_window_change_next_returns_only(tmp_path):
    a, b = lines(1000, symbols=2)
    growing = Growing(tmp_path)
    growing.write(x=text(by_time(a[:952], b[:952])))
    before = growing.build().store
    old = {name: getattr(before, name)[:] for name in ("next_return", "first_row", "end_time")}
    after = growing.grow(x=text(by_time(a[:960], b[:960])))
    new = {name: getattr(after.store, name)[:] for name in old}
    assert after.kept_chunks == after.store.n_chunks == before.n_chunks
    np.testing.assert_array_equal(new["end_time"], old["end_time"])
    assert (new["first_row"] != old["first_row"]).any()
    known = ~np.isnan(old["next_return"])
    np.testing.assert_array_equal(new["next_return"][known], old["next_return"][known])
    assert (~known).sum() == 2
    assert not np.isnan(new["next_return"]).any()


def test_bars_that_are_all_bad_keep_every_file(tmp_path):
    (bars,) = lines(1000)
    growing = Growing(tmp_path, rules=gb.BarRules(max_bad_fraction=0.5))
    growing.write(a=text(bars))
    growing.build()
    after = growing.grow(a=text(bars, bars[500:510]))
    assert after.kept_chunks == after.store.n_chunks
    assert after.store.attrs["quarantined"] == {"out_of_order": 10}


def test_gaps_start_segments_in_the_old_and_the_new_bars_alike(tmp_path):
    (bars,) = lines(2500)
    later = [line.replace("2024-01-0", "2024-03-0") for line in bars[300:1500]]
    latest = [line.replace("2024-01-0", "2024-05-0") for line in bars[300:1500]]
    growing = Growing(tmp_path, overlap=40, max_gap="1D")
    growing.write(a=text(bars[:1000], later[:900]))
    growing.build()
    after = growing.grow(a=text(bars[:1000], later, latest))
    assert after.store.attrs["n_segments"] == 3
    assert after.kept_chunks > 0


def test_an_extension_is_extended_and_then_reused(tmp_path):
    (bars,) = lines(2500)
    growing = Growing(tmp_path, overlap=30)
    growing.write(a=text(bars[:900]))
    growing.build()
    kept = [growing.grow(a=text(bars[:stop])).kept_chunks for stop in (1500, 2000, 2500)]
    assert 0 < kept[0] < kept[1] < kept[2]
    assert growing.build().reused


def test_a_reader_of_the_old_version_is_told(tmp_path):
    (bars,) = lines(1500)
    growing = Growing(tmp_path)
    growing.write(a=text(bars[:1200]))
    reader = growing.build().store
    growing.grow(a=text(bars))
    with pytest.raises(StoreChangedError):
        reader.read_chunk(0)
    with pytest.raises(StoreChangedError):
        reader.matrices[:4]


def test_the_command_says_how_many_chunks_it_kept(tmp_path):
    (bars,) = lines(2500)
    growing = Growing(tmp_path)
    told = []
    for stop in (2000, 2500, 2500):
        growing.write(a=text(bars[:stop]))
        result = CliRunner().invoke(
            app,
            ["build", "strategic", *map(str, growing.inputs), "--store", str(tmp_path / "s.zarr"),
             "--chunk-windows", "4", "--scheduler", "sync", "--no-durable", "--json"],
        )  # fmt: skip
        told.append(json.loads(result.stdout))
    assert [one["reused"] for one in told] == [False, False, True]
    assert told[0]["kept_chunks"] == told[2]["kept_chunks"] == 0
    assert 0 < told[1]["kept_chunks"] < told[1]["n_chunks"]


def test_a_last_line_that_only_got_its_end_is_whole(tmp_path):
    (bars,) = lines(1700)
    growing = Growing(tmp_path)
    growing.write(a=text(bars[:1300])[:-1])
    growing.build()
    assert growing.grow(a=text(bars)).kept_chunks > 0


def test_dates_that_keep_their_verdict_keep_the_files(tmp_path):
    (bars,) = lines(1700)
    rows = dated([row.replace("2024-01-0", "2024-01-2") for row in bars], month_first=True)
    growing = Growing(tmp_path)
    growing.write(a=text(rows[:1300]))
    assert growing.build().store.attrs["day_first"] == [False]
    assert growing.grow(a=text(rows[:1500]), b=text(rows[1500:])).kept_chunks > 0


def test_a_new_symbol_in_the_middle_keeps_what_comes_before_it_and_is_named(tmp_path, caplog):
    a, b = lines(1600, symbols=2)
    last = [line.replace(",S1,", ",Z,") for line in b]
    growing = Growing(tmp_path)
    growing.write(a=text(a, last[:900]))
    growing.build()
    with caplog.at_level(logging.INFO, "grandbatch"):
        after = growing.grow(a=text(a, last[:900]), b=text(b))
    assert after.kept_chunks > 0
    assert "S1 now comes before Z" in caplog.text


@pytest.mark.slow
def test_processes_of_a_cluster_extend_in_the_same_bytes(tmp_path):
    (bars,) = lines(2500)
    growing = Growing(tmp_path)
    growing.write(a=text(bars[:2000]))
    growing.build()
    growing.write(a=text(bars))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        # the workers plan nothing: the size of files that this module chose comes with the jobs
        after = growing.build(schedule=Schedule(client=client), partition_bars=400)
    assert after.kept_chunks > 0
    assert digest(after.store.path) == digest(growing.from_scratch().path)


@pytest.mark.slow
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_growth_gives_the_bytes_of_a_build_from_scratch(tmp_path_factory, data):
    n_symbols = data.draw(st.integers(1, 3), "symbols")
    interleaved = data.draw(st.booleans(), "interleaved")
    wanted = data.draw(st.sampled_from(VARIANTS), "variant")
    runs = lines(700, symbols=n_symbols)
    cuts = [
        sorted(data.draw(st.lists(st.integers(90, 700), min_size=3, max_size=3), f"cuts {s}"))
        for s in range(n_symbols)
    ]
    parts = []
    for version in range(3):
        fresh = [
            run[cut[version - 1] if version else 0 : cut[version]]
            for run, cut in zip(runs, cuts, strict=True)
        ]
        parts.append(by_time(*fresh) if interleaved else [line for run in fresh for line in run])
    growing = Growing(tmp_path_factory.mktemp("grow"), **wanted)
    files = {"f0": text(parts[0])}
    growing.write(**files)
    growing.build()
    for part in parts[1:]:
        if not part:
            continue
        if data.draw(st.booleans(), "further file"):
            files[f"f{len(files)}"] = text(part)
        else:
            files[list(files)[-1]] += "".join(part)
        growing.grow(**files)


@pytest.mark.slow
@pytest.mark.parametrize("rules", [{}, {"sort": True}], ids=str)
@pytest.mark.parametrize("way", ["rows", "file"])
@pytest.mark.parametrize("more", [0, 1, 200])
def test_a_last_bar_that_gives_way_to_a_later_row_changes_its_windows(tmp_path, rules, way, more):
    """Only its volume does: time and close, by which windows are compared, are the same."""
    (bars,) = lines(1300 + more)
    new = [bars[1299].rpartition(",")[0] + ",123456\n", *bars[1300:]]
    growing = Growing(tmp_path, rules=gb.BarRules(duplicates="last", **rules), overlap=47)
    growing.write(a=text(bars[:1300]))
    before = growing.build().store.matrices[-1:]
    first = text(bars[:1300])
    after = growing.grow(**({"a": first + "".join(new)} if way == "rows" else
                            {"a": first, "b": text(new)}))  # fmt: skip
    assert after.store.attrs["differing_duplicates"] == 1
    last = 1300 - 88
    assert not np.array_equal(before[0], after.store.matrices[last])
    if not rules and not more:
        assert after.kept_chunks > 0


@pytest.mark.slow
@pytest.mark.parametrize("rules", [{}, {"sort": True}], ids=str)
@pytest.mark.parametrize("more", [1, 2, 200])
def test_a_last_bar_that_turns_out_to_be_a_spike_goes(tmp_path, rules, more):
    (bars,) = lines(1300 + more)
    time, symbol, *prices, volume = bars[1299].strip().split(",")
    spike = ",".join([time, symbol, *(str(float(p) * 3) for p in prices), volume]) + "\n"
    growing = Growing(tmp_path, rules=gb.BarRules(max_jump=0.5, **rules), overlap=47)
    growing.write(a=text(bars[:1299], [spike]))
    before = growing.build()
    assert before.store.attrs["quarantined"] == {}
    after = growing.grow(a=text(bars[:1299], [spike], bars[1300:]))
    assert after.store.attrs["quarantined"] == {"spike": 1}
    assert after.kept_chunks > 0
