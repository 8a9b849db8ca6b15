"""Decisions on bars that arrive one by one are those of the store, and outlive the process."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from advice import offers, words
from simulated import write_bars

import grandbatch as gb
from grandbatch import serving
from grandbatch.cli import serving as command
from grandbatch.errors import BadRowsError, CheckpointError, UsageError
from grandbatch.evaluation.walking import decide, read_tape
from grandbatch.experiment import wire_training
from grandbatch.live.reading import doubts
from grandbatch.mappo import Team
from grandbatch.serving import LiveTeam


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bars of two symbols with a gap, a store of them, and a team trained a little on it."""
    path = tmp_path_factory.mktemp("serving")
    lines = write_bars(path / "whole.csv", 900, symbols=2).read_text().splitlines()
    kept = [line for number, line in enumerate(lines) if not 400 < number < 420]
    (path / "bars.csv").write_text("\n".join(kept) + "\n")
    store = gb.build_store(
        path / "bars.csv", path / "s.zarr", overlap=47, max_gap="30min", durable=False
    )
    splits = gb.split_store(store, {"train": 0.6, "validation": 0.4})
    processor, trainer = wire_training(store, gb.BatchConfig(), path / "run", splits, epochs=2)
    for _ in processor.process_batches(trainer):
        pass
    return path


@pytest.fixture(scope="module")
def bars(folder):
    frame = gb.read_bars(folder / "bars.csv", cache=folder / "cache").compute()
    # as they arrive: by time, symbols side by side
    frame = frame.sort_values(["timestamp", "symbol"], kind="stable")
    return [
        {**bar, "timestamp": bar["timestamp"].isoformat(), "symbol": str(bar["symbol"])}
        for bar in frame.to_dict("records")
    ]


def decisions(team, bars):
    return [team.decide(bar) for bar in bars]


@pytest.mark.slow
def test_decisions_are_those_of_the_team_over_the_stores_windows(folder, bars):
    store = gb.MatrixStore.open(folder / "s.zarr")
    tape = read_tape(store, None)
    wanted = dict(zip(
        zip(tape.symbol.tolist(), tape.time.tolist(), strict=True),
        decide([Team.from_checkpoint(folder / "run")], store, tape)[0].tolist(), strict=True,
    ))  # fmt: skip
    answers = decisions(LiveTeam.from_checkpoint(folder / "run"), bars)
    times = [np.datetime64(bar["timestamp"][:19], "ns").astype(int) for bar in bars]
    found = {
        (store.symbols.index(one["symbol"]), time_): one["exposure"]
        for one, time_ in zip(answers, times, strict=True)
        if one["exposure"] is not None
    }
    assert len(wanted) > 400
    assert {key: found[key] for key in wanted} == wanted
    # the last bar of a segment has a window too, but nothing to earn
    assert len(found) == len(wanted) + store.attrs["n_segments"]
    waiting = [
        one["bars_missing"] for one in answers if "bars_missing" in one and one["symbol"] == "S1"
    ]
    assert waiting == list(range(87, 0, -1))


@pytest.mark.slow
def test_a_team_goes_on_from_its_saved_state_to_the_bit(folder, bars, tmp_path):
    whole = decisions(LiveTeam.from_checkpoint(folder / "run"), bars)
    for stop in (100, 810):
        first = LiveTeam.from_checkpoint(folder / "run")
        before = decisions(first, bars[:stop])
        first.save(tmp_path / "state")
        second = LiveTeam.from_checkpoint(folder / "run")
        second.load(tmp_path / "state")
        assert second.n_bars == stop
        assert before + decisions(second, bars[stop:]) == whole


def test_a_bar_that_is_none_changes_nothing_and_says_why(folder, bars):
    team = LiveTeam.from_checkpoint(folder / "run")
    plain = decisions(LiveTeam.from_checkpoint(folder / "run"), bars[:300])
    found = []
    for number, bar in enumerate(bars[:300]):
        if number % 7 == 3:
            for wrong, reason in (
                ({**bars[number - 2], "symbol": bars[number - 1]["symbol"]}, "duplicate_timestamp"),
                ({**bar, "high": 0.1}, "ohlc_inconsistent"),
                ({**bar, "volume": None}, "missing"),
                ({**bar, "close": "many"}, "unparseable"),
            ):
                with pytest.raises(BadRowsError) as caught:
                    team.decide(wrong)
                assert caught.value.reason in (reason, "out_of_order")
        found.append(team.decide(bar))
    assert found == plain


