"""ALPHA158 is its formulas in long double, and Qlib's operators where those are exact."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import alpha158_oracle
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.errors import UsageError
from grandbatch.features import PRICES_AND_VOLUME, FeatureSet, compute_rows
from grandbatch.features.awkward import awkward_bars

NO_STARTS = np.empty(0, np.int64)
QLIB = np.load(Path(__file__).parent / "qlib_alpha158.npz")
WHOLE = gb.alpha158(vwap="typical")
# float32 throughout, where the formulas are float64: fields and ratios in Qlib, the result here
OF_FLOAT32_RATIOS = {"VWAP": 2e-7, "CORR": 1e-5, "CORD": 5e-4, "WVMA": 5e-4}


def rows(feature_set, bars):
    return compute_rows(feature_set, bars, NO_STARTS)[feature_set.lookback :]


def on_a_grid(n, seed=0, move=1e-3):
    """Bars on a grid of prices, so that ties happen, with a flat stretch and one without volume."""
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, move, n))), 2)
    close[n // 2 : n // 2 + 70] = close[n // 2]
    open_ = np.concatenate([close[:1], close[:-1]])
    room = 0.01 * np.round(5 * np.abs(rng.normal(size=(2, n))))
    volume = rng.integers(1, 10_000, n).astype(float)
    volume[n // 3 : n // 3 + 5] = 0.0
    bars = (open_, np.maximum(open_, close) + room[0], np.minimum(open_, close) - room[1])
    return dict(zip(PRICES_AND_VOLUME, (*bars, close, volume), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("bars", [on_a_grid(900, 1), oracles.random_bars(700, 2)], ids=["grid", ""])
@pytest.mark.parametrize("windows", [(5, 10, 20, 30, 60), (2, 3, 7, 14, 33)])
def test_every_column_is_its_formula_in_long_double(bars, windows):
    feature_set = gb.alpha158(windows, vwap="typical")
    got = compute_rows(feature_set, bars, NO_STARTS)
    off = total = 0
    for t in range(feature_set.lookback, len(got), 7):
        wanted = alpha158_oracle.alpha158_at(bars, t, windows)
        assert set(wanted) == set(feature_set.feature_names)
        for place, name in enumerate(feature_set.feature_names):
            value, total = np.float32(wanted[name]), total + 1
            if got[t, place] == value:
                continue
            # a line through prices that lie on it, or have no trend, leaves what float64 rounds
            if name.startswith(("RESI", "BETA", "RSQR")) and abs(wanted[name]) < 1e-15:
                assert abs(got[t, place]) <= 1e-15, (name, t)
                continue
            off += 1
            assert abs(got[t, place] - value) <= np.spacing(np.abs(value)), (name, t)
    assert off / total <= 0.001


@pytest.mark.parametrize("name", WHOLE.feature_names)
def test_every_column_is_that_of_qlibs_operators(name):
    assert tuple(QLIB["names"]) == WHOLE.feature_names
    place = WHOLE.feature_names.index(name)
    got, wanted = rows(WHOLE, QLIB)[:, place], QLIB["values"][place]
    family = name.rstrip("0123456789")
    if family in OF_FLOAT32_RATIOS:
        np.testing.assert_allclose(got, wanted, atol=OF_FLOAT32_RATIOS[family])
    elif family == "RESI":
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-15)
    else:
        np.testing.assert_array_equal(got, wanted)


def test_windows_of_any_length_have_the_values_of_the_fused_kernel():
    from grandbatch.features.alpha import FAMILIES, _families

    bars = on_a_grid(3_000, 3)
    got = rows(gb.ALPHA158, bars)
    for d in (5, 10, 20, 30, 60):
        with np.errstate(all="ignore"):
            wanted = _families(*(bars[name] for name in PRICES_AND_VOLUME[1:]), d)
        for family, values in zip(FAMILIES, wanted, strict=True):
            place = gb.ALPHA158.feature_names.index(f"{family}{d}")
            finite = np.nan_to_num(values[60:]).astype(np.float32)
            np.testing.assert_allclose(got[:, place], finite, rtol=3e-7, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_same_bits_wherever_a_run_begins_and_ends(data):
    feature_set = data.draw(st.sampled_from([gb.ALPHA158, gb.alpha158((7, 60), ("RSV",))]))
    bars = on_a_grid(9_000, 4)
    begin = data.draw(st.integers(0, 8_900))
    stop = data.draw(st.one_of(st.integers(begin + 61, 9_000), st.just(min(begin + 70, 9_000))))
    whole = rows(feature_set, bars)[begin : stop - 60]
    part = rows(feature_set, {name: x[begin:stop] for name, x in bars.items()})
    np.testing.assert_array_equal(part.view(np.uint32), whole.view(np.uint32))


def test_the_set_is_qlibs_without_vwap0():
    assert gb.ALPHA158.n_features == 157
    assert gb.ALPHA158.lookback == 60
    assert gb.ALPHA158.inputs == PRICES_AND_VOLUME
    names = tuple(name for name in QLIB["names"] if name != "VWAP0")
    assert gb.ALPHA158.feature_names == names
    assert len(gb.ALPHA158.production.producers) == 1


@pytest.mark.parametrize("feature_set", [gb.ALPHA158, gb.alpha158((7,), vwap="typical")])
def test_a_declared_lookback_and_inputs_are_exactly_what_a_column_reads(feature_set):
    bars, rng = oracles.random_bars(400, 8), np.random.default_rng(0)
    whole = compute_rows(feature_set, bars, NO_STARTS)
    begin_of = {}
    for back in sorted({f.lookback + k for f in feature_set.features for k in (0, 1)}):
        for name in PRICES_AND_VOLUME:
            reached = np.zeros(feature_set.n_features, bool)
            for t in range(100, 400, 23):
                factor = {"high": 3.0, "low": 0.3}.get(name, rng.uniform(0.9, 1.1))
                changed = {n: x[t - back : t + 1].copy() for n, x in bars.items()}
                padded = {
                    n: np.concatenate([bars[n][t - 99 : t - back], x]) for n, x in changed.items()
                }
                padded[name][99 - back] *= factor
                reached |= compute_rows(feature_set, padded, NO_STARTS)[-1] != whole[t]
            begin_of[back, name] = reached
    for place, feature in enumerate(feature_set.features):
        reads = {name for name in PRICES_AND_VOLUME if begin_of[feature.lookback, name][place]}
        assert reads, feature.name
        assert reads <= set(feature.inputs), feature.name
        beyond = [begin_of[feature.lookback + 1, name][place] for name in PRICES_AND_VOLUME]
        assert not any(beyond), feature.name


def test_a_column_alone_has_the_bits_it_has_in_its_set():
    bars = on_a_grid(300, 5)
    whole = compute_rows(WHOLE, bars, NO_STARTS)
    for place, feature in enumerate(WHOLE.features):
        alone = FeatureSet("alone", [feature], 1)
        column = compute_rows(alone, {n: bars[n] for n in feature.inputs}, NO_STARTS)[:, 0]
        np.testing.assert_array_equal(column[60:], whole[60:, place])
        assert np.isnan(column[: feature.lookback]).all()
        assert np.isfinite(column[feature.lookback :]).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1.0, 1e12, 1e300])
@pytest.mark.parametrize("kind", ["as is", "flat", "zero", "negative", "no volume"])
def test_all_finite_bars_give_finite_rows(scale, kind):
    bars = on_a_grid(400, 6)
    if kind == "flat":
        bars |= dict.fromkeys(PRICES_AND_VOLUME[:4], np.full(400, 64.1))
    elif kind == "zero":
        bars |= dict.fromkeys(PRICES_AND_VOLUME[:4], np.zeros(400))
    elif kind == "negative":
        bars["close"] = bars["close"] - 100.3
    elif kind == "no volume":
        bars["volume"] = np.zeros(400)
    bars = {name: values * scale for name, values in bars.items()}
    for feature_set in (WHOLE, gb.alpha158((9,))):
        assert np.isfinite(rows(feature_set, bars)).all()


def test_flat_prices_have_the_values_of_the_docs():
    bars = dict.fromkeys(PRICES_AND_VOLUME[:4], np.full(200, 15203.7)) | {
        "volume": np.full(200, 3.0)
    }
    got = dict(zip(WHOLE.feature_names, rows(WHOLE, bars)[-1].tolist(), strict=True))
    for d in (5, 10, 20, 30, 60):
        for name in ("STD", "BETA", "RSQR", "CORR", "CORD", "RSV", "SUMP", "VSTD", "WVMA", "CNTD"):
            assert got[f"{name}{d}"] == 0.0, name
        assert abs(got[f"RESI{d}"]) <= 1e-15
        assert got[f"RANK{d}"] == pytest.approx((d + 1) / 2 / d)
        assert got[f"IMAX{d}"] == got[f"IMIN{d}"] == pytest.approx(1 / d)
        assert got[f"MA{d}"] == got[f"ROC{d}"] == 1.0


def test_families_columns_and_windows_can_be_left_out_in_qlibs_order():
    small = gb.alpha158(windows=(5, 20, 60), exclude=("RANK", "KMID2", "MA20"))
    assert small.n_features == 157 - 29 * 2 - 3 - 1 - 1
    wanted = [
        name for name in gb.ALPHA158.feature_names
        if not name.endswith(("10", "30")) and not name.startswith("RANK")
        and name not in ("KMID2", "MA20")
    ]  # fmt: skip
    assert list(small.feature_names) == wanted
    bars = on_a_grid(300)
    places = [gb.ALPHA158.feature_names.index(name) for name in wanted]
    np.testing.assert_array_equal(rows(small, bars), rows(gb.ALPHA158, bars)[:, places])
    assert gb.alpha158((120,)).lookback == 120
    assert gb.alpha158((2,), exclude=("ROC",)).feature_names[12] == "MA2"
    assert (gb.alpha158(sequence_length=20, overlap=19).stride) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vwap": "volume"}, "an extra column of the bars"),
        ({"vwap": 3}, "an extra column of the bars"),
        ({"windows": (5, 1)}, "at least 2, got 1"),
        ({"windows": ()}, "different lengths"),
        ({"windows": (5, 5)}, "different lengths"),
        ({"exclude": ("RANKS",)}, "RANKS, which alpha158 doesn't have"),
        ({"exclude": ("MA7",)}, "MA7, which alpha158 doesn't have"),
        ({"exclude": "RANK"}, "a list of names"),
        ({"exclude": gb.ALPHA158.feature_names}, "leaves nothing"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        gb.alpha158(**arguments)


def test_vwap0_is_of_an_extra_column_where_one_is_named():
    whole = gb.alpha158(vwap="average price")
    assert whole.feature_names == WHOLE.feature_names
    assert whole.inputs == (*gb.ALPHA158.inputs, "average price")
    bars = awkward_bars(200, 3, whole.inputs)
    bars["close"][150] = 0.0
    found = rows(whole, bars)
    with np.errstate(divide="ignore"):
        want = bars["average price"] / bars["close"]
    want[150] = 0.0
    column = whole.feature_names.index("VWAP0")
    np.testing.assert_array_equal(found[:, column], want[whole.lookback :].astype(np.float32))
    others = np.delete(np.arange(whole.n_features), column)
    plain = rows(gb.ALPHA158, bars)
    np.testing.assert_array_equal(found[:, others], plain)


def test_sets_pickle():
    for feature_set in (gb.ALPHA158, gb.alpha158((7,), vwap="typical")):
        assert pickle.loads(pickle.dumps(feature_set)) == feature_set


DIGEST = """
import hashlib, sys
import numpy as np
import grandbatch as gb
from grandbatch.features import PRICES_AND_VOLUME, compute_rows

