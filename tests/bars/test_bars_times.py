"""Timestamps against the standard library and pandas; days and months by evidence."""

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.timestamps.evidence import Dates, Evidence, Meaning
from grandbatch.bars.timestamps.texts import TimeForm, read_times
from grandbatch.errors import TimestampError, UsageError
from grandbatch.kernels.bars.epochs import COMPACT
from grandbatch.kernels.bars.timestamps import ABSOLUTE, EMPTY, NAIVE, UNREADABLE
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
EPOCH = dt.datetime(1970, 1, 1)


def read(texts, day_first=True, timezone="UTC", strptime=None, numbers=COMPACT, clocks=0):
    column = pa.chunked_array([pa.array([text.encode() for text in texts], pa.binary())])
    return read_times(
        column, TimeForm(Meaning(day_first, numbers, True, clocks), timezone, strptime)
    )[:3]


def nanoseconds(moment):
    return (moment - EPOCH) // dt.timedelta(microseconds=1) * 1000


moments = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2261, 12, 31))
forms = st.sampled_from(
    [
        "%Y-%m-%d %H:%M:%S.%f",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%d %H:%M",
        "%Y-%m-%d",
        "%Y/%m/%d %H:%M:%S",
        "%Y.%m.%d %H:%M",
        "%d/%m/%Y %H:%M:%S",
        "%d.%m.%Y %H:%M",
        "%d-%m-%Y",
        "%-d/%-m/%Y %-H:%M",
        "%Y%m%d %H%M%S",
        "%Y%m%d",
        "%d/%m/%Y %I:%M %p",
        "%d/%m/%Y %I:%M:%S%p",
        "%Y%m%dT%H%M%S",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(moments, forms), min_size=1, max_size=12))
def test_every_known_form_is_read_as_strptime_reads_it(cases):
    texts = [moment.strftime(form) for moment, form in cases]
    texts += texts  # a date that stood there before takes the short way
    plain = [form.replace("%-", "%") for _, form in cases] * 2
    expected = [
        nanoseconds(dt.datetime.strptime(text, form))
        for text, form in zip(texts, plain, strict=True)
    ]
    times, status, _ = read(texts)
    assert times.tolist() == expected
    assert (status == NAIVE).all()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("0123456789:/-. TZ+", max_size=22), max_size=8))
def test_no_text_is_read_as_a_time_that_pandas_refutes(texts):
    times, status, _ = read(texts)
    for text, time, code in zip(texts, times, status, strict=True):
        if code in (NAIVE, ABSOLUTE) and text.strip()[4:5] == "-" and len(text.strip()) >= 16:
            theirs = pd.to_datetime(text.strip(), utc=True, errors="coerce")
            assert theirs is pd.NaT or theirs.value == time


@settings(max_examples=200, deadline=None)
@given(st.dates(dt.date(1970, 1, 1), dt.date(2200, 1, 1)), st.text("0123456789:T ", max_size=9))
def test_the_short_way_reads_what_the_long_way_reads(day, rest):
    text = f"{day}{rest}"
    alone, status, _ = read([text])
    after, status_after, _ = read([f"{day} 09:30", text])
    assert (after[1], status_after[1]) == (alone[0], status[0])


