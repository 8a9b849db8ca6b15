"""Night sessions dated by their trading day, against the times that they were made from."""

import time

import numpy as np
import pandas as pd
import pytest
from advice import follow, offers, rules_of

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.building import block, build
from grandbatch.errors import BadRowsError, UsageError
from grandbatch.files import whole
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
HEADER = "date,time,open,high,low,close,volume"
BAR = "10,12,9,11,1"


def trading_days(start="2024-01-31", periods=60):
    days = pd.bdate_range(start, periods=periods)
    holidays = [*pd.date_range("2024-02-12", "2024-02-16"), pd.Timestamp("2024-04-04")]
    return days[~days.isin(holidays)]


def sessions(days, minutes=30, evening=("21:00", "23:30")):
    """True times, and the trading day that each stands under."""
    true, written = [], []
    before = [days[0] - pd.offsets.BDay(), *days[:-1]]
    for day, last in zip(days, before, strict=True):
        for start, stop, on in ((*evening, last), ("09:00", "15:00", day)):
            moments = pd.date_range(
                f"{on:%Y-%m-%d} {start}", f"{on:%Y-%m-%d} {stop}", freq=f"{minutes}min"
            )
            true += list(moments)
            written += [day + (moment - moment.normalize()) for moment in moments]
    return pd.DatetimeIndex(true), pd.DatetimeIndex(written)


def lines(written):
    return [f"{m:%Y.%m.%d},{m:%H:%M},10,12,9,11,{n}" for n, m in enumerate(written)]


def write(path, written):
    path.write_text("\n".join([HEADER, *lines(written)]))
    return path


def read(path, block_bytes=None, folder="c", **rules):
    bars = prepare_bars(path, path.parent / folder, BarRules(**rules), HERE, block_bytes)
    assert bars.quarantined == {}
    rows = bars.read(0, bars.n_rows)
    return pd.DatetimeIndex(rows["timestamp"].view("M8[ns]")), rows["volume"]


@pytest.mark.parametrize("block_bytes", [150, 1000, 7000, None])
@pytest.mark.parametrize("start", ["18:00", "21:00", "15:01"])
def test_a_night_session_belongs_to_the_trading_day_before(tmp_path, block_bytes, start):
    true, written = sessions(trading_days())
    path = write(tmp_path / "x.csv", written)
    times, volume = read(path, block_bytes, session_start=start)
    assert (times == true).all()
    np.testing.assert_array_equal(volume, np.arange(len(true)))


def test_blocks_are_read_again_however_long_disks_take(tmp_path, monkeypatch):
    monkeypatch.setattr(block, "WHOLE_PART_ROWS", 4)
    synced, remove = whole.sync_file, build.remove

    def sync_late(path):
        time.sleep(0.01)
        synced(path)

    def remove_long_before(path):
        remove(path)
        time.sleep(0.05)

    monkeypatch.setattr(whole, "sync_file", sync_late)
    monkeypatch.setattr(build, "remove", remove_long_before)
    true, written = sessions(trading_days(periods=16))
    times, _ = read(write(tmp_path / "x.csv", written), 300, session_start="21:00")
    assert (times == true).all()


def test_without_the_flag_it_is_refused_and_the_error_says_what_reads_it(tmp_path):
    true, written = sessions(trading_days())
    path = write(tmp_path / "x.csv", written)
    for block_bytes in (900, None):
        with pytest.raises(BadRowsError) as caught:
            read(path, block_bytes)
        assert "--sort" not in str(caught.value)
        assert "--session-start 21:00" in str(caught.value)
    assert (read(path, session_start="21:00")[0] == true).all()


@pytest.mark.parametrize("block_bytes", [3000, None])
def test_a_night_session_written_newest_first_is_offered_both_flags(tmp_path, block_bytes):
    true, written = sessions(trading_days())
    path = write(tmp_path / "x.csv", written[::-1])
    with pytest.raises(BadRowsError) as caught:
        read(path, block_bytes)
    [rules] = follow(str(caught.value).rpartition("Remedy:")[2])
    assert (rules.sort, rules.session_start) == (True, "21:00")
    times, volume = read(path, block_bytes, "d", sort=True, session_start="21:00")
    assert (times == true).all()
    np.testing.assert_array_equal(volume, np.arange(len(true))[::-1])


def test_files_of_night_sessions_the_newest_first_are_offered_both_flags(tmp_path):
    true, written = sessions(trading_days())
    halves = written < written[500].normalize(), written >= written[500].normalize()
    paths = [write(tmp_path / f"{n}.csv", written[half]) for n, half in enumerate(halves[::-1])]
    with pytest.raises(BadRowsError) as caught:
        prepare_bars(paths, tmp_path / "c", BarRules(), HERE)
    [rules] = follow(str(caught.value).rpartition("Remedy:")[2])
    bars = prepare_bars(paths, tmp_path / "d", rules, HERE)
    assert (bars.read(0, bars.n_rows)["timestamp"].view("M8[ns]") == true).all()


def test_files_of_one_day_in_no_order_are_no_evenings(tmp_path):
    true = pd.date_range("2024-01-02", periods=360, freq="min")
    runs = {"10": true[270:], "2": true[:90], "3": true[90:270]}  # as a folder lists them
    paths = [write(tmp_path / f"{name}.csv", run) for name, run in runs.items()]
    with pytest.raises(BadRowsError) as caught:
        prepare_bars(paths, tmp_path / "c", BarRules(), HERE)
    [rules] = follow(str(caught.value).rpartition("Remedy:")[2])
    assert (rules.sort, rules.session_start) == (True, None)
    bars = prepare_bars(paths, tmp_path / "d", rules, HERE)
    assert (bars.read(0, bars.n_rows)["timestamp"].view("M8[ns]") == true).all()


