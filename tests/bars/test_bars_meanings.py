"""Numbers as timestamps: what they mean is decided by the whole file, once."""

import shlex

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from advice import follow, offers

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.building import block as pieces
from grandbatch.errors import ColumnError, InputError, TimestampError, UsageError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
HEADER = "timestamp,open,high,low,close,volume"
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def write(path, texts, header=HEADER):
    path.write_text("\n".join([header, *(f"{text},10,12,9,11,100" for text in texts)]))
    return path


def times_of(path, block_bytes=None, folder="c", **rules):
    bars = prepare_bars(path, path.parent / folder, BarRules(**rules), HERE, block_bytes)
    assert bars.quarantined == {}
    return pd.DatetimeIndex(bars.read(0, bars.n_rows)["timestamp"].view("M8[ns]"))


def epochs(moments, unit):
    return [value * PER_SECOND[unit] for value in moments.as_unit("s").asi8.tolist()]


RANGES = [
    pd.date_range("1962-01-02 14:30", "1980-12-31 14:30", freq="B"),  # across zero
    pd.date_range("1970-01-02", "1973-01-01", freq="B"),  # seconds of eight digits
    pd.date_range("1974-01-02 14:30", "1978-12-29", freq="B"),  # ms look like YYYYMMDDHHMM
    pd.date_range("1970-01-01", "1970-12-31", freq="h"),
    pd.date_range("1905-01-02", "1969-12-30", freq="W"),
    pd.date_range("2024-01-02 09:30", periods=300, freq="1min"),
    pd.date_range("2023-03-01", "2041-01-01", freq="3D"),  # seconds look like YYYYMMDDHH
    pd.date_range("1990-01-01", "2099-12-31", freq="30D"),
]


@pytest.mark.slow
@pytest.mark.parametrize("unit", PER_SECOND)
@pytest.mark.parametrize("moments", RANGES, ids=lambda moments: str(moments[0]))
def test_epochs_of_any_unit_and_year_are_read_by_what_the_file_shows(tmp_path, moments, unit):
    path = write(tmp_path / "x.csv", epochs(moments, unit))
    assert (times_of(path, 700) == moments).all()
    assert (times_of(path, folder="d") == moments).all()


