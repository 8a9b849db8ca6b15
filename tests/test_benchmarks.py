"""Benchmarks load, count what is better the right way round, and are told alike."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"


@pytest.fixture
def measuring(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import measuring

    yield measuring
    del sys.modules["measuring"]


@pytest.fixture
def picture(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER / "peers"))
    import picture

    yield picture
    del sys.modules["picture"]


@pytest.mark.slow
def test_every_benchmark_loads():
    names = [path.stem for path in sorted(FOLDER.glob("*.py"))]
    assert {"build", "loader", "measuring", "quick"} < set(names)
    code = "".join(f"import {name}\n" for name in names)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_rate_is_better_the_more_and_a_cost_the_less(measuring):
    rate = measuring.Row("read", 6.0, "M bars/s", goal=5.0, limit=8.0, peer=2.0)
    cost = measuring.Row("read", 4.0, "ms", goal=5.0, limit=3.0, peer=8.0, is_cost=True)
    assert (rate.times(rate.limit), rate.times(rate.peer), rate.reached) == (0.75, 3.0, True)
    assert (cost.times(cost.limit), cost.times(cost.peer), cost.reached) == (0.75, 2.0, True)
    assert measuring.Row("read", 4.0, "M bars/s", goal=5.0).reached is False
    assert measuring.Row("read", 6.0, "ms", goal=5.0, is_cost=True).reached is False
    assert measuring.Row("read", 6.0, "ms").reached is None


def test_rounds_take_turns_and_the_medians_are_told(measuring):
    asked, figures = [], {"a": iter([9.0, 1.0, 3.0, 2.0]), "b": iter([9.0, 5.0, 4.0, 6.0])}

    def case(name):
        asked.append(name)
        return {"figure": next(figures[name])}

    cases = {name: lambda name=name: case(name) for name in figures}
    found = measuring.in_turns(cases, 3, warm=1)
    assert asked == ["a", "b"] * 4
    assert found == {"a": {"figure": 2.0}, "b": {"figure": 5.0}}


def test_the_time_of_a_work_and_of_its_processes_is_counted(measuring):
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    call = [sys.executable, "-c", busy]
    found = measuring.metered(lambda: bool(subprocess.run(call, check=True)), family=True)
    assert found["processor"] == pytest.approx(found["user"] + found["system"])
    assert found["processor"] >= 0.2
    assert found["seconds"] >= 0.2
    assert measuring.metered(lambda: {"rows": 3})["rows"] == 3


def test_a_table_has_a_line_for_each_row_and_the_record_all_of_it(measuring, tmp_path, capsys):
    options = measuring.options_of("somewhere/thing.py", "What it does.", rounds=2).parse_args([])
    assert str(options.json) == "bench-results/thing.json"
    options.json = tmp_path / "deep" / "thing.json"
    cost = {"user": 1.5, "system": 0.25, "load": 2.0}
    rows = [
        measuring.Row("build", 6.0, "M bars/s", cost, goal=7.0, limit=8.0, peer=2.0, note="idle"),
        measuring.Row("start", 300.0, "ms", is_cost=True),
    ]
    measuring.report("somewhere/thing.py", rows, options, more=[1])
    head, build, start = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == (
        "figure unit goal limit of it peer times user s system s load"
    )
    told = ["build", "6.00", "M", "bars/s", "7.00", "MISSED", "8.00", "0.75", "2.00", "3.00"]
    assert build.split() == [*told, "1.50", "0.25", "2.00", "idle"]
    assert start.split() == ["start", "300", "ms"]
    record = json.loads(options.json.read_text())
    assert record["benchmark"] == "thing"
    assert record["options"] == {"rounds": 2}
    assert record["rows"][0]["of_limit"] == 0.75
    assert record["more"] == [1]


def test_the_readmes_picture_says_what_the_page_on_performance_says(picture):
    bars = picture.bars_of(picture.PAGE.read_text())
    assert ("grandbatch, rows", 4.02, "369") in bars
    assert len(bars) == 10
    for look in ("light", "dark"):
        drawn = (picture.IMAGES / f"peers-{look}.svg").read_text()
        assert drawn == picture.draw(bars, look)
    assert f'alt="{picture.alternative(bars)}"' in (ROOT / "README.md").read_text()


def test_a_bar_is_as_long_as_its_figure(picture):
    bars = [("grandbatch, rows", 4.0, "300"), ("half as fast", 2.0, "900")]
    lengths = re.findall(r'<rect[^>]* width="([\d.]+)"', picture.draw(bars, "dark"))
    assert float(lengths[0]) == 2 * float(lengths[1])