@pytest.mark.parametrize("unit", range(4))
def test_epochs_are_read_in_the_unit_that_was_decided(unit):
    moment = pd.Timestamp("2020-06-29 01:00")
    text = str(moment.value // 10 ** (9 - 3 * unit))
    scientific = [f"{text[0]}.{text[1:]}e+{len(text) - 1:02d}", f"{text}E0", f"{text[:-2]}e2"]
    times, status, _ = read([text, f"-{text}", f"{text}.0", "0", *scientific], numbers=unit)
    assert times.tolist() == [moment.value, -moment.value, moment.value, 0, *[moment.value] * 3]
    assert (status == ABSOLUTE).all()


def test_epochs_have_fractions_down_to_nanoseconds():
    times, _, _ = read(["1593392400.25", "-1.000000001", "0.5", "15e-1"], numbers=0)
    assert times.tolist() == [1593392400250000000, -1000000001, 500000000, 1500000000]
    assert read(["1593392400000.25"], numbers=1)[0].tolist() == [1593392400000250000]
    assert read(["1593392400000.25"], numbers=3)[0].tolist() == [1593392400000]


def test_offsets_lead_to_utc():
    texts = ["2020-06-29T01:00Z", "2020-06-29 03:00+02:00", "2020-06-28T20:00:00.0-0500"]
    texts += [
        "29.06.2020 03:00:00.000 GMT+0200",
        "2020-06-29 03:00 UTC+2",
        "2020-06-28 22:00 GMT-3",
    ]
    times, status, _ = read(texts)
    assert set(times.tolist()) == {pd.Timestamp("2020-06-29 01:00").value}
    assert (status == ABSOLUTE).all()


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "5",
        "12345",
        "2020-02-30",
        "2021-02-29",
        "2020-01-01 24:01",
        "2020-01-01 24:00:00.5",
        "2020-01-01 12:00:60",
        "09:30",
        "1e",
        "1e5.0",
        "1.2.3",
        "2020-01-01 1:60",
        "31/31/2020",
        "2020-01-01 01:00 PM+",
        "1500-01-01",
        "2300-01-01",
        "2020-01/01",
        "1/2/20",
        "2020-01-01 00:00 PM",
        "99999999999999999999",
        "9999999999",
        "2020-01-01Z",
        "2020-01-01 10",
        "--5",
        "-",
        "1593392400.5x",
        "20240102.5",
        "20240230",
        "202401022401",
    ],
)
def test_what_is_no_time_is_unparseable(text):
    assert read([text])[1].tolist() == [UNREADABLE]


def test_blanks_are_missing_and_around_a_time_ignored():
    times, status, _ = read(["", " \t", " 2020-01-01 "])
    assert status.tolist() == [EMPTY, EMPTY, NAIVE]
    assert times[2] == pd.Timestamp("2020-01-01").value


def test_evidence_counts_days_above_twelve_on_either_side():
    texts = [
        "13/1/2020 00:00",
        "1/13/2020",
        "1/2/2020",
        "13/13/2020",
        "2020-01-13",
        "13/1/2020 01:00",
    ]
    assert read(texts)[2] == Evidence(Dates(day_first=2, month_first=1, rows=4))


def test_a_zone_turns_wall_time_into_utc_and_skipped_times_are_unparseable():
    texts = ["2024-01-10 09:30", "2024-03-10 02:30", "2024-11-03 01:30", "2024-01-10T09:30Z"]
    times, status, _ = read(texts, timezone="America/New_York")
    assert status.tolist() == [NAIVE, UNREADABLE, NAIVE, ABSOLUTE]
    expected = ["2024-01-10 14:30", "2024-11-03 05:30", "2024-01-10 09:30"]
    assert times[[0, 2, 3]].tolist() == [pd.Timestamp(text).value for text in expected]


def test_a_strptime_form_reads_all_rows():
    texts = ["Jun 29 2020 01:00", "Jul 02 2025 09:30", "2020-06-29", ""]
    times, status, _ = read(texts, strptime="%b %d %Y %H:%M")
    assert times[:2].tolist() == [
        pd.Timestamp("2020-06-29 01:00").value,
        pd.Timestamp("2025-07-02 09:30").value,
    ]
    assert status.tolist() == [NAIVE, NAIVE, UNREADABLE, EMPTY]


def write(path, days, form):
    rows = [f"{day.strftime(form)},10,12,9,11,100" for day in days]
    path.write_text("\n".join(["Date,Open,High,Low,Close,Volume", *rows]))
    return path


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y", "%-d.%-m.%Y 9:30"])
@pytest.mark.parametrize("block_bytes", [100, None])
def test_evidence_anywhere_in_the_file_decides_days_or_months(tmp_path, form, block_bytes):
    # three years without a day above 12, past the sample, then one row that tells
    early = [dt.date(1990 + y, m, d) for y in range(80) for m in range(1, 13) for d in range(1, 13)]
    days = [*early, dt.date(2070, 1, 13)]
    if block_bytes:
        days = days[-60:]
    path = write(tmp_path / "x.csv", days, form)
    bars = prepare_bars(path, tmp_path / "c", BarRules(), HERE, block_bytes)
    read_days = bars.read(0, bars.n_rows, ("timestamp",))["timestamp"].view("datetime64[ns]")
    np.testing.assert_array_equal(
        read_days.astype("datetime64[D]"), np.array(days, "datetime64[D]")
    )