@pytest.mark.parametrize(
    "form", ["%Y%m%d", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%Y%m%d%H%M%S000"]
)
def test_dates_written_as_digits_are_dates(tmp_path, form):
    moments = pd.date_range("1969-12-30", periods=400, freq="D")
    path = write(tmp_path / "x.csv", moments.strftime(form))
    assert (times_of(path, 300) == moments).all()
    floats = write(tmp_path / "y.csv", [f"{text}.0" for text in moments.strftime(form)])
    assert (times_of(floats, 300) == moments).all()


def test_what_the_first_rows_seem_to_be_is_read_again_where_the_file_says_otherwise(tmp_path):
    looks = pd.date_range("1970-01-01", periods=9000, freq="1min").strftime("%Y%m%d%H%M")
    first = [int(text) for text in looks]  # milliseconds of 1976 that are all dates, too
    values = [*first, *range(first[-1] + 10**6, first[-1] + 12_000 * 60_000, 60_000)]
    path = write(tmp_path / "x.csv", values)
    assert path.stat().st_size > 2 * 256 * 1024
    expected = pd.to_datetime(pd.Series(values), unit="ms").to_numpy()
    np.testing.assert_array_equal(times_of(path, 50_000).to_numpy(), expected)


@pytest.mark.parametrize("texts", [epochs(RANGES[5], "ms"), RANGES[5].strftime("%Y-%m-%d %H:%M")])
def test_no_block_is_read_twice_where_the_first_guess_holds(tmp_path, monkeypatch, texts):
    read = []

    def read_block(task, groups=None, original=pieces.read_block):
        read.append(task.index)
        return original(task, groups)

    monkeypatch.setattr(pieces, "read_block", read_block)
    path = write(tmp_path / "x.csv", texts)
    assert len(times_of(path, 1000)) == 300
    assert len(read) == len(set(read)) > 5


def test_each_file_of_a_folder_has_a_unit_of_its_own(tmp_path):
    folder = tmp_path / "bars"
    folder.mkdir()
    moments = pd.date_range("1999-01-01", periods=1200, freq="D")
    forms = [*(epochs(moments[i * 200 :][:200], unit) for i, unit in enumerate(PER_SECOND))]
    forms += [moments[800:1000].strftime("%Y%m%d"), moments[1000:].strftime("%Y-%m-%d")]
    for number, texts in enumerate(forms):
        write(folder / f"{number}.csv", texts)
    assert (times_of(folder) == moments).all()
    bars = prepare_bars(folder, tmp_path / "bars" / ".." / "c", BarRules(), HERE)
    assert bars.time_numbers == ("s", "ms", "us", "ns", "date", None)


@pytest.mark.parametrize(("coarse", "fine"), [("ms", "us"), ("s", "ms"), ("us", "ns"), ("s", "ns")])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_a_file_whose_unit_changes_is_refused(tmp_path, coarse, fine, share):
    moments = pd.date_range("2024-12-30", periods=2000, freq="1min")
    cut = int(2000 * share)
    path = write(tmp_path / "x.csv", epochs(moments[:cut], coarse) + epochs(moments[cut:], fine))
    for block_bytes in (500, 1 << 20):
        with pytest.raises(
            TimestampError, match=f"epochs in {coarse} and in {fine}. Part the file"
        ):
            times_of(path, block_bytes)


def test_a_few_epochs_of_a_coarser_unit_are_no_times_of_1970(tmp_path):
    moments = pd.date_range("2024-12-30", periods=2000, freq="1min")
    path = write(tmp_path / "x.csv", epochs(moments[:5], "ms") + epochs(moments[5:], "us"))
    bars = prepare_bars(path, tmp_path / "c", BarRules(), HERE, 1000)
    assert bars.quarantined == {"unparseable": 5}
    assert (bars.read(0, bars.n_rows)["timestamp"].view("M8[ns]") == moments[5:]).all()


@pytest.mark.parametrize("unit", PER_SECOND)
def test_epochs_on_both_sides_of_1970_are_read_in_any_unit(tmp_path, unit):
    moments = pd.date_range("1968-01-01", periods=1500, freq="D")
    path = write(tmp_path / "x.csv", epochs(moments, unit))
    assert (times_of(path, 700) == moments).all()


def test_epochs_that_floats_print_are_read(tmp_path):
    moments = RANGES[5]
    seconds = np.array(epochs(moments, "s"), float)
    for number, form in enumerate(["{:.1f}", "{:.6f}", "{:.18e}", "{!r}"]):
        path = write(tmp_path / f"{number}.csv", [form.format(value) for value in seconds.tolist()])
        assert (times_of(path, 900) == moments).all()


@pytest.mark.parametrize("unit", PER_SECOND)
@pytest.mark.parametrize("kind", ["int64", "float64"])
def test_columns_of_numbers_in_parquet_are_decided_likewise(tmp_path, unit, kind):
    moments = RANGES[2]
    frame = pd.DataFrame({"date": epochs(moments, unit)}).astype(kind)
    frame = frame.assign(open=10.0, high=12.0, low=9.0, close=11.0, volume=100)
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=100)
    assert (times_of(tmp_path / "x.parquet") == moments).all()
    frame["date"] = moments.strftime("%Y%m%d").astype(kind)
    frame.to_parquet(tmp_path / "y.parquet")
    assert (times_of(tmp_path / "y.parquet") == moments.normalize()).all()


def test_where_nothing_decides_the_unit_must_be_said(tmp_path):
    # a date and none; seconds in steps of 25 days, which may be milliseconds of January 1970
    steps = pd.date_range("2023-12-09", periods=60, freq="25D")
    for number, texts in enumerate([["20240102", "20240190"], epochs(steps, "s")]):
        path = write(tmp_path / f"{number}.csv", texts)
        with pytest.raises(TimestampError, match="add --epoch-unit s"):
            times_of(path)
        assert (
            times_of(path, epoch_unit="s") == pd.to_datetime([int(t) for t in texts], unit="s")
        ).all()
    write(tmp_path / "one.csv", ["20240102"])
    assert times_of(tmp_path / "one.csv", timestamp_format="%Y%m%d")[0] == pd.Timestamp(
        "2024-01-02"
    )


