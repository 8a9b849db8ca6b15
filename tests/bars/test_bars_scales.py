"""Numbers for times that count otherwise than epochs, or are digits of another order."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from advice import follow

import grandbatch as gb
from grandbatch.errors import TimestampError

MINUTES = pd.date_range("2024-01-02 09:30", periods=90, freq="1min")
DAYS = pd.bdate_range("2015-01-02", periods=90)
HOURS = pd.date_range("2024-01-08 01:00", periods=90, freq="1h")
TICKS = {
    "ticks of .NET": (621_355_968_000_000_000, 10_000_000),
    "FILETIME": (116_444_736_000_000_000, 10_000_000),
    "microseconds since 1601": (11_644_473_600_000_000, 1_000_000),
    "100 ns since 1970": (0, 10_000_000),
    "tenths of milliseconds": (0, 10_000),
    "seconds since 1900": (2_208_988_800, 1),
    "seconds since 1904": (2_082_844_800, 1),
}
DAY_COUNTS = {
    "days of Excel": 25_569,
    "Julian days": 2_440_587.5,
    "modified Julian days": 40_587,
    "days of MATLAB": 719_529,
    "Python's ordinals": 719_163,
}


def write(path, texts):
    frame = pd.DataFrame({"timestamp": list(texts)}).assign(
        open=10.5, high=12, low=9, close=11, volume=100
    )
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


def seconds(times):
    return times.as_unit("ns").asi8 // 10**9


def read(path, **rules):
    return gb.read_bars(path, cache=path.parent / "cache", **rules).compute()["timestamp"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("times", [MINUTES, DAYS], ids=["minutes", "days"])
@pytest.mark.parametrize("name", TICKS)
def test_counts_since_another_year_are_named_with_what_makes_epochs_of_them(
    tmp_path, name, times, suffix
):
    zero, per_second = TICKS[name]
    numbers = seconds(times) * per_second + zero
    with pytest.raises(TimestampError, match=re.escape(name)) as caught:
        read(write(tmp_path / f"x.{suffix}", numbers))
    formulas = re.findall(r"write ([x\d ()*/.-]+),", str(caught.value))
    written = [eval(formula, {"x": numbers}) for formula in formulas]
    assert any((epochs == seconds(times)).all() for epochs in written)


@pytest.mark.parametrize("times", [MINUTES, DAYS], ids=["minutes", "days"])
@pytest.mark.parametrize("name", DAY_COUNTS)
def test_counts_of_days_are_named(tmp_path, name, times):
    numbers = [f"{day:.6f}" for day in seconds(times) / 86_400 + DAY_COUNTS[name]]
    with pytest.raises(TimestampError, match=f"look like .*{name}"):
        read(write(tmp_path / "x.csv", numbers))


@pytest.mark.parametrize("step", [60, 3600])
@pytest.mark.parametrize("times", [HOURS, DAYS], ids=["hours", "days"])
def test_minutes_and_hours_since_1970_are_named(tmp_path, times, step):
    name = {60: "minutes", 3600: "hours"}[step]
    with pytest.raises(TimestampError, match=f"{name} since 1970: write x \\* {step}"):
        read(write(tmp_path / "x.csv", seconds(times) // step))


@pytest.mark.parametrize(
    ("times", "form"),
    [
        (MINUTES, "%y%m%d%H%M"),
        (HOURS, "%y%m%d%H%M"),
        (DAYS, "%y%m%d%H%M"),
        (MINUTES, "%y%m%d%H%M%S"),
        (DAYS, "%y%m%d"),
        (DAYS, "%d%m%Y"),
        (DAYS, "%m%d%Y"),
        (HOURS, "%d%m%Y%H%M"),
        (MINUTES, "%Y%m%d.%H%M"),
        (MINUTES, "%Y%m%d%H%M%S%f"),
        (DAYS, "%Y%j"),
        (DAYS, "1%y%m%d"),
        (pd.date_range("1950", periods=70, freq="YS"), "%Y"),
        (pd.date_range("1950", periods=600, freq="MS"), "%Y%m"),
        (pd.date_range("1950", periods=600, freq="MS"), "%Y.%m"),
    ],
)
def test_digits_of_another_order_are_read_by_what_is_offered(tmp_path, times, form):
    path = write(tmp_path / "x.csv", times.strftime(form))
    with pytest.raises(TimestampError, match="dates written as digits") as caught:
        read(path)
    offered = [rules for rules in follow(str(caught.value)) if rules.timestamp_format]
    assert any((read(path, rules=rules).dt.tz_localize(None) == times).all() for rules in offered)


def test_digits_that_lost_their_zero_are_named_and_nothing_is_offered_that_misreads_them(tmp_path):
    times = pd.bdate_range("2009-11-02", periods=90).strftime("%y%m%d%H%M").astype(int)
    with pytest.raises(TimestampError, match="without the zero before them: write them with 10"):
        read(write(tmp_path / "x.csv", times))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize(
    "times",
    [
        MINUTES,
        HOURS,
        DAYS,
        pd.bdate_range("1962-01-02", periods=90),
        pd.bdate_range("1971-01-02", periods=90),
        pd.date_range("1990-01-02 09:30", periods=90, freq="1min"),
        MINUTES + pd.to_timedelta(np.arange(90) ** 2, "s"),
    ],
)
def test_epochs_stay_epochs(tmp_path, times, unit):
    path = write(tmp_path / "x.csv", times.as_unit(unit).asi8)
    assert (read(path).dt.tz_localize(None).to_numpy() == times.to_numpy()).all()


def test_who_says_what_numbers_mean_is_believed(tmp_path):
    ticks = seconds(MINUTES) * 10**7 + TICKS["ticks of .NET"][0]
    path = write(tmp_path / "x.csv", ticks)
    assert (read(path, epoch_unit="ns").astype("int64").to_numpy() == ticks).all()


YEARS = {2000: 946_684_800, 2001: 978_307_200}
HOURS_ON = pd.date_range("2023-01-01 23:00", periods=26 * 168, freq="h")
NIGHT = HOURS_ON[np.arange(26 * 168) % 168 < 119]
"""From Sunday evening to Friday evening, as currencies and futures are traded."""
OF_WEEKS = {
    "days": pd.bdate_range("2015-01-02", periods=90),
    "days of Tokyo": pd.bdate_range("2015-01-02", periods=90) - pd.Timedelta("9h"),
    "minutes": DAYS.repeat(30) + pd.to_timedelta(np.tile(np.arange(870, 900), 90), "min"),
    "nights": NIGHT,
}


@pytest.mark.parametrize("times", OF_WEEKS.values(), ids=OF_WEEKS)
@pytest.mark.parametrize("year", YEARS)
@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
def test_counts_since_2000_are_told_by_the_days_on_which_markets_rest(tmp_path, year, unit, times):
    zero, scale = YEARS[year], {"s": 1, "ms": 10**3, "ns": 10**9}[unit]
    path = write(tmp_path / "x.csv", (seconds(times) - zero) * scale)
    with pytest.raises(TimestampError, match=f"as if they counted from {year}") as caught:
        read(path)
    [rules] = follow(str(caught.value))
    assert rules.epoch_unit == unit
    told = int(re.search(r"write x \+ (\d+) in their place", str(caught.value))[1])
    assert (read(path, epoch_unit=unit) + pd.Timedelta(told // scale, "s")).tolist() == [
        *times.tz_localize("UTC")
    ]
    right = write(tmp_path / "right.csv", (seconds(times) - zero) * scale + told)
    assert read(right).tolist() == [*times.tz_localize("UTC")]


@pytest.mark.parametrize("start", ["1985-01-02", "2015-01-02"])
@pytest.mark.parametrize(
    "times",
    [
        pd.bdate_range("2015-01-01", periods=90),
        pd.date_range("2015-01-01", periods=90),
        pd.date_range("2015-01-01", periods=90, freq="W-WED"),
        pd.date_range("2015-01-01", periods=90, freq="MS"),
        pd.bdate_range("2015-01-01", periods=9),
        pd.bdate_range("2015-01-01", periods=90, freq="C", weekmask="Sun Mon Tue Wed Thu"),
        pd.bdate_range("2015-01-01", periods=90, freq="C", weekmask="Mon Tue Wed Thu Fri Sat"),
    ],
    ids=["week", "always", "weekly", "monthly", "few", "Riyadh", "Saturdays"],
)
def test_other_weeks_are_epochs_of_1970(tmp_path, times, start):
    weeks = (pd.Timestamp(start) - pd.Timestamp("2015-01-01")).days // 7 * 7
    moved = times + pd.Timedelta(weeks, "D")
    assert read(write(tmp_path / "x.csv", seconds(moved))).tolist() == [*moved.tz_localize("UTC")]


@pytest.mark.parametrize("start", ["1981-01-02", "1993-01-05"])
def test_nor_do_holidays_make_another_year(tmp_path, start):
    days = pd.bdate_range(start, periods=300)
    kept = days[(np.arange(300) % 11 != 3) & (days.month != 8)]
    assert len(read(write(tmp_path / "x.csv", seconds(kept)))) == len(kept)
