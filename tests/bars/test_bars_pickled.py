"""Bars travel by their place, and are opened where they are used."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pandas as pd
import pytest
from distributed import Client, LocalCluster
from simulated import write_bars

import grandbatch as gb
from grandbatch.bars import prepare_bars
from grandbatch.errors import DamagedBarsError


def test_nothing_is_opened_while_bars_are_unpickled(tmp_path):
    source = write_bars(tmp_path / "b.csv", 300)
    bars = prepare_bars(source, tmp_path / "cache")
    closes = bars.read(0, 300, ("close",))["close"]
    data = pickle.dumps(bars)
    away = bars.path.rename(tmp_path / "away")
    copy, again = pickle.loads(data), pickle.loads(pickle.dumps(pickle.loads(data)))
    assert copy.fingerprint == bars.fingerprint
    with pytest.raises(DamagedBarsError, match="can't see the folder"):
        copy.read(0, 1)
    away.rename(bars.path)
    for opened in (copy, again):
        assert opened.read(0, 300, ("close",))["close"].tolist() == closes.tolist()


def test_relative_bars_are_read_from_any_folder(tmp_path, monkeypatch):
    write_bars(tmp_path / "b.csv", 300)
    monkeypatch.chdir(tmp_path)
    frame = gb.read_bars("b.csv", cache="cache")
    expected = frame.compute()
    (tmp_path / "frame").write_bytes(pickle.dumps(frame))
    code = (
        f"import pickle; print(len(pickle.load(open({str(tmp_path / 'frame')!r}, 'rb')).compute()))"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = os.pathsep.join(sys.path)
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == "300"
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as made,
        Client(made),
    ):
        monkeypatch.chdir(elsewhere)
        pd.testing.assert_frame_equal(frame.compute(), expected)