def test_a_file_without_evidence_of_its_own_follows_the_others(tmp_path):
    moments = pd.date_range("2023-12-09", periods=20, freq="25D")
    write(tmp_path / "a.csv", epochs(moments, "s"))
    write(tmp_path / "b.csv", epochs(pd.date_range("2026-01-01", periods=70), "s"))
    bars = prepare_bars(tmp_path, tmp_path / "c", BarRules(), HERE)
    assert (bars.n_rows, bars.time_numbers) == (90, ("s", "s"))


def refused(path, header, rows, **rules):
    path.write_text("\n".join([header, *rows]))
    with pytest.raises(TimestampError) as caught:
        prepare_bars(path, path.parent / "c", BarRules(**rules), HERE, 500)
    return str(caught.value)


@pytest.mark.parametrize(
    "texts",
    [
        [str(n) for n in range(5000)],
        [str(n) for n in range(10**7, 10**7 + 300)],
        [f"{h}{m:02d}00" for h in range(9, 16) for m in range(60)],
        [f"{h:02d}{m:02d}" for h in range(9, 16) for m in range(60)],
        [str(45293 + n / 24) for n in range(300)],  # days of Excel
        [str(202400 + month) for month in range(1, 13)],
        [str(2024000 + day) for day in range(1, 367)],
    ],
    ids=["row numbers", "large ones", "HMMSS", "HHMM", "days of Excel", "months", "days of a year"],
)
def test_numbers_that_are_neither_epochs_nor_dates_are_no_timestamps(tmp_path, texts):
    rows = [f"{text},10,12,9,11,100" for text in texts]
    for header in (HEADER, ",open,high,low,close,volume"):
        message = refused(tmp_path / "x.csv", header, rows)
        assert "rather than epochs" in message
        assert "--epoch-unit s" in message


def test_a_time_of_day_alone_is_no_timestamp(tmp_path):
    rows = [f"{9 + i // 60:02d}:{i % 60:02d}:00,10,12,9,11,100" for i in range(300)]
    for size in (3, 300):
        message = refused(tmp_path / "x.csv", "time,open,high,low,close,volume", rows[:size])
        assert "times of day without a date" in message


@pytest.mark.parametrize(
    ("header", "row", "flags"),
    [
        ("Trading day,time", "2024.01.02,{:%H:%M}", {"date": "Trading day", "time": "time"}),
        ("Trading day,time", "20240102,{:%-H%M}", {"date": "Trading day", "time": "time"}),
        (",When", "{0.minute},2024-01-02 {0:%H:%M}", {"timestamp": "When"}),
        (",When", "{0.minute},{0:%Y%m%d%H%M}", {"timestamp": "When"}),
        (",Session,Clock", "{0.minute},1/13/2024,{0:%H:%M}", {"date": "Session", "time": "Clock"}),
        ("time,When", "{0:%H:%M},2024-01-02T{0:%H:%M}", {"timestamp": "When"}),
    ],
)
def test_where_another_column_has_the_dates_the_error_says_how_to_map_it(
    tmp_path, header, row, flags
):
    moments = pd.date_range("2024-01-02 09:30", periods=300, freq="1min")
    path = tmp_path / "x.csv"
    rows = [f"{row.format(moment)},10,12,9,11,100" for moment in moments[:30]]
    path.write_text("\n".join([f"{header},open,high,low,close,volume", *rows]))
    with pytest.raises(ColumnError) as caught:
        times_of(path)
    [offered] = offers(str(caught.value))
    words = shlex.split(offered)
    assert dict(word.split("=") for word in words[1::2]) == flags
    assert set(words[::2]) == {"--columns"}
    assert (times_of(path, columns=flags)[:30].time == moments[:30].time).all()


