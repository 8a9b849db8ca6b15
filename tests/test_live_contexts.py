"""Bars pushed one by one give the pairs that a loader gives over stores of the same bars."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from timeframes import gappy_bars

import grandbatch as gb
from grandbatch.errors import BadRowsError, KernelError, UsageError

MINUTE = 60 * 10**9
SYMBOLS = ["CCC", "AAA", "BBB"]
FAST = gb.TACTICAL.with_window(6, 5)
SLOW = gb.FeatureSet(
    "slow", [*gb.STRATEGIC.features[:3], gb.indicators.sma(3, "volume")], sequence_length=4
)
OWN = gb.FeatureSet("own", [gb.column("trades"), gb.column("spread")], sequence_length=3)


def in_order(bars):
    """Bars as they arrive: by time, symbols side by side."""
    return bars.sort_values(["timestamp", "symbol"], kind="stable").to_dict("records")


def stores(bars, folder, feature_set, contexts, rules, max_gap=None):
    source = folder / "bars.csv"
    bars.to_csv(source, index=False, date_format="%Y-%m-%dT%H:%M:%SZ")

    def build(name, chosen, max_gap, rules):
        return gb.build_store(
            source,
            folder / name,
            feature_set=chosen,
            overlap=chosen.sequence_length - 1,
            max_gap=max_gap,
            rules=rules,
            layout="rows",
            durable=False,
            cache=folder / "cache",
        )

    slow = {
        name: build(
            f"{name}.zarr",
            one.feature_set,
            one.max_gap,
            replace(
                rules,
                resample=one.resample,
                resample_offset=one.resample_offset,
                timezone=one.timezone,
                aggregate=one.aggregate,
            ),
        )
        for name, one in contexts.items()
    }
    return build("fast.zarr", feature_set, max_gap, rules), slow


def loaded(fast, slow, max_age):
    """By symbol and time: the bytes of a window, and time and bytes of each of its contexts."""
    found = {}
    loader = gb.SlidingWindowDataLoader(fast, context=slow, max_age=max_age, shuffle=False)
    for batch in loader:
        for place, (symbol, end) in enumerate(
            zip(batch.symbol.tolist(), batch.end_time.tolist(), strict=True)
        ):
            found[fast.symbols[symbol], end] = (
                batch.matrices[place].numpy().tobytes(),
                {
                    name: (int(one.end_time[place]), one.matrices[place].numpy().tobytes())
                    for name, one in batch.context.items()
                },
            )
    return found


def pushed(live, bars):
    found = {}
    for bar in bars:
        window = live.pair(bar)
        if window is not None:
            context = {n: (w.end_time, w.matrix.tobytes()) for n, w in window.context.items()}
            assert window.end_time == bar["timestamp"].value
            found[bar["symbol"], window.end_time] = window.matrix.tobytes(), context
    return found


def context(resample="30min", chosen=SLOW, **options):
    return gb.LiveContext(chosen, resample, **options)


CASES = {
    "one": ({"slow": context()}, {}),
    "several": ({"slow": context(), "hour": context("1h"), "quarter": context("15min", OWN)}, {}),
    "one too old": ({"slow": context()}, {"max_age": "20min"}),
    "a little older": ({"slow": context(), "hour": context("1h")}, {"max_age": "2h"}),
    "gaps begin segments": ({"slow": context(max_gap="2h")}, {"max_gap": "30min"}),
    "days cut intervals short": ({"seven": context("7h", OWN)}, {}),
    "all but one hour of the day": ({"long": context("23h", OWN)}, {}),
    "intervals begin late": (
        {"slow": context("4h", OWN, resample_offset="2h30min", timezone="America/New_York")},
        {},
    ),
    "no multiple of the bars": ({"slow": context("47min")}, {"bar_duration": "1min"}),
    "as long as the bars": ({"same": context("5min")}, {}),
    "times of closings": ({"slow": context()}, {"bar_time": "close"}),
    "extra columns": (
        {"slow": context("1h", OWN, aggregate={"trades": "sum", "spread": "mean"})},
        {"fill": {"trades": "zero", "spread": "last"}},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_pushed_bars_give_the_pairs_of_a_loader_to_the_bit(case, tmp_path):
    contexts, options = CASES[case]
    bars = gappy_bars(SYMBOLS, 700, seed=5)
    random = np.random.default_rng(6)
    bars["trades"] = np.where(random.random(len(bars)) < 0.05, np.nan, random.random(len(bars)))
    bars["spread"] = np.where(random.random(len(bars)) < 0.05, np.nan, random.random(len(bars)))
    max_age, max_gap = (options.get(name) for name in ("max_age", "max_gap"))
    fill = options.get("fill", {"trades": "zero", "spread": "zero"})
    rules = gb.BarRules(
        extra=("trades", "spread"),
        fill=fill,
        bar_time=options.get("bar_time", "open"),
        bar_duration=options.get("bar_duration"),
    )
    fast, slow = stores(bars, tmp_path, FAST, contexts, rules, max_gap)
    wanted = loaded(fast, slow, max_age)
    live = gb.LiveFeatures(
        FAST, context=contexts, **{"extra": ("trades", "spread"), "fill": fill, **options}
    )
    arriving = in_order(bars)
    found = pushed(live, arriving[:1200])
    # what was learnt goes through a state into another process
    again = gb.LiveFeatures(
        FAST, context=contexts, **{"extra": ("trades", "spread"), "fill": fill, **options}
    )
    assert again.identity == live.identity
    again.load_state_dict(pickle.loads(pickle.dumps(live.state_dict())))
    found |= pushed(again, arriving[1200:])
    assert len(wanted) > 100
    assert found == wanted


def test_the_sets_of_the_field_pair_as_simply_as_said(tmp_path):
    bars = gappy_bars(["AAA"], 700, seed=2)
    given = {"strategic": context("30min", gb.STRATEGIC)}
    fast, slow = stores(bars, tmp_path, gb.TACTICAL, given, gb.BarRules())
    live = gb.LiveFeatures("tactical", context={"strategic": ("strategic", "30min")})
    found = pushed(live, in_order(bars))
    assert found == loaded(fast, slow, None)
    assert found
    # push is the matrix alone
    alone = gb.LiveFeatures("tactical", context={"strategic": ("strategic", "30min")})
    matrices = [alone.push(bar) for bar in in_order(bars)]
    assert [one.tobytes() for one in matrices if one is not None] == [
        matrix for matrix, _ in found.values()
    ]
    warm = gb.LiveFeatures.from_bars(
        "tactical", bars.iloc[:-1], context={"strategic": ("strategic", "30min")}
    )
    assert warm.push(in_order(bars)[-1]).tobytes() == matrices[-1].tobytes()


def five_minutes(n, **changes):
    bars = gappy_bars(["AAA"], n)
    return bars.assign(
        timestamp=pd.Timestamp("2024-01-02") + pd.Timedelta("5min") * np.arange(n), **changes
    ).to_dict("records")


def live_pair(**options):
    return gb.LiveFeatures(
        gb.FeatureSet("f", [gb.column("close")], sequence_length=1),
        **{"context": {"slow": (gb.FeatureSet("s", [gb.column("close")], 1), "30min")}, **options},
    )


def test_a_context_comes_with_the_bar_that_completes_its_interval():
    live, bars = live_pair(), five_minutes(20)
    pairs = [live.pair(bar) for bar in bars]
    assert [pair is not None for pair in pairs] == [False] * 5 + [True] * 15
    closes = [pair.context["slow"].matrix[0, 0] for pair in pairs[5:]]
    wanted = [np.float32(bars[place]["close"]) for place in (5, 11, 17)]
    assert closes == [wanted[0]] * 6 + [wanted[1]] * 6 + [wanted[2]] * 3
    assert live.contexts_missing("AAA") == {"slow": 0}
    assert live.contexts_missing("BBB") == {"slow": 1}


def test_a_bar_inside_an_interval_thought_whole_is_of_it_from_then_on():
    """A build counts such bars, and warns that coarser bars seem known too early."""
    live, bars = live_pair(bar_duration="5min"), five_minutes(14)
    late = {**bars[5], "timestamp": bars[5]["timestamp"] + pd.Timedelta("2min"), "close": 99.5}
    late |= {"low": 90.0, "high": 110.0}
    for bar in bars[:6]:
        early = live.pair(bar)
    assert early.context["slow"].matrix[0, 0] == np.float32(bars[5]["close"])
    again = live_pair(bar_duration="5min")
    again.load_state_dict(live.state_dict())
    for each in (live, again):
        assert each.pair(late).context["slow"].matrix[0, 0] == np.float32(99.5)
        assert each.pair(bars[6]).context["slow"].matrix[0, 0] == np.float32(99.5)


@pytest.mark.parametrize("which", ["fast", "slow"])
def test_a_kernel_that_fails_leaves_the_bar_out_of_all_timeframes(which):
    failing = []

    def of(name):
        def kernel(close, first, out):
            if name in failing:
                raise ZeroDivisionError
            out[:] = close[first:]

        return gb.FeatureSet(name, [gb.Feature(name, 0, kernel, ("close",))], sequence_length=2)

    made = {"context": {"slow": (of("slow"), "10min"), "other": (of("other"), "15min")}}
    live, whole = gb.LiveFeatures(of("fast"), **made), gb.LiveFeatures(of("fast"), **made)
    for place, bar in enumerate(five_minutes(30)):
        wanted = whole.pair(bar)
        if place % 3 == 2 and (which == "fast" or place % 2):
            failing.append(which)
            with pytest.raises(KernelError):
                live.pair(bar)
            failing.clear()
        found = live.pair(bar)
        assert (found is None) == (wanted is None)
        if found is not None:
            assert found.matrix.tobytes() == wanted.matrix.tobytes()
            for name in ("slow", "other"):
                mine, other = found.context[name], wanted.context[name]
                assert mine.end_time == other.end_time
                assert mine.matrix.tobytes() == other.matrix.tobytes()


def test_a_pair_is_the_callers_own():
    live, bars = live_pair(), five_minutes(9)
    first = [live.pair(bar) for bar in bars[:8]][-1]
    kept = first.context["slow"].matrix.copy()
    first.context["slow"].matrix[:] = 7
    assert live.pair(bars[8]).context["slow"].matrix.tobytes() == kept.tobytes()


def test_a_bar_that_is_none_is_of_no_timeframe():
    live, bars = live_pair(), five_minutes(8)
    for bar in bars[:5]:
        live.pair(bar)
    with pytest.raises(BadRowsError):
        live.pair({**bars[5], "close": "none"})
    pair = live.pair(bars[5])
    assert pair.context["slow"].matrix[0, 0] == np.float32(bars[5]["close"])


def test_what_is_kept_does_not_grow():
    live, bars = live_pair(), five_minutes(1_504)
    for bar in bars[:700]:
        live.pair(bar)
    size = len(pickle.dumps(live))
    for bar in bars[700:]:
        live.pair(bar)
    assert len(pickle.dumps(live)) <= size + 64


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": ["slow"]}, "contexts by name"),
        ({"context": {"two words": (SLOW, "30min")}}, "letters, digits and _"),
        ({"context": {"slow": SLOW}}, "a feature set and a length"),
        ({"context": {"slow": (SLOW, None)}}, "resample must be the length"),
        ({"context": {"slow": (SLOW, "soon")}}, "resample must be a length of time"),
        ({"context": {"slow": ("strategy", "30min")}}, "unknown feature set"),
        ({"context": {"slow": (SLOW, "30min")}, "bar_duration": "1h"}, "choose a longer"),
        ({"context": {"slow": (SLOW, "30min")}, "bar_time": "end"}, "open or close"),
        ({"context": {"slow": (SLOW, "30min")}, "max_age": "-1h"}, "max_age must be"),
        ({"max_age": "1h"}, "give context= too"),
        ({"bar_duration": "1h"}, "give context= too"),
        ({"bar_time": "close"}, "give context= too"),
    ],
)
def test_contexts_that_make_no_sense_are_refused(options, words):
    with pytest.raises(UsageError, match=words) as refused:
        gb.LiveFeatures(FAST, **options)
    assert "\n" not in str(refused.value)


def test_bars_that_outlast_the_coarser_ones_are_refused_and_change_nothing():
    live, bars = live_pair(), five_minutes(4)
    hours = [{**bar, "timestamp": bar["timestamp"] + i * pd.Timedelta("1h")}
             for i, bar in enumerate(bars)]  # fmt: skip
    live.pair(hours[0])
    for _ in range(2):
        with pytest.raises(UsageError, match=r"30min are made of finer ones, .* last 1h5min|65min"):
            live.pair(hours[1])


def test_a_state_of_other_contexts_is_refused():
    live = live_pair()
    for bar in five_minutes(8):
        live.pair(bar)
    plain = gb.LiveFeatures(live.feature_set)
    other = live_pair(context={"other": (SLOW, "30min")})
    wider = live_pair(context={"slow": (SLOW, "30min")})
    for one in (plain, other, wider):
        with pytest.raises(UsageError, match="not the state of live"):
            one.load_state_dict(live.state_dict())
    bare = gb.LiveFeatures(live.feature_set)
    bare.push(five_minutes(1)[0])
    with pytest.raises(UsageError, match="not the state of live"):
        live_pair().load_state_dict(bare.state_dict())