def test_without_evidence_days_or_months_must_be_said(tmp_path):
    path = write(tmp_path / "x.csv", [dt.date(2020, 1, day) for day in range(1, 11)], "%d/%m/%Y")
    with pytest.raises(TimestampError, match="--dayfirst"):
        prepare_bars(path, tmp_path / "c", BarRules(), HERE)
    for rules, last in [
        (BarRules(dayfirst=True), "2020-01-10"),
        (BarRules(dayfirst=False), "2020-10-01"),
        (BarRules(timestamp_format="%d/%m/%Y"), "2020-01-10"),
    ]:
        bars = prepare_bars(path, tmp_path / "c", rules, HERE)
        assert bars.last_time == pd.Timestamp(last).value


@pytest.mark.parametrize("form", ["%Q", "%", "%-d", "%s", "%Y %Y", "%G-%V"])
def test_a_form_that_pandas_does_not_understand_is_a_wrong_usage(tmp_path, form):
    path = write(tmp_path / "x.csv", [dt.date(2020, 1, 1)], "%d/%m/%Y")
    with pytest.raises(UsageError, match="timestamp_format"):
        prepare_bars(path, tmp_path / "c", BarRules(timestamp_format=form), HERE)


def test_dates_that_mean_the_same_either_way_need_nothing_said(tmp_path):
    days = [dt.date(2020, month, month) for month in range(1, 12)]
    path = write(tmp_path / "x.csv", days, "%d/%m/%Y")
    bars = prepare_bars(path, tmp_path / "c", BarRules(), HERE)
    assert (bars.n_rows, bars.quarantined) == (11, {})
    assert bars.last_time == pd.Timestamp("2020-11-11").value


def test_a_file_without_evidence_follows_the_other_files(tmp_path):
    first = write(tmp_path / "a.csv", [dt.date(2020, 1, day) for day in range(1, 11)], "%d/%m/%Y")
    other = write(tmp_path / "b.csv", [dt.date(2020, 2, day) for day in range(1, 21)], "%d/%m/%Y")
    bars = prepare_bars([first, other], tmp_path / "c", BarRules(), HERE)
    assert (bars.n_rows, bars.quarantined) == (30, {})


def test_widths_may_be_mixed_and_date_and_time_stand_apart(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\n"
        "29/06/2020\t01:00:00\t10\t12\t9\t11\t5\n2/7/2025\t9:30\t10\t12\t9\t11\t5\n"
    )
    bars = prepare_bars(path, tmp_path / "c", BarRules(), HERE)
    assert bars.first_time == pd.Timestamp("2020-06-29 01:00").value
    assert bars.last_time == pd.Timestamp("2025-07-02 09:30").value


def test_the_end_of_a_day_is_read_by_a_form_of_ones_own_too():
    texts = ["02 Jan 2024 23:00", "02 Jan 2024 24:00", "31 Dec 2024 24:00", "02 Jan 2024 24:01", ""]
    times, status, _ = read(texts, strptime="%d %b %Y %H:%M")
    expected = ["2024-01-02 23:00", "2024-01-03", "2025-01-01"]
    assert times[:3].tolist() == [pd.Timestamp(text).value for text in expected]
    assert status.tolist() == [NAIVE, NAIVE, NAIVE, UNREADABLE, EMPTY]
    zoned = ["2024-01-02T24:00:00+0200", "2024-01-02T23:59:60+0200"]
    times, status, _ = read(zoned, strptime="%Y-%m-%dT%H:%M:%S%z")
    assert times.tolist() == [pd.Timestamp("2024-01-02 22:00").value] * 2
    assert (status == ABSOLUTE).all()
