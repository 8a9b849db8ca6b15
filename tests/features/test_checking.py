"""Wrong kernels are found and named with their reason; right ones are left alone."""

from __future__ import annotations

import re
import time

import dask
import numba
import numpy as np
import pandas as pd
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from simulated import write_bars

import grandbatch as gb
from grandbatch.errors import ColumnError, KernelError, UsageError
from grandbatch.features.awkward import awkward_bars
from grandbatch.features.checking import find_faults, own_subjects, simulated
from grandbatch.features.trial import SampleBars, Subject, find_fault

jit = numba.njit(nogil=True)
SCRATCH = np.empty(8_192)


def centred_mean(close, first, out):
    x = np.concatenate([close, close[-1:]])
    out[:] = ((x[:-2] + x[1:-1] + x[2:]) / 3)[first - 1 :]


def scaled_by_all(close, first, out):
    out[:] = close[first:] / close.max()


@jit
def reads_past_the_end(close, first, out):
    for t in range(first, close.size):
        out[t - first] = close[t + 1] / close[t]


@jit
def running_sum(close, first, out):
    total = 0.0
    for k in range(20):
        total += close[first - 20 + k]
    for t in range(first, close.size):
        total += close[t] - close[t - 20]
        out[t - first] = total / 20


@jit
def sums_of_blocks(close, first, out):
    for begin in range(first, close.size, 256):
        total = 0.0
        for k in range(20):
            total += close[begin - 20 + k]
        for t in range(begin, min(begin + 256, close.size)):
            total += close[t] - close[t - 20]
            out[t - first] = total / 20


def all_history(close, first, out):
    y, rows = close[0], np.empty(len(close))
    for i, x in enumerate(close):
        y += 0.15 * (x - y)
        rows[i] = y
    out[:] = rows[first:]


def sum_from_the_first(close, first, out):
    out[:] = (np.cumsum(close) / np.arange(1, len(close) + 1))[first:]


def mean_of_16(close, first, out):
    x = np.concatenate([np.repeat(close[:1], 15), close])
    out[:] = (sliding_window_view(x, 16).mean(1))[first:]


@jit
def index_below_zero(close, first, out):
    for t in range(first, close.size):
        out[t - first] = close[t] / close[t - 12]


def random_numbers(close, first, out):
    out[:] = close[first:] * (1 + 1e-6 * np.random.default_rng().standard_normal(len(out)))


def z_score(close, first, out):
    w = sliding_window_view(close, 20)[first - 19 :]
    out[:] = (close[first:] - w.mean(1)) / w.std(1)


def volume_ratio(volume, first, out):
    out[:] = volume[first:] / volume[first - 1 : -1]


@jit
def adds_to_out(close, first, out):
    for t in range(first, close.size):
        for k in range(5):
            out[t - first] += close[t - k]