def test_times_of_years_that_nanoseconds_do_not_reach_are_unparseable(tmp_path):
    far = {  # as strftime writes years, the first of each is one of ours
        "ms": [2_070_000_000_000_000, 9_404_467_200_000_000, -9 * 10**15],
        "us": [2_070_000_000_000_000_000, 9_004_467_200_000_000_000, -(2**62), -(2**63)],
    }
    for unit, values in far.items():
        for zone in (None, "UTC", "Asia/Tokyo"):
            good = epochs(RANGES[5], unit)
            moments = pa.array([*good[:150], *values, *good[150:]], pa.timestamp(unit, zone))
            numbers = {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 1.0}
            columns = {name: [value] * len(moments) for name, value in numbers.items()}
            path = tmp_path / f"{unit}-{str(zone)[:3]}.parquet"
            pq.write_table(pa.table({"timestamp": moments, **columns}), path)
            bars = prepare_bars(path, tmp_path / "c", BarRules(max_bad_fraction=0.1), HERE)
            assert (bars.n_rows, bars.quarantined) == (300, {"unparseable": len(values)})
            assert bars.last_time == RANGES[5][-1].value


@pytest.mark.parametrize("form", ["%H:%M:%S", "%H%M"])
def test_a_form_without_a_date_is_a_wrong_usage(form):
    with pytest.raises(UsageError, match="no year"):
        BarRules(timestamp_format=form)


def test_a_few_stray_numbers_among_dates_are_bad_rows_and_no_more(tmp_path):
    texts = list(RANGES[5].strftime("%Y-%m-%d %H:%M"))
    path = write(tmp_path / "x.csv", [*texts[:150], "5", *texts[150:], "12"])
    bars = prepare_bars(path, tmp_path / "c", BarRules(), HERE, 400)
    assert (bars.n_rows, bars.quarantined) == (300, {"unparseable": 2})


def test_a_few_stray_numbers_near_zero_are_no_epochs_of_1970(tmp_path):
    for unit in PER_SECOND:
        values = epochs(RANGES[5], unit)
        path = write(tmp_path / f"{unit}.csv", [0, 1, *values[:150], "5", *values[150:]])
        bars = prepare_bars(path, tmp_path / "c", BarRules(), HERE, 400)
        assert (bars.n_rows, bars.quarantined) == (300, {"unparseable": 3})
        assert bars.first_time == RANGES[5][0].value


def with_clock(path, moments, clock):
    text = [f"{m:%Y%m%d},{clock(m)},10,12,9,11,100" for m in moments]
    path.write_text("\n".join(["date,time,open,high,low,close,volume", *text]))
    return path


CLOCKS = {
    "hhmm": lambda m: m.hour * 100 + m.minute,
    "hhmmss": lambda m: m.hour * 10_000 + m.minute * 100 + m.second,
    "hhmmssmmm": lambda m: (m.hour * 10_000 + m.minute * 100 + m.second) * 1000,
    "padded hhmm": lambda m: f"{m:%H%M}",
    "padded hhmmss": lambda m: f"{m:%H%M%S}",
    "floats": lambda m: f"{m.hour * 10_000 + m.minute * 100 + m.second}.0",
}


@pytest.mark.parametrize("kind", CLOCKS)
@pytest.mark.parametrize("start", ["2024-01-02 00:00", "2024-01-02 00:05", "2024-01-02 09:30"])
@pytest.mark.parametrize("step", ["1min", "1h"])
def test_times_of_day_as_numbers_need_no_zeros_before_them(tmp_path, kind, start, step):
    moments = pd.date_range(start, periods=1500, freq=step)
    path = with_clock(tmp_path / "x.csv", moments, CLOCKS[kind])
    assert (times_of(path, 2000) == moments).all()
    assert (times_of(path, folder="d") == moments).all()


def test_times_of_day_in_parquet_numbers_need_no_zeros_either(tmp_path):
    moments = pd.date_range("2024-01-02", periods=600, freq="7min")
    for number, kind in enumerate(["int64", "float64"]):
        frame = pd.DataFrame({"date": moments.strftime("%Y%m%d"), "time": 0})
        frame["time"] = [CLOCKS["hhmmss"](moment) for moment in moments]
        frame = frame.astype(kind).assign(open=10.0, high=12.0, low=9.0, close=11.0, volume=1)
        frame.to_parquet(tmp_path / f"{number}.parquet", row_group_size=50)
        assert (times_of(tmp_path / f"{number}.parquet") == moments).all()


