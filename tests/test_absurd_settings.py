"""Settings far from sense: one line each, whose remedy works."""

from __future__ import annotations

import pytest
from simulated import write_bars

import grandbatch as gb
from grandbatch.bars import BarRules
from grandbatch.errors import NoWindowsError, UsageError
from grandbatch.mappo import MappoTrainer
from grandbatch.order import OrderSettings

HUGE = 10**30


def build(folder, **options):
    source = write_bars(folder / "b.csv", 300)
    return gb.build_store(source, folder / "s.zarr", durable=False, check=False, **options)


def test_a_window_too_long_for_any_chunk_is_told_as_that(tmp_path):
    with pytest.raises(UsageError) as told:
        build(tmp_path, sequence_length=HUGE)
    assert "chunk-windows" not in str(told.value)
    most = int(str(told.value).partition("at most ")[2].partition(" rows")[0].replace(",", ""))
    with pytest.raises(UsageError, match=r"--chunk-windows \d+ would fit"):
        build(tmp_path, sequence_length=most, chunk_windows=1024)
    with pytest.raises(NoWindowsError):
        build(tmp_path, sequence_length=most, chunk_windows=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["overlap", "chunk_windows"])
def test_other_sizes_beyond_sense_are_refused_and_what_is_offered_works(tmp_path, name):
    with pytest.raises(UsageError, match=r"got 1000|would fit") as told:
        build(tmp_path, **{name: HUGE})
    _, _, offered = str(told.value).partition("--chunk-windows ")
    if offered:
        assert build(tmp_path, chunk_windows=int(offered.split()[0])).attrs["n_rows"] == 300


@pytest.mark.parametrize(
    "name", ["batch_size", "prefetch_batches", "checkpoint_frequency", "num_workers"]
)
def test_counts_of_a_loader_beyond_sense_are_refused(name):
    with pytest.raises(UsageError, match=f"{name} must be at most 9,007,199,254,740,992"):
        gb.BatchConfig(**{name: HUGE})


@pytest.mark.parametrize(
    "rules",
    [
        {"delimiter": "\udcff"},
        {"symbol": "\udcffA"},
        {"columns": {"open": "\udcff"}},
        {"where": {"\udcff": "1"}},
        {"ignore_columns": ["a", "\udcff"]},
        {"timestamp_format": "%Y\udcff"},
    ],
)
def test_texts_that_are_no_utf8_are_refused_as_rules(rules):
    with pytest.raises(UsageError, match=f"^{next(iter(rules))} must be text in UTF-8, got "):
        BarRules(**rules)


def test_the_largest_batch_is_all_windows(tmp_path):
    store = build(tmp_path)
    (batch,) = gb.SlidingWindowDataLoader(store, gb.BatchConfig(batch_size=2**53))
    assert len(batch) == store.attrs["n_windows"]


@pytest.mark.parametrize("name", ["shuffle_chunks", "run_length"])
def test_counts_of_an_order_beyond_sense_are_refused(name):
    with pytest.raises(UsageError, match=f"{name} must be at most 2,147,483,647"):
        OrderSettings(**{name: HUGE})


def test_threads_beyond_sense_are_refused(tmp_path):
    store = build(tmp_path)
    with pytest.raises(UsageError, match="torch_threads must be at most 1,024"):
        MappoTrainer.for_store(store, torch_threads=HUGE)