def half_written(close, first, out):
    out[: len(out) // 2] = 1.0


def shared_scratch(close, first, out):
    n = len(close)
    SCRATCH[:n] = np.log(close)
    time.sleep(0)
    out[:] = SCRATCH[first:n] - SCRATCH[first - 1 : n - 1]


def in_place(close, first, out):
    np.log(close, out=close)
    out[:] = close[first:] - close[first - 1 : -1]


def raises(close, first, out):
    out[:] = close


WRONG = {
    "centred mean": (1, centred_mean, "looks ahead"),
    "scaled by the maximum of all": (0, scaled_by_all, "looks ahead"),
    "reads past the end": (0, reads_past_the_end, "looks ahead"),
    "running sum": (20, running_sum, "carries something from bar to bar"),
    "sums begun every 256 bars": (20, sums_of_blocks, "carries something from bar to bar"),
    "average of all history": (20, all_history, "carries something from bar to bar"),
    "sum from the first bar": (20, sum_from_the_first, "carries something from bar to bar"),
    "lookback too small": (10, mean_of_16, r"it reads 15 bars back: give lookback=15$"),
    "index below zero": (5, index_below_zero, r"give lookback=12$"),
    "random numbers": (0, random_numbers, "is not the same in two runs"),
    "z-score of flat windows": (19, z_score, r"is nan at bar \d+ of simulated bars \(close 64.0\)"),
    "adds to out": (4, adds_to_out, "is not written, or is read before it is"),
    "half written": (0, half_written, "is not written"),
    "shared scratch": (1, shared_scratch, "while other threads run the kernel"),
    "writes its input": (1, in_place, r"close of bar 0 of simulated bars was 100\.07 and is 4\.6"),
    "raises": (2, raises, r"raised ValueError on simulated bars \(could not broadcast"),
}
each_wrong = pytest.mark.parametrize(("look", "kernel", "words"), WRONG.values(), ids=WRONG)


def right_mean(close, first, out):
    out[:] = close[first:] / sliding_window_view(close[first - 10 : -1], 10).mean(axis=1) - 1


@jit
def right_maximum(close, first, out):
    """Carry the place of the maximum: it rounds nothing, so the bits are those of a window."""
    at = first - 10
    for t in range(first, close.size):
        if at < t - 9 or close[t] >= close[at]:
            at = t - 9
            for k in range(t - 9, t + 1):
                at = k if close[k] >= close[at] else at
        out[t - first] = close[at]


def typical_price(high, low, close, first, out):
    out[:] = ((high + low + close) / 3)[first:]


RIGHT = [
    gb.Feature("mean", 10, right_mean),
    gb.Feature("maximum", 9, right_maximum),
    gb.Feature("typical", 0, typical_price, inputs=("high", "low", "close")),
    gb.ema(12),
    gb.wilder_rsi(14),
]


@each_wrong
def test_a_wrong_kernel_is_refused_with_bar_values_and_reason(look, kernel, words):
    with pytest.raises(KernelError, match=words) as caught:
        gb.check(gb.Feature("mine", look, kernel))
    text = str(caught.value)
    assert text.startswith("feature 'mine' ")
    if "raised" not in text:
        assert re.search(r"bar \d+ of simulated bars", text)
        assert ";" in text


def test_a_volume_of_zero_is_among_the_simulated_bars():
    feature = gb.Feature("ratio", 1, volume_ratio, inputs=("volume",))
    with pytest.raises(KernelError, match=r"\(volume 0.0\)"):
        gb.check(feature)


@pytest.mark.parametrize("tries", [2, 6])
@each_wrong
def test_few_tries_find_the_same(look, kernel, words, tries):
    subject = gb.Feature("mine", look, kernel).subject
    assert re.search(words, find_faults([subject], simulated, tries)["mine"])


def test_right_kernels_are_left_alone():
    gb.check(gb.FeatureSet("right", RIGHT, 5))
    gb.check("strategic")
    gb.check(gb.TACTICAL)


def test_values_that_are_shown_are_those_at_the_first_bar_that_differs():
    subject = gb.Feature("mine", 0, scaled_by_all).subject
    bars = {"close": np.array([1.0, 2.0, 4.0, 8.0, 5.0, 3.0])}
    fault = find_fault(subject, SampleBars("six bars", bars), tries=1)
    assert "looks ahead: at bar 0 of six bars it is 0.125, and " in fault
    assert "(wrong" not in fault


def test_all_wrong_features_of_a_set_are_named():
    features = [RIGHT[0], gb.Feature("a", 0, scaled_by_all), gb.Feature("b", 2, raises)]
    with pytest.raises(KernelError, match=r"^feature 'a' looks ahead.* \(wrong as well: b\)$"):
        gb.check(gb.FeatureSet("both", features, 5))


def test_the_mirror_of_a_feature_may_read_ahead_as_far_as_it_says():
    def in_five(close, first, out):
        out[:] = close[first + 5 :] / close[first:-5] - 1

    def kernel_of_seven(close, first, out):
        x = np.concatenate([close, np.repeat(close[-1:], 2)])
        out[:] = x[first + 7 :] / close[first:-5] - 1

    good = Subject("target", "in_five", in_five, ("close",), 0, 5)
    assert find_fault(good, *simulated(good)) is None
    far = Subject("target", "in_seven", kernel_of_seven, ("close",), 0, 5)
    assert "target 'in_seven' reads bars beyond its horizon of 5" in find_fault(
        far, *simulated(far)
    )
    assert "first + k + 5" in find_fault(far, *simulated(far))


def test_bars_of_ones_own_show_what_they_hold_and_no_more():
    feature = gb.Feature("z_score", 19, z_score)
    bars = awkward_bars(600, 5)
    moving = {name: values[:200] for name, values in bars.items()}
    gb.check(feature, moving)
    with pytest.raises(KernelError, match=r"is nan at bar \d+ of the bars \("):
        gb.check(feature, bars)


def test_frames_are_checked_symbol_by_symbol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with dask.config.set(scheduler="synchronous"):
        frame = gb.read_bars(write_bars(tmp_path / "b.csv", 300, symbols=5))
        gb.check(gb.FeatureSet("right", RIGHT, 5), frame)
        for bars in (frame, frame.compute()):
            with pytest.raises(KernelError, match="at bar 0 of the bars of S0 it is"):
                gb.check(gb.Feature("all", 0, scaled_by_all), bars)


def test_bars_that_do_not_do_are_refused():
    lacking = r"feature '\w+' reads 'high', .* don't have; they have close\. Rename the columns"
    with pytest.raises(ColumnError, match=lacking):
        gb.check(RIGHT[2], {"close": np.ones(9)})
    with pytest.raises(UsageError, match="too few bars to check: 12 of one symbol are needed"):
        gb.check(RIGHT[0], pd.DataFrame({"close": np.ones(11)}))


@each_wrong
def test_a_build_refuses_a_wrong_kernel_before_it_writes(look, kernel, words, tmp_path):
    source = write_bars(tmp_path / "b.csv", 400)
    own = gb.FeatureSet("own", [gb.STRATEGIC.features[0], gb.Feature("mine", look, kernel)], 5)
    with pytest.raises(KernelError, match=words):
        gb.build_store(source, tmp_path / "s.zarr", feature_set=own, durable=False)
    assert not (tmp_path / "s.zarr").exists()


def test_a_build_looks_at_its_own_bars_in_a_few_segments(tmp_path):
    def steep(close, first, out):
        jump = close[first:] / close[first - 1 : -1] - 1
        out[:] = np.where(np.abs(jump) > 5, np.nan, jump)

    source = write_bars(tmp_path / "b.csv", 60, symbols=4)
    lines = source.read_text().splitlines()
    lines[-50] = re.sub(r"(S3,).*", r"\g<1>1e6,1e6,1e6,1e6,5", lines[-50])
    source.write_text("\n".join(lines) + "\n")
    own = gb.FeatureSet("own", [gb.Feature("steep", 1, steep)], 5)
    gb.check(own)
    with pytest.raises(KernelError, match="is nan at bar 10 of the bars of S3 from 2024-01-01"):
        gb.build_store(source, tmp_path / "s.zarr", feature_set=own, durable=False)


def test_a_check_can_be_left_out(tmp_path):
    source = write_bars(tmp_path / "b.csv", 100)
    own = gb.FeatureSet("own", [gb.Feature("ahead", 0, scaled_by_all)], 5)
    gb.build_store(source, tmp_path / "s.zarr", feature_set=own, durable=False, check=False)


def test_ten_features_are_checked_in_less_than_a_second_of_processor_time():
    features = [
        gb.Feature(f"{feature.name}_{number}", feature.lookback, feature.kernel, feature.inputs)
        for number in range(2)
        for feature in RIGHT
    ]
    subjects = own_subjects(gb.FeatureSet("ten", features, 5))
    assert len(subjects) == 10
    find_faults(subjects, simulated, 1)
    began = time.process_time()
    assert find_faults(subjects, simulated, 4) == {}
    assert time.process_time() - began < 1


def test_long_lookbacks_are_checked_in_little_time_too():
    def mean(close, first, out):
        out[:] = sliding_window_view(close, 5_001)[first - 5_000 :].mean(1)

    def longer(close, first, out):
        mean(np.concatenate([close[:1], close[:-1]]), first, out)

    began = time.process_time()
    gb.check(gb.Feature("mean", 5_000, mean))
    with pytest.raises(KernelError, match=r"give lookback=5001$"):
        gb.check(gb.Feature("longer", 5_000, longer))
    assert time.process_time() - began < 10


def test_built_in_features_are_not_checked_again():
    features = [*gb.STRATEGIC.features, *gb.alpha158(windows=(5,)).features[:5], gb.ema(3)]
    own = gb.FeatureSet("own", features, 5)
    assert [subject.name for subject in own_subjects(own)] == ["ema_3"]


def test_awkward_bars_keep_the_rules_of_bars():
    bars = awkward_bars(5_000, 3)
    o, h, l, c, v = (bars[name] for name in ("open", "high", "low", "close", "volume"))
    assert all(np.isfinite(values).all() for values in bars.values())
    assert (l > 0).all()
    assert (v >= 0).all()
    assert ((l <= np.minimum(o, c)) & (h >= np.maximum(o, c))).all()
