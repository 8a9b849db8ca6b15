"""Local time as features: clocks of any zone at any time, by the database of a package."""

from __future__ import annotations

import pickle
import zoneinfo
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
import tzdata
from simulated import write_bars

import grandbatch as gb
from grandbatch.errors import StoreMismatchError, UsageError
from grandbatch.features import compute_rows
from grandbatch.values.zones import zone_of

ZONES = (
    "UTC",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Asia/Kathmandu",
    "Europe/Dublin",  # winter time that is below the standard
    "Africa/Casablanca",  # no summer time in Ramadan
    "Pacific/Apia",  # a day that never was
    "Asia/Gaza",
    "Antarctica/Troll",
    "America/Nuuk",
)
NONE = np.empty(0, np.int64)


def all_of(zone):
    made = (*gb.time_of_day(zone), *gb.day_of_week(zone), *gb.day_of_year(zone))
    return gb.FeatureSet("times", made, 2)


def values_of(zone, times):
    return compute_rows(all_of(zone), {"timestamp": np.ascontiguousarray(times)}, NONE)


def local_times(zone, times):
    """What pandas says, with the same database."""
    path = files("tzdata").joinpath("zoneinfo", *zone.split("/"))
    with path.open("rb") as file:
        rules = zoneinfo.ZoneInfo.from_file(file, zone)
    return pd.DatetimeIndex(times, tz="UTC").tz_convert(rules).tz_localize(None)


def expected(zone, times):
    local = local_times(zone, times)
    days = np.where(local.is_leap_year, 366, 365)
    shares = (
        (local - local.normalize()) / pd.Timedelta("1D"),
        local.day_of_week / 7,
        (local.day_of_year - 1) / days,
    )
    turns = [2 * np.pi * np.asarray(share) for share in shares]
    return np.stack([f(turn) for turn in turns for f in (np.sin, np.cos)], axis=1)


def times_between(first, last, n, seed=0):
    low, high = (pd.Timestamp(time).value for time in (first, last))
    return np.sort(np.random.default_rng(seed).integers(low, high, n))


@pytest.mark.parametrize("zone", ZONES)
def test_local_time_is_that_of_pandas_from_the_first_zones_to_the_last_nanosecond(zone):
    spans = [
        ("1678-01-01", "1970-01-01"),
        ("1970-01-01", "2045-01-01"),
        ("2045-01-01", "2262-01-01"),
    ]
    times = np.concatenate([times_between(*span, 700) for span in spans])
    np.testing.assert_allclose(values_of(zone, times), expected(zone, times), rtol=0, atol=7e-8)


@pytest.mark.parametrize("zone", ZONES)
def test_clocks_change_at_the_very_nanosecond(zone):
    changes = zone_of(zone).table[0][1:] * 10**9
    times = np.unique((changes[:, None] + np.array([-1, 0, 1, 1_800 * 10**9])).ravel())
    times = times[times < 2**63 - 10**15] if len(times) else np.array([0])
    np.testing.assert_allclose(values_of(zone, times), expected(zone, times), rtol=0, atol=7e-8)


def test_an_hour_that_comes_twice_has_the_same_values_twice():
    times = pd.date_range("2024-11-03 05:00", periods=8, freq="15min", tz="UTC").as_unit("ns").asi8
    day = values_of("America/New_York", times)[:, :2]
    np.testing.assert_array_equal(day[:4], day[4:])
    assert local_times("America/New_York", times)[4].hour == 1


def test_midnight_monday_and_new_year_stand_on_top_and_quarters_are_exact():
    monday = pd.date_range("2024-01-01", periods=4, freq="6h").as_unit("ns").asi8
    want = [[0, 1, 0, 1, 0, 1], [1, 0, 0, 1, 0, 1], [0, -1, 0, 1, 0, 1], [-1, 0, 0, 1, 0, 1]]
    found = values_of("UTC", monday)
    np.testing.assert_array_equal(found, np.array(want, np.float32))
    assert not np.signbit(found[found == 0]).any()


@pytest.mark.parametrize("zone", ZONES[:5])
def test_any_start_and_any_order_of_times_gives_the_same_bits(zone):
    times = times_between("2020-01-01", "2026-01-01", 900)
    whole = values_of(zone, times)
    for begin in (1, 333, 899):
        np.testing.assert_array_equal(values_of(zone, times[begin:]), whole[begin:])
    mixed = np.random.default_rng(1).permutation(900)
    np.testing.assert_array_equal(values_of(zone, times[mixed]), whole[mixed])


def test_one_call_gives_both_sides_of_a_circle_and_the_kernels_pass_their_check():
    for zone in ("America/New_York", "Australia/Lord_Howe"):
        assert len(all_of(zone).production.producers) == 3
        gb.check(all_of(zone))


def test_names_hold_the_zone_so_that_a_set_can_have_two():
    both = gb.FeatureSet("two", [*gb.time_of_day("UTC"), *gb.time_of_day("Asia/Tokyo")], 2)
    assert both.feature_names[1:3] == ("time_of_day_cos_UTC", "time_of_day_sin_Asia/Tokyo")
    assert both.lookback == 0
    assert both.inputs == ("timestamp",)


@pytest.mark.parametrize(
    "wrong", ["New_York", "America/New_Yorck", "../../zones", "", None, "EST+5"]
)
def test_an_unknown_zone_is_an_error(wrong):
    with pytest.raises(UsageError, match=r"unknown.*America/New_York"):
        gb.time_of_day(wrong)


def test_the_systems_database_is_never_read(monkeypatch):
    table = zone_of("Europe/Dublin")
    zone_of.cache_clear()
    try:
        monkeypatch.setattr(zoneinfo, "TZPATH", ())
        zoneinfo.reset_tzpath(to=[])
        assert zone_of("Europe/Dublin") == table
    finally:
        zoneinfo.reset_tzpath()
        zone_of.cache_clear()


def test_a_set_travels_with_its_table():
    sent = pickle.loads(pickle.dumps(all_of("Asia/Gaza")))
    assert sent.features[0].kernel.fused.run.zone == zone_of("Asia/Gaza")


def test_the_version_of_the_database_is_part_of_a_store_that_uses_it(tmp_path, monkeypatch):
    source = write_bars(tmp_path / "b.csv", 200)
    mine = [*gb.STRATEGIC.features[:1], *gb.time_of_day("America/New_York")]
    assert "zone_database" not in gb.STRATEGIC.describe()

    def build():
        return gb.build_store(source, tmp_path / "s.zarr", feature_set=gb.FeatureSet("m", mine, 4))

    store = build()
    assert store.attrs["zone_database"] == f"tzdata {tzdata.IANA_VERSION}"
    assert build().fingerprint == store.fingerprint
    zone_of.cache_clear()
    monkeypatch.setattr(tzdata, "IANA_VERSION", "2099z")
    try:
        mine[1:] = gb.time_of_day("America/New_York")
        with pytest.raises(
            StoreMismatchError, match=r"zone_database \(tzdata 20.*, now .* 2099z\)"
        ):
            build()
    finally:
        zone_of.cache_clear()
    times = store.end_time[:]
    np.testing.assert_allclose(
        store.matrices[:][:, -1, 1:], expected("America/New_York", times)[:, :2], rtol=0, atol=7e-8
    )