def test_a_damaged_or_foreign_state_is_refused(folder, bars, tmp_path):
    team = LiveTeam.from_checkpoint(folder / "run")
    decisions(team, bars[:50])
    path = tmp_path / "state"
    team.save(path)
    data = bytearray(path.read_bytes())
    for place in np.random.default_rng(0).integers(0, len(data), 40).tolist():
        broken = bytearray(data)
        broken[place] ^= 1
        path.write_bytes(broken)
        with pytest.raises(CheckpointError):
            LiveTeam.from_checkpoint(folder / "run").load(path)
    path.write_bytes(data)
    other = LiveTeam.from_checkpoint(folder / "run", max_gap="2h")
    with pytest.raises(CheckpointError, match=r"another team's bars \(max_gap_ns\)"):
        other.load(path)
    with pytest.raises(CheckpointError, match="another team's bars"):
        other.load(gb.CheckpointManager(folder / "run", content_id="").latest())
    with pytest.raises(UsageError, match="not the state of live strategic features"):
        team.live.load_state_dict({"S0": {"bars": {}, "rows": np.zeros((1, 13)), "last_time": 0}})


def test_features_that_the_team_was_not_trained_on_are_refused(folder):
    with pytest.raises(CheckpointError, match="give the set that it was trained on"):
        LiveTeam.from_checkpoint(folder / "run", "tactical")


def test_a_team_of_a_set_that_must_be_named_is_told_how(folder, monkeypatch):
    monkeypatch.setattr(serving.Provenance, "of_checkpoint", lambda _: None)
    with pytest.raises(UsageError, match="which feature set") as caught:
        LiveTeam.from_checkpoint(folder / "run")
    _, name = words(offers(str(caught.value))[0])
    assert LiveTeam.from_checkpoint(folder / "run", name).n_bars == 0


def test_a_team_of_an_own_set_is_served_with_the_set_where_it_stands(folder, tmp_path, monkeypatch):
    (tmp_path / "features.py").write_text(
        "import grandbatch as gb\nMINE = gb.FeatureSet('mine', gb.STRATEGIC.features, 48, 12)\n"
    )
    monkeypatch.chdir(tmp_path)
    store = gb.build_store(folder / "bars.csv", "m.zarr", feature_set="features.py:MINE")
    processor, _ = wire_training(store, gb.BatchConfig(), tmp_path / "run", epochs=1)
    for _ in processor.process_batches(wire_training(store, gb.BatchConfig(), tmp_path / "x")[1]):
        pass
    with pytest.raises(UsageError, match="a set of your own") as caught:
        LiveTeam.from_checkpoint(tmp_path / "run")
    _, name = words(offers(str(caught.value))[0])
    assert LiveTeam.from_checkpoint(tmp_path / "run", name).live.feature_set.name == "mine"


