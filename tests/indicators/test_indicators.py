"""Indicators are TA-Lib's once it has forgotten its start, and read their own lookback only."""

import pickle

import numpy as np
import oracles
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from grandbatch import indicators as i
from grandbatch.errors import UsageError
from grandbatch.features import PRICES_AND_VOLUME, Feature, FeatureSet, compute_rows

NO_STARTS = np.empty(0, np.int64)
FROM = 5_000


def walk(n, seed=0):
    """Bars on a price grid, so that ties happen; no bar without volume."""
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 1e-3, n))), 2)
    open_ = np.concatenate([close[:1], close[:-1]])
    room = 0.01 * np.round(5 * np.abs(rng.normal(size=(2, n))))
    high, low = np.maximum(open_, close) + room[0], np.minimum(open_, close) - room[1]
    volume = rng.integers(1, 10_000, n).astype(float)
    return dict(zip(PRICES_AND_VOLUME, (open_, high, low, close, volume), strict=True))


BARS = walk(8_000)
O, H, L, C, V = (BARS[name] for name in PRICES_AND_VOLUME)


def since(x, n):
    return x - np.concatenate([np.full(n, np.nan), x[:-n]])


def clean_correl():
    """TA-Lib's running sums lose digits at prices of 100: about their level they don't."""
    return talib.CORREL(H - 100, L - 100, 30)


TABLE = [
    (i.sma(20), talib.SMA(C, 20)),
    (i.sma(7, "volume"), talib.SMA(V, 7)),
    (i.ema(12), talib.EMA(C, 12)),
    (i.ema(26, "high"), talib.EMA(H, 26)),
    (i.wma(20), talib.WMA(C, 20)),
    (i.trima(20), talib.TRIMA(C, 20)),
    (i.trima(9), talib.TRIMA(C, 9)),
    (i.dema(20), talib.DEMA(C, 20)),
    (i.tema(20), talib.TEMA(C, 20)),
    (i.t3(5), talib.T3(C, 5, 0.7)),
    (i.kama(10), talib.KAMA(C, 10)),
    (i.momentum(10), talib.MOM(C, 10)),
    (i.roc(10), talib.ROC(C, 10)),
    (i.rsi(14), talib.RSI(C, 14)),
    (i.wilder_rsi(14), talib.RSI(C, 14) / 100),
    (i.cmo(14), talib.CMO(C, 14)),
    (i.macd(12, 26, 9), talib.MACD(C, 12, 26, 9)),
    (i.ppo(12, 26), talib.PPO(C, 12, 26, matype=1)),
    (i.trix(30), talib.TRIX(C, 30)),
    (i.stochastic(14, 3, 3), talib.STOCH(H, L, C, 14, 3, 0, 3, 0)),
    (i.stochastic(5, 1, 3), talib.STOCHF(H, L, C, 5, 3)),
    (i.stochrsi(14, 5, 3), talib.STOCHRSI(C, 14, 5, 3)),
    (i.williams_r(14), talib.WILLR(H, L, C, 14)),
    (i.cci(14), talib.CCI(H, L, C, 14)),
    (i.ultimate(7, 14, 28), talib.ULTOSC(H, L, C, 7, 14, 28)),
    (i.aroon(14), (*talib.AROON(H, L, 14), talib.AROONOSC(H, L, 14))),
    (i.true_range(), talib.TRANGE(H, L, C)),
    (i.atr(14), talib.ATR(H, L, C, 14)),
    (i.natr(14), talib.NATR(H, L, C, 14)),
    (i.plus_di(14), talib.PLUS_DI(H, L, C, 14)),
    (i.minus_di(14), talib.MINUS_DI(H, L, C, 14)),
    (i.adx(14)[2:], (talib.DX(H, L, C, 14), talib.ADX(H, L, C, 14))),
    (i.bollinger(20, 2.0), talib.BBANDS(C, 20, 2, 2)),
    (i.obv_change(20), since(talib.OBV(C, V), 20)),
    (i.ad_change(20), since(talib.AD(H, L, C, V), 20)),
    (i.adosc(3, 10), talib.ADOSC(H, L, C, V, 3, 10)),
    (i.mfi(14), talib.MFI(H, L, C, V, 14)),
    (i.stddev(20), talib.STDDEV(C, 20)),
    (i.variance(20), talib.VAR(C, 20)),
    (i.linreg_slope(14), talib.LINEARREG_SLOPE(C, 14)),
    (i.linreg(14), talib.LINEARREG(C, 14)),
    (i.correl(30, "high", "low"), clean_correl()),
    (i.beta(5, "high", "low"), talib.BETA(H, L, 5)),
]


def as_tuple(features):
    return (features,) if isinstance(features, Feature) else features


PAIRS = [
    (feature, wanted)
    for features, arrays in TABLE
    for feature, wanted in zip(
        as_tuple(features), arrays if isinstance(arrays, tuple | list) else (arrays,), strict=True
    )
]
ALL = i.catalogue()
EACH = pytest.mark.parametrize("feature", ALL, ids=lambda f: f.name)


def column(feature, bars, first=0):
    read = {name: bars[name] for name in feature.inputs}
    return compute_rows(FeatureSet("one", [feature], 1), read, NO_STARTS, first)[:, 0]


