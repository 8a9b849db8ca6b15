"""What is worth a look is said by a build, in the store, and first in its report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from simulated import write_bars
from typer.testing import CliRunner

import grandbatch as gb
from grandbatch.cli.main import app
from grandbatch.report import write_report


def run(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def with_short(folder, *lengths):
    """A file of bars with one symbol of 200 bars, and more of the given lengths."""
    path = write_bars(folder / "bars.csv", 200, symbols=1 + len(lengths))
    kept = []
    for line in path.read_text().splitlines():
        symbol = line.split(",")[1]
        place = int(symbol[1:]) if symbol[1:].isdigit() else 0
        limit = 201 if place == 0 else lengths[place - 1]
        if sum(f",{symbol}," in row for row in kept) < limit:
            kept.append(line)
    path.write_text("\n".join(kept) + "\n")
    return path


@pytest.mark.parametrize(
    ("lengths", "short"), [((87,), ["S1"]), ((88, 1, 87), ["S2", "S3"]), ((88, 200), [])]
)
def test_symbols_without_a_window_are_named(tmp_path, caplog, lengths, short):
    source, path = with_short(tmp_path, *lengths), tmp_path / "s.zarr"
    built = run("build", "strategic", source, "--store", path)
    assert built["symbols_without_windows"] == short
    seen = run("inspect", path)
    assert seen["symbols_without_windows"] == short
    assert seen["worth_a_look"] == built["worth_a_look"]
    again = run("build", "strategic", source, "--store", path)
    assert again["reused"]
    assert again["symbols_without_windows"] == short
    said = [line for line in caplog.messages if "no window" in line]
    assert len(said) == (2 if short else 0)  # once when built, once when reused
    write_report(gb.MatrixStore.open(path), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert ('id="worth-a-look"' in page) == bool(short)
    for line in said:
        assert line.endswith(f"bars without a break: {', '.join(short)}")
        assert page.index(line.partition("look: ")[2]) < page.index('id="made-of"')


def test_a_symbol_cut_into_short_segments_is_among_them(tmp_path):
    source = write_bars(tmp_path / "bars.csv", 200, symbols=2)
    lines = source.read_text().splitlines()
    # S1 lacks its 81st to 120th bar: two segments of 80
    source.write_text("\n".join([*lines[:281], *lines[321:]]) + "\n")
    store = gb.build_store(source, tmp_path / "s.zarr", max_gap="1h")
    assert store.attrs["symbols_without_windows"] == ["S1"]
    assert set(np.array(store.symbols)[store.symbol[:]]) == {"S0"}


def test_names_with_escape_sequences_do_not_reach_a_terminal(tmp_path, caplog):
    source = with_short(tmp_path, 20)
    source.write_text(source.read_text().replace(",S1,", ",\x1b[31mS1,"))
    run("build", "strategic", source, "--store", tmp_path / "s.zarr")
    assert "\x1b" not in caplog.text
    assert r"'\x1b[31mS1'" in caplog.text