def test_the_last_date_before_stands_in_whichever_file(tmp_path):
    true, written = sessions(trading_days())
    folder = tmp_path / "months"
    folder.mkdir()
    for month in range(1, 5):
        write(folder / f"{month}.csv", written[written.month == month])
    assert (read(folder, session_start="18:00")[0] == true).all()


def test_symbols_share_the_dates_before_theirs(tmp_path):
    true, written = sessions(trading_days())
    day = pd.Timestamp("2024-03-07")
    kept = written.normalize() != day  # B has no bars on a day, and its evening after is A's
    rows = [f"{line},A" for line in lines(written)]
    rows += [f"{line},B" for line in np.array(lines(written))[kept]]
    path = tmp_path / "x.csv"
    path.write_text("\n".join([f"{HEADER},symbol", *rows]))
    times, _ = read(path, 1100, session_start="18:00")
    assert (times == true.append(true[kept])).all()


def test_in_a_zone_evenings_move_on_its_clock(tmp_path):
    true, written = sessions(trading_days("2024-02-20"))
    true = true.tz_localize("America/New_York").tz_convert(None)
    rules = {"session_start": "18:00", "timezone": "America/New_York"}
    path = write(tmp_path / "x.csv", written)
    assert (read(path, 1000, **rules)[0] == true).all()
    frame = pd.DataFrame({"timestamp": written.tz_localize("America/New_York")})
    frame = frame.assign(open=10.0, high=12.0, low=9.0, close=11.0, volume=1)
    frame.to_parquet(tmp_path / "y.parquet", row_group_size=100)
    assert (read(tmp_path / "y.parquet", **rules)[0] == true).all()


def test_lines_that_the_fast_reader_leaves_move_likewise(tmp_path):
    true, written = sessions(trading_days())
    rows = [
        line.replace(",11,", ",11.00000000000000000001,") if n % 3 else line
        for n, line in enumerate(lines(written))
    ]
    path = tmp_path / "x.csv"
    path.write_text("\n".join([HEADER, *rows]))
    for block_bytes in (300, None):
        times, _ = read(path, block_bytes, str(block_bytes), session_start="18:00")
        assert (times == true).all()


@pytest.mark.parametrize("start", ["18", "25:00", "6pm", "18:00:00", ""])
def test_a_session_starts_at_a_time_of_day(start):
    with pytest.raises(UsageError, match="session_start"):
        BarRules(session_start=start)


def remedy(path, block_bytes=None):
    with pytest.raises(BadRowsError) as caught:
        prepare_bars(path, "c", BarRules(), HERE, block_bytes)
    return str(caught.value).rpartition("Remedy:")[2]


@pytest.fixture
def hours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return pd.date_range("2024-01-02", periods=400, freq="h")


def test_sorting_is_offered_where_times_run_backwards_as_a_whole_or_by_file(tmp_path, hours):
    for number, block_bytes in enumerate([500, None]):
        path = write(tmp_path / f"newest-{number}.csv", hours[::-1])
        assert "--sort" in remedy(path, block_bytes)
        assert (read(path, sort=True)[0] == hours).all()
    for number in range(4):
        write(tmp_path / f"file-{number}.csv", hours[100 * (3 - number) :][:100])
    assert "--sort" in remedy("file-*.csv")
    chunks = np.concatenate([hours[200:], hours[100:200], hours[:100]])
    assert "--sort" in remedy(write(tmp_path / "chunks.csv", pd.DatetimeIndex(chunks)))


def test_sorting_is_not_offered_where_it_would_mix_what_does_not_belong_together(tmp_path, hours):
    two = pd.DatetimeIndex(np.concatenate([hours, hours + pd.Timedelta(minutes=1)]))
    for block_bytes in (900, None):
        text = remedy(write(tmp_path / "two.csv", two), block_bytes)  # two symbols, one by one
        assert "--sort" not in text
        assert "symbols" in text
    write(tmp_path / "a.csv", hours)
    write(tmp_path / "b.csv", hours + pd.Timedelta(minutes=1))
    text = remedy(["a.csv", "b.csv"])
    assert "--sort" not in text
    [rules] = follow(text)
    assert rules.symbol_from == "filename"
    bars = prepare_bars(["a.csv", "b.csv"], "d", rules, HERE, 700)
    assert (bars.symbols, bars.n_rows) == (("a", "b"), 800)
    shuffled = np.random.default_rng(0).permutation(hours)
    assert "--sort" not in remedy(write(tmp_path / "any.csv", pd.DatetimeIndex(shuffled)))


def test_what_the_errors_about_times_and_prices_offer_works_in_a_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    true, days = sessions(trading_days())
    write(tmp_path / "x.csv", days)
    [rules] = follow(remedy("x.csv"))
    got = prepare_bars("x.csv", "c", rules, HERE)
    assert (got.read(0, got.n_rows)["timestamp"].view("M8[ns]") == pd.DatetimeIndex(true)).all()

    (tmp_path / "y.csv").write_text(f"{HEADER}\n2024-01-02,09:30,-5,-4,-9,-6,1\n")
    allowed, *_ = follow(remedy("y.csv"))
    assert prepare_bars("y.csv", "c", allowed, HERE).n_rows == 1

    (tmp_path / "z.csv").write_text(f"{HEADER}\n" + f"2024-01-02,09:30,{BAR}\n" * 2)
    with pytest.raises(BadRowsError) as caught:
        prepare_bars("z.csv", "c", BarRules(duplicates="raise"), HERE)
    flags = offers(str(caught.value))
    assert [rules_of(flag).duplicates for flag in flags] == ["first", "last"]