def test_hours_alone_are_refused_and_the_flag_reads_them(tmp_path):
    moments = pd.date_range("2024-01-02", periods=100, freq="h")
    path = with_clock(tmp_path / "x.csv", moments, lambda m: m.hour)
    with pytest.raises(TimestampError, match="add --timestamp-format '%Y%m%d %H'"):
        times_of(path)
    assert (times_of(path, timestamp_format="%Y%m%d %H") == moments).all()


def test_times_of_day_that_are_neither_all_short_nor_all_long_are_refused(tmp_path):
    moments = pd.date_range("2024-01-02 09:30", periods=300, freq="1min")
    path = with_clock(
        tmp_path / "x.csv",
        moments,
        lambda m: CLOCKS["hhmmss" if m.minute % 5 == 0 else "hhmm"](m),
    )
    with pytest.raises(TimestampError, match="HHMMSS"):
        times_of(path)


@pytest.mark.parametrize(
    ("end", "forms"),
    [
        ("24:00", ["{:%Y-%m-%d},{}", "{:%d.%m.%Y},{}:00", "{:%Y-%m-%d}T{}", "{:%Y%m%d} {}:00.000"]),
        ("2400", ["{:%Y%m%d},{}", "{:%Y%m%d} {}00", "{:%Y%m%d}{}", "{:%Y%m%d}{}00"]),
        ("24:00", ["{:%Y-%m-%d} {}+00:00", "{:%m/%d/%Y} {}"]),
        ("23:59:60", ["{:%Y-%m-%d},{}", "{:%Y-%m-%d}T{}Z", "{:%d/%m/%Y} {}"]),
        ("235960", ["{:%Y%m%d},{}", "{:%Y%m%d}{}"]),
    ],
)
def test_the_end_of_a_day_is_the_start_of_the_next(tmp_path, end, forms):
    days = pd.date_range("2024-02-01", periods=40)
    for number, form in enumerate(forms):
        noon = "1200" if ":" not in end else "12:00"
        noon += end[len(noon) :].replace("60", "00") if "60" in end else ""
        rows = [form.format(day, clock) for day in days for clock in (noon, end)]
        path = tmp_path / f"{number}.csv"
        header = HEADER.replace("timestamp", "date,time" if "," in rows[0] else "timestamp")
        write(path, rows, header)
        expected = [day + pd.Timedelta(hours=hours) for day in days for hours in (12, 24)]
        assert (times_of(path, 333) == pd.DatetimeIndex(expected)).all()


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("2016-12-31 18:59:60-05:00", "UTC"),
        ("2017-01-01T00:59:60+01:00", "UTC"),
        ("2017-01-01 05:29:60+0530", "UTC"),
        ("2017-01-01 05:44:60+05:45", "UTC"),
        ("2016-12-31 18:59:60", "America/New_York"),
        ("20161231185960", "America/New_York"),
        ("20170101 052960", "Asia/Kolkata"),
    ],
)
def test_a_leap_second_is_read_on_the_clock_of_any_zone(tmp_path, text, zone):
    form = "%Y%m%d%H%M%S" if text.isdigit() else "%Y-%m-%d %H:%M"
    before, behind = (pd.Timestamp(day).strftime(form) for day in ("2016-12-31", "2017-01-03"))
    path = write(tmp_path / "x.csv", [before, text, behind])
    assert times_of(path, timezone=zone)[1] == pd.Timestamp("2017-01-01")


@pytest.mark.parametrize("clock", ["18:31:60", "18:59:61", "24:14:60"])
def test_a_sixtieth_second_elsewhere_is_none(tmp_path, clock):
    path = write(tmp_path / "x.csv", ["2016-12-31 12:00", f"2016-12-31 {clock}"])
    rules = BarRules(max_bad_fraction=0.5)
    assert prepare_bars(path, tmp_path / "cache", rules).quarantined == {"unparseable": 1}