def serve(folder, *flags, **options):
    command = [sys.executable, "-m", "grandbatch", "serve", "--checkpoint-dir", folder / "run"]
    return subprocess.Popen(
        [*map(str, (*command, *flags))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def lines_of(bars):
    return "".join(json.dumps(bar) + "\n" for bar in bars)


@pytest.mark.slow
def test_a_server_killed_in_the_middle_loses_what_was_not_saved_and_no_more(folder, bars, tmp_path):
    whole = decisions(LiveTeam.from_checkpoint(folder / "run"), bars)
    flags = ("--state", tmp_path / "state", "--save-every", "50", "--confidence")
    with serve(folder, *flags[:4]) as child:
        child.stdin.write(lines_of(bars[:230]))
        child.stdin.flush()
        answers = [json.loads(child.stdout.readline()) for _ in range(230)]
        child.kill()
    assert answers == whole[:230]
    again = LiveTeam.from_checkpoint(folder / "run")
    again.load(tmp_path / "state")
    assert again.n_bars == 200
    with serve(folder, *flags) as child:
        # all that is not known to be saved comes again; a line in between is no bar
        sent = lines_of(bars[190:240]) + "no bar\n" + '{"timestamp": 1700000000, "symbol": "S0"}\n'
        out, err = child.communicate(sent + lines_of(bars[240:]))
    found = [json.loads(line) for line in out.splitlines()]
    assert child.returncode == 0, err
    assert all(one["reason"] in ("out_of_order", "duplicate_timestamp") for one in found[:10])
    assert [one["reason"] for one in found[50:52]] == ["unparseable", "unparseable"]
    assert offers(found[51]["error"]) == ["--epoch-unit s"]
    told = found[10:50] + found[52:]
    assert all(one.pop("is_calibrated", True) is True for one in told)
    confident = [one for one in told if one["exposure"] is not None]
    assert all(0.5 <= one.pop("confidence") <= 1 and one.pop("level") for one in confident)
    assert told == whole[200:]
    assert "after 200 bars" in err
    assert "99 % of them" in err
    again.load(tmp_path / "state")
    assert again.n_bars == len(bars)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_a_server_between_two_bars_its_state_saved(folder, bars, tmp_path, number):
    with serve(folder, "--state", tmp_path / "state") as child:
        child.stdin.write(lines_of(bars[:20]))
        child.stdin.flush()
        for _ in range(20):
            child.stdout.readline()
        time.sleep(0.05)
        child.send_signal(number)
        assert child.wait() == 0
        assert "Traceback" not in child.stderr.read()
    team = LiveTeam.from_checkpoint(folder / "run")
    team.load(tmp_path / "state")
    assert team.n_bars == 20


@pytest.mark.slow
def test_a_state_behind_a_link_is_gone_on_from_and_saved_there(folder, bars, tmp_path):
    kept, link = tmp_path / "kept", tmp_path / "link"
    link.symlink_to(kept)
    with serve(folder, "--state", link) as child:
        _, err = child.communicate(lines_of(bars[:3]))
    assert child.returncode == 2
    assert f"{link} is a link to {kept}, and nothing is there" in " ".join(err.split())
    assert link.is_symlink()
    LiveTeam.from_checkpoint(folder / "run").save(kept)
    with serve(folder, "--state", link) as child:
        _, err = child.communicate(lines_of(bars[:20]))
    assert child.returncode == 0, err
    assert link.is_symlink()
    team = LiveTeam.from_checkpoint(folder / "run")
    team.load(kept)
    assert team.n_bars == 20


@pytest.mark.slow
def test_an_exported_policy_decides_as_the_team(folder, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    team = Team.from_checkpoint(folder / "run")
    matrices = gb.MatrixStore.open(folder / "s.zarr").matrices[:300]
    held = np.random.default_rng(0).integers(-6, 7, 300) / 6
    wanted = team.act(torch.from_numpy(matrices), torch.from_numpy(held))
    assert len(wanted.exposure.unique()) > 1
    path = team.export(tmp_path / "policy.onnx")
    assert list(tmp_path.iterdir()) == [path]
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for stop in (1, 7, 300):
        actions, exposure = session.run(
            None, {"matrices": matrices[:stop], "exposure": held[:stop]}
        )
        np.testing.assert_array_equal(actions, wanted.actions[:stop])
        np.testing.assert_array_equal(exposure, wanted.exposure[:stop])


@pytest.mark.filterwarnings("ignore:`torch.jit.*deprecated")
def test_a_torchscript_policy_decides_as_the_team(folder, tmp_path):
    team = Team.from_checkpoint(folder / "run")
    matrices = torch.from_numpy(gb.MatrixStore.open(folder / "s.zarr").matrices[:300])
    held = torch.from_numpy(np.random.default_rng(0).integers(-6, 7, 300) / 6)
    wanted = team.act(matrices, held)
    loaded = torch.jit.load(team.export(tmp_path / "policy.pt"))
    for stop in (1, 300):
        actions, exposure = loaded(matrices[:stop], held[:stop])
        assert torch.equal(actions, wanted.actions[:stop])
        assert torch.equal(exposure, wanted.exposure[:stop])
    with pytest.raises(UsageError, match=r"NAME.onnx \(ONNX\) or NAME.pt"):
        team.export(tmp_path / "policy.bin")


def test_a_live_state_keeps_the_last_values_of_extra_columns(bars):
    own = gb.FeatureSet("own", [gb.column("funding"), *gb.STRATEGIC.features[:1]], 4)
    told = [
        {**bar, **({"funding": float(number)} if number % 5 == 0 else {})}
        for number, bar in enumerate(bars[:60])
        if bar["symbol"] == "S0"
    ]
    whole, first, second = (gb.LiveFeatures(own, fill={"funding": "last"}) for _ in range(3))
    wanted = [whole.push(bar) for bar in told]
    found = [first.push(bar) for bar in told[:13]]
    second.load_state_dict(first.state_dict())
    found += [second.push(bar) for bar in told[13:]]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    assert second.identity != gb.LiveFeatures(own).identity


@pytest.mark.slow
def test_a_feed_may_write_names_in_any_case_and_dates_day_first(folder, bars, tmp_path):
    whole = decisions(LiveTeam.from_checkpoint(folder / "run"), bars[:230])
    told = []
    for bar in bars[:230]:
        time_ = np.datetime64(bar["timestamp"][:19]).item()
        told.append({
            name.title() if name != "close" else " <CLOSE>": value for name, value in bar.items()
        } | {"Timestamp": f"{time_.day}/{time_.month}/{time_:%Y %H:%M}"})  # fmt: skip
    strange = (
        {"Timestamp": 1e308, "Symbol": "S0"},
        {"Timestamp": 10**400, "Symbol": "S0"},
        {"Open": 1, "OPEN": 2},
        {**told[-1], "Close": True, " <CLOSE>": True},
        {**told[-1], "Timestamp": "now"},
    )
    with serve(folder, "--dayfirst", "--epoch-unit", "s") as child:
        out, err = child.communicate(lines_of([*told, *strange]))
    assert child.returncode == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    for one, bar, wanted in zip(found, told, whole, strict=False):
        assert one == {**wanted, "timestamp": bar["Timestamp"]}
    assert [one["reason"] for one in found[230:]] == ["unparseable"] * 5
    assert "2 columns are named 'Open'; for the first of them, add --columns" in found[232]["error"]


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ({"timestamp": "ts", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v",
          "symbol": "ticker"}, {}),
        ({"timestamp": "Open time", "open": "Open", "high": "High", "low": "Low",
          "close": "Close/Last", "volume": "Volume BTC"}, {}),
        ({"low": "Llow", "close": "mid", "symbol": "which"},
         {"low": "Llow", "close": "mid", "symbol": "which"}),
    ],
)  # fmt: skip
def test_a_feed_may_use_the_names_that_a_file_may(folder, bars, names, columns):
    plain = LiveTeam.from_checkpoint(folder / "run")
    other = LiveTeam.from_checkpoint(folder / "run", columns=columns)
    for bar in bars[:200]:
        wanted = plain.decide(bar)
        assert other.decide({names.get(name, name): v for name, v in bar.items()}) == wanted


def test_a_date_of_which_day_and_month_are_not_known_is_refused_with_what_tells(folder, bars):
    team = LiveTeam.from_checkpoint(folder / "run")
    with pytest.raises(BadRowsError, match="--dayfirst if the day comes first"):
        team.decide({**bars[0], "timestamp": "2/7/2025 9:30"})
    with pytest.raises(BadRowsError) as caught:
        team.decide({**bars[0], "timestamp": "32/32/2025 9:30"})
    assert "--dayfirst" not in str(caught.value)
    told = LiveTeam.from_checkpoint(folder / "run", dayfirst=True)
    told.decide({**bars[0], "timestamp": "2/7/2025 9:30"})
    (time_,) = told.live.last_times.values()
    assert np.datetime64(time_, "ns") == np.datetime64("2025-07-02T09:30")


def test_date_and_time_in_columns_of_their_own_make_a_timestamp(folder, bars):
    plain, other = (LiveTeam.from_checkpoint(folder / "run") for _ in range(2))
    for bar in bars[:20]:
        wanted = plain.decide(bar)
        date, time_ = bar["timestamp"][:19].split("T")
        rest = {name: value for name, value in bar.items() if name != "timestamp"}
        found = other.decide({"Date": date, "Time": time_, **rest})
        assert found == {**wanted, "timestamp": f"{date} {time_}"}


def test_a_column_that_is_missing_is_named_with_what_was_likely_meant(folder, bars):
    team = LiveTeam.from_checkpoint(folder / "run")
    wrong = {("Llow" if name == "low" else name): value for name, value in bars[0].items()}
    with pytest.raises(
        BadRowsError, match=r"'Llow' looks like low\. If so, add --columns low=Llow"
    ):
        team.decide(wrong)
    for wrong in ({}, {"timestamp": bars[0]["timestamp"]}, {"": 1, "x": 2}, {1: 2}):
        with pytest.raises(BadRowsError, match="missing"):
            team.decide(wrong)
    mapped = LiveTeam.from_checkpoint(folder / "run", columns={"low": "Llow"})
    with pytest.raises(BadRowsError, match="low=Llow maps a header that isn't there"):
        mapped.decide(bars[0])


def test_bars_without_a_volume_have_one_of_0_where_there_is_none(folder, bars):
    plain = LiveTeam.from_checkpoint(folder / "run")
    without = LiveTeam.from_checkpoint(folder / "run", no_volume=True)
    for bar in bars[:200]:
        rest = {name: value for name, value in bar.items() if name != "volume"}
        assert without.decide(rest) == plain.decide({**bar, "volume": 0})
    assert without.live.identity != plain.live.identity


@pytest.mark.slow
def test_the_state_of_another_team_is_refused_by_its_name_unless_it_is_taken_over(
    folder, bars, tmp_path
):
    store = gb.MatrixStore.open(folder / "s.zarr")
    splits = gb.split_store(store, {"train": 0.6, "validation": 0.4})
    config = gb.BatchConfig(seed=1)
    processor, trainer = wire_training(store, config, tmp_path / "second", splits)
    for _ in processor.process_batches(trainer):
        pass
    first = LiveTeam.from_checkpoint(folder / "run")
    decisions(first, bars[:220])
    first.save(tmp_path / "state")
    second = LiveTeam.from_checkpoint(tmp_path / "second")
    with pytest.raises(CheckpointError, match=r"another team, of .*run.*--take-over") as e:
        second.load(tmp_path / "state")
    assert str(tmp_path / "second") in str(e.value)
    assert second.n_bars == 0
    second.load(tmp_path / "state", take_over=True)
    assert second.n_bars == 220
    same = LiveTeam(Team.from_checkpoint(folder / "run"), first.live)
    same.load(tmp_path / "state")
    with serve(tmp_path, "--state", tmp_path / "state", "--checkpoint-dir", tmp_path / "second"
               ) as child:  # fmt: skip
        _, err = child.communicate(lines_of(bars[220:230]))
    assert child.returncode == 1
    assert "--take-over" in " ".join(err.split())


def test_a_window_of_one_bar_starts_flat_behind_a_gap(tmp_path):
    write_bars(tmp_path / "bars.csv", 300)
    lines = (tmp_path / "bars.csv").read_text().splitlines()
    kept = [line for number, line in enumerate(lines) if number < 150 or number % 10 > 3]
    (tmp_path / "bars.csv").write_text("\n".join(kept) + "\n")
    single = gb.FeatureSet("strategic", [gb.STRATEGIC.features[0]], 1)
    feature = single.with_window(1)
    store = gb.build_store(
        tmp_path / "bars.csv", tmp_path / "s.zarr", feature_set=feature, max_gap="5min",
        overlap=0, durable=False, cache=tmp_path / "cache",
    )  # fmt: skip
    assert store.attrs["n_segments"] > 10
    processor, trainer = wire_training(store, gb.BatchConfig(), tmp_path / "run", epochs=1)
    for _ in processor.process_batches(trainer):
        pass
    tape = read_tape(store, None)
    wanted = decide([Team.from_checkpoint(tmp_path / "run")], store, tape)[0]
    live = LiveTeam.from_checkpoint(tmp_path / "run", feature, max_gap="5min")
    frame = gb.read_bars(tmp_path / "bars.csv", cache=tmp_path / "cache").compute()
    found = {
        bar["timestamp"].value: live.decide(bar)["exposure"] for bar in frame.to_dict("records")
    }
    assert [found[one] for one in tape.time.tolist()] == wanted.tolist()


def served(folder, lines, monkeypatch):
    """What a server answers in this process."""
    out = io.StringIO()
    text = io.TextIOWrapper(io.BytesIO("".join(f"{line}\n" for line in lines).encode()))
    monkeypatch.setattr(sys, "stdin", text)
    monkeypatch.setattr(sys, "stdout", out)
    try:
        command.serve.__wrapped__(folder / "run", reading={})
    finally:
        monkeypatch.undo()
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_feed_without_a_single_bar_is_an_error_and_one_with_bars_is_none(
    folder, bars, monkeypatch, caplog
):
    caplog.set_level("INFO")
    bad = ["soon", '{"timestamp": "2024-01-02", "open": 1}']
    with pytest.raises(BadRowsError, match=r"not one of 2 lines was a bar.*no JSON"):
        served(folder, bad, monkeypatch)
    answers = served(folder, [*bad, json.dumps(bars[0])], monkeypatch)
    assert ["error" in answer for answer in answers] == [True, True, False]
    assert "nothing was decided yet: a segment's first decision comes with its bar number 88" in (
        caplog.text
    )
    assert served(folder, [], monkeypatch) == []
    assert "no bar came" in caplog.text


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A team trained on bars with days first, local times, scaled prices and names of their own."""
    path = tmp_path_factory.mktemp("written")
    frame = pd.read_csv(write_bars(path / "plain.csv", 500))
    times = pd.to_datetime(frame["timestamp"], utc=True)
    local = times.dt.tz_convert("America/New_York").dt.strftime("%d/%m/%Y %H:%M:%S")
    prices = {name: (frame[name] * 100).round().astype(int) for name in ("open", "high", "close")}
    own = pd.DataFrame({
        "when": local, **prices, "Llow": (frame["low"] * 100).round().astype(int),
        "traded": frame["volume"], "trades": range(len(frame)),
    })  # fmt: skip
    own.to_csv(path / "own.csv", index=False)
    rules = gb.BarRules(
        columns={"timestamp": "when", "low": "Llow", "volume": "traded"}, extra=("trades",),
        timezone="America/New_York", price_scale=0.01,
    )  # fmt: skip
    store = gb.build_store(path / "own.csv", path / "s.zarr", overlap=47, rules=rules,
                           durable=False)  # fmt: skip
    processor, trainer = wire_training(store, gb.BatchConfig(), path / "run")
    for _ in processor.process_batches(trainer):
        pass
    return path, own.to_dict("records")


def test_bars_are_read_as_those_learnt_from_without_being_told(written, monkeypatch, caplog):
    path, bars = written
    caplog.set_level("INFO")
    answers = served(path, map(json.dumps, bars), monkeypatch)
    assert not [one for one in answers if "error" in one]
    assert "--dayfirst" in caplog.text
    assert "--timezone America/New_York --price-scale 0.01" in caplog.text
    team = LiveTeam.from_checkpoint(path / "run")
    found = [team.live.push(bar) for bar in bars]
    store = gb.MatrixStore.open(path / "s.zarr")
    assert store.attrs["rules"] == {
        "columns": {"low": "Llow", "timestamp": "when", "volume": "traded"},
        "extra": ["trades"], "fill": {"trades": "require"},
        "timezone": "America/New_York", "price_scale": 0.01,
    }  # fmt: skip
    assert team.live.last_times == {"default": store.attrs["last_time"]}
    for window, matrix in enumerate([one for one in found if one is not None]):
        assert matrix.tobytes() == store.matrices[window].tobytes()


def test_what_is_said_stands_before_how_bars_were_written(written):
    path, bars = written
    names = {"when": "timestamp", "Llow": "low", "traded": "volume"}
    plain = [{names.get(name, name): value for name, value in bar.items()} for bar in bars]
    asked = LiveTeam.from_checkpoint(path / "run", dayfirst=False, timezone="UTC", price_scale=1.0)
    known = LiveTeam.from_checkpoint(path / "run")
    bar = {**plain[0], "timestamp": "02/07/2025 09:30:00"}
    for team, time_, price in ((asked, "2025-02-07T09:30", 1), (known, "2025-07-02T13:30", 0.01)):
        team.decide(bar)
        assert team.live.last_times == {"default": np.datetime64(time_, "ns").astype(int)}
        (state,) = team.live.state_dict().values()
        assert state["bars"]["close"].tolist() == [pytest.approx(bar["close"] * price)]


def test_the_hour_that_clocks_show_twice_is_told_by_the_bar_before():
    live = gb.LiveFeatures("strategic", timezone="America/New_York")
    values = dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)
    seen = []
    for clock in ("00:30", "01:00", "01:30", "01:00", "01:30", "02:00"):
        live.push({"timestamp": f"2024-11-03 {clock}", **values})
        seen.append(live.last_times["default"])
    assert np.diff(seen).tolist() == [1_800_000_000_000] * 5
    with pytest.raises(BadRowsError, match="timestamp must be a time"):
        live.push({"timestamp": "2025-03-09 02:30", **values})


@pytest.mark.parametrize(
    ("given", "time_"),
    [
        ({"time_numbers": "s"}, 1_704_214_800),
        ({"time_numbers": "ms"}, "1704214800000"),
        ({"time_numbers": "date"}, 20240102170000),
        ({"timezone": "America/New_York"}, pd.Timestamp("2024-01-02 12:00")),
        ({"time_numbers": "HHMM"}, "2024-01-02 1700"),
        ({"timestamp_format": "%d.%m.%y %H:%M"}, "02.01.24 17:00"),
        ({"timestamp_format": "%d.%m.%y %H:%M"}, "2024-01-02T17:00Z"),
        ({"like": {"day_first": [None, False], "time_numbers": [None]}}, "1/2/2024 17:00"),
        ({"like": {"rules": {"timestamp_format": "%d.%m.%y %H:%M"}}}, "02.01.24 17:00"),
        ({"like": {"time_numbers": ["us", "us"]}}, 1_704_214_800_000_000),
    ],
)
def test_times_are_read_by_what_is_known_of_them(given, time_):
    live = gb.LiveFeatures("strategic", **given)
    live.push({"timestamp": time_, **dict.fromkeys(("open", "high", "low", "close", "volume"), 1)})
    assert live.last_times == {"default": 1_704_214_800_000_000_000}


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ({"day_first": [True, False]}, "--dayfirst or --no-dayfirst"),
        ({"rules": {"session_start": "18:00"}}, "the date on which it began"),
        ({"rules": {"resample": {"length_ns": 1_800_000_000_000}}}, "those of 30min"),
    ],
)
def test_what_a_store_does_not_tell_is_asked_for(attrs, words):
    (said,) = doubts(attrs)
    assert words in said
    assert "dayfirst" not in gb.LiveFeatures("strategic", like=attrs).read_as


def test_a_date_that_can_only_be_one_offers_that_flag_alone(folder, bars):
    for time_, flag in (("26/06/2025 9:30", "--dayfirst"), ("6/26/2025 9:30", "--no-dayfirst")):
        team = LiveTeam.from_checkpoint(folder / "run")
        with pytest.raises(BadRowsError) as caught:
            team.decide({**bars[0], "timestamp": time_})
        assert "told apart" not in str(caught.value)
        assert offers(str(caught.value)) == [flag]
        told = LiveTeam.from_checkpoint(folder / "run", dayfirst=flag == "--dayfirst")
        told.decide({**bars[0], "timestamp": time_})


def test_a_bar_that_lacks_columns_under_names_of_its_own_is_refused_not_fatal(folder):
    team = LiveTeam.from_checkpoint(folder / "run")
    bar = {"Timestamp": "2024-01-02", "Symbol": "S0", "Llow": 1, "Open": 2, "hi": 3, "c": 4}
    with pytest.raises(BadRowsError, match="'Llow' looks like low"):
        team.decide(bar)