rng = np.random.default_rng(0)
close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 1e-3, 6_000))), 2)
five = close - 0.1, close + 0.3, close - 0.2, close, close.round()
bars = dict(zip(PRICES_AND_VOLUME, five, strict=True))
i = gb.indicators
technical = [*(f for name in i.__all__ for f in np.atleast_1d(getattr(i, name)()).tolist())]
unique = {f.name: f for f in technical}
zone = "America/New_York"
local = (*gb.time_of_day(zone), *gb.day_of_week(zone), *gb.day_of_year(zone))
bars["timestamp"] = np.arange(6_000) * 1_800_000_000_123 + 1_700_000_000_000_000_000
mixed = gb.FeatureSet("all", [*gb.ALPHA158.features, *gb.alpha158((9, 70)).features[12:],
                              *unique.values(), *local], 1)
rows = compute_rows(mixed, bars, np.empty(0, np.int64))[mixed.lookback :]
print(hashlib.sha256(np.ascontiguousarray(rows)).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.timeout(1_500)  # everything is compiled three times
def test_every_processor_gives_the_same_bits(tmp_path):
    flags = Path("/proc/cpuinfo").read_text().split()
    needs = {"x86-64": "sse2", "haswell": "avx2", "skylake-avx512": "avx512f"}
    digests = set()
    for cpu in [cpu for cpu, flag in needs.items() if flag in flags]:
        chosen = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / cpu), **chosen},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1