def test_server_time_is_a_zone_and_what_its_clock_is_ahead(tmp_path):
    utc = pd.date_range("2024-03-01", "2024-11-10", freq="h", tz="UTC")
    new_york = utc.tz_convert("America/New_York").tz_localize(None)
    utc = utc[~new_york.duplicated(keep=False)]  # the hour that comes twice
    wall = utc.tz_convert("America/New_York").tz_localize(None) + pd.Timedelta(hours=7)
    path = write(tmp_path / "x.csv", wall.strftime("%Y.%m.%d %H:%M"))
    got = times_of(path, 3000, timezone="America/New_York+07:00")
    assert (got == utc.tz_localize(None)).all()
    east = times_of(path, folder="d", timezone="UTC+05:30")
    assert (east == wall - pd.Timedelta(hours=5.5)).all()
    west = times_of(path, folder="e", timezone="Etc/GMT+5-01:00")
    assert (west == wall + pd.Timedelta(hours=6)).all()


@pytest.mark.parametrize("changes", ["2018-03", "2018-10"])
@pytest.mark.parametrize(
    ("zone", "ahead"),
    [
        ("Europe/London-01:30", "-90min"),
        ("America/Sao_Paulo+03:30", "210min"),
        ("Australia/Lord_Howe-10:30", "-630min"),
        ("Asia/Kolkata", "0min"),
    ],
)
def test_a_clock_ahead_or_behind_changes_when_its_zone_does(tmp_path, zone, ahead, changes):
    utc = pd.date_range(f"{changes}-01", periods=40 * 48, freq="30min", tz="UTC")
    plain = zone if ahead == "0min" else zone[:-6]
    wall = utc.tz_convert(plain).tz_localize(None) + pd.Timedelta(ahead)
    path = write(tmp_path / "x.csv", wall.strftime("%Y.%m.%d %H:%M"))
    assert (times_of(path, 9000, timezone=zone) == utc.tz_localize(None)).all()


ZONES_THAT_ARE_NONE = [
    *("America/New_York+7", "+07:00", "Nowhere+07:00", "EET+07:60", "America/New_York+0700"),
    *("America/New_York+24:00", "Europe/London-99:00", "UTC+5", "America/New_York +07:00"),
]


@pytest.mark.parametrize("zone", ZONES_THAT_ARE_NONE)
def test_a_zone_that_there_is_not_is_a_wrong_usage(zone):
    with pytest.raises(UsageError, match="timezone"):
        BarRules(timezone=zone)


@pytest.mark.parametrize("zone", ["EST", "CET", "MSK", "IST"])
def test_zone_abbreviations_are_refused_by_name(tmp_path, zone):
    path = write(tmp_path / "x.csv", [f"{m:%Y-%m-%d %H:%M:%S} {zone}" for m in RANGES[5]])
    with pytest.raises(InputError, match=f"{zone} is an abbreviation.*write offsets") as caught:
        times_of(path)
    assert not [flag for flag in offers(str(caught.value)) if "fraction" not in flag]


@pytest.mark.parametrize("zone", ["US/Eastern", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
@pytest.mark.parametrize(
    "form", ["%Y%m%d %H:%M:%S {}", "%Y-%m-%dT%H:%M [{}]", "%Y/%m/%d %H:%M:%S%z[{}]"]
)
def test_names_of_zones_behind_times_are_offered_as_flags(tmp_path, form, zone):
    zoned = RANGES[5].tz_localize(zone)
    path = write(tmp_path / "x.csv", zoned.strftime(form.format(zone)))
    with pytest.raises(InputError, match="times name their zone") as caught:
        times_of(path)
    bars = prepare_bars(path, tmp_path / "again", next(follow(str(caught.value))))
    got = pd.DatetimeIndex(bars.read(0, bars.n_rows)["timestamp"].view("M8[ns]"))
    assert (got == zoned.tz_convert("UTC").tz_localize(None)).all()


def test_names_of_zones_behind_times_of_several_forms_are_offered_no_flag(tmp_path):
    path = write(tmp_path / "x.csv", ["2024-01-02 17:00 US/Eastern", "2024-01-02 US/Eastern 18:00"])
    with pytest.raises(InputError) as caught:
        times_of(path)
    assert not offers(str(caught.value))


@pytest.mark.parametrize("form", ["%Y-%m-%d %I-%p", "%Y-%m-%d %I %p", "%m/%d/%Y %I%p"])
def test_hours_of_half_days_need_no_minutes(tmp_path, form):
    moments = pd.date_range("2024-01-12", periods=100, freq="h")
    path = write(tmp_path / "x.csv", moments.strftime(form))
    assert (times_of(path) == moments).all()
