"""A report says what the store says, in one page that needs nothing else."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.errors import CheckpointError, DamagedStoreError, UsageError
from grandbatch.report import charts, coverage, sampling, write_report
from grandbatch.report import html as html_page
from grandbatch.report import training as training_page
from grandbatch.report.svg import nice_ticks, tick_labels
from grandbatch.training.metrics_log import MetricsLog, read_metrics

SECTIONS = ["made-of", "coverage", "quarantine", "features", "correlations", "samples", "build",
            "training"]  # fmt: skip
SYMBOLS = ["<AAA>", "B&B"]
DAY = 86_400 * 10**9
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


def write_gappy_bars(path, n=900):
    """Two symbols; 9 days without bars; rows that are no bars, one of them hostile."""
    rng = np.random.default_rng(0)
    lines = ["timestamp,symbol,open,high,low,close,volume"]
    for number, name in enumerate(SYMBOLS):
        times = np.datetime64("2024-01-01T00:00", "m") + 5 * np.arange(n)
        times[n // (2 + number) :] += np.timedelta64(9, "D")
        close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, n))), 4)
        lines += [
            f"{t},{name},{c},{c + 1:.4f},{c - 1:.4f},{c},{v}"
            for t, c, v in zip(times, close, rng.integers(1, 5000, n), strict=True)
        ]
    lines[100] = "2024-01-01T08:15,<AAA>,<script>alert(1)</script>,\x02,1,1,1"
    lines[200] = "2024-01-01T16:35,<AAA>,5,4,6,5,1"
    path.write_text("\n".join(lines) + "\n")
    return path


class Trainer:
    def train_batch(self, batch):
        return {"avg_reward": float(batch.close_price.mean()), "avg_loss": 1.0}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.fixture(scope="module", params=["windows", "rows"])
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    bars = write_gappy_bars(folder / "b.csv")
    return gb.build_store(
        bars, folder / "s.zarr", overlap=36, chunk_windows=16, layout=request.param, durable=False
    )


@pytest.fixture(scope="module")
def checkpoints(store):
    folder = store.path.parent / "checkpoints"
    config = gb.BatchConfig(batch_size=8, overlap=36)
    for _ in gb.BatchProcessor(store, config, folder).process_batches(Trainer()):
        pass
    return folder


@pytest.fixture(scope="module")
def page(store, checkpoints):
    path = store.path.parent / "report.html"
    write_report(store, path, checkpoint_dir=checkpoints)
    return path


def parse(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>\n")
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


def section(root, name):
    (found,) = (s for s in root.iter("section") if s.get("id") == name)
    return found


def words(element):
    return " ".join("".join(element.itertext()).split())


def rows(table):
    return [[words(cell) for cell in row] for row in table.find("tbody")]


def raw(store):
    """The store as zarr reads it: end times, symbols, and the last row of each window."""
    group = zarr.open_group(store.path, mode="r")
    ends, symbols = group["end_time"][:], group["symbol"][:]
    if "matrices" in group:
        return ends, symbols, group["matrices"][:, -1]
    at = group["start"][:] + store.sequence_length - 1
    chunks = np.arange(len(ends)) // store.chunk_windows
    return ends, symbols, group["features"][:][chunks, at]


def test_the_page_is_whole_well_formed_and_needs_nothing_else(page):
    root = parse(page)
    assert [s.get("id") for s in root.iter("section")] == SECTIONS
    links = [a.get("href") for a in root.iter("a")]
    assert links == [f"#{name}" for name in SECTIONS]
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//|@import|url\(|<script|<img|<iframe", text)
    assert {e.get("href") for e in root.iter("link")} == {"data:,"}
    assert page.stat().st_size < 3_000_000
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    assert all(svg.get("aria-label") for svg in root.iter("svg"))


def test_the_figures_are_the_stores(store, page):
    root = parse(page)
    ends, symbols, _ = raw(store)
    tiles = {
        words(t.find("span")): words(t.find("b"))
        for t in root.iter("div")
        if t.find("b") is not None
    }
    assert tiles["windows"] == f"{len(ends):,}"
    assert tiles["bars"] == f"{store.attrs['n_rows']:,}"
    assert tiles["rows x features"] == "48 x 13"
    made = words(section(root, "made-of"))
    for text in (store.fingerprint, store.content_id, store.attrs["source"][0]["digest"]):
        assert text in made
    facts = [words(f.find("figcaption")) for f in section(root, "coverage").iter("figure")]
    for code, fact in enumerate(facts):
        own = pd.to_datetime(ends[symbols == code])
        assert fact.startswith(f"{len(own):,} windows, {own[0]} to {own[-1]}, ")
        assert fact.endswith("gaps: 1")
    captions = [words(f.find("figcaption")) for f in section(root, "features").iter("figure")]
    stats = store.feature_stats
    assert captions == [
        f"mean {s['mean']:.4g}, std {s['std']:.4g}, from {s['min']:.4g} to {s['max']:.4g}"
        for s in (stats[name] for name in store.feature_names)
    ]


def test_quarantined_rows_are_shown_and_do_no_harm(store, page):
    root = parse(page)
    counted, shown = section(root, "quarantine").iter("table")
    assert dict(rows(counted)) == {k: str(v) for k, v in store.attrs["quarantined"].items()}
    texts = {row[1]: row[3] for row in rows(shown)}
    assert texts == {
        "101": "2024-01-01T08:15,<AAA>,<script>alert(1)</script>,\ufffd,1,1,1",
        "201": "2024-01-01T16:35,<AAA>,5,4,6,5,1",
    }


def test_without_the_bars_cache_the_page_says_so(store, tmp_path):
    write_report(store, tmp_path / "r.html", cache_dir=tmp_path)
    root = parse(tmp_path / "r.html")
    assert "bars cache is not there any more" in words(section(root, "quarantine"))
    samples = section(root, "samples")
    assert "bars cache is not there any more" in words(samples)
    assert sum(r.get("class") == "mark" for r in samples.iter("rect")) == 6


def test_a_store_of_one_window_has_a_page(make_store, tmp_path):
    write_report(make_store(88), tmp_path / "r.html")
    assert "nan" not in (tmp_path / "r.html").read_text()


def test_gaps_are_those_of_neighbouring_windows_however_they_are_read(store, monkeypatch):
    ends, symbols, _ = raw(store)
    expected = []
    for code, name in enumerate(SYMBOLS):
        own = ends[symbols == code]
        steps = np.diff(own)
        long = np.flatnonzero(steps > 2 * np.median(steps))
        expected += [(int(steps[k]), name, int(own[k]), int(own[k + 1])) for k in long]
    whole = coverage.read_coverage(store)
    assert [(g.length, g.symbol, g.begin, g.end) for g in whole.gaps] == sorted(expected)[::-1]
    assert all(gap.length > 9 * DAY for gap in whole.gaps)
    assert [int(s.density.sum()) for s in whole.symbols] == np.bincount(symbols).tolist()
    monkeypatch.setattr(coverage, "_SLAB_WINDOWS", 7)
    slabs = coverage.read_coverage(store)
    assert slabs.gaps == whole.gaps
    for one, other in zip(slabs.symbols, whole.symbols, strict=True):
        assert {**vars(one), "density": one.density.tolist()} == {
            **vars(other),
            "density": other.density.tolist(),
        }


def test_sampled_rows_are_the_last_rows_of_windows(store):
    ends, _, last = raw(store)
    sample = sampling.sample_rows(store)
    assert np.array_equal(sample.time, ends)
    assert np.array_equal(sample.values, last)


def test_a_large_store_is_sampled_evenly_one_chunk_at_a_time(store, monkeypatch):
    ends, _, last = raw(store)
    monkeypatch.setattr(sampling, "_CHUNKS", 3)
    monkeypatch.setattr(sampling, "_ROWS", 12)
    sample = sampling.sample_rows(store)
    assert sample.n_chunks == 3
    assert len(sample.time) == 12
    at = [int(np.flatnonzero((last == row).all(axis=1))[0]) for row in sample.values]
    assert np.array_equal(ends[at], sample.time)
    assert len({window // 16 for window in at}) == 3
    again = sampling.sample_rows(store)
    assert np.array_equal(again.values, sample.values)


@given(st.integers(1, 10**9), st.integers(1, 300))
def test_numbers_are_spread_evenly(n, most):
    numbers = sampling.spread(n, most)
    assert len(numbers) == min(n, most)
    assert numbers[0] >= 0
    assert numbers[-1] < n
    steps = np.diff(numbers)
    assert not len(steps) or 1 <= steps.min() <= steps.max() <= steps.min() + 1


def test_bands_and_correlations_agree_with_pandas(store):
    sample = sampling.sample_rows(store)
    bands = sampling.time_bands(sample, n_bins=9)
    frame = pd.DataFrame(sample.values.astype(np.float64), columns=store.feature_names)
    groups = frame.groupby(pd.cut(sample.time, bands.edges, right=False, labels=False))
    counts = groups.size()
    assert counts.sum() == len(sample.time)
    for number in range(9):
        if counts.get(number, 0) < 5:
            assert np.isnan(bands.quantiles[:, number]).all()
            continue
        own = groups.get_group(number)
        expected = own.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).to_numpy()
        np.testing.assert_allclose(bands.quantiles[:, number], expected, rtol=1e-12)
        np.testing.assert_allclose(bands.mean[number], own.mean(), rtol=1e-9, atol=1e-15)
    expected = frame.corr().to_numpy()
    np.testing.assert_allclose(sampling.correlations(sample.values), expected, atol=1e-9)


def test_a_feature_that_never_changes_correlates_with_nothing():
    found = sampling.correlations(np.array([[0.1, 1], [0.1, 2], [0.1, 3]], np.float32))
    assert np.isnan(found[0]).all()
    assert np.isnan(found[:, 0]).all()
    assert found[1, 1] == pytest.approx(1)


def test_damage_is_an_error_and_no_page(store, tmp_path):
    copy = tmp_path / "s.zarr"
    shutil.copytree(store.path, copy)
    path = copy / store.spec.data.file(0)
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedStoreError):
        write_report(gb.MatrixStore.open(copy), tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_the_build_is_told_where_it_was_recorded(store, page, tmp_path):
    build = words(section(parse(page), "build"))
    assert "memory at its peak" in build
    moved = tmp_path / "moved.zarr"
    shutil.copytree(store.path, moved)
    write_report(gb.MatrixStore.open(moved), tmp_path / "r.html")
    assert "No record of the build" in words(section(parse(tmp_path / "r.html"), "build"))


def test_the_curves_are_those_of_the_run(store, page, checkpoints):
    lines = read_metrics(checkpoints)
    assert sum(line["windows"] for line in lines) == len(store)
    total = sum(line["metrics"]["avg_reward"] * line["windows"] for line in lines)
    assert total / len(store) == pytest.approx(store.close_price[:].mean())
    training = section(parse(page), "training")
    titles = [words(figure.find("h3")) for figure in training.iter("figure")]
    assert titles[:3] == ["avg_reward", "avg_loss", "Memory, MB"]
    steps = -(-len(store) // 8)
    assert f"{len(store):,} windows in {steps} steps" in words(training)
    assert str(steps) in [row[0] for row in rows(next(training.iter("table")))]


def test_steps_trained_again_after_a_crash_count_once(tmp_path):
    for begin, stop, value in ((0, 10, 1.0), (6, 14, 2.0)):
        with MetricsLog(tmp_path) as log:
            for step in range(begin, stop):
                log._due = 0.0
                log.add(step, 4, {"avg_reward": value, "avg_loss": float("nan")})
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(14))
    assert [line["metrics"] for line in lines] == [{"avg_reward": 1.0}] * 6 + [
        {"avg_reward": 2.0}
    ] * 8


def test_a_folder_without_a_training_on_this_store_is_refused(
    store, checkpoints, make_store, tmp_path
):
    with pytest.raises(UsageError, match="no folder"):
        write_report(store, tmp_path / "r.html", checkpoint_dir=tmp_path / "none")
    with pytest.raises(UsageError, match="nothing of a training"):
        write_report(store, tmp_path / "r.html", checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match="another store"):
        write_report(make_store(), tmp_path / "r.html", checkpoint_dir=checkpoints)


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12))
def test_ticks_lie_in_range_and_their_labels_differ(low, length):
    high = low + length
    if not (high - low) > 1e-9 * max(abs(low), abs(high)):
        return
    ticks = nice_ticks(low, high)
    room = 1e-6 * (high - low)
    assert all(low - room <= tick <= high + room for tick in ticks)
    assert 2 <= len(ticks) <= 8


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0, 0.5, 1], ["0.0", "0.5", "1.0"]),
        ([-0.05, 0, 0.05], ["-0.05", "0.00", "0.05"]),
        ([0, 5000, 10_000, 15_000], ["0k", "5k", "10k", "15k"]),
        ([-2e-5, 0, 2e-5], ["-2e-5", "0", "2e-5"]),
        ([0.0, 2.5, 5.0], ["0.0", "2.5", "5.0"]),
        ([9440, 9460], ["9440", "9460"]),
    ],
)
def test_ticks_are_written_as_one_would(ticks, labels):
    assert tick_labels(ticks) == labels


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_complaint(page, tmp_path, width):
    # no window is as narrow as a phone, but a frame is
    frame = f"""<!DOCTYPE html><body><script>
      const look = page => {{
        const drawn = [...page.querySelectorAll("svg")].filter(
          svg => svg.getBBox().width > 0 && svg.getBoundingClientRect().height > 5);
        document.body.dataset.seen = JSON.stringify(
          [page.documentElement.scrollWidth, page.defaultView.innerWidth, drawn.length]);
      }};
    </script><iframe onload="look(this.contentDocument)" style="width: {width}px; height: 900px;
      border: 0" srcdoc="{html.escape(page.read_text(encoding="utf-8"))}"></iframe></body>"""
    looked = tmp_path / "looked.html"
    looked.write_text(frame, encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000",
         f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom",
         looked.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    scroll, inner, drawn = map(int, re.search(r'data-seen="\[(.*?)\]"', done.stdout)[1].split(","))
    assert inner == width
    assert scroll <= width
    assert drawn == page.read_text(encoding="utf-8").count("<svg")


def test_labels_of_a_short_time_differ_and_large_numbers_are_whole():
    second = 10**9
    for length in (10, 300, 7_200, 86_400, 40 * 86_400):
        labels = charts.time_labels(0.0, float(length * second))
        assert len(set(labels)) == 3, length
    assert html_page.number(11_910.0) == "11,910"
    assert html_page.number(0.00012345) == "0.0001234"


def test_a_memory_limit_far_above_is_told_in_words_and_flattens_no_line():
    def drawn(allowed):
        samples = [
            {"kind": "sample", "rank": 0, "time": 1e9 + n, "rss_bytes": 5e8 + n,
             "allowed_bytes": allowed, "batch_size": 8, "windows": 8 * n, "wait_seconds": 0.0,
             "batch_seconds": n, "pid": 1} for n in range(5)
        ]  # fmt: skip
        return training_page._memory(samples)

    assert ">allowed<" in drawn(8e8)
    assert ">allowed<" not in drawn(2.5e10)
    assert "25 GB allowed" in drawn(2.5e10)
    assert "01:46:40" in drawn(8e8)


def test_many_inputs_are_folded_away(tmp_path):
    for number in range(5):
        write_gappy_bars(tmp_path / f"{number}.csv")
        text = (tmp_path / f"{number}.csv").read_text().replace(",<AAA>,", f",A{number},")
        (tmp_path / f"{number}.csv").write_text(text.replace(",B&B,", f",B{number},"))
    store = gb.build_store(str(tmp_path / "*.csv"), tmp_path / "s.zarr", max_gap="1D",
                           rules=gb.BarRules(max_bad_fraction=0.5))  # fmt: skip
    write_report(store, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "<details><summary>5 inputs</summary>" in page


def test_small_ticks_have_no_point_without_a_digit():
    assert tick_labels([-3 * 2e-05, -2e-05, 2.5e-05]) == ["-6e-5", "-2e-5", "2.5e-5"]