@pytest.mark.parametrize(("feature", "wanted"), PAIRS, ids=lambda x: getattr(x, "name", ""))
def test_an_indicator_is_that_of_ta_lib(feature, wanted):
    got, wanted = column(feature, BARS)[FROM:], wanted[FROM:]
    error = np.abs(got - wanted.astype(np.float32)) / np.maximum(1.0, np.abs(wanted))
    assert error.max() <= 1e-6
    assert np.ptp(got) > 0


def test_every_indicator_with_a_ta_lib_name_is_compared():
    compared = {feature.name.split("_")[0] for feature, _ in PAIRS}
    without = {"wilder", "vwap"}
    assert {feature.name.split("_")[0] for feature in ALL} - compared <= without


@EACH
def test_a_value_reads_its_own_lookback_and_no_bar_more(feature):
    bars = walk(feature.lookback + 700, 3)
    whole = column(feature, bars)
    assert np.isnan(whole[: feature.lookback]).all()
    assert np.isfinite(whole[feature.lookback :]).all()
    for t in (feature.lookback, feature.lookback + 1, feature.lookback + 699):
        own = {name: values[t - feature.lookback : t + 1] for name, values in bars.items()}
        np.testing.assert_array_equal(column(feature, own)[-1:], whole[t : t + 1])


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_the_same_bits_wherever_a_run_begins_and_however_sets_are_mixed(data):
    picked = data.draw(st.lists(st.sampled_from(ALL), min_size=1, max_size=6, unique=True))
    mine = FeatureSet("mine", picked, 1)
    bars = walk(mine.lookback + 3_000, 7)
    whole = compute_rows(mine, bars, NO_STARTS)
    begin = data.draw(st.integers(0, 2_900))
    part = compute_rows(mine, {n: x[begin:] for n, x in bars.items()}, NO_STARTS)[mine.lookback :]
    np.testing.assert_array_equal(
        part.view(np.uint32), whole[begin + mine.lookback :].view(np.uint32)
    )
    for place, feature in enumerate(picked):
        alone = column(feature, bars)[mine.lookback :]
        np.testing.assert_array_equal(alone, whole[mine.lookback :, place])


@EACH
@pytest.mark.parametrize("kind", ["flat", "no volume", "huge", "zero"])
def test_awkward_bars_give_finite_numbers(feature, kind):
    bars = walk(feature.lookback + 60, 1)
    if kind == "flat":
        for name in ("open", "high", "low", "close"):
            bars[name] = np.full_like(bars[name], 64.1)
    elif kind == "no volume":
        bars["volume"] = np.zeros_like(bars["volume"])
    elif kind == "huge":
        bars = {name: values * 1e300 for name, values in bars.items()}
    else:
        bars = {name: np.zeros_like(values) for name, values in bars.items()}
    assert np.isfinite(column(feature, bars)[feature.lookback :]).all()


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        (i.rsi(5), 50), (i.cmo(5), 0), (i.mfi(5), 50), (i.stddev(9), 0), (i.cci(9), 0),
        (i.natr(5), 0), (i.adx(5)[3], 0), (i.macd(3, 6, 2)[2], 0), (i.sma(9), 64.1),
        (i.wma(9), 64.1), (i.trima(8), 64.1), (i.roc(3), 0), (i.correl(7), 0), (i.linreg(7), 64.1),
        (i.bollinger(7)[0], 64.1), (i.stochastic(5)[0], 0), (i.vwap_distance(9), 0),
    ],
    ids=lambda x: getattr(x, "name", ""),
)  # fmt: skip
def test_flat_prices_have_a_stated_value(feature, value):
    bars = dict.fromkeys(("open", "high", "low", "close"), np.full(400, 64.1))
    bars["volume"] = np.full(400, 7.0)
    np.testing.assert_allclose(column(feature, bars)[feature.lookback :], np.float32(value), 1e-6,
                               atol=1e-6)  # fmt: skip


@EACH
def test_indicators_pickle_and_compare(feature):
    copy = pickle.loads(pickle.dumps(feature))
    assert copy == feature
    assert copy.name == feature.name


def test_columns_of_one_indicator_are_computed_together():
    mine = FeatureSet("mine", [*i.macd(), *i.adx(), i.plus_di(28), *i.macd(5, 9, 3)], 1)
    assert len(mine.production.producers) == 4


def test_the_names_of_all_indicators_differ():
    assert len({feature.name for feature in ALL}) == len(ALL) > len(i.__all__)


def test_another_column_gives_another_name():
    assert i.ema(5, "volume").name == "ema_5_volume"
    assert i.ema(5, "volume").inputs == ("volume",)
    assert i.macd(source="high")[1].name == "macd_signal_12_26_9_high"
    assert i.ema(5, "vwap").inputs == ("vwap",)
    with pytest.raises(UsageError, match="inputs"):
        i.ema(5, "symbol")


@pytest.mark.parametrize("wrong", [0, -3, 2.5, "14", True])
@pytest.mark.parametrize("name", [n for n in i.__all__ if n not in ("true_range", "catalogue")])
def test_periods_are_checked(name, wrong):
    with pytest.raises(UsageError, match=r"a \w+ must be a whole number"):
        getattr(i, name)(wrong)


def test_a_distance_from_the_vwap_is_as_defined():
    bars = oracles.random_bars(300, 2)
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    got = column(i.vwap_distance(20), bars)
    for t in (19, 100, 299):
        own = slice(t - 19, t + 1)
        vwap = np.average(typical[own], weights=bars["volume"][own])
        assert got[t] == pytest.approx(bars["close"][t] / vwap - 1, abs=1e-6)
